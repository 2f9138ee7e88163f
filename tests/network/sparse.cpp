// Sparse weights: patterns, tiles, and the kernels against a dense matrix in double.
#include <tesla/backend/cpu/cpu.hpp>
#include <tesla/network/sparse/density.hpp>
#include <tesla/network/sparse/expand.hpp>
#include <tesla/network/sparse/plan.hpp>

#include <catch2/catch.hpp>
#include <set>

namespace test_network_sparse {

using namespace tesla;
using namespace tesla::network::sparse;
using tesla::sparse::Block;

namespace {

/// A pattern with rows and columns that have no weights, and some that have many.
Pattern uneven(std::size_t rows, std::size_t columns, double density, std::uint64_t seed, std::size_t block = 1) {
  Tensor<std::uint8_t> mask({rows, columns});
  const random::Stream random(seed);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c) {
      const std::size_t row = r / block;
      const double share = row % 5 == 1 || c % 7 == 2 ? 0 : row % 5 == 3 ? 1 : density;
      if (random.uniform(row * columns + c) < share) mask(r, c) = 1;
    }
  return Pattern::from_mask(mask);
}

/// Numbers in panels, between canaries: the lanes without a sample repeat the last one, as in a model.
template <class T>
struct Values {
  Values(std::size_t features, std::size_t batch, std::uint64_t seed)
      : lanes(backend::Cpu::lanes<T>(batch)), panels{nullptr, features, batch, lanes} {
    memory.assign(panels.size() + 2 * pad, std::numeric_limits<T>::quiet_NaN());
    panels.data = memory.data() + pad;
    const random::Stream random(seed);
    for (std::size_t p = 0; p < panels.panels(); ++p)
      for (std::size_t f = 0; f < features; ++f)
        for (std::size_t k = 0; k < lanes; ++k) {
          const std::size_t sample = std::min(p * lanes + k, batch - 1);
          panels.panel(p)[f * lanes + k] = static_cast<T>(2 * random.uniform(sample * features + f) - 1);
        }
  }
  bool canaries_live() const {
    for (std::size_t i = 0; i < pad; ++i)
      if (is_finite(memory[i]) || is_finite(memory[memory.size() - 1 - i])) return false;
    return true;
  }
  static constexpr std::size_t pad = 64;
  std::vector<T> memory;
  std::size_t lanes;
  Panels<T> panels;
};

template <class T>
void check_kernels(const Pattern& pattern, const Tiling& tiling, std::size_t batch) {
  INFO(pattern.rows() << " x " << pattern.columns() << ", tiles of " << tiling.rows << " x " << tiling.columns
                      << ", block " << tiling.block << ", batch " << batch);
  const SparseLayout l = layout_of(pattern, tiling);
  const std::size_t m = pattern.rows(), n = pattern.columns();
  std::vector<T> values(l.count), twin(l.count, std::numeric_limits<T>::quiet_NaN()), bias(m);
  std::vector<T> gradient(l.count + 8, std::numeric_limits<T>::quiet_NaN());
  const random::Stream random(99);
  std::vector<double> w(m * n);
  each_weight(l, [&](std::size_t r, std::size_t c, std::size_t k) {
    values[k] = static_cast<T>(2 * random.uniform(k) - 1);
    w[r * n + c] = static_cast<double>(values[k]);
  });
  for (std::size_t r = 0; r < m; ++r) bias[r] = static_cast<T>(random.uniform(1u << 20 | r));
  Values<T> x(n, batch, 1), y(m, batch, 2), dy(m, batch, 3), dx(n, batch, 4);
  std::fill(y.panels.data, y.panels.data + y.panels.size(), std::numeric_limits<T>::quiet_NaN());
  std::fill(dx.panels.data, dx.panels.data + dx.panels.size(), std::numeric_limits<T>::quiet_NaN());

  const backend::Cpu::Sparse<T> kernels(l);
  if (l.has_twin()) kernels.make_twin(values.data(), twin.data());
  const math::Relu f{};
  kernels.forward(l.has_twin() ? twin.data() : values.data(), x.panels, y.panels, bias.data(),
                  backend::Cpu::in_place<T>(f));
  kernels.backward(values.data(), x.panels, dy.panels, dx.panels, gradient.data());

  const double tolerance = std::is_same_v<T, float> ? 2e-5 : 1e-13;
  double worst = 0;
  for (std::size_t s = 0; s < batch; ++s) {
    for (std::size_t r = 0; r < m; ++r) {
      double sum = static_cast<double>(bias[r]);
      for (std::size_t c = 0; c < n; ++c) sum += w[r * n + c] * static_cast<double>(x.panels.at(s, c));
      worst = std::max(worst, std::fabs(std::max(sum, 0.0) - static_cast<double>(y.panels.at(s, r))));
      if (!is_finite(y.panels.at(s, r))) worst = 1;
    }
    for (std::size_t c = 0; c < n; ++c) {
      double sum = 0;
      for (std::size_t r = 0; r < m; ++r) sum += w[r * n + c] * static_cast<double>(dy.panels.at(s, r));
      worst = std::max(worst, std::fabs(sum - static_cast<double>(dx.panels.at(s, c))));
      if (!is_finite(dx.panels.at(s, c))) worst = 1;
    }
  }
  REQUIRE(worst < tolerance * std::sqrt(static_cast<double>(m + n)));
  each_weight(l, [&](std::size_t r, std::size_t c, std::size_t k) {
    double sum = 0;
    for (std::size_t s = 0; s < batch; ++s)
      sum += static_cast<double>(dy.panels.at(s, r)) * static_cast<double>(x.panels.at(s, c));
    worst = std::max(worst, std::fabs(sum - static_cast<double>(gradient[k])));
    if (!is_finite(gradient[k])) worst = 1;
  });
  REQUIRE(worst < tolerance * std::sqrt(static_cast<double>(m + n + batch)));
  for (std::size_t i = l.count; i < gradient.size(); ++i) REQUIRE(!is_finite(gradient[i]));
  for (const Values<T>* v : {&x, &y, &dy, &dx}) REQUIRE(v->canaries_live());

  // Without dx the gradients are the same.
  std::vector<T> again(l.count);
  kernels.backward(values.data(), x.panels, dy.panels, Panels<T>(), again.data());
  for (std::size_t k = 0; k < l.count; ++k)
    REQUIRE(static_cast<double>(again[k]) == Approx(static_cast<double>(gradient[k])).margin(tolerance));
}

}  // namespace

