// Ranks lowered and raised: against the matrices, and against tt_svd's way of rounding.
#include <tesla/network/tensor_train/decompose.hpp>
#include <tesla/network/tensor_train/ranks.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

namespace test_network_ranks {

using namespace tesla;
using namespace tesla::network;

namespace {

using Cores = std::vector<Tensor<double>>;

Cores random_cores(const TensorTrainShape& shape, std::uint64_t seed) {
  Cores cores;
  for (std::size_t k = 0; k < shape.size(); ++k) {
    cores.emplace_back(shape.core(k));
    random::fill_normal(cores.back(), {.seed = seed + k});
  }
  return cores;
}

Tensor<double> dense(const Cores& cores) { return TensorTrainMatrix<double>(cores).to_dense(); }

const TensorTrainShape some{{4, 2, 3, 5}, {3, 4, 2, 5}, {6, 7, 5}};

}  // namespace

TEST_CASE("ranks: a cut is as good as its bound, and sizes keep their proportion", "[network]") {
  const Cores cores = random_cores(some, 1);
  const Balance balance(cores);
  const Tensor<double> w = dense(cores);
  double norm = 0;
  for (const double v : w) norm += v * v;
  REQUIRE(balance.squared_norm() == Approx(norm));
  for (const Shape& ranks : {Shape{6, 7, 5}, Shape{4, 5, 3}, Shape{2, 7, 5}, Shape{1, 1, 1}}) {
    const Cores cut = balance.cut(cores, ranks, Balance::Kind::value, balance.factors(cores, ranks));
    double bound = 0, proportion = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      // The singular values are those of the matrix, which rounding to this place's rank alone leaves out.
      std::array<std::size_t, 3> only{6, 7, 5};
      only[k] = ranks[k];
      const auto rounded = round(TensorTrainMatrix<double>(cores), {.max_ranks = Shape(only)});
      double tail = 0;
      for (std::size_t r = ranks[k]; r < balance.singular_values(k).size(); ++r)
        tail += std::pow(balance.singular_values(k)[r], 2);
      REQUIRE(relative_error(w, rounded.to_dense()) == Approx(std::sqrt(tail / norm)).margin(1e-7));
      bound += tail;
    }
    REQUIRE(relative_error(w, dense(cut)) <= std::sqrt(bound / norm) + 1e-12);
    for (std::size_t k = 0; k < cut.size(); ++k) {
      REQUIRE(cut[k].shape() == TensorTrainShape{some.in, some.out, ranks}.core(k));
      double before = 0, after = 0;
      for (const double v : cores[k]) before += v * v / static_cast<double>(cores[k].size());
      for (const double v : cut[k]) after += v * v / static_cast<double>(cut[k].size());
      if (k == 0) proportion = after / before;
      REQUIRE(after / before == Approx(proportion));
    }
  }
}

TEST_CASE("ranks: gradients follow the cut by the chain rule", "[network]") {
  // Moving the cut cores moves W; the gradient by them is that by the full cores, through the same maps.
  const Cores cores = random_cores(some, 2);
  const Balance balance(cores);
  const Shape ranks{3, 4, 2};
  const std::vector<double> factors = balance.factors(cores, ranks);
  const Cores cut = balance.cut(cores, ranks, Balance::Kind::value, factors);
  Tensor<double> dw({some.out.elements(), some.in.elements()});
  random::fill_normal(dw, {.seed = 9});
  const auto change = [&](Cores all, std::size_t k, const Tensor<double>& direction) {
    all[k] = direction;
    const Tensor<double> moved = dense(all);
    double sum = 0;
    for (std::size_t i = 0; i < moved.size(); ++i) sum += moved[i] * dw[i];
    return sum;
  };
  // The gradient by each number of the cut cores and of the full ones, entry by entry.
  const auto gradient = [&](const Cores& all) {
    Cores result;
    for (std::size_t k = 0; k < all.size(); ++k) {
      result.emplace_back(all[k].shape());
      for (std::size_t i = 0; i < all[k].size(); ++i) {
        Tensor<double> unit(all[k].shape());
        unit[i] = 1;
        result[k][i] = change(all, k, unit);
      }
    }
    return result;
  };
  // At ranks that lose nothing the two gradients are exactly each other's image.
  const Shape full{6, 7, 5};
  const std::vector<double> same = balance.factors(cores, full);
  const Cores turned = balance.cut(cores, full, Balance::Kind::value, same);
  const Cores expected = gradient(turned), found = balance.cut(gradient(cores), full, Balance::Kind::gradient, same);
  for (std::size_t k = 0; k < expected.size(); ++k)
    for (std::size_t i = 0; i < expected[k].size(); ++i) REQUIRE(found[k][i] == Approx(expected[k][i]).margin(1e-8));
  // Squares go by the squares of the maps: never negative.
  Cores squares = gradient(cores);
  for (auto& core : squares)
    for (double& v : core) v *= v;
  for (const auto& core : balance.cut(squares, ranks, Balance::Kind::squared_gradient, factors))
    for (const double v : core) REQUIRE(v >= 0);
  REQUIRE(cut[1].shape() == Shape{3, 4, 2, 4});
}

