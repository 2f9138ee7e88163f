// Kernels of sparse weights: samples as lanes, so that one weight meets a whole panel of samples.
//
// A weight costs loads rather than arithmetic: its index, its value and the lanes of an activation. Rows (forward) and
// columns (backward) hold what they sum in registers; offsets are read four at a time as one word.
#pragma once

#include <tesla/backend/contraction.hpp>
#include <tesla/backend/cpu/elementwise.hpp>
#include <tesla/backend/sparse.hpp>

#include <algorithm>
#include <array>
#include <cstring>

namespace tesla::inline TESLA_TARGET::backend::cpu {

namespace detail {

/// Lane by lane of 128 bits, interleaves the low (or high) halves of a and b.
template <bool high, class Register, std::size_t... I>
[[gnu::always_inline]] inline Register unpack(Register a, Register b, std::index_sequence<I...>) {
  constexpr int n = static_cast<int>(sizeof...(I)), lane = static_cast<int>(16 * sizeof...(I) / sizeof(Register));
  return __builtin_shufflevector(a, b,
                                 (static_cast<int>(I) / lane * lane + static_cast<int>(I) % lane / 2 +
                                  (high ? lane / 2 : 0) + (I % 2 == 0 ? 0 : n))...);
}
template <class T>
[[gnu::always_inline]] inline Vector<T> unpacked_sum(Vector<T> a, Vector<T> b) {
  using Lanes = std::make_index_sequence<width<T>>;
  return Vector<T>(unpack<false>(a.data, b.data, Lanes())) + Vector<T>(unpack<true>(a.data, b.data, Lanes()));
}

/// to[i] (+)= the sum of the lanes of v[i], i < 4, always in the same order.
template <bool Add, class T>
[[gnu::always_inline]] inline void sum_four(const Vector<T> (&v)[4], T* to) {
  constexpr std::size_t lane = 16 / sizeof(T);
  alignas(cache_line) T lanes[4];
  if constexpr (lane == 4) {
    const Vector<T> all = unpacked_sum<T>(unpacked_sum<T>(v[0], v[2]), unpacked_sum<T>(v[1], v[3]));
    alignas(cache_line) T wide[width<T>];
    all.store_aligned(wide);
    for (std::size_t i = 0; i < 4; ++i) lanes[i] = wide[i];
    for (std::size_t k = 4; k < width<T>; k += 4)
      for (std::size_t i = 0; i < 4; ++i) lanes[i] += wide[k + i];
  } else {
    for (std::size_t i = 0; i < 4; ++i) lanes[i] = sum<T>(v[i]);
  }
  for (std::size_t i = 0; i < 4; ++i) to[i] = Add ? to[i] + lanes[i] : lanes[i];
}

/// Four offsets at a time.
[[gnu::always_inline]] inline std::uint64_t four_offsets(const std::uint16_t* p) {
  std::uint64_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}
[[gnu::always_inline]] inline std::size_t offset_of(std::uint64_t four, std::size_t k) {
  return four >> (16 * k) & 0xffff;
}

/// What a kernel runs over: some segments of one tile, on V vectors of lanes of one panel.
template <class T>
struct SparseRun {
  const SparseSegment *segment, *end;
  const std::uint16_t* offset;
  const T* value;
  std::size_t lanes;  // elements from one feature to the next
};

/// y[row] (+)= the sum over a row's weights of weight * x[column]; begins with the bias where the tile is the first.
template <class T, std::size_t V>
[[gnu::noinline]] void sparse_rows(SparseRun<T> run, const T* x, T* y, const T* bias, bool first) {
  constexpr std::size_t w = width<T>, sets = V >= 8 ? 1 : V >= 3 ? 2 : 4;
  const std::size_t lanes = run.lanes;
  const std::uint16_t* offset = run.offset;
  const T* value = run.value;
  for (const SparseSegment* s = run.segment; s != run.end; ++s) {
    T* const to = y + s->at * lanes;
    Vector<T> sums[sets][V];
    const Vector<T> begin(first && bias != nullptr ? bias[s->at] : T(0));
    unroll<V>([&](auto v) {
      sums[0][v] = first ? begin : load(to + v * w);
      unroll<sets - 1>([&](auto k) { sums[k + 1][v] = Vector<T>(T(0)); });
    });
    std::size_t n = s->count;
    for (; n >= 4; n -= 4, offset += 4, value += 4) {
      const std::uint64_t four = four_offsets(offset);
      unroll<4>([&](auto k) {
        const T* const from = x + offset_of(four, k) * lanes;
        const Vector<T> weight(value[k]);
        unroll<V>([&](auto v) { sums[k % sets][v] = xsimd::fma(weight, load(from + v * w), sums[k % sets][v]); });
      });
    }
    for (; n > 0; --n, ++offset, ++value) {
      const T* const from = x + *offset * lanes;
      const Vector<T> weight(*value);
      unroll<V>([&](auto v) { sums[0][v] = xsimd::fma(weight, load(from + v * w), sums[0][v]); });
    }
    unroll<V>([&](auto v) {
      unroll<sets - 1>([&](auto k) { sums[0][v] += sums[k + 1][v]; });
      store(to + v * w, sums[0][v]);
    });
  }
}

/// By the columns of a tile: dx[column] (+)= the sum of weight * dy[row], and each weight's gradient (+)= the sum over
/// the lanes of dy[row] * x[column], where the last vector of lanes counts as far as `mask` is one.
template <class T, std::size_t V, bool Dx>
[[gnu::noinline]] void sparse_columns(SparseRun<T> run, const T* x, const T* dy, T* dx, T* gradient, const T* mask,
                                      bool first, bool add) {
  constexpr std::size_t w = width<T>;
  const std::size_t lanes = run.lanes;
  const std::uint16_t* offset = run.offset;
  const T* value = run.value;
  for (const SparseSegment* s = run.segment; s != run.end; ++s) {
    const std::size_t at = s->at * lanes;
    Vector<T> xs[V], ds[V];
    unroll<V>([&](auto v) {
      xs[v] = load_to_register(x + at + v * w);
      if constexpr (Dx) ds[v] = first ? Vector<T>(T(0)) : load(dx + at + v * w);
    });
    xs[V - 1] *= load(mask);
    const auto meet = [&](const T* from, const T* weight) __attribute__((always_inline)) {
      Vector<T> product;
      unroll<V>([&](auto v) {
        const Vector<T> d = Dx ? load_to_register(from + v * w) : load(from + v * w);
        if constexpr (Dx) ds[v] = xsimd::fma(Vector<T>(*weight), d, ds[v]);
        product = v == 0 ? xs[v] * d : xsimd::fma(xs[v], d, product);
      });
      return product;
    };
    std::size_t n = s->count;
    for (; n >= 4; n -= 4, offset += 4, value += 4, gradient += 4) {
      const std::uint64_t four = four_offsets(offset);
      Vector<T> products[4];
      unroll<4>([&](auto k) { products[k] = meet(dy + offset_of(four, k) * lanes, value + k); });
      if (add)
        sum_four<true, T>(products, gradient);
      else
        sum_four<false, T>(products, gradient);
    }
    if (n > 0) {
      Vector<T> products[4];
      unroll<4>([&](auto k) { products[k] = k < n ? meet(dy + offset[k] * lanes, value + k) : Vector<T>(T(0)); });
      T sums[4];
      sum_four<false, T>(products, sums);
      for (std::size_t k = 0; k < n; ++k) gradient[k] = add ? gradient[k] + sums[k] : sums[k];
      offset += n, value += n, gradient += n;
    }
    if constexpr (Dx) unroll<V>([&](auto v) { store(dx + at + v * w, ds[v]); });
  }
}

inline constexpr std::size_t block_rows = 4;

/// The same forward for rows of blocks; `rows` of the tile's are there, the last block may reach beyond them.
template <class T, std::size_t V>
[[gnu::noinline]] void sparse_block_rows(SparseRun<T> run, const T* x, T* y, const T* bias, bool first,
                                         std::size_t rows) {
  constexpr std::size_t w = width<T>;
  const std::size_t lanes = run.lanes;
  const std::uint16_t* offset = run.offset;
  const T* value = run.value;
  for (const SparseSegment* s = run.segment; s != run.end; ++s) {
    const std::size_t row = s->at * block_rows;
    T* const to = y + row * lanes;
    Vector<T> sums[block_rows][V];
    unroll<block_rows>([&](auto r) {
      const bool there = row + r < rows;
      const Vector<T> begin(first && there && bias != nullptr ? bias[row + r] : T(0));
      unroll<V>([&](auto v) { sums[r][v] = first || !there ? begin : load(to + r * lanes + v * w); });
    });
    for (std::size_t n = s->count; n > 0; --n, ++offset, value += block_rows) {
      const T* const from = x + *offset * lanes;
      unroll<V>([&](auto v) {
        const Vector<T> in = load_to_register(from + v * w);
        unroll<block_rows>([&](auto r) { sums[r][v] = xsimd::fma(Vector<T>(value[r]), in, sums[r][v]); });
      });
    }
    unroll<block_rows>([&](auto r) {
      if (row + r < rows) unroll<V>([&](auto v) { store(to + r * lanes + v * w, sums[r][v]); });
    });
  }
}

/// Both gradients of rows of blocks: dx[column] += the sum over the block's rows of weight * dy[row].
template <class T, std::size_t V, bool Dx>
[[gnu::noinline]] void sparse_block_gradients(SparseRun<T> run, const T* x, const T* dy, T* dx, T* gradient,
                                              const T* mask, bool add, std::size_t rows) {
  constexpr std::size_t w = width<T>;
  const std::size_t lanes = run.lanes;
  const std::uint16_t* offset = run.offset;
  const T* value = run.value;
  const Vector<T> live = load(mask);
  for (const SparseSegment* s = run.segment; s != run.end; ++s) {
    const std::size_t row = s->at * block_rows;
    // The lanes without a sample are masked here, where they are read once: they add nothing to dx then either.
    Vector<T> ds[block_rows][V];
    unroll<block_rows>([&](auto r) {
      unroll<V>([&](auto v) {
        ds[r][v] = row + r < rows ? load_to_register(dy + (row + r) * lanes + v * w) : Vector<T>(T(0));
      });
      ds[r][V - 1] *= live;
    });
    for (std::size_t n = s->count; n > 0; --n, ++offset, value += block_rows, gradient += block_rows) {
      const std::size_t at = *offset * lanes;
      Vector<T> products[block_rows];
      unroll<V>([&](auto v) {
        const Vector<T> in = load_to_register(x + at + v * w);
        unroll<block_rows>(
            [&](auto r) { products[r] = v == 0 ? in * ds[r][v] : xsimd::fma(in, ds[r][v], products[r]); });
        if constexpr (Dx) {
          Vector<T> d = load(dx + at + v * w);
          unroll<block_rows>([&](auto r) { d = xsimd::fma(Vector<T>(value[r]), ds[r][v], d); });
          store(dx + at + v * w, d);
        }
      });
      if (add)
        sum_four<true, T>(products, gradient);
      else
        sum_four<false, T>(products, gradient);
    }
  }
}

}  // namespace detail

/// The products of one sparse matrix.
template <class T>
class Sparse {
 public:
  explicit Sparse(const SparseLayout& layout)
      : l_(layout), down_(layout.tiles_down()), across_(layout.tiles_across()) {}

