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
  Shape max_ranks = {};      // the same for each place between two cores
  double tolerance = 0;      // of the Frobenius norm of the error, relative to that of the matrix
};

struct DecomposeOptions {
  Shape in, out;  // the modes of the columns and of the rows
  std::size_t max_rank = 0;
  Shape max_ranks = {};
  double tolerance = 0;
};

namespace detail {

/// The most that options allow between cores k and k + 1; 0: any number.
template <class Options>
std::size_t most_of(const Options& options, std::size_t k) {
  if (options.max_ranks.rank() == 0) return options.max_rank;
  return options.max_rank == 0 ? options.max_ranks[k] : std::min(options.max_rank, options.max_ranks[k]);
}
inline void check_ranks(const char* who, const Shape& ranks, std::size_t cores) {
  if (ranks.rank() == 0) return;
  if (ranks.rank() + 1 != cores)
    raise<ShapeError>(who, ": ", cores, " cores take ", cores - 1, " numbers in .max_ranks, not ", ranks);
  if (ranks.elements() == 0) raise<UsageError>(who, ": .max_ranks ", ranks, " have to be 1 or more each");
}

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

/// values[before][out][after][in] as a core.
template <class T, class Value>
Tensor<T> core_of(const Value* values, std::size_t before, std::size_t out, std::size_t in, std::size_t after) {
  Tensor<T> core({before, out, in, after});
  for (std::size_t o = 0; o < before * out; ++o)
    for (std::size_t i = 0; i < in; ++i)
      for (std::size_t r = 0; r < after; ++r)
        core[(o * in + i) * after + r] = static_cast<T>(values[(o * after + r) * in + i]);
  return core;
}

template <class T>
void check_finite(const Tensor<T>& w) {
  for (std::size_t i = 0; i < w.size(); ++i)
    if (!is_finite(w[i]))
      raise<DataError>("tt_svd: entry (", i / w.shape()[1], ", ", i % w.shape()[1], ") is ", w[i],
                       "; entries have to be finite");
}

/// A matrix while cores are cut off both of its ends. What is left of it is a matrix too, its rows numbered by (rank
/// after the cores on the left, modes of out, rank before the cores on the right) and its columns by modes of in.
template <class T>
class Remainder {
 public:
  Remainder(const Tensor<T>& w, const DecomposeOptions& options)
      : w_(w), options_(options), values_(w.data()), last_(options.out.rank() - 1), cores_(options.out.rank()) {}

  /// None where the numbers are so large or so small that their squares say nothing: scaled() helps.
  std::vector<Tensor<T>> cores() {
    while (first_ < last_ && !out_of_range_)
      if (!skip_trivial()) cut();
    if (out_of_range_) return {};
    if (!seen_) check_finite(w_);
    cores_[first_] = core_of<T>(values_, before_, options_.out[first_], options_.in[first_], after_);
    return std::move(cores_);
  }

 private:
  std::size_t left() const { return before_ * options_.out[first_] * options_.in[first_]; }
  std::size_t right() const { return after_ * options_.out[last_] * options_.in[last_]; }

  /// A core of one number.
  bool skip_trivial() {
    if (left() != 1 && right() != 1) return false;
    cores_[left() == 1 ? first_++ : last_--] = Tensor<T>({1, 1, 1, 1}, {T(1)});
    return true;
  }

  Ends ends(bool with_left, bool with_right) const {
    const Shape &out = options_.out, &in = options_.in;
    Ends e{.middle_out = before_ * after_};
    for (std::size_t k = first_; k <= last_; ++k) e.middle_out *= out[k], e.middle_in *= in[k];
    if (with_left) e.left_out = before_ * out[first_], e.left_in = in[first_];
    if (with_right) e.right_out = out[last_] * after_, e.right_in = in[last_];
    e.middle_out /= e.left_out * e.right_out, e.middle_in /= e.left_in * e.right_in;
    return e;
  }

