// What data/inflate.hpp decodes with: a window of bits over bytes, and Huffman codes as tables.
#pragma once

#include <tesla/core/error.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace tesla::inline TESLA_TARGET::data::detail {

/// Eight bytes as a number, the lowest first, on any machine: compilers make one load of it.
inline std::uint64_t load_le64(const std::uint8_t* p) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < 8; ++i) value |= std::uint64_t{p[i]} << (8 * i);
  return value;
}

/// Where in which file the bytes are read, for messages.
struct Source {
  std::span<const std::uint8_t> bytes;
  std::string_view where;

  template <class... Parts>
  [[noreturn]] void fail(std::size_t position, const Parts&... parts) const {
    if (position >= bytes.size())
      stop(bytes.size(), "the compressed data end too early; the file was cut off, fetch it again");
    stop(position, parts..., "; the file is damaged, fetch it again");
  }
  template <class... Parts>
  [[noreturn]] void stop(std::size_t position, const Parts&... parts) const {
    raise<FormatError>(where, ", byte ", position, ": ", parts...);
  }
};

/// Bits in the order of RFC 1951: the lowest of each byte first. Beyond the end they are zeros; the next refill, or
/// whoever asks for the position, notices when some of those were taken.
struct BitReader {
  const std::uint8_t* bytes;
  std::size_t size, next = 0, beyond = 0;  // bytes taken into the window, real ones and made-up ones
  std::uint64_t window = 0;
  unsigned count = 0;  // of valid bits; the window may hold some real ones more

  /// At least 56 bits; a longest match takes 48. False when bits from beyond the end have been taken.
  [[gnu::always_inline]] bool refill() {
    if (size - next >= 8) [[likely]] {
      window |= load_le64(bytes + next) << count;
      next += (63 - count) >> 3;
      count |= 56;
      return true;
    }
    if (beyond * 8 > count) return false;
    for (; count < 56; count += 8) {
      if (next < size)
        window |= std::uint64_t{bytes[next++]} << count;
      else
        ++beyond;
    }
    return true;
  }
  void drop(unsigned bits) {
    window >>= bits;
    count -= bits;
  }
  unsigned take(unsigned bits) {
    const auto value = static_cast<unsigned>(window & ((std::uint64_t{1} << bits) - 1));
    drop(bits);
    return value;
  }
  /// The number of bytes of which some bit was taken; more than there are when the stream is too short.
  std::size_t position() const { return next + beyond - count / 8; }
  /// The byte that the last bit was taken from.
  std::size_t last() const { return position() - 1; }
  void seek(std::size_t position) { *this = {bytes, size, position}; }
};

// An entry of a table: what a code means (upper half), how many bits follow it (bits 8 to 11), its kind (bits 12 to
// 15), and how many bits it has itself (bits 0 to 5).
enum EntryKind : std::uint32_t { literal = 1U << 12, link = 1U << 13, end_of_block = 1U << 14, invalid = 1U << 15 };

constexpr std::uint32_t entry_of(std::uint32_t value, std::uint32_t extra_bits, std::uint32_t kind = 0) {
  return value << 16 | extra_bits << 8 | kind;
}

/// Literals and lengths of matches.
inline constexpr auto length_meanings = [] {
  std::array<std::uint32_t, 288> meanings{};
  for (std::uint32_t i = 0; i < 256; ++i) meanings[i] = entry_of(i, 0, literal);
  meanings[256] = entry_of(0, 0, end_of_block);
  for (std::uint32_t i = 257, base = 3; i < 285; ++i) {
    const std::uint32_t extra = i < 265 ? 0 : (i - 261) / 4;
    meanings[i] = entry_of(base, extra);
    base += 1U << extra;
  }
  meanings[285] = entry_of(258, 0);
  meanings[286] = meanings[287] = invalid;
  return meanings;
}();

