// What convolutions and their adjoints have in common: pixels made of what is read of another image.
//
// Every pixel is a small product of the filters with what they read, by the tiles that all products share. Nothing is
// copied to make a matrix of the image; taps beyond its border are left out.
#pragma once

#include <tesla/backend/convolution.hpp>
#include <tesla/backend/cpu/multiply.hpp>

namespace tesla::inline TESLA_TARGET::backend::cpu {

namespace detail {

/// One pass over the pixels of an image, each made of what is read of another one: outputs or, adjoint, inputs.
template <class T>
struct Correlation {
  Reading rows, columns;
  std::size_t groups, depth, made;  // of a group: channels that are read, channels that are made
  std::size_t from_width, to_width, from_channels, to_channels;
  // Panels: [channel made][tap of rows][tap of columns][channel read], a_row apart. A single sample:
  // [group][tap of rows][tap of columns][channel read][channel made], a_row apart.
  const T* weights;
  std::size_t a_row;
  const T* bias = nullptr;
  const Epilogue<T>* epilogue = nullptr;

  std::size_t made_at(std::size_t y, std::size_t x) const {
    return ((rows.first + y * rows.every) * to_width + columns.first + x * columns.every) * to_channels;
  }
  std::size_t read_at(std::size_t y, std::size_t x, Range down, Range along) const {
    if (down.size() == 0 || along.size() == 0) return 0;
    return (rows.input(y, down.begin) * from_width + columns.input(x, along.begin)) * from_channels;
  }
  /// Neighbouring taps of a row are one run where nothing lies between their channels.
  bool joined() const { return groups == 1 && columns.dilation == 1; }
  double multiply_adds() const {
    const auto n = [](std::size_t k) { return static_cast<double>(k); };
    return n(rows.count) * n(columns.count) * n(groups) * n(made) * n(depth) * n(rows.taps) * n(columns.taps);
  }
};

/// The outputs of a convolution.
template <class T>
Correlation<T> outputs_of(const Convolution& c, const Matrix<T>& filters, const T* bias, const Epilogue<T>& epilogue) {
  return {backend::outputs_of(c.rows),
          backend::outputs_of(c.columns),
          c.groups,
          c.group_channels(),
          c.group_filters(),
          c.columns.in,
          c.columns.out,
          c.channels,
          c.filters,
          filters.data,
          filters.stride,
          bias,
          epilogue ? &epilogue : nullptr};
}

/// Calls f(group, tap of columns, depth, whether it is the first run, whether it is the last) for what adds up to one
/// pixel, taps counted from the first one inside; once even if there is none.
template <class T, class F>
[[gnu::always_inline]] inline void each_run(const Correlation<T>& c, Range along, const F& f) {
  const std::size_t runs = c.joined() ? 1 : std::max<std::size_t>(along.size(), 1);
  const std::size_t depth = c.joined() ? along.size() * c.depth : along.size() == 0 ? 0 : c.depth;
  for (std::size_t group = 0; group < c.groups; ++group)
    for (std::size_t run = 0; run < runs; ++run) f(group, run, depth, run == 0, run + 1 == runs);
}

/// `channels` of those made of the pixel (y, x) of one panel, `vectors` of its lanes, written to `made`.
template <class T>
void panel_pixel(const Correlation<T>& c, const T* from, T* made, std::size_t y, std::size_t x, Range channels,
                 std::size_t lanes, std::size_t vectors) {
  constexpr std::size_t w = width<T>;
  const Range down = c.rows.taps_at(y), along = c.columns.taps_at(x);
  const T* const read = from + c.read_at(y, x, down, along) * lanes;
  const T* const weights = c.weights + (down.begin * c.columns.taps + along.begin) * c.depth;
  TileArguments<T> t{};
  t.segments = down.size();
  t.a_row = static_cast<std::ptrdiff_t>(c.a_row), t.a_depth = 1;
  t.a_segment = static_cast<std::ptrdiff_t>(c.columns.taps * c.depth);
  t.b_depth = static_cast<std::ptrdiff_t>(lanes);
  t.b_segment = static_cast<std::ptrdiff_t>(c.rows.dilation * c.from_width * c.from_channels * lanes);
  t.c_row = static_cast<std::ptrdiff_t>(lanes);
  each_run(c, along, [&](std::size_t group, std::size_t run, std::size_t depth, bool first, bool last) {
    const T* const in = read + (run * c.columns.dilation * c.from_channels + group * c.depth) * lanes;
    t.depth = t.last_depth = depth;
    t.accumulate = !first;
    t.epilogue = last ? c.epilogue : nullptr;
    for (std::size_t v = 0; v < vectors; v += tile_vectors(vectors - v)) {
      const std::size_t now = tile_vectors(vectors - v);
      t.b = in + v * w;
      for (std::size_t row = channels.begin; row < channels.end;) {
        const std::size_t height = next_height<T>(channels.end - row, now), channel = group * c.made + row;
        t.a = weights + channel * c.a_row + run * c.depth;
        t.c = made + (channel - channels.begin) * lanes + v * w;
        t.bias = first && c.bias != nullptr ? c.bias + channel : nullptr;
        tile_function<T>(height, now)(t);
        row += height;
      }
    }
  });
}

/// Neighbouring pixels of a single sample, from (y, x) on, that have the same taps inside.
template <class T>
void single_pixels(const Correlation<T>& c, const T* from, T* to, std::size_t y, Range pixels) {
  constexpr std::size_t w = width<T>, most = max_rows(1);
  const Range down = c.rows.taps_at(y), along = c.columns.taps_at(pixels.begin);
  const T* const read = from + c.read_at(y, pixels.begin, down, along);
  const std::size_t taps = c.rows.taps * c.columns.taps;
  const std::size_t first_tap = (down.begin * c.columns.taps + along.begin) * c.depth;
  TileArguments<T> t{};
  t.segments = down.size();
  t.a_row = static_cast<std::ptrdiff_t>(c.columns.step * c.from_channels), t.a_depth = 1;
  t.a_segment = static_cast<std::ptrdiff_t>(c.rows.dilation * c.from_width * c.from_channels);
  t.b_depth = static_cast<std::ptrdiff_t>(c.a_row);
  t.b_segment = static_cast<std::ptrdiff_t>(c.columns.taps * c.depth * c.a_row);
  t.accumulate = true;                                   // onto the bias, which goes along the lanes
  alignas(cache_line) T buffer[most * max_vectors * w];  // of channels that fill no vector
  each_run(c, along, [&](std::size_t group, std::size_t run, std::size_t depth, bool first, bool last) {
    const T* const weights = c.weights + (group * taps * c.depth + first_tap + run * c.depth) * c.a_row;
    const T* const in = read + run * c.columns.dilation * c.from_channels + group * c.depth;
    t.depth = t.last_depth = depth;
    for (std::size_t at = 0; at < c.made;) {
      const std::size_t left = c.made - at, vectors = tile_vectors((left + w - 1) / w), n = std::min(left, vectors * w);
      t.epilogue = last ? c.epilogue : nullptr;
      for (std::size_t x = pixels.begin; x < pixels.end;) {
        const std::size_t height = next_height<T>(pixels.end - x, vectors);
        T* const made = to + c.made_at(y, x) + group * c.made + at;
        const std::size_t apart = c.columns.every * c.to_channels;
        const bool whole = n == vectors * w;
        T* const sums = whole ? made : buffer;
        const std::size_t sums_row = whole ? apart : vectors * w;
        for (std::size_t r = 0; r < height; ++r) {
          if (first && c.bias != nullptr)
            std::copy_n(c.bias + group * c.made + at, n, sums + r * sums_row);
          else if (first)
            std::fill_n(sums + r * sums_row, n, T(0));
          else if (!whole)
            std::copy_n(made + r * apart, n, sums + r * sums_row);
          if (!whole) std::fill_n(sums + r * sums_row + n, vectors * w - n, T(0));
        }
        t.a = in + (x - pixels.begin) * c.columns.step * c.from_channels;
        t.b = weights + at;
        t.c = sums, t.c_row = static_cast<std::ptrdiff_t>(sums_row);
        tile_function<T>(height, vectors)(t);
        if (!whole)
          for (std::size_t r = 0; r < height; ++r) std::copy_n(sums + r * sums_row, n, made + r * apart);
        x += height;
      }
      at += n;
    }
  });
}

/// Calls f(pixels) for the longest ranges of some columns that have the same taps inside.
template <class F>
void each_even_range(const Reading& columns, Range all, const F& f) {
  for (std::size_t x = all.begin; x < all.end;) {
    const Range along = columns.taps_at(x);
    std::size_t end = x + 1;
    while (end < all.end && columns.taps_at(end).begin == along.begin && columns.taps_at(end).end == along.end) ++end;
    f(Range{x, end});
    x = end;
  }
}

template <class T>
void correlate(const Correlation<T>& c, Panels<const T> from, Panels<T> to) {
  constexpr std::size_t w = width<T>;
  if (to.batch == 0 || c.rows.count == 0 || c.columns.count == 0) return;
  const std::size_t panels = to.panels(), lanes = to.lanes;
  const double each = nanoseconds::multiply_add<T> * c.multiply_adds() / static_cast<double>(c.rows.count);
  parallel_for(panels * c.rows.count, each * static_cast<double>(lanes == 1 ? 2 : lanes),
               [&](std::size_t begin, std::size_t end) {
                 for (std::size_t task = begin; task < end; ++task) {
                   const std::size_t panel = task / c.rows.count, y = task % c.rows.count;
                   if (lanes == 1)
                     each_even_range(c.columns, {0, c.columns.count},
                                     [&](Range pixels) { single_pixels(c, from.data, to.data, y, pixels); });
                   else
                     for (std::size_t x = 0; x < c.columns.count; ++x)
                       panel_pixel(c, from.panel(panel), to.panel(panel) + c.made_at(y, x) * lanes, y, x, {0, c.made},
                                   lanes, (to.live(panel) + w - 1) / w);
                 }
               });
}

/// The same where each channel is made of itself alone: weights [channel][taps], `down` and `along` from tap to tap.
template <class T>
void correlate_channels(const Correlation<T>& c, std::ptrdiff_t down, std::ptrdiff_t along, Panels<const T> from,
                        Panels<T> to) {
  constexpr std::size_t w = width<T>;
  if (to.batch == 0) return;
  const std::size_t lanes = to.lanes;
  const double each = 2 * nanoseconds::multiply_add<T> * c.multiply_adds() / static_cast<double>(c.rows.count);
  const auto row_of = [&](std::size_t panel, std::size_t y, std::size_t x, std::size_t live) {
    const Range ys = c.rows.taps_at(y), xs = c.columns.taps_at(x);
    const T* const read = from.panel(panel) + c.read_at(y, x, ys, xs) * lanes;
    T* const made = to.panel(panel) + c.made_at(y, x) * lanes;
    const auto each_tap = [&](const auto& f) __attribute__((always_inline)) {
      for (std::size_t ty = ys.begin; ty < ys.end; ++ty)
        for (std::size_t tx = xs.begin; tx < xs.end; ++tx)
          f(static_cast<std::ptrdiff_t>(ty) * down + static_cast<std::ptrdiff_t>(tx) * along,
            ((ty - ys.begin) * c.rows.dilation * c.from_width + (tx - xs.begin) * c.columns.dilation) *
                c.from_channels * lanes);
    };
    for (std::size_t channel = 0; channel < c.to_channels; ++channel) {
      const T* const weights = c.weights + channel * c.a_row;
      const T start = c.bias != nullptr ? c.bias[channel] : T(0);
      const T* const in = read + channel * lanes;
      T* const out = made + channel * lanes;
      if (lanes == 1) {
        T total = start;
        each_tap([&](std::ptrdiff_t tap, std::size_t at) { total += weights[tap] * in[at]; });
        *out = total;
      } else {
        for (std::size_t lane = 0; lane < live; lane += w) {
          Vector<T> total(start);
          each_tap([&](std::ptrdiff_t tap, std::size_t at) {
            total = xsimd::fma(Vector<T>(weights[tap]), load(in + at + lane), total);
          });
          store(out + lane, total);
        }
      }
    }
    if (c.epilogue != nullptr) (*c.epilogue)(made, static_cast<std::ptrdiff_t>(lanes), 0, 0, 1, c.to_channels * lanes);
  };
  parallel_for(to.panels() * c.rows.count, each * static_cast<double>(lanes), [&](std::size_t begin, std::size_t end) {
    for (std::size_t task = begin; task < end; ++task)
      for (std::size_t x = 0; x < c.columns.count; ++x)
        row_of(task / c.rows.count, task % c.rows.count, x, to.live(task / c.rows.count));
  });
}

}  // namespace detail
}  // namespace tesla::inline TESLA_TARGET::backend::cpu
