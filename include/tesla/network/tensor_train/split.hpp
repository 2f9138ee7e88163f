// The step that all decompositions are made of: the few directions of an unfolding that an error allows.
#pragma once

#include <tesla/core/math.hpp>
#include <tesla/core/memory.hpp>
#include <tesla/network/tensor_train/gram.hpp>
#include <tesla/network/tensor_train/linear_algebra.hpp>
#include <tesla/network/tensor_train/unfolding.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

namespace tesla::inline TESLA_TARGET::network::detail {

inline double sum_of_squares(const Spectrum& s) {
  double sum = 0;
  for (const double value : s.values) sum += std::max(value, 0.0);
  return sum;
}

/// The fewest of the largest eigenvalues without which the others' sum is at most `loss`.
inline std::size_t count_wanted(const Spectrum& s, double loss) {
  std::size_t wanted = s.values.size();
  for (double tail = 0; wanted > 0; --wanted) {
    tail += std::max(s.values[wanted - 1], 0.0);
    if (tail > loss) break;
  }
  return wanted;
}

/// Orthonormal rows that span what matters of the one end that `end` has, A being its unfolding: |A - Q' Q A| <= error
/// in the Frobenius norm with the fewest that do that, but at most `max_rank` (0: any number) and at least one.
///
/// They are eigenvectors of A A', whose spectrum is given. Squaring loses singular values below 1e-8 of the largest;
/// where they are asked for, what is left of A after the large ones is squared once more.
template <class T>
Dense principal(const T* x, const Ends& end, Spectrum s, std::size_t max_rank, double error) {
  constexpr double reliable = 1e-13;  // of the largest eigenvalue
  const std::size_t rows = s.values.size(), n = std::min(rows, end.middle());
  const std::size_t most = max_rank == 0 ? n : std::min(n, max_rank);
  // What projecting leaves of a matrix that the directions span.
  const double rounding =
      4 * std::sqrt(static_cast<double>(n)) * static_cast<double>(std::numeric_limits<T>::epsilon());
  error = std::max(error, rounding * std::sqrt(sum_of_squares(s)));
  Dense basis(0, rows);
  while (true) {
    // Of those that are wanted, the ones that are known well.
    const std::size_t wanted = count_wanted(s, error * error), had = basis.rows;
    std::size_t known = 0;
    while (known < wanted && s.values[known] > reliable * s.values[0]) ++known;
    const std::size_t take = std::min(known, most - had);
    if (take == 0) break;
    basis.rows += take;
    basis.values.insert(basis.values.end(), s.vectors.row(0), s.vectors.row(take));
    if (had > 0) basis = factor_qr(basis.transposed()).q;
    if (known == wanted || basis.rows == most) break;
    const Grams rest = grams<double>(x, end, basis);
    s = spectrum_of(rest.left.rows > 0 ? rest.left : rest.right);
  }
  if (basis.rows == 0) {  // A is zero, as far as anybody asks
    basis = Dense(1, rows);
    basis(0, 0) = 1;
  }
  return basis;
}

/// What the Gram matrices of both ends tell. If the sum of the squares is no number to compute with, the spectra are
/// empty.
struct Spectra {
  double squares = 0;
  Spectrum left, right;

  explicit Spectra(const Grams& grams) {
    const Dense& any = grams.left.rows > 0 ? grams.left : grams.right;
    for (std::size_t i = 0; i < any.rows; ++i) squares += any(i, i);
    if (squares == 0 || (squares > 1e-250 && squares < 1e250))
      left = spectrum_of(grams.left), right = spectrum_of(grams.right);
  }
};

/// Whether errors of 1e-6 of the squares change next to nothing: what is lost is far more than that, or nothing is.
inline bool insensitive(const Spectrum& s, double squares, std::size_t max_rank, double tolerance) {
  if (s.values.empty()) return true;
  std::size_t kept = count_wanted(s, tolerance * tolerance * squares);
  if (max_rank != 0) kept = std::min(kept, max_rank);
  const double lost = std::accumulate(s.values.begin() + static_cast<std::ptrdiff_t>(kept), s.values.end(), 0.0);
  return (kept < s.values.size() ? lost : s.values.back()) > 1e-3 * squares;
}

/// The spectra with sums in double; or, where that changes next to nothing, with sums in float, which is twice as fast.
/// A sample of the matrix tells beforehand whether that is worth a try.
template <class T>
Spectra spectra_of(const T* x, const Ends& e, std::size_t most_left, std::size_t most_right, double tolerance) {
  if constexpr (std::is_same_v<T, float>) {
    constexpr std::size_t large = std::size_t{1} << 22, one_of = 128;
    // Spectra of many rows take longer than sums of few columns.
    const bool long_sums = e.size() >= std::max(large, 512 * (e.left() * e.left() + e.right() * e.right()));
    const auto enough = [&](const Spectra& s) {
      return 1e-15 < s.squares && s.squares < 1e25 &&  // float holds the products
             insensitive(s.left, s.squares, most_left, tolerance) &&
             insensitive(s.right, s.squares, most_right, tolerance);
    };
    if (long_sums && enough(Spectra(grams<double>(x, e, {}, one_of))))
      if (Spectra quick(grams<float>(x, e)); enough(quick)) return quick;
  }
  return Spectra(grams<double>(x, e));
}

/// A matrix A as Q B.
template <class T>
struct Split {
  Dense basis;      // the columns of Q, as rows
  Scratch<T> rest;  // B, row-major, basis.rows x the columns of A
};

/// Splits the row-major A of `rows` x n, as `principal` does it.
template <class T>
Split<T> split(const T* a, std::size_t rows, std::size_t n, std::size_t max_rank, double error) {
  const Ends left{.left_out = rows, .middle_in = n}, right{.middle_in = rows, .right_in = n};
  Split<T> result;
  const auto directions = [&](const Ends& end) {
    if (end.left() == 1 && end.right() == 1) return identity(1);
    const Grams both = grams<double>(a, end);
    return principal(a, end, spectrum_of(end.left() > 1 ? both.left : both.right), max_rank, error);
  };
  if (rows <= n) {
    result.basis = directions(left);
  } else {
    const Dense across = directions(right);
    Dense columns(rows, across.rows);
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t r = 0; r < across.rows; ++r)
        for (std::size_t j = 0; j < n; ++j) columns(i, r) += static_cast<double>(a[i * n + j]) * across(r, j);
    result.basis = factor_qr(columns).q;
  }
  result.rest = project(a, left, result.basis, {});
  return result;
}

}  // namespace tesla::inline TESLA_TARGET::network::detail
