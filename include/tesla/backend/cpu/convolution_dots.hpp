// The gradient of filters that read few channels, which fill no vector: each weight has a vector of its own, with
// samples as lanes, which is summed in the end.
#pragma once

#include <tesla/backend/cpu/correlation.hpp>
#include <tesla/backend/cpu/layout.hpp>

namespace tesla::inline TESLA_TARGET::backend::cpu::detail {

/// sums[row][tap], a vector each, += dy[row] * x[tap] over `pixels` pixels and the lanes of a panel, of which the last
/// `mask`ed vector counts in part.
template <class T, std::size_t Rows, std::size_t Taps>
[[gnu::noinline]] void dots(const T* dy, const T* x, std::size_t pixels, std::size_t dy_pixel, std::size_t x_pixel,
                            std::size_t lanes, std::size_t vectors, const T* mask, T* sums, std::size_t sums_row) {
  constexpr std::size_t w = width<T>;
  Vector<T> total[Rows][Taps];
  unroll<Rows>([&](auto r) { unroll<Taps>([&](auto t) { total[r][t] = load(sums + r * sums_row + t * w); }); });
  const Vector<T> live = load(mask);
  for (; pixels > 0; --pixels, dy += dy_pixel, x += x_pixel)
    for (std::size_t v = 0; v < vectors; ++v) {
      Vector<T> in[Taps];
      unroll<Taps>([&](auto t) { in[t] = load_to_register(x + t * lanes + v * w); });
      if (v + 1 == vectors) unroll<Taps>([&](auto t) { in[t] *= live; });
      unroll<Rows>([&](auto r) {
        const Vector<T> d = load_to_register(dy + r * lanes + v * w);
        unroll<Taps>([&](auto t) { total[r][t] = xsimd::fma(d, in[t], total[r][t]); });
      });
    }
  unroll<Rows>([&](auto r) { unroll<Taps>([&](auto t) { store(sums + r * sums_row + t * w, total[r][t]); }); });
}

inline constexpr std::size_t dot_rows_at_once = 4, dot_taps_at_once = 3;

template <class T>
using DotFunction = void (*)(const T*, const T*, std::size_t, std::size_t, std::size_t, std::size_t, std::size_t,
                             const T*, T*, std::size_t);
/// Of 1, 2 or 4 rows and 1 to 3 taps.
template <class T>
DotFunction<T> dot_function(std::size_t rows, std::size_t taps) {
  static constexpr DotFunction<T> functions[3][3] = {{&dots<T, 1, 1>, &dots<T, 1, 2>, &dots<T, 1, 3>},
                                                     {&dots<T, 2, 1>, &dots<T, 2, 2>, &dots<T, 2, 3>},
                                                     {&dots<T, 4, 1>, &dots<T, 4, 2>, &dots<T, 4, 3>}};
  return functions[rows == 4 ? 2 : rows - 1][taps - 1];
}

/// A run of pixels of some filters' gradients.
template <class T>
struct PixelRun {
  const T* data;
  std::size_t pixel;  // from one to the next
};

/// Gradients by the outputs of a convolution, as they are. What filters_by_dots reads offers this.
template <class T>
struct WholeRows {
  struct Room {};  // for a run of pixels, where they have to be made
  const Convolution& c;
  Panels<const T> dy;

