// Attention: which keys a query reads, and the description of a pass over all heads.
#pragma once

#include <tesla/core/error.hpp>
#include <tesla/core/memory.hpp>
#include <tesla/core/random.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

namespace tesla::inline TESLA_TARGET {

namespace attention {

/// Which keys each query reads: a value, made by the functions below.
struct Pattern {
  enum class Kind { dense, window, strided, blocks, big_bird };

  Kind kind = Kind::dense;
  std::size_t window = 0, global = 0, stride = 0, block = 0, random = 0;
  std::uint64_t seed = 0;
  std::vector<std::size_t> pairs = {};  // of blocks: a query's, a key's, and so on, ascending

  static constexpr std::array<std::string_view, 5> names{"dense", "window", "strided", "blocks", "big_bird"};
  bool operator==(const Pattern&) const = default;

  /// Raises an error if it cannot be for so many tokens.
  [[gnu::cold]] void check(std::size_t length) const {
    if ((kind == Kind::strided && stride == 0) || (kind >= Kind::blocks && block == 0))
      raise<UsageError>("has a .pattern ", names[static_cast<std::size_t>(kind)],
                        " without a stride, or a block, of 1 or ",
                        "more; make it with the functions of tesla::attention");
    if (kind != Kind::blocks) return;
    const std::size_t count = (length + block - 1) / block;
    for (std::size_t i = 0; i < pairs.size(); ++i)
      if (pairs[i] >= count)
        raise<UsageError>("has a .pattern of blocks with number ", pairs[i], ", but ", length,
                          " tokens have blocks 0 to ", count - 1, " of ", block);
  }
  void fields(auto&& field) {
    field("window", window);
    field("global", global);
    field("stride", stride);
    field("block", block);
    field("random", random);
    field("seed", seed);
    field("pairs", pairs);
  }

  /// Whether query q reads key k.
  bool live(std::size_t q, std::size_t k) const {
    const std::size_t apart = q > k ? q - k : k - q;
    switch (kind) {
      case Kind::dense:
        return true;
      case Kind::window:
        return apart <= window || q < global || k < global;
      case Kind::strided:
        return apart <= window || k % stride == stride - 1;
      case Kind::blocks:
        return listed(q / block, k / block);
      case Kind::big_bird: {
        const std::size_t i = q / block, j = k / block, blocks = i > j ? i - j : j - i;
        if (blocks <= window || i < global || j < global) return true;
        for (std::size_t r = 0; r < random; ++r)
          if (drawn(i, r, k / block)) return true;
        return false;
      }
    }
    return false;
  }

