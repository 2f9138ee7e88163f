#include "conformance.hpp"

namespace test_backend_updates {

using namespace conformance;

namespace {

struct Shape2 {
  std::size_t rows, columns;
};

const std::vector<Shape2> shapes = {{1, 1}, {1, 7}, {7, 1}, {5, 16}, {3, 63}, {64, 65}, {10, 128}, {300, 301}};

// Rules with no, one and two numbers kept for each weight.
struct Plain {
  template <class V, class S>
  void operator()(V& weight, V gradient, S&) const {
    weight -= math::number<V>(0.5) * gradient;
  }
};
struct Momentum {
  template <class V, class S>
  void operator()(V& weight, V gradient, S& state) const {
    state[0] = math::number<V>(0.75) * state[0] + gradient;
    weight -= math::number<V>(0.5) * state[0];
  }
};
struct Moments {
  template <class V, class S>
  void operator()(V& weight, V gradient, S& state) const {
    using math::sqrt;
    state[0] = math::number<V>(0.75) * state[0] + gradient;
    state[1] = math::number<V>(0.5) * state[1] + gradient * gradient;
    weight -= math::number<V>(0.5) * state[0] / (V(sqrt(state[1])) + math::number<V>(0.125));
  }
};

/// Two steps of a rule on a stored gradient, and on one that is a product: the sum over so many samples, in panels.
template <class C, std::size_t Slots, class Rule>
void check_update(const Rule& rule) {
  using T = typename C::Scalar;
  Bench<C> bench;
  for (const Shape2& shape : shapes)
    for (const bool whole : {false, true})  // whether the columns are those of the padded rows
      for (const std::size_t samples : {0, 1, 5, 64, 100}) {
        const std::size_t rows = shape.rows, columns = shape.columns, lanes = 64;
        if (samples > 5 && columns > 300) continue;  // sums in another order differ more than the tolerance
        INFO("rows " << rows << " columns " << columns << " samples " << samples << " whole " << whole);
        const std::size_t n = rows * columns, panels = (samples + lanes - 1) / lanes;
        const std::vector<T> weights = bench.random(n, 1), gradient = bench.random(n, 4);
        // Panels of the left factor, one row a sample of the right one; of one sample, vectors.
        const std::size_t stride = samples == 1 ? columns : backend::row_stride<T>(columns);
        const std::vector<T> left = bench.random(samples == 1 ? rows : panels * rows * lanes, 2);
        const std::vector<T> right = bench.random(std::max<std::size_t>(samples, 1) * stride, 3);
        Reals expected(weights.begin(), weights.end());
        std::vector<std::array<Real, Slots>> state(n);
        for (std::size_t i = 0; i < n; ++i) {
          Real g = samples == 0 ? Real(gradient[i]) : 0;
          for (std::size_t s = 0; s < samples; ++s) {
            const std::size_t at = samples == 1 ? i / columns : (s / lanes * rows + i / columns) * lanes + s % lanes;
            g += Real(left[at]) * Real(right[s * stride + i % columns]);
          }
          for (int step = 0; step < 2; ++step) rule(expected[i], g, state[i]);
        }
        for (std::size_t s = 0; s < Slots; ++s)
          for (std::size_t i = 0; i < n; ++i) expected.push_back(state[i][s]);

        const auto g = bench.table(rows, columns, gradient);
        const auto l = bench.array(left), r = bench.array(right);
        backend::Product<T> product;
        product.rows = rows, product.columns = columns, product.depth = product.last_depth = samples;
        product.a = l.data(), product.a_row = 1, product.a_depth = 1, product.b = r.data();
        if (samples > 1) {
          product.columns = whole ? round_up(columns, cache_line / sizeof(T)) : columns;
          product.a_row = static_cast<std::ptrdiff_t>(lanes), product.b_depth = static_cast<std::ptrdiff_t>(stride);
          product.segments = panels, product.depth = lanes, product.last_depth = samples - (panels - 1) * lanes;
          product.a_segment = static_cast<std::ptrdiff_t>(rows * lanes);
          product.b_segment = static_cast<std::ptrdiff_t>(lanes * stride);
        }
        const auto result = bench.repeated([&] {
          const auto value = bench.table(rows, columns, weights), first = bench.table(rows, columns),
                     second = bench.table(rows, columns);
          backend::Updated<T, Slots> updated{value.matrix(), {}};
          if constexpr (Slots > 0) updated.slots[0] = first.data();
          if constexpr (Slots > 1) updated.slots[1] = second.data();
          for (int step = 0; step < 2; ++step)
            if (samples == 0)
              bench.backend.update(rule, updated, g.data());
            else
              bench.backend.update_product(rule, updated, product);
          std::vector<T> all = value.values();
          for (const auto* slot : {&first, &second})
            if (Slots > (slot == &first ? 0U : 1U))
              for (const T v : slot->values()) all.push_back(v);
          return all;
        });
        bench.compare(result, expected, 4);
      }
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("update and update_product: rules with 0, 1 and 2 slots", "[backend][conformance]", Cases) {
  check_update<TestType, 0>(Plain());
  check_update<TestType, 1>(Momentum());
  check_update<TestType, 2>(Moments());
}

TEMPLATE_LIST_TEST_CASE("squared_norm: of the columns and never of the padding", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  for (const Shape2& shape : shapes) {
    const std::size_t rows = shape.rows, columns = shape.columns;
    INFO("rows " << rows << " columns " << columns);
    const std::vector<T> values = bench.random(rows * columns, 1);
    Real expected = 0;
    for (const T v : values) expected += Real(v) * Real(v);
    const std::size_t stride = backend::row_stride<T>(columns);
    std::vector<T> memory(rows * stride, T(100));
    for (std::size_t i = 0; i < values.size(); ++i) memory[i / columns * stride + i % columns] = values[i];
    const auto array = bench.array(memory);
    const auto result = bench.repeated([&] {
      const double norm = bench.backend.squared_norm(backend::Matrix<T>{array.data(), rows, columns, stride});
      REQUIRE(std::fabs(Real(norm) - expected) <= TestType::tolerance * expected);
      return std::vector<T>{static_cast<T>(norm)};
    });
    REQUIRE(result[0] > 0);
  }
}

TEMPLATE_LIST_TEST_CASE("update_rows: some rows, in any order, and no others", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  for (const Shape2& shape : shapes)
    for (const std::size_t wanted : {0, 1, 3, 200}) {
      const std::size_t rows = shape.rows, columns = shape.columns;
      INFO("rows " << rows << " columns " << columns << " of them " << wanted);
      std::vector<std::uint32_t> numbers;
      for (std::size_t k = 0; k < std::min(wanted, rows); ++k)
        numbers.push_back(static_cast<std::uint32_t>((7 * k + 2) % rows));
      if (rows % 7 == 0) numbers.resize(std::min<std::size_t>(numbers.size(), rows / 7));  // none twice
      const std::vector<T> weights = bench.random(rows * columns, 1);
      const std::vector<T> gradient = bench.random(std::max<std::size_t>(numbers.size(), 1) * columns, 2);
      Reals expected(weights.begin(), weights.end());
      Reals state(weights.size());
      for (int step = 0; step < 2; ++step)
        for (std::size_t k = 0; k < numbers.size(); ++k)
          for (std::size_t c = 0; c < columns; ++c) {
            std::array<Real, 1> own{state[numbers[k] * columns + c]};
            Momentum()(expected[numbers[k] * columns + c], Real(gradient[k * columns + c]), own);
            state[numbers[k] * columns + c] = own[0];
          }
      expected.insert(expected.end(), state.begin(), state.end());
      const auto g = bench.table(std::max<std::size_t>(numbers.size(), 1), columns, gradient);
      const auto result = bench.repeated([&] {
        const auto value = bench.table(rows, columns, weights), slot = bench.table(rows, columns);
        const backend::Updated<T, 1> updated{value.matrix(), {slot.data()}};
        for (int step = 0; step < 2; ++step)
          bench.backend.update_rows(Momentum(), updated, static_cast<const T*>(g.data()),
                                    std::span<const std::uint32_t>(numbers));
        std::vector<T> all = value.values();
        for (const T v : slot.values()) all.push_back(v);
        return all;
      });
      bench.compare(result, expected, 4);
    }
}

TEMPLATE_LIST_TEST_CASE("add_rows: many to one, and some to none", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  for (const Shape2& shape : shapes)
    for (const std::size_t count : {1, 5, 400}) {
      const std::size_t rows = shape.rows, columns = shape.columns;
      INFO("rows " << rows << " columns " << columns << " of " << count);
      const std::vector<T> sums = bench.random(rows * columns, 1), values = bench.random(count * columns, 2);
      std::vector<std::uint32_t> to(count);
      Reals expected(sums.begin(), sums.end());
      for (std::size_t i = 0; i < count; ++i) {
        to[i] = i % 6 == 4 ? ~std::uint32_t{0} : static_cast<std::uint32_t>(i * i % rows);
        for (std::size_t c = 0; c < columns && i % 6 != 4; ++c)
          expected[to[i] * columns + c] += Real(values[i * columns + c]);
      }
      const auto in = bench.table(count, columns, values);
      const auto result = bench.repeated([&] {
        const auto out = bench.table(rows, columns, sums);
        bench.backend.add_rows(in.matrix(), std::span<const std::uint32_t>(to), out.matrix());
        return out.values();
      });
      bench.compare(result, expected, static_cast<Real>(count));
    }
}

}  // namespace test_backend_updates
