// Modes: how a size is written as a product.
#pragma once

#include <tesla/tensor/shape.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>

namespace tesla::inline TESLA_TARGET::network {

struct FactoredModes {
  Shape modes;
  std::size_t padding = 0;  // how much larger than the size asked for their product is
};

namespace detail {

/// The most even way to write `size` as a product of `count` factors, in ascending order: the one of the least sum.
class EvenFactors {
 public:
  EvenFactors(std::size_t size, std::size_t count) : count_(count) { search(size, 0, 1, 0); }

  Shape modes() const { return Shape(std::span<const std::size_t>(best_.data(), count_)); }
  std::size_t largest() const { return best_[count_ - 1]; }

 private:
  void search(std::size_t rest, std::size_t at, std::size_t least, std::size_t sum) {
    if (at + 1 == count_) {
      if (rest < least || sum + rest >= best_sum_) return;
      now_[at] = rest;
      best_ = now_;
      best_sum_ = sum + rest;
      return;
    }
    // Ascending: factor ^ (factors left) <= rest.
    for (std::size_t factor = least; factor <= rest; ++factor) {
      std::size_t power = factor;
      for (std::size_t k = at + 1; k < count_ && power <= rest; ++k) power *= factor;
      if (power > rest) return;
      if (rest % factor != 0) continue;
      now_[at] = factor;
      search(rest / factor, at + 1, factor, sum + factor);
    }
  }

  std::size_t count_, best_sum_ = std::numeric_limits<std::size_t>::max();
  std::array<std::size_t, Shape::max_rank> now_{}, best_{};
};

}  // namespace detail

/// Proposes `count` balanced modes whose product is `size`, or the next size above that has balanced ones: 1024 in 4 is
/// {4, 4, 8, 8}; 1009, a prime, in 2 is {23, 44}, with a padding of 3.
inline FactoredModes factor_modes(std::size_t size, std::size_t count) {
  if (size == 0) raise<UsageError>("factor_modes: a size of 1 or more is wanted, not 0");
  if (count == 0 || count > Shape::max_rank)
    raise<UsageError>("factor_modes: 1 to ", Shape::max_rank, " modes are wanted, not ", count);
  if (size > std::size_t{1} << 40) raise<UsageError>("factor_modes: a size of ", size, " is beyond 2^40");
  // Balanced: no mode is more than twice as large as all of them would be if they were equal.
  const double equal = std::pow(static_cast<double>(size), 1 / static_cast<double>(count));
  for (std::size_t padded = size;; ++padded) {
    const detail::EvenFactors factors(padded, count);
    if (static_cast<double>(factors.largest()) <= std::max(2 * equal, 2.0)) return {factors.modes(), padded - size};
  }
}

/// The most even `count` modes whose product is `size` itself: 7 in 2 is {1, 7}.
inline Shape exact_modes(std::size_t size, std::size_t count) { return detail::EvenFactors(size, count).modes(); }

}  // namespace tesla::inline TESLA_TARGET::network