 private:
  bool listed(std::size_t i, std::size_t j) const {
    std::size_t low = 0, high = pairs.size() / 2;
    while (low < high) {
      const std::size_t middle = (low + high) / 2;
      const auto at = std::pair(pairs[2 * middle], pairs[2 * middle + 1]);
      if (at == std::pair(i, j)) return true;
      (at < std::pair(i, j) ? low : high) = at < std::pair(i, j) ? middle + 1 : middle;
    }
    return false;
  }
  /// Random block r of block i is one of the blocks up to it, so that causal queries have theirs, too.
  bool drawn(std::size_t i, std::size_t r, std::size_t j) const {
    return i > 0 && random::Stream(seed).bits(i * random + r) % i == j;
  }
};

/// Every key.
inline Pattern dense() { return {}; }
/// Keys at most `reach` tokens away; the first `global` tokens read all and are read by all.
inline Pattern sliding_window(std::size_t reach, std::size_t global = 0) {
  return {.kind = Pattern::Kind::window, .window = reach, .global = global};
}
/// Keys at most `reach` tokens away, and every `stride`-th token (Child et al., "Generating long sequences with sparse
/// transformers", 2019).
inline Pattern strided(std::size_t stride, std::size_t reach) {
  if (stride == 0) raise<UsageError>("attention::strided: needs a stride of 1 or more");
  return {.kind = Pattern::Kind::strided, .window = reach, .stride = stride};
}
/// Blocks of `block` tokens: of each pair the queries' block reads the keys' block.
inline Pattern blocks(std::size_t block, std::vector<std::array<std::size_t, 2>> list) {
  if (block == 0) raise<UsageError>("attention::blocks: needs blocks of 1 token or more");
  Pattern result{.kind = Pattern::Kind::blocks, .block = block};
  std::sort(list.begin(), list.end());
  for (const auto& [query, key] : list) result.pairs.push_back(query), result.pairs.push_back(key);
  return result;
}
/// Blocks of `block` tokens that read the `window` blocks on both sides, the first `global` ones, which read all, and
/// `random` others (Zaheer et al., "Big Bird", 2020).
inline Pattern big_bird(std::size_t block = 64, std::size_t window = 1, std::size_t global = 1, std::size_t random = 2,
                        std::uint64_t seed = 0) {
  if (block == 0) raise<UsageError>("attention::big_bird: needs blocks of 1 token or more");
  return {.kind = Pattern::Kind::big_bird,
          .window = window,
          .global = global,
          .block = block,
          .random = random,
          .seed = seed};
}
/// A good default for long sequences: a window of 128 tokens on both sides and 64 tokens that see and are seen by all.
inline const Pattern sparse = sliding_window(128, 64);

}  // namespace attention

namespace backend {

/// The pairs of a square of queries and keys that are live, for each square in which there are any.
class AttentionTiles {
 public:
  static constexpr std::uint32_t full = ~std::uint32_t{0};
  /// Bits of queries, one word a key, and of keys, one word a query.
  struct Mask {
    std::array<std::uint64_t, 64> by_key{}, by_query{};
    bool operator<(const Mask& other) const { return by_query < other.by_query; }

    /// Of one side's words those, from the first to the last, that have a bit from `begin` to before `end`.
    static std::array<std::size_t, 2> reach(const std::array<std::uint64_t, 64>& words, std::size_t begin,
                                            std::size_t end) {
      std::array<std::size_t, 2> range{0, 0};
      const std::uint64_t bits =
          end - begin == 64 ? ~std::uint64_t{0} : ((std::uint64_t{1} << (end - begin)) - 1) << begin;
      for (std::size_t i = 0; i < words.size(); ++i)
        if ((words[i] & bits) != 0) range = {range[1] == 0 ? i : range[0], i + 1};
      return range;
    }
  };
  struct Tile {
    std::uint32_t other, mask;  // the keys', or the queries' tile; full: all pairs are live
  };

  AttentionTiles() = default;
  /// For so many queries and keys.
  [[gnu::cold]] AttentionTiles(const attention::Pattern& pattern, bool causal, std::size_t queries, std::size_t keys,
                               std::size_t lanes)
      : of_query_((queries + lanes - 1) / lanes), of_key_((keys + lanes - 1) / lanes) {
    std::map<Mask, std::uint32_t> known;
    for (std::size_t qt = 0; qt < of_query_.size(); ++qt)
      for (std::size_t kt = 0; kt < (causal ? std::min(qt + 1, of_key_.size()) : of_key_.size()); ++kt) {
        Mask mask;
        std::size_t live = 0, all = 0;
        for (std::size_t q = qt * lanes; q < std::min(queries, (qt + 1) * lanes); ++q)
          for (std::size_t k = kt * lanes; k < std::min(keys, (kt + 1) * lanes); ++k, ++all) {
            if ((causal && k > q) || !pattern.live(q, k)) continue;
            ++live;
            mask.by_query[q - qt * lanes] |= std::uint64_t{1} << (k - kt * lanes);
            mask.by_key[k - kt * lanes] |= std::uint64_t{1} << (q - qt * lanes);
          }
        if (live == 0) continue;
        pairs_ += live;
        std::uint32_t number = full;
        if (live < all) {
          const auto [at, fresh] = known.emplace(mask, static_cast<std::uint32_t>(masks_.size()));
          if (fresh) masks_.push_back(mask);
          number = at->second;
        }
        of_query_[qt].push_back({static_cast<std::uint32_t>(kt), number});
        of_key_[kt].push_back({static_cast<std::uint32_t>(qt), number});
        ++count_;
      }
  }

