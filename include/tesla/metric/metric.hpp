// The concept of a metric: a number for each sample, whose mean is reported; or a state that sees all samples and is
// asked for its value at the end. Where there is a label for each step, every step is a sample to metrics.
#pragma once

#include <tesla/core/error.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tesla::inline TESLA_TARGET::metric {

/// One sample's prediction beside what was wanted: a class label, or values.
template <class T>
struct Outcome {
  std::span<const T> prediction;
  std::span<const T> target;  // empty where there is a label
  std::int32_t label = 0;
  bool from_logits = true;  // whether predictions are logits rather than probabilities
  bool binary = false;      // whether the loss judges outputs one by one

  std::size_t predicted_class() const { return largest(prediction); }
  std::size_t true_class() const { return target.empty() ? static_cast<std::size_t>(label) : largest(target); }

  /// Whether there is an output for each class. Otherwise each output says yes or no.
  bool classes() const { return !binary && prediction.size() > 1; }
  /// Whether output i says yes: its probability is above the threshold.
  bool yes(std::size_t i, double threshold = 0.5) const {
    const double limit = !from_logits ? threshold : threshold == 0.5 ? 0 : std::log(threshold / (1 - threshold));
    return static_cast<double>(prediction[i]) > limit;
  }
  bool wanted_yes(std::size_t i) const { return target.empty() ? label != 0 : target[i] > T(0.5); }
  /// The value that output i should have; of a label, 0 or 1.
  double wanted(std::size_t i) const {
    return target.empty() ? (static_cast<std::size_t>(label) == i ? 1 : 0) : static_cast<double>(target[i]);
  }

 private:
  static std::size_t largest(std::span<const T> values) {
    return static_cast<std::size_t>(std::max_element(values.begin(), values.end()) - values.begin());
  }
};

/// What a metric is going to see.
struct Scope {
  std::size_t samples = 0;  // at most
  std::size_t outputs = 0;  // of the model
  bool classes = false;     // as Outcome::classes()
};

// clang-format off
/// metric(outcome) is one sample's number; the mean is reported.
template <class M>
concept SampleMetric = requires(const M& metric, const Outcome<float>& outcome) {
  { metric(outcome) } -> std::convertible_to<double>;
};

/// reset(scope) begins anew, add(outcome) takes one sample, value() is the number so far. A metric of several numbers
/// has keys(), their names, and values(out), which writes one for each.
template <class M>
concept StateMetric = requires(M& metric, const Scope& scope, const Outcome<float>& outcome) {
  metric.reset(scope);
  metric.add(outcome);
} && (requires(const M& metric) { { metric.value() } -> std::convertible_to<double>; } ||
      requires(const M& metric, std::span<double> out) {
        { metric.keys() } -> std::same_as<std::vector<std::string>>;
        metric.values(out);
      });

/// name is what a metric is called in files, and its key in History and Scores, unless a member key() says otherwise.
template <class M>
concept Metric = std::copyable<M> && (SampleMetric<M> || StateMetric<M>) && requires {
  { M::name } -> std::convertible_to<std::string_view>;
};
// clang-format on

namespace detail {

/// A metric of samples as one with a state.
template <class M>
class Mean {
 public:
  explicit Mean(M metric) : metric_(std::move(metric)) {}

  const M& metric() const { return metric_; }
  void reset(const Scope& scope) {
    if constexpr (requires { metric_.check(scope); }) metric_.check(scope);
    total_ = 0, samples_ = 0;
  }
  template <class T>
  void add(const Outcome<T>& outcome) {
    total_ += static_cast<double>(metric_(outcome));
    ++samples_;
  }
  double value() const { return total_ / static_cast<double>(std::max<std::size_t>(samples_, 1)); }

 private:
  M metric_;
  double total_ = 0;
  std::size_t samples_ = 0;
};

[[gnu::cold]] inline void check_threshold(std::string_view who, double threshold) {
  if (!(threshold > 0 && threshold < 1))
    raise<UsageError>(who, ": .threshold is a probability between 0 and 1, not ", threshold);
}

}  // namespace detail

}  // namespace tesla::inline TESLA_TARGET::metric
