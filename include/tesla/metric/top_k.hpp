#pragma once

#include <tesla/metric/metric.hpp>

namespace tesla::inline TESLA_TARGET::metric {

struct TopKOptions {
  std::size_t k = 3;
};

/// The share of samples whose right class is among the k largest outputs; its key is "top_3". Of equal outputs the
/// first counts as the largest.
struct TopK : TopKOptions {
  static constexpr std::string_view name = "top_k";

  TopK() = default;
  explicit TopK(const TopKOptions& options) : TopKOptions(options) { check(); }
  [[gnu::cold]] void check() const {
    if (k == 0) raise<UsageError>("TopK: .k has to be 1 or more, not 0");
  }
  [[gnu::cold]] void check(const Scope& scope) const {
    if (!scope.classes)
      raise<UsageError>("TopK: takes models with an output for each class; this one has ", scope.outputs,
                        scope.outputs == 1 ? " output" : " outputs", " that say yes or no");
  }

  [[gnu::cold]] std::string key() const { return text("top_", k); }
  template <class T>
  double operator()(const Outcome<T>& o) const {
    const std::size_t right = o.true_class();
    const T value = o.prediction[right];
    std::size_t before = 0;
    for (std::size_t i = 0; i < o.prediction.size(); ++i)
      if (o.prediction[i] > value || (i < right && o.prediction[i] == value)) ++before;
    return before < k ? 1 : 0;
  }
  void fields(auto&& field) { field("k", k); }
};

}  // namespace tesla::inline TESLA_TARGET::metric
