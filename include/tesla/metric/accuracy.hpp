#pragma once

#include <tesla/metric/metric.hpp>
#include <tesla/tensor/view.hpp>

#include <optional>

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
  std::optional<std::int32_t> ignore_label = {};  // the label of what does not count
};

/// The share of predictions that are right. With several outputs the largest one is the class, and y has labels or rows
/// in which the largest one is it; with a single output, y has zeros and ones. Predictions of {samples, steps, classes}
/// have a label each step.
[[gnu::cold]] inline double accuracy(const ArrayView& predictions, const ArrayView& y,
                                     const AccuracyOptions& options = {}) {
  const std::size_t samples = predictions.samples(), all = predictions.features(), targets = y.features();
  if (predictions.empty()) raise<DataError>("accuracy: there are no predictions in shape ", predictions.shape());
  const std::size_t classes = predictions.shape().rank() > 2 ? predictions.shape().back() : 0;
  const bool by_step = classes > 1 && targets > 1 && targets == all / classes;
  const std::size_t steps = by_step ? targets : 1, outputs = all / steps;
  if (y.samples() != samples || (!by_step && targets != 1 && targets != outputs))
    raise<ShapeError>("accuracy: predictions of shape ", predictions.shape(), " are compared with ", samples,
                      " labels, or as many rows of ", outputs, ", not with y of shape ", y.shape());
  const bool labels = by_step || targets < outputs;
  std::vector<double> prediction(outputs), target(labels ? 1 : targets);
  double right = 0;
  std::size_t counted = 0;
  for (std::size_t i = 0; i < samples * steps; ++i) {
    predictions.read(i / steps, i % steps * outputs, outputs, prediction.data());
    y.read(i / steps, i % steps, target.size(), target.data());
    metric::Outcome<double> outcome{prediction, target, 0, options.from_logits, false};
    if (labels) {
      const double label = target[0];
      if (options.ignore_label && label == *options.ignore_label) continue;
      if (!(label >= 0 && label < static_cast<double>(outputs)) || label != std::floor(label))
        raise<DataError>("accuracy: the label of sample ", i / steps,
                         by_step ? text(", step ", i % steps) : std::string(), " is ", label,
                         "; labels are whole numbers from 0 to ", outputs - 1);
      outcome.target = {}, outcome.label = static_cast<std::int32_t>(label);
    }
    right += metric::Accuracy()(outcome);
    ++counted;
  }
  return right / static_cast<double>(std::max<std::size_t>(counted, 1));
}

}  // namespace tesla::inline TESLA_TARGET::utils
