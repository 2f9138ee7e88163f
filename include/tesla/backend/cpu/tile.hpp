// The micro-kernel: one tile of a product, held in registers.
#pragma once

#include <tesla/backend/cpu/elementwise.hpp>
#include <tesla/backend/product.hpp>

#include <array>

namespace tesla::inline TESLA_TARGET::backend::cpu {

/// What happens to a finished tile while it is still in the first-level cache: a kernel over each of its rows.
template <class T>
struct Epilogue {
  MapKernel<T> kernel = nullptr;
  const void* context = nullptr;

  void operator()(T* row, std::size_t n) const {
    const Operand<T> in{row};
    kernel(context, row, &in, n);
  }
  explicit operator bool() const { return kernel != nullptr; }
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
  Epilogue<T> epilogue;
};

// A function of its own, never inlined: inlined into the driver its accumulators would spill. The weights are broadcast
// unpacked from wherever they lie; the loads of B serve all rows.
template <class T, std::size_t Rows, std::size_t Vectors>
[[gnu::noinline]] void tile(const TileArguments<T>& t) {
  constexpr std::size_t w = width<T>;
  T* const c = t.c;
  const std::ptrdiff_t c_row = t.c_row;
  unroll<Rows>([&](auto r) {
    unroll<(Vectors * w * sizeof(T) + cache_line - 1) / cache_line>(
        [&](auto line) { __builtin_prefetch(c + std::ptrdiff_t(r) * c_row + line * (cache_line / sizeof(T)), 1); });
  });

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
    for (std::size_t k = 0; k < depth; ++k, a += a_depth, b += b_depth) {
      Vector<T> columns[Vectors];
      unroll<Vectors>([&](auto v) { columns[v] = load_to_register(b + v * w); });
      unroll<Rows>([&](auto r) {
        const Vector<T> weight(a[std::ptrdiff_t(r) * a_row]);
        unroll<Vectors>([&](auto v) { sums[r][v] = xsimd::fma(weight, columns[v], sums[r][v]); });
      });
    }
  }

  if (t.accumulate)
    unroll<Rows>(
        [&](auto r) { unroll<Vectors>([&](auto v) { sums[r][v] += load(c + std::ptrdiff_t(r) * c_row + v * w); }); });
  unroll<Rows>(
      [&](auto r) { unroll<Vectors>([&](auto v) { store(c + std::ptrdiff_t(r) * c_row + v * w, sums[r][v]); }); });
  if (t.epilogue)
    for (std::size_t r = 0; r < Rows; ++r) t.epilogue(c + static_cast<std::ptrdiff_t>(r) * c_row, Vectors * w);
}

template <class T>
using TileFunction = void (*)(const TileArguments<T>&);

/// Vectors beside each other in the widest tile.
inline constexpr std::size_t max_vectors = registers == 32 ? 4 : 2;

/// Rows of the tallest tile of so many vectors: accumulators, the loaded vectors and a broadcast fit the registers, and
/// there are enough accumulators to hide the latency of a multiply-add.
constexpr std::size_t max_rows(std::size_t vectors) { return vectors == 1 ? 8 : 6; }

namespace detail {
template <class T, std::size_t Vectors, std::size_t... R>
constexpr std::array<TileFunction<T>, sizeof...(R)> tiles(std::index_sequence<R...>) {
  return {&tile<T, R + 1, Vectors>...};
}
template <class T, std::size_t Vectors>
inline constexpr auto tiles_of = tiles<T, Vectors>(std::make_index_sequence<max_rows(Vectors)>());
}  // namespace detail

/// The tile of so many rows and 1, 2 or 4 vectors.
template <class T>
TileFunction<T> tile_function(std::size_t rows, std::size_t vectors) {
  if constexpr (max_vectors == 4)
    if (vectors == 4) return detail::tiles_of<T, 4>[rows - 1];
  return vectors == 2 ? detail::tiles_of<T, 2>[rows - 1] : detail::tiles_of<T, 1>[rows - 1];
}

/// The widest tile for so many vectors.
constexpr std::size_t tile_vectors(std::size_t vectors) {
  return vectors >= 4 && max_vectors == 4 ? 4 : vectors >= 2 ? 2 : 1;
}

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