  /// Copies the values to the twin's order.
  void make_twin(const T* values, T* twin) const {
    const double each = 1.5 * number(l_.count) / number(l_.tiles());
    parallel_for(l_.tiles(), each, [&](std::size_t begin, std::size_t end) {
      std::uint32_t next[SparseLayout::max_tile];
      for (std::size_t tile = begin; tile < end; ++tile) {
        const SparseGroup* const group = &l_.twin.groups[tile * l_.twin.groups_each];
        std::uint32_t at = 0;
        for (std::size_t s = group->segment; s < group[l_.twin.groups_each - 1].segment_end; ++s)
          next[l_.twin.segments[s].at] = at, at += l_.twin.segments[s].count;
        const std::size_t first = group->first;  // as many weights lie before the tile in either order
        for (std::size_t k = first; k < first + at; ++k) twin[first + next[l_.order.offsets[k]]++] = values[k];
      }
    });
  }

  /// y = f(W x + bias); the bias may be null. Takes the values in the twin's order, where there is one.
  void forward(const T* values, Panels<const T> x, Panels<T> y, const T* bias, InPlace<T> f) const {
    if (y.batch == 0) return;
    const SparseOrder& order = l_.has_twin() ? l_.twin : l_.order;
    const std::size_t panels = y.panels(), lanes = y.lanes, tasks = panels * down_ * order.groups_each;
    parallel_for(tasks, cost(lanes) * number(panels) / number(tasks), [&](std::size_t begin, std::size_t end) {
      for (std::size_t task = begin; task < end; ++task) {
        const std::size_t panel = task % panels, number = task / panels % order.groups_each;
        const std::size_t down = task / panels / order.groups_each, row = down * l_.tile_rows;
        const std::size_t rows = std::min(l_.tile_rows, l_.rows - row);
        T* const to = y.panel(panel) + row * lanes;
        const T* const shift = bias != nullptr ? bias + row : nullptr;
        for (std::size_t across = 0; across < across_; ++across) {
          const detail::SparseRun<T> run = run_of(order, down, across, number, values, lanes);
          const T* const from = x.panel(panel) + across * l_.tile_columns * lanes;
          const bool first = across == 0;
          if (lanes == 1)
            l_.has_twin() ? single_rows(run, from, to, shift, first)
                          : single_block_rows(run, from, to, shift, first, rows);
          else if (l_.has_twin())
            each_vectors<(registers == 32 ? 4 : 8)>(y.live(panel), [&](auto v, std::size_t at) {
              detail::sparse_rows<T, v>(run, from + at, to + at, shift, first);
            });
          else
            each_vectors<(registers == 32 ? 4 : 2)>(y.live(panel), [&](auto v, std::size_t at) {
              detail::sparse_block_rows<T, v>(run, from + at, to + at, shift, first, rows);
            });
        }
        const std::size_t own = std::min(rows, number * order.group * l_.block);
        const std::size_t own_end = std::min(rows, own + order.group * l_.block);
        if (f.apply != nullptr && own < own_end) f.apply(f.function, to + own * lanes, (own_end - own) * lanes);
      }
    });
  }

