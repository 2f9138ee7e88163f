#include <tesla/data/mnist.hpp>

#include "files.hpp"

#include <catch2/catch.hpp>

using Catch::Contains;
using tesla::Shape;
using tesla::data::mnist;

namespace {

/// The four files, in small: 5 images to train with and 2 to test with, of 3 x 4 pixels.
void write_files(const TemporaryFolder& folder, const std::string& separator, bool packed) {
  const auto write = [&](const std::string& begin, int rank, const Bytes& bytes) {
    const std::string name = begin + separator + "idx" + std::to_string(rank) + "-ubyte";
    folder.write(packed ? name + ".gz" : name, packed ? gzip_file(bytes) : bytes);
  };
  write("train-images", 3, idx_file({5, 3, 4}));
  write("train-labels", 1, idx_file({5}));
  write("t10k-images", 3, idx_file({2, 3, 4}, 100));
  write("t10k-labels", 1, idx_file({2}, 7));
}

std::string message_of(const std::string& folder) {
  try {
    mnist(folder);
  } catch (const tesla::FileError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("mnist reads the four files under each of their names", "[mnist]") {
  for (const std::string separator : {"-", "."}) {
    for (const bool packed : {false, true}) {
      INFO(separator << packed);
      const TemporaryFolder folder;
      write_files(folder, separator, packed);
      for (const std::string& path : {folder.path(), folder.path() + "/"}) {
        const auto [train, test] = mnist(path);
        CHECK(train.x().shape() == Shape{5, 12});
        CHECK(test.x().shape() == Shape{2, 12});
        CHECK(train.x()[51] == 0.2F);
        CHECK(static_cast<double>(test.x()[0]) == Approx(100.0 / 255));
        CHECK(train.y().shape() == Shape{5});
        CHECK(train.y()[4] == 4);
        CHECK(test.y().shape() == Shape{2});
        CHECK(test.y()[1] == 8);
      }
    }
  }
}

TEST_CASE("mnist says which file is missing, and what it looked for", "[mnist]") {
  for (const std::string missing : {"train-images", "train-labels", "t10k-images", "t10k-labels"}) {
    const TemporaryFolder folder;
    write_files(folder, "-", false);
    const std::string idx = missing.find("images") != std::string::npos ? "idx3-ubyte" : "idx1-ubyte";
    std::filesystem::remove(folder.path(missing + "-" + idx));
    const std::string message = message_of(folder.path());
    for (const std::string separator : {"-", "."}) {
      CHECK_THAT(message, Contains(missing + separator + idx + ","));
      CHECK_THAT(message, Contains(missing + separator + idx + ".gz"));
    }
    CHECK_THAT(message, Contains(tesla::text("'", folder.path(), "'")));
  }
  const TemporaryFolder folder;
  CHECK_THAT(message_of(folder.path("none")),
             Contains(tesla::text("'", folder.path("none"), "'")) && Contains("digits()"));
  CHECK_THAT(message_of(folder.write("a-file", {})), Contains("looked there for train-images-idx3-ubyte"));
}

TEST_CASE("mnist passes over folders that have a file's name", "[mnist]") {
  const TemporaryFolder folder;
  write_files(folder, ".", true);
  std::filesystem::create_directory(folder.path("train-images-idx3-ubyte"));
  CHECK(mnist(folder.path()).train.size() == 5);
}

TEST_CASE("mnist takes an empty file for a damaged one and not for a missing one", "[mnist]") {
  const TemporaryFolder folder;
  write_files(folder, "-", false);
  folder.write("t10k-labels-idx1-ubyte", {});
  CHECK_THROWS_AS(mnist(folder.path()), tesla::FormatError);
}

TEST_CASE("mnist wants parts that fit together", "[mnist]") {
  const TemporaryFolder folder;
  write_files(folder, "-", false);
  folder.write("t10k-images-idx3-ubyte", idx_file({2, 3, 5}));
  CHECK_THROWS_WITH(mnist(folder.path()), Contains("images of 12 pixels") && Contains("of 15"));
  folder.write("t10k-images-idx3-ubyte", idx_file({3, 3, 4}));
  CHECK_THROWS_WITH(mnist(folder.path()), Contains("3 images") && Contains("2 labels"));
}
