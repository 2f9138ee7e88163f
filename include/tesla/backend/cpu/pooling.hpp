// Pooling: the largest or the mean of what lies in a window. All channels of a pixel are one run of values.
#pragma once

#include <tesla/backend/convolution.hpp>
#include <tesla/backend/cpu/elementwise.hpp>

namespace tesla::inline TESLA_TARGET::backend::cpu {

/// No input belongs to two windows.
inline bool windows_apart(const Convolution& pool) {
  const auto axis = [](const ConvolutionAxis& a) { return a.dilation == 1 && a.stride >= a.kernel; };
  return axis(pool.rows) && axis(pool.columns);
}

namespace detail {

/// The taps of one output that lie inside: how many, and how far apart in memory.
struct Window {
  std::size_t rows, columns, down, along;

  template <class F>
  [[gnu::always_inline]] void each_tap(const F& f) const {
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < columns; ++c) f(r * down + c * along);
  }
};

/// The largest of `n` windows that lie beside each other, and, unless `which` is null, the first tap that has it.
template <class T>
void largest(const Window& at, const T* from, T* to, T* which, std::size_t n) {
  for (std::size_t i = 0; i < n; i += width<T>) {
    Vector<T> most = load(from + i, n - i), place(T(0)), number(T(0));
    at.each_tap([&](std::size_t offset) {
      const Vector<T> value = load(from + offset + i, n - i);
      const auto better = value > most;
      most = xsimd::select(better, value, most), place = xsimd::select(better, number, place);
      number += Vector<T>(T(1));
    });
    store(to + i, most, n - i);
    if (which != nullptr) store(which + i, place, n - i);
  }
}

}  // namespace detail

template <class T>
class Pool {
 public:
  /// Channels and filters of `c` are the same, in groups of one.
  explicit Pool(const Convolution& c) : c_(c), rows_(outputs_of(c.rows)), columns_(outputs_of(c.columns)) {}

  /// `which`, unless it is null, is told which of a window's inputs, counted from 0, is the first of the largest.
  void largest(Panels<const T> x, Panels<T> y, Panels<T> which) const {
    each_row(x, y, [&](const Window& at, const T* from, std::size_t out, std::size_t n) {
      detail::largest(at, from, y.data + out, which ? which.data + out : nullptr, n);
    });
  }
  void mean(Panels<const T> x, Panels<T> y) const {
    each_row(x, y, [&](const Window& at, const T* from, std::size_t out, std::size_t n) {
      const Vector<T> share(T(1) / static_cast<T>(at.rows * at.columns));
      for (std::size_t i = 0; i < n; i += w) {
        Vector<T> total(T(0));
        at.each_tap([&](std::size_t offset) { total += load(from + offset + i, n - i); });
        store(y.data + out + i, total * share, n - i);
      }
    });
  }

  void largest_gradient(Panels<const T> which, Panels<const T> dy, Panels<T> dx) const {
    each_block(dy, dx, [&](const Window& at, std::size_t in, std::size_t out, std::size_t n) {
      for (std::size_t i = 0; i < n; i += w) {
        const Vector<T> place = load(which.data + out + i, n - i), own = load(dy.data + out + i, n - i);
        Vector<T> number(T(0));
        at.each_tap([&](std::size_t offset) {
          put(dx.data + in + offset + i, xsimd::select(place == number, own, Vector<T>(T(0))), n - i);
          number += Vector<T>(T(1));
        });
      }
    });
  }
  void mean_gradient(Panels<const T> dy, Panels<T> dx) const {
    each_block(dy, dx, [&](const Window& at, std::size_t in, std::size_t out, std::size_t n) {
      const Vector<T> share(T(1) / static_cast<T>(at.rows * at.columns));
      for (std::size_t i = 0; i < n; i += w) {
        const Vector<T> own = load(dy.data + out + i, n - i) * share;
        at.each_tap([&](std::size_t offset) { put(dx.data + in + offset + i, own, n - i); });
      }
    });
  }

 private:
  static constexpr std::size_t w = width<T>;

  using Window = detail::Window;
  void put(T* to, Vector<T> value, std::size_t n) const { store(to, apart_ ? value : load(to, n) + value, n); }

  /// Calls f(taps, where it begins in a panel of the input, where its output is) for the outputs of one row.
  template <class F>
  void each_output(std::size_t y, std::size_t lanes, const F& f) const {
    const Range down = rows_.taps_at(y);
    const std::size_t pixel = c_.channels * lanes;
    for (std::size_t x = 0; x < c_.columns.out; ++x) {
      const Range along = columns_.taps_at(x);
      const Window taps{down.size(), along.size(), c_.rows.dilation * c_.columns.in * pixel,
                        c_.columns.dilation * pixel};
      f(taps, (rows_.input(y, down.begin) * c_.columns.in + columns_.input(x, along.begin)) * pixel,
        (y * c_.columns.out + x) * pixel);
    }
  }
  double cost(std::size_t lanes) const {
    return nanoseconds::value<T> * static_cast<double>(c_.taps() * c_.columns.out * c_.channels * lanes);
  }

  template <class F>
  void each_row(Panels<const T> x, Panels<T> y, const F& f) const {
    parallel_for(y.panels() * c_.rows.out, cost(y.lanes), [&](std::size_t begin, std::size_t end) {
      for (std::size_t task = begin; task < end; ++task) {
        const T* const from = x.panel(task / c_.rows.out);
        const std::size_t to = task / c_.rows.out * y.stride();
        each_output(task % c_.rows.out, y.lanes, [&](const Window& taps, std::size_t in, std::size_t out) {
          f(taps, from + in, to + out, c_.channels * y.lanes);
        });
      }
    });
  }

  /// Windows may share inputs, so a thread takes some channels of a whole image, first to last.
  template <class F>
  void each_block(Panels<const T> dy, Panels<T> dx, const F& f) const {
    constexpr std::size_t block = 16;
    const std::size_t blocks = (c_.channels + block - 1) / block, lanes = dy.lanes;
    parallel_for(dy.panels() * blocks, 2 * cost(lanes) * static_cast<double>(c_.rows.out) / static_cast<double>(blocks),
                 [&](std::size_t begin, std::size_t end) {
                   for (std::size_t task = begin; task < end; ++task) {
                     const std::size_t panel = task / blocks, first = task % blocks * block;
                     const std::size_t n = std::min(block, c_.channels - first) * lanes;
                     const std::size_t in = panel * dx.stride() + first * lanes,
                                       out = panel * dy.stride() + first * lanes;
                     clear(dx.data + in, n, lanes);
                     for (std::size_t y = 0; y < c_.rows.out; ++y)
                       each_output(y, lanes, [&](const Window& taps, std::size_t i, std::size_t o) {
                         f(taps, in + i, out + o, n);
                       });
                   }
                 });
  }
  /// Zeros where no window will write, or, where windows share inputs and add, everywhere.
  void clear(T* dx, std::size_t n, std::size_t lanes) const {
    const auto covered = [](const ConvolutionAxis& a, std::size_t i) {
      return (i + a.before) % a.stride < a.kernel && (i + a.before) / a.stride < a.out;
    };
    for (std::size_t row = 0; row < c_.rows.in; ++row)
      for (std::size_t column = 0; column < c_.columns.in; ++column)
        if (!apart_ || !covered(c_.rows, row) || !covered(c_.columns, column))
          std::fill_n(dx + (row * c_.columns.in + column) * c_.channels * lanes, n, T(0));
  }

  Convolution c_;
  Reading rows_, columns_;
  bool apart_ = windows_apart(c_);
};

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
