// Tensor-train matrices against the matrices they stand for, which Eigen computes with.
#include <tesla/network/tensor_train/algebra.hpp>
#include <tesla/network/tensor_train/modes.hpp>

#include <Eigen/Dense>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

namespace test_network_tensor_train {

using namespace tesla;
using namespace tesla::network;

namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
Matrix eigen(const Tensor<T>& t) {
  Matrix m(static_cast<Eigen::Index>(t.shape()[0]), static_cast<Eigen::Index>(t.shape()[1]));
  for (std::size_t i = 0; i < t.size(); ++i) m.data()[i] = static_cast<double>(t[i]);
  return m;
}

template <class T>
Tensor<T> normal(const Shape& shape, std::uint64_t seed) {
  Tensor<T> t(shape);
  random::fill_normal(t, {.seed = seed});
  return t;
}

/// Cores of normal numbers.
template <class T>
TensorTrainMatrix<T> random_train(const Shape& out, const Shape& in, std::size_t rank, std::uint64_t seed) {
  std::vector<Tensor<T>> cores;
  for (std::size_t k = 0; k < out.rank(); ++k)
    cores.push_back(normal<T>({k == 0 ? 1 : rank, out[k], in[k], k + 1 == out.rank() ? 1 : rank}, seed + k));
  return TensorTrainMatrix<T>(std::move(cores));
}

template <class T>
Tensor<T> flat(const Tensor<T>& t) {
  return t.reshaped({1, t.size()});
}

template <class T>
double relative_difference(const Tensor<T>& a, const Tensor<T>& b) {
  return (eigen(a) - eigen(b)).norm() / std::max(eigen(a).norm(), 1e-300);
}

/// The matrix with the modes (o_1, i_1) .. (o_k, i_k) as rows and the others as columns, entry by entry.
template <class T>
Matrix unfolding(const Tensor<T>& w, const Shape& out, const Shape& in, std::size_t cut) {
  std::size_t rows = 1, columns = 1;
  for (std::size_t k = 0; k < out.rank(); ++k) (k < cut ? rows : columns) *= out[k] * in[k];
  Matrix m(static_cast<Eigen::Index>(rows), static_cast<Eigen::Index>(columns));
  for (std::size_t r = 0; r < w.shape()[0]; ++r)
    for (std::size_t c = 0; c < w.shape()[1]; ++c) {
      std::size_t row = 0, column = 0, o_below = w.shape()[0], i_below = w.shape()[1];
      for (std::size_t k = 0; k < out.rank(); ++k) {
        o_below /= out[k], i_below /= in[k];
        std::size_t& index = k < cut ? row : column;
        index = (index * out[k] + r / o_below % out[k]) * in[k] + c / i_below % in[k];
      }
      m(static_cast<Eigen::Index>(row), static_cast<Eigen::Index>(column)) =
          static_cast<double>(w[r * w.shape()[1] + c]);
    }
  return m;
}

template <class T>
constexpr double rounding = 200 * static_cast<double>(std::numeric_limits<T>::epsilon());

struct Modes {
  Shape out, in;
};
const std::vector<Modes> all_modes = {{{5}, {7}},
                                      {{3, 4}, {5, 2}},
                                      {{6, 1}, {1, 7}},
                                      {{2, 3, 4}, {4, 3, 2}},
                                      {{2, 2, 3, 2}, {3, 2, 2, 2}},
                                      {{1, 1, 1}, {2, 3, 2}},
                                      {{8, 9}, {2, 2}},
                                      {{2, 2}, {9, 8}},
                                      {{1, 3, 1}, {1, 2, 1}},
                                      {{3, 1, 5}, {1, 4, 1}},
                                      {{9, 2, 11}, {5, 2, 1}},
                                      {{2, 3, 2, 2, 3}, {3, 1, 2, 2, 1}},
                                      {{2, 3, 2, 3}, {1, 1, 1, 1}},
                                      {{13, 11}, {10, 12}}};  // more rows than are multiplied at once

}  // namespace