  /// How many pixels of one row are read at a time.
  std::size_t pixels_at_once() const { return c.columns.out; }
  /// `count` filters from `f` on, at some pixels of row `y`.
  PixelRun<T> pixels(std::size_t panel, std::size_t y, Range pixels, std::size_t f, std::size_t /*count*/,
                     Room&) const {
    return {dy.panel(panel) + ((y * c.columns.out + pixels.begin) * c.filters + f) * dy.lanes, c.filters * dy.lanes};
  }
};

/// Whether this is the way.
template <class T>
bool by_dots(const Convolution& c) {
  return c.group_channels() < width<T>;
}
/// Elements that filters_by_dots needs.
template <class T>
std::size_t dot_sums(const Convolution& c) {
  return c.filters * c.depth() * width<T>;
}

/// The gradient of the filters.
template <class T, class Rows>
void filters_by_dots(const Convolution& c, const Rows& dy, Panels<const T> x, const Matrix<T>& gradient, T* sums) {
  constexpr std::size_t w = width<T>;
  const std::size_t each = c.group_filters(), channels = c.group_channels(), depth = c.depth(), lanes = x.lanes;
  const std::size_t tiles = (each + dot_rows_at_once - 1) / dot_rows_at_once;
  const Reading columns = outputs_of(c.columns);
  const bool joined = c.groups == 1 && c.columns.dilation == 1;
  const double cost = nanoseconds::multiply_add<T> *
                      static_cast<double>(c.rows.out * c.columns.out * dot_rows_at_once * depth * x.batch);
  parallel_for(c.groups * tiles, cost, [&](std::size_t begin, std::size_t end) {
    typename Rows::Room room;
    for (std::size_t task = begin; task < end; ++task) {
      const std::size_t group = task / tiles, f0 = task % tiles * dot_rows_at_once;
      const std::size_t here = std::min(dot_rows_at_once, each - f0), f = group * each + f0;
      T* const own = sums + f * depth * w;
      std::fill_n(own, here * depth * w, T(0));
      for (std::size_t panel = 0; panel < x.panels(); ++panel) {
        const std::size_t live = x.live(panel), vectors = (live + w - 1) / w;
        alignas(cache_line) T mask[w];
        for (std::size_t i = 0; i < w; ++i) mask[i] = (vectors - 1) * w + i < live ? T(1) : T(0);
        const auto run = [&](const T* up, std::size_t up_pixel, std::size_t in, std::size_t pixels, std::size_t tap,
                             std::size_t column, std::size_t taps) {
          // `taps` weights from `tap` on, which meet what lies beside each other from the pixel `column` on.
          const T* const from = x.panel(panel) + ((in * c.columns.in + column) * c.channels + group * channels) * lanes;
          for (std::size_t r = 0; r < here;) {
            const std::size_t rows = here - r >= 4 ? 4 : here - r >= 2 ? 2 : 1;
            for (std::size_t k = 0; k < taps; k += dot_taps_at_once)
              dot_function<T>(rows, std::min(dot_taps_at_once, taps - k))(
                  up + r * lanes, from + k * lanes, pixels, up_pixel, c.columns.stride * c.channels * lanes, lanes,
                  vectors, mask, own + (r * depth + tap + k) * w, depth * w);
            r += rows;
          }
        };
        const auto some_pixels = [&](std::size_t y, Range now) {
          const PixelRun<T> up = dy.pixels(panel, y, now, f, here, room);
          for (std::size_t ky = 0; ky < c.rows.kernel; ++ky) {
            if (const Range at = outputs_at(c.rows, ky); y < at.begin || y >= at.end) continue;
            const std::size_t in = y * c.rows.stride + ky * c.rows.dilation - c.rows.before;
            const auto within = [&](Range p) { return Range{std::max(p.begin, now.begin), std::min(p.end, now.end)}; };
            const auto at = [&](Range p) { return up.data + (p.begin - now.begin) * up.pixel; };
            if (joined)
              each_even_range(columns, now, [&](Range pixels) {
                const Range along = columns.taps_at(pixels.begin);
                if (along.size() != 0)
                  run(at(pixels), up.pixel, in, pixels.size(), (ky * c.columns.kernel + along.begin) * channels,
                      columns.input(pixels.begin, along.begin), along.size() * channels);
              });
            else
              for (std::size_t kx = 0; kx < c.columns.kernel; ++kx)
                if (const Range p = within(outputs_at(c.columns, kx)); p.begin < p.end)
                  run(at(p), up.pixel, in, p.size(), (ky * c.columns.kernel + kx) * channels,
                      p.begin * c.columns.stride + kx * c.columns.dilation - c.columns.before, channels);
          }
        };
        const std::size_t most = dy.pixels_at_once();
        for (std::size_t y = 0; y < c.rows.out; ++y)
          for (std::size_t first = 0; first < c.columns.out; first += most)
            some_pixels(y, {first, std::min(c.columns.out, first + most)});
      }
      for (std::size_t r = 0; r < here; ++r)
        for (std::size_t k = 0; k < depth; ++k) gradient.row(f + r)[k] = sum<T>(load(own + (r * depth + k) * w));
    }
  });
}

}  // namespace tesla::inline TESLA_TARGET::backend::cpu::detail
