// Eigen's arrays go in as they are, in either storage order, and tensors come out as maps. One row is one sample.
#pragma once

#include <tesla/tensor/view.hpp>

#include <Eigen/Core>

namespace tesla::inline TESLA_TARGET {

/// Matrices, arrays, maps, references and blocks: whatever has its values in memory.
template <class X>
requires(std::derived_from<X, Eigen::DenseBase<X>> && (X::Flags & Eigen::DirectAccessBit) != 0) struct Borrow<X> {
  static ArrayView view(const X& x) {
    const auto rows = static_cast<std::size_t>(x.rows()), columns = static_cast<std::size_t>(x.cols());
    const std::ptrdiff_t row = X::IsRowMajor ? x.outerStride() : x.innerStride();
    const std::ptrdiff_t column = X::IsRowMajor ? x.innerStride() : x.outerStride();
    if constexpr (X::IsVectorAtCompileTime) return ArrayView(x.data(), {rows * columns}, {x.innerStride()});
    return ArrayView(x.data(), {rows, columns}, {row, column});
  }
};

template <class T>
using EigenMap = Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
template <class T>
using ConstEigenMap = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;

namespace detail {
inline Eigen::Index eigen_rows(const Shape& s) { return static_cast<Eigen::Index>(s.rank() == 0 ? 1 : s[0]); }
inline Eigen::Index eigen_columns(const Shape& s) { return static_cast<Eigen::Index>(s.tail().elements()); }
}  // namespace detail

/// The tensor's own memory as a matrix with one row a sample; it must outlive the map.
template <class T>
EigenMap<T> as_eigen(Tensor<T>& t) {
  return {t.data(), detail::eigen_rows(t.shape()), detail::eigen_columns(t.shape())};
}
template <class T>
ConstEigenMap<T> as_eigen(const Tensor<T>& t) {
  return {t.data(), detail::eigen_rows(t.shape()), detail::eigen_columns(t.shape())};
}
template <class T>
void as_eigen(Tensor<T>&&) = delete;  // the map would outlive its memory

}  // namespace tesla::inline TESLA_TARGET
