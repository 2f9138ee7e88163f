// Adam (Kingma and Ba 2015) and AdamW, with decoupled weight decay (Loshchilov and Hutter 2019), in PyTorch's
// formulation.
#pragma once

#include <tesla/optimizer/schedule.hpp>

#include <cmath>

namespace tesla::inline TESLA_TARGET::optim {

struct AdamOptions {
  schedule::LearningRate learning_rate = 1e-3;
  double beta_1 = 0.9;
  double beta_2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;  // added to the gradient, times the weight
  double clip_norm = 0;     // the gradient over all parameters is shortened to this; 0: never
};

struct AdamWOptions {
  schedule::LearningRate learning_rate = 1e-3;
  double beta_1 = 0.9;
  double beta_2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;  // taken off the weight directly, times the learning rate
  double clip_norm = 0;
};

namespace detail {

template <class Options>
void check_adam(std::string_view kind, const Options& o) {
  o.learning_rate.check(kind);
  check_fraction(kind, "beta_1", o.beta_1);
  check_fraction(kind, "beta_2", o.beta_2);
  check(kind, "epsilon", o.epsilon, 1e-30, 1e6);  // not 0: a weight whose gradient was always 0 would become 0 / 0
  check(kind, "weight_decay", o.weight_decay, 0, 1e6);
  check(kind, "clip_norm", o.clip_norm, 0, 1e300);
}

/// m / (1 - beta_1^t) over sqrt(v / (1 - beta_2^t)) + epsilon, with both corrections drawn into constants of the step.
struct AdamRule {
  double beta_1, beta_2, rate, epsilon, keep, decay;

  template <class Options>
  AdamRule(const Options& o, std::size_t step, bool decoupled) : beta_1(o.beta_1), beta_2(o.beta_2) {
    const double t = static_cast<double>(step), root = std::sqrt(1 - std::pow(beta_2, t));
    const double learning_rate = o.learning_rate.at(step);
    rate = learning_rate * root / (1 - std::pow(beta_1, t));
    epsilon = o.epsilon * root;
    keep = decoupled ? 1 - learning_rate * o.weight_decay : 1;
    decay = decoupled ? 0 : o.weight_decay;
  }

  template <class V>
  void operator()(V& weight, V gradient, std::array<V, 2>& state) const {
    using math::number, math::sqrt;
    const V g = gradient + number<V>(decay) * weight;
    const V m = state[0] + number<V>(1 - beta_1) * (g - state[0]);
    const V v = number<V>(beta_2) * state[1] + number<V>(1 - beta_2) * g * g;
    state[0] = m;
    state[1] = v;
    weight = number<V>(keep) * weight - number<V>(rate) * m / (V(sqrt(v)) + number<V>(epsilon));
  }
};

template <class Options>
void adam_fields(Options& o, auto&& field) {
  field("learning_rate", o.learning_rate);
  field("beta_1", o.beta_1);
  field("beta_2", o.beta_2);
  field("epsilon", o.epsilon);
  field("weight_decay", o.weight_decay);
  field("clip_norm", o.clip_norm);
}

}  // namespace detail

struct Adam : AdamOptions {
  static constexpr std::string_view kind = "Adam";
  static constexpr std::size_t slots = 2;
  static constexpr std::array<bool, 2> squares{false, true};
  Binding binding = {};

  Adam() = default;
  explicit Adam(const AdamOptions& options) : AdamOptions(options) { check(); }
  /// For all parameters of a model, to be given to train() and train_step() of that model.
  template <ParametersOfModel P>
  explicit Adam(const P& parameters, const AdamOptions& options = {}) : Adam(options) {
    binding = {kind, parameters};
  }
  void check() const { detail::check_adam(kind, *this); }
  auto at(std::size_t step) const { return detail::AdamRule(*this, step, false); }
  void fields(auto&& field) { detail::adam_fields(*this, field); }
};

struct AdamW : AdamWOptions {
  static constexpr std::string_view kind = "AdamW";
  static constexpr std::size_t slots = 2;
  static constexpr std::array<bool, 2> squares{false, true};
  Binding binding = {};

  AdamW() = default;
  explicit AdamW(const AdamWOptions& options) : AdamWOptions(options) { check(); }
  /// For all parameters of a model, to be given to train() and train_step() of that model.
  template <ParametersOfModel P>
  explicit AdamW(const P& parameters, const AdamWOptions& options = {}) : AdamW(options) {
    binding = {kind, parameters};
  }
  void check() const { detail::check_adam(kind, *this); }
  auto at(std::size_t step) const { return detail::AdamRule(*this, step, true); }
  void fields(auto&& field) { detail::adam_fields(*this, field); }
};

}  // namespace tesla::inline TESLA_TARGET::optim
