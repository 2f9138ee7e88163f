// Sparse weights in other forms: as a pattern, in the order of the pattern, and as a dense matrix.
#pragma once

#include <tesla/backend/product.hpp>
#include <tesla/network/sparse/layout.hpp>

#include <utility>

namespace tesla::inline TESLA_TARGET::network::sparse {

/// Calls f(row, column, index of the value) for every weight, in the order of the values, but not for rows of a block
/// that lie below the matrix.
template <class F>
void each_weight(const SparseLayout& l, const F& f) {
  each_place(l, [&](std::size_t row, std::size_t column, std::size_t k) {
    for (std::size_t r = 0; r < l.block && row + r < l.rows; ++r) f(row + r, column, k * l.block + r);
  });
}

/// The pattern of a layout; and for each value its number in the pattern's order, row by row; the greatest number for
/// those that are none.
[[gnu::cold]] inline std::pair<Pattern, std::vector<std::uint32_t>> pattern_of(const SparseLayout& l) {
  struct Weight {
    std::uint32_t column, index;
  };
  std::vector<std::uint64_t> pointers(l.rows + 1);
  each_weight(l, [&](std::size_t row, std::size_t, std::size_t) { ++pointers[row + 1]; });
  for (std::size_t r = 0; r < l.rows; ++r) pointers[r + 1] += pointers[r];
  std::vector<Weight> weights(pointers.back());
  std::vector<std::uint64_t> next(pointers.begin(), pointers.end() - 1);
  each_weight(l, [&](std::size_t row, std::size_t column, std::size_t k) {
    weights[next[row]++] = {static_cast<std::uint32_t>(column), static_cast<std::uint32_t>(k)};
  });
  std::vector<std::uint32_t> indices(weights.size()), order(l.count, ~std::uint32_t{0});
  for (std::size_t r = 0; r < l.rows; ++r) {
    const auto at = [&](std::uint64_t k) { return weights.begin() + static_cast<std::ptrdiff_t>(k); };
    std::sort(at(pointers[r]), at(pointers[r + 1]),
              [](const Weight& a, const Weight& b) { return a.column < b.column; });
    for (std::uint64_t k = pointers[r]; k < pointers[r + 1]; ++k) {
      indices[k] = weights[k].column;
      order[weights[k].index] = static_cast<std::uint32_t>(k);
    }
  }
  return {Pattern(l.rows, l.columns, std::move(pointers), std::move(indices)), std::move(order)};
}

/// The values as a dense matrix, zero elsewhere.
template <class T>
void expand(const SparseLayout& l, const T* values, const backend::Matrix<T>& w) {
  std::fill_n(w.data, w.rows * w.stride, T(0));
  each_weight(l,
              [&](std::size_t row, std::size_t column, std::size_t k) { w.data[row * w.stride + column] = values[k]; });
}

/// The entries of a dense matrix where there are weights.
template <class T>
void collect(const SparseLayout& l, const backend::Matrix<T>& w, T* values) {
  std::fill_n(values, l.count, T(0));
  each_weight(l,
              [&](std::size_t row, std::size_t column, std::size_t k) { values[k] = w.data[row * w.stride + column]; });
}

}  // namespace tesla::inline TESLA_TARGET::network::sparse
