// Activation functions as values: `.activation = tesla::relu`, or a user's own lambda.
#pragma once

#include <tesla/backend/backend.hpp>
#include <tesla/backend/cpu/elementwise.hpp>
#include <tesla/layer/layer.hpp>

#include <array>
#include <memory>
#include <string_view>
#include <type_traits>

namespace tesla::inline TESLA_TARGET {

namespace layer {

/// The activation functions that have a name, with their one number where they have one.
struct NamedActivation {
  enum class Function { linear, relu, leaky_relu, elu, gelu, sigmoid, tanh, softplus, softmax, log_softmax, custom };
  static constexpr std::array<std::string_view, 11> names = {
      "linear", "relu", "leaky_relu", "elu", "gelu", "sigmoid", "tanh", "softplus", "softmax", "log_softmax", "custom"};
  Function function = Function::linear;
  double parameter = 0;  // the slope of leaky_relu, the alpha of elu
};

/// An activation function: the value of `.activation =`, and a layer of its own, y = f(x).
struct Activation : NamedActivation {
  static constexpr std::string_view kind = "Activation";
  static constexpr bool step_by_step = true;
  std::shared_ptr<const backend::ElementwiseFunction> custom = {};
  std::string name = {};  // of the layer

  Activation() = default;
  Activation(NamedActivation named) : NamedActivation(named) {}
  explicit Activation(std::shared_ptr<const backend::ElementwiseFunction> f)
      : NamedActivation{Function::custom, 0}, custom(std::move(f)) {}

  std::string_view function_name() const { return names[static_cast<std::size_t>(function)]; }
  bool is_softmax() const { return function == Function::softmax || function == Function::log_softmax; }
  /// Whether the gradient needs the output alone, so that the input need not be kept.
  bool from_output() const { return function != Function::gelu && function != Function::custom; }

  /// Gradients are computed from outputs, which have the sign of the input only where slopes are not negative.
  void check() const {
    if (!(parameter >= 0 && parameter <= 1e6))
      raise<UsageError>("needs a slope or alpha from 0 to 1e6, not ", parameter);
  }

  /// Calls f with the functor of an elementwise function that has a name; false for the others.
  template <class F>
  bool visit(const F& f) const {
    switch (function) {
      case Function::linear:
        f(math::Identity());
        return true;
      case Function::relu:
        f(math::Relu());
        return true;
      case Function::leaky_relu:
        f(math::LeakyRelu{parameter});
        return true;
      case Function::elu:
        f(math::Elu{parameter});
        return true;
      case Function::gelu:
        f(math::Gelu());
        return true;
      case Function::sigmoid:
        f(math::Sigmoid());
        return true;
      case Function::tanh:
        f(math::Tanh());
        return true;
      case Function::softplus:
        f(math::Softplus());
        return true;
      default:
        return false;
    }
  }

  /// Whether f grows with its input, so that the largest of some f(x) is f of the largest x, and pooling may come
  /// first.
  bool grows() const {
    return function == Function::relu || function == Function::leaky_relu || function == Function::elu ||
           function == Function::sigmoid || function == Function::tanh || function == Function::softplus;
  }

  /// y = f(x); x and y may be the same. Softmax runs over groups of `channels` features.
  template <class B, class T>
  void apply(B& backend, Panels<const T> x, Panels<T> y, std::size_t channels) const {
    if (visit([&](const auto& f) { backend.map(f, y, x); })) return;
    if (is_softmax())
      backend.softmax(x, y, channels, function == Function::log_softmax);
    else
      backend.apply(*custom, x, y);
  }

  /// dx = dy times the derivative; `kept` is the output where from_output(), else the input. dx and dy may be the same.
  template <class B, class T>
  void gradient(B& backend, Panels<const T> kept, Panels<const T> dy, Panels<T> dx, std::size_t channels) const {
    if (visit([&](const auto& f) { backend.map(math::GradientOf(f), dx, dy, kept); })) return;
    if (is_softmax())
      backend.softmax_gradient(kept, dy, dx, channels, function == Function::log_softmax);
    else
      backend.apply_gradient(*custom, kept, dy, dx);
  }

  /// The same in place, for a layer that ends with this activation and may have a bias: dy becomes the gradient before
  /// the activation, whose sums over the samples are the bias's gradient, parameter `bias` of the layer, one a channel.
  template <class T, class B>
  void gradient_with_bias(Pass<T, B>& pass, Panels<const T> kept, Panels<T> dy, std::size_t channels, bool has_bias,
                          std::size_t bias) const {
    const Panels<const T> upstream = dy;
    if (function == Function::linear) {
      if (has_bias) pass.reduce(math::Identity(), pass.gradient(bias), upstream);
      return;
    }
    if (has_bias && visit([&](const auto& f) {
          pass.backend.map_sum(math::GradientOf(f), dy, pass.gradient(bias), upstream, kept);
        }))
      return;
    gradient(pass.backend, kept, upstream, dy, channels);
    if (has_bias) pass.reduce(math::Identity(), pass.gradient(bias), upstream);
  }

