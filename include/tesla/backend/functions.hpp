// Elementwise functions with their derivatives: functors written once, run by every backend on its own kind of number.
//
// f(x) is the value. f.gradient(dy, s) is dy times the derivative, where s is the output y when `from_output` (so that
// only y need be kept for the backward pass), else the input x.
#pragma once

#include <tesla/core/math.hpp>

#include <cstddef>

namespace tesla::inline TESLA_TARGET::math {

struct Identity {
  static constexpr bool from_output = true;
  template <class V>
  V operator()(V x) const {
    return x;
  }
  template <class V>
  V gradient(V dy, V) const {
    return dy;
  }
};

// max(0, x), in this order, lets NaN through on every instruction set; the other order would swallow it.
struct Relu {
  static constexpr bool from_output = true;
  template <class V>
  V operator()(V x) const {
    return max(V(0), x);
  }
  template <class V>
  V gradient(V dy, V y) const {
    return select(y > V(0), dy, V(0));
  }
};

struct LeakyRelu {
  static constexpr bool from_output = true;
  double slope;
  template <class V>
  V operator()(V x) const {
    return select(x > V(0), x, x * number<V>(slope));
  }
  template <class V>
  V gradient(V dy, V y) const {
    return select(y > V(0), dy, dy * number<V>(slope));
  }
};

struct Elu {
  static constexpr bool from_output = true;
  double alpha;
  template <class V>
  V operator()(V x) const {
    return select(x > V(0), x, number<V>(alpha) * expm1(x));
  }
  template <class V>
  V gradient(V dy, V y) const {
    return select(y > V(0), dy, dy * (y + number<V>(alpha)));
  }
};

/// x times the normal distribution function (Hendrycks and Gimpel 2016), exact.
struct Gelu {
  static constexpr bool from_output = false;
  template <class V>
  V operator()(V x) const {
    return x * distribution(x);
  }
  template <class V>
  V gradient(V dy, V x) const {
    return dy * (distribution(x) + x * number<V>(0.3989422804014327) * exp(number<V>(-0.5) * x * x));
  }
  template <class V>
  static V distribution(V x) {
    return number<V>(0.5) * (number<V>(1) + erf(x * number<V>(0.7071067811865476)));
  }
};

struct Sigmoid {
  static constexpr bool from_output = true;
  template <class V>
  V operator()(V x) const {
    return number<V>(1) / (number<V>(1) + exp(-x));
  }
  template <class V>
  V gradient(V dy, V y) const {
    return dy * y * (number<V>(1) - y);
  }
};

struct Tanh {
  static constexpr bool from_output = true;
  template <class V>
  V operator()(V x) const {
    return tanh(x);
  }
  template <class V>
  V gradient(V dy, V y) const {
    return dy * (number<V>(1) - y * y);
  }
};

struct Softplus {
  static constexpr bool from_output = true;
  template <class V>
  V operator()(V x) const {
    return max(V(0), x) + log1p(exp(-abs(x)));
  }
  template <class V>
  V gradient(V dy, V y) const {
    return dy * (number<V>(1) - exp(-y));  // sigmoid(x) from softplus(x)
  }
};

/// The gradient of a function as a functor of dy and what was kept.
template <class F>
struct GradientOf {
  F f;
  explicit GradientOf(F function) : f(function) {}
  template <class V>
  V operator()(V dy, V kept) const {
    return f.gradient(dy, kept);
  }
};

/// A user's function, one generic lambda; the derivative comes from dual numbers.
template <class F>
struct Custom {
  static constexpr bool from_output = false;
  F function;
  template <class V>
  V operator()(V x) const {
    return Dual<V>(function(Dual<V>(x, V(0)))).value;
  }
  template <class V>
  V gradient(V dy, V x) const {
    return dy * Dual<V>(function(Dual<V>(x, number<V>(1)))).slope;
  }
};

}  // namespace tesla::inline TESLA_TARGET::math

namespace tesla::inline TESLA_TARGET::backend {

/// A user's elementwise function with its type erased, for the scalars and the two kinds of loops that host backends
/// have. `fast` asks for SIMD batches, else plain loops over scalars.
class ElementwiseFunction {
 public:
  virtual ~ElementwiseFunction() = default;
  virtual void apply(const float* x, float* y, std::size_t n, bool fast) const = 0;
  virtual void apply(const double* x, double* y, std::size_t n, bool fast) const = 0;
  /// dx = dy times the derivative at x.
  virtual void gradient(const float* x, const float* dy, float* dx, std::size_t n, bool fast) const = 0;
  virtual void gradient(const double* x, const double* dy, double* dx, std::size_t n, bool fast) const = 0;
};

}  // namespace tesla::inline TESLA_TARGET::backend
