// Files that gzip packed, RFC 1952: one or several members, each a header, a compressed stream and two check values.
#pragma once

#include <tesla/data/inflate.hpp>

namespace tesla::inline TESLA_TARGET::data {

namespace detail {

/// Table k holds the checksum of each byte followed by k zero bytes: eight bytes at a time go in.
inline constexpr auto crc_tables = [] {
  std::array<std::array<std::uint32_t, 256>, 8> tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xEDB88320 : 0);
    tables[0][byte] = crc;
  }
  for (std::size_t k = 1; k < 8; ++k)
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t crc = tables[k - 1][byte];
      tables[k][byte] = crc >> 8 ^ tables[0][crc & 0xFF];
    }
  return tables;
}();

inline std::uint32_t crc32(std::span<const std::uint8_t> bytes) {
  const auto& t = crc_tables;
  std::uint32_t crc = 0xFFFFFFFF;
  std::size_t i = 0;
  for (; bytes.size() - i >= 8; i += 8) {
    const std::uint64_t x = load_le64(bytes.data() + i) ^ crc;
    crc = t[7][x & 0xFF] ^ t[6][x >> 8 & 0xFF] ^ t[5][x >> 16 & 0xFF] ^ t[4][x >> 24 & 0xFF] ^ t[3][x >> 32 & 0xFF] ^
          t[2][x >> 40 & 0xFF] ^ t[1][x >> 48 & 0xFF] ^ t[0][x >> 56];
  }
  for (; i < bytes.size(); ++i) crc = crc >> 8 ^ t[0][(crc ^ bytes[i]) & 0xFF];
  return ~crc;
}

/// The header of the member that begins at `begin`; returns where its compressed stream begins.
inline std::size_t gzip_header(const Source& source, std::size_t begin) {
  const std::span<const std::uint8_t> bytes = source.bytes;
  std::size_t at = begin;
  const auto need = [&](std::size_t count) {
    if (count > bytes.size() - at) source.fail(bytes.size());
  };
  need(10);
  if (bytes[at] != 0x1F || bytes[at + 1] != 0x8B)
    source.fail(at, begin == 0 ? "not a gzip file" : "bytes after the compressed data that are no gzip member");
  if (bytes[at + 2] != 8) source.fail(at + 2, "compression method ", bytes[at + 2], "; gzip knows only 8, deflate");
  enum : unsigned { header_check = 2, extra = 4, name = 8, comment = 16, reserved = 0xE0 };
  const unsigned flags = bytes[at + 3];
  if ((flags & reserved) != 0) source.fail(at + 3, "the flags ", flags, " hold reserved bits");
  at += 10;
  if ((flags & extra) != 0) {
    need(2);
    const std::size_t length = bytes[at] + std::size_t{256} * bytes[at + 1];
    at += 2;
    need(length);
    at += length;
  }
  for (const unsigned text : {unsigned{name}, unsigned{comment}}) {
    if ((flags & text) == 0) continue;
    for (need(1); bytes[at] != 0; need(1)) ++at;
    ++at;
  }
  if ((flags & header_check) != 0) {
    need(2);
    const std::uint32_t stored = bytes[at] + 256U * bytes[at + 1],
                        found = crc32(bytes.subspan(begin, at - begin)) & 0xFFFF;
    if (stored != found) source.fail(at, "the header's checksum is ", stored, ", its bytes give ", found);
    at += 2;
  }
  return at;
}

inline bool is_gzip(std::span<const std::uint8_t> bytes) {
  return bytes.size() >= 2 && bytes[0] == 0x1F && bytes[1] == 0x8B;
}

}  // namespace detail

/// Unpacks a gzip file. `where` names it in messages; more than `limit` bytes of output are an error, because a small
/// file can unpack to a thousand times its size.
inline std::vector<std::uint8_t> gunzip(std::span<const std::uint8_t> bytes, std::string_view where,
                                        std::size_t limit) {
  const detail::Source source{bytes, where};
  const auto number = [&](std::size_t at) {
    return static_cast<std::uint32_t>(bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16) |
           static_cast<std::uint32_t>(bytes[at + 3]) << 24;
  };
  // The last four bytes say how much comes out, if they are honest; eight times the input is what we risk on that.
  const std::size_t expected =
      bytes.size() < 18 ? 0 : std::min<std::size_t>(number(bytes.size() - 4), bytes.size() * 8);
  detail::Inflater inflater(source, limit, expected);
  std::size_t at = 0;
  do {
    const std::size_t before = inflater.output().size();
    at = inflater.stream(detail::gzip_header(source, at));
    if (bytes.size() - at < 8) source.fail(bytes.size());
    const std::span<const std::uint8_t> output = inflater.output().subspan(before);
    const std::uint32_t crc = detail::crc32(output);
    if (number(at) != crc) source.fail(at, "the checksum is ", number(at), ", the unpacked bytes give ", crc);
    if (number(at + 4) != static_cast<std::uint32_t>(output.size()))
      source.fail(at + 4, "the size is given as ", number(at + 4), ", but ", output.size(), " bytes came out");
    at += 8;
  } while (at < bytes.size());
  return inflater.release();
}

}  // namespace tesla::inline TESLA_TARGET::data
