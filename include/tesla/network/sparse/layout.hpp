// From patterns to the tiles that kernels read, and back.
#pragma once

#include <tesla/backend/sparse.hpp>
#include <tesla/network/sparse/pattern.hpp>

#include <array>
#include <numeric>

namespace tesla::inline TESLA_TARGET::network::sparse {

using backend::SparseGroup;
using backend::SparseLayout;
using backend::SparseOrder;
using backend::SparseSegment;
using tesla::sparse::Pattern;

/// How a matrix is cut. Groups are of rows in the order by rows, of columns in that by columns.
struct Tiling {
  std::size_t rows = 0, columns = 0;  // of a tile
  std::size_t block = 1;              // rows a block, 1 or 4
  std::size_t group_rows = 0, group_columns = 0;
};

namespace detail {

/// Brings the weights of one tile after the other into an order.
class OrderBuilder {
 public:
  OrderBuilder(SparseOrder& order, std::size_t group, std::size_t extent) : order_(order) {
    order.group = group, order.groups_each = (extent + group - 1) / group;
  }

  /// A tile of `extent` rows (or columns) with weights at the places (major, minor); `all`: there are segments also for
  /// what has no weights.
  void add(std::size_t extent, bool all, const std::vector<std::uint16_t>& major,
           const std::vector<std::uint16_t>& minor) {
    counts_.assign(extent, 0), next_.assign(extent, 0);
    for (const std::uint16_t m : major) ++counts_[m];
    std::size_t at = order_.offsets.size();
    for (std::size_t g = 0; g < order_.groups_each; ++g) {
      const std::size_t segment = order_.segments.size(), begin = std::min(extent, g * order_.group);
      for (std::size_t i = begin; i < std::min(extent, begin + order_.group); ++i)
        if (all || counts_[i] != 0)
          order_.segments.push_back({static_cast<std::uint16_t>(i), static_cast<std::uint16_t>(counts_[i])});
      // Long ones first, so that loops over their weights end where the processor expects it.
      std::stable_sort(order_.segments.begin() + static_cast<std::ptrdiff_t>(segment), order_.segments.end(),
                       [](const SparseSegment& a, const SparseSegment& b) { return a.count > b.count; });
      order_.groups.push_back({at, segment, order_.segments.size()});
      for (std::size_t s = segment; s < order_.segments.size(); ++s)
        next_[order_.segments[s].at] = at, at += order_.segments[s].count;
    }
    order_.offsets.resize(at);
    for (std::size_t k = 0; k < major.size(); ++k) order_.offsets[next_[major[k]]++] = minor[k];
  }

 private:
  SparseOrder& order_;
  std::vector<std::size_t> counts_, next_;
};

}  // namespace detail

/// Calls f(row, column, index) for every weight or block of a layout, in the order of the values; row and column are
/// those of the matrix.
template <class F>
void each_place(const SparseLayout& l, const F& f) {
  const std::size_t down = l.tiles_down();
  for (std::size_t g = 0; g < l.order.groups.size(); ++g) {
    const std::size_t tile = g / l.order.groups_each;
    const std::size_t row = tile % down * l.tile_rows, column = tile / down * l.tile_columns;
    std::size_t k = l.order.groups[g].first;
    for (std::size_t s = l.order.groups[g].segment; s < l.order.groups[g].segment_end; ++s)
      for (std::size_t n = 0; n < l.order.segments[s].count; ++n, ++k) {
        const std::size_t at = l.order.segments[s].at, offset = l.order.offsets[k];
        if (l.block == 1)
          f(row + offset, column + at, k);
        else
          f(row + at * l.block, column + offset, k);
      }
  }
}

/// The tiles of a pattern. With blocks of four rows, a block lives where any of its weights does.
[[gnu::cold]] inline SparseLayout layout_of(const Pattern& pattern, const Tiling& tiling) {
  SparseLayout l;
  l.rows = pattern.rows(), l.columns = pattern.columns(), l.block = tiling.block;
  l.tile_rows = tiling.rows, l.tile_columns = tiling.columns;
  const std::size_t down = l.tiles_down(), across = l.tiles_across();

  // The weights (or blocks) of each tile, row by row.
  struct Weights {
    std::vector<std::uint16_t> row, column;
  };
  std::vector<Weights> weights(down * across);
  std::vector<std::uint32_t> live;
  for (std::size_t r = 0; r < l.rows; r += l.block) {
    live.clear();
    for (std::size_t k = r; k < std::min(l.rows, r + l.block); ++k)
      live.insert(live.end(), pattern.row(k).begin(), pattern.row(k).end());
    if (l.block > 1) {
      std::sort(live.begin(), live.end());
      live.erase(std::unique(live.begin(), live.end()), live.end());
    }
    for (const std::uint32_t c : live) {
      Weights& w = weights[c / l.tile_columns * down + r / l.tile_rows];
      w.row.push_back(static_cast<std::uint16_t>(r % l.tile_rows / l.block));
      w.column.push_back(static_cast<std::uint16_t>(c % l.tile_columns));
    }
  }

  const bool blocks = l.block > 1;
  detail::OrderBuilder order(l.order, blocks ? tiling.group_rows / l.block : tiling.group_columns,
                             blocks ? l.tile_rows / l.block : l.tile_columns);
  detail::OrderBuilder twin(l.twin, tiling.group_rows, l.tile_rows);
  for (std::size_t tile = 0; tile < weights.size(); ++tile) {
    const std::size_t a = tile / down, d = tile % down;
    const std::size_t rows = std::min(l.tile_rows, l.rows - d * l.tile_rows);
    const std::size_t columns = std::min(l.tile_columns, l.columns - a * l.tile_columns);
    Weights w = std::move(weights[tile]);
    if (blocks) {
      order.add((rows + l.block - 1) / l.block, a == 0, w.row, w.column);
      continue;
    }
    std::size_t k = l.order.offsets.size(), segment = l.order.segments.size();
    order.add(columns, d == 0, w.column, w.row);
    // The twin takes the weights in the order in which a walk over the columns meets them.
    for (std::size_t n = 0; segment < l.order.segments.size(); ++segment)
      for (std::size_t m = 0; m < l.order.segments[segment].count; ++m, ++k, ++n)
        w.column[n] = l.order.segments[segment].at, w.row[n] = l.order.offsets[k];
    twin.add(rows, a == 0, w.row, w.column);
  }
  l.count = l.order.offsets.size() * l.block;
  return l;
}

}  // namespace tesla::inline TESLA_TARGET::network::sparse