  /// The gradients of the values and, unless it is null, dx = W^T dy.
  void backward(const T* values, Panels<const T> x, Panels<const T> dy, Panels<T> dx, T* gradient) const {
    if (dy.batch == 0) return;
    // Rows of blocks add to the same dx: then a thread takes whole columns of tiles.
    const std::size_t split = l_.has_twin() ? l_.order.groups_each : 1, each = l_.order.groups_each / split;
    const std::size_t panels = dy.panels(), lanes = dy.lanes, tasks = across_ * split;
    parallel_for(tasks, 2 * cost(lanes) * number(panels) / number(tasks), [&](std::size_t begin, std::size_t end) {
      for (std::size_t task = begin; task < end; ++task) {
        const std::size_t across = task / split, column = across * l_.tile_columns;
        const std::size_t columns = std::min(l_.tile_columns, l_.columns - column);
        if (!l_.has_twin() && dx)
          for (std::size_t panel = 0; panel < panels; ++panel)
            std::fill_n(dx.panel(panel) + column * lanes, columns * lanes, T(0));
        for (std::size_t down = 0; down < down_; ++down)
          for (std::size_t number = task % split * each; number < (task % split + 1) * each; ++number) {
            const SparseGroup& group = l_.group(l_.order, down, across, number);
            const detail::SparseRun<T> run = run_of(l_.order, down, across, number, values, lanes);
            const std::size_t row = down * l_.tile_rows, rows = std::min(l_.tile_rows, l_.rows - row);
            for (std::size_t panel = 0; panel < panels; ++panel) {
              const T *const from = x.panel(panel) + column * lanes, *const up = dy.panel(panel) + row * lanes;
              T* const to = dx ? dx.panel(panel) + column * lanes : nullptr;
              T* const own = gradient + group.first * l_.block;
              if (lanes == 1)
                single_backward(run, from, up, to, own, down == 0, rows);
              else
                panel_backward(run, from, up, to, own, down == 0, panel, dy.live(panel), rows);
            }
          }
      }
    });
  }

