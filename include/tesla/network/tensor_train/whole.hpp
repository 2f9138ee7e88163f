// The whole matrix of a tensor-train, made from its cores on a backend, and the gradients of the cores from its own.
//
// States grow core by core: state k has a row for each pair of modes of the cores before the last one in it, and in a
// row [out][in][rank after] of that one, as the parameter of a core has. State 1 is the first core.
#pragma once

#include <tesla/backend/product.hpp>
#include <tesla/network/on_host.hpp>
#include <tesla/network/tensor_train/shape.hpp>
#include <tesla/tensor/panels.hpp>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace tesla::inline TESLA_TARGET::network {

class WholeMatrix {
 public:
  WholeMatrix() = default;
  [[gnu::cold]] explicit WholeMatrix(const TensorTrainShape& shape) : shape_(shape) {
    const std::size_t d = shape.size(), columns = shape.in.elements(), entries = columns * shape.out.elements();
    if (entries > ~std::uint32_t{0}) raise<ShapeError>("a matrix of ", entries, " entries is too large to be made");
    row_.resize(entries), column_.resize(entries);
    for (std::size_t e = 0; e < entries; ++e) {
      std::size_t rest = e, row = 0, column = 0, down = 1, along = 1;
      for (std::size_t k = d; k-- > 0;) {
        column += rest % shape.in[k] * along, along *= shape.in[k], rest /= shape.in[k];
        row += rest % shape.out[k] * down, down *= shape.out[k], rest /= shape.out[k];
      }
      row_[e] = static_cast<std::uint32_t>(row), column_[e] = static_cast<std::uint32_t>(column);
    }
  }

  /// Elements that the states after the first take, and those of their gradients with what these need besides.
  template <class T>
  std::size_t states() const {
    std::size_t size = 0;
    for (std::size_t k = 1; k < shape_.size(); ++k) size += rows(k) * stride<T>(k);
    return size;
  }
  template <class T>
  std::size_t gradients() const {
    std::size_t transposed = 0;
    for (std::size_t k = 1; k < shape_.size(); ++k)
      transposed = std::max(transposed, stride<T>(k) * round_up(shape_.rank(k), cache_line / sizeof(T)));
    return states<T>() + transposed;
  }
  /// Multiplications and additions that making the matrix takes.
  double multiply_adds() const {
    double total = 0;
    for (std::size_t k = 1; k < shape_.size(); ++k)
      total += static_cast<double>(rows(k) * shape_.rank(k) * shape_.core(k).elements() / shape_.rank(k));
    return total;
  }

  template <class T, class B>
  void make(B& backend, std::span<const backend::Matrix<T>> cores, const backend::Matrix<T>& w, T* states) const {
    const T* state = cores[0].data;
    std::size_t apart = cores[0].stride;
    for (std::size_t k = 1; k < shape_.size(); ++k) {
      backend::Product<T> p;
      const std::size_t rank = shape_.rank(k), each = rows(k) / rows(k - 1);
      p.count = rows(k - 1), p.rows = each, p.depth = rank, p.columns = stride<T>(k);
      p.a = state, p.a_row = signed_size(rank), p.a_depth = 1, p.a_item = signed_size(apart);
      p.b = cores[k].data, p.b_depth = signed_size(cores[k].stride);
      p.c = states, p.c_row = signed_size(stride<T>(k)), p.c_item = signed_size(each * stride<T>(k));
      backend.multiply(p);
      state = states, apart = stride<T>(k), states += rows(k) * stride<T>(k);
    }
    OnHost<T, B> from(backend, const_cast<T*>(state), last_rows() * apart, true);
    OnHost<T, B> to(backend, w.data, w.rows * w.stride, false);
    std::fill_n(to.data(), w.rows * w.stride, T(0));
    const std::size_t n = pairs();
    for (std::size_t r = 0, e = 0; r < last_rows(); ++r)
      for (std::size_t i = 0; i < n; ++i, ++e) to.data()[row_[e] * w.stride + column_[e]] = from.data()[r * apart + i];
    to.send(backend);
  }

