// What is done along features, against plain loops; random numbers against philox itself.
#include "conformance.hpp"

namespace test_backend_features {

using namespace conformance;

TEMPLATE_LIST_TEST_CASE("normalise: groups beside each other and groups over pixels", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  struct Layout {
    std::size_t features;
    backend::Groups groups;
  };
  const std::vector<Layout> layouts = {
      {7, {1, 7, 1, 0}}, {35, {5, 7, 1, 0}}, {48, {3, 2, 8, 6}}, {300, {1, 300, 1, 0}}, {1, {1, 1, 1, 0}}};
  Bench<TestType> bench;
  for (const std::size_t batch : batches)
    for (const Layout& layout : layouts)
      for (const bool centred : {true, false}) {
        INFO("batch " << batch << " features " << layout.features << " centred " << centred);
        const backend::Groups& g = layout.groups;
        const std::size_t features = layout.features, n = batch * features;
        const std::vector<T> xs = bench.random(n, 1, -2, 3), ups = bench.random(n, 2);
        Reals y(n), dx(n), scale(batch * g.count);
        for (std::size_t s = 0; s < batch; ++s)
          for (std::size_t k = 0; k < g.count; ++k) {
            std::vector<std::size_t> members;
            for (std::size_t f = 0; f < features; ++f) {
              const std::size_t within = g.apart == 0 ? f : f % g.apart;
              if (within / g.size == k) members.push_back(s * features + f);
            }
            const Real count = Real(members.size());
            Real mean = 0, squares = 0, up = 0, along = 0;
            for (const std::size_t i : members) mean += centred ? Real(xs[i]) / count : 0;
            for (const std::size_t i : members) squares += (xs[i] - mean) * (xs[i] - mean) / count;
            const Real factor = 1 / std::sqrt(squares + Real(1e-3));
            scale[s * g.count + k] = factor;
            for (const std::size_t i : members) {
              y[i] = (xs[i] - mean) * factor;
              up += centred ? Real(ups[i]) / count : 0, along += ups[i] * y[i] / count;
            }
            for (const std::size_t i : members) dx[i] = factor * (ups[i] - up - along * y[i]);
          }
        const auto x = bench.batch({batch, features}, xs), dy = bench.batch({batch, features}, ups);
        const auto out = bench.batch({batch, features});
        const auto factors = bench.batch({batch, g.count});
        bench.compare(bench.repeated([&] {
          bench.backend.normalise(g, centred, 1e-3, x.in(), out.panels(), factors.panels());
          return out.rows();
        }),
                      y, 40);
        bench.compare(factors.rows(), scale, 40);
        bench.compare(bench.repeated([&] {
          const auto result = bench.batch({batch, features});
          bench.backend.normalise_gradient(g, centred, out.in(), factors.in(), dy.in(), result.panels());
          return result.rows();
        }),
                      dx, 1000);
      }
}

TEMPLATE_LIST_TEST_CASE("pick: other places, repeated, added, none", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  for (const std::size_t batch : batches) {
    const std::vector<std::uint32_t> pointers = {0, 1, 1, 3, 4, 8, 9}, from = {4, 0, 2, 4, 1, 1, 3, 0, 2};
    const std::vector<T> xs = bench.random(batch * 5, 1);
    Reals y(batch * 6);
    for (std::size_t s = 0; s < batch; ++s)
      for (std::size_t f = 0; f < 6; ++f)
        for (std::size_t k = pointers[f]; k < pointers[f + 1]; ++k) y[s * 6 + f] += xs[s * 5 + from[k]];
    const auto x = bench.batch({batch, 5}, xs);
    bench.compare(bench.repeated([&] {
      const auto out = bench.batch({batch, 6});
      bench.backend.pick({pointers, from}, x.in(), out.panels());
      return out.rows();
    }),
                  y);
    for (Real& value : y) value *= 2;
    bench.compare(bench.repeated([&] {
      const auto out = bench.batch({batch, 6});
      bench.backend.pick({pointers, from}, x.in(), out.panels());
      bench.backend.pick({pointers, from}, x.in(), out.panels(), true);
      return out.rows();
    }),
                  y);
  }
}

TEMPLATE_LIST_TEST_CASE("draw: numbers follow from seed, stream, sample and feature", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  using Kind = backend::Draw::Kind;
  Bench<TestType> bench;
  for (const auto kind : {Kind::uniform, Kind::normal})
    for (const std::size_t batch : batches)
      for (const std::size_t features : {1, 4, 6, 33}) {
        const backend::Draw draw{0x123456789abcdef, (std::uint64_t{7} << 32) + 5, kind};
        Reals expected(batch * features);
        for (std::size_t i = 0; i < expected.size(); ++i) {
          const std::size_t s = i / features, f = i % features;
          const random::Block bits = random::philox({std::uint32_t(f / 4), std::uint32_t(s), 5, 7}, draw.seed);
          const auto uniform = [&](std::size_t k) { return Real(bits[k] >> 8) / (1 << 24); };
          const std::size_t pair = f % 4 / 2 * 2;
          const Real radius = std::sqrt(-2 * std::log(uniform(pair) + Real(0x1p-25)));
          const Real angle = 2 * std::acos(Real(-1)) * uniform(pair + 1);
          expected[i] = kind == Kind::uniform ? uniform(f % 4)
                        : f % 2 == 0          ? radius * std::cos(angle)
                                              : radius * std::sin(angle);
        }
        const auto result = bench.repeated([&] {
          const auto out = bench.batch({batch, features});
          bench.backend.draw(draw, out.panels());
          return out.rows();
        });
        bench.compare(result, expected, kind == Kind::uniform ? 0 : 1);
      }
}

}  // namespace test_backend_features
