#if __has_include(<Eigen/Core>)
#include <tesla/tensor/eigen.hpp>

#include <catch2/catch.hpp>

using namespace tesla;

namespace {

/// Whether the view has the values of a matrix, and its memory.
template <class M>
void check(const M& matrix) {
  const ArrayView view = matrix;
  REQUIRE(view.shape() == Shape{static_cast<std::size_t>(matrix.rows()), static_cast<std::size_t>(matrix.cols())});
  CHECK(view.data() == matrix.data());
  for (Eigen::Index r = 0; r < matrix.rows(); ++r)
    for (Eigen::Index c = 0; c < matrix.cols(); ++c)
      REQUIRE(view.value(static_cast<std::size_t>(r), static_cast<std::size_t>(c)) ==
              static_cast<double>(matrix(r, c)));
}

template <class T>
using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

}  // namespace

TEST_CASE("Eigen: matrices and arrays in both orders", "[tensor][eigen]") {
  const Eigen::MatrixXf column_major = Eigen::MatrixXf::Random(7, 5);
  const RowMajor<double> row_major = RowMajor<double>::Random(7, 5);
  check(column_major);
  check(row_major);
  check(Eigen::ArrayXXf(column_major));
  check(Eigen::Matrix<float, 3, 4>(Eigen::Matrix<float, 3, 4>::Random()));
  check(Eigen::MatrixXi(Eigen::MatrixXi::Random(4, 4)));
  CHECK(ArrayView(row_major).contiguous_samples());
  CHECK_FALSE(ArrayView(column_major).contiguous_samples());
}

TEST_CASE("Eigen: blocks, transposes, maps and references", "[tensor][eigen]") {
  Eigen::MatrixXf column_major = Eigen::MatrixXf::Random(7, 5);
  RowMajor<double> row_major = RowMajor<double>::Random(7, 5);
  check(column_major.block(2, 1, 3, 4));
  check(row_major.block(2, 1, 3, 4));
  check(column_major.transpose());
  check(row_major.middleRows(1, 4));
  const Eigen::Ref<const Eigen::MatrixXf> reference = column_major;
  check(reference);
  std::vector<float> memory(40);
  for (std::size_t i = 0; i < 40; ++i) memory[i] = static_cast<float>(i);
  using Strided = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  check(Eigen::Map<const Eigen::MatrixXf>(memory.data(), 5, 8));
  check(Eigen::Map<const RowMajor<float>, 0, Strided>(memory.data(), 3, 4, Strided(12, 2)));
  check(Eigen::Map<const Eigen::MatrixXf, 0, Strided>(memory.data(), 3, 4, Strided(9, 2)));
}

TEST_CASE("Eigen: vectors have one extent", "[tensor][eigen]") {
  const Eigen::VectorXf vector = Eigen::VectorXf::Random(6);
  const Eigen::RowVectorXd row = Eigen::RowVectorXd::Random(6);
  RowMajor<float> matrix = RowMajor<float>::Random(4, 3);
  CHECK(ArrayView(vector).shape() == Shape{6});
  CHECK(ArrayView(row).shape() == Shape{6});
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(ArrayView(vector).value(i) == static_cast<double>(vector(static_cast<Eigen::Index>(i))));
    CHECK(ArrayView(row).value(i) == row(static_cast<Eigen::Index>(i)));
  }
  const auto column = matrix.col(1);
  const ArrayView of_column = column;
  CHECK(of_column.shape() == Shape{4});
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(of_column.value(i) == static_cast<double>(matrix(static_cast<Eigen::Index>(i), 1)));
}

TEST_CASE("Eigen: tensors as maps of their own memory", "[tensor][eigen]") {
  Tensor<float> t({2, 3}, {1, 2, 3, 4, 5, 6});
  auto map = as_eigen(t);
  CHECK(map.rows() == 2);
  CHECK(map.cols() == 3);
  CHECK(map(1, 0) == 4);
  map(0, 1) = 9;
  CHECK(t(0, 1) == 9);
  const Tensor<float> deep({2, 3, 4});
  CHECK(as_eigen(deep).rows() == 2);
  CHECK(as_eigen(deep).cols() == 12);
  const Tensor<float> scalar{Shape()};
  CHECK(as_eigen(scalar).size() == 1);
}
#endif