TEMPLATE_TEST_CASE("tensor-train: an entry is the product of its slices, and the modes count as in the matrix",
                   "[network][tensor_train]", float, double) {
  using T = TestType;
  const auto tt = random_train<T>({2, 3, 2}, {3, 1, 2}, 2, 1);
  const Tensor<T> w = tt.to_dense();
  REQUIRE(w.shape() == Shape{12, 6});
  CHECK(tt.ranks() == Shape{2, 2});
  CHECK(tt.count_parameters() == 2 * 3 * 2 + 2 * 3 * 1 * 2 + 2 * 2 * 2);
  for (std::size_t r = 0; r < 12; ++r)
    for (std::size_t c = 0; c < 6; ++c) {
      const std::size_t o[] = {r / 6, r / 2 % 3, r % 2}, i[] = {c / 2, 0, c % 2};
      Eigen::MatrixXd product = Eigen::MatrixXd::Identity(1, 1);
      for (std::size_t k = 0; k < 3; ++k) {
        const Shape s = tt.core(k).shape();
        Eigen::MatrixXd slice(s[0], s[3]);
        for (std::size_t p = 0; p < s[0]; ++p)
          for (std::size_t q = 0; q < s[3]; ++q)
            slice(static_cast<Eigen::Index>(p), static_cast<Eigen::Index>(q)) =
                static_cast<double>(tt.core(k)(p, o[k], i[k], q));
        product = (product * slice).eval();
      }
      CHECK(static_cast<double>(w(r, c)) == Approx(product(0, 0)).epsilon(1e-5).margin(1e-6));
      CHECK(static_cast<double>(tt(r, c)) == Approx(product(0, 0)).epsilon(1e-5).margin(1e-6));
    }
}

TEMPLATE_TEST_CASE("tt_svd: without limits it is exact", "[network][tensor_train]", float, double) {
  using T = TestType;
  for (const Modes& m : all_modes) {
    INFO("out " << m.out << " in " << m.in);
    const auto w = normal<T>({m.out.elements(), m.in.elements()}, 3);
    const auto tt = tt_svd(w, {.in = m.in, .out = m.out});
    CHECK(tt.out() == m.out);
    CHECK(tt.in() == m.in);
    CHECK(relative_difference(w, tt.to_dense()) < rounding<T>);
  }
}

TEMPLATE_TEST_CASE("tt_svd: finds the ranks of a matrix that has them", "[network][tensor_train]", float, double) {
  using T = TestType;
  for (const std::size_t rank : {1, 2, 3}) {
    const auto tt = random_train<T>({4, 3, 4}, {3, 4, 4}, rank, 7);
    const auto found = tt_svd(tt.to_dense(), {.in = {3, 4, 4}, .out = {4, 3, 4}, .tolerance = 1e-5});
    CHECK(found.ranks() == Shape{rank, rank});
    CHECK(relative_difference(tt.to_dense(), found.to_dense()) < 2e-5);
  }
}

TEST_CASE("tt_svd: in double, parts far below the root of the precision are found", "[network][tensor_train]") {
  const Shape out{4, 4}, in{4, 4};
  const auto large = random_train<double>(out, in, 2, 11), small = random_train<double>(out, in, 3, 12);
  const auto sum = add(large, scale(small, 1e-10));
  const Tensor<double> w = sum.to_dense();
  const auto found = tt_svd(w, {.in = in, .out = out, .tolerance = 1e-14});
  CHECK(found.ranks() == Shape{5});
  CHECK(relative_difference(w, found.to_dense()) < 1e-14);
  CHECK(tt_svd(w, {.in = in, .out = out, .tolerance = 1e-8}).ranks() == Shape{2});
}

