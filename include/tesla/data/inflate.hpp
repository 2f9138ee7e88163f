// The compressed stream inside a gzip file: "deflate", RFC 1951.
//
// Every byte may come from somebody hostile: nothing is believed that was not checked, each error says at which byte it
// was found, and the output stops growing at a limit.
#pragma once

#include <tesla/data/huffman.hpp>

#include <cstring>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

namespace tesla::inline TESLA_TARGET::data::detail {

class Inflater {
 public:
  /// `expected` is how many bytes will probably come out.
  Inflater(const Source& source, std::size_t limit, std::size_t expected)
      : source_(source),
        in_{source.bytes.data(), source.bytes.size()},
        limit_(std::min(limit, std::numeric_limits<std::size_t>::max() / 4)),
        out_(std::min(limit_, expected) + slack) {}

  /// Decodes one stream of blocks that begins at byte `begin`, after what was decoded before; returns where it ends.
  std::size_t stream(std::size_t begin) {
    in_.seek(begin);
    start_ = at_;
    for (bool last = false; !last;) {
      fill();
      last = in_.take(1) != 0;
      switch (in_.take(2)) {
        case 0:
          stored();
          break;
        case 1:
          fixed_codes(), symbols();
          break;
        case 2:
          dynamic_codes(), symbols();
          break;
        default:
          source_.fail(in_.last(), "a block of type 3, which does not exist");
      }
      if (in_.position() > in_.size) source_.fail(in_.size);
      if (at_ > limit_) over_limit();
    }
    return in_.position();
  }

  std::span<const std::uint8_t> output() const { return {out_.data(), at_}; }
  std::vector<std::uint8_t> release() {
    out_.resize(at_);
    return std::move(out_);
  }

 private:
  static constexpr std::size_t longest_match = 258;
  static constexpr std::size_t slack = longest_match + 32;  // written past the limit, and past the end of a match

  struct Codes {
    HuffmanTable<11, 288> lengths;
    HuffmanTable<9, 32> distances;
    HuffmanTable<7, 19> plain;
  };

  void fill() {
    if (!in_.refill()) source_.fail(in_.size);
  }

  [[noreturn]] void over_limit() const {
    source_.stop(in_.last(), "the data unpack to more than ", limit_, " bytes, the most that is taken from this file");
  }

  /// Room for `more` bytes and the slack.
  void grow(std::size_t more) {
    if (more > limit_ || at_ > limit_ - more) over_limit();
    constexpr std::size_t least = 1 << 16;
    const std::size_t wanted = std::max({at_ + more, out_.size() + out_.size() / 2, least});
    out_.resize(std::min(wanted, limit_) + slack);
  }

  /// Bytes as they are.
  void stored() {
    std::size_t position = in_.position();
    if (position + 4 > in_.size) source_.fail(in_.size);
    const std::uint8_t* p = in_.bytes + position;
    const unsigned length = p[0] + 256U * p[1], inverted = p[2] + 256U * p[3];
    if ((length ^ inverted) != 0xFFFF) source_.fail(position, "the two copies of a stored block's length differ");
    position += 4;
    if (length > in_.size - position) source_.fail(in_.size);
    if (length > out_.size() - at_) grow(length);
    if (length != 0) std::memcpy(out_.data() + at_, in_.bytes + position, length);
    at_ += length;
    in_.seek(position + length);
  }

  void fixed_codes() {
    std::array<std::uint8_t, 288> lengths;
    for (std::size_t i = 0; i < 288; ++i) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    std::array<std::uint8_t, 32> distances;
    distances.fill(5);
    codes_->lengths.build(lengths, length_meanings, false);
    codes_->distances.build(distances, distance_meanings, false);
  }