 private:
  static double number(std::size_t n) { return static_cast<double>(n); }
  /// Of one panel, in nanoseconds.
  double cost(std::size_t lanes) const {
    return number(l_.count) * (lanes == 1 ? 1 : 1.5 * nanoseconds::multiply_add<T> * number(lanes));
  }

  detail::SparseRun<T> run_of(const SparseOrder& order, std::size_t down, std::size_t across, std::size_t number,
                              const T* values, std::size_t lanes) const {
    const SparseGroup& g = l_.group(order, down, across, number);
    return {order.segments.data() + g.segment, order.segments.data() + g.segment_end, order.offsets.data() + g.first,
            values + g.first * l_.block, lanes};
  }

  /// Calls f(vectors, first lane) so that all live lanes are covered, at most Most vectors at a time.
  template <std::size_t Most, class F>
  static void each_vectors(std::size_t live, const F& f) {
    constexpr std::size_t w = width<T>;
    std::size_t at = 0;
    const auto take = [&](auto v) {
      for (; at + (v - 1) * w < live; at += v * w) f(v, at);
    };
    if constexpr (Most >= 8) take(std::integral_constant<std::size_t, 8>());
    if constexpr (Most >= 4) take(std::integral_constant<std::size_t, 4>());
    if constexpr (Most == 4) take(std::integral_constant<std::size_t, 3>());
    take(std::integral_constant<std::size_t, 2>());
    take(std::integral_constant<std::size_t, 1>());
  }

