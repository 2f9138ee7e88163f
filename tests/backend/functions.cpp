#include "conformance.hpp"

#include <tesla/layer/activation.hpp>

namespace test_backend_functions {

using namespace conformance;

namespace {

/// y = f(x) and dx = f.gradient(dy, kept) over panels, against a formula for the value and one for the derivative at x.
template <class C, class F, class Value, class Slope>
void check_function(const F& f, const Value& value, const Slope& slope) {
  using T = typename C::Scalar;
  Bench<C> bench;
  for (const Size& size : sizes()) {
    const std::size_t batch = size.batch, features = size.features;
    INFO("batch " << batch << " features " << features);
    const std::size_t n = batch * features;
    const std::vector<T> xs = bench.random(n, 1, -4, 4), slopes = bench.random(n, 2);
    const auto x = bench.batch({batch, features}, xs), dy = bench.batch({batch, features}, slopes);
    const auto y = bench.batch({batch, features});
    Reals values(n), gradients(n);
    for (std::size_t i = 0; i < n; ++i) values[i] = value(Real(xs[i])), gradients[i] = slopes[i] * slope(Real(xs[i]));
    bench.compare(bench.repeated([&] {
      bench.backend.map(f, y.panels(), x.in());
      return y.rows();
    }),
                  values);
    const Panels<const T> kept = F::from_output ? y.in() : x.in();
    const auto gradient = bench.repeated([&] {
      const auto dx = bench.batch({batch, features});
      bench.backend.map(math::GradientOf(f), dx.panels(), dy.in(), kept);
      return dx.rows();
    });
    bench.compare(gradient, gradients, 4);
  }
}

Real logistic(Real x) { return 1 / (1 + std::exp(-x)); }
Real normal_distribution(Real x) { return std::erfc(-x / std::sqrt(Real(2))) / 2; }
Real normal_density(Real x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::acos(Real(-1))); }

}  // namespace

TEMPLATE_LIST_TEST_CASE("map: linear, relu, leaky_relu and elu", "[backend][conformance]", Cases) {
  using C = TestType;
  const auto one = [](Real) { return Real(1); };
  check_function<C>(
      math::Identity(), [](Real x) { return x; }, one);
  check_function<C>(
      math::Relu(), [](Real x) { return std::max(x, Real(0)); }, [](Real x) { return Real(x > 0 ? 1 : 0); });
  check_function<C>(
      math::LeakyRelu{0.125}, [](Real x) { return x > 0 ? x : x / 8; }, [](Real x) { return Real(x > 0 ? 1 : 0.125); });
  check_function<C>(
      math::Elu{1.5}, [](Real x) { return x > 0 ? x : 1.5L * std::expm1(x); },
      [](Real x) { return x > 0 ? Real(1) : 1.5L * std::exp(x); });
}

TEMPLATE_LIST_TEST_CASE("map: gelu, sigmoid, tanh and softplus", "[backend][conformance]", Cases) {
  using C = TestType;
  check_function<C>(
      math::Gelu(), [](Real x) { return x * normal_distribution(x); },
      [](Real x) { return normal_distribution(x) + x * normal_density(x); });
  check_function<C>(math::Sigmoid(), logistic, [](Real x) { return logistic(x) * logistic(-x); });
  check_function<C>(
      math::Tanh(), [](Real x) { return std::tanh(x); }, [](Real x) { return 1 - std::tanh(x) * std::tanh(x); });
  check_function<C>(
      math::Softplus(), [](Real x) { return std::log1p(std::exp(x)); }, logistic);
}

TEMPLATE_LIST_TEST_CASE("map: functions keep finite far out", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  const std::vector<T> xs = {T(-1e4), T(-200), T(0), T(200), T(1e4), T(-0.0), T(1e-20)};
  const auto x = bench.batch({1, xs.size()}, xs);
  const auto check = [&](const auto& f, const Reals& expected) {
    const auto y = bench.batch({1, xs.size()});
    bench.backend.map(f, y.panels(), x.in());
    bench.compare(y.rows(), expected);
  };
  check(math::Sigmoid(), {0, std::exp(Real(-200)), 0.5, 1, 1, 0.5, 0.5});
  check(math::Softplus(), {0, 0, std::log(Real(2)), 200, 1e4, std::log(Real(2)), std::log(Real(2))});
  check(math::Tanh(), {-1, -1, 0, 1, 1, 0, 1e-20});
  check(math::Elu{1}, {-1, -1, 0, 200, 1e4, 0, 1e-20});
  check(math::Gelu(), {0, 0, 0, 200, 1e4, 0, 0.5e-20});
}

