// Sums and products of tensor-trains, without ever building the matrices. Ranks add up in sums and multiply in
// products; round() brings them down again.
#pragma once

#include <tesla/network/tensor_train/decompose.hpp>
#include <tesla/network/tensor_train/matrix.hpp>

#include <cmath>
#include <vector>

namespace tesla::inline TESLA_TARGET::network {

namespace detail {

template <class T>
void check_modes(const char* who, const TensorTrainMatrix<T>& a, const TensorTrainMatrix<T>& b) {
  if (!(a.out() == b.out() && a.in() == b.in()))
    raise<ShapeError>(who, ": the modes ", a.out(), " x ", a.in(), " and ", b.out(), " x ", b.in(), " differ");
}

}  // namespace detail

template <class T>
TensorTrainMatrix<T> scale(const TensorTrainMatrix<T>& tt, T factor) {
  std::vector<Tensor<T>> cores = tt.cores();
  for (T& value : cores[0]) value *= factor;
  return TensorTrainMatrix<T>(std::move(cores));
}

/// a + b: the ranks add up.
template <class T>
TensorTrainMatrix<T> add(const TensorTrainMatrix<T>& a, const TensorTrainMatrix<T>& b) {
  detail::check_modes("add", a, b);
  std::vector<Tensor<T>> cores;
  for (std::size_t k = 0; k < a.size(); ++k) {
    const Shape x = a.core(k).shape(), y = b.core(k).shape();
    const bool first = k == 0, last = k + 1 == a.size();
    const std::size_t modes = x[1] * x[2], before = first ? 1 : x[0] + y[0], after = last ? 1 : x[3] + y[3];
    Tensor<T> core({before, x[1], x[2], after});
    const auto put = [&](const Tensor<T>& from, std::size_t row, std::size_t column) {
      const Shape& s = from.shape();
      for (std::size_t r = 0; r < s[0]; ++r)
        for (std::size_t m = 0; m < modes; ++m)
          for (std::size_t q = 0; q < s[3]; ++q)
            core[((row + r) * modes + m) * after + column + q] += from[(r * modes + m) * s[3] + q];
    };
    put(a.core(k), 0, 0);
    put(b.core(k), first ? 0 : x[0], last ? 0 : x[3]);
    cores.push_back(std::move(core));
  }
  return TensorTrainMatrix<T>(std::move(cores));
}

/// The product entry by entry: the ranks multiply.
template <class T>
TensorTrainMatrix<T> hadamard(const TensorTrainMatrix<T>& a, const TensorTrainMatrix<T>& b) {
  detail::check_modes("hadamard", a, b);
  std::vector<Tensor<T>> cores;
  for (std::size_t k = 0; k < a.size(); ++k) {
    const Shape x = a.core(k).shape(), y = b.core(k).shape();
    const std::size_t modes = x[1] * x[2];
    Tensor<T> core({x[0] * y[0], x[1], x[2], x[3] * y[3]});
    for (std::size_t i = 0; i < x[0]; ++i)
      for (std::size_t j = 0; j < y[0]; ++j)
        for (std::size_t m = 0; m < modes; ++m)
          for (std::size_t p = 0; p < x[3]; ++p)
            for (std::size_t q = 0; q < y[3]; ++q)
              core[((i * y[0] + j) * modes + m) * x[3] * y[3] + p * y[3] + q] =
                  a.core(k)[(i * modes + m) * x[3] + p] * b.core(k)[(j * modes + m) * y[3] + q];
    cores.push_back(std::move(core));
  }
  return TensorTrainMatrix<T>(std::move(cores));
}

/// The product of matrices, a b: the ranks multiply.
template <class T>
TensorTrainMatrix<T> multiply(const TensorTrainMatrix<T>& a, const TensorTrainMatrix<T>& b) {
  if (!(a.in() == b.out()))
    raise<ShapeError>("multiply: the columns of the first, ", a.in(), ", are not the rows of the second, ", b.out());
  std::vector<Tensor<T>> cores;
  for (std::size_t k = 0; k < a.size(); ++k) {
    const Shape x = a.core(k).shape(), y = b.core(k).shape();
    Tensor<T> core({x[0] * y[0], x[1], y[2], x[3] * y[3]});
    for (std::size_t i = 0; i < x[0]; ++i)
      for (std::size_t j = 0; j < y[0]; ++j)
        for (std::size_t o = 0; o < x[1]; ++o)
          for (std::size_t c = 0; c < y[2]; ++c)
            for (std::size_t p = 0; p < x[3]; ++p)
              for (std::size_t q = 0; q < y[3]; ++q) {
                T sum(0);
                for (std::size_t m = 0; m < x[2]; ++m)
                  sum += a.core(k)[((i * x[1] + o) * x[2] + m) * x[3] + p] *
                         b.core(k)[((j * y[1] + m) * y[2] + c) * y[3] + q];
                core[((((i * y[0] + j) * x[1] + o) * y[2] + c) * x[3] + p) * y[3] + q] = sum;
              }
    cores.push_back(std::move(core));
  }
  return TensorTrainMatrix<T>(std::move(cores));
}

/// The sum of the products of all entries.
template <class T>
double dot(const TensorTrainMatrix<T>& a, const TensorTrainMatrix<T>& b) {
  detail::check_modes("dot", a, b);
  detail::Dense state(1, 1);
  state(0, 0) = 1;
  for (std::size_t k = 0; k < a.size(); ++k) {
    const Shape x = a.core(k).shape(), y = b.core(k).shape();
    const std::size_t modes = x[1] * x[2];
    detail::Dense next(x[3], y[3]);
    std::vector<double> half(y[3]);
    for (std::size_t i = 0; i < x[0]; ++i)
      for (std::size_t m = 0; m < modes; ++m) {
        std::fill(half.begin(), half.end(), 0.0);
        for (std::size_t j = 0; j < y[0]; ++j)
          for (std::size_t q = 0; q < y[3]; ++q)
            half[q] += state(i, j) * static_cast<double>(b.core(k)[(j * modes + m) * y[3] + q]);
        for (std::size_t p = 0; p < x[3]; ++p)
          detail::add_multiple(next.row(p), half.data(), static_cast<double>(a.core(k)[(i * modes + m) * x[3] + p]),
                               y[3]);
      }
    state = std::move(next);
  }
  return state(0, 0);
}

/// The Frobenius norm. Not the root of dot(tt, tt), which loses half of the digits of a small difference.
template <class T>
double norm(const TensorTrainMatrix<T>& tt) {
  const Tensor<T> first = orthogonalise(tt).core(0);
  return std::sqrt(detail::dot(first.data(), first.data(), first.size()));
}

}  // namespace tesla::inline TESLA_TARGET::network
