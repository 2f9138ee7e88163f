// Learning rates that change with the steps of the optimizer. Any of these, or a plain number, is the .learning_rate of
// an optimizer. Step 1 has the rate that a schedule begins with.
#pragma once

#include <tesla/optimizer/optimizer.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <numbers>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace tesla::inline TESLA_TARGET::schedule {

namespace detail {

inline constexpr double most = 1e6;  // of a rate

[[gnu::cold]] inline void check_rate(std::string_view kind, std::string_view option, double value) {
  optim::detail::check(kind, option, value, 0, most);
}
[[gnu::cold]] inline void check_steps(std::string_view kind, std::string_view option, std::size_t value) {
  if (value == 0) raise<UsageError>(kind, ": .", option, " has to be 1 or more");
}

/// Rises along a line for the first steps, so that the rate after them is the first whole one.
struct WarmUp {
  double factor;      // of a step within it
  std::size_t after;  // steps since its end; 0 within it
};
inline WarmUp warm_up(std::size_t step, std::size_t steps) {
  const std::size_t before = std::max<std::size_t>(step, 1) - 1;
  if (before >= steps) return {1, before - steps};
  return {static_cast<double>(before + 1) / static_cast<double>(steps + 1), 0};
}

/// From a to b along half a cosine, as `at` goes from 0 to 1.
inline double along_cosine(double a, double b, double at) {
  return b + (a - b) / 2 * (1 + std::cos(std::numbers::pi * at));
}

}  // namespace detail

/// Always the same.
struct Constant {
  static constexpr std::string_view kind = "Constant";
  double rate = 0;
  double at(std::size_t) const { return rate; }
  void check() const { detail::check_rate(kind, "rate", rate); }
  void fields(auto&& field) { field("rate", rate); }
};

struct StepOptions {
  double from = 1e-3;
  double factor = 0.1;      // after each `every` steps the rate is so many times what it was
  std::size_t every = 0;    // steps
  double to = 0;            // never below this
  std::size_t warm_up = 0;  // steps in which the rate rises to `from`, before all others
};

/// Falls all at once, every so many steps.
struct Step : StepOptions {
  static constexpr std::string_view kind = "Step";
  Step() = default;
  explicit Step(const StepOptions& options) : StepOptions(options) { check(); }

  double at(std::size_t step) const {
    const auto [rise, after] = detail::warm_up(step, warm_up);
    return rise * std::max(to, from * std::pow(factor, static_cast<double>(after / every)));
  }
  [[gnu::cold]] void check() const {
    detail::check_rate(kind, "from", from);
    optim::detail::check(kind, "factor", factor, 0, 1);
    detail::check_steps(kind, "every", every);
    optim::detail::check(kind, "to", to, 0, from);
  }
  void fields(auto&& field) {
    field("from", from);
    field("factor", factor);
    field("every", every);
    field("to", to);
    field("warm_up", warm_up);
  }
};

/// The same, evenly: after `every` steps the rate is `factor` times what it was.
struct Exponential : StepOptions {
  static constexpr std::string_view kind = "Exponential";
  Exponential() = default;
  explicit Exponential(const StepOptions& options) : StepOptions(options) { check(); }

  double at(std::size_t step) const {
    const auto [rise, after] = detail::warm_up(step, warm_up);
    const double share = static_cast<double>(after) / static_cast<double>(every);
    return rise * std::max(to, from * std::pow(factor, share));
  }
  [[gnu::cold]] void check() const {
    detail::check_rate(kind, "from", from);
    optim::detail::check(kind, "factor", factor, 1e-300, 1);
    detail::check_steps(kind, "every", every);
    optim::detail::check(kind, "to", to, 0, from);
  }
  void fields(auto&& field) {
    field("from", from);
    field("factor", factor);
    field("every", every);
    field("to", to);
    field("warm_up", warm_up);
  }
};

struct CosineOptions {
  double from = 1e-3;
  double to = 0;
  std::size_t steps = 0;     // from one to the other; afterwards the rate stays at `to`
  std::size_t warm_up = 0;   // steps in which the rate rises to `from`, before all others
  std::size_t restarts = 0;  // how often it begins again
  double growth = 1;         // each time it takes so many times as long
};

/// Falls along half a cosine, with warm restarts where wanted (Loshchilov and Hutter 2017).
struct Cosine : CosineOptions {
  static constexpr std::string_view kind = "Cosine";
  Cosine() = default;
  explicit Cosine(const CosineOptions& options) : CosineOptions(options) { check(); }

  double at(std::size_t step) const {
    auto [rise, after] = detail::warm_up(step, warm_up);
    auto length = static_cast<double>(steps), place = static_cast<double>(after);
    if (growth == 1) {
      const std::size_t cycle = std::min(after / steps, restarts);
      place -= static_cast<double>(cycle) * length;
    } else {
      for (std::size_t left = restarts; left > 0 && place >= length; --left)
        place -= length, length = std::floor(length * growth);
    }
    return rise * detail::along_cosine(from, to, std::min(place / length, 1.0));
  }
  [[gnu::cold]] void check() const {
    detail::check_rate(kind, "from", from);
    detail::check_rate(kind, "to", to);
    detail::check_steps(kind, "steps", steps);
    optim::detail::check(kind, "growth", growth, 1, 1e3);
  }
  void fields(auto&& field) {
    field("from", from);
    field("to", to);
    field("steps", steps);
    field("warm_up", warm_up);
    field("restarts", restarts);
    field("growth", growth);
  }
};

