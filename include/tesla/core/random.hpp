// Counter-based random numbers: number i of stream s under seed k is a pure function of (k, s, i), so any thread can
// draw any of them, in any order, and the same seed gives the same numbers everywhere.
//
// Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
#pragma once

#include <tesla/core/target.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace tesla::inline TESLA_TARGET::random {

using Block = std::array<std::uint32_t, 4>;

/// Ten rounds of Philox: 128 random bits from a 128-bit counter and a 64-bit key.
[[gnu::noinline]] constexpr Block philox(Block counter, std::uint64_t key) {
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * counter[0], p1 = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return counter;
}

/// The numbers of one (seed, stream), by index.
class Stream {
 public:
  constexpr explicit Stream(std::uint64_t seed, std::uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  /// 64 random bits.
  constexpr std::uint64_t bits(std::uint64_t i) const {
    const Block b = block(i >> 1);
    return (i & 1) != 0 ? join(b[2], b[3]) : join(b[0], b[1]);
  }

  /// A whole number in [0, n).
  constexpr std::uint64_t below(std::uint64_t i, std::uint64_t n) const {
    return static_cast<std::uint64_t>((static_cast<Wide>(bits(i)) * n) >> 64);
  }

  /// Uniform in [0, 1), a multiple of 2^-53.
  constexpr double uniform(std::uint64_t i) const { return static_cast<double>(bits(i) >> 11) * 0x1p-53; }

  /// Standard normal (Box and Muller): numbers 2i and 2i + 1 share a block.
  [[gnu::noinline]] double normal(std::uint64_t i) const {
    const Block b = block(i >> 1);
    const double radius = std::sqrt(-2.0 * std::log((static_cast<double>(join(b[0], b[1]) >> 11) + 0.5) * 0x1p-53));
    const double angle = 6.283185307179586 * static_cast<double>(join(b[2], b[3]) >> 11) * 0x1p-53;
    return radius * ((i & 1) != 0 ? std::sin(angle) : std::cos(angle));
  }

 private:
  __extension__ using Wide = unsigned __int128;

  static constexpr std::uint64_t join(std::uint32_t low, std::uint32_t high) {
    return low | (static_cast<std::uint64_t>(high) << 32);
  }
  constexpr Block block(std::uint64_t i) const {
    return philox({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32),
                   static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
                  seed_);
  }

  std::uint64_t seed_, stream_;
};

/// Shuffles 0 .. order.size() - 1 into `order` (Fisher and Yates), without allocating.
inline void shuffle(std::vector<std::uint32_t>& order, std::uint64_t seed, std::uint64_t stream) {
  const Stream random(seed, stream);
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i, i)]);
}

}  // namespace tesla::inline TESLA_TARGET::random
