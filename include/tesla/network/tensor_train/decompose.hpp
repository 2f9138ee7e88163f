// From a matrix to its tensor-train form, and from one tensor-train to a shorter one.
#pragma once

#include <tesla/core/math.hpp>
#include <tesla/core/memory.hpp>
#include <tesla/network/tensor_train/matrix.hpp>
#include <tesla/network/tensor_train/split.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace tesla::inline TESLA_TARGET::network {

struct RoundOptions {
  std::size_t max_rank = 0;  // 0: as many as the tolerance needs
  double tolerance = 0;      // of the Frobenius norm of the error, relative to that of the matrix
};

struct DecomposeOptions {
  Shape in, out;  // the modes of the columns and of the rows
  std::size_t max_rank = 0;
  double tolerance = 0;
};

namespace detail {

inline void check_tolerance(const char* who, double tolerance) {
  if (!(tolerance >= 0 && tolerance < 1))
    raise<UsageError>(who, ": .tolerance has to lie in [0, 1), 0 being as exact as the numbers are, not ", tolerance);
}

/// What each of the cuts of a tensor-train may lose, so that all of them lose no more than the tolerance.
inline double error_of_a_cut(double tolerance, double norm, std::size_t cores) {
  return cores < 2 ? 0 : tolerance * norm / std::sqrt(static_cast<double>(cores - 1));
}

/// The columns of `basis` as a core.
template <class T>
Tensor<T> core_of(const Dense& basis, std::size_t before, std::size_t out, std::size_t in) {
  Tensor<T> core({before, out, in, basis.rows});
  for (std::size_t i = 0; i < basis.columns; ++i)
    for (std::size_t r = 0; r < basis.rows; ++r) core[i * basis.rows + r] = static_cast<T>(basis(r, i));
  return core;
}

/// W[(o_1 .. o_d), (i_1 .. i_d)] as [(o_1, i_1)] .. [(o_d, i_d)].
template <class T>
Scratch<T> interleaved(const Tensor<T>& w, const Shape& out, const Shape& in) {
  const std::size_t d = out.rank(), columns = in.elements(), last_out = out[d - 1], last_in = in[d - 1];
  // Where the row and the column of the leading indices go.
  const auto places = [&](const Shape& modes, bool rows) {
    std::vector<std::size_t> result(modes.elements() / modes[d - 1]);
    for (std::size_t index = 0; index < result.size(); ++index) {
      std::size_t rest = index, stride = out[d - 1] * in[d - 1];
      for (std::size_t k = d - 1; k-- > 0;) {
        result[index] += rest % modes[k] * stride * (rows ? in[k] : 1);
        rest /= modes[k];
        stride *= out[k] * in[k];
      }
    }
    return result;
  };
  const std::vector<std::size_t> row_places = places(out, true), column_places = places(in, false);
  Scratch<T> result(w.size());
  parallel_for(row_places.size(), 0.5 * static_cast<double>(last_out * columns),
               [&](std::size_t begin, std::size_t end) {
                 for (std::size_t r = begin; r < end; ++r)
                   for (std::size_t c = 0; c < column_places.size(); ++c) {
                     T* const to = result.data() + row_places[r] + column_places[c];
                     for (std::size_t o = 0; o < last_out; ++o)
                       std::copy_n(w.data() + (r * last_out + o) * columns + c * last_in, last_in, to + o * last_in);
                   }
               });
  return result;
}

}  // namespace detail

/// The tensor-train of a matrix {product of out, product of in}, cut to ranks, to a tolerance, or both (the ranks win).
/// The error is at most the tolerance, and for given ranks at most sqrt(d - 1) times the best there is (Oseledets 2011,
/// theorem 2.2). One copy of the matrix is made.
template <class T>
TensorTrainMatrix<T> tt_svd(const Tensor<T>& w, const DecomposeOptions& options) {
  const Shape &out = options.out, &in = options.in;
  const std::size_t d = out.rank();
  if (d == 0 || d != in.rank())
    raise<ShapeError>("tt_svd: .out ", out, " and .in ", in, " need as many modes as each other, at least one");
  if (w.shape().rank() != 2 || w.shape()[0] != out.elements() || w.shape()[1] != in.elements() || w.size() == 0)
    raise<ShapeError>("tt_svd: a matrix of shape ", w.shape(), " is not one of .out ", out, " (", out.elements(),
                      " rows) and .in ", in, " (", in.elements(), " columns); factor_modes(size, ", d,
                      ") proposes modes");
  detail::check_tolerance("tt_svd", options.tolerance);
  const double norm = std::sqrt(detail::gram(w.data(), 1, w.size())(0, 0));
  if (!is_finite(norm)) {
    for (std::size_t i = 0; i < w.size(); ++i)
      if (!is_finite(w[i]))
        raise<DataError>("tt_svd: entry (", i / w.shape()[1], ", ", i % w.shape()[1], ") is ", w[i],
                         "; entries have to be finite");
    raise<DataError>("tt_svd: the squares of the entries overflow; scale the matrix first");
  }

  Scratch<T> rest = detail::interleaved(w, out, in);
  const double error = detail::error_of_a_cut(options.tolerance, norm, d);
  std::vector<Tensor<T>> cores;
  std::size_t rank = 1;
  for (std::size_t k = 0; k + 1 < d; ++k) {
    const std::size_t rows = rank * out[k] * in[k];
    detail::Split<T> cut = detail::split(rest.data(), rows, rest.size() / rows, options.max_rank, error);
    cores.push_back(detail::core_of<T>(cut.basis, rank, out[k], in[k]));
    rank = cut.basis.rows;
    rest = std::move(cut.rest);
  }
  Tensor<T> last({rank, out[d - 1], in[d - 1], 1});
  std::copy_n(rest.data(), rest.size(), last.data());
  cores.push_back(std::move(last));
  return TensorTrainMatrix<T>(std::move(cores));
}

