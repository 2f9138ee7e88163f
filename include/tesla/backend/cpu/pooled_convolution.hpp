// Convolutions of whose outputs only the largest of each window is wanted, as max pooling takes them: a window is
// pooled while it is in the first cache. The outputs themselves, the largest arrays of such networks, are neither
// written nor read, and those that no window reads are never made.
#pragma once

#include <tesla/backend/contraction.hpp>
#include <tesla/backend/cpu/convolution.hpp>
#include <tesla/backend/cpu/pooling.hpp>

namespace tesla::inline TESLA_TARGET::backend::cpu {

namespace detail {

/// Gradients by the outputs of a convolution, made of those by the largest of their windows.
template <class T>
struct PooledRows {
  static constexpr std::size_t bytes = 32 << 10;
  struct Room {
    alignas(cache_line) T values[bytes / sizeof(T)];
  };

  const Convolution& pool;
  Panels<const T> which, dy;

  std::size_t pixels_at_once() const {
    const std::size_t fit = bytes / (dot_rows_at_once * dy.lanes * sizeof(T));
    return fit / pool.columns.stride * pool.columns.stride;
  }
  PixelRun<T> pixels(std::size_t panel, std::size_t y, Range pixels, std::size_t f, std::size_t count,
                     Room& room) const {
    const std::size_t row = y / pool.rows.stride, down = y % pool.rows.stride, n = count * dy.lanes;
    T* to = room.values;
    for (std::size_t x = pixels.begin; x < pixels.end; ++x, to += n) {
      const std::size_t column = x / pool.columns.stride, along = x % pool.columns.stride;
      const std::size_t at = ((row * pool.columns.out + column) * pool.channels + f) * dy.lanes;
      const Vector<T> number(static_cast<T>(down * pool.columns.kernel + along));
      const bool read = down < pool.rows.kernel && along < pool.columns.kernel;
      for (std::size_t i = 0; i < n; i += width<T>) {
        const auto here = load(which.panel(panel) + at + i) == number;
        store(to + i, read ? xsimd::select(here, load(dy.panel(panel) + at + i), Vector<T>(T(0))) : Vector<T>(T(0)));
      }
    }
    return {room.values, n};
  }
};

}  // namespace detail

template <class T>
class PooledConvolve {
 public:
  PooledConvolve(const Convolution& c, const Convolution& pool) : c_(c), pool_(pool) {
    c_.rows.out = pool_.rows.in = read(pool.rows), c_.columns.out = pool_.columns.in = read(pool.columns);
  }

  /// Whether windows can be made one by one.
  static bool applies(const Convolution& c, const Convolution& pool) {
    const auto inside = [](const ConvolutionAxis& a) { return a.before == 0 && read(a) <= a.in; };
    const bool same = pool.rows.in == c.rows.out && pool.columns.in == c.columns.out;  // and not seen as one row
    return same && c.groups == 1 && windows_apart(pool) && inside(pool.rows) && inside(pool.columns) &&
           pool.columns.stride <= most_columns && channels_at_once(pool, most_lanes<T>) >= least_channels;
  }

  /// Elements of the outputs of a batch, for where they have to be made as a whole.
  std::size_t whole_size(std::size_t batch, bool training) const {
    const std::size_t lanes = lanes_of<T>(batch);
    return training || lanes == 1 ? round_up(batch, lanes) * c_.out_features() : 0;
  }

  /// y = f(the largest of filters * x + bias in each window); `which`, unless it is null, is told which one that was.
  void forward(const Matrix<T>& filters, const T* kept, Panels<const T> x, Panels<T> y, Panels<T> which, const T* bias,
               InPlace<T> f, T* whole) const {
    if (x.lanes == 1) {
      const Panels<T> all{whole, c_.out_features(), 1, 1};
      Convolve<T>(c_).forward(filters, kept, x, all, bias, {});
      Pool<T>(pool_).largest(all, y, which);
      if (f.apply != nullptr) f.apply(f.function, y.data, y.features);
      return;
    }
    if (y.batch == 0) return;
    const detail::Correlation<T> p = detail::outputs_of(c_, filters, bias, Epilogue<T>());
    const std::size_t lanes = x.lanes, taps = pool_.taps(), most = channels_at_once(pool_, lanes);
    const double each = nanoseconds::multiply_add<T> * p.multiply_adds() / static_cast<double>(pool_.rows.out);
    parallel_for(
        y.panels() * pool_.rows.out, each * static_cast<double>(lanes), [&](std::size_t begin, std::size_t end) {
          alignas(cache_line) T window[window_bytes / sizeof(T)];
          for (std::size_t task = begin; task < end; ++task) {
            const std::size_t panel = task / pool_.rows.out, row = task % pool_.rows.out;
            const std::size_t vectors = (y.live(panel) + width<T> - 1) / width<T>, used = vectors * width<T>;
            for (std::size_t column = 0; column < pool_.columns.out; ++column)
              for (std::size_t first = 0; first < c_.filters; first += most) {
                const Range channels{first, std::min(c_.filters, first + most)};
                for (std::size_t tap = 0; tap < taps; ++tap)
                  detail::panel_pixel(p, x.panel(panel), window + tap * channels.size() * lanes,
                                      row * pool_.rows.stride + tap / pool_.columns.kernel,
                                      column * pool_.columns.stride + tap % pool_.columns.kernel, channels, lanes,
                                      vectors);
                const detail::Window at{1, taps, 0, channels.size() * lanes};
                const std::size_t to =
                    panel * y.stride() + ((row * pool_.columns.out + column) * c_.filters + first) * lanes;
                const std::size_t runs = used == lanes ? 1 : channels.size();
                for (std::size_t run = 0; run < runs; ++run) {
                  const std::size_t from = run * lanes, n = used == lanes ? channels.size() * lanes : used;
                  detail::largest(at, window + from, y.data + to + from, which ? which.data + to + from : nullptr, n);
                  if (f.apply != nullptr) f.apply(f.function, y.data + to + from, n);
                }
              }
          }
        });
  }

  /// From the gradient by the largest of each window, before f, to those of filters and, unless they are null, bias and
  /// input.
  void backward(const Matrix<T>& filters, Panels<const T> which, Panels<const T> dy, Panels<const T> x,
                const Matrix<T>& gradient, T* bias, Panels<T> dx, T* whole, T* scratch) const {
    if (bias != nullptr) map_sum<math::Identity, T>({}, nullptr, Features<T>{bias, c_.filters}, dy);
    if (!dx && dy.lanes > 1 && detail::by_dots<T>(c_))
      return detail::filters_by_dots(c_, detail::PooledRows<T>{pool_, which, dy}, x, gradient, scratch);
    const Panels<T> all{whole, c_.out_features(), dy.batch, dy.lanes};
    Pool<T>(pool_).largest_gradient(which, dy, all);
    Convolve<T>(c_).filters(all, x, gradient, nullptr, scratch);
    if (dx) Convolve<T>(c_).input(filters, all, dx, scratch);
  }

 private:
  static constexpr std::size_t window_bytes = 64 << 10, least_channels = 24;
  static constexpr std::size_t most_columns =
      detail::PooledRows<T>::bytes / (detail::dot_rows_at_once * most_lanes<T> * sizeof(T));

  /// What the windows cover of an axis.
  static std::size_t read(const ConvolutionAxis& a) { return (a.out - 1) * a.stride + a.kernel; }
  static std::size_t channels_at_once(const Convolution& pool, std::size_t lanes) {
    return window_bytes / (pool.taps() * lanes * sizeof(T));
  }

  Convolution c_, pool_;
};

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
