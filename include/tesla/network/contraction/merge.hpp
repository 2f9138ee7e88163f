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

/// Merges cores of one tensor-train, in memory of the host. The neighbours are joined in halves, which makes the
/// products long.
template <class T>
class Merger {
 public:
  /// Core k as a matrix: rank before x (out, in, rank after).
  Merger(const TensorTrainShape& shape, std::span<const Matrix<T>> cores) : shape_(shape), cores_(cores) {}

  std::size_t elements(std::size_t first, std::size_t last) const { return sizes(first, last).elements(); }

  /// Elements of scratch memory that merge() takes, and unmerge().
  [[gnu::cold]] std::size_t merge_scratch(std::size_t first, std::size_t last) const {
    if (last - first == 1) return 0;
    const std::size_t mid = middle(first, last);
    return part_size(first, mid) + part_size(mid, last) + std::max(merge_scratch(first, mid), merge_scratch(mid, last));
  }
  [[gnu::cold]] std::size_t unmerge_scratch(std::size_t first, std::size_t last) const {
    if (last - first == 1) return 0;
    const std::size_t mid = middle(first, last);
    const std::size_t own = elements(first, last) + elements(first, mid) + elements(mid, last) + part_size(first, mid) +
                            part_size(mid, last);
    return own + std::max({merge_scratch(first, mid), merge_scratch(mid, last), unmerge_scratch(first, mid),
                           unmerge_scratch(mid, last)});
  }

  /// Writes the merged core C[left][out][in][right] where `layout` says.
  [[gnu::noinline]] void merge(std::size_t first, std::size_t last, const CoreLayout& layout, T* to, T* scratch) const {
    const Sizes s = sizes(first, last);
    if (last - first == 1) {
      const Matrix<T>& core = cores_[first];
      for (std::size_t l = 0; l < s.left; ++l)
        for (std::size_t o = 0; o < s.out; ++o)
          for (std::size_t i = 0; i < s.in; ++i)
            copy(core.row(l) + (o * s.in + i) * s.right, 1, to + layout.at(l, o, i, 0), layout.right, s.right);
      return;
    }
    const std::size_t mid = middle(first, last);
    const Part a = part(first, mid, scratch), b = part(mid, last, scratch);
    const std::size_t length = b.sizes.out * b.sizes.in * b.sizes.right;
    parallel_for(rows(a), 0.05 * static_cast<double>(length * (a.sizes.right + 4)),
                 [&](std::size_t begin, std::size_t end) {
                   T buffer[run];
                   for (std::size_t row = begin; row < end; ++row)
                     for (std::size_t at = 0; at < length; at += run) {
                       const std::size_t n = std::min(run, length - at);
                       combine(a.row(row), a.sizes.right, b.data + at, b.stride, buffer, n);
                       each_piece(a, b, row, at, n, layout, [&](std::size_t k, std::size_t place, std::size_t count) {
                         copy(buffer + k, 1, to + place, layout.right, count);
                       });
                     }
                 });
  }

  /// From the gradient of the merged core, as `layout` has it, to those of the cores.
  [[gnu::noinline]] void unmerge(std::size_t first, std::size_t last, const CoreLayout& layout, const T* from,
                                 std::span<const Matrix<T>> gradients, T* scratch) const {
    const Sizes s = sizes(first, last);
    if (last - first == 1) {
      const Matrix<T>& core = gradients[first];
      for (std::size_t l = 0; l < s.left; ++l)
        for (std::size_t o = 0; o < s.out; ++o)
          for (std::size_t i = 0; i < s.in; ++i)
            copy(from + layout.at(l, o, i, 0), layout.right, core.row(l) + (o * s.in + i) * s.right, 1, s.right);
      return;
    }
    const std::size_t mid = middle(first, last);
    T *const products = take(scratch, s.elements()), *const da = take(scratch, elements(first, mid)),
             *const db = take(scratch, elements(mid, last));
    const Part a = part(first, mid, scratch), b = part(mid, last, scratch);
    const std::size_t length = b.sizes.out * b.sizes.in * b.sizes.right, between = a.sizes.right, count = rows(a);
    parallel_for(count, 0.1 * static_cast<double>(length * between), [&](std::size_t begin, std::size_t end) {
      for (std::size_t row = begin; row < end; ++row) {
        T* const own = products + row * length;
        each_piece(a, b, row, 0, length, layout, [&](std::size_t k, std::size_t place, std::size_t n) {
          copy(from + place, layout.right, own + k, 1, n);
        });
        for (std::size_t q = 0; q < between; ++q) da[row * between + q] = dot(own, b.data + q * b.stride, length);
      }
    });
    // Columns in fixed blocks: each is one thread's.
    const std::size_t blocks = (length + run - 1) / run;
    parallel_for(blocks * between, 0.05 * static_cast<double>(count * std::min(run, length)),
                 [&](std::size_t begin, std::size_t end) {
                   for (std::size_t i = begin; i < end; ++i) {
                     const std::size_t q = i / blocks, at = i % blocks * run, n = std::min(run, length - at);
                     T sum[run] = {};
                     for (std::size_t row = 0; row < count; ++row) {
                       const T factor = a.row(row)[q];
                       const T* const own = products + row * length + at;
#pragma GCC ivdep
                       for (std::size_t k = 0; k < n; ++k) sum[k] += factor * own[k];
                     }
                     std::copy(sum, sum + n, db + q * length + at);
                   }
                 });
    unmerge(first, mid, contiguous(first, mid), da, gradients, scratch);
    unmerge(mid, last, contiguous(mid, last), db, gradients, scratch);
  }

