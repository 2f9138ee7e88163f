// The concept of an optimizer: a rule for one weight, which a backend runs over all of them in one pass.
#pragma once

#include <tesla/core/error.hpp>
#include <tesla/core/math.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <string_view>

namespace tesla::inline TESLA_TARGET::optim {

// clang-format off
/// kind names the type in files. slots is the number of state values kept for each weight, zero at first. at(step)
/// returns the rule of step 1, 2, ...: a functor called as rule(weight, gradient, state), weight and
/// state (std::array<V, slots>&) to be changed in place, V a scalar or a SIMD batch. A slot that follows squares of the
/// gradient, not the gradient, is named by squares, an array<bool, slots>; that counts where parameters are recast.
///
/// An optimizer that looks at whole parameters has rules of directions: rule(weight, gradient, state) changes the state
/// alone and returns the direction in which the weight shall go, and rule.scale(|weights|, |directions|), of the norms
/// over the parameter, says how far: each weight then becomes weight - scale * direction.
template <class O>
concept Optimizer = std::copyable<O> && requires(const O& optimizer) {
  { O::kind } -> std::convertible_to<std::string_view>;
  { O::slots } -> std::convertible_to<std::size_t>;
  optimizer.at(std::size_t{1});
};
template <class R>
concept RuleOfDirections = requires(const R& rule) {
  { rule.scale(1.0, 1.0) } -> std::convertible_to<double>;
};
// clang-format on

namespace detail {

inline void check(std::string_view kind, std::string_view option, double value, double low, double high) {
  if (!(value >= low && value <= high))
    raise<UsageError>(kind, ": .", option, " has to lie in [", low, ", ", high, "], not ", value);
}

inline void check_fraction(std::string_view kind, std::string_view option, double value) {
  if (!(value >= 0 && value < 1)) raise<UsageError>(kind, ": .", option, " has to lie in [0, 1), not ", value);
}

}  // namespace detail
}  // namespace tesla::inline TESLA_TARGET::optim
