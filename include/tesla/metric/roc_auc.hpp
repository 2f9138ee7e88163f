#pragma once

#include <tesla/core/math.hpp>
#include <tesla/metric/metric.hpp>

#include <limits>

namespace tesla::inline TESLA_TARGET::metric {

/// The area under the receiver operating characteristic: how likely a sample of the one class gets a larger output than
/// one of the other, equal outputs counted half. Exact: it keeps an output for each sample and sorts them when it is
/// asked for the value. NaN where only one class occurs.
class RocAuc {
 public:
  static constexpr std::string_view name = "roc_auc";

  [[gnu::cold]] void reset(const Scope& scope) {
    if (scope.outputs != 1 && !(scope.classes && scope.outputs == 2))
      raise<UsageError>("RocAuc: takes models with one output, or with one for each of two classes; this one has ",
                        scope.outputs);
    for (auto* side : {&yes_, &no_}) {
      side->clear();
      side->reserve(scope.samples);
    }
    finite_ = true;
  }
  template <class T>
  void add(const Outcome<T>& o) {
    // Of two outputs only the difference says something.
    const double score = o.classes() ? static_cast<double>(o.prediction[1]) - static_cast<double>(o.prediction[0])
                                     : static_cast<double>(o.prediction[0]);
    const bool wanted = o.classes() ? o.true_class() == 1 : o.wanted_yes(0);
    (wanted ? yes_ : no_).push_back(score);
    finite_ = finite_ && is_finite(score);
  }
  [[gnu::cold, gnu::noinline]] double value() const {
    if (yes_.empty() || no_.empty() || !finite_) return std::numeric_limits<double>::quiet_NaN();
    std::sort(yes_.begin(), yes_.end());
    std::sort(no_.begin(), no_.end());
    std::uint64_t halves = 0;  // two for each pair in the right order, one for a tie
    auto below = no_.begin(), not_above = no_.begin();
    for (const double score : yes_) {
      while (below != no_.end() && *below < score) ++below;
      while (not_above != no_.end() && *not_above <= score) ++not_above;
      halves += static_cast<std::uint64_t>((below - no_.begin()) + (not_above - no_.begin()));
    }
    return static_cast<double>(halves) / 2 / (static_cast<double>(yes_.size()) * static_cast<double>(no_.size()));
  }

 private:
  mutable std::vector<double> yes_, no_;  // their order means nothing
  bool finite_ = true;
};

}  // namespace tesla::inline TESLA_TARGET::metric
