// Contractions depth-first: for a strip of samples and a chunk of outputs, the steps are nested, so that the state
// between two of them is there only for one value of the modes still to come, and stays in the cache.
//
// With one sample there are no samples to be the lanes; the output index of the first step is, padded to vectors.
#pragma once

#include <tesla/backend/cpu/depth_first_layout.hpp>
#include <tesla/backend/cpu/elementwise.hpp>
#include <tesla/backend/cpu/small_product.hpp>
#include <tesla/core/parallel.hpp>
#include <tesla/tensor/panels.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <span>

namespace tesla::inline TESLA_TARGET::backend::cpu {

template <class T>
class DepthFirst : public DepthFirstLayout<T> {
 public:
  using DepthFirstLayout<T>::DepthFirstLayout;

  /// y = f(W x + bias); bias and kept may be null.
  template <class B>
  void forward(B&, std::span<const T* const> matrices, Panels<const T> x, Panels<T> y, const T* bias, InPlace<T> f,
               T* kept, std::span<T> scratch) const {
    const bool training = kept != nullptr;
    const std::size_t last = steps_ - 1;
    if (single_) {
      // One state for all threads, each of which makes it for some values of the last step's mode.
      Worker whole(*this, matrices, 0, 0, scratch.data() + fixed_size(training), training);
      whole.stored = kept;
      T* const before = whole.piece(last - 1, 0);
      run(whole_.in[last], plan_.multiply_adds(), training, scratch, [&](T* slot, std::size_t mode) {
        Worker worker(*this, matrices, 0, 0, slot, training);
        worker.stored = kept;
        worker.make(last, x.data, before, 0, mode, mode + 1);
      });
      whole.absorb(last, before, whole.result);
      return whole.finish(y, bias, f);
    }
    const std::size_t tasks = strips_ * chunks_;
    run(tasks, plan_.multiply_adds() * static_cast<double>(batch_), training, scratch, [&](T* slot, std::size_t task) {
      Worker worker(*this, matrices, task / chunks_, task % chunks_, slot, training);
      if (kept != nullptr) worker.stored = kept + task * stored_;
      worker.forward(last, x.data + worker.lane_offset(x), worker.result, 0);
      worker.finish(y, bias, f);
    });
  }

  /// Gradients of the matrices by that of y; and dx, unless it is null.
  template <class B>
  void backward(B&, std::span<const T* const> matrices, std::span<T* const> gradients, Panels<const T> x,
                Panels<const T> dy, Panels<T> dx, T* kept, std::span<T> scratch) const {
    T* const sums = scratch.data();
    const std::size_t size = gradients_size();
    T* const wide = single_ && dx ? widened(matrices[0], sums + groups_ * size) : nullptr;
    const std::size_t units = strips_ * ranges_;
    run(groups_, 2.5 * plan_.multiply_adds() * static_cast<double>(batch_), true, scratch,
        [&](T* slot, std::size_t group) {
          T* const own = sums + group * size;
          std::fill(own, own + size, T(0));
          for (std::size_t unit = units * group / groups_; unit < units * (group + 1) / groups_; ++unit) {
            const std::size_t strip = unit / ranges_, range = unit % ranges_, modes = whole_.in[steps_ - 1];
            for (std::size_t chunk = 0; chunk < chunks_; ++chunk) {
              Worker worker(*this, matrices, strip, chunk, slot, true);
              worker.stored = kept + (strip * chunks_ + chunk) * stored_;
              worker.sums = own, worker.wide = wide;
              worker.begin(dy);
              const std::size_t offset = worker.lane_offset(x);
              worker.backward(steps_ - 1, x.data + offset, dx ? dx.data + offset : nullptr, worker.result, 0,
                              modes * range / ranges_, modes * (range + 1) / ranges_);
            }
          }
        });
    // The groups' sums, in their order.
    std::size_t at = 0;
    for (std::size_t g = 0; g < steps_; ++g) {
      const T* const from = sums + at;
      T* const to = gradients[g];
      parallel_for(gradient_[g].size, static_cast<double>(groups_) * nanoseconds::value<T>,
                   [&](std::size_t begin, std::size_t end) {
                     std::copy(from + begin, from + end, to + begin);
                     for (std::size_t group = 1; group < groups_; ++group)
                       for (std::size_t i = begin; i < end; ++i) to[i] += from[group * size + i];
                   });
      at += gradient_[g].size;
    }
  }

