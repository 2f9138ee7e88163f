#pragma once

#include <tesla/metric/metric.hpp>
#include <tesla/tensor/view.hpp>

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

namespace tesla::inline TESLA_TARGET::utils {

struct AccuracyOptions {
  bool from_logits = true;  // whether a single output is a logit, which says yes above 0, or a probability
};

/// The share of predictions that are right. With several outputs the largest one is the class, and y has labels or rows
/// in which the largest one is it; with a single output, y has zeros and ones.
[[gnu::cold]] inline double accuracy(const ArrayView& predictions, const ArrayView& y,
                                     const AccuracyOptions& options = {}) {
  const std::size_t samples = predictions.samples(), outputs = predictions.features(), targets = y.features();
  if (predictions.empty()) raise<DataError>("accuracy: there are no predictions in shape ", predictions.shape());
  if (y.samples() != samples || (targets != 1 && targets != outputs))
    raise<ShapeError>("accuracy: predictions of shape ", predictions.shape(), " are compared with ", samples,
                      " labels, or as many rows of ", outputs, ", not with y of shape ", y.shape());
  std::vector<double> prediction(outputs), target(targets);
  double right = 0;
  for (std::size_t i = 0; i < samples; ++i) {
    predictions.read(i, 0, outputs, prediction.data());
    y.read(i, 0, targets, target.data());
    metric::Outcome<double> outcome{prediction, target, 0, options.from_logits, false};
    if (targets < outputs) {
      const double label = target[0];
      if (!(label >= 0 && label < static_cast<double>(outputs)) || label != std::floor(label))
        raise<DataError>("accuracy: the label of sample ", i, " is ", label, "; labels are whole numbers from 0 to ",
                         outputs - 1);
      outcome.target = {}, outcome.label = static_cast<std::int32_t>(label);
    }
    right += metric::Accuracy()(outcome);
  }
  return right / static_cast<double>(samples);
}

}  // namespace tesla::inline TESLA_TARGET::utils
