// Lion (Chen et al. 2023): the sign of a momentum, with decoupled weight decay.
#pragma once

#include <tesla/optimizer/schedule.hpp>

namespace tesla::inline TESLA_TARGET::optim {

struct LionOptions {
  schedule::LearningRate learning_rate = 1e-4;
  double beta_1 = 0.9;      // of the momentum in the direction
  double beta_2 = 0.99;     // of the momentum that is kept
  double weight_decay = 0;  // taken off the weight directly, times the learning rate
  double clip_norm = 0;     // the gradient over all parameters is shortened to this; 0: never
};

struct Lion : LionOptions {
  static constexpr std::string_view kind = "Lion";
  static constexpr std::size_t slots = 1;
  Binding binding = {};

  Lion() = default;
  explicit Lion(const LionOptions& options) : LionOptions(options) { check(); }
  /// For all parameters of a model, to be given to train() and train_step() of that model.
  template <ParametersOfModel P>
  explicit Lion(const P& parameters, const LionOptions& options = {}) : Lion(options) {
    binding = {kind, parameters};
  }

  /// Every option in its range, or a UsageError.
  [[gnu::cold]] void check() const {
    learning_rate.check(kind);
    detail::check_fraction(kind, "beta_1", beta_1);
    detail::check_fraction(kind, "beta_2", beta_2);
    detail::check(kind, "weight_decay", weight_decay, 0, 1e6);
    detail::check(kind, "clip_norm", clip_norm, 0, 1e300);
  }

  auto at(std::size_t step) const {
    const double rate = learning_rate.at(step);
    return [rate, keep = 1 - rate * weight_decay, beta_1 = beta_1, beta_2 = beta_2](auto& weight, auto gradient,
                                                                                    auto& state) {
      using V = decltype(gradient);
      using math::number, math::select;
      const V momentum = state[0], zero = number<V>(0);
      const V direction = number<V>(beta_1) * momentum + number<V>(1 - beta_1) * gradient;
      const V down = select(direction < zero, number<V>(rate), zero);
      const V move = select(direction > zero, number<V>(-rate), down);
      state[0] = number<V>(beta_2) * momentum + number<V>(1 - beta_2) * gradient;
      weight = number<V>(keep) * weight + move;
    };
  }

  void fields(auto&& field) {
    field("learning_rate", learning_rate);
    field("beta_1", beta_1);
    field("beta_2", beta_2);
    field("weight_decay", weight_decay);
    field("clip_norm", clip_norm);
  }
};

}  // namespace tesla::inline TESLA_TARGET::optim