inline constexpr auto distance_meanings = [] {
  std::array<std::uint32_t, 32> meanings{};
  for (std::uint32_t i = 0, base = 1; i < 30; ++i) {
    const std::uint32_t extra = i < 4 ? 0 : i / 2 - 1;
    meanings[i] = entry_of(base, extra);
    base += 1U << extra;
  }
  meanings[30] = meanings[31] = invalid;
  return meanings;
}();

/// The alphabet in which the lengths of the codes are written.
inline constexpr auto plain_meanings = [] {
  std::array<std::uint32_t, 19> meanings{};
  for (std::uint32_t i = 0; i < 19; ++i) meanings[i] = entry_of(i, 0);
  return meanings;
}();

/// A Huffman code of up to 15 bits as a table over `Primary` bits; longer codes go on in tables of their own. Those
/// exist in complete codes only, where each serves two symbols or more: hence the room.
template <unsigned Primary, std::size_t Symbols>
class HuffmanTable {
 public:
  /// From the number of bits of each symbol's code; returns what is wrong with them, or nullptr. A code of a single
  /// symbol, or of none, leaves bits without meaning; some alphabets allow it.
  const char* build(std::span<const std::uint8_t> lengths, const std::array<std::uint32_t, Symbols>& meanings,
                    bool may_be_single) {
    std::array<unsigned, 16> count{};
    for (const std::uint8_t length : lengths) ++count[length];
    int left = 1;
    unsigned longest = 0;
    for (unsigned length = 1; length < 16; ++length) {
      left = 2 * left - static_cast<int>(count[length]);
      if (left < 0) return "over-subscribed";
      if (count[length] != 0) longest = length;
    }
    if (left > 0 && (longest > 1 || !may_be_single)) return "incomplete";
    if (left > 0) std::fill_n(entries_.begin(), primary_size, entry_of(0, 0, invalid) | 1);

    std::array<unsigned, 16> next{};
    for (unsigned length = 1, code = 0; length < 16; ++length) {
      next[length] = code;
      code = (code + count[length]) * 2;
    }
    const unsigned secondary = longest > Primary ? longest - Primary : 0;
    std::size_t used = primary_size;
    for (unsigned length = 1; length <= longest; ++length) {
      if (count[length] == 0) continue;
      for (std::size_t symbol = 0; symbol < lengths.size(); ++symbol) {
        if (lengths[symbol] != length) continue;
        const unsigned code = reversed(next[length]++, length);
        if (length <= Primary) {
          for (std::size_t i = code; i < primary_size; i += std::size_t{1} << length)
            entries_[i] = meanings[symbol] | length;
          continue;
        }
        // The codes of one prefix follow each other: only the first of them, whose other bits are 0, opens a table.
        std::uint32_t& head = entries_[code & (primary_size - 1)];
        if (code >> Primary == 0) {
          head = entry_of(static_cast<std::uint32_t>(used), secondary, link) | Primary;
          used += std::size_t{1} << secondary;
        }
        const std::size_t table = head >> 16;
        for (std::size_t i = code >> Primary; i < std::size_t{1} << secondary;
             i += std::size_t{1} << (length - Primary))
          entries_[table + i] = meanings[symbol] | (length - Primary);
      }
    }
    return nullptr;
  }

  std::uint32_t first(std::uint64_t window) const { return entries_[window & (primary_size - 1)]; }
  /// Follows a link, after its bits were dropped.
  std::uint32_t second(std::uint32_t head, std::uint64_t window) const {
    return entries_[(head >> 16) + (window & ((1U << (head >> 8 & 15)) - 1))];
  }

 private:
  static constexpr std::size_t primary_size = std::size_t{1} << Primary;

  static constexpr unsigned reversed(unsigned code, unsigned bits) {
    unsigned result = 0;
    for (unsigned i = 0; i < bits; ++i) result |= (code >> i & 1) << (bits - 1 - i);
    return result;
  }

  std::array<std::uint32_t, primary_size + (Symbols / 2 << (15 - std::min(Primary, 15U)))> entries_;
};

}  // namespace tesla::inline TESLA_TARGET::data::detail