TEMPLATE_TEST_CASE("tt_svd and round: the error is within the bounds of Oseledets", "[network][tensor_train]", float,
                   double) {
  using T = TestType;
  for (const Modes& m : all_modes) {
    const std::size_t d = m.out.rank();
    const auto w = normal<T>({m.out.elements(), m.in.elements()}, 5);
    const auto exact = tt_svd(w, {.in = m.in, .out = m.out});
    const double norm_w = eigen(w).norm();
    for (const double tolerance : {0.01, 0.1, 0.3, 0.7}) {
      INFO("out " << m.out << " in " << m.in << " tolerance " << tolerance);
      for (const auto& tt :
           {tt_svd(w, {.in = m.in, .out = m.out, .tolerance = tolerance}), round(exact, {.tolerance = tolerance})})
        CHECK(relative_difference(w, tt.to_dense()) <= tolerance + rounding<T>);
    }
    for (const std::size_t rank : {1, 2, 4}) {
      // No train of these ranks is nearer than the best matrix of that rank at each cut; theorem 2.2 bounds from above.
      double squares = 0, least = 0;
      for (std::size_t cut = 1; cut < d; ++cut) {
        const Eigen::JacobiSVD<Matrix> svd(unfolding(w, m.out, m.in, cut));
        const auto& s = svd.singularValues();
        double tail = 0;
        for (auto i = static_cast<Eigen::Index>(rank); i < s.size(); ++i) tail += s[i] * s[i];
        squares += tail;
        least = std::max(least, std::sqrt(tail));
      }
      for (const auto& tt :
           {tt_svd(w, {.in = m.in, .out = m.out, .max_rank = rank}), round(exact, {.max_rank = rank})}) {
        INFO("out " << m.out << " in " << m.in << " rank " << rank << " found " << tt.ranks());
        for (const std::size_t r : tt.ranks()) CHECK(r <= rank);
        const double error = (eigen(w) - eigen(tt.to_dense())).norm();
        CHECK(error <= std::sqrt(squares) + rounding<T> * norm_w);
        CHECK(error >= least - rounding<T> * norm_w);
      }
    }
  }
}

TEMPLATE_TEST_CASE("orthogonalise: the matrix stays, all cores but the first have orthonormal rows",
                   "[network][tensor_train]", float, double) {
  using T = TestType;
  for (const std::size_t rank : {1, 3, 7}) {  // 7: more than the modes can have
    const auto tt = random_train<T>({2, 3, 2}, {2, 2, 3}, rank, 21);
    const auto result = orthogonalise(tt);
    CHECK(relative_difference(tt.to_dense(), result.to_dense()) < rounding<T>);
    for (std::size_t k = 1; k < 3; ++k) {
      const Tensor<T>& core = result.core(k);
      const Matrix rows = eigen(core.reshaped({core.shape()[0], core.size() / core.shape()[0]}));
      CHECK((rows * rows.transpose() - Matrix::Identity(rows.rows(), rows.rows())).norm() < rounding<T>);
    }
    CHECK(norm(tt) == Approx(eigen(tt.to_dense()).norm()).epsilon(rounding<T>));
  }
}

TEMPLATE_TEST_CASE("tensor-train algebra: as the matrices", "[network][tensor_train]", float, double) {
  using T = TestType;
  const Shape out{2, 3, 2}, in{3, 2, 2}, other{2, 2, 3};
  const auto a = random_train<T>(out, in, 3, 31), b = random_train<T>(out, in, 2, 41),
             c = random_train<T>(in, other, 2, 51);
  const Matrix da = eigen(a.to_dense()), db = eigen(b.to_dense()), dc = eigen(c.to_dense());
  const auto near = [](const TensorTrainMatrix<T>& tt, const Matrix& expected) {
    return (eigen(tt.to_dense()) - expected).norm() <= rounding<T> * expected.norm();
  };
  CHECK(near(add(a, b), da + db));
  CHECK(near(scale(a, T(-2.5)), -2.5 * da));
  CHECK(near(hadamard(a, b), da.cwiseProduct(db)));
  CHECK(near(multiply(a, c), da * dc));
  CHECK(dot(a, b) == Approx(da.cwiseProduct(db).sum()).epsilon(1e-4));
  CHECK(add(a, b).ranks() == Shape{5, 5});
  CHECK(multiply(a, c).ranks() == Shape{6, 6});
  CHECK(norm(add(a, scale(a, T(-1)))) <= rounding<T> * da.norm());
  const auto x = normal<T>({5, in.elements()}, 61);
  CHECK((eigen(a.apply(x)) - eigen(x) * da.transpose()).norm() <= rounding<T> * da.norm() * eigen(x).norm());
  CHECK(round(add(a, a), {.tolerance = 1e-5}).ranks() ==
        tt_svd(a.to_dense(), {.in = in, .out = out, .tolerance = 1e-5}).ranks());
}

