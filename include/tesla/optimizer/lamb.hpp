// LAMB (You et al. 2020): Adam's direction, scaled to the size of each parameter, for large batches.
#pragma once

#include <tesla/optimizer/schedule.hpp>

#include <cmath>

namespace tesla::inline TESLA_TARGET::optim {

struct LAMBOptions {
  schedule::LearningRate learning_rate = 1e-3;
  double beta_1 = 0.9;
  double beta_2 = 0.999;
  double epsilon = 1e-6;
  double weight_decay = 0.01;  // added to the direction, times the weight
  double clip_norm = 0;        // the gradient over all parameters is shortened to this; 0: never
};

struct LAMB : LAMBOptions {
  static constexpr std::string_view kind = "LAMB";
  static constexpr std::size_t slots = 2;
  static constexpr std::array<bool, 2> squares{false, true};
  Binding binding = {};

  LAMB() = default;
  explicit LAMB(const LAMBOptions& options) : LAMBOptions(options) { check(); }
  /// For all parameters of a model, to be given to train() and train_step() of that model.
  template <ParametersOfModel P>
  explicit LAMB(const P& parameters, const LAMBOptions& options = {}) : LAMB(options) {
    binding = {kind, parameters};
  }

  /// Every option in its range, or a UsageError.
  [[gnu::cold]] void check() const {
    learning_rate.check(kind);
    detail::check_fraction(kind, "beta_1", beta_1);
    detail::check_fraction(kind, "beta_2", beta_2);
    detail::check(kind, "epsilon", epsilon, 1e-30, 1e6);
    detail::check(kind, "weight_decay", weight_decay, 0, 1e6);
    detail::check(kind, "clip_norm", clip_norm, 0, 1e300);
  }

  struct Rule {
    double beta_1, beta_2, first, second, epsilon, decay, rate;

    template <class V>
    V operator()(const V& weight, V gradient, auto& state) const {
      using math::number, math::sqrt;
      const V m = state[0] + number<V>(1 - beta_1) * (gradient - state[0]);
      const V v = number<V>(beta_2) * state[1] + number<V>(1 - beta_2) * gradient * gradient;
      state[0] = m;
      state[1] = v;
      return number<V>(first) * m / (V(sqrt(number<V>(second) * v)) + number<V>(epsilon)) + number<V>(decay) * weight;
    }
    /// A parameter that is zero, as biases are at first, goes the way that Adam would.
    double scale(double weights, double directions) const {
      return weights > 0 && directions > 0 ? rate * weights / directions : rate;
    }
  };
  Rule at(std::size_t step) const {
    const double t = static_cast<double>(step);
    return {beta_1,  beta_2,       1 / (1 - std::pow(beta_1, t)), 1 / (1 - std::pow(beta_2, t)),
            epsilon, weight_decay, learning_rate.at(step)};
  }

  void fields(auto&& field) {
    field("learning_rate", learning_rate);
    field("beta_1", beta_1);
    field("beta_2", beta_2);
    field("epsilon", epsilon);
    field("weight_decay", weight_decay);
    field("clip_norm", clip_norm);
  }
};

}  // namespace tesla::inline TESLA_TARGET::optim
