// The micro-kernel: one tile of a product, held in registers.
#pragma once

#include <tesla/backend/cpu/elementwise.hpp>
#include <tesla/backend/product.hpp>

#include <array>

namespace tesla::inline TESLA_TARGET::backend::cpu {

/// What happens to a finished tile while it is still in the first-level cache: an elementwise function, or a step of an
/// optimizer whose gradient it is.
template <class T>
struct Epilogue {
  static constexpr std::size_t max_slots = 8;

  MapKernel<T> map = nullptr;
  UpdateKernel<T> update = nullptr;
  const void* context = nullptr;
  Matrix<T> value = {};                  // update: the parameter,
  std::array<T*, max_slots> slots = {};  // its optimizer state,
  std::size_t slot_count = 0;

  explicit operator bool() const { return map != nullptr || update != nullptr; }

  /// c, `rows` rows of n values, is the result from `row` and `column` on.
  void operator()(T* c, std::ptrdiff_t c_row, std::size_t row, std::size_t column, std::size_t rows,
                  std::size_t n) const {
    if (update != nullptr) return step(c, static_cast<std::size_t>(c_row), T(1), row, column, rows, n);
    for (; rows > 0; --rows, c += c_row) {
      const Operand<T> in{c};
      map(context, c, &in, n);
    }
  }
  /// The update, the gradient being scale * gradient[0, n) in each row.
  void step(const T* gradient, std::size_t stride, T scale, std::size_t row, std::size_t column, std::size_t rows,
            std::size_t n) const {
    const std::size_t offset = row * value.stride + column;
    std::array<T*, max_slots> at;
    for (std::size_t s = 0; s < slot_count; ++s) at[s] = slots[s] + offset;
    update(context, {value.data + offset, at.data(), value.stride, gradient, stride, scale, rows, n});
  }
};

/// One tile: where it starts in the operands, and the part of the depth to sum.
template <class T>
struct TileArguments {
  const T *a, *b;
  T* c;
  const T* bias;  // of the tile's first row; null: none
  std::size_t depth, segments, last_depth;
  std::ptrdiff_t a_row, a_depth, a_segment, b_depth, b_segment, c_row;
  bool accumulate;
  const Epilogue<T>* epilogue;  // null: none
  std::size_t row, column;      // of the result, where the tile begins
  // The rows of c come in groups: after `left` rows, and then after every `group`, the next lies c_skip further on.
  std::size_t left = ~std::size_t{0}, group = 0;
  std::ptrdiff_t c_skip = 0;
};

namespace detail {

/// Asks for n values from p on, to be changed.
template <class T>
[[gnu::always_inline]] inline void prefetch(const T* p, std::size_t n) {
  for (std::size_t i = 0; i < n; i += cache_line / sizeof(T)) __builtin_prefetch(p + i, 1);
}

}  // namespace detail

// A function of its own, never inlined: inlined into the driver its accumulators would spill. The weights are broadcast
// unpacked from wherever they lie; the loads of B serve all rows.
template <class T, std::size_t Rows, std::size_t Vectors>
[[gnu::noinline]] void tile(const TileArguments<T>& t) {
  constexpr std::size_t w = width<T>;
  T* c[Rows];
  unroll<Rows>([&, at = t.c, left = t.left](auto r) mutable {
    c[r] = at;
    at += t.c_row;
    if (--left == 0) at += t.c_skip, left = t.group;
  });
  // What the end of the tile changes is asked for at its beginning; a parameter and its optimizer state, many lines
  // that come from far away, row by row between the steps of the sum.
  const bool updates = t.epilogue != nullptr && t.epilogue->update != nullptr;
  const auto prefetch_row = [&](std::size_t r) {
    const Epilogue<T>& e = *t.epilogue;
    const std::size_t offset = (t.row + r) * e.value.stride + t.column;
    detail::prefetch(e.value.data + offset, Vectors * w);
    for (std::size_t s = 0; s < e.slot_count; ++s) detail::prefetch(e.slots[s] + offset, Vectors * w);
  };
  if (!updates) unroll<Rows>([&](auto r) { detail::prefetch(c[r], Vectors * w); });

  Vector<T> sums[Rows][Vectors];
  unroll<Rows>([&](auto r) {
    const Vector<T> start(t.bias != nullptr ? t.bias[r] : T(0));
    unroll<Vectors>([&](auto v) { sums[r][v] = start; });
  });

  const std::ptrdiff_t a_row = t.a_row, a_depth = t.a_depth, b_depth = t.b_depth;
  for (std::size_t segment = 0; segment < t.segments; ++segment) {
    const T* a = t.a + static_cast<std::ptrdiff_t>(segment) * t.a_segment;
    const T* b = t.b + static_cast<std::ptrdiff_t>(segment) * t.b_segment;
    const std::size_t depth = segment + 1 == t.segments ? t.last_depth : t.depth;
    const std::size_t parts = updates && segment + 1 == t.segments ? Rows : 1;
    for (std::size_t part = 0, k = 0; part < parts; ++part) {
      if (parts == Rows && updates) prefetch_row(part);
      const std::size_t end = part + 1 == parts ? depth : depth * (part + 1) / Rows;
      for (; k < end; ++k, a += a_depth, b += b_depth) {
        Vector<T> columns[Vectors];
        unroll<Vectors>([&](auto v) { columns[v] = load_to_register(b + v * w); });
        unroll<Rows>([&](auto r) {
          const Vector<T> weight(a[std::ptrdiff_t(r) * a_row]);
          unroll<Vectors>([&](auto v) { sums[r][v] = xsimd::fma(weight, columns[v], sums[r][v]); });
        });
      }
    }
  }

  if (t.accumulate) unroll<Rows>([&](auto r) { unroll<Vectors>([&](auto v) { sums[r][v] += load(c[r] + v * w); }); });
  unroll<Rows>([&](auto r) { unroll<Vectors>([&](auto v) { store(c[r] + v * w, sums[r][v]); }); });
  if (t.epilogue != nullptr) (*t.epilogue)(t.c, t.c_row, t.row, t.column, Rows, Vectors * w);
}

template <class T>
using TileFunction = void (*)(const TileArguments<T>&);

/// Vectors beside each other in the widest tile.
inline constexpr std::size_t max_vectors = registers == 32 ? 4 : 2;

/// The heights of tiles of so many vectors. The tallest have accumulators, the loaded vectors and a broadcast in the
/// registers. The widest tiles come in every height; of the others, which do the rest, there are a few.
inline constexpr std::array<std::size_t, 6> every_height{1, 2, 3, 4, 5, 6};
inline constexpr std::array<std::size_t, 5> wide_heights{1, 2, 4, 8, 12};
inline constexpr std::array<std::size_t, 4> narrow_heights{1, 2, 4, 8};

template <std::size_t Vectors>
constexpr const auto& tile_heights() {
  if constexpr (Vectors == max_vectors)
    return every_height;
  else if constexpr (Vectors == 2)
    return wide_heights;
  else
    return narrow_heights;
}
constexpr std::size_t max_rows(std::size_t vectors) { return vectors == max_vectors ? 6 : vectors == 1 ? 8 : 12; }

namespace detail {
template <class T, std::size_t Vectors>
constexpr auto tiles() {
  std::array<TileFunction<T>, max_rows(Vectors)> result{};
  constexpr auto heights = tile_heights<Vectors>();
  unroll<heights.size()>([&](auto i) { result[heights[i] - 1] = &tile<T, heights[i], Vectors>; });
  return result;
}
template <class T, std::size_t Vectors>
inline constexpr auto tiles_of = tiles<T, Vectors>();
}  // namespace detail

/// The tile of so many rows and 1, 2 or 4 vectors; null if there is none of that height.
template <class T>
TileFunction<T> tile_function(std::size_t rows, std::size_t vectors) {
  if constexpr (max_vectors == 4)
    if (vectors == 4) return detail::tiles_of<T, 4>[rows - 1];
  return vectors == 2 ? detail::tiles_of<T, 2>[rows - 1] : detail::tiles_of<T, 1>[rows - 1];
}

/// The height of the next tile where `rows` are left: cut evenly, rather than into full tiles and a thin rest.
template <class T>
std::size_t next_height(std::size_t rows, std::size_t vectors) {
  const std::size_t tallest = max_rows(vectors), tiles = (rows + tallest - 1) / tallest;
  std::size_t height = (rows + tiles - 1) / tiles;
  while (tile_function<T>(height, vectors) == nullptr) --height;
  return height;
}

/// The widest tile for so many vectors.
constexpr std::size_t tile_vectors(std::size_t vectors) {
  return vectors >= 4 && max_vectors == 4 ? 4 : vectors >= 2 ? 2 : 1;
}

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
