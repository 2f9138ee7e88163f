// Descriptions of what is done along the features of each sample: groups that are normalised, and features that are
// picked, repeated or added.
#pragma once

#include <tesla/core/memory.hpp>
#include <tesla/core/random.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace tesla::inline TESLA_TARGET::backend {

/// Groups of features that are normalised together: group g has the features g * size + r * apart + i, i < size,
/// r < repeats.
struct Groups {
  std::size_t count = 1, size = 1, repeats = 1, apart = 0;

  std::size_t features() const { return size * repeats; }
};

/// Output feature f is the sum of the inputs from[pointers[f]] .. from[pointers[f + 1] - 1]; 0 where there are none.
struct Picks {
  std::span<const std::uint32_t> pointers, from;
};

/// Random numbers that follow from a seed, a stream, a sample and a feature alone: four features share a block of bits.
struct Draw {
  enum class Kind { uniform, normal };  // of [0, 1); standard
  std::uint64_t seed = 0, stream = 0;
  Kind kind = Kind::uniform;

  random::Block bits(std::size_t sample, std::size_t feature) const {
    return random::philox({static_cast<std::uint32_t>(feature / 4), static_cast<std::uint32_t>(sample),
                           static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
                          seed);
  }
  /// The number of word `i` of a block.
  double number(const random::Block& block, std::size_t i) const {
    const auto uniform = [&](std::size_t k) { return static_cast<double>(block[k] >> 8) * 0x1p-24; };
    if (kind == Kind::uniform) return uniform(i);
    const std::size_t pair = i / 2 * 2;
    const double radius = std::sqrt(-2 * std::log(uniform(pair) + 0x1p-25)),
                 angle = 6.283185307179586 * uniform(pair + 1);
    return radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
  }
};

}  // namespace tesla::inline TESLA_TARGET::backend