/// The same matrix with all cores but the first having orthonormal rows (over out, in and the rank after): the norm of
/// the matrix is that of its first core.
template <class T>
TensorTrainMatrix<T> orthogonalise(const TensorTrainMatrix<T>& tt) {
  std::vector<Tensor<T>> cores = tt.cores();
  for (std::size_t k = cores.size(); k-- > 1;) {
    const Shape shape = cores[k].shape();
    detail::Dense a(shape[1] * shape[2] * shape[3], shape[0]);  // the core's rows as columns
    for (std::size_t r = 0; r < shape[0]; ++r)
      for (std::size_t i = 0; i < a.rows; ++i) a(i, r) = static_cast<double>(cores[k][r * a.rows + i]);
    const detail::OrthogonalFactors f = detail::factor_qr(a);
    const std::size_t rank = f.q.rows;
    Tensor<T> core({rank, shape[1], shape[2], shape[3]});
    for (std::size_t i = 0; i < core.size(); ++i) core[i] = static_cast<T>(f.q.values[i]);
    cores[k] = std::move(core);
    // The core before takes the rest: its last index times R'.
    const Shape before = cores[k - 1].shape();
    Tensor<T> next({before[0], before[1], before[2], rank});
    for (std::size_t i = 0; i < next.size() / rank; ++i)
      for (std::size_t q = 0; q < rank; ++q) {
        double sum = 0;
        for (std::size_t r = 0; r < shape[0]; ++r)
          sum += static_cast<double>(cores[k - 1][i * shape[0] + r]) * f.r(r, q);
        next[i * rank + q] = static_cast<T>(sum);
      }
    cores[k - 1] = std::move(next);
  }
  return TensorTrainMatrix<T>(std::move(cores));
}

/// A tensor-train of lower ranks near this one, by the same rules as tt_svd.
template <class T>
TensorTrainMatrix<T> round(const TensorTrainMatrix<T>& tt, const RoundOptions& options) {
  detail::check_tolerance("round", options.tolerance);
  for (std::size_t k = 0; k < tt.size(); ++k)
    for (const T value : tt.core(k))
      if (!is_finite(value)) raise<DataError>("round: core ", k, " holds a NaN or an infinity");
  std::vector<Tensor<T>> cores = orthogonalise(tt).cores();
  const double norm = std::sqrt(detail::dot(cores[0].data(), cores[0].data(), cores[0].size()));
  const double error = detail::error_of_a_cut(options.tolerance, norm, cores.size());
  for (std::size_t k = 0; k + 1 < cores.size(); ++k) {
    const Shape shape = cores[k].shape(), after = cores[k + 1].shape();
    const detail::Split<T> cut =
        detail::split(cores[k].data(), shape[0] * shape[1] * shape[2], shape[3], options.max_rank, error);
    const std::size_t rank = cut.basis.rows, run = after[1] * after[2] * after[3];
    cores[k] = detail::core_of<T>(cut.basis, shape[0], shape[1], shape[2]);
    Tensor<T> next({rank, after[1], after[2], after[3]});
    for (std::size_t r = 0; r < rank; ++r)
      for (std::size_t q = 0; q < shape[3]; ++q)
        detail::add_multiple(next.data() + r * run, cores[k + 1].data() + q * run, cut.rest[r * shape[3] + q], run);
    cores[k + 1] = std::move(next);
  }
  return TensorTrainMatrix<T>(std::move(cores));
}

}  // namespace tesla::inline TESLA_TARGET::network
