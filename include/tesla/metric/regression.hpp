// How well values are met: R2, the root of the mean squared error, the mean error in percent.
#pragma once

#include <tesla/metric/metric.hpp>

namespace tesla::inline TESLA_TARGET::metric {

/// The root of the mean squared error, over features and samples.
class RootMeanSquaredError {
 public:
  static constexpr std::string_view name = "root_mean_squared_error";

  void reset(const Scope&) { total_ = 0, values_ = 0; }
  template <class T>
  void add(const Outcome<T>& o) {
    for (std::size_t i = 0; i < o.prediction.size(); ++i) {
      const double error = static_cast<double>(o.prediction[i]) - o.wanted(i);
      total_ += error * error;
    }
    values_ += o.prediction.size();
  }
  double value() const { return std::sqrt(total_ / static_cast<double>(std::max<std::size_t>(values_, 1))); }

 private:
  double total_ = 0;
  std::size_t values_ = 0;
};

/// The mean distance between prediction and target in percent of the target. Targets nearer to 0 than 1e-7 count as
/// that far away.
struct MeanAbsolutePercentageError {
  static constexpr std::string_view name = "mean_absolute_percentage_error";

  template <class T>
  double operator()(const Outcome<T>& o) const {
    double total = 0;
    for (std::size_t i = 0; i < o.prediction.size(); ++i)
      total += std::fabs(static_cast<double>(o.prediction[i]) - o.wanted(i)) / std::max(std::fabs(o.wanted(i)), 1e-7);
    return 100 * total / static_cast<double>(o.prediction.size());
  }
};

/// The share of the targets' variance that the predictions explain: 1 is perfect, 0 as good as their mean. The mean
/// over the outputs. An output whose targets are all the same counts 1 if it is met exactly and else 0.
class R2 {
 public:
  static constexpr std::string_view name = "r2";

  [[gnu::cold]] void reset(const Scope& scope) {
    sums_.assign(scope.outputs, Sums());
    samples_ = 0;
  }
  template <class T>
  void add(const Outcome<T>& o) {
    ++samples_;
    for (std::size_t i = 0; i < o.prediction.size(); ++i)
      add(sums_[i], static_cast<double>(o.prediction[i]), o.wanted(i));
  }
  [[gnu::cold, gnu::noinline]] double value() const {
    double total = 0;
    for (const Sums& s : sums_) total += s.variance > 0 ? 1 - s.residual / s.variance : s.residual > 0 ? 0 : 1;
    return sums_.empty() ? 0 : total / static_cast<double>(sums_.size());
  }

 private:
  struct Sums {
    double mean = 0, variance = 0, residual = 0;  // the latter two times the number of samples
  };
  // The mean and the variance as they move (Welford 1962): a difference of large sums would lose digits.
  void add(Sums& s, double prediction, double target) {
    const double from_mean = target - s.mean;
    s.mean += from_mean / static_cast<double>(samples_);
    s.variance += from_mean * (target - s.mean);
    s.residual += (prediction - target) * (prediction - target);
  }

  std::vector<Sums> sums_;
  std::size_t samples_ = 0;
};

}  // namespace tesla::inline TESLA_TARGET::metric
