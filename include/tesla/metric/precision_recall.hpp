// Precision, recall and F1, of classes or of outputs that say yes or no.
#pragma once

#include <tesla/metric/average.hpp>

namespace tesla::inline TESLA_TARGET::metric {

struct AverageOptions {
  Average average = macro;
  double threshold = 0.5;  // of the probability that means yes, for outputs that are no classes
};

namespace detail {

/// Counts the decisions for each class.
class Decisions : public AverageOptions {
 public:
  [[gnu::cold]] void reset(const Scope& scope) { counts_.assign(scope.outputs, Counts()); }
  template <class T>
  void add(const Outcome<T>& o) {
    if (o.classes())
      add_class(o.predicted_class(), o.true_class());
    else
      for (std::size_t i = 0; i < o.prediction.size(); ++i) add_answer(i, o.yes(i, threshold), o.wanted_yes(i));
  }
  [[gnu::cold]] void fields(auto&& field) {
    average_field(field, average);
    field("threshold", threshold);
  }

 protected:
  Decisions() = default;
  Decisions(const AverageOptions& options, std::string_view who) : AverageOptions(options) {
    check_threshold(who, threshold);
  }

  /// How many of the hits, false alarms and misses go into the denominator, where the hits are the numerator.
  [[gnu::cold, gnu::noinline]] double averaged(double false_alarms, double misses) const {
    const auto score = [&](const Counts& c) {
      const double all = static_cast<double>(c.hits) + false_alarms * static_cast<double>(c.false_alarms) +
                         misses * static_cast<double>(c.misses);
      return all > 0 ? static_cast<double>(c.hits) / all : 0;
    };
    Counts sum;
    double total = 0, weights = 0;
    for (const Counts& c : counts_) {
      sum.hits += c.hits, sum.false_alarms += c.false_alarms, sum.misses += c.misses;
      if (c.hits + c.false_alarms + c.misses == 0) continue;
      const double weight = average == weighted ? static_cast<double>(c.hits + c.misses) : 1;
      total += weight * score(c), weights += weight;
    }
    return average == micro ? score(sum) : weights > 0 ? total / weights : 0;
  }

 private:
  struct Counts {
    std::uint64_t hits = 0, false_alarms = 0, misses = 0;
  };
  void add_class(std::size_t predicted, std::size_t wanted) {
    if (predicted == wanted) {
      ++counts_[wanted].hits;
    } else {
      ++counts_[predicted].false_alarms;
      ++counts_[wanted].misses;
    }
  }
  void add_answer(std::size_t output, bool yes, bool wanted) {
    Counts& c = counts_[output];
    if (yes && wanted) ++c.hits;
    if (yes && !wanted) ++c.false_alarms;
    if (!yes && wanted) ++c.misses;
  }

  std::vector<Counts> counts_;
};

}  // namespace detail

/// The share of right ones among those that were taken for a class; 0 where none was.
class Precision : public detail::Decisions {
 public:
  static constexpr std::string_view name = "precision";
  Precision() = default;
  explicit Precision(const AverageOptions& options) : Decisions(options, "Precision") {}
  void check() const { detail::check_threshold("Precision", threshold); }
  std::string key() const { return detail::key_of(average, name); }
  double value() const { return averaged(1, 0); }
};

/// The share of the samples of a class that were found; 0 where there are none.
class Recall : public detail::Decisions {
 public:
  static constexpr std::string_view name = "recall";
  Recall() = default;
  explicit Recall(const AverageOptions& options) : Decisions(options, "Recall") {}
  void check() const { detail::check_threshold("Recall", threshold); }
  std::string key() const { return detail::key_of(average, name); }
  double value() const { return averaged(0, 1); }
};

/// The harmonic mean of precision and recall, of each class before the average.
class F1 : public detail::Decisions {
 public:
  static constexpr std::string_view name = "f1";
  F1() = default;
  explicit F1(const AverageOptions& options) : Decisions(options, "F1") {}
  void check() const { detail::check_threshold("F1", threshold); }
  std::string key() const { return detail::key_of(average, name); }
  double value() const { return averaged(0.5, 0.5); }
};

}  // namespace tesla::inline TESLA_TARGET::metric