// So large that the sums are first tried in float. Ranks of 3 below noise: with little of it, float sums don't do.
TEST_CASE("tt_svd: large matrices in float as in double, and the same bits from any number of threads",
          "[network][tensor_train]") {
  const Shape out{4, 4, 8, 4, 4}, in{2, 8, 8, 8, 2};
  const auto exact = random_train<double>(out, in, 3, 71).to_dense();
  const auto noise = normal<double>(exact.shape(), 81);
  const double size = eigen(exact).norm() / eigen(noise).norm();
  for (const double amount : {1.0, 1e-3}) {
    Tensor<double> w = exact;
    Tensor<float> single(w.shape());
    for (std::size_t i = 0; i < w.size(); ++i) {
      single[i] = static_cast<float>(w[i] + amount * size * noise[i]);
      w[i] = static_cast<double>(single[i]);
    }
    for (const auto& options : {DecomposeOptions{.in = in, .out = out, .max_rank = 3},
                                DecomposeOptions{.in = in, .out = out, .max_rank = 16, .tolerance = 0.3}}) {
      INFO("noise " << amount << " at most rank " << options.max_rank);
      const auto expected = tt_svd(w, options);
      const auto found = tt_svd(single, options);
      CHECK(found.ranks() == expected.ranks());
      CHECK(relative_difference(single, found.to_dense()) <=
            relative_difference(w, expected.to_dense()) + rounding<float>);
      for (const int count : {1, 2, 3}) {
        set_threads(count);
        const auto again = tt_svd(single, options);
        for (std::size_t k = 0; k < again.size(); ++k) CHECK(eigen(flat(again.core(k))) == eigen(flat(found.core(k))));
      }
      set_threads(0);
    }
  }
}

TEST_CASE("tt_svd: large matrices of huge and of tiny numbers, and with one that is none", "[network][tensor_train]") {
  const Shape out{4, 4, 8, 4, 4}, in{2, 8, 8, 8, 2};
  const auto w = normal<float>({out.elements(), in.elements()}, 91);
  const double error = relative_difference(w, tt_svd(w, {.in = in, .out = out, .max_rank = 4}).to_dense());
  for (const float scale : {1e-25f, 1e18f}) {
    Tensor<float> scaled = w;
    for (float& v : scaled) v *= scale;
    const auto tt = tt_svd(scaled, {.in = in, .out = out, .max_rank = 4});
    CHECK(relative_difference(scaled, tt.to_dense()) == Approx(error).epsilon(1e-5));
  }
  Tensor<float> broken = w;
  broken(1234, 567) = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH(tt_svd(broken, {.in = in, .out = out, .max_rank = 4}), Catch::Contains("entry (1234, 567)"));
}

TEMPLATE_TEST_CASE("tt_svd: small matrices at the ends of the range of their numbers", "[network][tensor_train]", float,
                   double) {
  const Shape in{5, 6}, out{4, 6};
  Tensor<TestType> w({24, 30});
  random::fill_normal(w, {.seed = 4});
  const int most = std::numeric_limits<TestType>::max_exponent - 4;
  for (const int power : {most, -most / 2, 8 - most, 20}) {
    Tensor<TestType> scaled = w;
    for (TestType& v : scaled) v = std::ldexp(v, power);
    Tensor<TestType> back = tt_svd(scaled, {.in = in, .out = out}).to_dense();
    double error = 0, whole = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      error += std::pow(static_cast<double>(std::ldexp(back[i], -power) - w[i]), 2);
      whole += std::pow(static_cast<double>(w[i]), 2);
    }
    REQUIRE(std::sqrt(error / whole) < (sizeof(TestType) == 4 ? 2e-5 : 1e-12));
  }
}

TEMPLATE_TEST_CASE("tt_svd and round: zero and rank-deficient matrices", "[network][tensor_train]", float, double) {
  using T = TestType;
  const Tensor<T> zero({12, 12});
  const auto tt = tt_svd(zero, {.in = {3, 4}, .out = {4, 3}, .tolerance = 0.1});
  CHECK(tt.ranks() == Shape{1});
  CHECK(eigen(tt.to_dense()).norm() == 0);
  CHECK(eigen(round(tt, {.max_rank = 3}).to_dense()).norm() == 0);
  CHECK(norm(tt) == 0);
  Tensor<T> ones({12, 12});
  std::fill(ones.begin(), ones.end(), T(3));
  CHECK(tt_svd(ones, {.in = {3, 4}, .out = {4, 3}}).ranks() == Shape{1});
  Tensor<T> huge = ones;
  for (T& v : huge) v *= static_cast<T>(1e15);
  CHECK(tt_svd(huge, {.in = {3, 4}, .out = {4, 3}}).ranks() == Shape{1});
  CHECK(relative_difference(huge, tt_svd(huge, {.in = {3, 4}, .out = {4, 3}}).to_dense()) < rounding<T>);
}

