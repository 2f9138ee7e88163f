// How parameters begin: Glorot and Bengio (2010), He et al. (2015), Saxe et al. (2014), and constants.
#pragma once

#include <tesla/tensor/tensor.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>
#include <vector>

namespace tesla::inline TESLA_TARGET::init {

/// An initialiser is a value: which distribution, and its one number where it has one.
struct Initializer {
  enum class Kind { glorot_uniform, glorot_normal, he_uniform, he_normal, orthogonal, constant, uniform, normal };
  static constexpr std::array<std::string_view, 8> names = {
      "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "orthogonal", "constant", "uniform", "normal"};
  Kind kind = Kind::glorot_uniform;
  double parameter =
      1;  // the constant, the limit of `uniform`, the standard deviation of `normal`, or orthogonal's gain

  /// Refuses a number that no distribution has.
  void check() const;
  bool is_uniform() const { return kind == Kind::glorot_uniform || kind == Kind::he_uniform || kind == Kind::uniform; }
  /// The standard deviation of what values() gives a matrix {outputs, inputs}; 0 for a constant.
  double deviation(const Shape& shape) const {
    const double fan_out = static_cast<double>(shape[0]);
    return deviation(static_cast<double>(shape.elements()) / fan_out, fan_out);
  }
  double deviation(double fan_in, double fan_out) const;
  /// The same for a parameter that is read and written by as many: where these count, with the deviation they give.
  Initializer with_fans(double fan_in, double fan_out) const;

  /// Values for a parameter of `shape` whose first extent counts outputs; the numbers depend on seed and stream alone.
  Tensor<double> values(const Shape& shape, std::uint64_t seed, std::uint64_t stream) const;
};

inline constexpr Initializer glorot_uniform{Initializer::Kind::glorot_uniform};
inline constexpr Initializer glorot_normal{Initializer::Kind::glorot_normal};
inline constexpr Initializer he_uniform{Initializer::Kind::he_uniform};
inline constexpr Initializer he_normal{Initializer::Kind::he_normal};
inline constexpr Initializer orthogonal{Initializer::Kind::orthogonal};
inline constexpr Initializer zeros{Initializer::Kind::constant, 0};
inline constexpr Initializer ones{Initializer::Kind::constant, 1};
constexpr Initializer constant(double value) { return {Initializer::Kind::constant, value}; }
/// Uniform in [-limit, limit).
constexpr Initializer uniform(double limit) { return {Initializer::Kind::uniform, limit}; }
constexpr Initializer normal(double standard_deviation) { return {Initializer::Kind::normal, standard_deviation}; }

namespace detail {

/// Makes the `count` vectors of length `n` (count <= n), `stride` and `step` apart, orthonormal by Gram and Schmidt,
/// twice for accuracy.
[[gnu::cold]] inline void orthonormalise(double* vectors, std::size_t count, std::size_t n, std::size_t stride,
                                         std::size_t step) {
  const auto dot = [&](const double* a, const double* b) {
    double total = 0;
    for (std::size_t k = 0; k < n; ++k) total += a[k * step] * b[k * step];
    return total;
  };
  for (std::size_t i = 0; i < count; ++i) {
    double* const v = vectors + i * stride;
    for (int round = 0; round < 2; ++round)
      for (std::size_t j = 0; j < i; ++j) {
        const double* u = vectors + j * stride;
        const double along = dot(u, v);
        for (std::size_t k = 0; k < n; ++k) v[k * step] -= along * u[k * step];
      }
    const double length = std::sqrt(dot(v, v));
    for (std::size_t k = 0; k < n; ++k) v[k * step] /= length;
  }
}

}  // namespace detail

[[gnu::cold]] inline double Initializer::deviation(double fan_in, double fan_out) const {
  switch (kind) {
    case Kind::glorot_uniform:
    case Kind::glorot_normal:
      return std::sqrt(2 / (fan_in + fan_out));
    case Kind::he_uniform:
    case Kind::he_normal:
      return std::sqrt(2 / fan_in);
    case Kind::uniform:
      return parameter / std::sqrt(3.0);
    case Kind::normal:
      return parameter;
    case Kind::orthogonal:
      return std::fabs(parameter) / std::sqrt(std::max(fan_in, fan_out));
    case Kind::constant:
      break;
  }
  return 0;
}

[[gnu::cold]] inline Initializer Initializer::with_fans(double fan_in, double fan_out) const {
  if (kind >= Kind::orthogonal) return *this;
  const double spread = deviation(fan_in, fan_out);
  return is_uniform() ? uniform(spread * std::sqrt(3.0)) : normal(spread);
}

[[gnu::cold]] inline void Initializer::check() const {
  const bool spread = kind == Kind::uniform || kind == Kind::normal;
  if (!(std::fabs(parameter) <= static_cast<double>(std::numeric_limits<float>::max())) || (spread && parameter < 0))
    raise<UsageError>("an initializer's number has to be finite as a float", spread ? " and 0 or more" : "", ", not ",
                      parameter);
}

[[gnu::cold]] inline Tensor<double> Initializer::values(const Shape& shape, std::uint64_t seed,
                                                        std::uint64_t stream) const {
  check();
  Tensor<double> result(shape);
  const std::size_t size = result.size();
  if (size == 0) return result;
  const std::size_t rows = shape.rank() == 0 ? 1 : shape[0], columns = size / rows;
  const double fan_out = static_cast<double>(rows), fan_in = static_cast<double>(columns);
  const random::Stream random(seed, stream);
  const auto fill_uniform = [&](double limit) {
    for (std::size_t i = 0; i < size; ++i) result[i] = limit * (2 * random.uniform(i) - 1);
  };
  const auto fill_normal = [&](double deviation) {
    for (std::size_t i = 0; i < size; ++i) result[i] = deviation * random.normal(i);
  };
  switch (kind) {
    case Kind::glorot_uniform:
      fill_uniform(std::sqrt(6 / (fan_in + fan_out)));
      break;
    case Kind::glorot_normal:
      fill_normal(std::sqrt(2 / (fan_in + fan_out)));
      break;
    case Kind::he_uniform:
      fill_uniform(std::sqrt(6 / fan_in));
      break;
    case Kind::he_normal:
      fill_normal(std::sqrt(2 / fan_in));
      break;
    case Kind::uniform:
      fill_uniform(parameter);
      break;
    case Kind::normal:
      fill_normal(parameter);
      break;
    case Kind::constant:
      std::fill(result.begin(), result.end(), parameter);
      break;
    case Kind::orthogonal:
      fill_normal(1);
      if (rows <= columns)
        detail::orthonormalise(result.data(), rows, columns, columns, 1);
      else
        detail::orthonormalise(result.data(), columns, rows, 1, columns);
      for (double& value : result) value *= parameter;
      break;
  }
  return result;
}

}  // namespace tesla::inline TESLA_TARGET::init