TEST_CASE("ranks: tolerances and budgets", "[network]") {
  const Cores cores = random_cores(some, 3);
  const Balance balance(cores);
  const Tensor<double> w = dense(cores);
  REQUIRE(balance.ranks_for(0) == Shape{6, 7, 5});
  for (const double tolerance : {0.05, 0.3, 0.7, 0.99}) {
    const Shape ranks = balance.ranks_for(tolerance);
    const Cores cut = balance.cut(cores, ranks, Balance::Kind::value, balance.factors(cores, ranks));
    REQUIRE(relative_error(w, dense(cut)) <= tolerance);
  }
  const Cores other = random_cores({{6, 6}, {6, 6}, {30}}, 4);
  const std::vector<TensorTrainShape> shapes{some, {{6, 6}, {6, 6}, {30}}};
  const std::vector<Balance> both{balance, Balance(other)};
  const std::size_t whole = shapes[0].count_parameters() + shapes[1].count_parameters();
  for (const std::size_t budget : {whole, whole / 2, whole / 5, std::size_t{150}}) {
    const auto found = shapes_within(shapes, both, budget);
    const std::size_t count = found[0].count_parameters() + found[1].count_parameters();
    CAPTURE(budget, count, found[0].ranks, found[1].ranks);
    REQUIRE(count <= budget);
    // No rank could be one higher within the budget.
    for (std::size_t t = 0; t < 2; ++t)
      for (std::size_t k = 0; k < found[t].ranks.rank(); ++k) {
        if (found[t].ranks[k] == shapes[t].ranks[k]) continue;
        std::array<std::size_t, 3> more{1, 1, 1};
        std::copy(found[t].ranks.begin(), found[t].ranks.end(), more.begin());
        ++more[k];
        const TensorTrainShape larger{found[t].in, found[t].out,
                                      Shape(std::span<const std::size_t>(more.data(), found[t].ranks.rank()))};
        REQUIRE(count - found[t].count_parameters() + larger.count_parameters() > budget);
      }
  }
  const auto least = shapes_within(shapes, both, 1);  // a budget that cannot be kept
  REQUIRE(least[0].ranks == Shape{1, 1, 1});
  REQUIRE(least[1].ranks == Shape{1});
}

TEST_CASE("ranks: matrices of low rank, and of none", "[network]") {
  Cores cores = random_cores(some, 5);
  // Directions that add nothing: two of place 1 are copies of others.
  for (std::size_t i = 0; i < cores[1].size() / 7; ++i)
    for (const std::size_t r : {5u, 6u}) cores[1][i * 7 + r] = cores[1][i * 7 + r - 5];
  const Balance balance(cores);
  REQUIRE(balance.known(1) == 5);
  const Shape ranks = balance.ranks_for(0);
  REQUIRE(ranks == Shape{6, 5, 5});
  REQUIRE(relative_error(dense(cores), dense(balance.cut(cores, ranks, Balance::Kind::value,
                                                         balance.factors(cores, ranks)))) < 1e-10);
  Cores zero = random_cores(some, 6);
  std::fill(zero[2].begin(), zero[2].end(), 0.0);
  const Balance nothing(zero);
  const Shape ones = nothing.ranks_for(0.1);
  REQUIRE(ones == Shape{1, 1, 1});
  for (const double v : dense(nothing.cut(zero, ones, Balance::Kind::value, nothing.factors(zero, ones))))
    REQUIRE(v == 0);
}

TEST_CASE("ranks: widening changes nothing, slicing takes it back", "[network]") {
  const Cores cores = random_cores(some, 7);
  const Cores wide = widened(cores, {8, 7, 9}, 1);
  REQUIRE(wide[0].shape() == Shape{1, 3, 4, 8});
  REQUIRE(wide[2].shape() == Shape{7, 2, 3, 9});
  REQUIRE(relative_error(dense(cores), dense(wide)) == 0);
  const Cores back = sliced(wide, {6, 7, 5});
  for (std::size_t k = 0; k < cores.size(); ++k) REQUIRE(relative_error(cores[k], back[k]) == 0);
  double new_directions = 0;
  for (std::size_t i = 0; i < wide[0].size() / 8; ++i) new_directions += std::abs(wide[0][i * 8 + 7]);
  REQUIRE(new_directions > 1);
  const Cores empty = widened(cores, {8, 7, 9}, 1, false);
  for (std::size_t i = 0; i < empty[0].size() / 8; ++i) REQUIRE(empty[0][i * 8 + 7] == 0);
}

}  // namespace test_network_ranks
