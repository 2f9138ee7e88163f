#pragma once

#include <tesla/metric/metric.hpp>

#include <cmath>
#include <cstddef>

namespace tesla::inline TESLA_TARGET::metric {

/// The mean distance between prediction and target, over features and samples.
struct MeanAbsoluteError {
  static constexpr std::string_view name = "mean_absolute_error";

  template <class T>
  double operator()(const Outcome<T>& o) const {
    double total = 0;
    for (std::size_t i = 0; i < o.prediction.size(); ++i) {
      const T wanted = o.target.empty() ? T(static_cast<std::size_t>(o.label) == i) : o.target[i];
      total += std::fabs(static_cast<double>(o.prediction[i]) - static_cast<double>(wanted));
    }
    return total / static_cast<double>(o.prediction.size());
  }
};

}  // namespace tesla::inline TESLA_TARGET::metric