  /// From the gradient by the matrix to those of the cores.
  template <class T, class B>
  void gradients(B& backend, std::span<const backend::Matrix<T>> cores, std::span<const backend::Matrix<T>> gradients,
                 const backend::Matrix<T>& dw, const T* states, T* scratch) const {
    const std::size_t d = shape_.size();
    std::array<const T*, Shape::max_rank> state{};
    std::array<T*, Shape::max_rank> up{};
    std::array<std::size_t, Shape::max_rank> apart{};
    state[0] = cores[0].data, up[0] = gradients[0].data, apart[0] = cores[0].stride;
    for (std::size_t k = 1, at = 0; k < d; at += rows(k) * stride<T>(k), ++k)
      state[k] = states + at, up[k] = scratch + at, apart[k] = stride<T>(k);
    T* const transposed = scratch + this->states<T>();
    {
      OnHost<T, B> from(backend, dw.data, dw.rows * dw.stride, true);
      OnHost<T, B> to(backend, up[d - 1], last_rows() * apart[d - 1], false);
      std::fill_n(to.data(), last_rows() * apart[d - 1], T(0));
      const std::size_t n = pairs();
      for (std::size_t r = 0, e = 0; r < last_rows(); ++r)
        for (std::size_t i = 0; i < n; ++i, ++e)
          to.data()[r * apart[d - 1] + i] = from.data()[row_[e] * dw.stride + column_[e]];
      to.send(backend);
    }
    for (std::size_t k = d - 1; k > 0; --k) {
      const std::size_t rank = shape_.rank(k), each = rows(k) / rows(k - 1);
      backend::Product<T> core;
      core.segments = rows(k - 1), core.rows = rank, core.depth = each, core.columns = apart[k];
      core.a = state[k - 1], core.a_row = 1, core.a_depth = signed_size(rank);
      core.a_segment = signed_size(apart[k - 1]);
      core.b = up[k], core.b_depth = signed_size(apart[k]), core.b_segment = signed_size(each * apart[k]);
      core.c = gradients[k].data, core.c_row = signed_size(gradients[k].stride);
      backend.multiply(core);
      // What the columns of a product read is contiguous, so the core is wanted the other way round.
      const std::size_t row = round_up(rank, cache_line / sizeof(T));
      backend.transpose(Panels<const T>{cores[k].data, rank, apart[k], apart[k]},
                        backend::Matrix<T>{transposed, apart[k], rank, row});
      backend.fill(up[k - 1], rows(k - 1) * apart[k - 1], T(0));
      backend::Product<T> before;
      before.count = rows(k - 1), before.rows = each, before.depth = apart[k], before.columns = rank;
      before.a = up[k], before.a_row = signed_size(apart[k]), before.a_depth = 1;
      before.a_item = signed_size(each * apart[k]);
      before.b = transposed, before.b_depth = signed_size(row);
      before.c = up[k - 1], before.c_row = signed_size(rank), before.c_item = signed_size(apart[k - 1]);
      backend.multiply(before);
    }
  }

 private:
  static std::ptrdiff_t signed_size(std::size_t n) { return static_cast<std::ptrdiff_t>(n); }
  /// Of state k + 1, which core k is the last in.
  std::size_t rows(std::size_t k) const {
    std::size_t product = 1;
    for (std::size_t i = 0; i < k; ++i) product *= shape_.in[i] * shape_.out[i];
    return product;
  }
  std::size_t last_rows() const { return rows(shape_.size() - 1); }
  std::size_t pairs() const { return shape_.in.back() * shape_.out.back(); }
  /// Of the rows of a core, which are a parameter's.
  template <class T>
  std::size_t stride(std::size_t k) const {
    const std::size_t columns = shape_.core(k).elements() / shape_.rank(k);
    return shape_.rank(k) == 1 ? round_up(columns, cache_line / sizeof(T)) : backend::row_stride<T>(columns);
  }

  TensorTrainShape shape_;
  std::vector<std::uint32_t> row_, column_;  // of the entries, in the order of the last state
};

}  // namespace tesla::inline TESLA_TARGET::network
