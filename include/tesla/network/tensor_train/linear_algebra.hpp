// The linear algebra under tensor-train decompositions: QR by reflections, and the eigenvectors of a symmetric matrix.
// All in double, by the algorithms of Golub and Van Loan, Matrix Computations, 5.2 and 8.3. (Eigen has them too; a
// program that includes its solvers compiles for six seconds more.)
#pragma once

#include <tesla/core/error.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

namespace tesla::inline TESLA_TARGET::network::detail {

/// A row-major matrix of numbers.
struct Dense {
  std::size_t rows = 0, columns = 0;
  std::vector<double> values;

  Dense() = default;
  Dense(std::size_t r, std::size_t c) : rows(r), columns(c), values(r * c) {}
  double* row(std::size_t r) { return values.data() + r * columns; }
  const double* row(std::size_t r) const { return values.data() + r * columns; }
  double& operator()(std::size_t r, std::size_t c) { return values[r * columns + c]; }
  double operator()(std::size_t r, std::size_t c) const { return values[r * columns + c]; }

  Dense transposed() const {
    Dense result(columns, rows);
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < columns; ++c) result(c, r) = (*this)(r, c);
    return result;
  }
};

inline Dense identity(std::size_t n) {
  Dense result(n, n);
  for (std::size_t i = 0; i < n; ++i) result(i, i) = 1;
  return result;
}