  void panel_backward(const detail::SparseRun<T>& run, const T* x, const T* dy, T* dx, T* gradient, bool first,
                      std::size_t panel, std::size_t live, std::size_t rows) const {
    constexpr std::size_t w = width<T>;
    const auto kernel = [&](auto v, std::size_t at) {
      alignas(cache_line) T mask[w];
      const std::size_t last = at + (v - 1) * w;
      for (std::size_t i = 0; i < w; ++i) mask[i] = last + i < live ? T(1) : T(0);
      const bool add = panel != 0 || at != 0;
      if (l_.has_twin()) {
        if (dx != nullptr)
          detail::sparse_columns<T, v, true>(run, x + at, dy + at, dx + at, gradient, mask, first, add);
        else
          detail::sparse_columns<T, v, false>(run, x + at, dy + at, dx, gradient, mask, first, add);
      } else {
        if (dx != nullptr)
          detail::sparse_block_gradients<T, v, true>(run, x + at, dy + at, dx + at, gradient, mask, add, rows);
        else
          detail::sparse_block_gradients<T, v, false>(run, x + at, dy + at, dx, gradient, mask, add, rows);
      }
    };
    if (l_.has_twin())
      each_vectors<4>(live, kernel);
    else
      each_vectors<(registers == 32 ? 4 : 2)>(live, kernel);
  }

  // One sample: plain vectors.
  static void single_rows(detail::SparseRun<T> run, const T* x, T* y, const T* bias, bool first) {
    const std::uint16_t* offset = run.offset;
    const T* value = run.value;
    for (const SparseSegment* s = run.segment; s != run.end; ++s) {
      T sums[4] = {first ? (bias != nullptr ? bias[s->at] : T(0)) : y[s->at]};
      std::size_t n = s->count;
      for (; n >= 4; n -= 4, offset += 4, value += 4) {
        const std::uint64_t four = detail::four_offsets(offset);
        unroll<4>([&](auto k) { sums[k] += value[k] * x[detail::offset_of(four, k)]; });
      }
      for (; n > 0; --n) sums[0] += *value++ * x[*offset++];
      y[s->at] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
  }
  static void single_block_rows(detail::SparseRun<T> run, const T* x, T* y, const T* bias, bool first,
                                std::size_t rows) {
    constexpr std::size_t n = detail::block_rows;
    using Four [[gnu::vector_size(n * sizeof(T))]] = T;
    const std::uint16_t* offset = run.offset;
    const T* value = run.value;
    for (const SparseSegment* s = run.segment; s != run.end; ++s) {
      const std::size_t row = s->at * n, live = std::min(n, rows - row);
      T lanes[n] = {};
      for (std::size_t r = 0; r < live; ++r) lanes[r] = first ? (bias != nullptr ? bias[row + r] : T(0)) : y[row + r];
      Four sums[2] = {}, weights;
      std::memcpy(&sums[0], lanes, sizeof lanes);
      for (std::size_t k = 0; k < s->count; ++k, ++offset, value += n) {
        std::memcpy(&weights, value, sizeof weights);
        sums[k % 2] += weights * x[*offset];
      }
      sums[0] += sums[1];
      std::memcpy(lanes, &sums[0], sizeof lanes);
      std::copy(lanes, lanes + live, y + row);
    }
  }
  void single_backward(detail::SparseRun<T> run, const T* x, const T* dy, T* dx, T* gradient, bool first,
                       std::size_t rows) const {
    const std::uint16_t* offset = run.offset;
    const T* value = run.value;
    if (l_.has_twin()) {
      for (const SparseSegment* s = run.segment; s != run.end; ++s) {
        const T in = x[s->at];
        T total(0);
        for (std::size_t n = s->count; n > 0; --n, ++offset) {
          const T d = dy[*offset];
          total += *value++ * d;
          *gradient++ = in * d;
        }
        if (dx != nullptr) dx[s->at] = first ? total : dx[s->at] + total;
      }
      return;
    }
    constexpr std::size_t block = detail::block_rows;
    for (const SparseSegment* s = run.segment; s != run.end; ++s) {
      const std::size_t row = s->at * block;
      T d[block] = {};
      std::copy(dy + row, dy + row + std::min(block, rows - row), d);
      for (std::size_t n = s->count; n > 0; --n, ++offset, value += block, gradient += block) {
        T total(0);
        unroll<block>([&](auto r) { total += value[r] * d[r], gradient[r] = x[*offset] * d[r]; });
        if (dx != nullptr) dx[*offset] += total;
      }
    }
  }

  const SparseLayout& l_;
  std::size_t down_, across_;
};

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
