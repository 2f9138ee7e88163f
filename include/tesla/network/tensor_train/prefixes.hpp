// What the columns of a tensor-train matrix that a batch wants have in common: the distinct prefixes of their indices.
#pragma once

#include <tesla/tensor/shape.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <numeric>
#include <span>

namespace tesla::inline TESLA_TARGET::network {

/// A column's number is (i_1 .. i_d), the first index the slowest; level k has the distinct (i_1 .. i_k+1) of all
/// columns wanted, those of one last index beside each other. It lies in memory of somebody else's: numbers() of them.
class Prefixes {
 public:
  static constexpr std::uint32_t none = ~std::uint32_t{0};

  struct Level {
    std::span<const std::uint32_t> parent;  // of each prefix, at the level before
    std::span<const std::uint32_t> index;   // its last one

    std::size_t size() const { return parent.size(); }
  };

  /// For at most `wanted` columns, repeated ones included.
  Prefixes(const Shape& in, std::size_t wanted) : in_(in), table_(std::bit_ceil(wanted + wanted / 2 + 1)) {
    std::size_t product = 1;
    for (std::size_t k = 0; k < in.rank(); ++k) product = std::min(product * in[k], wanted), most_[k] = product;
  }

  /// How many prefixes a level can have.
  std::size_t most(std::size_t k) const { return most_[k]; }
  std::size_t numbers() const {
    const std::size_t columns = most_[in_.rank() - 1];
    return level_begin(in_.rank()) + 2 * columns + table_ + *std::max_element(in_.begin(), in_.end()) + 1;
  }

  /// Fills `memory`. Each column becomes the place of its prefix at the last level; `skipped` becomes none.
  void find(std::span<std::uint32_t> memory, std::span<std::uint32_t> columns, std::uint32_t skipped) const {
    const std::size_t d = in_.rank(), most = most_[d - 1];
    std::uint32_t* const found = memory.data() + level_begin(d);
    std::uint32_t *const moved = found + most, *const table = moved + most;
    std::uint32_t* const starts = table + table_;
    std::iota(memory.begin() + static_cast<std::ptrdiff_t>(d),
              memory.begin() + static_cast<std::ptrdiff_t>(d + most + 1), 0U);
    std::span<std::uint32_t> refer = columns;  // to prefixes, as they are found
    std::size_t count = distinct(columns, skipped, found, table);
    for (std::size_t k = d; k-- > 0;) {
      const auto mode = static_cast<std::uint32_t>(in_[k]);
      memory[k] = static_cast<std::uint32_t>(count);
      std::uint32_t *const parent = memory.data() + level_begin(k), *const index = parent + most_[k];
      std::fill_n(starts, mode + 1, 0U);
      for (std::size_t i = 0; i < count; ++i) ++starts[found[i] % mode + 1];
      std::partial_sum(starts, starts + mode, starts);
      for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t last = found[i] % mode, to = starts[last]++;
        moved[i] = to, index[to] = last, parent[to] = found[i] / mode;
      }
      for (std::uint32_t& place : refer)
        if (place != none) place = moved[place];
      refer = {parent, count};
      if (k == 0)
        std::fill_n(parent, count, 0U);
      else
        count = distinct(refer, none, found, table);
    }
  }

  Level level(std::span<const std::uint32_t> memory, std::size_t k) const {
    const std::uint32_t* const parent = memory.data() + level_begin(k);
    return {{parent, memory[k]}, {parent + most_[k], memory[k]}};
  }
  /// 0, 1, 2, ..., one more than there are columns.
  std::span<const std::uint32_t> counting(std::span<const std::uint32_t> memory) const {
    return memory.subspan(in_.rank(), most_[in_.rank() - 1] + 1);
  }

 private:
  std::size_t level_begin(std::size_t k) const {
    std::size_t at = in_.rank() + most_[in_.rank() - 1] + 1;
    for (std::size_t i = 0; i < k; ++i) at += 2 * most_[i];
    return at;
  }

  /// Each value once, in the order in which they come; the values become their places therein.
  std::size_t distinct(std::span<std::uint32_t> values, std::uint32_t skipped, std::uint32_t* found,
                       std::uint32_t* table) const {
    const int shift = 32 - std::countr_zero(table_);
    std::size_t count = 0;
    std::fill_n(table, table_, none);
    for (std::uint32_t& value : values) {
      if (value == skipped) {
        value = none;
        continue;
      }
      std::size_t at = value * 0x9E3779B1U >> shift;
      while (table[at] != none && found[table[at]] != value) at = (at + 1) & (table_ - 1);
      if (table[at] == none) table[at] = static_cast<std::uint32_t>(count), found[count++] = value;
      value = table[at];
    }
    return count;
  }

  Shape in_;
  std::size_t table_;  // of the hash
  std::array<std::size_t, Shape::max_rank> most_{};
};

}  // namespace tesla::inline TESLA_TARGET::network
