// A matrix in tensor-train form (Oseledets, "Tensor-Train Decomposition", SIAM J. Sci. Comput. 33, 2011; for matrices,
// Novikov et al. 2015).
//
//     W[(o_1 .. o_d), (i_1 .. i_d)] = G_1[o_1, i_1] G_2[o_2, i_2] ... G_d[o_d, i_d]
//
// Core k is an array {rank before, out_k, in_k, rank after}; for one pair of indices it is a matrix, and the product of
// these matrices is the entry. The first mode is the slowest, in rows and in columns.
#pragma once

#include <tesla/tensor/tensor.hpp>

#include <array>
#include <cstddef>
#include <vector>

namespace tesla::inline TESLA_TARGET::network {

template <class T>
class TensorTrainMatrix {
 public:
  TensorTrainMatrix() : TensorTrainMatrix({Tensor<T>({1, 1, 1, 1})}) {}
  /// From cores whose ranks fit.
  explicit TensorTrainMatrix(std::vector<Tensor<T>> cores) : cores_(std::move(cores)) {
    if (cores_.empty() || cores_.size() > Shape::max_rank)
      raise<ShapeError>("a tensor-train has 1 to ", Shape::max_rank, " cores, not ", cores_.size());
    std::size_t rank = 1;
    for (std::size_t k = 0; k < cores_.size(); ++k) {
      const Shape& shape = cores_[k].shape();
      if (shape.rank() != 4 || shape.elements() == 0)
        raise<ShapeError>("core ", k, " has shape ", shape, ", not {rank before, out, in, rank after}");
      if (shape[0] != rank)
        raise<ShapeError>("core ", k, " of shape ", shape, " begins with rank ", shape[0],
                          ", the cores before end with ", rank);
      rank = shape[3];
    }
    if (rank != 1) raise<ShapeError>("the last core, of shape ", cores_.back().shape(), ", has to end with rank 1");
    checked_product(checked_product(rows(), columns()), sizeof(T));
  }

  std::size_t size() const { return cores_.size(); }
  const std::vector<Tensor<T>>& cores() const { return cores_; }
  const Tensor<T>& core(std::size_t k) const { return cores_[k]; }

  /// The modes of the rows and of the columns.
  Shape out() const { return extents(1, cores_.size()); }
  Shape in() const { return extents(2, cores_.size()); }
  /// Between the cores: one fewer than there are cores.
  Shape ranks() const { return extents(3, cores_.size() - 1); }
  std::size_t rows() const { return out().elements(); }
  std::size_t columns() const { return in().elements(); }
  std::size_t count_parameters() const {
    std::size_t count = 0;
    for (const auto& core : cores_) count += core.size();
    return count;
  }

  T operator()(std::size_t row, std::size_t column) const {
    if (row >= rows() || column >= columns())
      raise<ShapeError>("entry (", row, ", ", column, ") of a matrix of ", rows(), " x ", columns());
    std::array<std::size_t, Shape::max_rank> o{}, i{};
    for (std::size_t k = cores_.size(); k-- > 0;) {
      const Shape& s = cores_[k].shape();
      o[k] = row % s[1], row /= s[1];
      i[k] = column % s[2], column /= s[2];
    }
    std::vector<T> state{T(1)}, next;
    for (std::size_t k = 0; k < cores_.size(); ++k) {
      const Shape& s = cores_[k].shape();
      next.assign(s[3], T(0));
      for (std::size_t r = 0; r < s[0]; ++r)
        for (std::size_t q = 0; q < s[3]; ++q)
          next[q] += state[r] * cores_[k][((r * s[1] + o[k]) * s[2] + i[k]) * s[3] + q];
      state.swap(next);
    }
    return state[0];
  }

  /// The matrix itself, {rows, columns}: the cores are merged from the first on.
  Tensor<T> to_dense() const {
    std::size_t rows = 1, columns = 1;
    Tensor<T> merged({1, 1, 1}, {T(1)});  // [rows so far][columns so far][rank]
    for (const Tensor<T>& core : cores_) {
      const std::size_t before = core.shape()[0], out = core.shape()[1], run = core.shape()[2] * core.shape()[3];
      Tensor<T> next({rows * out, columns * core.shape()[2], core.shape()[3]});
      for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t o = 0; o < out; ++o)
          for (std::size_t c = 0; c < columns; ++c) {
            T* const to = next.data() + ((r * out + o) * columns + c) * run;
            for (std::size_t q = 0; q < before; ++q) {
              const T factor = merged[(r * columns + c) * before + q];
              const T* const from = core.data() + (q * out + o) * run;
              for (std::size_t i = 0; i < run; ++i) to[i] += factor * from[i];
            }
          }
      rows *= out, columns *= core.shape()[2];
      merged = std::move(next);
    }
    return merged.reshaped({rows, columns});
  }

  /// W x for each row x of an array {samples, columns}: {samples, rows}. The layer has faster ways.
  Tensor<T> apply(const Tensor<T>& x) const {
    if (x.shape().rank() != 2 || x.shape()[1] != columns())
      raise<ShapeError>("apply: a matrix of ", rows(), " x ", columns(), " takes rows of ", columns(),
                        " values, not an array of shape ", x.shape());
    const std::size_t samples = x.shape()[0];
    // [sample][out done][rank][in to come]
    Tensor<T> state = x;
    std::size_t done = 1, rest = columns();
    for (const Tensor<T>& core : cores_) {
      const std::size_t before = core.shape()[0], out = core.shape()[1], in = core.shape()[2], after = core.shape()[3];
      rest /= in;
      Tensor<T> next({samples, done * out, after, rest});
      for (std::size_t s = 0; s < samples * done; ++s)
        for (std::size_t r = 0; r < before; ++r)
          for (std::size_t o = 0; o < out; ++o)
            for (std::size_t i = 0; i < in; ++i)
              for (std::size_t q = 0; q < after; ++q) {
                const T factor = core[((r * out + o) * in + i) * after + q];
                const T* const from = state.data() + ((s * before + r) * in + i) * rest;
                T* const to = next.data() + ((s * out + o) * after + q) * rest;
                for (std::size_t k = 0; k < rest; ++k) to[k] += factor * from[k];
              }
      done *= out;
      state = std::move(next);
    }
    return state.reshaped({samples, rows()});
  }

 private:
  Shape extents(std::size_t axis, std::size_t count) const {
    std::array<std::size_t, Shape::max_rank> result{};
    for (std::size_t k = 0; k < count; ++k) result[k] = cores_[k].shape()[axis];
    return Shape(std::span<const std::size_t>(result.data(), count));
  }

  std::vector<Tensor<T>> cores_;
};

}  // namespace tesla::inline TESLA_TARGET::network