  /// Cuts off the smaller end, for that is less work; or both, if both are so small that reading the matrix takes
  /// longer than computing. The bound of the error holds in any order, and for both at once: the two projections
  /// commute, and no projection makes other unfoldings harder to come near to.
  void cut() {
    constexpr std::size_t small = 32;
    const bool both = last_ - first_ > 1 && std::max(left(), right()) <= small;
    const bool with_left = both || left() <= right(), with_right = both || !with_left;
    const std::size_t most_left = most_of(options_, first_), most_right = most_of(options_, last_ - 1);
    const Ends e = ends(with_left, with_right);
    Spectra spectra =
        spectra_of(values_, e, most_left, most_right, error_of_a_cut(options_.tolerance, 1, cores_.size()));
    if (!seen_) see(spectra.squares);
    if (out_of_range_) return;
    Dense left_basis, right_basis;
    if (with_left) left_basis = principal(values_, ends(true, false), std::move(spectra.left), most_left, error_);
    if (with_right) right_basis = principal(values_, ends(false, true), std::move(spectra.right), most_right, error_);
    memory_ = project(values_, e, left_basis, right_basis);
    values_ = memory_.data();
    if (with_left) {
      cores_[first_] = core_of<T>(left_basis, before_, options_.out[first_], options_.in[first_]);
      before_ = left_basis.rows, ++first_;
    }
    if (with_right) {
      cores_[last_] =
          core_of<T>(right_basis.values.data(), right_basis.rows, options_.out[last_], options_.in[last_], after_);
      after_ = right_basis.rows, --last_;
    }
  }

  void see(double squares) {
    if (!is_finite(squares)) check_finite(w_);
    constexpr double edge = sizeof(T) == 4 ? 1e25 : 1e250;
    out_of_range_ = squares == 0 ? std::any_of(w_.begin(), w_.end(), [](T value) { return value != 0; })
                                 : !(squares > 1 / edge && squares < edge);
    error_ = error_of_a_cut(options_.tolerance, std::sqrt(squares), cores_.size());
    seen_ = true;
  }

  const Tensor<T>& w_;
  const DecomposeOptions& options_;
  const T* values_;
  Scratch<T> memory_;
  std::size_t first_ = 0, last_;        // of the modes that are left
  std::size_t before_ = 1, after_ = 1;  // ranks
  bool seen_ = false, out_of_range_ = false;
  double error_ = 0;
  std::vector<Tensor<T>> cores_;
};

}  // namespace detail

/// The tensor-train of a matrix {product of out, product of in}, cut to ranks, to a tolerance, or both (the ranks win).
/// The error is at most the tolerance, and for given ranks at most sqrt(d - 1) times the best there is (Oseledets 2011,
/// theorem 2.2). The matrix is read where it lies, or copied where its entries are so large or small that they have to
/// be scaled. Memory is taken for what is left after the first cut, never more than a copy of the matrix, and beside it
/// for what is left after the next.
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
  detail::check_ranks("tt_svd", options.max_ranks, d);
  std::vector<Tensor<T>> cores = detail::Remainder<T>(w, options).cores();
  if (cores.empty()) {
    const auto by_power = [](Tensor<T>& values, int power) {
      for (T& v : values) v = std::ldexp(v, power);
    };
    T largest(0);
    for (const T v : w) largest = std::max(largest, std::fabs(v));
    const int power = std::ilogb(largest);
    Tensor<T> scaled = w;
    by_power(scaled, -power);
    cores = detail::Remainder<T>(scaled, options).cores();
    by_power(cores[0], power);
  }
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
  detail::check_ranks("round", options.max_ranks, tt.size());
  for (std::size_t k = 0; k < tt.size(); ++k)
    for (const T value : tt.core(k))
      if (!is_finite(value)) raise<DataError>("round: core ", k, " holds a NaN or an infinity");
  std::vector<Tensor<T>> cores = orthogonalise(tt).cores();
  const double norm = std::sqrt(detail::dot(cores[0].data(), cores[0].data(), cores[0].size()));
  const double error = detail::error_of_a_cut(options.tolerance, norm, cores.size());
  for (std::size_t k = 0; k + 1 < cores.size(); ++k) {
    const Shape shape = cores[k].shape(), after = cores[k + 1].shape();
    const detail::Split<T> cut =
        detail::split(cores[k].data(), shape[0] * shape[1] * shape[2], shape[3], detail::most_of(options, k), error);
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
