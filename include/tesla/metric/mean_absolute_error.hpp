#pragma once

#include <tesla/metric/metric.hpp>

namespace tesla::inline TESLA_TARGET::metric {

/// The mean distance between prediction and target, over features and samples.
struct MeanAbsoluteError {
  static constexpr std::string_view name = "mean_absolute_error";

  template <class T>
  double operator()(const Outcome<T>& o) const {
    double total = 0;
    for (std::size_t i = 0; i < o.prediction.size(); ++i)
      total += std::fabs(static_cast<double>(o.prediction[i]) - o.wanted(i));
    return total / static_cast<double>(o.prediction.size());
  }
};

}  // namespace tesla::inline TESLA_TARGET::metric