TEMPLATE_TEST_CASE("sparse: kernels against a dense matrix", "[network][sparse]", float, double) {
  for (const std::size_t batch : {1, 2, 7, 8, 15, 16, 17, 31, 33, 48, 63, 64, 65, 100, 128, 130})
    for (const std::size_t block : {1, 4}) {
      check_kernels<TestType>(uneven(37, 51, 0.3, batch, block), {16, 24, block, 8, 12}, batch);
      check_kernels<TestType>(uneven(64, 40, 0.1, batch, block), {64, 64, block, 32, 16}, batch);
      check_kernels<TestType>(uneven(5, 3, 0.5, batch, block), {8, 8, block, 4, 4}, batch);
    }
  for (const double density : {0.01, 0.1, 0.7}) {
    const Pattern p = Pattern::random(300, 200, {.density = density, .seed = 5});
    check_kernels<TestType>(p, tiling_for(300, 200, density, false), 70);
    const Pattern b = Pattern::random(302, 200, {.density = density, .block = {4, 1}, .seed = 5});
    check_kernels<TestType>(b, tiling_for(302, 200, density, true), 70);
  }
}

TEST_CASE("sparse: the same bits at any number of threads", "[network][sparse]") {
  for (const std::size_t block : {1, 4}) {
    const Pattern pattern = Pattern::random(512, 512, {.density = 0.1, .block = {block, 1}});
    const SparseLayout l = layout_of(pattern, tiling_for(512, 512, 0.1, block == 4));
    std::vector<float> first;
    for (const int count : {1, 2, 3, 4}) {
      set_threads(count);
      std::vector<float> values(l.count), twin(l.count), gradient(l.count), all;
      for (std::size_t k = 0; k < l.count; ++k) values[k] = static_cast<float>(k % 97) / 97 - 0.5F;
      Values<float> x(512, 130, 1), y(512, 130, 2), dy(512, 130, 3), dx(512, 130, 4);
      const backend::Cpu::Sparse<float> kernels(l);
      if (l.has_twin()) kernels.make_twin(values.data(), twin.data());
      kernels.forward(l.has_twin() ? twin.data() : values.data(), x.panels, y.panels, nullptr, {});
      kernels.backward(values.data(), x.panels, dy.panels, dx.panels, gradient.data());
      all.insert(all.end(), y.panels.data, y.panels.data + y.panels.size());
      all.insert(all.end(), dx.panels.data, dx.panels.data + dx.panels.size());
      all.insert(all.end(), gradient.begin(), gradient.end());
      if (first.empty()) first = all;
      REQUIRE(std::equal(first.begin(), first.end(), all.begin()));
    }
    set_threads(0);
  }
}

