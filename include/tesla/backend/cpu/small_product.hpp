// Products and transpositions on the calling thread, of blocks that are in its cache: what depth-first contractions are
// made of.
#pragma once

#include <tesla/backend/cpu/tile.hpp>

#include <algorithm>

namespace tesla::inline TESLA_TARGET::backend::cpu {

namespace detail {

/// Rows in groups: within a group they lie `row` apart, the groups `group` apart.
template <class T>
struct GroupedRows {
  const T* data;
  std::size_t in_group, group, row;

  const T* operator[](std::size_t r) const { return data + r / in_group * group + r % in_group * row; }
};

/// to[c][r] = rows[r][c], for columns in whole vectors. Rows are filled up with zeros to whole vectors as well.
template <class T>
[[gnu::noinline]] void transpose_rows(const GroupedRows<T>& from_rows, std::size_t rows, std::size_t columns, T* to,
                                      std::size_t to_stride) {
  constexpr std::size_t w = width<T>;
  for (std::size_t r = 0; r < rows; r += w) {
    const std::size_t live = std::min(w, rows - r);
    const T* from[w];
    for (std::size_t k = 0; k < w; ++k) from[k] = from_rows[r + std::min(k, live - 1)];
    for (std::size_t c = 0; c < columns; c += w) {
      Vector<T> square[w];
      unroll<w>([&](auto k) { square[k] = load(from[k] + c); });
      if (live < w)
        for (std::size_t k = live; k < w; ++k) square[k] = Vector<T>(T(0));
      transpose<T>(square);
      unroll<w>([&](auto k) { store(to + (c + k) * to_stride + r, square[k]); });
    }
  }
}

/// A product on the calling thread, for operands that are in its cache. Columns fill whole vectors. The rows of C come
/// in groups, `skip` further apart than within a group; 0: there is one group.
template <class T>
[[gnu::noinline]] void multiply_here(const Product<T>& p, std::size_t group = 0, std::ptrdiff_t skip = 0) {
  constexpr std::size_t w = width<T>;
  TileArguments<T> t{};
  t.depth = p.depth, t.last_depth = p.last_depth != 0 ? p.last_depth : p.depth, t.segments = p.segments;
  t.a_row = p.a_row, t.a_depth = p.a_depth, t.a_segment = p.a_segment;
  t.b_depth = p.b_depth, t.b_segment = p.b_segment, t.c_row = p.c_row;
  t.accumulate = p.accumulate;
  // Items that share B are done block by block of its columns, which stay in the first-level cache.
  const bool shared = p.b_item == 0;
  const std::size_t outer = shared ? 1 : p.count, inner = shared ? p.count : 1;
  for (std::size_t o = 0; o < outer; ++o)
    for (std::size_t column = 0; column < p.columns;) {
      const std::size_t vectors = tile_vectors((p.columns - column) / w);
      for (std::size_t i = o; i < o + inner; ++i) {
        const auto item = static_cast<std::ptrdiff_t>(i);
        t.b = p.b + item * p.b_item + column;
        for (std::size_t r = 0; r < p.rows;) {
          const std::size_t height = next_height<T>(p.rows - r, vectors);
          const auto row = static_cast<std::ptrdiff_t>(r);
          t.a = p.a + item * p.a_item + row * p.a_row;
          t.c = p.c + item * p.c_item + row * p.c_row + column;
          if (group != 0) {
            t.c += static_cast<std::ptrdiff_t>(r / group) * skip;
            t.left = group - r % group, t.group = group, t.c_skip = skip;
          }
          tile_function<T>(height, vectors)(t);
          r += height;
        }
      }
      column += vectors * w;
    }
}

}  // namespace detail

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
