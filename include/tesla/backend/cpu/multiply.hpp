// Matrix products: the driver that cuts a Product into tiles and shares them among threads, and the two forms for a
// single column (a batch of one), whose lanes are rows or depth instead.
#pragma once

#include <tesla/backend/cpu/tile.hpp>
#include <tesla/core/parallel.hpp>

#include <algorithm>

namespace tesla::inline TESLA_TARGET::backend::cpu {

namespace detail {

inline constexpr std::size_t rows_at_once = 4;  // of dot_rows

/// One column of A with contiguous rows (a_depth = 1): dot products. `begin` is a multiple of rows_at_once, because the
/// compiler may round the ends of rows that are done together otherwise than those of one alone.
template <class T>
void dot_rows(const Product<T>& p, const Epilogue<T>& epilogue, std::size_t begin, std::size_t end) {
  constexpr std::size_t w = width<T>;
  const std::size_t whole = p.depth / w * w;
  const auto rows = [&](std::size_t r, auto count) {
    constexpr std::size_t n = decltype(count)::value;
    Vector<T> sums[n][2];
    unroll<n>([&](auto i) { sums[i][0] = sums[i][1] = Vector<T>(T(0)); });
    const T* a = p.a + static_cast<std::ptrdiff_t>(r) * p.a_row;
    std::size_t k = 0;
    for (; k + 2 * w <= whole; k += 2 * w) {
      const Vector<T> x0 = load(p.b + k), x1 = load(p.b + k + w);
      unroll<n>([&](auto i) {
        const T* row = a + std::ptrdiff_t(i) * p.a_row + k;
        sums[i][0] = xsimd::fma(load(row), x0, sums[i][0]);
        sums[i][1] = xsimd::fma(load(row + w), x1, sums[i][1]);
      });
    }
    if (k < whole) {
      const Vector<T> x0 = load(p.b + k);
      unroll<n>([&](auto i) { sums[i][0] = xsimd::fma(load(a + std::ptrdiff_t(i) * p.a_row + k), x0, sums[i][0]); });
    }
    unroll<n>([&](auto i) {
      T total = sum<T>(sums[i][0] + sums[i][1]);
      for (std::size_t tail = whole; tail < p.depth; ++tail)
        total += a[std::ptrdiff_t(i) * p.a_row + static_cast<std::ptrdiff_t>(tail)] * p.b[tail];
      T& c = p.c[static_cast<std::ptrdiff_t>(r + i) * p.c_row];
      c = (p.accumulate ? c : T(0)) + total + (p.bias != nullptr ? p.bias[r + i] : T(0));
    });
  };
  std::size_t r = begin;
  for (; r + rows_at_once <= end; r += rows_at_once) rows(r, std::integral_constant<std::size_t, rows_at_once>());
  for (; r < end; ++r) rows(r, std::integral_constant<std::size_t, 1>());
  if (epilogue) epilogue(p.c + begin, 0, begin, 0, 1, end - begin);
}

/// One column of a transposed A (a_row = 1): sums of rows, the lanes being C's rows, kept in registers over the depth.
template <class T>
void sum_rows(const Product<T>& p, const Epilogue<T>& epilogue, std::size_t begin, std::size_t end) {
  constexpr std::size_t w = width<T>;
  const auto strip = [&](std::size_t r, auto vectors) {
    constexpr std::size_t n = decltype(vectors)::value;
    Vector<T> sums[n];
    unroll<n>([&](auto v) {
      sums[v] = p.accumulate ? load(p.c + r + v * w) : Vector<T>(T(0));
      if (p.bias != nullptr) sums[v] += load(p.bias + r + v * w);
    });
    const T* a = p.a + r;
    for (std::size_t k = 0; k < p.depth; ++k, a += p.a_depth) {
      const Vector<T> x(p.b[k]);
      unroll<n>([&](auto v) { sums[v] = xsimd::fma(x, load(a + v * w), sums[v]); });
    }
    unroll<n>([&](auto v) { store(p.c + r + v * w, sums[v]); });
  };
  std::size_t r = begin;
  for (; r + 8 * w <= end; r += 8 * w) strip(r, std::integral_constant<std::size_t, 8>());
  for (; r + w <= end; r += w) strip(r, std::integral_constant<std::size_t, 1>());
  for (; r < end; ++r) {
    T total = p.accumulate ? p.c[r] : T(0);
    if (p.bias != nullptr) total += p.bias[r];
    for (std::size_t k = 0; k < p.depth; ++k)
      total += p.b[k] * p.a[static_cast<std::ptrdiff_t>(k) * p.a_depth + static_cast<std::ptrdiff_t>(r)];
    p.c[r] = total;
  }
  if (epilogue) epilogue(p.c + begin, 0, begin, 0, 1, end - begin);
}

/// The columns of a product cut into blocks of at most max_vectors vectors, over all items.
struct ColumnBlocks {
  std::size_t width, columns, last_columns, count;