TEST_CASE("sparse: tiles and back", "[network][sparse]") {
  for (const std::size_t block : {1, 4})
    for (const auto& [rows, columns] : {std::pair{37, 51}, {1, 1}, {130, 9}, {9, 1000}}) {
      const auto m = static_cast<std::size_t>(rows), n = static_cast<std::size_t>(columns);
      const Pattern p = uneven(m, n, 0.2, 8, block);
      if (p.live() == 0) continue;
      for (const Tiling& tiling : {Tiling{16, 24, block, 8, 12}, tiling_for(m, n, p.density(), block == 4)}) {
        const auto [back, order] = pattern_of(layout_of(p, tiling));
        REQUIRE(back == p);
        std::set<std::uint32_t> seen;
        for (const std::uint32_t k : order)
          if (k != ~std::uint32_t{0}) REQUIRE((k < p.live() && seen.insert(k).second));
        REQUIRE(seen.size() == p.live());
      }
    }
}

TEST_CASE("sparse: no tile is beyond 16 bits", "[network][sparse]") {
  for (const double density : {1e-6, 0.001, 0.01, 0.1, 1.0})
    for (const std::size_t size : {1, 31, 100, 784, 1024, 30000, 100000})
      for (const bool blocks : {false, true}) {
        const Tiling t = tiling_for(size, 131072 / size + 1, density, blocks);
        REQUIRE((t.rows >= 1 && t.rows <= SparseLayout::max_tile && t.rows % t.group_rows == 0));
        REQUIRE((t.columns >= 1 && t.columns <= SparseLayout::max_tile && t.columns % t.group_columns == 0));
        REQUIRE((t.rows % t.block == 0 && t.group_rows % t.block == 0));
      }
}

TEST_CASE("sparse patterns: drawn at random", "[network][sparse]") {
  const Pattern p = Pattern::random(300, 784, {.density = 0.02, .seed = 7});
  REQUIRE(p.live() == 4704);
  for (std::size_t r = 0; r < 300; ++r) REQUIRE((p.row(r).size() == 15 || p.row(r).size() == 16));
  REQUIRE(p == Pattern::random(300, 784, {.density = 0.02, .seed = 7}));
  REQUIRE(!(p == Pattern::random(300, 784, {.density = 0.02, .seed = 8})));
  std::vector<int> columns(784);
  for (const std::uint32_t c : p.indices()) ++columns[c];
  REQUIRE(*std::max_element(columns.begin(), columns.end()) < 20);  // 6 in the mean

  const Pattern b = Pattern::random(102, 50, {.density = 0.1, .block = {4, 1}});
  REQUIRE(b.in_blocks({4, 1}));
  REQUIRE(b.in_blocks({2, 1}));
  REQUIRE(!b.in_blocks({1, 2}));
  REQUIRE(Pattern::random(100, 51, {.density = 0.2, .block = {3, 4}}).in_blocks({3, 4}));
  REQUIRE(Pattern::random(7, 9, {.density = 1}).live() == 63);
  REQUIRE(Pattern::random(7, 9, {.density = 1e-9}).live() == 1);
  REQUIRE(Pattern::from_mask(b.to_mask()) == b);
}