TEMPLATE_LIST_TEST_CASE("map, map_sum and reduce: panels and features as operands", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  using F = backend::Features<const T>;
  Bench<TestType> bench;
  const auto difference = [](auto p, auto v) { return p - v; };
  const auto sum4 = [](auto a, auto v, auto b, auto w) { return a * v + b * w; };
  const auto twice = [](auto p) { return p + p; };
  for (const Size& size : sizes()) {
    const std::size_t batch = size.batch, features = size.features;
    INFO("batch " << batch << " features " << features);
    const std::size_t n = batch * features;
    const std::vector<T> as = bench.random(n, 1), bs = bench.random(n, 2), vs = bench.random(features, 3),
                         ws = bench.random(features, 4);
    const auto a = bench.batch({batch, features}, as), b = bench.batch({batch, features}, bs);
    const auto v = bench.array(vs), w = bench.array(ws);
    const F per_feature{v.data(), features}, other{w.data(), features};
    Reals differences(n), sums4(n), means(features), totals(features), plain(features), constants(n);
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t f = i % features;
      differences[i] = Real(as[i]) - Real(vs[f]);
      sums4[i] = Real(as[i]) * Real(vs[f]) + Real(bs[i]) * Real(ws[f]);
      constants[i] = 2 * Real(vs[f]);
      means[f] += differences[i], totals[f] += sums4[i], plain[f] += 2 * Real(as[i]);
    }
    // A map of this shape, then one with sums, then the sums alone; each as one array.
    const auto mapped = [&](const auto& f, const auto&... in) {
      return bench.repeated([&] {
        const auto out = bench.batch({batch, features});
        bench.backend.map(f, out.panels(), in...);
        return out.rows();
      });
    };
    const auto summed = [&](const Reals& values, const Reals& sums, const auto& f, const auto&... in) {
      const auto both = bench.repeated([&] {
        const auto out = bench.batch({batch, features});
        const auto to = bench.array(std::vector<T>(features, T(9)));
        bench.backend.map_sum(f, out.panels(), backend::Features<T>{to.data(), features}, in...);
        std::vector<T> all = out.rows();
        const std::vector<T> tail = to.read();
        all.insert(all.end(), tail.begin(), tail.end());
        return all;
      });
      const auto alone = bench.repeated([&] {
        const auto to = bench.array(std::vector<T>(features, T(9)));
        bench.backend.reduce(f, backend::Features<T>{to.data(), features}, in...);
        return to.read();
      });
      const Real scale = std::sqrt(Real(batch)) + 1;
      bench.compare({both.begin(), both.begin() + static_cast<std::ptrdiff_t>(n)}, values);
      bench.compare({both.begin() + static_cast<std::ptrdiff_t>(n), both.end()}, sums, scale);
      bench.compare(alone, sums, scale);
    };
    bench.compare(mapped(difference, a.in(), per_feature), differences);
    bench.compare(mapped(sum4, a.in(), per_feature, b.in(), other), sums4);
    bench.compare(mapped(twice, per_feature), constants);
    summed(differences, means, difference, a.in(), per_feature);
    summed(sums4, totals, sum4, a.in(), per_feature, b.in(), other);
    Reals doubled(n);
    for (std::size_t i = 0; i < n; ++i) doubled[i] = 2 * Real(as[i]);
    summed(doubled, plain, twice, a.in());
  }
}

TEMPLATE_LIST_TEST_CASE("map, map_sum and reduce: fewer values than features repeat", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  const auto f = [](auto a, auto v, auto b, auto w) { return a * v + b * w; };
  const auto square = [](auto a) { return a * a; };
  for (const std::size_t batch : batches)
    for (const std::size_t channels : {1, 3, 8, 19, 300})
      for (const std::size_t pixels : {1, 4, 35}) {
        if (channels == 300 && pixels == 35) continue;
        const std::size_t features = channels * pixels, n = batch * features;
        INFO("batch " << batch << " channels " << channels << " pixels " << pixels);
        const std::vector<T> as = bench.random(n, 1), bs = bench.random(n, 2), vs = bench.random(channels, 3),
                             ws = bench.random(channels, 4);
        const auto a = bench.batch({batch, features}, as), b = bench.batch({batch, features}, bs);
        const auto v = bench.array(vs), w = bench.array(ws);
        const backend::Features<const T> per_channel{v.data(), channels}, other{w.data(), channels};
        Reals values(n), sums(channels), squares(channels);
        for (std::size_t i = 0; i < n; ++i) {
          const std::size_t c = i % channels;
          values[i] = Real(as[i]) * Real(vs[c]) + Real(bs[i]) * Real(ws[c]);
          sums[c] += values[i], squares[c] += Real(as[i]) * Real(as[i]);
        }
        const Real scale = std::sqrt(Real(batch * pixels)) + 1;
        bench.compare(bench.repeated([&] {
          const auto out = bench.batch({batch, features});
          bench.backend.map(f, out.panels(), a.in(), per_channel, b.in(), other);
          return out.rows();
        }),
                      values);
        const auto to = bench.array(std::vector<T>(channels, T(9)));
        const backend::Features<T> result{to.data(), channels};
        bench.compare(bench.repeated([&] {
          const auto out = bench.batch({batch, features});
          bench.backend.map_sum(f, out.panels(), result, a.in(), per_channel, b.in(), other);
          return out.rows();
        }),
                      values);
        bench.compare(to.read(), sums, scale);
        bench.compare(bench.repeated([&] {
          bench.backend.reduce(square, result, a.in());
          return to.read();
        }),
                      squares, scale);
        bench.compare(bench.repeated([&] {
          bench.backend.reduce(f, result, a.in(), per_channel, b.in(), other);
          return to.read();
        }),
                      sums, scale);
      }
}