 private:
  using Layout = DepthFirstLayout<T>;
  using Sizes = typename Layout::Sizes;
  using Gradient = typename Layout::Gradient;
  using Layout::batch_;
  using Layout::chunks_;
  using Layout::fixed_size;
  using Layout::gradient_;
  using Layout::gradients_size;
  using Layout::groups_;
  using Layout::padded_in;
  using Layout::padded_out;
  using Layout::plan_;
  using Layout::ranges_;
  using Layout::single_;
  using Layout::slot_size;
  using Layout::steps_;
  using Layout::stored_;
  using Layout::strips_;
  using Layout::transposed_columns;
  using Layout::w;
  using Layout::whole_;

  /// Calls body(slot, task) for all tasks, each slot being the memory of one thread.
  template <class Body>
  void run(std::size_t tasks, double multiply_adds, bool training, std::span<T> scratch, const Body& body) const {
    const std::size_t fixed = fixed_size(training), each = slot_size(training);
    const std::size_t slots = std::min<std::size_t>(
        {static_cast<std::size_t>(threads()), tasks, std::max<std::size_t>((scratch.size() - fixed) / each, 1)});
    std::atomic<std::size_t> next{0};
    parallel_for(slots, nanoseconds::multiply_add<T> * multiply_adds / static_cast<double>(slots),
                 [&](std::size_t begin, std::size_t end) {
                   for (std::size_t slot = begin; slot < end; ++slot)
                     for (std::size_t task; (task = next.fetch_add(1)) < tasks;)
                       body(scratch.data() + fixed + slot * each, task);
                 });
  }

  /// The first matrix for the gradient of a single sample: rows (after, out), the input index as lanes.
  T* widened(const T* matrix, T* to) const {
    const ContractionStep& s = plan_.step[0];
    const std::size_t in = padded_in(), out = padded_out();
    for (std::size_t a = 0; a < s.after(); ++a)
      for (std::size_t o = 0; o < s.out; ++o)
        for (std::size_t i = 0; i < in; ++i)
          to[(a * s.out + o) * in + i] = i < s.in ? matrix[(a * s.in + i) * out + o] : T(0);
    return to;
  }

  /// One strip of samples and one chunk of outputs.
  struct Worker {
    const DepthFirst& d;
    Sizes s;
    std::span<const T* const> matrices;
    std::size_t strip, chunk, live;
    std::array<T*, max_cores> state, gradient;
    T *result, *transposed, *wide_dx;
    T* stored = nullptr;
    T* sums = nullptr;
    const T* wide = nullptr;

    Worker(const DepthFirst& owner, std::span<const T* const> m, std::size_t strip_number, std::size_t chunk_number,
           T* slot, bool training)
        : d(owner), matrices(m), strip(strip_number), chunk(chunk_number) {
      const std::size_t first = strip / d.strips_per_panel_ * d.lanes_ + strip % d.strips_per_panel_ * d.strip_;
      live = std::min(d.strip_, d.batch_ - first);
      s = live == d.strip_ || d.single_ ? d.whole_ : d.shape(round_up(live, w));
      result = slot, slot += d.result_size();
      for (std::size_t g = 0; g + 1 < d.steps_; ++g) {
        state[g] = slot, slot += d.piece_[g];
        if (training) gradient[g] = slot, slot += d.piece_[g];
      }
      transposed = slot, wide_dx = slot + (training ? d.transposed_size() : 0);
    }

