// The concept of an optimizer: a rule for one weight, which a backend runs over all of them in one pass.
#pragma once

#include <tesla/core/error.hpp>
#include <tesla/core/math.hpp>
#include <tesla/core/memory.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
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
/// What model.parameters() gives: each knows its model, and how many that has.
template <class P>
concept ParametersOfModel = requires(const P& parameters) {
  { parameters.size() } -> std::convertible_to<std::size_t>;
  { parameters.begin()->owner() } -> std::convertible_to<std::uint64_t>;
  { parameters.begin()->siblings() } -> std::convertible_to<std::size_t>;
};
// clang-format on

/// The model that an optimizer was made for, and a number that its copies share with it and no other optimizer. What it
/// remembers of its steps lies with the parameters, in the model.
struct Binding {
  std::uint64_t model = 0, optimizer = 0;

  Binding() = default;
  template <ParametersOfModel P>
  [[gnu::cold]] Binding(std::string_view kind, const P& parameters) : optimizer(next_stamp()) {
    for (const auto& p : parameters) {
      if (model != 0 && p.owner() != model) raise<UsageError>(kind, ": these are parameters of more than one model");
      model = p.owner();
    }
    const std::size_t all = model == 0 ? 0 : parameters.begin()->siblings();
    if (model == 0) raise<UsageError>(kind, ": there are no parameters to train");
    if (parameters.size() != all)
      raise<UsageError>(kind, ": takes all ", all, " parameters of a model, not ", parameters.size(),
                        " of them; model.freeze(name) leaves some as they are");
  }
};

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