struct OneCycleOptions {
  double peak = 1e-2;
  std::size_t steps = 0;      // of the whole training
  double rise = 0.3;          // the share of them before the peak
  double start_divisor = 25;  // it begins with the peak over this
  double end_divisor = 1e4;   // and ends with what it began with over this
};

/// Up and down once, along cosines (Smith and Topin 2018), in PyTorch's formulation; momentum stays as it is.
struct OneCycle : OneCycleOptions {
  static constexpr std::string_view kind = "OneCycle";
  OneCycle() = default;
  explicit OneCycle(const OneCycleOptions& options) : OneCycleOptions(options) { check(); }

  double at(std::size_t step) const {
    const double begin = peak / start_divisor, end = begin / end_divisor, last = static_cast<double>(steps) - 1;
    const double place = static_cast<double>(std::max<std::size_t>(step, 1) - 1);
    const double top = std::max(rise * static_cast<double>(steps) - 1, 0.0);
    if (place < top) return detail::along_cosine(begin, peak, place / top);
    return detail::along_cosine(peak, end, last > top ? std::min((place - top) / (last - top), 1.0) : 1.0);
  }
  [[gnu::cold]] void check() const {
    detail::check_rate(kind, "peak", peak);
    detail::check_steps(kind, "steps", steps);
    optim::detail::check(kind, "rise", rise, 0, 1);
    optim::detail::check(kind, "start_divisor", start_divisor, 1, 1e100);
    optim::detail::check(kind, "end_divisor", end_divisor, 1, 1e100);
  }
  void fields(auto&& field) {
    field("peak", peak);
    field("steps", steps);
    field("rise", rise);
    field("start_divisor", start_divisor);
    field("end_divisor", end_divisor);
  }
};

struct PiecewiseOptions {
  std::vector<double> rates = {};
  std::vector<std::size_t> until = {};  // the last step of each rate but the last one
};

/// One rate after the other.
struct Piecewise : PiecewiseOptions {
  static constexpr std::string_view kind = "Piecewise";
  Piecewise() = default;
  explicit Piecewise(PiecewiseOptions options) : PiecewiseOptions(std::move(options)) { check(); }

  double at(std::size_t step) const {
    std::size_t i = 0;
    while (i < until.size() && step > until[i]) ++i;
    return rates[i];
  }
  [[gnu::cold]] void check() const {
    for (const double rate : rates) detail::check_rate(kind, "rates", rate);
    if (rates.empty() || until.size() + 1 != rates.size())
      raise<UsageError>("Piecewise: .rates has one entry more than .until, where each but the last ends, not ",
                        rates.size(), " with ", until.size());
    for (std::size_t i = 0; i < until.size(); ++i)
      if (until[i] <= (i == 0 ? 0 : until[i - 1]))
        raise<UsageError>("Piecewise: the steps in .until have to rise, from 1 on; number ", i, " is ", until[i]);
  }
  void fields(auto&& field) {
    field("rates", rates);
    field("until", until);
  }
};

/// A number or a schedule: what an optimizer's .learning_rate is.
class LearningRate {
 public:
  template <class A>
  requires std::is_arithmetic_v<A> LearningRate(A rate) : schedule_(Constant{static_cast<double>(rate)}) {}
  template <class S>
  requires(std::same_as<S, Step> || std::same_as<S, Exponential> || std::same_as<S, Cosine> ||
           std::same_as<S, OneCycle> || std::same_as<S, Piecewise>) LearningRate(S schedule)
      : schedule_(std::move(schedule)) {
    std::get<S>(schedule_).check();
  }

  /// The rate of step 1, 2, ...
  double at(std::size_t step) const {
    return std::visit([step](const auto& s) { return s.at(step); }, schedule_);
  }
  bool constant() const { return schedule_.index() == 0; }
  std::string_view kind() const {
    return std::visit([](const auto& s) { return s.kind; }, schedule_);
  }
  /// Every option in its range, or a UsageError. `who` has this rate.
  [[gnu::cold]] void check(std::string_view who) const {
    if (const auto* plain = std::get_if<Constant>(&schedule_))
      return detail::check_rate(who, "learning_rate", plain->rate);
    std::visit([](const auto& s) { s.check(); }, schedule_);
  }

  /// Lists the options of the schedule.
  template <class F>
  [[gnu::cold]] void fields(F&& field) {
    std::visit([&](auto& s) { s.fields(field); }, schedule_);
  }
  /// Becomes a schedule of that kind, with the defaults of its options; false if there is none.
  [[gnu::cold]] bool become(std::string_view kind) {
    bool known = false;
    const auto consider = [&]<class S>(std::type_identity<S>) {
      if (kind == S::kind) schedule_ = S(), known = true;
    };
    consider(std::type_identity<Step>());
    consider(std::type_identity<Exponential>());
    consider(std::type_identity<Cosine>());
    consider(std::type_identity<OneCycle>());
    consider(std::type_identity<Piecewise>());
    return known;
  }

 private:
  std::variant<Constant, Step, Exponential, Cosine, OneCycle, Piecewise> schedule_;
};

}  // namespace tesla::inline TESLA_TARGET::schedule
