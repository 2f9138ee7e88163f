// Adagrad (Duchi, Hazan and Singer 2011), in PyTorch's formulation.
#pragma once

#include <tesla/optimizer/schedule.hpp>

namespace tesla::inline TESLA_TARGET::optim {

struct AdagradOptions {
  schedule::LearningRate learning_rate = 0.01;
  double rate_decay = 0;   // step t has the rate over 1 + (t - 1) rate_decay
  double initial_sum = 0;  // of squares
  double epsilon = 1e-10;
  double weight_decay = 0;  // added to the gradient, times the weight
  double clip_norm = 0;     // the gradient over all parameters is shortened to this; 0: never
};

struct Adagrad : AdagradOptions {
  static constexpr std::string_view kind = "Adagrad";
  static constexpr std::size_t slots = 1;
  static constexpr std::array<bool, 1> squares{true};
  Binding binding = {};

  Adagrad() = default;
  explicit Adagrad(const AdagradOptions& options) : AdagradOptions(options) { check(); }
  /// For all parameters of a model, to be given to train() and train_step() of that model.
  template <ParametersOfModel P>
  explicit Adagrad(const P& parameters, const AdagradOptions& options = {}) : Adagrad(options) {
    binding = {kind, parameters};
  }

  /// Every option in its range, or a UsageError.
  [[gnu::cold]] void check() const {
    learning_rate.check(kind);
    detail::check(kind, "rate_decay", rate_decay, 0, 1e6);
    detail::check(kind, "initial_sum", initial_sum, 0, 1e30);
    detail::check(kind, "epsilon", epsilon, 1e-30, 1e6);  // not 0: a gradient that was always 0 would become 0 / 0
    detail::check(kind, "weight_decay", weight_decay, 0, 1e6);
    detail::check(kind, "clip_norm", clip_norm, 0, 1e300);
  }

  auto at(std::size_t step) const {
    const double rate = learning_rate.at(step) / (1 + static_cast<double>(step - 1) * rate_decay);
    return [rate, initial = initial_sum, epsilon = epsilon, decay = weight_decay](auto& weight, auto gradient,
                                                                                  auto& state) {
      using V = decltype(gradient);
      using math::number, math::sqrt;
      const V g = gradient + number<V>(decay) * weight;
      const V sum = state[0] + g * g;  // from zero on, as all state does
      state[0] = sum;
      weight -= number<V>(rate) * g / (V(sqrt(sum + number<V>(initial))) + number<V>(epsilon));
    };
  }

  void fields(auto&& field) {
    field("learning_rate", learning_rate);
    field("rate_decay", rate_decay);
    field("initial_sum", initial_sum);
    field("epsilon", epsilon);
    field("weight_decay", weight_decay);
    field("clip_norm", clip_norm);
  }
};

}  // namespace tesla::inline TESLA_TARGET::optim
