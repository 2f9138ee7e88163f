#include "conformance.hpp"

namespace test_backend_losses {

using namespace conformance;

namespace {

/// Softmax of `n` values, or its logarithm.
void expected_softmax(const Real* x, Real* y, std::size_t n, bool logarithm) {
  const Real largest = *std::max_element(x, x + n);
  Real total = 0;
  for (std::size_t i = 0; i < n; ++i) total += std::exp(x[i] - largest);
  for (std::size_t i = 0; i < n; ++i)
    y[i] = logarithm ? x[i] - largest - std::log(total) : std::exp(x[i] - largest) / total;
}

template <class T>
Reals wide(const std::vector<T>& values) {
  return {values.begin(), values.end()};
}

/// One weight a lane, 0 in the unused ones.
template <class C>
auto lane_weights(Bench<C>& bench, std::size_t batch, std::vector<typename C::Scalar> weights) {
  const std::size_t lanes = C::Backend::template lanes<typename C::Scalar>(batch);
  weights.resize(round_up(batch, lanes));
  return bench.array(weights);
}

/// The values and behind them a loss, in two parts, so that no bit is lost.
template <class T>
std::vector<T> with_loss(std::vector<T> values, double loss) {
  values.push_back(static_cast<T>(loss));
  values.push_back(static_cast<T>(loss - static_cast<double>(values.back())));
  return values;
}

/// A loss with its gradient, at the given logits, against labels and against rows of probabilities; the tolerance
/// grows with `scale`.
template <class C>
void check_cross_entropy(Bench<C>& bench, Size size, const std::vector<typename C::Scalar>& logits, Real scale) {
  using T = typename C::Scalar;
  const std::size_t batch = size.batch, features = size.features;
  INFO("batch " << batch << " features " << features);
  const std::vector<T> weights = bench.random(batch, 4, 0, 2);
  std::vector<std::int32_t> labels(round_up(batch, C::Backend::template lanes<T>(batch)));
  for (std::size_t s = 0; s < batch; ++s) labels[s] = static_cast<std::int32_t>(s * 5 % features);
  const std::vector<T> rows = bench.random(batch * features, 5, 0, 1);  // need not add up to 1
  const auto x = bench.batch(size, logits), targets = bench.batch(size, rows);
  const auto q = lane_weights(bench, batch, weights);
  for (const bool labelled : {true, false}) {
    Real loss = 0;
    Reals gradient(batch * features), y(features);
    for (std::size_t s = 0; s < batch; ++s) {
      const Reals row(logits.begin() + static_cast<std::ptrdiff_t>(s * features),
                      logits.begin() + static_cast<std::ptrdiff_t>((s + 1) * features));
      const auto wanted = [&](std::size_t f) {
        return labelled ? Real(static_cast<std::size_t>(labels[s]) == f ? 1 : 0) : Real(rows[s * features + f]);
      };
      Real mass = 0;
      expected_softmax(row.data(), y.data(), features, true);
      for (std::size_t f = 0; f < features; ++f) {
        mass += wanted(f);
        loss -= weights[s] * wanted(f) * y[f];
      }
      for (std::size_t f = 0; f < features; ++f)
        gradient[s * features + f] = weights[s] * (mass * std::exp(y[f]) - wanted(f));
    }
    const backend::Target<T> target{labelled ? labels.data() : nullptr, labelled ? Panels<const T>() : targets.in()};
    const auto result = bench.repeated([&] {
      const auto dx = bench.batch(size);
      const double with = bench.backend.cross_entropy(x.in(), target, q.data(), dx.panels());
      REQUIRE(std::fabs(Real(with) - loss) <=
              C::tolerance * scale * (1 + std::sqrt(Real(batch))) + C::tolerance * loss);
      // Without the gradient the compiler may join other multiplications and additions.
      const double alone = bench.backend.cross_entropy(x.in(), target, q.data(), Panels<T>());
      REQUIRE(std::fabs(Real(alone - with)) <= C::tolerance * (1 + std::fabs(Real(with))));
      return with_loss(dx.rows(), with);
    });
    bench.compare({result.begin(), result.end() - 2}, gradient, std::sqrt(Real(features)) + 1);
  }
}

/// A sum over features of f(y, target), with a formula for its value and its derivative.
template <class C, class F, class Value, class Slope>
void check_elementwise(const F& f, const Value& value, const Slope& slope) {
  using T = typename C::Scalar;
  Bench<C> bench;
  std::vector<Size> all = sizes();
  all.push_back({5000, 3});
  for (const Size& size : all) {
    const std::size_t batch = size.batch, features = size.features;
    INFO("batch " << batch << " features " << features);
    const std::size_t n = batch * features;
    const std::vector<T> ys = bench.random(n, 1, 0.1, 2), ts = bench.random(n, 2, 0.1, 2),
                         weights = bench.random(batch, 3, 0, 2);
    const auto y = bench.batch({batch, features}, ys), t = bench.batch({batch, features}, ts);
    const auto q = lane_weights(bench, batch, weights);
    Real loss = 0;
    Reals gradient(n);
    for (std::size_t i = 0; i < n; ++i) {
      loss += weights[i / features] * value(Real(ys[i]), Real(ts[i]));
      gradient[i] = weights[i / features] * slope(Real(ys[i]), Real(ts[i]));
    }
    const auto result = bench.repeated([&] {
      const auto dy = bench.batch({batch, features});
      const double with = bench.backend.elementwise_loss(f, y.in(), t.in(), q.data(), dy.panels());
      REQUIRE(std::fabs(Real(with) - loss) <= C::tolerance * (std::sqrt(Real(n)) + std::fabs(loss)));
      const double alone = bench.backend.elementwise_loss(f, y.in(), t.in(), q.data(), Panels<T>());
      REQUIRE(std::fabs(Real(alone - with)) <= C::tolerance * (1 + std::fabs(Real(with))));
      return with_loss(dy.rows(), with);
    });
    bench.compare({result.begin(), result.end() - 2}, gradient);
  }
}

/// The sum of y t over the sum of y.
struct Quotient {
  static constexpr std::size_t sums = 2;
  static constexpr bool below_largest = false;
  template <class D>
  std::array<D, 2> terms(D y, D t) const {
    return {y * t, y};
  }
  template <class D>
  D cost(const std::array<D, 2>& sum) const {
    return sum[0] / sum[1];
  }
  static Real expected(const Reals& y, const Reals& t, Reals& slopes) {
    Real products = 0, sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) products += y[i] * t[i], sum += y[i];
    for (std::size_t i = 0; i < y.size(); ++i) slopes[i] = (t[i] - products / sum) / sum;
    return products / sum;
  }
};

/// The logarithm of the sum of exp(y), less a mean of y, so that a shift of y changes nothing.
struct LogOfSum {
  static constexpr std::size_t sums = 3;
  static constexpr bool below_largest = true;
  template <class D>
  std::array<D, 3> terms(D y, D t) const {
    return {exp(y), y * t, t};
  }
  template <class D>
  D cost(const std::array<D, 3>& sum) const {
    return log(sum[0]) - sum[1] / sum[2];
  }
  static Real expected(const Reals& y, const Reals& t, Reals& slopes) {
    Real total = 0, products = 0, mass = 0;
    for (std::size_t i = 0; i < y.size(); ++i) total += std::exp(y[i]), products += y[i] * t[i], mass += t[i];
    for (std::size_t i = 0; i < y.size(); ++i) slopes[i] = std::exp(y[i]) / total - t[i] / mass;
    return std::log(total) - products / mass;
  }
};

template <class C, class F>
void check_sums(Bench<C>& bench, Size size, const F& f) {
  using T = typename C::Scalar;
  const std::size_t batch = size.batch, features = size.features;
  INFO("batch " << batch << " features " << features);
  const std::vector<T> ys = bench.random(batch * features, 1, 0.1, 3), ts = bench.random(batch * features, 2, 0.1, 2),
                       weights = bench.random(batch, 3, 0, 2);
  const auto y = bench.batch(size, ys), t = bench.batch(size, ts);
  const auto q = lane_weights(bench, batch, weights);
  Real loss = 0;
  Reals gradient;
  for (std::size_t s = 0; s < batch; ++s) {
    const auto row = [&](const std::vector<T>& all) {
      return Reals(all.begin() + static_cast<std::ptrdiff_t>(s * features),
                   all.begin() + static_cast<std::ptrdiff_t>((s + 1) * features));
    };
    Reals slopes(features);
    loss += weights[s] * F::expected(row(ys), row(ts), slopes);
    for (const Real slope : slopes) gradient.push_back(weights[s] * slope);
  }
  const auto result = bench.repeated([&] {
    const auto dy = bench.batch(size);
    const double with = bench.backend.loss_of_sums(f, y.in(), t.in(), q.data(), dy.panels());
    REQUIRE(std::fabs(Real(with) - loss) <= C::tolerance * (std::sqrt(Real(batch)) + std::fabs(loss)));
    const double alone = bench.backend.loss_of_sums(f, y.in(), t.in(), q.data(), Panels<T>());
    REQUIRE(std::fabs(Real(alone - with)) <= C::tolerance * (1 + std::fabs(Real(with))));
    return with_loss(dy.rows(), with);
  });
  bench.compare({result.begin(), result.end() - 2}, gradient);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("softmax and log_softmax, over groups", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  std::vector<std::pair<Size, std::size_t>> all = {{{1, 12}, 3}, {{7, 12}, 4}, {{65, 12}, 1}, {{200, 700}, 100}};
  for (const Size& size : sizes()) all.emplace_back(size, size.features);
  for (const auto& grouped : all)
    for (const bool logarithm : {false, true}) {
      const Size& size = grouped.first;
      const std::size_t group = grouped.second;
      const std::size_t batch = size.batch, features = size.features;
      INFO("batch " << batch << " features " << features << " group " << group << " logarithm " << logarithm);
      const std::size_t n = batch * features;
      const std::vector<T> xs = bench.random(n, 1, -5, 5), slopes = bench.random(n, 2);
      const Reals wide_xs = wide(xs);
      Reals values(n), gradients(n);
      for (std::size_t i = 0; i < n; i += group) expected_softmax(&wide_xs[i], &values[i], group, logarithm);
      const auto x = bench.batch(size, xs), dy = bench.batch(size, slopes);
      const auto y = bench.repeated([&] {
        const auto out = bench.batch(size);
        bench.backend.softmax(x.in(), out.panels(), group, logarithm);
        return out.rows();
      });
      bench.compare(y, values, logarithm ? 5 : 1);
      bench.backend.softmax(x.in(), x.panels(), group, logarithm);  // in place
      REQUIRE(x.rows() == y);

      // The gradient at what was computed: the sum over j of dy_j dy_j/dx_i.
      for (std::size_t first = 0; first < n; first += group) {
        Real total = 0;
        for (std::size_t j = first; j < first + group; ++j) total += slopes[j] * (logarithm ? 1 : Real(y[j]));
        for (std::size_t i = first; i < first + group; ++i)
          gradients[i] = logarithm ? slopes[i] - std::exp(Real(y[i])) * total : Real(y[i]) * (slopes[i] - total);
      }
      const auto dx = bench.repeated([&] {
        const auto out = bench.batch(size);
        bench.backend.softmax_gradient(x.in(), dy.in(), out.panels(), group, logarithm);
        return out.rows();
      });
      bench.compare(dx, gradients, std::sqrt(Real(group)) + 1);
      bench.backend.softmax_gradient(x.in(), dy.in(), dy.panels(), group, logarithm);
      REQUIRE(dy.rows() == dx);
    }
}

TEMPLATE_LIST_TEST_CASE("softmax: extreme logits stay finite", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  for (const std::size_t batch : {1, 3, 65}) {
    std::vector<T> xs;
    for (std::size_t s = 0; s < batch; ++s) xs.insert(xs.end(), {T(1e4), T(-1e4), T(0), T(1e4)});
    const auto x = bench.batch({batch, 4}, xs), y = bench.batch({batch, 4});
    Reals values, logarithms;
    for (std::size_t s = 0; s < batch; ++s) {
      values.insert(values.end(), {0.5, 0, 0, 0.5});
      const Real half = std::log(Real(2));
      logarithms.insert(logarithms.end(), {-half, -2e4 - half, -1e4 - half, -half});
    }
    bench.backend.softmax(x.in(), y.panels(), 4, false);
    bench.compare(y.rows(), values);
    bench.backend.softmax(x.in(), y.panels(), 4, true);
    bench.compare(y.rows(), logarithms);
  }
}

TEMPLATE_LIST_TEST_CASE("cross_entropy: labels and rows of probabilities, weighted", "[backend][conformance]", Cases) {
  Bench<TestType> bench;
  for (const Size& size : sizes())
    check_cross_entropy(bench, size, bench.random(size.batch * size.features, 1, -5, 5),
                        std::sqrt(static_cast<Real>(size.features)) * 5);
}

TEMPLATE_LIST_TEST_CASE("cross_entropy: extreme logits stay finite", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  for (const std::size_t batch : {1, 2, 16, 65}) {
    std::vector<T> logits;
    for (std::size_t s = 0; s < batch; ++s)
      for (std::size_t f = 0; f < 7; ++f) logits.push_back(T((s + f) % 3 == 0 ? 1e4 : (s + f) % 3 == 1 ? -1e4 : 0));
    check_cross_entropy(bench, {batch, 7}, logits, 1e4);
  }
}

TEMPLATE_LIST_TEST_CASE("elementwise_loss: losses of all kinds of functions", "[backend][conformance]", Cases) {
  using C = TestType;
  check_elementwise<C>([](auto y, auto t) { return (y - t) * (y - t); },
                       [](Real y, Real t) { return (y - t) * (y - t); }, [](Real y, Real t) { return 2 * (y - t); });
  check_elementwise<C>([](auto y, auto t) { return abs(y - t); }, [](Real y, Real t) { return std::fabs(y - t); },
                       [](Real y, Real t) {
                         return Real(y > t ? 1 : y < t ? -1 : 0);
                       });
  check_elementwise<C>([](auto y, auto t) { return 3 - t * log(y) / 2 + sqrt(y); },
                       [](Real y, Real t) { return 3 - t * std::log(y) / 2 + std::sqrt(y); },
                       [](Real y, Real t) { return 1 / (2 * std::sqrt(y)) - t / (2 * y); });
}

TEMPLATE_LIST_TEST_CASE("loss_of_sums: sums over the features of a sample", "[backend][conformance]", Cases) {
  Bench<TestType> bench;
  std::vector<Size> all = sizes();
  all.push_back({5000, 3});
  for (const Size& size : all) {
    check_sums(bench, size, Quotient());
    check_sums(bench, size, LogOfSum());
  }
}

// Zero times an infinity: what is not finite must not come out of samples that do not count.
TEMPLATE_LIST_TEST_CASE("loss_of_sums: samples without weight do not count", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  const auto y = bench.batch({3, 2}, {1, 2, 0, 0, 3, 1}), t = bench.batch({3, 2}, {1, 1, 0, 0, 2, 2});
  const auto dy = bench.batch({3, 2});
  const auto q = lane_weights(bench, 3, {1, 0, 2});
  CHECK(bench.backend.loss_of_sums(Quotient(), y.in(), t.in(), q.data(), dy.panels()) == 3 / T(3) + 2 * 8 / T(4));
  const std::vector<T> gradient = dy.rows();
  CHECK(gradient[2] == 0);
  CHECK(gradient[3] == 0);
}

TEMPLATE_LIST_TEST_CASE("elementwise_loss: the derivative of a distance of 0 is 0", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  const auto y = bench.batch({3, 2}, {1, 2, 3, 4, 5, 6}), t = bench.batch({3, 2}, {1, 0, 3, 8, 5, 6});
  const auto dy = bench.batch({3, 2});
  const auto q = lane_weights(bench, 3, {1, 2, 3});
  const double loss =
      bench.backend.elementwise_loss([](auto a, auto b) { return abs(a - b); }, y.in(), t.in(), q.data(), dy.panels());
  CHECK(loss == 10);
  CHECK(dy.rows() == std::vector<T>{0, 1, 0, -2, 0, 0});
}

}  // namespace test_backend_losses
