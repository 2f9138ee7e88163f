#include <tesla/data/idx.hpp>

#include "files.hpp"

#include <catch2/catch.hpp>

using Catch::Contains;
using Catch::StartsWith;
using tesla::FileError;
using tesla::FormatError;
using tesla::Shape;
using tesla::data::parse_idx;

namespace {

/// The message of the error that a call throws; it must be an Expected.
template <class Expected, class F>
std::string message_of(const F& call) {
  try {
    call();
  } catch (const Expected& error) {
    return error.what();
  }
  return "no error";
}

std::string refused(const Bytes& bytes) {
  return message_of<FormatError>([&] { parse_idx(bytes, "some/file"); });
}

Bytes with(Bytes bytes, std::size_t at, std::uint8_t value) {
  bytes[at] = value;
  return bytes;
}

}  // namespace

TEST_CASE("parse_idx finds shape and values", "[idx]") {
  const Bytes bytes = idx_file({2, 3, 4}, 100);
  const tesla::data::Idx idx = parse_idx(bytes, "file");
  CHECK(idx.shape == Shape{2, 3, 4});
  REQUIRE(idx.values.size() == 24);
  CHECK(idx.values.data() == bytes.data() + 16);
  CHECK(idx.values.front() == 100);
  CHECK(idx.values.back() == 123);

  CHECK(parse_idx(idx_file({300}), "file").shape == Shape{300});  // the second byte of an extent counts
  CHECK(parse_idx(idx_file({1, 2, 1, 2, 1, 2, 1, 2}), "file").shape.rank() == 8);
  CHECK(parse_idx(idx_file({0, 28, 28}), "file").values.empty());
}

TEST_CASE("parse_idx refuses headers of other formats", "[idx]") {
  const Bytes good = idx_file({2, 3, 4});
  CHECK_THAT(refused(with(good, 0, 1)), StartsWith("some/file, byte 0: ") && Contains("not with 1 and 0"));
  CHECK_THAT(refused(with(good, 1, 7)), StartsWith("some/file, byte 0: ") && Contains("not with 0 and 7"));
  for (const int type : {0, 7, 9, 0x0B, 0x0C, 0x0D, 0x0E, 255})
    CHECK_THAT(refused(with(good, 2, static_cast<std::uint8_t>(type))),
               StartsWith("some/file, byte 2: ") && Contains("values of type " + std::to_string(type) + ";"));
  for (const int rank : {0, 9, 255})
    CHECK_THAT(refused(with(good, 3, static_cast<std::uint8_t>(rank))),
               StartsWith("some/file, byte 3: ") && Contains(std::to_string(rank) + " extents; 1 to 8"));
}

TEST_CASE("parse_idx refuses files that are too short or too long", "[idx]") {
  Bytes bytes = idx_file({2, 3, 4});
  for (std::size_t size = 0; size < bytes.size(); ++size)
    CHECK_THAT(refused(Bytes(bytes.data(), bytes.data() + size)),
               StartsWith("some/file, byte " + std::to_string(size) + ": ") && Contains("cut off"));
  bytes.push_back(0);
  CHECK_THAT(refused(bytes), StartsWith("some/file, byte 40: ") && Contains("1 bytes follow the 24 values"));
}

TEST_CASE("parse_idx believes no size that the file does not have", "[idx]") {
  const Bytes huge{0, 0, 8, 3, 0, 16, 0, 0, 0, 16, 0, 0, 0, 16, 0, 0};  // 2^20 x 2^20 x 2^20
  CHECK_THAT(refused(huge), StartsWith("some/file, byte 16: ") &&
                                Contains("promises 1152921504606846976 values of shape {1048576, 1048576, 1048576}"));

  // An overflow stays one when a zero follows.
  const Bytes overflow{0, 0, 8, 4, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0};
  CHECK_THAT(refused(overflow), StartsWith("some/file, byte 12: ") && Contains("more than any memory"));
}

