// The description of a matrix product, the one operation under dense, tensor-train, convolution and attention layers.
#pragma once

#include <tesla/core/memory.hpp>

#include <cstddef>

namespace tesla::inline TESLA_TARGET::backend {

/// For each of `count` items: C[r][:] = sum over segments s and depth k of A[s][r][k] * B[s][k][:], all by strides; the
/// columns of B and C are contiguous. A is read one element at a time (broadcast), so it may be transposed by its
/// strides; a stride of 0 from item to item shares an operand.
///
/// Any number of columns will do; a backend may be much faster where they fill whole vectors, as panels and padded rows
/// of parameters do, or where there is one.
///
/// Forward, input gradient and weight gradient of a dense layer are this with three sets of strides.
template <class T>
struct Product {
  std::size_t count = 1, rows = 0, depth = 0, columns = 0, segments = 1;
  std::size_t last_columns = 0;  // columns of the last item, when fewer; 0: as the others
  std::size_t last_depth = 0;    // depth of the last segment, when less; 0: as the others

  const T* a = nullptr;
  std::ptrdiff_t a_row = 0, a_depth = 0, a_item = 0, a_segment = 0;
  const T* b = nullptr;
  std::ptrdiff_t b_depth = 0, b_item = 0, b_segment = 0;
  T* c = nullptr;
  std::ptrdiff_t c_row = 0, c_item = 0;

  const T* bias = nullptr;  // added to every column, one value a row
  bool accumulate = false;  // C += instead of C =

  double multiply_adds() const {
    const auto d = [](std::size_t n) { return static_cast<double>(n); };
    return d(count) * d(rows) * d(depth) * d(columns) * d(segments);
  }
};

/// A matrix of parameters, rows padded to `stride` elements.
template <class T>
struct Matrix {
  T* data = nullptr;
  std::size_t rows = 0, columns = 0, stride = 0;

  T* row(std::size_t r) const { return data + r * stride; }
  explicit operator bool() const { return data != nullptr; }
};

/// Elements from one row of a parameter to the next: whole cache lines, an odd number of them, so that walking down a
/// column does not fall on the same cache sets over and over (the input gradient does that).
template <class T>
constexpr std::size_t row_stride(std::size_t columns) {
  constexpr std::size_t line = cache_line / sizeof(T);
  const std::size_t lines = (columns + line - 1) / line;
  return (lines % 2 == 0 ? lines + 1 : lines) * line;
}

}  // namespace tesla::inline TESLA_TARGET::backend
