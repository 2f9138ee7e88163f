// Batch norm: sums over samples and pixels for each channel, and max pooling of normalised images, which are never
// written.
#pragma once

#include <tesla/backend/contraction.hpp>
#include <tesla/backend/cpu/pooling.hpp>

namespace tesla::inline TESLA_TARGET::backend::cpu {

namespace detail {

/// Shares channels among threads, some neighbours at a time, and calls f(first, count).
template <class F>
void each_channels(std::size_t channels, std::size_t values, double cost, const F& f) {
  const std::size_t blocks = (channels + sums_at_once - 1) / sums_at_once;
  parallel_for(blocks, cost * static_cast<double>(values) / static_cast<double>(blocks),
               [&](std::size_t begin, std::size_t end) {
                 for (std::size_t block = begin; block < end; ++block)
                   f(block * sums_at_once, std::min(sums_at_once, channels - block * sums_at_once));
               });
}

/// Ones for the lanes of a panel's last vector that hold samples, zeros for the others.
template <class T>
Vector<T> live_lanes(std::size_t live) {
  alignas(cache_line) T mask[width<T>];
  const std::size_t in_last = live - (live - 1) / width<T> * width<T>;
  for (std::size_t i = 0; i < width<T>; ++i) mask[i] = i < in_last ? T(1) : T(0);
  return load(static_cast<const T*>(mask));
}

}  // namespace detail

/// The mean and the variance of each channel. The squares of some pixels at a time are of what they differ from their
/// own mean, while they are in the first cache; so the image is fetched once, and large means cost no digits.
template <class T>
void moments(Panels<const T> x, Features<T> mean, Features<T> variance) {
  constexpr std::size_t w = width<T>, at_once = 16;  // pixels
  const std::size_t channels = mean.size, pixels = x.features / channels, lanes = x.lanes;
  detail::each_channels(channels, x.size(), nanoseconds::value<T>, [&](std::size_t first, std::size_t count) {
    std::array<double, detail::sums_at_once> seen{}, centre{}, squares{};
    const auto add = [&](std::size_t k, double n, double sum,
                         double around) {  // of n values, squares around their mean
      const double off = sum / n - centre[k], all = seen[k] + n;
      centre[k] += off * n / all, squares[k] += around + off * off * seen[k] * n / all, seen[k] = all;
    };
    for (std::size_t panel = 0; panel < x.panels(); ++panel) {
      const std::size_t live = x.live(panel), vectors = (live + w - 1) / w;
      const Vector<T> mask = detail::live_lanes<T>(live);
      for (std::size_t begin = 0; begin < pixels; begin += at_once) {
        const std::size_t now = std::min(at_once, pixels - begin);
        for (std::size_t k = 0; k < count; ++k) {
          const T* const from = x.panel(panel) + (begin * channels + first + k) * lanes;
          const auto total = [&](const auto& f) __attribute__((always_inline)) {
            if (lanes == 1) {
              T sums(0);
              for (std::size_t p = 0; p < now; ++p) sums += f(from[p * channels]);
              return sums;
            }
            Vector<T> sums(T(0)), last(T(0));
            for (std::size_t p = 0; p < now; ++p) {
              const T* const at = from + p * channels * lanes;
              for (std::size_t v = 0; v + 1 < vectors; ++v) sums += f(load(at + v * w));
              last += f(load(at + (vectors - 1) * w));
            }
            return sum<T>(xsimd::fma(last, mask, sums));
          };
          const double n = static_cast<double>(now * live);
          const T whole = total([](auto v) { return v; }), own = static_cast<T>(static_cast<double>(whole) / n);
          const T around = total([own](auto v) { return (v - decltype(v)(own)) * (v - decltype(v)(own)); });
          add(k, n, static_cast<double>(whole), static_cast<double>(around));
        }
      }
    }
    for (std::size_t k = 0; k < count; ++k) {
      mean.data[first + k] = static_cast<T>(centre[k]);
      variance.data[first + k] = static_cast<T>(squares[k] / std::max(seen[k], 1.0));
    }
  });
}

/// sums = the sum of d, along = the sum of d * (x - mean), for each channel.
template <class T>
void moment_sums(Panels<const T> d, Panels<const T> x, Features<const T> mean, Features<T> sums, Features<T> along) {
  constexpr std::size_t w = width<T>;
  const std::size_t channels = mean.size, pixels = x.features / channels, lanes = x.lanes;
  detail::each_channels(channels, x.size(), 2 * nanoseconds::value<T>, [&](std::size_t first, std::size_t count) {
    Vector<T> plain[detail::sums_at_once], times[detail::sums_at_once];
    for (std::size_t k = 0; k < count; ++k) plain[k] = times[k] = Vector<T>(T(0));
    for (std::size_t panel = 0; panel < x.panels() && lanes > 1; ++panel) {
      const std::size_t live = x.live(panel), vectors = (live + w - 1) / w;
      const Vector<T> mask = detail::live_lanes<T>(live);
      for (std::size_t p = 0; p < pixels; ++p)
        for (std::size_t k = 0; k < count; ++k) {
          const std::size_t at = panel * x.stride() + (p * channels + first + k) * lanes;
          const Vector<T> m(mean.data[first + k]);
          for (std::size_t v = 0; v < vectors; ++v) {
            Vector<T> up = load(d.data + at + v * w);
            if (v + 1 == vectors) up *= mask;
            plain[k] += up;
            times[k] = xsimd::fma(up, Vector<T>(load(x.data + at + v * w) - m), times[k]);
          }
        }
    }
    for (std::size_t k = 0; k < count; ++k) {
      sums.data[first + k] = sum<T>(plain[k]), along.data[first + k] = sum<T>(times[k]);
      for (std::size_t i = first + k; i < x.features && lanes == 1; i += channels)
        sums.data[first + k] += d.data[i], along.data[first + k] += d.data[i] * (x.data[i] - mean.data[first + k]);
    }
  });
}

/// Max pooling of images that are normalised on the way: (x - mean) * factor + shift, one of each a channel.
template <class T>
struct PooledNorm {
  const Convolution& pool;
  const T *mean, *factor, *shift;  // null: no shift