    template <class P>
    std::size_t lane_offset(const P& p) const {
      return strip / d.strips_per_panel_ * p.stride() + strip % d.strips_per_panel_ * d.strip_;
    }
    static std::ptrdiff_t i(std::size_t n) { return static_cast<std::ptrdiff_t>(n); }
    const T* matrix(std::size_t g) const {
      return g == 0 && !d.single_ ? matrices[0] + chunk * s.after[0] * s.out[0] * d.matrix_stride(0) : matrices[g];
    }
    T* piece(std::size_t g, std::size_t prefix) const {
      return d.plan_.stored[g] && stored != nullptr ? stored + d.stored_at_[g] + prefix * d.piece_[g] : state[g];
    }
    T* sum(std::size_t g) const {
      T* at = sums;
      for (std::size_t k = 0; k < g; ++k) at += d.gradient_[k].size;
      return g == 0 && !d.single_ ? at + chunk * (d.gradient_[0].size / d.chunks_) : at;
    }
    /// The rows (after, out) of the state behind step g lie `columns` apart throughout.
    bool even(std::size_t g) const { return s.after[g] == 1 || s.stride[g] == s.out[g] * s.columns[g]; }
    /// The rows of a state behind step g.
    detail::GroupedRows<T> rows_of(const T* state_rows, std::size_t g) const {
      return {state_rows, s.out[g], s.stride[g], s.columns[g]};
    }

    /// The state behind step g, for one value of all modes still to come, which `prefix` numbers.
    void forward(std::size_t g, const T* x, T* to, std::size_t prefix) const {
      if (g == 0) return absorb(0, x, to);
      T* const before = piece(g - 1, prefix);
      if (sums == nullptr || !d.plan_.stored[g - 1]) make(g, x, before, prefix, 0, s.in[g]);
      absorb(g, before, to);
    }

    /// Step g: from the state before it, or x, to that behind it.
    void absorb(std::size_t g, const T* before, T* to) const {
      Product<T> p;
      p.columns = s.columns[g];
      p.depth = s.in[g] * s.before[g];
      p.b = before, p.b_depth = i(g == 0 ? s.in_stride[0] * d.lanes_ : s.stride[g - 1]);
      p.a = matrix(g), p.a_row = i(d.matrix_stride(g)), p.a_depth = 1;
      p.c = to, p.c_row = i(s.columns[g]);
      p.rows = s.after[g] * s.out[g];
      detail::multiply_here(p, s.out[g], i(s.stride[g] - s.out[g] * s.columns[g]));
    }

    /// The state before step g, for the values begin, ..., end - 1 of its mode.
    void make(std::size_t g, const T* x, T* to, std::size_t prefix, std::size_t begin, std::size_t end) const {
      const std::size_t each = s.after[g - 1] * s.stride[g - 1];
      if (d.single_ && g == 1) {
        Product<T> p;
        const std::size_t out = d.padded_out();
        p.count = s.after[0], p.rows = end - begin, p.depth = s.in[0], p.columns = out;
        p.a = x + begin * s.in_stride[1], p.a_row = i(s.in_stride[1]), p.a_depth = i(s.in_stride[0]);
        p.b = matrices[0], p.b_depth = i(out), p.b_item = i(s.in[0] * out);
        p.c = to + begin * each, p.c_row = i(each), p.c_item = i(s.stride[0]);
        return detail::multiply_here(p);
      }
      for (std::size_t m = begin; m < end; ++m) {
        forward(g - 1, x + m * s.in_stride[g] * d.lanes_, to + m * each, prefix * s.in[g] + m);
      }
    }

    /// Calls f(where a row of the result stands here, its feature) for all rows, in the result's order.
    template <class F>
    void each_row(const F& f) const {
      const std::size_t steps = d.steps_, unit = d.single_ ? d.padded_out() : s.out[0] * s.strip;
      std::size_t blocks = 1;
      for (std::size_t g = 1; g < steps; ++g) blocks *= s.out[g];
      for (std::size_t block = 0; block < blocks; ++block) {
        std::size_t feature = chunk * s.out[0] * s.out_stride[0];
        for (std::size_t g = 1, rest = block; g < steps; ++g)
          feature += rest % s.out[g] * s.out_stride[g], rest /= s.out[g];
        for (std::size_t o = 0; o < s.out[0]; ++o)
          f(result + block * unit + o * (d.single_ ? 1 : s.strip), feature + o * s.out_stride[0]);
      }
    }

