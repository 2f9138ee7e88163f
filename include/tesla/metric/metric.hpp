// The concept of a metric: a number for each sample, whose mean is reported.
#pragma once

#include <tesla/core/error.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <string_view>

namespace tesla::inline TESLA_TARGET::metric {

/// One sample's prediction beside what was wanted: a class label, or values.
template <class T>
struct Outcome {
  std::span<const T> prediction;
  std::span<const T> target;  // empty where there is a label
  std::int32_t label = 0;
  bool from_logits = true;  // whether predictions are logits rather than probabilities

  std::size_t predicted_class() const { return largest(prediction); }
  std::size_t true_class() const { return target.empty() ? static_cast<std::size_t>(label) : largest(target); }

 private:
  static std::size_t largest(std::span<const T> values) {
    return static_cast<std::size_t>(std::max_element(values.begin(), values.end()) - values.begin());
  }
};

// clang-format off
/// name is the metric's key in History and Scores; metric(outcome) is one sample's number.
template <class M>
concept Metric = std::copyable<M> && requires(const M& metric, const Outcome<float>& outcome) {
  { M::name } -> std::convertible_to<std::string_view>;
  { metric(outcome) } -> std::convertible_to<double>;
};
// clang-format on

}  // namespace tesla::inline TESLA_TARGET::metric
