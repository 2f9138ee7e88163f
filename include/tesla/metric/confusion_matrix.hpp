#pragma once

#include <tesla/metric/metric.hpp>

namespace tesla::inline TESLA_TARGET::metric {

struct ConfusionMatrixOptions {
  double threshold = 0.5;  // of the probability that means yes, for models with one output
};

/// How often each class was taken for each other. It reports no score: look at it after evaluate or fit, with
/// model.metric<metric::ConfusionMatrix>(). A model with one output has the classes 0, no, and 1, yes.
class ConfusionMatrix : public ConfusionMatrixOptions {
 public:
  static constexpr std::string_view name = "confusion_matrix";

  ConfusionMatrix() = default;
  explicit ConfusionMatrix(const ConfusionMatrixOptions& options) : ConfusionMatrixOptions(options) { check(); }
  void check() const { detail::check_threshold("ConfusionMatrix", threshold); }

  [[gnu::cold]] void reset(const Scope& scope) {
    if (!scope.classes && scope.outputs != 1)
      raise<UsageError>(
          "ConfusionMatrix: takes models with an output for each class, or with a single one; this one has ",
          scope.outputs, " outputs that say yes or no");
    classes_ = scope.classes ? scope.outputs : 2;
    counts_.assign(classes_ * classes_, 0);
  }
  template <class T>
  void add(const Outcome<T>& o) {
    const std::size_t row = o.classes() ? o.true_class() : o.wanted_yes(0) ? 1 : 0;
    const std::size_t column = o.classes() ? o.predicted_class() : o.yes(0, threshold) ? 1 : 0;
    ++counts_[row * classes_ + column];
  }
  std::vector<std::string> keys() const { return {}; }
  void values(std::span<double>) const {}
  void fields(auto&& field) { field("threshold", threshold); }

  std::size_t classes() const { return classes_; }
  /// Samples of class `wanted` that were taken for class `predicted`.
  std::size_t operator()(std::size_t wanted, std::size_t predicted) const {
    if (wanted >= classes_ || predicted >= classes_)
      raise<UsageError>("ConfusionMatrix: there is no (", wanted, ", ", predicted, "), only ", classes_, " classes",
                        classes_ == 0 ? "; call evaluate or fit first" : "");
    return counts_[wanted * classes_ + predicted];
  }
  /// A line for each true class, a column for each predicted one.
  [[gnu::cold]] std::string to_string() const {
    std::size_t width = 1;
    for (const std::size_t count : counts_) width = std::max(width, text(count).size());
    width = std::max(width, text(classes_).size());
    const auto padded = [width](std::size_t number) {
      const std::string digits = text(number);
      return std::string(width + 1 - digits.size(), ' ') + digits;
    };
    std::string result = std::string(width + 1, ' ') + " |";
    for (std::size_t c = 0; c < classes_; ++c) result += padded(c);
    for (std::size_t r = 0; r < classes_; ++r) {
      result += "\n" + padded(r) + " |";
      for (std::size_t c = 0; c < classes_; ++c) result += padded(counts_[r * classes_ + c]);
    }
    return result + "\n";
  }

 private:
  std::size_t classes_ = 0;
  std::vector<std::size_t> counts_;
};

}  // namespace tesla::inline TESLA_TARGET::metric