  Shape setup(const Shape& in, Setup&) const {
    if (in.rank() == 0 || in.elements() == 0)
      raise<ShapeError>("needs at least one input feature, its input has shape ", in);
    check();
    return in;
  }
  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    apply(pass.backend, x, y, pass.in.back());
  }
  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const {
    if (dx) gradient(pass.backend, from_output() ? Panels<const T>(y) : x, Panels<const T>(dy), dx, pass.in.back());
  }
  void fields(auto&& field) { field("activation", *this); }
};

/// A user's function, a generic lambda, behind the erased interface.
template <class F>
class CustomFunction final : public backend::ElementwiseFunction {
 public:
  explicit CustomFunction(F f) : f_{std::move(f)} {}

  void apply(const float* x, float* y, std::size_t n, bool fast) const override { values(x, y, n, fast); }
  void apply(const double* x, double* y, std::size_t n, bool fast) const override { values(x, y, n, fast); }
  void gradient(const float* x, const float* dy, float* dx, std::size_t n, bool fast) const override {
    gradients(x, dy, dx, n, fast);
  }
  void gradient(const double* x, const double* dy, double* dx, std::size_t n, bool fast) const override {
    gradients(x, dy, dx, n, fast);
  }

 private:
  struct Gradient {
    const math::Custom<F>& f;
    template <class V>
    V operator()(V dy, V x) const {
      return f.gradient(dy, x);
    }
  };

  template <class T>
  void values(const T* x, T* y, std::size_t n, bool fast) const {
    const backend::cpu::Operand<T> in{x};
    if (fast) return backend::cpu::map_kernel<T, math::Custom<F>, 1>(&f_, y, &in, n);
    for (std::size_t i = 0; i < n; ++i) y[i] = f_(x[i]);
  }
  template <class T>
  void gradients(const T* x, const T* dy, T* dx, std::size_t n, bool fast) const {
    const Gradient gradient{f_};
    const backend::cpu::Operand<T> in[] = {{dy}, {x}};
    if (fast) return backend::cpu::map_kernel<T, Gradient, 2>(&gradient, dx, in, n);
    for (std::size_t i = 0; i < n; ++i) dx[i] = gradient(dy[i], x[i]);
  }

  math::Custom<F> f_;
};

}  // namespace layer

using layer::Activation;

inline constexpr layer::NamedActivation linear{layer::NamedActivation::Function::linear};
inline constexpr layer::NamedActivation relu{layer::NamedActivation::Function::relu};
inline constexpr layer::NamedActivation leaky_relu{layer::NamedActivation::Function::leaky_relu, 0.01};
inline constexpr layer::NamedActivation elu{layer::NamedActivation::Function::elu, 1};
inline constexpr layer::NamedActivation gelu{layer::NamedActivation::Function::gelu};
inline constexpr layer::NamedActivation sigmoid{layer::NamedActivation::Function::sigmoid};
inline constexpr layer::NamedActivation tanh{layer::NamedActivation::Function::tanh};
inline constexpr layer::NamedActivation softplus{layer::NamedActivation::Function::softplus};
inline constexpr layer::NamedActivation softmax{layer::NamedActivation::Function::softmax};
inline constexpr layer::NamedActivation log_softmax{layer::NamedActivation::Function::log_softmax};

/// An activation of one's own: `tesla::activation([](auto x) { return x / (1 + exp(-x)); })`. The lambda is called on
/// dual numbers (core/math.hpp lists their functions), which gives the derivative too.
template <class F>
Activation activation(F f) {
  return Activation(std::make_shared<const layer::CustomFunction<F>>(std::move(f)));
}

namespace layer {

struct SlopeOptions {
  double slope = 0.01;
  std::string name = {};
};
struct AlphaOptions {
  double alpha = 1;
  std::string name = {};
};
struct NameOptions {
  std::string name = {};
};

inline Activation named_layer(NamedActivation function, const std::string& name) {
  Activation result(function);
  result.name = name;
  return result;
}

}  // namespace layer

// The same functions as layers: model.add_layer(tesla::LeakyReLU({.slope = 0.01f})).
inline Activation ReLU(const layer::NameOptions& o = {}) { return layer::named_layer(relu, o.name); }
inline Activation GELU(const layer::NameOptions& o = {}) { return layer::named_layer(gelu, o.name); }
inline Activation Sigmoid(const layer::NameOptions& o = {}) { return layer::named_layer(sigmoid, o.name); }
inline Activation Tanh(const layer::NameOptions& o = {}) { return layer::named_layer(tanh, o.name); }
inline Activation Softplus(const layer::NameOptions& o = {}) { return layer::named_layer(softplus, o.name); }
inline Activation Softmax(const layer::NameOptions& o = {}) { return layer::named_layer(softmax, o.name); }
inline Activation LogSoftmax(const layer::NameOptions& o = {}) { return layer::named_layer(log_softmax, o.name); }
inline Activation LeakyReLU(const layer::SlopeOptions& o = {}) {
  return layer::named_layer({leaky_relu.function, o.slope}, o.name);
}
inline Activation ELU(const layer::AlphaOptions& o = {}) { return layer::named_layer({elu.function, o.alpha}, o.name); }

}  // namespace tesla::inline TESLA_TARGET
