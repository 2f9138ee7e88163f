#pragma once

#include <tesla/metric/metric.hpp>

#include <cstddef>

namespace tesla::inline TESLA_TARGET::metric {

/// The share of samples whose largest output is the right class; with a single output or several independent ones
/// against targets of 0 and 1, the share of outputs on the right side of one half.
struct Accuracy {
  static constexpr std::string_view name = "accuracy";
  bool binary = false;  // set for binary losses, where outputs are judged one by one

  template <class T>
  double operator()(const Outcome<T>& o) const {
    if (!binary && o.prediction.size() > 1) return o.predicted_class() == o.true_class() ? 1 : 0;
    const T threshold = o.from_logits ? T(0) : T(0.5);
    std::size_t right = 0;
    for (std::size_t i = 0; i < o.prediction.size(); ++i) {
      const bool wanted = o.target.empty() ? o.label != 0 : o.target[i] > T(0.5);
      if ((o.prediction[i] > threshold) == wanted) ++right;
    }
    return static_cast<double>(right) / static_cast<double>(o.prediction.size());
  }
};

}  // namespace tesla::inline TESLA_TARGET::metric