    /// Adds the bias, applies the function, and puts the result where it belongs.
    void finish(Panels<T> y, const T* bias, InPlace<T> f) const {
      T* const to = y.data + lane_offset(y);
      each_row([&](const T* values, std::size_t feature) {
        const T shift = bias != nullptr ? bias[feature] : T(0);
        if (d.single_) {
          to[feature] = *values + shift;
          return;
        }
        T* const row = to + feature * d.lanes_;
        for (std::size_t k = 0; k < s.strip; k += w) store(row + k, load(values + k) + Vector<T>(shift));
        if (f.apply != nullptr) f.apply(f.function, row, s.strip);
      });
      if (d.single_ && f.apply != nullptr) f.apply(f.function, to, y.features);
    }

    /// Fetches the gradient of the result; lanes without a sample count nothing.
    void begin(Panels<const T> dy) const {
      const T* const from = dy.data + lane_offset(dy);
      if (d.single_) {
        std::fill(result, result + d.result_size(), T(0));
        return each_row([&](T* value, std::size_t feature) { *value = from[feature]; });
      }
      each_row([&](T* values, std::size_t feature) {
        for (std::size_t k = 0; k < s.strip; k += w) store(values + k, load(from + feature * d.lanes_ + k));
        for (std::size_t k = live; k < s.strip; ++k) values[k] = T(0);
      });
    }

    /// From dz, the gradient of the state behind step g, to those of the matrices of this step and of all before, and
    /// to dx.
    void backward(std::size_t g, const T* x, T* dx, const T* dz, std::size_t prefix, std::size_t begin,
                  std::size_t end) const {
      T* const before = piece(g - 1, prefix);
      if (!d.plan_.stored[g - 1]) make(g, x, before, prefix, begin, end);
      const std::size_t each = s.after[g - 1] * s.stride[g - 1], modes = s.before[g] * (end - begin);
      add_products(g, dz, before + begin * each, begin * s.before[g], modes);

      Product<T> p;
      T* const dt = gradient[g - 1];
      p.rows = modes, p.columns = s.columns[g];
      p.a = matrix(g) + begin * s.before[g], p.a_row = 1, p.a_depth = i(d.matrix_stride(g));
      p.b = dz, p.b_depth = i(s.columns[g]);
      p.c = dt + begin * each, p.c_row = i(s.stride[g - 1]);
      if (even(g)) {
        p.depth = s.after[g] * s.out[g];
      } else {
        p.segments = s.after[g], p.depth = s.out[g];
        p.a_segment = i(s.out[g]) * p.a_depth, p.b_segment = i(s.stride[g]);
      }
      detail::multiply_here(p);

      if (g > 1) {
        for (std::size_t m = begin; m < end; ++m)
          backward(g - 1, x + m * s.in_stride[g] * d.lanes_,
                   dx != nullptr ? dx + m * s.in_stride[g] * d.lanes_ : nullptr, dt + m * each, prefix * s.in[g] + m, 0,
                   s.in[g - 1]);
      } else if (d.single_) {
        first_single(x, dx, dt, begin, end);
      } else {
        first(x, dx, dt, begin, end);
      }
    }

    /// Adds dz t^T to the gradient of step g > 0, for the columns of the matrix from `column` on.
    void add_products(std::size_t g, const T* dz, const T* t, std::size_t column, std::size_t columns) const {
      const Gradient& to = d.gradient_[g];
      const std::size_t rows = s.after[g] * s.out[g], depth = s.columns[g], stride = s.stride[g - 1];
      for (std::size_t at = 0; at < depth; at += transposed_columns) {
        Product<T> p;
        p.depth = std::min(transposed_columns, depth - at);
        p.accumulate = true;
        p.b = transposed, p.b_depth = i(to.stride), p.c_row = i(to.stride), p.a_depth = 1;
        if (to.transposed) {
          detail::transpose_rows(rows_of(dz + at, g), rows, p.depth, transposed, to.stride);
          p.rows = columns, p.columns = to.stride;
          p.a = t + at, p.a_row = i(stride);
          p.c = sum(g) + column * to.stride;
        } else {
          const std::size_t padded = round_up(columns, w);
          detail::transpose_rows<T>({t + at, columns, 0, stride}, columns, p.depth, transposed, to.stride);
          p.columns = padded;
          p.a = dz + at, p.a_row = i(s.columns[g]);
          p.c = sum(g) + column;
          p.count = s.after[g], p.rows = s.out[g];
          p.a_item = i(s.stride[g]), p.c_item = i(s.out[g]) * p.c_row;
        }
        detail::multiply_here(p);
      }
    }

