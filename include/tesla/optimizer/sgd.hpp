// Stochastic gradient descent with momentum (Polyak 1964) or Nesterov's, in PyTorch's formulation.
#pragma once

#include <tesla/optimizer/schedule.hpp>

namespace tesla::inline TESLA_TARGET::optim {

struct SGDOptions {
  schedule::LearningRate learning_rate = 0.01;
  double momentum = 0;
  bool nesterov = false;
  double weight_decay = 0;  // added to the gradient, times the weight
  double clip_norm = 0;     // the gradient over all parameters is shortened to this; 0: never
};

struct SGD : SGDOptions {
  static constexpr std::string_view kind = "SGD";
  static constexpr std::size_t slots = 1;
  Binding binding = {};

  SGD() = default;
  explicit SGD(const SGDOptions& options) : SGDOptions(options) { check(); }
  /// For all parameters of a model, to be given to train() and train_step() of that model.
  template <ParametersOfModel P>
  explicit SGD(const P& parameters, const SGDOptions& options = {}) : SGD(options) {
    binding = {kind, parameters};
  }

  /// Every option in its range, or a UsageError.
  void check() const {
    learning_rate.check(kind);
    detail::check_fraction(kind, "momentum", momentum);
    detail::check(kind, "weight_decay", weight_decay, 0, 1e6);
    detail::check(kind, "clip_norm", clip_norm, 0, 1e300);
    if (nesterov && momentum == 0) raise<UsageError>("SGD: .nesterov needs a .momentum above 0");
  }

  auto at(std::size_t step) const {
    return [rate = learning_rate.at(step), momentum = momentum, decay = weight_decay, nesterov = nesterov](
               auto& weight, auto gradient, auto& state) {
      using V = decltype(gradient);
      const V m = math::number<V>(momentum), g = gradient + math::number<V>(decay) * weight;
      const V velocity = m * state[0] + g;
      state[0] = velocity;
      weight -= math::number<V>(rate) * (nesterov ? g + m * velocity : velocity);
    };
  }

  void fields(auto&& field) {
    field("learning_rate", learning_rate);
    field("momentum", momentum);
    field("nesterov", nesterov);
    field("weight_decay", weight_decay);
    field("clip_norm", clip_norm);
  }
};

}  // namespace tesla::inline TESLA_TARGET::optim
