// The step that all decompositions are made of: a matrix A as Q B, Q with as few orthonormal columns as an error
// allows.
#pragma once

#include <tesla/core/memory.hpp>
#include <tesla/network/tensor_train/linear_algebra.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace tesla::inline TESLA_TARGET::network::detail {

template <class T>
struct Split {
  Dense basis;      // the columns of Q, as rows
  Scratch<T> rest;  // B, row-major, basis.rows x the columns of A
};

/// B = Q' A, for vectors in the rows of `basis`.
template <class T>
Scratch<T> project(const Dense& basis, const T* a, std::size_t n) {
  constexpr std::size_t run = 2048;
  Scratch<T> result(basis.rows * n);
  parallel_for((n + run - 1) / run, 0.2 * static_cast<double>(basis.values.size() * run),
               [&](std::size_t begin, std::size_t end) {
                 for (std::size_t at = begin * run; at < std::min(end * run, n); at += run)
                   for (std::size_t r = 0; r < basis.rows; ++r) {
                     T* const to = result.data() + r * n + at;
                     std::fill_n(to, std::min(run, n - at), T(0));
                     for (std::size_t i = 0; i < basis.columns; ++i)
                       add_multiple(to, a + i * n + at, static_cast<T>(basis(r, i)), std::min(run, n - at));
                   }
               });
  return result;
}

/// Splits the row-major A of `rows` x n, which is used up: |A - Q B| <= error in the Frobenius norm with the fewest
/// columns that do that, but at most `max_rank` (0: any number) and at least one.
///
/// Q spans eigenvectors of A A' (or A' A, whichever is smaller). Squaring loses singular values below 1e-8 of the
/// largest; where they are asked for, what is left of A after the large ones is squared once more.
template <class T>
Split<T> split(T* a, std::size_t rows, std::size_t n, std::size_t max_rank, double error) {
  constexpr double reliable = 1e-13;  // of the largest eigenvalue
  // What projecting leaves of a matrix that Q spans.
  const double rounding =
      4 * std::sqrt(static_cast<double>(std::min(rows, n))) * static_cast<double>(std::numeric_limits<T>::epsilon());
  const std::size_t most = std::min({rows, n, max_rank == 0 ? rows : max_rank});
  Split<T> result{Dense(0, rows), {}};
  bool first = true;
  while (result.basis.rows < most) {
    const bool wide = rows <= n;
    Spectrum s;
    if (wide) {
      s = spectrum_of(gram(a, rows, n));
    } else {
      std::vector<T> transposed(rows * n);
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < n; ++j) transposed[j * rows + i] = a[i * n + j];
      s = spectrum_of(gram(transposed.data(), n, rows));
    }
    if (first) {
      first = false;
      double squares = 0;
      for (const double value : s.values) squares += std::max(value, 0.0);
      error = std::max(error, rounding * std::sqrt(squares));
    }
    if (s.values[0] <= 0) break;

    // The fewest whose rest is small enough; of those, the ones that are known well.
    std::size_t wanted = s.values.size();
    for (double tail = 0; wanted > 0; --wanted) {
      tail += std::max(s.values[wanted - 1], 0.0);
      if (tail > error * error) break;
    }
    std::size_t known = 0;
    while (known < wanted && s.values[known] > reliable * s.values[0]) ++known;
    const std::size_t take = std::min(known, most - result.basis.rows);
    if (take == 0) break;

    Dense vectors(take, rows);
    for (std::size_t r = 0; r < take; ++r)
      if (wide)
        std::copy(s.vectors.row(r), s.vectors.row(r) + rows, vectors.row(r));
      else
        for (std::size_t i = 0; i < rows; ++i)
          for (std::size_t j = 0; j < n; ++j) vectors(r, i) += static_cast<double>(a[i * n + j]) * s.vectors(r, j);
    // Orthogonal to those found before, and exactly so among themselves.
    Dense all(result.basis.rows + take, rows);
    std::copy(result.basis.values.begin(), result.basis.values.end(), all.values.begin());
    std::copy(vectors.values.begin(), vectors.values.end(), all.row(result.basis.rows));
    const OrthogonalFactors factors = factor_qr(all.transposed());
    Dense fresh(take, rows);
    std::copy(factors.q.row(result.basis.rows), factors.q.row(result.basis.rows) + take * rows, fresh.values.begin());
    Scratch<T> projected = project(fresh, a, n);
    result.basis.values.insert(result.basis.values.end(), fresh.values.begin(), fresh.values.end());
    result.basis.rows += take;
    if (known == wanted && result.rest.size() == 0) {
      result.rest = std::move(projected);
      return result;
    }
    Scratch<T> both(result.rest.size() + projected.size());
    std::copy_n(result.rest.data(), result.rest.size(), both.data());
    std::copy_n(projected.data(), projected.size(), both.data() + result.rest.size());
    result.rest = std::move(both);
    if (known == wanted || result.basis.rows == most) return result;
    for (std::size_t r = 0; r < take; ++r)
      for (std::size_t i = 0; i < rows; ++i)
        add_multiple(a + i * n, projected.data() + r * n, static_cast<T>(-fresh(r, i)), n);
  }
  if (result.basis.rows == 0) {  // A is zero, as far as anybody asks
    result.basis = Dense(1, rows);
    result.basis(0, 0) = 1;
    result.rest = Scratch<T>(n);
    std::copy_n(a, n, result.rest.data());
  }
  return result;
}

}  // namespace tesla::inline TESLA_TARGET::network::detail
