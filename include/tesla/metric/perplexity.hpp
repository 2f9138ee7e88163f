#pragma once

#include <tesla/metric/metric.hpp>

namespace tesla::inline TESLA_TARGET::metric {

/// exp of the mean of -log p of the right class, over the samples, or the steps where each has a label: between how
/// many classes the model is undecided. 1 is perfect, the number of classes as good as guessing.
class Perplexity {
 public:
  static constexpr std::string_view name = "perplexity";

  [[gnu::cold]] void reset(const Scope& scope) {
    if (!scope.classes)
      raise<UsageError>("Perplexity: takes models with an output for each class; this one has ", scope.outputs,
                        scope.outputs == 1 ? " output" : " outputs", " that say yes or no");
    total_ = 0, samples_ = 0;
  }
  template <class T>
  void add(const Outcome<T>& o) {
    const std::size_t right = o.true_class();
    total_ += o.from_logits ? cost_of_logits(o.prediction, right)
                            : -std::log(std::max(static_cast<double>(o.prediction[right]), least_probability));
    ++samples_;
  }
  double value() const { return std::exp(total_ / static_cast<double>(std::max<std::size_t>(samples_, 1))); }

 private:
  static constexpr double least_probability = 1e-12;  // as in the losses

  template <class T>
  static double cost_of_logits(std::span<const T> logits, std::size_t right) {
    const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
    double sum = 0;
    for (const T logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
    return std::log(sum) - (static_cast<double>(logits[right]) - largest);
  }

  double total_ = 0;
  std::size_t samples_ = 0;
};

}  // namespace tesla::inline TESLA_TARGET::metric