  static bool applies(const Convolution& pool) {
    const auto inside = [](const ConvolutionAxis& a) {
      return a.before == 0 && (a.out - 1) * a.stride + a.kernel <= a.in;
    };
    return windows_apart(pool) && inside(pool.rows) && inside(pool.columns);
  }

  /// y = f(the largest of each window); `which` and `won`, unless null, are told which one that was, and its x.
  void forward(Panels<const T> x, Panels<T> y, Panels<T> which, Panels<T> won, InPlace<T> f) const {
    const std::size_t lanes = x.lanes, channels = pool.channels, pixel = channels * lanes;
    const double cost = nanoseconds::value<T> * static_cast<double>(pool.columns.in * pool.rows.stride * pixel);
    parallel_for(y.panels() * pool.rows.out, cost, [&](std::size_t begin, std::size_t end) {
      for (std::size_t task = begin; task < end; ++task) {
        const std::size_t panel = task / pool.rows.out, row = task % pool.rows.out;
        const T* const from = x.panel(panel) + row * pool.rows.stride * pool.columns.in * pixel;
        const std::size_t to = panel * y.stride() + row * pool.columns.out * pixel;
        for (std::size_t column = 0; column < pool.columns.out; ++column)
          each_run(lanes, [&](std::size_t i, std::size_t n, Vector<T> m, Vector<T> s, Vector<T> b) {
            const T* const window = from + column * pool.columns.stride * pixel + i;
            const std::size_t out = to + column * pixel + i;
            Vector<T> most(T(0)), place(T(0)), raw(T(0)), number(T(0));
            for (std::size_t down = 0; down < pool.rows.kernel; ++down)
              for (std::size_t along = 0; along < pool.columns.kernel; ++along) {
                const Vector<T> in = load(window + (down * pool.columns.in + along) * pixel, n);
                const Vector<T> value = xsimd::fma(Vector<T>(in - m), s, b);
                if (down + along == 0) {
                  most = value, raw = in;
                } else {
                  const auto better = value > most;
                  most = xsimd::select(better, value, most), raw = xsimd::select(better, in, raw);
                  place = xsimd::select(better, number, place);
                }
                number += Vector<T>(T(1));
              }
            store(y.data + out, most, n);
            if (which) store(which.data + out, place, n);
            if (won) store(won.data + out, raw, n);
          });
        if (f.apply != nullptr) f.apply(f.function, y.data + to, pool.columns.out * pixel);
      }
    });
  }