TEST_CASE("images are read with values from 0 to 1, one row an image", "[idx]") {
  const TemporaryFolder folder;
  Bytes bytes = idx_file({8, 4, 8});
  const auto plain = tesla::data::read_idx_images(folder.write("plain", bytes));
  const auto packed = tesla::data::read_idx_images(folder.write("packed", gzip_file(bytes)));
  for (const auto& images : {plain, packed}) {
    CHECK(images.shape() == Shape{8, 32});
    for (std::size_t i = 0; i < 256; ++i) {
      CHECK(images[i] >= 0);
      CHECK(images[i] <= 1);
      CHECK(static_cast<double>(images[i]) == Approx(static_cast<double>(i) / 255).epsilon(1e-7));
    }
  }
  CHECK(plain[255] == 1);
  CHECK(plain[51] == 0.2F);
}

TEST_CASE("labels are read", "[idx]") {
  const TemporaryFolder folder;
  for (const Bytes& bytes : {idx_file({256}), gzip_file(idx_file({256}))}) {
    const auto labels = tesla::data::read_idx_labels(folder.write("labels", bytes));
    REQUIRE(labels.shape() == Shape{256});
    for (std::size_t i = 0; i < 256; ++i) CHECK(labels[i] == static_cast<std::int32_t>(i));
  }
}

TEST_CASE("the bytes decide whether a file is packed, not its name", "[idx]") {
  const TemporaryFolder folder;
  CHECK(tesla::data::read_idx_labels(folder.write("plain.gz", idx_file({3}))).size() == 3);
  CHECK(tesla::data::read_idx_labels(folder.write("packed", gzip_file(idx_file({3})))).size() == 3);
}

TEST_CASE("files of several buffers are read whole", "[idx]") {
  const TemporaryFolder folder;
  for (const std::uint32_t count : {65528U, 65529U, 131064U, 200000U}) {  // with the header, 65536 and around
    const auto labels = tesla::data::read_idx_labels(folder.write("labels", idx_file({count})));
    REQUIRE(labels.size() == count);
    CHECK(labels[count - 1] == static_cast<std::int32_t>((count - 1) % 256));
  }
}

TEST_CASE("images and labels are not taken for each other", "[idx]") {
  const TemporaryFolder folder;
  const std::string images = folder.write("images", idx_file({2, 3, 4})),
                    labels = folder.write("labels", idx_file({2}));
  CHECK_THAT(message_of<FormatError>([&] { tesla::data::read_idx_images(labels); }),
             StartsWith(labels + ", byte 3: ") && Contains("these are labels"));
  CHECK_THAT(message_of<FormatError>([&] { tesla::data::read_idx_labels(images); }),
             StartsWith(images + ", byte 3: ") && Contains("{2, 3, 4}") && Contains("these are images"));
}

TEST_CASE("as many labels as images are wanted", "[idx]") {
  const TemporaryFolder folder;
  const std::string images = folder.write("images", idx_file({2, 3, 4})),
                    labels = folder.write("labels", idx_file({2}));
  const auto dataset = tesla::data::read_idx(images, labels);
  CHECK(dataset.size() == 2);
  CHECK(dataset.x().shape() == Shape{2, 12});
  CHECK(dataset.y()[1] == 1);

  const std::string more = folder.write("more", idx_file({3}));
  CHECK_THAT(message_of<FormatError>([&] { tesla::data::read_idx(images, more); }),
             Contains(images + " holds 2 images") && Contains(more + " holds 3 labels"));
}

TEST_CASE("errors in a packed file name it", "[idx]") {
  const TemporaryFolder folder;
  Bytes bytes = gzip_file(idx_file({3}));
  bytes.pop_back();
  const std::string path = folder.write("labels", bytes);
  CHECK_THAT(message_of<FormatError>([&] { tesla::data::read_idx_labels(path); }), StartsWith(path + ", byte "));
}

TEST_CASE("files that cannot be read are errors with a path and the system's reason", "[idx]") {
  const TemporaryFolder folder;
  CHECK_THAT(message_of<FileError>([&] { tesla::data::read_idx_images(folder.path("none")); }),
             Contains("cannot open " + folder.path("none") + ": No such file or directory"));
  CHECK_THAT(message_of<FileError>([&] { tesla::data::read_idx_labels(folder.path()); }),
             Contains("cannot read " + folder.path() + ": Is a directory"));
  CHECK_THAT(message_of<FormatError>([&] { tesla::data::read_idx_labels(folder.write("empty", {})); }),
             Contains("byte 0"));
}
