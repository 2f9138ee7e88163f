// Functions of numbers that are written once and run on scalars, SIMD batches and dual numbers alike.
//
// A Dual carries a value and its derivative (forward-mode differentiation); V is a scalar or a SIMD batch, which brings
// its own exp, tanh and the rest, found by argument-dependent lookup. That is how a user's one generic lambda becomes a
// vectorised activation or loss together with its derivative.
#pragma once

#include <tesla/core/target.hpp>

#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace tesla::inline TESLA_TARGET {

/// Neither NaN nor infinite, by the bits, so that -ffast-math cannot reason it away.
inline bool is_finite(float value) { return (std::bit_cast<std::uint32_t>(value) & 0x7f800000U) != 0x7f800000U; }
inline bool is_finite(double value) {
  return (std::bit_cast<std::uint64_t>(value) & 0x7ff0000000000000U) != 0x7ff0000000000000U;
}

}  // namespace tesla::inline TESLA_TARGET

namespace tesla::inline TESLA_TARGET::math {

using std::cos, std::erf, std::exp, std::expm1, std::log, std::log1p, std::sin, std::sqrt, std::tanh;

/// condition ? yes : no, as a function, so that SIMD batches can have it lane by lane.
template <std::floating_point T>
T select(bool condition, T yes, T no) {
  return condition ? yes : no;
}
template <std::floating_point T>
T max(T a, T b) {
  return a > b ? a : b;
}
template <std::floating_point T>
T min(T a, T b) {
  return a < b ? a : b;
}
template <std::floating_point T>
T abs(T a) {
  return std::fabs(a);
}

/// The element type of a scalar or of a SIMD batch.
template <class V>
struct ElementOf {
  using type = typename V::value_type;
};
template <std::floating_point T>
struct ElementOf<T> {
  using type = T;
};

/// A constant as V: one number, or the same in every lane.
template <class V>
V number(double constant) {
  return V(static_cast<typename ElementOf<V>::type>(constant));
}

/// A number with its derivative.
template <class V>
struct Dual {
  V value, slope;

  using Scalar = typename ElementOf<V>::type;

  Dual(V v, V s) : value(v), slope(s) {}
  template <class A>
  requires std::is_arithmetic_v<A> Dual(A constant) : value(static_cast<Scalar>(constant)), slope(Scalar(0)) {}
  Dual(V constant) requires(!std::is_arithmetic_v<V>) : value(constant), slope(Scalar(0)) {}

  friend Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.slope + b.slope}; }
  friend Dual operator-(Dual a, Dual b) { return {a.value - b.value, a.slope - b.slope}; }
  friend Dual operator*(Dual a, Dual b) { return {a.value * b.value, a.slope * b.value + a.value * b.slope}; }
  friend Dual operator/(Dual a, Dual b) {
    const V quotient = a.value / b.value;
    return {quotient, (a.slope - quotient * b.slope) / b.value};
  }
  friend Dual operator-(Dual a) { return {-a.value, -a.slope}; }
  friend Dual operator+(Dual a) { return a; }
  Dual& operator+=(Dual b) { return *this = *this + b; }
  Dual& operator-=(Dual b) { return *this = *this - b; }
  Dual& operator*=(Dual b) { return *this = *this * b; }
  Dual& operator/=(Dual b) { return *this = *this / b; }

  friend auto operator<(Dual a, Dual b) { return a.value < b.value; }
  friend auto operator>(Dual a, Dual b) { return a.value > b.value; }
  friend auto operator<=(Dual a, Dual b) { return a.value <= b.value; }
  friend auto operator>=(Dual a, Dual b) { return a.value >= b.value; }

  /// condition ? yes : no
  template <class Condition>
  friend Dual select(Condition condition, Dual yes, Dual no) {
    return {select(condition, yes.value, no.value), select(condition, yes.slope, no.slope)};
  }
  friend Dual max(Dual a, Dual b) { return select(a.value >= b.value, a, b); }
  friend Dual min(Dual a, Dual b) { return select(a.value <= b.value, a, b); }
  /// The derivative at 0 is 0.
  friend Dual abs(Dual a) {
    const V zero(Scalar(0));
    return select(a.value > zero, a, select(a.value < zero, -a, Dual(a.value, zero)));
  }
  friend Dual exp(Dual a) {
    const V e = exp(a.value);
    return {e, e * a.slope};
  }
  friend Dual expm1(Dual a) {
    const V e = expm1(a.value);
    return {e, (e + V(Scalar(1))) * a.slope};
  }
  friend Dual log(Dual a) { return {log(a.value), a.slope / a.value}; }
  friend Dual log1p(Dual a) { return {log1p(a.value), a.slope / (V(Scalar(1)) + a.value)}; }
  friend Dual sqrt(Dual a) {
    const V root = sqrt(a.value);
    return {root, a.slope / (root + root)};
  }
  friend Dual sin(Dual a) { return {sin(a.value), cos(a.value) * a.slope}; }
  friend Dual cos(Dual a) { return {cos(a.value), -(sin(a.value) * a.slope)}; }
  friend Dual tanh(Dual a) {
    const V t = tanh(a.value);
    return {t, (V(Scalar(1)) - t * t) * a.slope};
  }
  friend Dual erf(Dual a) {
    return {erf(a.value), V(Scalar(1.1283791670955126)) * exp(-(a.value * a.value)) * a.slope};
  }
  /// log(max(a, floor)) with the derivative 1 / max(a, floor): a probability of 0 costs much, and can still be left.
  friend Dual log_above(Dual a, Scalar floor) {
    const V kept = max(a.value, V(floor));
    return {log(kept), a.slope / kept};
  }
};

/// 1 / (1 + exp(-a)), for any a.
template <class V>
Dual<V> sigmoid(Dual<V> a) {
  const V s = number<V>(1) / (number<V>(1) + exp(-a.value));
  return {s, s * (number<V>(1) - s) * a.slope};
}

/// log(1 + exp(a)), for any a.
template <class V>
Dual<V> softplus(Dual<V> a) {
  return {max(a.value, number<V>(0)) + log1p(exp(-abs(a.value))), a.slope / (number<V>(1) + exp(-a.value))};
}

}  // namespace tesla::inline TESLA_TARGET::math
