// Which weights of a matrix are live.
//
// A pattern is a value in the form everybody reads: compressed rows (CSR), columns ascending within a row. Blocks and
// N:M are constraints on how it was made; the pattern itself is a list of single weights.
#pragma once

#include <tesla/core/error.hpp>
#include <tesla/core/random.hpp>
#include <tesla/tensor/view.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET {

namespace sparse {

/// Weights that live or die together: so many rows (outputs) by so many columns (inputs).
struct Block {
  std::size_t rows = 1, columns = 1;
  bool operator==(const Block&) const = default;
};

inline void check_block(const Block& block) {
  constexpr std::size_t most = 64;
  if (block.rows == 0 || block.columns == 0 || block.rows > most || block.columns > most)
    raise<UsageError>("needs a .block of {1, 1} to {", most, ", ", most, "}, not {", block.rows, ", ", block.columns,
                      "}");
}

struct RandomPatternOptions {
  double density = 0.1;
  Block block = {};
  std::uint64_t seed = 0;
};

class Pattern {
 public:
  Pattern() = default;

  /// Row r has the live columns indices[pointers[r]] .. indices[pointers[r + 1] - 1], ascending.
  [[gnu::cold]] Pattern(std::size_t rows, std::size_t columns, std::vector<std::uint64_t> pointers,
                        std::vector<std::uint32_t> indices)
      : rows_(rows), columns_(columns), pointers_(std::move(pointers)), indices_(std::move(indices)) {
    check();
  }

  /// Every row gets as many live weights as every other one, or one more, in places drawn at random.
  [[gnu::cold]] static Pattern random(std::size_t rows, std::size_t columns, const RandomPatternOptions& options);

  /// N:M: of each `m` neighbouring inputs of a row, `n` are live, drawn at random; of fewer at the end, as many as fit.
  [[gnu::cold]] static Pattern n_of_m(std::size_t rows, std::size_t columns, std::size_t n, std::size_t m,
                                      std::uint64_t seed = 0);

  /// Live where the mask, {rows, columns}, is not zero.
  [[gnu::cold]] static Pattern from_mask(const ArrayView& mask);

  std::size_t rows() const { return rows_; }
  std::size_t columns() const { return columns_; }
  std::size_t live() const { return indices_.size(); }
  double density() const {
    return empty() ? 0 : static_cast<double>(live()) / (static_cast<double>(rows_) * static_cast<double>(columns_));
  }
  bool empty() const { return rows_ == 0 || columns_ == 0; }
  const std::vector<std::uint64_t>& pointers() const { return pointers_; }
  const std::vector<std::uint32_t>& indices() const { return indices_; }
  std::span<const std::uint32_t> row(std::size_t r) const {
    return std::span(indices_).subspan(pointers_[r], pointers_[r + 1] - pointers_[r]);
  }
  bool contains(std::size_t r, std::size_t c) const {
    const auto live = row(r);
    return std::binary_search(live.begin(), live.end(), static_cast<std::uint32_t>(c));
  }

  /// Whether the weights come in such blocks; those at the lower and right edge may be cut off.
  [[gnu::cold]] bool in_blocks(const Block& block) const;

  /// 1 where live.
  [[gnu::cold]] Tensor<std::uint8_t> to_mask() const {
    Tensor<std::uint8_t> mask({rows_, columns_});
    for (std::size_t r = 0; r < rows_; ++r)
      for (const std::uint32_t c : row(r)) mask[r * columns_ + c] = 1;
    return mask;
  }

  bool operator==(const Pattern&) const = default;

 private:
  [[gnu::cold]] void check() const;