TEMPLATE_LIST_TEST_CASE("reduce: sums of values as they are", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  const auto check = [&](std::size_t batch, std::size_t features, std::size_t repeats) {
    INFO("batch " << batch << " features " << features << " repeats " << repeats);
    const std::size_t all = features * repeats;
    const std::vector<T> as = bench.random(batch * all, 1);
    const auto a = bench.batch({batch, all}, as);
    const auto to = bench.array(std::vector<T>(features, T(9)));
    Reals sums(features);
    for (std::size_t i = 0; i < as.size(); ++i) sums[i % features] += Real(as[i]);
    bench.compare(bench.repeated([&] {
      bench.backend.reduce(math::Identity(), backend::Features<T>{to.data(), features}, a.in());
      return to.read();
    }),
                  sums, std::sqrt(Real(batch * repeats)) + 1);
    bench.compare(a.rows(), Reals(as.begin(), as.end()), 0);
  };
  for (const Size& size : sizes()) check(size.batch, size.features, 1);
  for (const std::size_t batch : batches)
    for (const std::size_t channels : {1, 3, 8, 19, 300})
      for (const std::size_t pixels : {2, 4, 35})
        if (channels < 300 || pixels < 35) check(batch, channels, pixels);
  // The same with the values written somewhere else.
  const auto a = bench.batch({70, 6}, bench.random(420, 1));
  const auto kept = bench.array(std::vector<T>(3, T(9))), summed = bench.array(std::vector<T>(3, T(9)));
  const auto out = bench.batch({70, 6});
  bench.backend.reduce(math::Identity(), backend::Features<T>{summed.data(), 3}, a.in());
  bench.backend.map_sum(math::Identity(), out.panels(), backend::Features<T>{kept.data(), 3}, a.in());
  const std::vector<T> wanted = kept.read();
  bench.compare(summed.read(), Reals(wanted.begin(), wanted.end()));
  bench.compare(out.rows(), [&] {
    const std::vector<T> rows = a.rows();
    return Reals(rows.begin(), rows.end());
  }());
}

TEMPLATE_LIST_TEST_CASE("map and map_sum: the result may be one of the operands", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  for (const Size& size : sizes()) {
    const std::size_t batch = size.batch, features = size.features;
    INFO("batch " << batch << " features " << features);
    const std::vector<T> as = bench.random(batch * features, 1), bs = bench.random(batch * features, 2);
    const auto a = bench.batch({batch, features}, as), b = bench.batch({batch, features}, bs);
    const auto sums = bench.array(std::vector<T>(features));
    Reals once(as.size()), twice(as.size()), totals(features);
    for (std::size_t i = 0; i < as.size(); ++i) {
      once[i] = Real(as[i]) * Real(bs[i]);
      twice[i] = once[i] * Real(bs[i]);
      totals[i % features] += twice[i];
    }
    bench.backend.map([](auto x, auto y) { return x * y; }, a.panels(), a.in(), b.in());
    bench.compare(a.rows(), once);
    bench.backend.map_sum([](auto x, auto y) { return x * y; }, a.panels(), backend::Features<T>{sums.data(), features},
                          a.in(), b.in());
    bench.compare(a.rows(), twice);
    bench.compare(sums.read(), totals, std::sqrt(Real(batch)) + 1);
  }
}

TEMPLATE_LIST_TEST_CASE("apply and apply_gradient: a function of the user's", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  const Activation swish = tesla::activation([](auto x) { return x / (1 + exp(-x)); });
  for (const Size& size : sizes()) {
    const std::size_t batch = size.batch, features = size.features;
    INFO("batch " << batch << " features " << features);
    const std::size_t n = batch * features;
    const std::vector<T> xs = bench.random(n, 1, -4, 4), slopes = bench.random(n, 2);
    const auto x = bench.batch({batch, features}, xs), dy = bench.batch({batch, features}, slopes);
    Reals values(n), gradients(n);
    for (std::size_t i = 0; i < n; ++i) {
      const Real s = logistic(Real(xs[i]));
      values[i] = xs[i] * s;
      gradients[i] = slopes[i] * (s + xs[i] * s * (1 - s));
    }
    const auto y = bench.repeated([&] {
      const auto out = bench.batch({batch, features});
      bench.backend.apply(*swish.custom, x.in(), out.panels());
      return out.rows();
    });
    bench.compare(y, values);
    const auto dx = bench.repeated([&] {
      const auto out = bench.batch({batch, features});
      bench.backend.apply_gradient(*swish.custom, x.in(), dy.in(), out.panels());
      return out.rows();
    });
    bench.compare(dx, gradients);
  }
}

}  // namespace test_backend_functions