  /// Tiles of queries, and of keys.
  std::size_t queries() const { return of_query_.size(); }
  std::size_t keys() const { return of_key_.size(); }
  std::size_t count() const { return count_; }
  /// Live pairs of a query and a key.
  std::size_t pairs() const { return pairs_; }
  const std::vector<Tile>& of_query(std::size_t tile) const { return of_query_[tile]; }
  const std::vector<Tile>& of_key(std::size_t tile) const { return of_key_[tile]; }
  const Mask& mask(std::uint32_t number) const { return masks_[number]; }

 private:
  std::size_t count_ = 0, pairs_ = 0;
  std::vector<std::vector<Tile>> of_query_, of_key_;
  std::vector<Mask> masks_;
};

/// Scaled dot products of all heads. Tokens are lanes: queries are panels of heads * width features, whose batch are
/// the tokens of all samples, those of each sample in whole panels; keys and values have key_heads * width. A head's
/// features follow each other; head h reads the keys of head h * key_heads / heads.
struct Attention {
  std::size_t heads = 1, key_heads = 1, width = 0, samples = 0;
  std::size_t queries = 0, keys = 0;  // of a sample
  double scale = 1;
  const attention::Pattern* pattern = nullptr;
  bool causal = false;
  const AttentionTiles* tiles = nullptr;  // of the pattern, for this number of lanes; for kernels that want them
  // In training, weights become 0 with this probability, the others grow, so that the mean stays.
  double dropout = 0;
  std::uint64_t seed = 0, number = 0;

  std::size_t shared() const { return heads / key_heads; }
  bool live(std::size_t q, std::size_t k) const { return !(causal && k > q) && pattern->live(q, k); }

  /// What the weights of a query are drawn from.
  std::uint32_t drawn_from(std::size_t sample, std::size_t head, std::size_t query) const {
    return random::philox({static_cast<std::uint32_t>(query), static_cast<std::uint32_t>(sample),
                           static_cast<std::uint32_t>(head), static_cast<std::uint32_t>(number)},
                          seed + (number >> 32))[0];
  }
  /// What a weight is multiplied with; `from` is drawn_from. A hash by MurmurHash3's last steps, cheap in vectors.
  template <class T>
  T factor(std::uint32_t from, std::size_t key) const {
    std::uint32_t h = from + static_cast<std::uint32_t>(key) * 0x9E3779B9U;
    h = (h ^ (h >> 16)) * 0x85EBCA6BU;
    h = (h ^ (h >> 13)) * 0xC2B2AE35U;
    h ^= h >> 16;
    return (h >> 8) < static_cast<std::uint32_t>(dropout * 0x1p24) ? T(0) : static_cast<T>(1 / (1 - dropout));
  }
};

/// Pairs of features 2 i and 2 i + 1 of each head, turned by an angle that grows with the place of the token (Su et
/// al., "RoFormer", 2021): place * base^(-2 i / width).
struct Rotation {
  std::size_t width = 0, length = 0;             // of a head; tokens
  std::vector<double> cosines = {}, sines = {};  // [pair][place]

  Rotation() = default;
  [[gnu::cold]] Rotation(std::size_t head_width, std::size_t tokens, double base) : width(head_width), length(tokens) {
    for (std::size_t i = 0; i < width / 2; ++i)
      for (std::size_t place = 0; place < length; ++place) {
        const double angle =
            static_cast<double>(place) * std::pow(base, -2 * static_cast<double>(i) / static_cast<double>(width));
        cosines.push_back(std::cos(angle)), sines.push_back(std::sin(angle));
      }
  }
};

}  // namespace backend
}  // namespace tesla::inline TESLA_TARGET
