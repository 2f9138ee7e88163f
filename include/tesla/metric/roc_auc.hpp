#pragma once

#include <tesla/core/math.hpp>
#include <tesla/metric/average.hpp>

#include <limits>

namespace tesla::inline TESLA_TARGET::metric {

struct RocAucOptions {
  Average average = macro;  // or weighted
};

/// The area under the receiver operating characteristic: how likely a sample of the one class gets a larger output than
/// one of the other, equal outputs counted half. Of several classes each is compared with all others together, by its
/// probability; of several outputs that say yes or no each is taken by itself; then these areas are averaged. A class
/// that never occurs, or always, has no area and is left out; NaN where none is left. Exact: it keeps all outputs and
/// sorts them when it is asked for the value.
class RocAuc : public RocAucOptions {
 public:
  static constexpr std::string_view name = "roc_auc";

  RocAuc() = default;
  explicit RocAuc(const RocAucOptions& options) : RocAucOptions(options) { check(); }
  [[gnu::cold]] void check() const {
    if (average == micro)
      raise<UsageError>("RocAuc: .average is macro or weighted; there is no micro average of areas here");
  }
  [[gnu::cold]] std::string key() const { return detail::key_of(average, name); }
  [[gnu::cold]] void fields(auto&& field) { detail::average_field(field, average); }

  [[gnu::cold]] void reset(const Scope& scope) {
    columns_ = scope.classes && scope.outputs == 2 ? 1 : scope.outputs;
    samples_ = 0, finite_ = true;
    scores_.clear(), wanted_.clear();
    scores_.reserve(scope.samples * columns_), wanted_.reserve(scope.samples * columns_);
    sides_.reserve(scope.samples);
  }
  template <class T>
  void add(const Outcome<T>& o) {
    ++samples_;
    for (const T value : o.prediction) finite_ = finite_ && is_finite(static_cast<double>(value));
    if (o.classes() && columns_ == 1) {  // of two outputs only the difference says something
      scores_.push_back(static_cast<double>(o.prediction[1]) - static_cast<double>(o.prediction[0]));
      wanted_.push_back(o.true_class() == 1);
      return;
    }
    if (o.classes() && o.from_logits)
      add_log_odds(o.prediction);
    else
      scores_.insert(scores_.end(), o.prediction.begin(), o.prediction.end());
    const std::size_t right = o.classes() ? o.true_class() : 0;
    for (std::size_t i = 0; i < columns_; ++i) wanted_.push_back(o.classes() ? i == right : o.wanted_yes(i));
  }
  [[gnu::cold, gnu::noinline]] double value() const {
    double total = 0, weights = 0;
    for (std::size_t column = 0; finite_ && column < columns_; ++column) {
      const std::size_t yes = take_apart(column);
      if (yes == 0 || yes == samples_) continue;
      const double weight = average == weighted ? static_cast<double>(yes) : 1;
      total += weight * area(yes), weights += weight;
    }
    return weights > 0 ? total / weights : std::numeric_limits<double>::quiet_NaN();
  }

 private:
  /// Of each class log(p / (1 - p)), which orders samples as the probability p does, also where that is all but 1.
  template <class T>
  void add_log_odds(std::span<const T> logits) {
    const auto at = [&](std::size_t i) { return static_cast<double>(logits[i]); };
    std::size_t first = 0;  // the largest
    for (std::size_t i = 1; i < logits.size(); ++i)
      if (logits[i] > logits[first]) first = i;
    double second = std::numeric_limits<double>::lowest(), rest = 0;
    for (std::size_t i = 0; i < logits.size(); ++i)
      if (i != first) second = std::max(second, at(i));
    for (std::size_t i = 0; i < logits.size(); ++i)
      if (i != first) rest += std::exp(at(i) - second);
    const double lead = at(first) - second, others = rest * std::exp(-lead);
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double below = at(i) - at(first);
      scores_.push_back(i == first ? lead - std::log(rest)
                                   : below - std::log1p(std::max(others - std::exp(below), 0.0)));
    }
  }
  /// The scores of a column, those of a yes before the others; how many of these there are.
  std::size_t take_apart(std::size_t column) const {
    sides_.resize(samples_);
    std::size_t yes = 0, no = samples_;
    for (std::size_t i = 0; i < samples_; ++i) {
      const std::size_t at = i * columns_ + column;
      sides_[wanted_[at] ? yes++ : --no] = scores_[at];
    }
    return yes;
  }
  double area(std::size_t count) const {
    const auto middle = sides_.begin() + static_cast<std::ptrdiff_t>(count), end = sides_.end();
    std::sort(sides_.begin(), middle);
    std::sort(middle, end);
    std::uint64_t halves = 0;  // two for each pair in the right order, one for a tie
    auto below = middle, not_above = middle;
    for (auto yes = sides_.begin(); yes != middle; ++yes) {
      while (below != end && *below < *yes) ++below;
      while (not_above != end && *not_above <= *yes) ++not_above;
      halves += static_cast<std::uint64_t>((below - middle) + (not_above - middle));
    }
    return static_cast<double>(halves) / 2 / (static_cast<double>(count) * static_cast<double>(samples_ - count));
  }

  std::size_t columns_ = 1, samples_ = 0;
  std::vector<double> scores_;  // a row for each sample
  std::vector<bool> wanted_;    // the same
  mutable std::vector<double> sides_;
  bool finite_ = true;
};

}  // namespace tesla::inline TESLA_TARGET::metric