  void dynamic_codes() {
    const std::size_t begin = in_.last();
    const auto check = [&](const char* problem, const char* which) {
      if (problem != nullptr) source_.fail(begin, "the code of ", which, " in the block that begins here is ", problem);
    };
    const std::size_t length_codes = in_.take(5) + 257, distance_codes = in_.take(5) + 1, plain_codes = in_.take(4) + 4;
    if (length_codes > 286 || distance_codes > 30)
      source_.fail(begin, "a block with ", length_codes, " length codes and ", distance_codes,
                   " distance codes; at most 286 and 30 exist");

    constexpr std::array<std::uint8_t, 19> order = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    std::array<std::uint8_t, 19> plain{};
    for (std::size_t i = 0; i < plain_codes; ++i) {
      fill();
      plain[order[i]] = static_cast<std::uint8_t>(in_.take(3));
    }
    fill();  // so that lengths made up beyond the end are not judged, here and below
    check(codes_->plain.build(plain, plain_meanings, false), "code lengths");

    std::array<std::uint8_t, 286 + 30> lengths{};
    const std::size_t total = length_codes + distance_codes;
    for (std::size_t i = 0; i < total;) {
      fill();
      const std::uint32_t entry = codes_->plain.first(in_.window);
      in_.drop(entry & 63);
      const std::uint32_t symbol = entry >> 16;
      if (symbol < 16) {
        lengths[i++] = static_cast<std::uint8_t>(symbol);
        continue;
      }
      if (symbol == 16 && i == 0) source_.fail(in_.last(), "the first code length is a repetition");
      const std::uint8_t value = symbol == 16 ? lengths[i - 1] : 0;
      const std::size_t times = symbol == 16 ? 3 + in_.take(2) : symbol == 17 ? 3 + in_.take(3) : 11 + in_.take(7);
      if (times > total - i) source_.fail(in_.last(), "more code lengths than codes");
      std::fill_n(lengths.begin() + static_cast<std::ptrdiff_t>(i), times, value);
      i += times;
    }
    fill();
    if (lengths[256] == 0) source_.fail(begin, "the block that begins here has no code for its end");
    const std::span<const std::uint8_t> all(lengths);
    check(codes_->lengths.build(all.first(length_codes), length_meanings, true), "literals and lengths");
    check(codes_->distances.build(all.subspan(length_codes, distance_codes), distance_meanings, true), "distances");
  }

  /// The symbols of a block, up to its end.
  void symbols() {
    // Copies, because bytes written through a pointer might change members for all the compiler knows.
    const Codes& codes = *codes_;
    BitReader in = in_;
    std::uint8_t* out = out_.data();
    std::size_t at = at_, full = out_.size() - slack;
    for (;;) {
      if (!in.refill()) [[unlikely]]
        source_.fail(in.size);
      if (at > full) [[unlikely]] {
        in_ = in, at_ = at;
        grow(0);
        out = out_.data(), full = out_.size() - slack;
      }
      std::uint32_t entry = codes.lengths.first(in.window);
      if ((entry & literal) != 0) {
        in.drop(entry & 63);
        out[at++] = static_cast<std::uint8_t>(entry >> 16);
        entry = codes.lengths.first(in.window);
        if ((entry & literal) != 0) {
          in.drop(entry & 63);
          out[at++] = static_cast<std::uint8_t>(entry >> 16);
          entry = codes.lengths.first(in.window);
          if ((entry & literal) != 0) {
            in.drop(entry & 63);
            out[at++] = static_cast<std::uint8_t>(entry >> 16);
            continue;
          }
        }
        if (!in.refill()) [[unlikely]]
          source_.fail(in.size);  // the bits of `entry` stay where they are
      }
      in.drop(entry & 63);
      if ((entry & (literal | link | end_of_block | invalid)) != 0) {
        if ((entry & link) != 0) {
          entry = codes.lengths.second(entry, in.window);
          in.drop(entry & 63);
        }
        if ((entry & literal) != 0) {
          out[at++] = static_cast<std::uint8_t>(entry >> 16);
          continue;
        }
        if ((entry & end_of_block) != 0) break;
        if ((entry & invalid) != 0) source_.fail(in.last(), "a code without a meaning");
      }
      const std::size_t length = (entry >> 16) + in.take(entry >> 8 & 15);

      entry = codes.distances.first(in.window);
      in.drop(entry & 63);
      if ((entry & link) != 0) {
        entry = codes.distances.second(entry, in.window);
        in.drop(entry & 63);
      }
      if ((entry & invalid) != 0) [[unlikely]]
        source_.fail(in.last(), "a distance code without a meaning");
      const std::size_t distance = (entry >> 16) + in.take(entry >> 8 & 15);
      if (distance > at - start_) [[unlikely]]
        source_.fail(in.last(), "a distance of ", distance, " bytes back where only ", at - start_, " have come");
      copy(out + at, distance, length);
      at += length;
    }
    in_ = in, at_ = at;
  }

  /// Repeats what lies `distance` back; may write up to 15 bytes more than `length`.
  static void copy(std::uint8_t* to, std::size_t distance, std::size_t length) {
    const std::uint8_t* from = to - distance;
    if (distance >= 16) {
      for (std::size_t i = 0; i < length; i += 16) std::memcpy(to + i, from + i, 16);
    } else if (distance == 1) {
      std::memset(to, *from, length);
    } else {
      for (std::size_t i = 0; i < length; ++i) to[i] = from[i];
    }
  }

  Source source_;
  BitReader in_;
  std::size_t limit_, start_ = 0, at_ = 0;
  std::vector<std::uint8_t> out_;
  std::unique_ptr<Codes> codes_ = std::make_unique<Codes>();
};

}  // namespace tesla::inline TESLA_TARGET::data::detail
