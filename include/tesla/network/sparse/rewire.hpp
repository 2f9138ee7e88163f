// Which weights to drop and which to grow, and patterns changed so.
//
// Blocks are dropped and grown whole. They are numbered row by row of the grid of blocks, the last ones of which may be
// cut off at the edge of the matrix; a single weight is a block of 1 x 1.
#pragma once

#include <tesla/backend/product.hpp>
#include <tesla/network/sparse/pattern.hpp>

#include <span>
#include <utility>

namespace tesla::inline TESLA_TARGET::network::sparse {

using tesla::sparse::Block;
using tesla::sparse::Pattern;

/// A block and what speaks for it.
struct Scored {
  double score = 0;
  std::uint64_t block = 0;

  /// The better one first; of equals the one with the lower number.
  friend bool operator<(const Scored& a, const Scored& b) {
    return a.score != b.score ? a.score > b.score : a.block < b.block;
  }
};

inline std::uint64_t blocks_across(const Pattern& p, const Block& b) {
  return (p.columns() + b.columns - 1) / b.columns;
}
inline std::uint64_t blocks_down(const Pattern& p, const Block& b) { return (p.rows() + b.rows - 1) / b.rows; }

/// The live blocks in ascending order, each with the mean magnitude of its values.
template <class Values>
[[gnu::cold]] std::vector<Scored> live_blocks(const Pattern& p, const Block& block, const Values& values) {
  std::vector<Scored> result;
  std::vector<std::size_t> sizes;
  for (std::size_t first = 0; first < p.rows(); first += block.rows) {
    const std::size_t begin = result.size();
    for (std::size_t r = first; r < std::min(p.rows(), first + block.rows); ++r) {
      std::size_t at = begin - 1;
      std::uint64_t last = ~std::uint64_t{0};
      for (std::uint64_t k = p.pointers()[r]; k < p.pointers()[r + 1]; ++k) {
        if (const std::uint64_t across = p.indices()[k] / block.columns; across != last) {
          last = across, ++at;
          if (r == first)
            result.push_back({0, first / block.rows * blocks_across(p, block) + across}), sizes.push_back(0);
        }
        result[at].score += std::fabs(static_cast<double>(values[k])), ++sizes[at];
      }
    }
  }
  for (std::size_t i = 0; i < result.size(); ++i) result[i].score /= static_cast<double>(sizes[i]);
  return result;
}

/// The numbers of some blocks, ascending.
[[gnu::cold]] inline std::vector<std::uint64_t> numbers_of(std::span<const Scored> blocks) {
  std::vector<std::uint64_t> result;
  for (const Scored& b : blocks) result.push_back(b.block);
  std::sort(result.begin(), result.end());
  return result;
}

/// The `count` weakest of some blocks, in ascending order.
[[gnu::cold]] inline std::vector<std::uint64_t> weakest(std::vector<Scored> blocks, std::size_t count) {
  count = std::min(count, blocks.size());
  const std::size_t kept = blocks.size() - count;
  if (count != 0 && kept != 0)
    std::nth_element(blocks.begin(), blocks.begin() + static_cast<std::ptrdiff_t>(kept), blocks.end());
  return numbers_of(std::span(blocks).subspan(kept));
}

/// Keeps the best of any number of blocks that are offered one by one, in little more memory than they take.
class Best {
 public:
  Best() = default;
  explicit Best(std::size_t count) : count_(count) { kept_.reserve(2 * count); }

  std::size_t count() const { return count_; }
  /// What a score has to exceed, or equal, to be worth an offer.
  double threshold() const { return threshold_; }
  void offer(double score, std::uint64_t block) {
    if (score < threshold_) return;
    kept_.push_back({score, block});
    if (kept_.size() >= std::max<std::size_t>(2 * count_, 1)) cut();
  }
  /// In ascending order of the blocks' numbers.
  [[gnu::cold]] std::vector<std::uint64_t> take() {
    cut();
    return numbers_of(std::exchange(kept_, {}));
  }

 private:
  void cut() {
    if (kept_.size() <= count_) return;
    const auto end = kept_.begin() + static_cast<std::ptrdiff_t>(count_);
    std::nth_element(kept_.begin(), end, kept_.end());
    kept_.erase(end, kept_.end());
    if (!kept_.empty()) threshold_ = std::max_element(kept_.begin(), kept_.end())->score;
  }

