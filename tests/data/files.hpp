// Small IDX and gzip files for tests.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <io/temporary_folder.hpp>
#include <vector>

using Bytes = std::vector<std::uint8_t>;

/// An IDX file of the given extents with values that count up from `first`.
inline Bytes idx_file(const std::vector<std::uint32_t>& extents, std::uint8_t first = 0) {
  Bytes bytes{0, 0, 8, static_cast<std::uint8_t>(extents.size())};
  std::size_t count = 1;
  for (const std::uint32_t extent : extents) {
    for (const int shift : {24, 16, 8, 0}) bytes.push_back(static_cast<std::uint8_t>(extent >> shift));
    count *= extent;
  }
  for (std::size_t i = 0; i < count; ++i) bytes.push_back(static_cast<std::uint8_t>(first + i));
  return bytes;
}

/// The bytes as a gzip file, in stored blocks: packed without packing.
inline Bytes gzip_file(const Bytes& bytes) {
  Bytes packed{0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255};
  const auto number = [&](std::size_t value, int count) {
    for (int i = 0; i < count; ++i) packed.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  };
  for (std::size_t at = 0, length = 0; at == 0 || at < bytes.size(); at += length) {
    length = std::min<std::size_t>(bytes.size() - at, 0xFFFF);
    packed.push_back(at + length == bytes.size() ? 1 : 0);
    number(length, 2);
    number(~length, 2);
    packed.insert(packed.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at),
                  bytes.begin() + static_cast<std::ptrdiff_t>(at + length));
    if (length == 0) break;
  }
  std::uint32_t crc = 0xFFFFFFFF;  // bit by bit, not by the library's tables
  for (const std::uint8_t byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xEDB88320 : 0);
  }
  number(~crc, 4);
  number(bytes.size(), 4);
  return packed;
}
