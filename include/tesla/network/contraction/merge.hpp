// Merging neighbouring cores into one, and handing the gradient of the merged core back to them.
#pragma once

#include <tesla/backend/contraction.hpp>
#include <tesla/core/parallel.hpp>
#include <tesla/network/tensor_train/shape.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace tesla::inline TESLA_TARGET::network::contraction {

using backend::CoreLayout;
using backend::Matrix;
using backend::Product;

/// Merges cores of one tensor-train, in memory of the host. The neighbours are joined in halves: a product of matrices,
/// (left, out_a, in_a) x rank times rank x (out_b, in_b, right), whose indices are then put in order.
template <class T>
class Merger {
 public:
  /// Core k as a matrix: rank before x (out, in, rank after), or (rank before, out, in) x rank after. `multiply`
  /// computes products of host memory.
  Merger(const TensorTrainShape& shape, std::span<const Matrix<T>> cores, void (*multiply)(const Product<T>&))
      : shape_(shape), cores_(cores), multiply_(multiply) {}

  /// Elements of scratch memory that merge() takes, and unmerge().
  [[gnu::cold]] std::size_t merge_scratch(std::size_t first, std::size_t last) const {
    if (last - first == 1) return 0;
    const Join j = join(first, last);
    return part_size(first, j.mid) + part_size(j.mid, last) + j.between * j.columns + j.rows * j.columns +
           std::max(merge_scratch(first, j.mid), merge_scratch(j.mid, last));
  }
  [[gnu::cold]] std::size_t unmerge_scratch(std::size_t first, std::size_t last) const {
    if (last - first == 1) return 0;
    const Join j = join(first, last);
    const std::size_t own = part_size(first, j.mid) + part_size(j.mid, last) + j.rows * j.columns +
                            j.between * j.columns + j.length * j.between_columns + j.rows * j.between_columns;
    return own + std::max({merge_scratch(first, j.mid), merge_scratch(j.mid, last), unmerge_scratch(first, j.mid),
                           unmerge_scratch(j.mid, last)});
  }

  /// Writes the merged core C[left][out][in][right] where `layout` says.
  [[gnu::noinline]] void merge(std::size_t first, std::size_t last, const CoreLayout& layout, T* to, T* scratch) const {
    if (last - first == 1) return move<false>(first, layout, to, cores_[first]);
    const Join j = join(first, last);
    const Part a = part(first, j.mid, scratch), b = part(j.mid, last, scratch);
    T *const factor = take(scratch, j.between * j.columns), *const product = take(scratch, j.rows * j.columns);
    for (std::size_t q = 0; q < j.between; ++q) {
      std::copy_n(b.data + q * b.stride, j.length, factor + q * j.columns);
      std::fill(factor + q * j.columns + j.length, factor + (q + 1) * j.columns, T(0));
    }
    Product<T> p;
    p.count = a.sizes.left, p.rows = j.rows / p.count, p.depth = j.between, p.columns = j.columns;
    p.a = a.data, p.a_row = i(a.row), p.a_depth = 1, p.a_item = i(a.stride);
    p.b = factor, p.b_depth = i(j.columns);
    p.c = product, p.c_row = i(j.columns), p.c_item = i(p.rows * j.columns);
    multiply_(p);
    each_piece(
        a, b, j, layout,
        [&](T* values, std::size_t place, std::size_t n) { copy(values, 1, to + place, layout.right, n); }, product);
  }

  /// From the gradient of the merged core, as `layout` has it, to those of the cores.
  [[gnu::noinline]] void unmerge(std::size_t first, std::size_t last, const CoreLayout& layout, const T* from,
                                 std::span<const Matrix<T>> gradients, T* scratch) const {
    if (last - first == 1) return move<true>(first, layout, const_cast<T*>(from), gradients[first]);
    const Join j = join(first, last);
    T *const product = take(scratch, j.rows * j.columns), *const db = take(scratch, j.between * j.columns),
             *const turned = take(scratch, j.length * j.between_columns),
             *const da = take(scratch, j.rows * j.between_columns);
    const Part a = part(first, j.mid, scratch), b = part(j.mid, last, scratch);
    if (j.columns != j.length)
      for (std::size_t r = 0; r < j.rows; ++r)
        std::fill(product + r * j.columns + j.length, product + (r + 1) * j.columns, T(0));
    each_piece(
        a, b, j, layout,
        [&](T* values, std::size_t place, std::size_t n) { copy(from + place, layout.right, values, 1, n); }, product);

    Product<T> p;  // db = a' product
    p.segments = a.sizes.left, p.rows = j.between, p.depth = j.rows / p.segments, p.columns = j.columns;
    p.a = a.data, p.a_row = 1, p.a_depth = i(a.row), p.a_segment = i(a.stride);
    p.b = product, p.b_depth = i(j.columns), p.b_segment = i(p.depth * j.columns);
    p.c = db, p.c_row = i(j.columns);
    multiply_(p);

    for (std::size_t k = 0; k < j.length; ++k)
      for (std::size_t q = 0; q < j.between_columns; ++q)
        turned[k * j.between_columns + q] = q < j.between ? b.data[q * b.stride + k] : T(0);
    p = {};  // da = product b'
    p.rows = j.rows, p.depth = j.length, p.columns = j.between_columns;
    p.a = product, p.a_row = i(j.columns), p.a_depth = 1;
    p.b = turned, p.b_depth = i(j.between_columns);
    p.c = da, p.c_row = i(j.between_columns);
    multiply_(p);

    const std::size_t rank = j.between_columns, step = a.sizes.in * rank;
    unmerge(first, j.mid, {a.sizes.out * step, a.sizes.out, 0, step, rank, 1}, da, gradients, scratch);
    unmerge(j.mid, last, {j.columns, b.sizes.out, 0, b.sizes.in * b.sizes.right, b.sizes.right, 1}, db, gradients,
            scratch);
  }

