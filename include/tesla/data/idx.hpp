// IDX files, the format of MNIST: a header with the type and the extents of an array, and then its values.
//
// The bytes may come from anybody: sizes are checked against the file before anything of that size is allocated.
#pragma once

#include <tesla/data/dataset.hpp>
#include <tesla/data/grey.hpp>
#include <tesla/data/gzip.hpp>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

namespace tesla::inline TESLA_TARGET::data {

/// An array of unsigned bytes inside the bytes of an IDX file.
struct Idx {
  Shape shape;
  std::span<const std::uint8_t> values;
};

/// Reads the header and checks that the values are all there, and nothing after them. `where` names the file in
/// messages. The result points into `bytes`.
inline Idx parse_idx(std::span<const std::uint8_t> bytes, std::string_view where) {
  const auto fail = [&](std::size_t at, const auto&... parts) {
    raise<FormatError>(where, ", byte ", at, ": ", parts...);
  };
  if (bytes.size() < 4)
    fail(bytes.size(), "an IDX header takes 4 bytes and more; the file was cut off, fetch it again");
  if (bytes[0] != 0 || bytes[1] != 0)
    fail(0, "an IDX file begins with two zero bytes, not with ", bytes[0], " and ", bytes[1],
         "; this is another format");
  if (bytes[2] != 0x08)
    fail(2, "values of type ", bytes[2], "; only 8, unsigned bytes, is read here: convert the file");
  const std::size_t rank = bytes[3];
  if (rank == 0 || rank > Shape::max_rank) fail(3, rank, " extents; 1 to ", Shape::max_rank, " are read");
  const std::size_t header = 4 + 4 * rank;
  if (bytes.size() < header)
    fail(bytes.size(), "a header with ", rank, " extents takes ", header,
         " bytes; the file was cut off, fetch it again");

  std::array<std::size_t, Shape::max_rank> extents{};
  std::size_t elements = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    const std::uint8_t* p = bytes.data() + 4 + 4 * i;
    extents[i] = std::size_t{p[0]} << 24 | std::size_t{p[1]} << 16 | std::size_t{p[2]} << 8 | p[3];
    if (__builtin_mul_overflow(elements, extents[i], &elements))
      fail(4 + 4 * i, "the extents multiply to more than any memory holds; the file is damaged, fetch it again");
  }
  const std::size_t found = bytes.size() - header;
  const Shape shape(std::span<const std::size_t>(extents.data(), rank));
  if (found < elements)
    fail(bytes.size(), "the header promises ", elements, " values of shape ", shape, ", only ", found,
         " follow it; the file was cut off, fetch it again");
  if (found > elements)
    fail(header + elements, found - elements, " bytes follow the ", elements, " values of shape ", shape,
         " that the header promises; the file is damaged, fetch it again");
  return {shape, bytes.subspan(header)};
}

namespace detail {

inline std::vector<std::uint8_t> read_file(const std::string& path) {
  const auto fail = [&](const char* what) { raise<FileError>(what, " ", path, ": ", std::strerror(errno)); };
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
  if (file == nullptr) fail("cannot open");
  // In pieces and not by its size, so that pipes can be read too.
  std::vector<std::uint8_t> bytes(1 << 16);
  for (std::size_t size = 0;;) {
    const std::size_t got = std::fread(bytes.data() + size, 1, bytes.size() - size, file.get());
    if (std::ferror(file.get()) != 0) fail("cannot read");
    size += got;
    if (got == 0) {
      bytes.resize(size);
      return bytes;
    }
    if (size == bytes.size()) bytes.resize(2 * size);
  }
}

/// What a packed file may unpack to: forty times MNIST.
inline constexpr std::size_t unpacked_limit = std::size_t{1} << 31;

/// The bytes of a file, unpacked if they are packed: the bytes decide and not the name.
inline std::vector<std::uint8_t> read_unpacked(const std::string& path) {
  std::vector<std::uint8_t> bytes = read_file(path);
  return is_gzip(bytes) ? gunzip(bytes, path, unpacked_limit) : bytes;
}

}  // namespace detail

/// Reads grey images, plain or packed by gzip: one row an image, values from 0 to 1.
inline Tensor<float> read_idx_images(const std::string& path) {
  const std::vector<std::uint8_t> bytes = detail::read_unpacked(path);
  const Idx idx = parse_idx(bytes, path);
  if (idx.shape.rank() != 3)
    raise<FormatError>(path, ", byte 3: images have 3 extents, the file's array is of shape ", idx.shape,
                       idx.shape.rank() == 1 ? "; these are labels" : "");
  Tensor<float> images({idx.shape[0], checked_product(idx.shape[1], idx.shape[2])});
  std::transform(idx.values.begin(), idx.values.end(), images.begin(),
                 [](std::uint8_t value) { return detail::grey_values[value]; });
  return images;
}

/// Reads labels, plain or packed by gzip.
inline Tensor<std::int32_t> read_idx_labels(const std::string& path) {
  const std::vector<std::uint8_t> bytes = detail::read_unpacked(path);
  const Idx idx = parse_idx(bytes, path);
  if (idx.shape.rank() != 1)
    raise<FormatError>(path, ", byte 3: labels have 1 extent, the file's array is of shape ", idx.shape,
                       idx.shape.rank() == 3 ? "; these are images" : "");
  Tensor<std::int32_t> labels(idx.shape);
  std::copy(idx.values.begin(), idx.values.end(), labels.begin());
  return labels;
}

/// Reads images and their labels.
inline Dataset<> read_idx(const std::string& images_path, const std::string& labels_path) {
  Tensor<float> images = read_idx_images(images_path);
  Tensor<std::int32_t> labels = read_idx_labels(labels_path);
  if (images.shape()[0] != labels.shape()[0])
    raise<FormatError>(images_path, " holds ", images.shape()[0], " images, ", labels_path, " holds ",
                       labels.shape()[0], " labels; the two files do not belong together");
  return {std::move(images), std::move(labels)};
}

}  // namespace tesla::inline TESLA_TARGET::data