  std::size_t per_item() const { return (columns + width - 1) / width; }
  std::size_t in_last() const { return (last_columns + width - 1) / width; }
  std::size_t size() const { return (count - 1) * per_item() + in_last(); }
};

/// As many tiles as it takes for so many rows; mostly one.
template <class T>
[[gnu::always_inline]] inline void tiles_of_rows(const TileArguments<T>& t, std::size_t rows, std::size_t vectors) {
  if (const TileFunction<T> whole = tile_function<T>(rows, vectors)) return whole(t);
  TileArguments<T> part = t;
  while (rows > 0) {
    const std::size_t height = next_height<T>(rows, vectors);
    const auto down = static_cast<std::ptrdiff_t>(height);
    tile_function<T>(height, vectors)(part);
    part.a += down * t.a_row, part.c += down * t.c_row, part.row += height, rows -= height;
    if (part.bias != nullptr) part.bias += height;
  }
}

template <class T>
void multiply_tiles(const Product<T>& p, const Epilogue<T>& epilogue) {
  constexpr std::size_t w = width<T>;
  // Deep products are summed in several rounds. Where A is walked down a column, each step of the depth touches another
  // page; a narrow tile, with few cycles a step, needs those lines in the first-level cache.
  const std::size_t depth_block = (max_vectors == 4 || p.a_depth == 1 ? 8192 : 1024) / sizeof(T);
  const std::size_t last_columns = p.last_columns != 0 ? p.last_columns : p.columns;
  const ColumnBlocks blocks{std::min(max_vectors * w, p.columns), p.columns, last_columns, p.count};
  const bool stores = epilogue.update == nullptr;
  const std::size_t rounds =
      stores && p.segments == 1 ? std::max<std::size_t>((p.depth + depth_block - 1) / depth_block, 1) : 1;

  // Rows are cut evenly, not into full tiles and a thin rest.
  const std::size_t tallest = std::min(max_rows(blocks.width / w), max_rows(1));  // narrower blocks come last
  const std::size_t row_tiles = (p.rows + tallest - 1) / tallest;
  const auto row_begin = [&](std::size_t i) { return p.rows * i / row_tiles; };

  // Blocks of columns that share the second-level cache; the rows of A run past each group once.
  const std::size_t block_bytes =
      std::max<std::size_t>(std::min(p.depth, depth_block) * p.segments * blocks.width * sizeof(T), 1);
  const std::size_t group = std::clamp<std::size_t>((std::size_t{512} << 10) / block_bytes, 1, blocks.size());
  const std::size_t groups = (blocks.size() + group - 1) / group;

  const double each = nanoseconds::multiply_add<T> * p.multiply_adds() / static_cast<double>(row_tiles * groups);
  parallel_for(row_tiles * groups, each, [&](std::size_t begin, std::size_t end) {
    for (std::size_t round = 0; round < rounds; ++round) {
      TileArguments<T> t{};
      const std::size_t depth_begin = rounds == 1 ? 0 : p.depth * round / rounds;
      const std::size_t depth_end = rounds == 1 ? p.depth : p.depth * (round + 1) / rounds;
      t.depth = depth_end - depth_begin;
      t.last_depth = p.last_depth != 0 ? p.last_depth : t.depth;
      t.segments = p.segments;
      t.a_row = p.a_row, t.a_depth = p.a_depth, t.a_segment = p.a_segment;
      t.b_depth = p.b_depth, t.b_segment = p.b_segment;
      // The gradient of an update is not stored, but for the tile at hand.
      alignas(cache_line) T buffer[max_rows(1) * max_vectors * w];
      t.c_row = stores ? p.c_row : static_cast<std::ptrdiff_t>(max_vectors * w);
      t.accumulate = p.accumulate || round > 0;
      t.epilogue = epilogue && round + 1 == rounds ? &epilogue : nullptr;
      const auto depth_offset = static_cast<std::ptrdiff_t>(depth_begin);
      for (std::size_t i = begin; i < end; ++i) {
        const std::size_t r0 = row_begin(i % row_tiles), r1 = row_begin(i % row_tiles + 1);
        t.bias = p.bias != nullptr && round == 0 ? p.bias + r0 : nullptr;
        const std::size_t first = i / row_tiles * group, last = std::min(first + group, blocks.size());
        for (std::size_t block = first; block < last; ++block) {
          const std::size_t item = block / blocks.per_item(), column = block % blocks.per_item() * blocks.width;
          std::size_t vectors = std::min((item + 1 == p.count ? last_columns : p.columns) - column, blocks.width) / w;
          const auto offset = static_cast<std::ptrdiff_t>(item), row = static_cast<std::ptrdiff_t>(r0);
          t.a = p.a + offset * p.a_item + row * p.a_row + depth_offset * p.a_depth;
          t.b = p.b + offset * p.b_item + depth_offset * p.b_depth + column;
          t.c = stores ? p.c + offset * p.c_item + row * p.c_row + column : buffer;
          t.row = r0, t.column = column;
          while (vectors > 0) {
            const std::size_t now = tile_vectors(vectors);
            tiles_of_rows(t, r1 - r0, now);
            t.b += now * w, t.column += now * w, vectors -= now;
            if (stores) t.c += now * w;
          }
        }
      }
    }
  });
}

/// Any shape, element by element: for columns that do not fill vectors. Layers have panels, and do not come here.
template <class T>
[[gnu::noinline]] void multiply_elements(const Product<T>& p, const Epilogue<T>& epilogue) {
  constexpr std::size_t run = 64;  // columns at a time
  const auto i = [](std::size_t n) { return static_cast<std::ptrdiff_t>(n); };
  const auto element = [&](std::size_t item, std::size_t row, std::size_t column) {
    T total = p.bias != nullptr ? p.bias[row] : T(0);
    for (std::size_t s = 0; s < p.segments; ++s) {
      const std::size_t depth = s + 1 == p.segments && p.last_depth != 0 ? p.last_depth : p.depth;
      const T* a = p.a + i(item) * p.a_item + i(s) * p.a_segment + i(row) * p.a_row;
      const T* b = p.b + i(item) * p.b_item + i(s) * p.b_segment + i(column);
      for (std::size_t k = 0; k < depth; ++k) total += a[i(k) * p.a_depth] * b[i(k) * p.b_depth];
    }
    return total;
  };
  parallel_for(p.count * p.rows, p.multiply_adds() / static_cast<double>(p.count * p.rows),  // a nanosecond each
               [&](std::size_t begin, std::size_t end) {
                 T buffer[run];
                 for (std::size_t at = begin; at < end; ++at) {
                   const std::size_t item = at / p.rows, row = at % p.rows;
                   const std::size_t columns = item + 1 == p.count && p.last_columns != 0 ? p.last_columns : p.columns;
                   for (std::size_t first = 0; first < columns; first += run) {
                     const std::size_t n = std::min(run, columns - first);
                     T* const c =
                         epilogue.update != nullptr ? buffer : p.c + i(item) * p.c_item + i(row) * p.c_row + i(first);
                     for (std::size_t k = 0; k < n; ++k)
                       c[k] = (p.accumulate ? c[k] : T(0)) + element(item, row, first + k);
                     if (epilogue) epilogue(c, 0, row, first, 1, n);
                   }
                 }
               });
}

}  // namespace detail

template <class T>
void multiply(Product<T> p, const Epilogue<T>& epilogue) {
  if (p.count == 0 || p.rows == 0 || p.columns == 0) return;
  if (p.segments == 1 && p.last_depth != 0) p.depth = p.last_depth, p.last_depth = 0;
  if (epilogue.update == nullptr && p.columns == 1 && p.count == 1 && p.segments == 1 && p.b_depth == 1 &&
      p.c_row == 1) {
    if (p.a_depth == 1) {
      constexpr std::size_t group = detail::rows_at_once;
      parallel_for((p.rows + group - 1) / group, nanoseconds::streamed<T> * static_cast<double>(p.depth * group),
                   [&](std::size_t begin, std::size_t end) {
                     detail::dot_rows(p, epilogue, begin * group, std::min(end * group, p.rows));
                   });
      return;
    }
    if (p.a_row == 1) {
      constexpr std::size_t strip = cache_line / sizeof(T);
      parallel_for((p.rows + strip - 1) / strip, nanoseconds::streamed<T> * static_cast<double>(p.depth * strip),
                   [&](std::size_t begin, std::size_t end) {
                     detail::sum_rows(p, epilogue, begin * strip, std::min(end * strip, p.rows));
                   });
      return;
    }
  }
  if (p.columns % width<T> == 0 && p.last_columns % width<T> == 0)
    detail::multiply_tiles(p, epilogue);
  else
    detail::multiply_elements(p, epilogue);
}

/// A step of an optimizer whose gradient is a product, which is never stored.
template <class T>
void update_product(const Product<T>& p, const Epilogue<T>& epilogue) {
  if (p.segments != 1 || p.depth != 1 || p.last_depth > 1) return multiply(p, epilogue);
  // The outer product of a single sample: bound by memory.
  parallel_for(p.rows, nanoseconds::update<T> * static_cast<double>(p.columns),
               [&](std::size_t begin, std::size_t end) {
                 // From the last row to the first: the forward pass came the other way, so what it read last is still
                 // in the cache.
                 for (std::size_t r = end; r-- > begin;)
                   epilogue.step(p.b, 0, p.a[static_cast<std::ptrdiff_t>(r) * p.a_row], r, 0, 1, p.columns);
               });
}

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