TEST_CASE("tensor-train: what does not fit is refused", "[network][tensor_train]") {
  const Tensor<float> w({12, 12});
  const auto matches = [](const std::string& text) { return Catch::Contains(text); };
  CHECK_THROWS_WITH(tt_svd(w, {.in = {3, 4}, .out = {4, 4}}), matches("{4, 4} (16 rows)"));
  CHECK_THROWS_AS(tt_svd(w, {.in = {3, 4}, .out = {12}}), ShapeError);
  CHECK_THROWS_AS(tt_svd(w, {}), ShapeError);
  CHECK_THROWS_AS(tt_svd(Tensor<float>({144}), {.in = {12}, .out = {12}}), ShapeError);
  for (const double tolerance : {-0.1, 1.0, std::numeric_limits<double>::quiet_NaN()})
    CHECK_THROWS_AS(tt_svd(w, {.in = {3, 4}, .out = {4, 3}, .tolerance = tolerance}), UsageError);
  Tensor<float> broken = w;
  broken(7, 5) = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(tt_svd(broken, {.in = {3, 4}, .out = {4, 3}}), matches("entry (7, 5)"));
  using Train = TensorTrainMatrix<float>;
  using Cores = std::vector<Tensor<float>>;
  CHECK_THROWS_AS(Train(Cores{}), ShapeError);
  CHECK_THROWS_AS(Train(Cores(9, Tensor<float>({1, 1, 1, 1}))), ShapeError);
  CHECK_THROWS_WITH(Train(Cores{Tensor<float>({1, 2, 3, 4}), Tensor<float>({5, 2, 3, 1})}), matches("core 1"));
  CHECK_THROWS_AS(Train(Cores{Tensor<float>({1, 2, 3, 4})}), ShapeError);
  CHECK_THROWS_AS(Train(Cores{Tensor<float>({2, 2, 3, 1})}), ShapeError);
  const auto a = random_train<float>({2, 3}, {3, 2}, 2, 1), b = random_train<float>({3, 2}, {3, 2}, 2, 1);
  CHECK_THROWS_AS(add(a, b), ShapeError);
  CHECK_THROWS_AS(hadamard(a, b), ShapeError);
  CHECK_THROWS_AS(dot(a, b), ShapeError);
  CHECK_THROWS_AS(multiply(a, a), ShapeError);
  CHECK_THROWS_AS(a.apply(Tensor<float>({2, 7})), ShapeError);
  CHECK_THROWS_AS(a(6, 0), ShapeError);
}

TEST_CASE("factor_modes: balanced, with padding only where a size has no good factors", "[network][tensor_train]") {
  CHECK(factor_modes(1024, 4).modes == Shape{4, 4, 8, 8});
  CHECK(factor_modes(784, 4).modes == Shape{4, 4, 7, 7});
  CHECK(factor_modes(784, 4).padding == 0);
  CHECK(factor_modes(625, 4).modes == Shape{5, 5, 5, 5});
  CHECK(factor_modes(1009, 2).modes == Shape{23, 44});
  CHECK(factor_modes(1009, 2).padding == 3);
  CHECK(factor_modes(1, 3).modes == Shape{1, 1, 1});
  for (std::size_t size = 1; size < 3000; size += 7)
    for (std::size_t count = 1; count <= 6; ++count) {
      const FactoredModes found = factor_modes(size, count);
      REQUIRE(found.modes.rank() == count);
      REQUIRE(found.modes.elements() == size + found.padding);
      REQUIRE(static_cast<double>(found.padding) <= 0.5 * static_cast<double>(size) + 1);
    }
  CHECK_THROWS_AS(factor_modes(0, 2), UsageError);
  CHECK_THROWS_AS(factor_modes(10, 0), UsageError);
  CHECK_THROWS_AS(factor_modes(10, 9), UsageError);
  CHECK_THROWS_AS(factor_modes(std::size_t{1} << 60, 2), UsageError);
}

}  // namespace test_network_tensor_train
