#include "conformance.hpp"

#include <Eigen/Core>

namespace test_backend_products {

using namespace conformance;

namespace {

const std::vector<std::size_t> lengths = {0, 1, 7, 63, 64, 65, 300};

std::ptrdiff_t signed_size(std::size_t n) { return static_cast<std::ptrdiff_t>(n); }

struct Shift {
  template <class V>
  V operator()(V x) const {
    return x * x + math::number<V>(0.25);
  }
};

/// What is multiplied: a matrix {rows, depth} with the samples' features, as a dense layer does.
struct Options {
  bool transposed = false;  // the matrix is stored as {depth, rows}
  bool bias = false, accumulate = false, epilogue = false;
  bool last_columns = false;  // of the last panel only the lanes with samples
  std::size_t last_depth = 0;
};

/// Eigen's product, with all sums in double or long double. Weights by (row, depth), activations by (sample, depth).
template <class T>
Reals expected_product(std::size_t rows, std::size_t depth, std::size_t batch, const std::vector<T>& weights,
                       const std::vector<T>& inputs) {
  using Wide = std::conditional_t<std::is_same_v<T, float>, double, Real>;
  using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto r = signed_size(rows), d = signed_size(depth), b = signed_size(batch);
  const Eigen::Map<const Matrix> w(weights.data(), r, d), x(inputs.data(), b, d);
  const Eigen::Matrix<Wide, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> product =
      x.template cast<Wide>() * w.transpose().template cast<Wide>();
  return Reals(product.data(), product.data() + product.size());
}

template <class C>
void check_panels(Bench<C>& bench, std::size_t rows, std::size_t depth, std::size_t batch, const Options& o) {
  using T = typename C::Scalar;
  INFO("rows " << rows << " depth " << depth << " batch " << batch << " transposed " << o.transposed << " bias "
               << o.bias << " accumulate " << o.accumulate << " epilogue " << o.epilogue << " last_columns "
               << o.last_columns << " last_depth " << o.last_depth);
  const auto seed = static_cast<unsigned>(rows + depth + batch);
  const std::vector<T> weights = bench.random(rows * depth, seed), inputs = bench.random(batch * depth, seed + 1),
                       bias = bench.random(rows, seed + 2), before = bench.random(batch * rows, seed + 3);
  std::vector<T> stored = weights;
  if (o.transposed)
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t d = 0; d < depth; ++d) stored[d * rows + r] = weights[r * depth + d];
  const auto a = o.transposed ? bench.table(depth, rows, stored) : bench.table(rows, depth, stored);
  const auto b = bench.batch({batch, depth}, inputs);
  const auto offsets = bench.array(bias);

  Reals expected = expected_product(rows, depth, batch, weights, inputs);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (o.last_depth != 0)
      for (std::size_t d = o.last_depth; d < depth; ++d)
        expected[i] -= Real(weights[i % rows * depth + d]) * Real(inputs[i / rows * depth + d]);
    if (o.bias) expected[i] += bias[i % rows];
    if (o.accumulate) expected[i] += before[i];
    if (o.epilogue) expected[i] = Shift()(expected[i]);
  }