  std::size_t count_ = 0;
  double threshold_ = 0;
  std::vector<Scored> kept_;
};

/// Offers the dead blocks of some rows, from `first` on, with the mean magnitude of their gradients. Overwrites the
/// gradients of live weights.
template <class T>
void offer_dead(Best& best, const Pattern& live, const Block& block, std::size_t first,
                const backend::Matrix<T>& gradient) {
  constexpr std::size_t run = 32;
  const std::uint64_t across = blocks_across(live, block);
  std::vector<T> sums(across);
  for (std::size_t row = 0; row < gradient.rows; row += block.rows) {
    const std::size_t rows = std::min(block.rows, gradient.rows - row);
    const T* means = gradient.row(row);
    if (!(block == Block())) {
      std::fill(sums.begin(), sums.end(), T(0));
      for (std::size_t r = row; r < row + rows; ++r)
        for (std::size_t c = 0; c < gradient.columns; ++c) sums[c / block.columns] += std::fabs(gradient.row(r)[c]);
      for (std::size_t b = 0; b < across; ++b)
        sums[b] /=
            static_cast<T>(rows * (std::min<std::size_t>(live.columns(), (b + 1) * block.columns) - b * block.columns));
      for (const std::uint32_t c : live.row(first + row)) sums[c / block.columns] = T(-1);
      means = sums.data();
    } else {
      T* const values = gradient.row(row);
      for (std::size_t c = 0; c < gradient.columns; ++c) values[c] = std::fabs(values[c]);
      for (const std::uint32_t c : live.row(first + row)) values[c] = T(-1);
    }
    const std::uint64_t number = (first + row) / block.rows * across;
    for (std::uint64_t begin = 0; begin < across; begin += run) {
      const std::uint64_t end = std::min(across, begin + run);
      T largest = T(-1);
      for (std::uint64_t b = begin; b < end; ++b) largest = std::max(largest, means[b]);
      if (static_cast<double>(largest) < best.threshold()) continue;
      for (std::uint64_t b = begin; b < end; ++b) best.offer(static_cast<double>(means[b]), number + b);
    }
  }
}

/// `count` blocks that are not live, drawn at random, in ascending order; all that there are, if they are fewer.
[[gnu::cold]] inline std::vector<std::uint64_t> draw_dead(const std::vector<Scored>& live, std::uint64_t blocks,
                                                          std::size_t count, const random::Stream& random) {
  const std::uint64_t dead = blocks - live.size();
  count = static_cast<std::size_t>(std::min<std::uint64_t>(count, dead));
  // Floyd's sample of numbers of dead blocks, which are then counted off between the live ones.
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t j = dead - count; j < dead; ++j) {
    const std::uint64_t drawn = random.below(j, j + 1);
    const auto at = std::lower_bound(numbers.begin(), numbers.end(), drawn);
    if (at != numbers.end() && *at == drawn)
      numbers.push_back(j);  // greater than all so far
    else
      numbers.insert(at, drawn);
  }
  std::size_t before = 0;
  for (std::uint64_t& number : numbers) {
    while (before < live.size() && live[before].block <= number + before) ++before;
    number += before;
  }
  return numbers;
}

/// A pattern without some of its blocks and with new ones, both given in ascending order; and for each of its weights
/// the number that it had before, or the greatest number if it is new.
[[gnu::cold]] inline std::pair<Pattern, std::vector<std::uint32_t>> rewired(const Pattern& p, const Block& block,
                                                                            const std::vector<std::uint64_t>& dropped,
                                                                            const std::vector<std::uint64_t>& grown) {
  const std::uint64_t across = blocks_across(p, block);
  std::vector<std::uint64_t> pointers{0};
  std::vector<std::uint32_t> indices, from;
  auto drop = dropped.begin(), grow = grown.begin();
  for (std::size_t first = 0; first < p.rows(); first += block.rows) {
    const std::uint64_t end_of_row = (first / block.rows + 1) * across;
    const auto drop_end = std::lower_bound(drop, dropped.end(), end_of_row);
    const auto grow_end = std::lower_bound(grow, grown.end(), end_of_row);
    for (std::size_t r = first; r < std::min(p.rows(), first + block.rows); ++r) {
      auto d = drop, g = grow;
      const auto add_grown_before = [&](std::uint64_t number) {
        for (; g != grow_end && *g < number; ++g) {
          const std::uint64_t begin = *g % across * block.columns;
          for (std::uint64_t c = begin; c < std::min<std::uint64_t>(p.columns(), begin + block.columns); ++c) {
            indices.push_back(static_cast<std::uint32_t>(c));
            from.push_back(~std::uint32_t{0});
          }
        }
      };
      for (std::uint64_t k = p.pointers()[r]; k < p.pointers()[r + 1]; ++k) {
        const std::uint64_t number = end_of_row - across + p.indices()[k] / block.columns;
        add_grown_before(number);
        while (d != drop_end && *d < number) ++d;
        if (d != drop_end && *d == number) continue;
        indices.push_back(p.indices()[k]);
        from.push_back(static_cast<std::uint32_t>(k));
      }
      add_grown_before(end_of_row);
      pointers.push_back(indices.size());
    }
    drop = drop_end, grow = grow_end;
  }
  return {Pattern(p.rows(), p.columns(), std::move(pointers), std::move(indices)), std::move(from)};
}

}  // namespace tesla::inline TESLA_TARGET::network::sparse