/// In double whatever T is; sixteen sums at a time, which the compiler turns into vectors.
template <class T>
double dot(const T* a, const T* b, std::size_t n) {
  constexpr std::size_t lanes = 16;
  double sums[lanes] = {};
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (std::size_t k = 0; k < lanes; ++k) sums[k] += static_cast<double>(a[i + k]) * static_cast<double>(b[i + k]);
  for (; i < n; ++i) sums[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return std::accumulate(sums, sums + lanes, 0.0);
}

/// y += factor * x
template <class T>
void add_multiple(T* y, const T* x, T factor, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

/// The unit vector v for which x - 2 v (v . x) is a multiple of the first axis; returns that multiple. No reflection is
/// needed, and v becomes 0, where x is one already.
inline double reflection(const double* x, double* v, std::size_t n) {
  double largest = 0;
  for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  std::fill(v, v + n, 0.0);
  if (largest == 0) return 0;
  for (std::size_t i = 0; i < n; ++i) v[i] = x[i] / largest;  // so that squares neither overflow nor vanish
  const double length = std::sqrt(dot(v, v, n));
  const double target = v[0] > 0 ? -length : length;
  v[0] -= target;
  const double scale = std::sqrt(dot(v, v, n));
  for (std::size_t i = 0; i < n; ++i) v[i] /= scale;
  return target * largest;
}

/// A = Q R, by columns: q and r hold Q and R transposed. Q has min(rows, columns) orthonormal columns, whatever A's
/// rank.
struct OrthogonalFactors {
  Dense q, r;
};
inline OrthogonalFactors factor_qr(const Dense& a) {
  Dense columns = a.transposed();
  const std::size_t m = a.rows, n = a.columns, k = std::min(m, n);
  Dense reflections(k, m);
  OrthogonalFactors f{Dense(k, m), Dense(n, k)};
  for (std::size_t j = 0; j < k; ++j) {
    double* const v = reflections.row(j);
    const double target = reflection(columns.row(j) + j, v + j, m - j);
    for (std::size_t c = j + 1; c < n; ++c)
      add_multiple(columns.row(c) + j, v + j, -2 * dot(v + j, columns.row(c) + j, m - j), m - j);
    std::fill(columns.row(j) + j, columns.row(j) + m, 0.0);
    columns(j, j) = target;
  }
  for (std::size_t c = 0; c < n; ++c) std::copy(columns.row(c), columns.row(c) + k, f.r.row(c));
  for (std::size_t c = 0; c < k; ++c) {
    f.q(c, c) = 1;
    for (std::size_t j = k; j-- > 0;)
      add_multiple(f.q.row(c) + j, reflections.row(j) + j, -2 * dot(reflections.row(j) + j, f.q.row(c) + j, m - j),
                   m - j);
  }
  return f;
}

/// The eigenvalues of a symmetric matrix in descending order, and their eigenvectors as rows.
struct Spectrum {
  std::vector<double> values;
  Dense vectors;
};
inline Spectrum spectrum_of(Dense a) {
  const std::size_t n = a.rows;
  Spectrum s{std::vector<double>(n), identity(n)};
  std::vector<double> next_diagonal(n), v(n), w(n);
  Dense& q = s.vectors;

  // To three diagonals, by reflections from both sides; each is kept in the row that it cleared.
  for (std::size_t k = 0; k + 2 < n; ++k) {
    const std::size_t first = k + 1, m = n - first;
    next_diagonal[k] = reflection(a.row(k) + first, v.data(), m);
    for (std::size_t i = 0; i < m; ++i) w[i] = dot(a.row(first + i) + first, v.data(), m);
    add_multiple(w.data(), v.data(), -dot(v.data(), w.data(), m), m);
    for (std::size_t i = 0; i < m; ++i) {
      double* const row = a.row(first + i) + first;
      for (std::size_t j = 0; j < m; ++j) row[j] -= 2 * (v[i] * w[j] + w[i] * v[j]);
    }
    std::copy(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(m), a.row(k) + first);
  }
  if (n >= 2) next_diagonal[n - 2] = a(n - 2, n - 1);
  for (std::size_t i = 0; i < n; ++i) s.values[i] = a(i, i);
  for (std::size_t k = n < 2 ? 0 : n - 2; k-- > 0;)
    for (std::size_t i = k + 1; i < n; ++i) {
      double* const row = q.row(i) + k + 1;
      add_multiple(row, a.row(k) + k + 1, -2 * dot(row, a.row(k) + k + 1, n - k - 1), n - k - 1);
    }

  // To one diagonal, by implicit QR steps with Wilkinson's shift on the last block that is not diagonal yet.
  auto& d = s.values;
  auto& e = next_diagonal;
  const auto negligible = [&](std::size_t k) {
    return std::fabs(e[k]) <= std::numeric_limits<double>::epsilon() * (std::fabs(d[k]) + std::fabs(d[k + 1]));
  };
  for (std::size_t high = n == 0 ? 0 : n - 1, steps = 0; high > 0;) {
    if (negligible(high - 1)) {
      e[high - 1] = 0;
      --high, steps = 0;
      continue;
    }
    if (++steps > 100) raise<DataError>("the eigenvalues of a matrix of ", n, " x ", n, " were not found");
    std::size_t low = high - 1;
    while (low > 0 && !negligible(low - 1)) --low;
    const double half = (d[high - 1] - d[high]) / 2, beside = e[high - 1];
    const double shift = d[high] - beside * (beside / (half + std::copysign(std::hypot(half, beside), half)));
    double x = d[low] - shift, z = e[low];
    for (std::size_t k = low; k < high; ++k) {
      const double length = std::hypot(x, z), c = length == 0 ? 1 : x / length, sine = length == 0 ? 0 : z / length;
      if (k > low) e[k - 1] = length;
      const double above = d[k], below = d[k + 1], off = e[k];
      d[k] = c * c * above + 2 * c * sine * off + sine * sine * below;
      d[k + 1] = sine * sine * above - 2 * c * sine * off + c * c * below;
      e[k] = c * sine * (below - above) + (c * c - sine * sine) * off;
      if (k + 1 < high) {
        x = e[k];
        z = sine * e[k + 1];
        e[k + 1] *= c;
      }
      double *const upper = q.row(k), *const lower = q.row(k + 1);
      for (std::size_t i = 0; i < n; ++i) {
        const double u = upper[i], l = lower[i];
        upper[i] = c * u + sine * l;
        lower[i] = c * l - sine * u;
      }
    }
  }

  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return d[i] > d[j]; });
  Spectrum sorted{std::vector<double>(n), Dense(n, n)};
  for (std::size_t i = 0; i < n; ++i) {
    sorted.values[i] = d[order[i]];
    std::copy(q.row(order[i]), q.row(order[i]) + n, sorted.vectors.row(i));
  }
  return sorted;
}

}  // namespace tesla::inline TESLA_TARGET::network::detail
