// Between rows (one a sample, as users have them) and panels (the samples as lanes): a transposition in registers.
#pragma once

#include <tesla/backend/backend.hpp>
#include <tesla/backend/cpu/elementwise.hpp>
#include <tesla/core/parallel.hpp>

#include <cstring>
#include <type_traits>

namespace tesla::inline TESLA_TARGET::backend::cpu {

namespace detail {

/// Writes the rows of width<T> samples, `features` values each, into the lanes of a panel.
template <class T>
void rows_to_lanes(const T* const (&rows)[width<T>], std::size_t features, T* lanes, std::size_t stride) {
  constexpr std::size_t w = width<T>;
  std::size_t f = 0;
  for (; f + w <= features; f += w) {
    Vector<T> block[w];
    unroll<w>([&](auto s) { block[s] = load(rows[s] + f); });
    transpose<T>(block);
    unroll<w>([&](auto i) { store(lanes + (f + i) * stride, block[i]); });
  }
  for (; f < features; ++f)
    for (std::size_t s = 0; s < w; ++s) lanes[f * stride + s] = rows[s][f];
}

}  // namespace detail

/// Samples of any array into panels and, where `copy` is given, into rows. Unused lanes repeat the last sample, so that
/// they stay finite whatever a layer computes.
template <class T>
void gather(const Rows& rows, Panels<T> out, Matrix<T> copy) {
  constexpr std::size_t w = width<T>;
  const ArrayView& array = *rows.array;
  const std::size_t features = out.features;
  const bool direct = array.type() == element_type<T>() && array.contiguous_samples();
  if (out.lanes == 1) {
    if (direct)
      std::memcpy(out.data,
                  static_cast<const T*>(array.data()) + static_cast<std::ptrdiff_t>(rows[0]) * array.stride(0),
                  features * sizeof(T));
    else
      array.read(rows[0], 0, features, out.data);
    if (copy) std::memcpy(copy.data, out.data, features * sizeof(T));
    return;
  }
  const std::size_t groups_per_panel = out.lanes / w;
  parallel_for(out.panels() * groups_per_panel, nanoseconds::transposed * static_cast<double>(w * features),
               [&](std::size_t begin, std::size_t end) {
                 for (std::size_t group = begin; group < end; ++group) {
                   const std::size_t first = group * w;  // panels are whole groups, so lane and sample numbers agree
                   if (first >= rows.count && group % groups_per_panel != 0 && first >= round_up(rows.count, w))
                     continue;
                   T* const lanes = out.panel(group / groups_per_panel) + group % groups_per_panel * w;
                   const auto sample = [&](std::size_t s) { return std::min(first + s, rows.count - 1); };
                   const T* sources[w];
                   if (direct) {
                     const auto row = [&](std::size_t s) {
                       return static_cast<const T*>(array.data()) +
                              static_cast<std::ptrdiff_t>(rows[s]) * array.stride(0);
                     };
                     for (std::size_t s = 0; s < w; ++s) sources[s] = row(sample(s));
                     if (copy) {
                       for (std::size_t s = 0; s < w && first + s < rows.count; ++s) {
                         const T* ahead = row(std::min(first + s + 2, rows.count - 1));
                         const T* from = sources[s];
                         T* const to = copy.row(first + s);
                         constexpr std::size_t line = cache_line / sizeof(T);
                         std::size_t f = 0;
                         for (; f + line <= features; f += line) {
                           __builtin_prefetch(ahead + f);
                           std::memcpy(to + f, from + f, cache_line);
                         }
                         std::memcpy(to + f, from + f, (features - f) * sizeof(T));
                       }
                       for (std::size_t s = 0; s < w; ++s) sources[s] = copy.row(sample(s));
                     }
                     detail::rows_to_lanes(sources, features, lanes, out.lanes);
                     continue;
                   }
                   constexpr std::size_t block = 64;
                   T buffer[w][block];
                   for (std::size_t s = 0; s < w; ++s) sources[s] = buffer[s];
                   for (std::size_t f = 0; f < features; f += block) {
                     const std::size_t count = std::min(block, features - f);
                     for (std::size_t s = 0; s < w; ++s) {
                       array.read(rows[sample(s)], f, count, buffer[s]);
                       if (copy && first + s < rows.count)
                         std::memcpy(copy.row(first + s) + f, buffer[s], count * sizeof(T));
                     }
                     detail::rows_to_lanes(sources, count, lanes + f * out.lanes, out.lanes);
                   }
                 }
               });
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
  const std::size_t blocks = (in.features + w - 1) / w, groups = (in.batch + w - 1) / w;
  parallel_for(
      groups * blocks, nanoseconds::transposed * static_cast<double>(w * w), [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
          const std::size_t first = i / blocks * w, feature = i % blocks * w;
          const T* from = in.panel(first / in.lanes) + feature * in.lanes + first % in.lanes;
          const std::size_t samples = std::min(w, in.batch - first), features = std::min(w, in.features - feature);
          T* const corner = to + first * stride + feature;
          if (features == w && samples == w) {
            Vector<T> square[w];
            unroll<w>([&](auto f) { square[f] = load(from + f * in.lanes); });
            transpose<T>(square);
            unroll<w>([&](auto s) { store(corner + s * stride, square[s]); });
          } else {
            for (std::size_t s = 0; s < samples; ++s)
              for (std::size_t f = 0; f < features; ++f) corner[s * stride + f] = from[f * in.lanes + s];
          }
        }
      });
}

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