 private:
  static constexpr std::size_t run = 256;  // values at a time

  struct Sizes {
    std::size_t left, out, in, right;
    std::size_t elements() const { return left * out * in * right; }
  };
  /// A core, or several merged: left x (out, in, right).
  struct Part {
    Sizes sizes;
    const T* data;
    std::size_t stride;
    /// Row (left, out, in), of `right` values.
    const T* row(std::size_t r) const {
      const std::size_t each = sizes.out * sizes.in;
      return data + r / each * stride + r % each * sizes.right;
    }
  };

  static std::size_t middle(std::size_t first, std::size_t last) { return first + (last - first) / 2; }
  static std::size_t rows(const Part& a) { return a.sizes.left * a.sizes.out * a.sizes.in; }
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
  CoreLayout contiguous(std::size_t first, std::size_t last) const {
    const Sizes s = sizes(first, last);
    return {s.out * s.in * s.right, s.out, 0, s.in * s.right, s.right, 1};
  }
  std::size_t part_size(std::size_t first, std::size_t last) const {
    return last - first == 1 ? 0 : elements(first, last);
  }
  [[gnu::noinline]] Part part(std::size_t first, std::size_t last, T*& scratch) const {
    const Sizes s = sizes(first, last);
    if (last - first == 1) return {s, cores_[first].data, cores_[first].stride};
    T* const own = take(scratch, s.elements());
    merge(first, last, contiguous(first, last), own, scratch);
    return {s, own, s.out * s.in * s.right};
  }

  /// Calls f(k, place, count) for values at + k, ... of row `row` of the product of a and b: `count` of them share all
  /// indices but the last, and begin at `place` of the layout.
  template <class F>
  static void each_piece(const Part& a, const Part& b, std::size_t row, std::size_t at, std::size_t n,
                         const CoreLayout& layout, const F& f) {
    const std::size_t l = row / (a.sizes.out * a.sizes.in), o = row / a.sizes.in % a.sizes.out, i = row % a.sizes.in;
    for (std::size_t k = 0; k < n;) {
      const std::size_t r = (at + k) % b.sizes.right, pair = (at + k) / b.sizes.right;
      std::size_t count = std::min(b.sizes.right - r, n - k);
      // Whole runs of the input index where they are contiguous.
      if (layout.right == 1 && layout.in == b.sizes.right && r == 0)
        count = std::min((b.sizes.in - pair % b.sizes.in) * b.sizes.right, n - k);
      f(k, layout.at(l, o * b.sizes.out + pair / b.sizes.in, i * b.sizes.in + pair % b.sizes.in, r), count);
      k += count;
    }
  }

  [[gnu::noinline]] static void copy(const T* from, std::size_t from_step, T* to, std::size_t to_step, std::size_t n) {
    if (from_step == 1 && to_step == 1)
      std::copy(from, from + n, to);
    else
      for (std::size_t k = 0; k < n; ++k) to[k * to_step] = from[k * from_step];
  }

  /// to[0, n) = the sum of factors[q] * rows[q][0, n).
  [[gnu::noinline]] static void combine(const T* factors, std::size_t count, const T* rows, std::size_t stride, T* to,
                                        std::size_t n) {
    std::fill(to, to + n, T(0));
    std::size_t q = 0;
    for (; q + 4 <= count; q += 4) {
      const T f0 = factors[q], f1 = factors[q + 1], f2 = factors[q + 2], f3 = factors[q + 3];
      const T *r0 = rows + q * stride, *r1 = r0 + stride, *r2 = r1 + stride, *r3 = r2 + stride;
#pragma GCC ivdep
      for (std::size_t k = 0; k < n; ++k) to[k] += f0 * r0[k] + f1 * r1[k] + f2 * r2[k] + f3 * r3[k];
    }
    for (; q < count; ++q) {
      const T factor = factors[q];
      const T* const row = rows + q * stride;
#pragma GCC ivdep
      for (std::size_t k = 0; k < n; ++k) to[k] += factor * row[k];
    }
  }

  [[gnu::noinline]] static T dot(const T* a, const T* b, std::size_t n) {
    constexpr std::size_t lanes = 16;
    T sums[lanes] = {};
    std::size_t k = 0;
    for (; k + lanes <= n; k += lanes)
      for (std::size_t v = 0; v < lanes; ++v) sums[v] += a[k + v] * b[k + v];
    for (; k < n; ++k) sums[k % lanes] += a[k] * b[k];
    for (std::size_t half = lanes / 2; half > 0; half /= 2)
      for (std::size_t v = 0; v < half; ++v) sums[v] += sums[v + half];
    return sums[0];
  }

  const TensorTrainShape& shape_;
  std::span<const Matrix<T>> cores_;
};

}  // namespace tesla::inline TESLA_TARGET::network::contraction