  std::size_t rows_ = 0, columns_ = 0;
  std::vector<std::uint64_t> pointers_{0};
  std::vector<std::uint32_t> indices_;
};

inline void Pattern::check() const {
  const auto where = [&] { return text("a sparse pattern of ", rows_, " x ", columns_, ": "); };
  constexpr std::size_t most = std::numeric_limits<std::uint32_t>::max();
  if (rows_ > most || columns_ > most || indices_.size() > most)
    raise<ShapeError>(where(), "rows, columns and live weights are counted in 32 bits");
  if (pointers_.size() != rows_ + 1)
    raise<ShapeError>(where(), "needs ", rows_ + 1, " pointers, one for each row and one more, not ", pointers_.size());
  if (pointers_.front() != 0 || pointers_.back() != indices_.size())
    raise<DataError>(where(), "pointers have to go from 0 to the ", indices_.size(), " indices, not from ",
                     pointers_.front(), " to ", pointers_.back());
  for (std::size_t r = 0; r < rows_; ++r)
    if (pointers_[r] > pointers_[r + 1])
      raise<DataError>(where(), "pointers have to ascend; pointer ", r, " is ", pointers_[r], ", the next one ",
                       pointers_[r + 1]);
  for (std::size_t r = 0; r < rows_; ++r)
    for (std::uint64_t k = pointers_[r]; k < pointers_[r + 1]; ++k) {
      if (indices_[k] >= columns_)
        raise<DataError>(where(), "row ", r, " has a weight in column ", indices_[k], ", there are ", columns_);
      if (k > pointers_[r] && indices_[k] == indices_[k - 1])
        raise<DataError>(where(), "row ", r, " has column ", indices_[k], " twice");
      if (k > pointers_[r] && indices_[k] < indices_[k - 1])
        raise<DataError>(where(), "the columns of a row have to ascend; in row ", r, ", ", indices_[k], " follows ",
                         indices_[k - 1]);
    }
}

inline Pattern Pattern::random(std::size_t rows, std::size_t columns, const RandomPatternOptions& options) {
  const auto [density, block, seed] = options;
  if (!(density > 0 && density <= 1)) raise<UsageError>("a sparse pattern needs a .density in (0, 1], not ", density);
  check_block(block);
  if (rows == 0 || columns == 0)
    raise<ShapeError>("a sparse pattern needs rows and columns, not ", rows, " x ", columns);
  if (std::max(rows, columns) > std::numeric_limits<std::uint32_t>::max())
    raise<ShapeError>("a sparse pattern of ", rows, " x ", columns, " is beyond 32 bits");
  const std::size_t down = (rows + block.rows - 1) / block.rows, across = (columns + block.columns - 1) / block.columns;
  const double cells = static_cast<double>(down) * static_cast<double>(across);
  const auto count = static_cast<std::size_t>(std::max(1.0, std::nearbyint(density * cells)));

  std::vector<std::uint64_t> pointers{0};
  std::vector<std::uint32_t> indices;
  std::vector<bool> taken(across);
  std::vector<std::uint32_t> chosen, order(down);
  random::shuffle(order, seed, ~std::uint64_t{0});  // which rows of blocks have one more
  for (std::size_t r = 0; r < down; ++r) {
    const std::size_t n = count / down + (order[r] < count % down ? 1 : 0);
    // Floyd's sample without repetition (Bentley and Floyd 1987).
    const random::Stream stream(seed, r);
    chosen.clear();
    for (std::size_t j = across - n; j < across; ++j) {
      std::size_t c = stream.below(j, j + 1);
      if (taken[c]) c = j;
      taken[c] = true;
      chosen.push_back(static_cast<std::uint32_t>(c));
    }
    std::sort(chosen.begin(), chosen.end());
    for (const std::uint32_t c : chosen) taken[c] = false;
    for (std::size_t row = r * block.rows; row < std::min(rows, (r + 1) * block.rows); ++row) {
      for (const std::uint32_t c : chosen)
        for (std::size_t column = c * block.columns; column < std::min(columns, (c + 1) * block.columns); ++column)
          indices.push_back(static_cast<std::uint32_t>(column));
      pointers.push_back(indices.size());
    }
  }
  return {rows, columns, std::move(pointers), std::move(indices)};
}

inline Pattern Pattern::n_of_m(std::size_t rows, std::size_t columns, std::size_t n, std::size_t m,
                               std::uint64_t seed) {
  if (m == 0) raise<UsageError>("n_of_m: needs 1 or more neighbours, not 0");
  if (n == 0 || n > m) raise<UsageError>("n_of_m: 1 to ", m, " of ", m, " weights can be live, not ", n);
  std::vector<std::uint64_t> pointers{0};
  std::vector<std::uint32_t> indices;
  for (std::size_t r = 0; r < rows; ++r) {
    const random::Stream stream(seed, r);
    for (std::size_t first = 0; first < columns; first += m) {
      // Each place is taken with the chance that so many are still to be found among so few (Knuth's algorithm S).
      const std::size_t here = std::min(m, columns - first);
      std::size_t wanted = std::min(n, here);
      for (std::size_t k = 0; k < here; ++k)
        if (stream.below(first + k, here - k) < wanted)
          indices.push_back(static_cast<std::uint32_t>(first + k)), --wanted;
    }
    pointers.push_back(indices.size());
  }
  return {rows, columns, std::move(pointers), std::move(indices)};
}

inline Pattern Pattern::from_mask(const ArrayView& mask) {
  if (mask.shape().rank() != 2) raise<ShapeError>("a mask has shape {rows, columns}, not ", mask.shape());
  std::vector<std::uint64_t> pointers{0};
  std::vector<std::uint32_t> indices;
  for (std::size_t r = 0; r < mask.shape()[0]; ++r) {
    for (std::size_t c = 0; c < mask.shape()[1]; ++c) {
      const double value = mask.value(r, c);
      if (std::isnan(value)) raise<DataError>("from_mask: entry (", r, ", ", c, ") is NaN");
      if (value != 0) indices.push_back(static_cast<std::uint32_t>(c));
    }
    pointers.push_back(indices.size());
  }
  return {mask.shape()[0], mask.shape()[1], std::move(pointers), std::move(indices)};
}

inline bool Pattern::in_blocks(const Block& block) const {
  check_block(block);
  for (std::size_t r = 0; r < rows_; ++r) {
    const auto live = row(r);
    const std::size_t first = r / block.rows * block.rows;
    if (r != first && !std::equal(live.begin(), live.end(), row(first).begin(), row(first).end())) return false;
    for (std::size_t k = 0; k < live.size();) {
      const std::size_t begin = live[k], end = std::min(columns_, begin + block.columns);
      if (begin % block.columns != 0 || live.size() - k < end - begin) return false;
      for (std::size_t c = begin; c < end; ++c, ++k)
        if (live[k] != c) return false;
    }
  }
  return true;
}

}  // namespace sparse
}  // namespace tesla::inline TESLA_TARGET