 private:
  struct Sizes {
    std::size_t left, out, in, right;
    std::size_t elements() const { return left * out * in * right; }
  };
  /// A core, or several merged: left x (out, in) x right, with the strides of the first two.
  struct Part {
    Sizes sizes;
    const T* data;
    std::size_t stride, row;
  };
  /// The product of two halves: rows x between times between x length. Columns fill whole cache lines.
  struct Join {
    std::size_t mid, rows, between, length, columns, between_columns;
  };

  static std::ptrdiff_t i(std::size_t n) { return static_cast<std::ptrdiff_t>(n); }
  static T* take(T*& scratch, std::size_t n) {
    T* const at = scratch;
    scratch += n;
    return at;
  }

  [[gnu::noinline]] Sizes sizes(std::size_t first, std::size_t last) const {
    Sizes s{shape_.rank(first), 1, 1, shape_.rank(last)};
    for (std::size_t k = first; k < last; ++k) s.out *= shape_.out[k], s.in *= shape_.in[k];
    return s;
  }
  [[gnu::noinline]] Join join(std::size_t first, std::size_t last) const {
    constexpr std::size_t line = cache_line / sizeof(T);
    Join j;
    j.mid = first + (last - first) / 2;
    const Sizes a = sizes(first, j.mid), b = sizes(j.mid, last);
    j.rows = a.left * a.out * a.in, j.between = a.right, j.length = b.out * b.in * b.right;
    j.columns = round_up(j.length, line), j.between_columns = round_up(j.between, line);
    return j;
  }
  /// From one rank before to the next, and from one value of (out, in).
  static std::size_t stride_of(const Matrix<T>& core, const Sizes& s) {
    return core.rows == s.left ? core.stride : s.out * s.in * core.stride;
  }
  static std::size_t row_of(const Matrix<T>& core, const Sizes& s) {
    return core.rows == s.left ? s.right : core.stride;
  }
  std::size_t part_size(std::size_t first, std::size_t last) const {
    return last - first == 1 ? 0 : sizes(first, last).elements();
  }
  [[gnu::noinline]] Part part(std::size_t first, std::size_t last, T*& scratch) const {
    const Sizes s = sizes(first, last);
    if (last - first == 1) {
      const Matrix<T>& m = cores_[first];
      return {s, m.data, stride_of(m, s), row_of(m, s)};
    }
    T* const own = take(scratch, s.elements());
    merge(first, last, {s.out * s.in * s.right, s.out, 0, s.in * s.right, s.right, 1}, own, scratch);
    return {s, own, s.out * s.in * s.right, s.right};
  }

  /// Between a single core and the layout of its step.
  template <bool ToCore>
  [[gnu::noinline]] void move(std::size_t k, const CoreLayout& layout, T* other, const Matrix<T>& core) const {
    const Sizes s = sizes(k, k + 1);
    const std::size_t row = row_of(core, s);
    // Whether the input index is contiguous with the last rank.
    const bool runs = layout.right == 1 && layout.in == s.right && row == s.right;
    const std::size_t run = runs ? s.in * s.right : s.right;
    for (std::size_t l = 0; l < s.left; ++l)
      for (std::size_t o = 0; o < s.out; ++o)
        for (std::size_t m = 0; m < (runs ? 1 : s.in); ++m) {
          T *const own = core.data + l * stride_of(core, s) + (o * s.in + m) * row, *const place =
                                                                                        other + layout.at(l, o, m, 0);
          if constexpr (ToCore)
            copy(place, layout.right, own, 1, run);
          else
            copy(own, 1, place, layout.right, run);
        }
  }

  /// Calls f(values, place, count) for all runs of the product of a and b whose values share all indices but the last,
  /// or whose input index is contiguous in the layout as well: `count` of them, from `place` of the layout on.
  template <class F>
  static void each_piece(const Part& a, const Part& b, const Join& j, const CoreLayout& layout, const F& f,
                         T* product) {
    const bool runs = layout.right == 1 && layout.in == b.sizes.right;
    const std::size_t run = runs ? b.sizes.in * b.sizes.right : b.sizes.right;
    parallel_for(j.rows, 0.3 * static_cast<double>(j.length), [&](std::size_t begin, std::size_t end) {
      for (std::size_t row = begin; row < end; ++row) {
        const std::size_t l = row / (a.sizes.out * a.sizes.in), o = row / a.sizes.in % a.sizes.out,
                          m = row % a.sizes.in;
        T* values = product + row * j.columns;
        for (std::size_t ob = 0; ob < b.sizes.out; ++ob)
          for (std::size_t ib = 0; ib < (runs ? 1 : b.sizes.in); ++ib, values += run)
            f(values, layout.at(l, o * b.sizes.out + ob, m * b.sizes.in + ib, 0), run);
      }
    });
  }

  static void copy(const T* from, std::size_t from_step, T* to, std::size_t to_step, std::size_t n) {
    if (from_step == 1 && to_step == 1)
      for (std::size_t k = 0; k < n; ++k) to[k] = from[k];
    else
      for (std::size_t k = 0; k < n; ++k) to[k * to_step] = from[k * from_step];
  }

  const TensorTrainShape& shape_;
  std::span<const Matrix<T>> cores_;
  void (*multiply_)(const Product<T>&);
};

}  // namespace tesla::inline TESLA_TARGET::network::contraction
