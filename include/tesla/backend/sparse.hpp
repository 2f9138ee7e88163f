// The description of a sparse matrix of weights as kernels read it: two-dimensional tiles with 16-bit offsets.
//
// Within a tile the weights stand column by column, which is the order of the values, of their gradients and of the
// optimizer's state: one pass over a column with its input and the gradient of that input in registers gives both
// gradients. Forward wants them row by row, so there is a twin in that order, whose values are copied once a step.
// Blocks of four rows stand row by row and need no twin: a row of blocks holds four outputs in registers either way.
#pragma once

#include <tesla/core/memory.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tesla::inline TESLA_TARGET::backend {

/// The live weights in one row, column or row of blocks of a tile.
struct SparseSegment {
  std::uint16_t at, count;  // which one within the tile; how many weights or blocks
};

/// Neighbouring segments, the longest first: work that one thread does at a time.
struct SparseGroup {
  std::size_t first = 0, segment = 0, segment_end = 0;  // of its weights or blocks, and its segments
};

/// One order of the live weights: groups, segments, and the place of each weight along its segment, within the tile.
struct SparseOrder {
  std::size_t group = 1;        // rows, columns or rows of blocks a group
  std::size_t groups_each = 1;  // groups a tile
  std::vector<SparseGroup> groups;
  std::vector<SparseSegment> segments;
  std::vector<std::uint16_t> offsets;
};

struct SparseLayout {
  static constexpr std::size_t max_tile = 4096;

  std::size_t rows = 0, columns = 0;            // of the matrix
  std::size_t block = 1;                        // rows a block: 1 or 4
  std::size_t tile_rows = 0, tile_columns = 0;  // of a tile, at most max_tile; the last ones may be smaller
  std::size_t count = 0;                        // values; those of incomplete blocks at the lower edge count
  SparseOrder order, twin;                      // blocks have no twin

  bool has_twin() const { return block == 1; }
  std::size_t tiles_down() const { return (rows + tile_rows - 1) / tile_rows; }
  std::size_t tiles_across() const { return (columns + tile_columns - 1) / tile_columns; }
  std::size_t tiles() const { return tiles_down() * tiles_across(); }
  /// Tiles stand column by column.
  const SparseGroup& group(const SparseOrder& o, std::size_t down, std::size_t across, std::size_t number) const {
    return o.groups[(across * tiles_down() + down) * o.groups_each + number];
  }

  /// Bytes of the indices.
  std::size_t bytes() const {
    return (order.groups.size() + twin.groups.size()) * sizeof(SparseGroup) +
           (order.segments.size() + twin.segments.size()) * sizeof(SparseSegment) +
           (order.offsets.size() + twin.offsets.size()) * sizeof(std::uint16_t);
  }
};

}  // namespace tesla::inline TESLA_TARGET::backend