  /// dx = factor * (d of the largest of each window, else 0) - factor * (sums + (x - mean) * along), per channel.
  void backward(Panels<const T> x, Panels<const T> which, Panels<const T> d, const T* sums, const T* along,
                Panels<T> dx) const {
    const std::size_t lanes = x.lanes, pixel = pool.channels * lanes;
    const double cost = 2 * nanoseconds::value<T> * static_cast<double>(pool.columns.in * pixel);
    parallel_for(x.panels() * pool.rows.in, cost, [&](std::size_t begin, std::size_t end) {
      for (std::size_t task = begin; task < end; ++task) {
        const std::size_t panel = task / pool.rows.in, y = task % pool.rows.in, down = y % pool.rows.stride;
        const bool row_read = down < pool.rows.kernel && y / pool.rows.stride < pool.rows.out;
        for (std::size_t column = 0; column < pool.columns.in; ++column) {
          const std::size_t across = column % pool.columns.stride;
          const bool read = row_read && across < pool.columns.kernel && column / pool.columns.stride < pool.columns.out;
          const std::size_t at = panel * x.stride() + (y * pool.columns.in + column) * pixel;
          const std::size_t window =
              panel * d.stride() + (y / pool.rows.stride * pool.columns.out + column / pool.columns.stride) * pixel;
          const Vector<T> number(static_cast<T>(down * pool.columns.kernel + across));
          each_run(lanes, [&](std::size_t i, std::size_t n, Vector<T> m, Vector<T> s, Vector<T>) {
            const Vector<T> g = value(along, i, lanes, n), all = value(sums, i, lanes, n);
            Vector<T> up = -xsimd::fma(Vector<T>(load(x.data + at + i, n) - m), g, all);
            if (read) {
              const auto won = load(which.data + window + i, n) == number;
              up += xsimd::select(won, load(d.data + window + i, n), Vector<T>(T(0)));
            }
            store(dx.data + at + i, up * s, n);
          });
        }
      }
    });
  }

 private:
  /// What belongs to `n` values from `i` on of a pixel.
  static Vector<T> value(const T* of, std::size_t i, std::size_t lanes, std::size_t n) {
    return lanes == 1 ? load(of + i, n) : Vector<T>(of[i / lanes]);
  }
  /// Calls f(place, how many, mean, factor, shift) for the vectors of one pixel.
  template <class F>
  [[gnu::always_inline]] void each_run(std::size_t lanes, const F& f) const {
    constexpr std::size_t w = width<T>;
    const Vector<T> none(T(0));
    if (lanes == 1) {
      for (std::size_t i = 0; i < pool.channels; i += w) {
        const std::size_t n = std::min(w, pool.channels - i);
        f(i, n, load(mean + i, n), load(factor + i, n), shift != nullptr ? load(shift + i, n) : none);
      }
      return;
    }
    for (std::size_t c = 0; c < pool.channels; ++c) {
      const Vector<T> m(mean[c]), s(factor[c]), b = shift != nullptr ? Vector<T>(shift[c]) : none;
      for (std::size_t i = 0; i < lanes; i += w) f(c * lanes + i, w, m, s, b);
    }
  }
};

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
