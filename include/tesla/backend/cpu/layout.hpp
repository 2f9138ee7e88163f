// Between rows (one a sample, as users have them) and panels (the samples as lanes): a transposition in registers.
#pragma once

#include <tesla/backend/backend.hpp>
#include <tesla/backend/cpu/elementwise.hpp>
#include <tesla/core/parallel.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace tesla::inline TESLA_TARGET::backend::cpu {

// What all threads will read is written past the caches. A plain store to a line that another core has read before
// waits until that core has given it up, some 30 ns a line where the cores share no cache: gathering 64 x 784 values
// took 85 us with two threads, 9 with one, and takes 13 so. Small results are worth keeping near.
template <class T>
bool worth_streaming(const T* data, std::size_t stride, std::size_t size) {
  constexpr std::size_t least = 64 << 10;
  return threads() > 1 && size * sizeof(T) >= least && stride * sizeof(T) % cache_line == 0 &&
         reinterpret_cast<std::uintptr_t>(data) % cache_line == 0;
}

namespace detail {

template <bool Stream, class T>
[[gnu::always_inline]] inline void write(T* p, Vector<T> v) {
  if constexpr (Stream)
    stream(p, v);
  else
    store(p, v);
}

/// Samples that are gathered together: a whole cache line of lanes, where panels have that.
template <class T, std::size_t Samples>
struct Sources {
  const T* row[Samples];

  /// Writes the first `features` values of the rows into the lanes of a panel.
  template <bool Stream>
  void to_lanes(std::size_t features, T* lanes, std::size_t stride) const {
    constexpr std::size_t w = width<T>;
    std::size_t f = 0;
    for (; f + w <= features; f += w)
      for (std::size_t first = 0; first < Samples; first += w) {
        Vector<T> square[w];
        unroll<w>([&](auto s) { square[s] = load(row[first + s] + f); });
        transpose<T>(square);
        unroll<w>([&](auto i) { write<Stream>(lanes + (f + i) * stride + first, square[i]); });
      }
    for (; f < features; ++f)
      for (std::size_t s = 0; s < Samples; ++s) lanes[f * stride + s] = row[s][f];
  }

  /// Copies the first `count` rows, fetching ahead what `ahead(s)`, the row of sample s, will need.
  template <bool Stream, class Ahead>
  void copy(std::size_t count, std::size_t features, T* to, std::size_t stride, const Ahead& ahead) const {
    constexpr std::size_t line = cache_line / sizeof(T);
    for (std::size_t s = 0; s < count; ++s, to += stride) {
      const T *from = row[s], *const next = ahead(s + 2);
      std::size_t f = 0;
      for (; f + line <= features; f += line) {
        __builtin_prefetch(next + f);
        unroll<line / width<T>>([&](auto v) {
          constexpr std::size_t at = v * width<T>;
          write<Stream>(to + f + at, load(from + f + at));
        });
      }
      std::memcpy(to + f, from + f, (features - f) * sizeof(T));
    }
  }
};

template <class T, std::size_t Samples>
void gather_groups(const Rows& rows, Panels<T> out, Matrix<T> copy) {
  const ArrayView& array = *rows.array;
  const std::size_t features = out.features, per_panel = out.lanes / Samples;
  const bool direct = array.type() == element_type<T>() && array.contiguous_samples();
  const bool streams = Samples * sizeof(T) == cache_line && worth_streaming(out.data, out.lanes, out.size()) &&
                       (!copy || worth_streaming(copy.data, copy.stride, copy.rows * copy.stride));
  const auto group = [&](std::size_t number) {
    const std::size_t first = number * Samples;  // panels are whole groups, so lane and sample numbers agree
    if (first >= rows.count && number % per_panel != 0) return;
    T* const lanes = out.panel(number / per_panel) + number % per_panel * Samples;
    const auto sample = [&](std::size_t s) { return rows[std::min(first + s, rows.count - 1)]; };
    const std::size_t count = std::min(Samples, rows.count - std::min(first, rows.count));
    Sources<T, Samples> sources;
    if (direct) {
      const auto row = [&](std::size_t s) {
        return static_cast<const T*>(array.data()) + static_cast<std::ptrdiff_t>(sample(s)) * array.stride(0);
      };
      for (std::size_t s = 0; s < Samples; ++s) sources.row[s] = row(s);
      if (streams) {
        if (copy) sources.template copy<true>(count, features, copy.row(first), copy.stride, row);
        sources.template to_lanes<true>(features, lanes, out.lanes);
      } else {
        if (copy) sources.template copy<false>(count, features, copy.row(first), copy.stride, row);
        sources.template to_lanes<false>(features, lanes, out.lanes);
      }
      return;
    }
    constexpr std::size_t block = 64;
    T buffer[Samples][block];
    for (std::size_t s = 0; s < Samples; ++s) sources.row[s] = buffer[s];
    for (std::size_t f = 0; f < features; f += block) {
      const std::size_t now = std::min(block, features - f);
      for (std::size_t s = 0; s < Samples; ++s) {
        array.read(sample(s), f, now, buffer[s]);
        if (copy && s < count) std::memcpy(copy.row(first + s) + f, buffer[s], now * sizeof(T));
      }
      sources.template to_lanes<false>(now, lanes + f * out.lanes, out.lanes);
    }
  };
  parallel_for(out.panels() * per_panel, nanoseconds::transposed * static_cast<double>(Samples * features),
               [&](std::size_t begin, std::size_t end) {
                 for (std::size_t number = begin; number < end; ++number) group(number);
                 if (streams) end_streams();
               });
}

}  // namespace detail