TEST_CASE("sparse patterns: N of M, densities over layers, a drawing", "[network][sparse]") {
  const Pattern p = Pattern::n_of_m(20, 30, 2, 4, 3);
  for (std::size_t r = 0; r < 20; ++r)
    for (std::size_t first = 0; first < 30; first += 4) {
      std::size_t live = 0;
      for (std::size_t c = first; c < std::min<std::size_t>(30, first + 4); ++c) live += p.contains(r, c) ? 1 : 0;
      REQUIRE(live == 2);
    }
  REQUIRE(Pattern::n_of_m(3, 5, 4, 4).live() == 15);
  REQUIRE_THROWS_WITH(Pattern::n_of_m(3, 5, 5, 4), Catch::Contains("1 to 4 of 4"));

  const std::vector<Shape> layers = {{300, 784}, {100, 300}, {10, 100}};
  for (const double density : {0.001, 0.02, 0.3, 0.9, 1.0}) {
    const std::vector<double> d = sparse::erdos_renyi(layers, density);
    double live = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      REQUIRE((d[i] > 0 && d[i] <= 1));
      live += d[i] * static_cast<double>(layers[i].elements());
    }
    REQUIRE(live == Approx(density * 266200));
    if (density < 0.05) REQUIRE(d[0] * 235200 / 1084 == Approx(d[1] * 30000 / 400));
  }
  REQUIRE(sparse::erdos_renyi({{8, 4, 3, 3}, {100, 100}}, 0.1)[0] > 0.1);
  REQUIRE_THROWS_AS(sparse::erdos_renyi({{8}}, 0.1), ShapeError);

  Tensor<float> mask({8, 8});
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t k = 0; k < 4; ++k) mask(i, k) = 1;
  REQUIRE(sparse::draw(Pattern::from_mask(mask), 4) == "@@  \n    \n");
}

TEST_CASE("sparse patterns: what is wrong is said", "[network][sparse][errors]") {
  using Catch::Contains;
  const auto make = [](std::vector<std::uint64_t> pointers, std::vector<std::uint32_t> indices) {
    return Pattern(2, 3, std::move(pointers), std::move(indices));
  };
  REQUIRE(make({0, 1, 3}, {2, 0, 1}).live() == 3);
  REQUIRE_THROWS_WITH(make({0, 3}, {0, 1, 2}), Contains("3 pointers") && Contains("not 2"));
  REQUIRE_THROWS_WITH(make({0, 1, 4}, {0, 1, 2}), Contains("from 0 to the 3 indices"));
  REQUIRE_THROWS_WITH(make({0, 4, 3}, {0, 1, 2}), Contains("ascend"));
  REQUIRE_THROWS_WITH(make({0, 1, 3}, {0, 1, 3}), Contains("row 1 has a weight in column 3, there are 3"));
  REQUIRE_THROWS_WITH(make({0, 1, 3}, {0, 1, 1}), Contains("row 1 has column 1 twice"));
  REQUIRE_THROWS_WITH(make({0, 1, 3}, {0, 2, 1}), Contains("in row 1, 1 follows 2"));
  for (const double density : {0.0, -0.1, 1.1, std::numeric_limits<double>::quiet_NaN()})
    REQUIRE_THROWS_WITH(Pattern::random(3, 3, {.density = density}), Contains(".density in (0, 1]"));
  REQUIRE_THROWS_AS(Pattern::random(3, 3, {.block = {0, 1}}), UsageError);
  REQUIRE_THROWS_AS(Pattern::random(0, 3, {}), ShapeError);
  REQUIRE_THROWS_AS(Pattern::from_mask(Tensor<float>({3})), ShapeError);
}

}  // namespace test_network_sparse
