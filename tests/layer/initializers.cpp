#include <tesla/layer/initializer.hpp>
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

namespace test_layer_initializers {

using namespace tesla;

namespace {

struct Moments {
  double mean = 0, variance = 0, low = 1e300, high = -1e300;
};

Moments moments(const Tensor<double>& values) {
  Moments m;
  const auto n = static_cast<double>(values.size());
  for (const double v : values) {
    m.mean += v / n;
    m.low = std::min(m.low, v), m.high = std::max(m.high, v);
  }
  for (const double v : values) m.variance += (v - m.mean) * (v - m.mean) / n;
  return m;
}

const Shape wide{200, 600};  // 200 outputs, 600 inputs

void check_uniform(const init::Initializer& initializer, double limit) {
  const Moments m = moments(initializer.values(wide, 7, 1));
  CHECK(m.low >= -limit);
  CHECK(m.low == Approx(-limit).epsilon(1e-3));
  CHECK(m.high < limit);
  CHECK(m.high == Approx(limit).epsilon(1e-3));
  CHECK(m.mean == Approx(0).margin(0.01 * limit));
  CHECK(m.variance == Approx(limit * limit / 3).epsilon(0.02));
}

void check_normal(const init::Initializer& initializer, double deviation) {
  const Tensor<double> values = initializer.values(wide, 7, 1);
  const Moments m = moments(values);
  CHECK(m.mean == Approx(0).margin(0.01 * deviation));
  CHECK(m.variance == Approx(deviation * deviation).epsilon(0.02));
  // Shares within one and two standard deviations.
  for (const auto& [within, share] : {std::pair{1.0, 0.6827}, {2.0, 0.9545}}) {
    double count = 0;
    for (const double v : values) count += std::abs(v) < within * deviation ? 1 : 0;
    CHECK(count / static_cast<double>(values.size()) == Approx(share).margin(0.005));
  }
}

/// The dot products of the shorter side's vectors are gain squared times the identity.
void check_orthogonal(std::size_t rows, std::size_t columns, double gain) {
  INFO(rows << " x " << columns << ", gain " << gain);
  init::Initializer initializer = init::orthogonal;
  initializer.parameter = gain;
  const Tensor<double> v = initializer.values({rows, columns}, 3, 0);
  const bool by_rows = rows <= columns;
  const std::size_t count = std::min(rows, columns), n = std::max(rows, columns);
  double worst = 0;
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t j = 0; j < count; ++j) {
      double dot = 0;
      for (std::size_t k = 0; k < n; ++k) dot += by_rows ? v(i, k) * v(j, k) : v(k, i) * v(k, j);
      worst = std::max(worst, std::abs(dot - (i == j ? gain * gain : 0)));
    }
  CHECK(worst < 1e-13 * gain * gain);
}

}  // namespace

TEST_CASE("Initializers: uniform ones keep to their limits and fill them", "[layer][initializer]") {
  check_uniform(init::glorot_uniform, std::sqrt(6.0 / 800));
  check_uniform(init::he_uniform, std::sqrt(6.0 / 600));
  check_uniform(init::uniform(0.25), 0.25);
}

TEST_CASE("Initializers: normal ones have their deviation", "[layer][initializer]") {
  check_normal(init::glorot_normal, std::sqrt(2.0 / 800));
  check_normal(init::he_normal, std::sqrt(2.0 / 600));
  check_normal(init::normal(0.5), 0.5);
}

TEST_CASE("Initializers: constants", "[layer][initializer]") {
  for (const auto& [initializer, value] :
       {std::pair{init::zeros, 0.0}, {init::ones, 1.0}, {init::constant(-2.5), -2.5}})
    for (const double v : initializer.values({3, 5}, 1, 1)) CHECK(v == value);
}

TEST_CASE("Initializers: orthogonal rows or columns, whichever are fewer", "[layer][initializer]") {
  for (const double gain : {1.0, 1.5}) {
    check_orthogonal(1, 1, gain);
    check_orthogonal(1, 9, gain);
    check_orthogonal(9, 1, gain);
    check_orthogonal(12, 40, gain);
    check_orthogonal(40, 12, gain);
    check_orthogonal(33, 33, gain);
  }
}

TEST_CASE("Initializers: fans count outputs first, further extents as inputs", "[layer][initializer]") {
  const double limit = std::sqrt(6.0 / (400 + 5 * 60));
  const Moments m = moments(init::glorot_uniform.values({400, 5, 60}, 1, 0));
  CHECK(m.high == Approx(limit).epsilon(1e-3));
  CHECK(m.high < limit);
  CHECK(init::he_normal.values({0, 4}, 1, 0).size() == 0);
}

TEST_CASE("Initializers: the numbers depend on seed and stream alone", "[layer][initializer]") {
  for (const auto& initializer : {init::glorot_uniform, init::he_normal, init::orthogonal}) {
    const auto values = [&](std::uint64_t seed, std::uint64_t stream) {
      const Tensor<double> v = initializer.values({6, 11}, seed, stream);
      return std::vector<double>(v.begin(), v.end());
    };
    CHECK(values(4, 2) == values(4, 2));
    CHECK(values(4, 2) != values(5, 2));
    CHECK(values(4, 2) != values(4, 3));
  }
}

TEST_CASE("Initializers: a model's seed decides its parameters, on any backend", "[layer][initializer]") {
  const auto parameters = [](auto model) {
    model.add_layer(Dense({.units = 5}));
    model.add_layer(Dense({.units = 5, .bias_initializer = init::ones}));
    model.build({5});
    std::vector<std::vector<double>> result;
    for (const auto& p : model.parameters()) {
      const auto v = p.value();
      result.emplace_back(v.begin(), v.end());
    }
    return result;
  };
  using OnCpu = BasicSequential<double, backend::Cpu>;
  using OnReference = BasicSequential<double, backend::Reference>;
  const auto first = parameters(OnCpu(SequentialOptions{.seed = 1}));
  CHECK(first == parameters(OnCpu(SequentialOptions{.seed = 1})));
  CHECK(first == parameters(OnReference(SequentialOptions{.seed = 1})));
  CHECK(first != parameters(OnCpu(SequentialOptions{.seed = 2})));
  CHECK(first[0] != first[2]);  // layers of the same shape begin with numbers of their own
  CHECK(first[1] == std::vector<double>(5, 0));
  CHECK(first[3] == std::vector<double>(5, 1));
}

}  // namespace test_layer_initializers
