// How sparse weights are cut and computed: values that follow from sizes alone.
#pragma once

#include <tesla/backend/contraction.hpp>
#include <tesla/network/sparse/layout.hpp>

#include <bit>
#include <cstdio>
#include <string>

namespace tesla::inline TESLA_TARGET::network::sparse {

/// How a matrix of some density is cut. It does not depend on a batch: the order of the values must not.
///
/// Rows want segments of some ten weights in each tile, with the tile's inputs in the first-level cache; columns want
/// longer ones, since they hold more in registers. Measured on 1024 x 1024 at batch 128.
[[gnu::cold]] inline Tiling tiling_for(std::size_t rows, std::size_t columns, double density, bool blocks) {
  const auto near = [&](double segment, std::size_t least) {
    const auto wanted = static_cast<std::size_t>(std::min(segment / density, double{SparseLayout::max_tile}));
    return std::clamp(std::bit_ceil(wanted), least, SparseLayout::max_tile);
  };
  const auto even = [](std::size_t size, std::size_t most, std::size_t group) {
    const std::size_t count = (size + most - 1) / most;
    return std::min(round_up((size + count - 1) / count, group), SparseLayout::max_tile);
  };
  const auto group_of = [](std::size_t size) -> std::size_t { return size >= 1024 ? 128 : size >= 256 ? 64 : 32; };
  Tiling t;
  t.block = blocks ? 4 : 1;
  t.group_rows = group_of(rows), t.group_columns = group_of(columns);
  // The threads share out rows of blocks backward by columns of tiles.
  const std::size_t across = blocks ? std::min(near(40, 256), std::max<std::size_t>(columns / 2, 256)) : near(10, 128);
  t.rows = even(rows, blocks ? 512 : near(40, 128), t.group_rows);
  t.columns = even(columns, across, t.group_columns);
  return t;
}

/// How a batch is computed.
struct Plan {
  std::size_t rows = 0, columns = 0, live = 0, block = 1, batch = 0;
  bool training = false;
  // Forward, or forward and both gradients: of the kernels for sparse weights, of a Dense layer, and of what computing
  // dense takes beside that in training, where values are put into a matrix and gradients taken out of one.
  double sparse_cycles = 0, dense_cycles = 0, moving_cycles = 0;

  bool dense() const { return dense_cycles + moving_cycles < sparse_cycles; }
  /// The speed expected, in that of a Dense layer.
  double times_dense() const { return dense_cycles / (dense() ? dense_cycles + moving_cycles : sparse_cycles); }
  double density() const {
    return static_cast<double>(live) / (static_cast<double>(rows) * static_cast<double>(columns));
  }
};

/// A backend without kernels for sparse weights computes dense; the others whatever takes less.
template <class T, class B>
[[gnu::cold]] Plan plan_for(const SparseLayout& l, std::size_t live, std::size_t batch, bool training) {
  Plan p{l.rows, l.columns, live, l.block, batch, training};
  if constexpr (requires { typename B::template Sparse<T>; }) {
    const backend::Throughput t = B::template throughput<T>();
    const auto number = [](std::size_t n) { return static_cast<double>(n); };
    const double width = number(t.width), per_cycle = t.multiply_adds;
    const bool single = batch == 1;
    const double vectors = number((batch + t.width - 1) / t.width);
    const double panels = std::max(1.0, vectors / 4), weights = number(l.count), blocks = weights / number(l.block);
    const double segments = number(l.order.segments.size()), twins = number(l.twin.segments.size());
    const bool rows_of_blocks = l.block > 1;
    double forward, backward;
    if (single) {
      forward = rows_of_blocks ? 9 * blocks + 12 * segments : 2 * weights + 12 * twins;
      backward = rows_of_blocks ? 11 * blocks + 12 * segments : 2.6 * weights + 8 * segments;
      // The dense weights are read once, and in training written as well, from wherever they are.
      const double size = number(l.rows) * number(l.columns);
      const double far = size * sizeof(T) > t.cache ? size * sizeof(T) / t.bytes : 0;
      p.dense_cycles = (training ? 4 : 1) * std::max(3 * size / width, far);
    } else {
      // A weight meets each vector of samples once; beyond that it costs its index and its value.
      forward = rows_of_blocks ? vectors * weights * 1.1 / per_cycle + panels * (blocks + 20 * segments)
                               : vectors * weights * 1.35 / per_cycle + panels * (1.2 * weights + 12 * twins);
      backward = rows_of_blocks ? vectors * weights * 2.3 / per_cycle + panels * (12 * blocks + 20 * segments)
                                : vectors * weights * 2.5 / per_cycle + panels * (4 * weights + 16 * segments);
      p.dense_cycles =
          number(l.rows) * number(l.columns) * (vectors * (training ? 3.3 : 1.07) + (training ? 3 : 0.3)) / per_cycle;
    }
    if (training) p.moving_cycles = number(l.rows) * number(l.columns) + 10 * weights;
    p.sparse_cycles = forward + (training ? backward + (rows_of_blocks ? 0 : 5 * weights) : 0);
  } else {
    p.sparse_cycles = 1;
  }
  return p;
}

/// A plan for people.
[[gnu::cold]] inline std::string plan_text(const Plan& p, const MemoryNeed&) {
  char line[256];
  std::snprintf(line, sizeof line, "%zu of %zu weights live (%.3g %%)%s; ", p.live, p.rows * p.columns,
                100 * p.density(), p.block > 1 ? ", computed in blocks of 4 x 1" : "");
  std::string result = line;
  if (p.sparse_cycles == 1 && p.dense_cycles == 0)
    return result + "computed dense, since this backend has no kernels for sparse weights\n";
  std::snprintf(line, sizeof line, "%s at batch %zu: computed %s, about %.2g times as fast as a Dense layer\n",
                p.training ? "training" : "predictions", p.batch, p.dense() ? "dense" : "sparse", p.times_dense());
  result += line;
  if (!p.dense() && p.times_dense() < 1)
    result += "  (to train dense, all weights would have to be moved in every step)\n";
  return result;
}

}  // namespace tesla::inline TESLA_TARGET::network::sparse