  const auto result = bench.repeated([&] {
    const auto c = bench.batch({batch, rows}, before);
    const Panels<const T> in = b.in(), out = c.in();
    backend::Product<T> p;
    p.count = in.panels(), p.rows = rows, p.depth = depth, p.columns = in.lanes;
    if (o.last_columns) p.last_columns = std::min(in.lanes, round_up(in.live(in.panels() - 1), cache_line / sizeof(T)));
    p.last_depth = o.last_depth;
    p.a = a.data(), p.a_row = o.transposed ? 1 : a.stride(), p.a_depth = o.transposed ? a.stride() : 1;
    p.b = in.data, p.b_depth = signed_size(in.lanes), p.b_item = signed_size(in.stride());
    p.c = c.data(), p.c_row = signed_size(out.lanes), p.c_item = signed_size(out.stride());
    p.bias = o.bias ? offsets.data() : nullptr;
    p.accumulate = o.accumulate;
    if (o.epilogue)
      bench.backend.multiply(p, Shift());
    else
      bench.backend.multiply(p);
    return c.rows();
  });
  const Real size = std::sqrt(Real(depth)) + 1;
  bench.compare(result, expected, o.epilogue ? size * size : size);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("multiply: weights and panels, in all sizes", "[backend][conformance]", Cases) {
  Bench<TestType> bench;
  std::size_t turn = 0;
  for (const std::size_t rows : lengths)
    for (const std::size_t depth : lengths)
      for (int round = 0; round < 2; ++round, ++turn) {
        const bool odd = turn % 2 == 1;
        check_panels(bench, rows, depth, batches[turn % 10], {odd, !odd, false, turn % 3 == 0, turn % 4 < 2, 0});
        check_panels(bench, rows, depth, batches[(turn + 5) % 10], {odd, turn % 5 < 2, turn % 3 == 1, false, odd, 0});
      }
  for (const std::size_t batch : batches)
    for (const std::size_t rows : {7, 65})
      for (const bool transposed : {false, true})
        check_panels(bench, rows, 63, batch, {transposed, true, false, true, true, 0});
}

TEMPLATE_LIST_TEST_CASE("multiply: every combination of the options", "[backend][conformance]", Cases) {
  Bench<TestType> bench;
  for (const std::size_t batch : {1, 7, 100})
    for (unsigned bits = 0; bits < 32; ++bits)
      for (const std::size_t last_depth : {0, 5})
        check_panels(
            bench, 13, 21, batch,
            {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0, (bits & 16) != 0, last_depth});
}

TEMPLATE_LIST_TEST_CASE("multiply: a depth that takes several rounds", "[backend][conformance]", Cases) {
  Bench<TestType> bench;
  for (const std::size_t depth : {1025, 2049, 5000})
    for (const std::size_t batch : {1, 7, 65}) {
      check_panels(bench, 9, depth, batch, {false, true, false, true, true, 0});
      check_panels(bench, 9, depth, batch, {true, true, true, false, false, 0});
      check_panels(bench, 9, depth, batch, {true, true, true, true, false, depth - 500});
    }
}

TEMPLATE_LIST_TEST_CASE("multiply: segments, the sums over the samples of all panels", "[backend][conformance]",
                        Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  for (const std::size_t batch : batches)
    for (const std::size_t rows : {1, 7, 64, 65})
      for (const std::size_t columns : {1, 7, 64, 300})
        for (const bool accumulate : {false, true}) {
          INFO("batch " << batch << " rows " << rows << " columns " << columns << " accumulate " << accumulate);
          const auto seed = static_cast<unsigned>(batch + rows + columns);
          const std::vector<T> left = bench.random(batch * rows, seed), right = bench.random(batch * columns, seed + 1),
                               before = bench.random(rows * columns, seed + 2), bias = bench.random(rows, seed + 3);
          const auto a = bench.batch({batch, rows}, left);
          const auto b = bench.table(batch, columns, right);
          const auto offsets = bench.array(bias);
          Reals expected(rows * columns);
          for (std::size_t i = 0; i < expected.size(); ++i) {
            expected[i] = (accumulate ? Real(before[i]) : 0) + (accumulate ? Real(bias[i / columns]) : 0);
            for (std::size_t s = 0; s < batch; ++s)
              expected[i] += Real(left[s * rows + i / columns]) * Real(right[s * columns + i % columns]);
          }
          const auto result = bench.repeated([&] {
            const auto c = bench.table(rows, columns, before);
            const Panels<const T> in = a.in();
            backend::Product<T> p;
            p.rows = rows, p.columns = c.matrix().stride;
            p.segments = in.panels(), p.depth = in.lanes, p.last_depth = in.live(in.panels() - 1);
            p.a = in.data, p.a_row = signed_size(in.lanes), p.a_depth = 1, p.a_segment = signed_size(in.stride());
            p.b = b.data(), p.b_depth = b.stride(), p.b_segment = signed_size(in.lanes) * b.stride();
            p.c = c.data(), p.c_row = c.stride();
            p.accumulate = accumulate;
            p.bias = accumulate ? offsets.data() : nullptr;
            bench.backend.multiply(p);
            return c.values();
          });
          bench.compare(result, expected, std::sqrt(Real(batch)) + 1);
        }
}

TEMPLATE_LIST_TEST_CASE("multiply: many items, with operands of their own or shared", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  const std::size_t rows = 11, depth = 23, columns = 80;
  for (const std::size_t count : {1, 2, 17})
    for (const bool own_a : {false, true})
      for (const bool own_b : {false, true}) {
        INFO("count " << count << " own a " << own_a << " own b " << own_b);
        const std::size_t as = own_a ? count : 1, bs = own_b ? count : 1;
        const std::vector<T> left = bench.random(as * rows * depth, 1), right = bench.random(bs * depth * columns, 2);
        const auto a = bench.table(as * rows, depth, left);
        const auto b = bench.table(bs * depth, columns, right);
        Reals expected(count * rows * columns);
        for (std::size_t i = 0; i < expected.size(); ++i) {
          const std::size_t item = i / (rows * columns), r = i / columns % rows, c = i % columns;
          for (std::size_t k = 0; k < depth; ++k)
            expected[i] += Real(left[((own_a ? item : 0) * rows + r) * depth + k]) *
                           Real(right[((own_b ? item : 0) * depth + k) * columns + c]);
        }
        const auto result = bench.repeated([&] {
          const auto c = bench.table(count * rows, columns);
          backend::Product<T> p;
          p.count = count, p.rows = rows, p.depth = depth, p.columns = c.matrix().stride;
          p.a = a.data(), p.a_row = a.stride(), p.a_depth = 1;
          p.a_item = own_a ? signed_size(rows) * a.stride() : 0;
          p.b = b.data(), p.b_depth = b.stride(), p.b_item = own_b ? signed_size(depth) * b.stride() : 0;
          p.c = c.data(), p.c_row = c.stride(), p.c_item = signed_size(rows) * c.stride();
          bench.backend.multiply(p);
          return c.values();
        });
        bench.compare(result, expected, 6);
      }
}

}  // namespace test_backend_products