/// Samples of any array into panels and, where `copy` is given, into rows. Unused lanes repeat the last sample, so that
/// they stay finite whatever a layer computes.
template <class T>
void gather(const Rows& rows, Panels<T> out, Matrix<T> copy) {
  constexpr std::size_t line = cache_line / sizeof(T);
  if (out.lanes == 1) {
    rows.array->read(rows[0], 0, out.features, out.data);
    if (copy) std::memcpy(copy.data, out.data, out.features * sizeof(T));
    return;
  }
  if (out.lanes % line == 0)
    detail::gather_groups<T, line>(rows, out, copy);
  else
    detail::gather_groups<T, width<T>>(rows, out, copy);
}

/// Panels to rows, one a sample, `stride` elements apart.
template <class T>
void panels_to_rows(Panels<const T> in, T* to, std::size_t stride) {
  constexpr std::size_t w = width<T>;
  if (in.batch == 0) return;
  if (in.lanes == 1) {
    std::memcpy(to, in.data, in.features * sizeof(T));
    return;
  }
  const bool streams = worth_streaming(to, stride, in.batch * stride);
  const std::size_t blocks = (in.features + w - 1) / w, groups = (in.batch + w - 1) / w;
  parallel_for(
      groups * blocks, nanoseconds::transposed * static_cast<double>(w * w), [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
          const std::size_t first = i / blocks * w, feature = i % blocks * w;
          const T* from = in.panel(first / in.lanes) + feature * in.lanes + first % in.lanes;
          const std::size_t samples = std::min(w, in.batch - first), features = std::min(w, in.features - feature);
          T* const corner = to + first * stride + feature;
          if (features < w || samples < w) {
            for (std::size_t s = 0; s < samples; ++s)
              for (std::size_t f = 0; f < features; ++f) corner[s * stride + f] = from[f * in.lanes + s];
            continue;
          }
          Vector<T> square[w];
          unroll<w>([&](auto f) { square[f] = load(from + f * in.lanes); });
          transpose<T>(square);
          if (streams)
            unroll<w>([&](auto s) { stream(corner + s * stride, square[s]); });
          else
            unroll<w>([&](auto s) { store(corner + s * stride, square[s]); });
        }
        if (streams) end_streams();
      });
}

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
