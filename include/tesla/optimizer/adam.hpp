// Adam (Kingma and Ba 2015) and AdamW, with decoupled weight decay (Loshchilov and Hutter 2019), in PyTorch's
// formulation.
#pragma once

#include <tesla/optimizer/optimizer.hpp>

#include <cmath>

namespace tesla::inline TESLA_TARGET::optim {

struct AdamOptions {
  double learning_rate = 1e-3;
  double beta_1 = 0.9;
  double beta_2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;  // added to the gradient, times the weight
  double clip_norm = 0;     // the gradient over all parameters is shortened to this; 0: never
};

struct AdamWOptions {
  double learning_rate = 1e-3;
  double beta_1 = 0.9;
  double beta_2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;  // taken off the weight directly, times the learning rate
  double clip_norm = 0;
};

namespace detail {

template <class Options>
void check_adam(std::string_view kind, const Options& o) {
  check(kind, "learning_rate", o.learning_rate, 0, 1e6);
  check(kind, "beta_1", o.beta_1, 0, 1);
  check(kind, "beta_2", o.beta_2, 0, 1);
  check(kind, "epsilon", o.epsilon, 0, 1e6);
  check(kind, "weight_decay", o.weight_decay, 0, 1e6);
  check(kind, "clip_norm", o.clip_norm, 0, 1e300);
}

/// m / (1 - beta_1^t) over sqrt(v / (1 - beta_2^t)) + epsilon, with both corrections drawn into constants of the step.
template <class Options>
auto adam_rule(const Options& o, std::size_t step, bool decoupled) {
  const double t = static_cast<double>(step);
  const double root = std::sqrt(1 - std::pow(o.beta_2, t));
  return [b1 = o.beta_1, b2 = o.beta_2, rate = o.learning_rate * root / (1 - std::pow(o.beta_1, t)), epsilon = o.epsilon * root,
          keep = decoupled ? 1 - o.learning_rate * o.weight_decay : 1.0,
          decay = decoupled ? 0 : o.weight_decay](auto& weight, auto gradient, auto& state) {
    using V = decltype(gradient);
    using math::sqrt;
    const V g = gradient + math::number<V>(decay) * weight;
    const V m = state[0] + math::number<V>(1 - b1) * (g - state[0]);
    const V v = math::number<V>(b2) * state[1] + math::number<V>(1 - b2) * g * g;
    state[0] = m;
    state[1] = v;
    weight = math::number<V>(keep) * weight - math::number<V>(rate) * m / (V(sqrt(v)) + math::number<V>(epsilon));
  };
}

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

  Adam() = default;
  explicit Adam(const AdamOptions& options) : AdamOptions(options) { check(); }
  void check() const { detail::check_adam(kind, *this); }
  auto at(std::size_t step) const { return detail::adam_rule(*this, step, false); }
  void fields(auto&& field) { detail::adam_fields(*this, field); }
};

struct AdamW : AdamWOptions {
  static constexpr std::string_view kind = "AdamW";
  static constexpr std::size_t slots = 2;

  AdamW() = default;
  explicit AdamW(const AdamWOptions& options) : AdamWOptions(options) { check(); }
  void check() const { detail::check_adam(kind, *this); }
  auto at(std::size_t step) const { return detail::adam_rule(*this, step, true); }
  void fields(auto&& field) { detail::adam_fields(*this, field); }
};

}  // namespace tesla::inline TESLA_TARGET::optim
