#include <tesla/core/math.hpp>

#include <catch2/catch.hpp>
#include <functional>
#include <limits>
#include <string>

using namespace tesla;
using math::Dual;

namespace {

/// Value and slope of f at x, f being run on dual numbers, against the plain function and its central differences.
template <class F>
void check(const std::string& name, const F& f, const std::function<double(double)>& plain,
           std::initializer_list<double> points) {
  for (const double x : points) {
    INFO(name << " at " << x);
    const Dual<double> result = f(Dual<double>(x, 1));
    const double step = 1e-5, slope = (plain(x + step) - plain(x - step)) / (2 * step);
    CHECK(result.value == Approx(plain(x)).epsilon(1e-14).margin(1e-14));
    CHECK(result.slope == Approx(slope).epsilon(1e-8).margin(1e-9));
    CHECK(f(Dual<double>(x, 3)).slope == Approx(3 * result.slope).epsilon(1e-14));
    CHECK(f(Dual<double>(x, 0)).slope == 0);
  }
}

}  // namespace

TEST_CASE("Dual: the functions that a lambda may use", "[core][math]") {
  const auto anywhere = {-2.3, -0.4, 0.0, 0.7, 3.1};
  const auto positive = {0.2, 0.9, 1.0, 5.5};
  check(
      "exp", [](auto x) { return exp(x); }, [](double x) { return std::exp(x); }, anywhere);
  check(
      "expm1", [](auto x) { return expm1(x); }, [](double x) { return std::expm1(x); }, anywhere);
  check(
      "log", [](auto x) { return log(x); }, [](double x) { return std::log(x); }, positive);
  check(
      "log1p", [](auto x) { return log1p(x); }, [](double x) { return std::log1p(x); }, {-0.6, 0.0, 0.5, 4.0});
  check(
      "sqrt", [](auto x) { return sqrt(x); }, [](double x) { return std::sqrt(x); }, positive);
  check(
      "sin", [](auto x) { return sin(x); }, [](double x) { return std::sin(x); }, anywhere);
  check(
      "cos", [](auto x) { return cos(x); }, [](double x) { return std::cos(x); }, anywhere);
  check(
      "tanh", [](auto x) { return tanh(x); }, [](double x) { return std::tanh(x); }, anywhere);
  check(
      "erf", [](auto x) { return erf(x); }, [](double x) { return std::erf(x); }, anywhere);
  check(
      "sigmoid", [](auto x) { return math::sigmoid(x); }, [](double x) { return 1 / (1 + std::exp(-x)); }, anywhere);
  check(
      "softplus", [](auto x) { return math::softplus(x); }, [](double x) { return std::log1p(std::exp(x)); }, anywhere);
  check(
      "abs", [](auto x) { return abs(x); }, [](double x) { return std::abs(x); }, {-2.0, -0.1, 0.3, 4.0});
  check(
      "log_above", [](auto x) { return log_above(x, 0.1); }, [](double x) { return std::log(x); }, positive);
}

TEST_CASE("Dual: arithmetic, with constants on either side", "[core][math]") {
  const auto points = {-1.7, -0.3, 0.6, 2.2};
  check(
      "sums", [](auto x) { return 2 + x - 0.5 + (3 - x) * 2 + +x; },
      [](double x) { return 2 + x - 0.5 + (3 - x) * 2 + x; }, points);
  check(
      "products", [](auto x) { return x * x * 3 - 1.5f * x; }, [](double x) { return x * x * 3 - 1.5 * x; }, points);
  check(
      "quotients", [](auto x) { return 1 / (2 + x) + x / (x * x + 1) - x / 4; },
      [](double x) { return 1 / (2 + x) + x / (x * x + 1) - x / 4; }, points);
  check(
      "negation", [](auto x) { return -x * -x * -x; }, [](double x) { return -x * x * x; }, points);
  check(
      "assignments",
      [](auto x) {
        auto y = x;
        y += 2, y *= x, y -= 1, y /= 3;
        return y;
      },
      [](double x) { return ((x + 2) * x - 1) / 3; }, points);
  check(
      "max", [](auto x) { return max(x, 0.5 * x); }, [](double x) { return std::max(x, 0.5 * x); }, points);
  check(
      "min", [](auto x) { return min(x * x, 1 + x); }, [](double x) { return std::min(x * x, 1 + x); }, points);
  check(
      "select", [](auto x) { return select(x > 0, x * x, -x); }, [](double x) { return x > 0 ? x * x : -x; }, points);
  check(
      "nested", [](auto x) { return tanh(exp(-x * x) + sin(x) / (1 + abs(x))); },
      [](double x) { return std::tanh(std::exp(-x * x) + std::sin(x) / (1 + std::abs(x))); }, points);
}

TEST_CASE("Dual: comparisons look at the values", "[core][math]") {
  const Dual<double> small(1, 9), large(2, -9);
  CHECK(small < large);
  CHECK(large > small);
  CHECK(small <= large);
  CHECK(large >= small);
  CHECK(small <= Dual<double>(1, 0));
  CHECK_FALSE(small > large);
}

TEST_CASE("Dual: at the edges", "[core][math]") {
  const Dual<double> zero(0, 1);
  CHECK(abs(zero).value == 0);
  CHECK(abs(zero).slope == 0);
  // A probability of 0: the logarithm and the slope of the floor.
  CHECK(log_above(zero, 1e-12).value == Approx(std::log(1e-12)));
  CHECK(log_above(zero, 1e-12).slope == Approx(1e12));
  for (const double x : {-1e4, 1e4}) {
    const Dual<double> far(x, 1);
    CHECK(math::sigmoid(far).value == (x > 0 ? 1 : 0));
    CHECK(math::sigmoid(far).slope == 0);
    CHECK(math::softplus(far).value == (x > 0 ? x : 0));
    CHECK(math::softplus(far).slope == (x > 0 ? 1 : 0));
  }
  const Dual<float> constant = 2;
  CHECK(constant.value == 2.0F);
  CHECK(constant.slope == 0.0F);
}

TEST_CASE("is_finite: by the bits", "[core][math]") {
  const auto check_type = []<class T>(T) {
    using Limits = std::numeric_limits<T>;
    for (const T value : {T(0), T(-1), Limits::max(), Limits::lowest(), Limits::denorm_min()}) CHECK(is_finite(value));
    for (const T value : {Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(), -Limits::quiet_NaN()})
      CHECK_FALSE(is_finite(value));
  };
  check_type(float());
  check_type(double());
}