    /// The first step, for values of the second one's mode.
    void first(const T* x, T* dx, const T* dz, std::size_t begin, std::size_t end) const {
      const std::size_t each = s.after[0] * s.stride[0], next = s.in_stride[1] * d.lanes_;
      const std::size_t rows = s.after[0] * s.out[0], lanes = s.in_stride[0] * d.lanes_;
      const Gradient& to = d.gradient_[0];
      const std::size_t together = std::max<std::size_t>(transposed_columns / 2 / s.strip, 1);
      for (std::size_t m = begin; m < end; m += together) {
        Product<T> p;
        p.segments = std::min(together, end - m), p.depth = s.strip;
        p.accumulate = true;
        p.a_depth = 1, p.c_row = p.b_depth = i(to.stride), p.b = transposed, p.b_segment = i(s.strip * to.stride);
        p.columns = to.stride, p.c = sum(0);
        const T* const z = dz + m * each;
        for (std::size_t k = 0; k < p.segments; ++k)
          if (to.transposed)
            detail::transpose_rows(rows_of(z + k * each, 0), rows, s.strip, transposed + k * s.strip * to.stride,
                                   to.stride);
          else
            detail::transpose_rows<T>({x + (m + k) * next, s.in[0], 0, lanes}, s.in[0], s.strip,
                                      transposed + k * s.strip * to.stride, to.stride);
        if (to.transposed) {
          p.rows = s.in[0];
          p.a = x + m * next, p.a_row = i(lanes), p.a_segment = i(next);
        } else {
          p.a = z, p.a_row = i(s.columns[0]), p.a_segment = i(each);
          if (even(0)) {
            p.rows = rows;
          } else {
            p.count = s.after[0], p.rows = s.out[0];
            p.a_item = i(s.stride[0]), p.c_item = i(s.out[0]) * p.c_row;
          }
        }
        detail::multiply_here(p);
      }
      if (dx == nullptr) return;
      Product<T> p;
      p.count = end - begin, p.rows = s.in[0], p.columns = s.strip;
      p.a = matrix(0), p.a_row = 1, p.a_depth = i(d.matrix_stride(0));
      p.b = dz + begin * each, p.b_depth = i(s.columns[0]), p.b_item = i(each);
      p.c = dx + begin * next, p.c_row = i(lanes), p.c_item = i(next);
      if (even(0)) {
        p.depth = rows;
      } else {
        p.segments = s.after[0], p.depth = s.out[0];
        p.a_segment = i(s.out[0]) * p.a_depth, p.b_segment = i(s.stride[0]);
      }
      p.accumulate = chunk > 0;
      detail::multiply_here(p);
    }

    /// The same for a single sample.
    void first_single(const T* x, T* dx, const T* dz, std::size_t begin, std::size_t end) const {
      const std::size_t each = s.after[0] * s.stride[0], out = d.padded_out(), in = d.padded_in();
      Product<T> p;
      p.count = s.after[0], p.rows = s.in[0], p.depth = end - begin, p.columns = out, p.accumulate = true;
      p.a = x + begin * s.in_stride[1], p.a_row = i(s.in_stride[0]), p.a_depth = i(s.in_stride[1]);
      p.b = dz + begin * each, p.b_depth = i(each), p.b_item = i(s.stride[0]);
      p.c = sum(0), p.c_row = i(out), p.c_item = i(s.in[0] * out);
      detail::multiply_here(p);
      if (dx == nullptr) return;
      p = {};
      p.rows = end - begin, p.depth = s.out[0], p.segments = s.after[0], p.columns = in;
      p.a = dz + begin * each, p.a_row = i(each), p.a_depth = 1, p.a_segment = i(s.stride[0]);
      p.b = wide, p.b_depth = i(in), p.b_segment = i(s.out[0] * in);
      p.c = wide_dx, p.c_row = i(in);
      detail::multiply_here(p);
      for (std::size_t m = 0; m < end - begin; ++m)
        for (std::size_t k = 0; k < s.in[0]; ++k)
          dx[(begin + m) * s.in_stride[1] + k * s.in_stride[0]] = wide_dx[m * in + k];
    }
  };
};

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
