// The concept of a loss, and losses that are sums of one function over all features.
//
// A loss is the mean over the samples of a batch of what each costs. Its weights are 1 / batch, times the sample's own
// weight where there are any; a loss multiplies each sample's cost and gradient by the sample's weight and adds up.
//
// Labels may be one for each step of a sample. To the loss every step is then a sample of its own, with a weight of its
// own: see by_step().
#pragma once

#include <tesla/backend/backend.hpp>

#include <concepts>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

namespace tesla::inline TESLA_TARGET::loss {

/// What predictions are compared with: values of the same shape; class labels; or labels made into rows of 0 and 1.
struct Targets {
  enum Kind { values, labels, one_hot };

  constexpr Targets(Kind k, bool steps = false, std::optional<std::int32_t> i = {})
      : kind(k), by_step(steps), ignored(i) {}
  friend constexpr bool operator==(const Targets& a, Kind b) { return a.kind == b; }

  Kind kind;
  bool by_step;                         // labels may be one for each step: the loss calls by_step()
  std::optional<std::int32_t> ignored;  // the label of samples, or steps, that do not count
};

/// How many labels a sample has, for a model of these outputs: one, or with some losses one for each step of outputs of
/// {steps, classes}, or of more extents before the classes.
[[gnu::cold]] inline std::size_t steps_of(const Shape& output, const Targets& targets) {
  const std::size_t classes = output.rank() > 1 && targets.by_step ? output.back() : 0;
  return classes > 1 && targets.kind != Targets::values ? output.elements() / classes : 1;
}

// clang-format off
/// kind names the type in summaries and files. loss(backend, prediction, target, weights, gradient) returns the value
/// and fills the gradient unless it is null. It may also have:
///   from_logits             a bool: whether predictions are logits rather than probabilities, for metrics
///   binary()                whether outputs are judged one by one, each with a target of 0 or 1, for metrics
///   check_targets(y, what)  raises an error about values that are no targets of this loss
template <class L>
concept Loss = std::copyable<L> && requires(const L& loss) {
  { L::kind } -> std::convertible_to<std::string_view>;
  { loss.targets() } -> std::same_as<Targets>;
};
// clang-format on

/// A label or none, for options: one that files and comparisons of options can walk through.
struct OptionalLabel : std::optional<std::int32_t> {
  using std::optional<std::int32_t>::optional;
  const std::int32_t* begin() const { return has_value() ? &**this : nullptr; }
  const std::int32_t* end() const { return begin() + size(); }
  std::size_t size() const { return has_value() ? 1 : 0; }
};

/// What a loss is called with.
template <class T>
struct Batch {
  Panels<const T> y;
  backend::Target<T> target;
  const T* weights;
  Panels<T> gradient;
};

/// A batch in which every step is a sample. In panels the outputs of a step lie as those of a panel of fewer features
/// do, so nothing moves; unused lanes are samples then, whose weights are 0.
template <class T>
Batch<T> by_step(Panels<const T> y, const backend::Target<T>& target, const T* weights, Panels<T> gradient) {
  if (target.steps == 1) return {y, target, weights, gradient};
  const auto split = [&](auto p) {
    return decltype(p){p.data, p.features / target.steps, p.panels() * target.steps * p.lanes, p.lanes};
  };
  return {split(y), {target.labels, split(target.values)}, target.weights, split(gradient)};
}

/// The mean over the features of f(prediction, target), f being run on dual numbers.
template <class T, class B, class F>
double mean_over_features(B& backend, const F& f, Panels<const T> prediction, backend::Target<T> target,
                          const T* weights, Panels<T> gradient) {
  const double scale = 1 / static_cast<double>(prediction.features);
  return backend.elementwise_loss([&f, scale](auto y, auto t) { return f(y, t) * scale; }, prediction, target.values,
                                  weights, gradient);
}

/// A loss of one's own, from one generic lambda of a prediction and a target; the mean over samples and features.
template <class F>
struct Custom {
  static constexpr std::string_view kind = "Custom";
  F function;

  Targets targets() const { return Targets::values; }
  void fields(auto&&) requires std::is_empty_v<F> {}
  template <class T, class B>
  double operator()(B& backend, Panels<const T> prediction, backend::Target<T> target, const T* weights,
                    Panels<T> gradient) const {
    return mean_over_features(backend, function, prediction, target, weights, gradient);
  }
};

/// `tesla::loss::custom([](auto y, auto t) { auto d = y - t; return d * d * d * d; })`
template <class F>
Custom<F> custom(F f) {
  return {std::move(f)};
}

}  // namespace tesla::inline TESLA_TARGET::loss
