// Optimizers behind a virtual interface, so that a model can hold any of them.
#pragma once

#include <tesla/backend/backend.hpp>
#include <tesla/model/fields.hpp>
#include <tesla/optimizer/schedule.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

/// What is asked of one parameter's step.
struct StepOptions {
  std::size_t step = 1;
  double factor = 1;                         // of the learning rate
  std::optional<double> learning_rate = {};  // instead of the optimizer's
  std::optional<double> weight_decay = {};   // instead of the optimizer's
  // The rows that are changed, if not all: the gradient has these alone, one behind the other.
  std::optional<std::span<const std::uint32_t>> rows = {};
};

namespace detail {

/// Writes the direction of each weight behind its state.
template <class Rule, std::size_t Slots>
struct Direct {
  Rule rule;
  template <class V>
  void operator()(V& weight, V gradient, std::array<V, Slots + 1>& state) const {
    state[Slots] = rule(weight, gradient, state);
  }
};
/// Goes along it.
struct Move {
  double scale;
  template <class V>
  void operator()(V& weight, V direction, auto&) const {
    weight -= math::number<V>(scale) * direction;
  }
};

}  // namespace detail

template <class T, class B>
class OptimizerNode {
 public:
  struct Facts {
    std::string_view kind;
    std::size_t slots;
    std::vector<bool> squares;  // which of them follow squares of the gradient
    double clip_norm;
    bool has_rate, has_weight_decay;
    bool directions;  // looks at whole parameters: gradients have to be stored, and are written to
    io::Json options;
  };

  explicit OptimizerNode(Facts facts) : facts_(std::move(facts)) {}
  virtual ~OptimizerNode() = default;
  const Facts& facts() const { return facts_; }
  std::size_t slots() const { return facts_.slots; }

  /// One step of a parameter whose gradient is stored as it is, or, where it is null, is a product.
  virtual void update(B& backend, const StepOptions& options, const backend::Matrix<T>& value,
                      std::span<T* const> slots, T* gradient, const backend::Product<T>& product) = 0;
  /// The learning rate of a step; 0 for an optimizer that has none.
  virtual double learning_rate(std::size_t step) const = 0;

 private:
  Facts facts_;
};

template <class O, class T, class B>
class OptimizerNodeOf final : public OptimizerNode<T, B> {
 public:
  explicit OptimizerNodeOf(O optimizer)
      : OptimizerNode<T, B>(facts_of(optimizer)),
        optimizer_(std::move(optimizer)),
        now_(optimizer_),
        hash_(hash_of_options(optimizer_)) {}
  /// Whether it is known to have the same options.
  bool is(const O& optimizer) const { return hash_ && hash_ == hash_of_options(optimizer); }

  void update(B& backend, const StepOptions& options, const backend::Matrix<T>& value, std::span<T* const> slots,
              T* gradient, const backend::Product<T>& product) override {
    if constexpr (has_rate)
      set(now_.learning_rate, options.learning_rate.value_or(learning_rate(options.step)) * options.factor);
    if constexpr (has_weight_decay)
      set(now_.weight_decay, options.weight_decay.value_or(static_cast<double>(optimizer_.weight_decay)));
    const auto rule = now_.at(options.step);
    if constexpr (optim::RuleOfDirections<decltype(rule)>) {
      if (!options.rows) return go(backend, rule, value, slots, 0, gradient);
      // Each row is a parameter of its own.
      for (const std::uint32_t row : *options.rows) {
        const backend::Matrix<T> own{value.row(row), 1, value.columns, value.stride};
        go(backend, rule, own, slots, row * value.stride, gradient);
        gradient += value.stride;
      }
    } else {
      backend::Updated<T, O::slots> updated{value, {}};
      for (std::size_t i = 0; i < O::slots; ++i) updated.slots[i] = slots[i];
      if (options.rows)
        backend.update_rows(rule, updated, gradient, *options.rows);
      else if (gradient != nullptr)
        backend.update(rule, updated, gradient);
      else
        backend.update_product(rule, updated, product);
    }
  }

  double learning_rate(std::size_t step) const override {
    if constexpr (requires { optimizer_.learning_rate.at(step); })
      return optimizer_.learning_rate.at(step);
    else if constexpr (has_rate)
      return static_cast<double>(optimizer_.learning_rate);
    return 0;
  }

 private:
  static constexpr bool has_rate = requires(O o) { o.learning_rate = 1.0; };
  static constexpr bool has_weight_decay = requires(O o) { o.weight_decay = 1.0; };

  /// A step of a rule of directions. The direction takes the place of the gradient.
  template <class Rule>
  static void go(B& backend, const Rule& rule, const backend::Matrix<T>& value, std::span<T* const> slots,
                 std::size_t offset, T* gradient) {
    backend::Updated<T, O::slots + 1> updated{value, {}};
    for (std::size_t i = 0; i < O::slots; ++i) updated.slots[i] = slots[i] + offset;
    updated.slots[O::slots] = gradient;
    backend.update(detail::Direct<Rule, O::slots>{rule}, updated, gradient);
    const backend::Matrix<T> directions{gradient, value.rows, value.columns, value.stride};
    const double scale =
        rule.scale(std::sqrt(backend.squared_norm(value)), std::sqrt(backend.squared_norm(directions)));
    backend.update(detail::Move{scale}, backend::Updated<T, 0>{value, {}}, gradient);
  }
  template <class X>
  static void set(X& option, double value) {
    option = static_cast<X>(value);
  }
  [[gnu::cold]] static typename OptimizerNode<T, B>::Facts facts_of(const O& optimizer) {
    double clip_norm = 0;
    if constexpr (requires { optimizer.clip_norm; }) clip_norm = optimizer.clip_norm;
    std::vector<bool> squares(O::slots, false);
    if constexpr (requires { O::squares; }) squares.assign(O::squares.begin(), O::squares.end());
    constexpr bool directions = optim::RuleOfDirections<decltype(optimizer.at(1))>;
    return {O::kind,  O::slots,         std::move(squares), clip_norm,
            has_rate, has_weight_decay, directions,         options_of(optimizer)};
  }
  O optimizer_;
  O now_;  // the same, with the rate and the weight decay of the step at hand
  std::optional<std::uint64_t> hash_;
};

}  // namespace tesla::inline TESLA_TARGET::model
