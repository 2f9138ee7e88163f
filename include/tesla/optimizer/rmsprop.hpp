// RMSprop (Tieleman and Hinton 2012), in PyTorch's formulation.
#pragma once

#include <tesla/optimizer/schedule.hpp>

namespace tesla::inline TESLA_TARGET::optim {

struct RMSpropOptions {
  schedule::LearningRate learning_rate = 0.01;
  double alpha = 0.99;  // how much of the running mean of squares a step keeps
  double epsilon = 1e-8;
  double momentum = 0;
  bool centered = false;    // by the variance of the gradient instead of its square (Graves 2013)
  double weight_decay = 0;  // added to the gradient, times the weight
  double clip_norm = 0;     // the gradient over all parameters is shortened to this; 0: never
};

struct RMSprop : RMSpropOptions {
  static constexpr std::string_view kind = "RMSprop";
  static constexpr std::size_t slots = 3;  // the mean of squares, the momentum, the mean
  static constexpr std::array<bool, 3> squares{true, false, false};
  Binding binding = {};

  RMSprop() = default;
  explicit RMSprop(const RMSpropOptions& options) : RMSpropOptions(options) { check(); }
  /// For all parameters of a model, to be given to train() and train_step() of that model.
  template <ParametersOfModel P>
  explicit RMSprop(const P& parameters, const RMSpropOptions& options = {}) : RMSprop(options) {
    binding = {kind, parameters};
  }

  /// Every option in its range, or a UsageError.
  [[gnu::cold]] void check() const {
    learning_rate.check(kind);
    detail::check_fraction(kind, "alpha", alpha);
    detail::check(kind, "epsilon", epsilon, 1e-30, 1e6);
    detail::check_fraction(kind, "momentum", momentum);
    detail::check(kind, "weight_decay", weight_decay, 0, 1e6);
    detail::check(kind, "clip_norm", clip_norm, 0, 1e300);
  }

  auto at(std::size_t step) const {
    return [rate = learning_rate.at(step), alpha = alpha, epsilon = epsilon, momentum = momentum,
            center = centered ? 1.0 : 0.0, decay = weight_decay](auto& weight, auto gradient, auto& state) {
      using V = decltype(gradient);
      using math::number, math::sqrt, math::max;
      const V g = gradient + number<V>(decay) * weight;
      const V second = number<V>(alpha) * state[0] + number<V>(1 - alpha) * g * g;
      const V mean = state[2] + number<V>(center * (1 - alpha)) * (g - state[2]);  // stays zero where it is not wanted
      // Rounding may bring the difference below zero.
      const V spread = max(second - mean * mean, number<V>(0));
      const V velocity = number<V>(momentum) * state[1] + g / (V(sqrt(spread)) + number<V>(epsilon));
      state[0] = second;
      state[1] = velocity;
      state[2] = mean;
      weight -= number<V>(rate) * velocity;
    };
  }

  void fields(auto&& field) {
    field("learning_rate", learning_rate);
    field("alpha", alpha);
    field("epsilon", epsilon);
    field("momentum", momentum);
    field("centered", centered);
    field("weight_decay", weight_decay);
    field("clip_norm", clip_norm);
  }
};

}  // namespace tesla::inline TESLA_TARGET::optim
