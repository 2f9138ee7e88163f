#pragma once

#include <tesla/metric/metric.hpp>

namespace tesla::inline TESLA_TARGET::metric {

/// The share of samples whose largest output is the right class; with a single output or several independent ones
/// against targets of 0 and 1, the share of outputs on the right side of one half.
struct Accuracy {
  static constexpr std::string_view name = "accuracy";

  template <class T>
  double operator()(const Outcome<T>& o) const {
    if (o.classes()) return o.predicted_class() == o.true_class() ? 1 : 0;
    std::size_t right = 0;
    for (std::size_t i = 0; i < o.prediction.size(); ++i)
      if (o.yes(i) == o.wanted_yes(i)) ++right;
    return static_cast<double>(right) / static_cast<double>(o.prediction.size());
  }
};

}  // namespace tesla::inline TESLA_TARGET::metric
