// The Gram matrices A A' of the unfoldings A at both ends of a matrix.
#pragma once

#include <tesla/core/parallel.hpp>
#include <tesla/network/tensor_train/unfolding.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

namespace tesla::inline TESLA_TARGET::network::detail {

/// Rows that lie `stride` apart, each of `parts` pieces of `length` that lie `step` apart.
struct Rows {
  std::size_t stride, parts, step, length;
};

/// The sum of a vector's elements.
template <class T>
double sum_of(const Vector<T>& v) {
  T elements[lanes<T>];
  std::memcpy(elements, &v, sizeof v);
  double sums[lanes<T>];
  for (std::size_t k = 0; k < lanes<T>; ++k) sums[k] = static_cast<double>(elements[k]);
#pragma GCC unroll 4
  for (std::size_t half = lanes<T> / 2; half > 0; half /= 2)
    for (std::size_t k = 0; k < half; ++k) sums[k] += sums[k + half];
  return sums[0];
}

/// to[i][j] += a's row i times b's row j, for a tile of each; where a is b, only for j <= i.
template <bool same, class T>
void add_products(const T* a, const T* b, const Rows& rows, double* to, std::size_t to_stride) {
  Vector<T> sums[tile][tile] = {};
  for (std::size_t part = 0; part < rows.parts; ++part)
    for (std::size_t k = part * rows.step, last = k + rows.length; k < last; k += lanes<T>) {
      Vector<T> right[tile];
#pragma GCC unroll 4
      for (std::size_t j = 0; j < tile; ++j) load(b + j * rows.stride + k, right[j]);
#pragma GCC unroll 4
      for (std::size_t i = 0; i < tile; ++i) {
        Vector<T> left = right[i];
        if constexpr (!same) load(a + i * rows.stride + k, left);
#pragma GCC unroll 4
        for (std::size_t j = 0; j < (same ? i + 1 : tile); ++j) sums[i][j] += left * right[j];
      }
    }
#pragma GCC unroll 4
  for (std::size_t i = 0; i < tile; ++i)
#pragma GCC unroll 4
    for (std::size_t j = 0; j < (same ? i + 1 : tile); ++j) to[i * to_stride + j] += sum_of<T>(sums[i][j]);
}

/// Adds the products of rows [begin, end) with themselves and those before, in whole tiles.
template <class P, class T>
void add_gram(const P* a, const Rows& rows, std::size_t begin, std::size_t end, Dense& sums, Ahead<T>& ahead) {
  for (std::size_t i = begin; i < std::min(end, sums.rows); i += tile) {
    const P* const row = a + i * rows.stride;
    for (std::size_t j = 0; j < i; j += tile) {
      ahead.step();
      add_products<false>(row, a + j * rows.stride, rows, sums.row(i) + j, sums.columns);
    }
    ahead.step();
    add_products<true>(row, row, rows, sums.row(i) + i, sums.columns);
  }
}

/// Takes out of a panel what lies in the known directions, given as rows, of the one end that it has.
template <class P>
void take_out(const Panel<P>& panel, const Dense& known) {
  const std::size_t n = panel.width;
  std::vector<double> sum(n);
  for (std::size_t d = 0; d < known.rows; ++d) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (std::size_t i = 0; i < known.columns; ++i)
      for (std::size_t k = 0; k < n; ++k) sum[k] += known(d, i) * static_cast<double>(panel.values[i * n + k]);
    for (std::size_t i = 0; i < known.columns; ++i)
      for (std::size_t k = 0; k < n; ++k) panel.values[i * n + k] -= static_cast<P>(known(d, i) * sum[k]);
  }
}

/// Empty for an end of size 1.
struct Grams {
  Dense left, right;
};

inline Dense mirrored(const Dense& lower, std::size_t size) {
  Dense whole(size, size);
  for (std::size_t i = 0; i < size; ++i)
    for (std::size_t j = 0; j <= i; ++j) whole(i, j) = whole(j, i) = lower(i, j);
  return whole;
}

/// The sums of those of the panels [begin, end) whose number is a multiple of `every`: of the left end, of the right
/// end, or of both, and of those the rows [first, last).
template <class P, class T>
void add_grams(const T* x, const Ends& e, const Panel<P>& panel, std::size_t begin, std::size_t end, std::size_t every,
               std::size_t first, std::size_t last, const Dense& known, Grams& sums) {
  const std::size_t width = panel.width, all = panel.right * width;
  const auto tiles = [](const Dense& sum) { return sum.rows / tile * (sum.rows / tile + 1) / 2; };
  for (std::size_t p = round_up(begin, every); p < end; p += every) {
    const std::size_t count = std::min(width, e.middle() - p * width), length = round_up(count, lanes<P>);
    fill(panel, x, e, p * width, count);
    if (known.rows > 0) take_out(panel, known);
    Ahead<T> ahead(x, e, (p + every) * width, width, tiles(sums.left) + tiles(sums.right));
    add_gram(panel.values.data(), {all, panel.right, width, length}, first, last, sums.left, ahead);
    add_gram(panel.values.data(), {width, panel.left, all, length}, first, last, sums.right, ahead);
  }
}

/// Up to some hundred products are summed in P, and such sums in double, in an order that the shape alone decides.
/// `known`: directions that are to be taken out first, where there is but one end. `every`: looks at only one of so
/// many panels.
template <class P, class T>
Grams grams(const T* x, const Ends& ends, const Dense& known = {}, std::size_t every = 1) {
  constexpr std::size_t most_pieces = 32, band = 120;  // 120: whole tiles
  const Ends e = ends.merged();
  const auto padded = [](std::size_t size) { return size == 1 ? 1 : round_up(size, tile); };
  const std::size_t left = padded(e.left()), right = padded(e.right()), rows = std::max(left, right);
  // Panels fit the first cache, or for many rows the second one.
  const Cut cut(e, rows <= 32 ? 8192 : 57344, lanes<P>);
  // Of few rows, groups of panels are summed independently; of many, bands of rows.
  const std::size_t worth = std::min(e.size() >> 14, e.size() / (4 * rows * rows));
  const std::size_t pieces = std::clamp<std::size_t>(worth, 1, std::min(most_pieces, cut.panels));
  const std::size_t bands = (rows + band - 1) / band;
  std::vector<Grams> parts(pieces);
  for (Grams& part : parts) {
    if (left > 1) part.left = Dense(left, left);
    if (right > 1) part.right = Dense(right, right);
  }
  const double cost = 0.05 * static_cast<double>(e.size() / every) * static_cast<double>(left + right);
  parallel_for(pieces * bands, cost / static_cast<double>(pieces * bands), [&](std::size_t begin, std::size_t end) {
    const Panel<P> panel(left, right, cut.width);
    for (std::size_t item = begin; item < end; ++item) {
      const std::size_t piece = item / bands, first = item % bands * band;
      add_grams(x, e, panel, cut.panels * piece / pieces, cut.panels * (piece + 1) / pieces, every, first, first + band,
                known, parts[piece]);
    }
  });
  Grams& sum = parts[0];
  for (std::size_t piece = 1; piece < pieces; ++piece) {
    add_multiple(sum.left.values.data(), parts[piece].left.values.data(), 1.0, sum.left.values.size());
    add_multiple(sum.right.values.data(), parts[piece].right.values.data(), 1.0, sum.right.values.size());
  }
  return {mirrored(sum.left, left > 1 ? e.left() : 0), mirrored(sum.right, right > 1 ? e.right() : 0)};
}

}  // namespace tesla::inline TESLA_TARGET::network::detail
