// Attention without the matrix of all scores (Dao et al., "FlashAttention", 2022): squares of queries and keys, as
// large as a panel has lanes, of which only live ones are visited.
//
// Forward, queries are lanes: scores are rows of keys, and the running maximum and the sum of each query go along the
// lanes. Backward, keys are lanes, so that the gradients of keys and values gather in the first cache while the queries
// go by; those of the queries are rows. All products read the panels as they are, but for one transposed square of
// keys.
#pragma once

#include <tesla/backend/attention.hpp>
#include <tesla/backend/cpu/tile.hpp>
#include <tesla/core/parallel.hpp>

#include <array>
#include <limits>

namespace tesla::inline TESLA_TARGET::backend::cpu {

namespace detail {

/// exp(x) for x up to 0, in float within two units of the last place; what would be subnormal is zero.
template <class T>
[[gnu::always_inline]] inline Vector<T> exp_below_zero(Vector<T> x) {
  if constexpr (std::is_same_v<T, float>) {
    const Vector<T> least(-87.0F), t = xsimd::max(x, least);
    const Vector<T> n = xsimd::nearbyint(t * Vector<T>(1.44269504F));
    const Vector<T> r = xsimd::fma(n, Vector<T>(2.12194440e-4F), xsimd::fma(n, Vector<T>(-0.693359375F), t));
    Vector<T> p(0.0013948590F);
    for (const float c : {0.0083751353F, 0.041666217F, 0.16666415F, 0.5F, 1.0F, 1.0F})
      p = xsimd::fma(p, r, Vector<T>(c));
    const auto exponent = xsimd::to_int(n) << 23;
    const auto bits = xsimd::bitwise_cast<xsimd::batch<std::int32_t, Architecture>>(p) + exponent;
    return xsimd::select(x < least, Vector<T>(0.0F), xsimd::bitwise_cast<Vector<T>>(bits));
  } else {
    const Vector<T> least(-708.0);
    return xsimd::select(x < least, Vector<T>(0.0), Vector<T>(xsimd::exp(xsimd::max(x, least))));
  }
}

/// Ones where bits are set, from bit `first` on.
template <class T>
[[gnu::always_inline]] inline Vector<T> from_bits(std::uint64_t bits, std::size_t first) {
  alignas(cache_line) T lanes[width<T>];
  for (std::size_t i = 0; i < width<T>; ++i) lanes[i] = (bits >> (first + i) & 1) != 0 ? T(1) : T(0);
  return load(static_cast<const T*>(lanes));
}

/// c[rows][lanes] = or += a b, by tiles.
template <class T>
void square_product(const T* a, std::ptrdiff_t a_row, std::ptrdiff_t a_depth, const T* b, std::size_t b_depth, T* c,
                    std::size_t c_row, std::size_t rows, std::size_t depth, std::size_t columns, bool accumulate) {
  TileArguments<T> t{};
  t.segments = 1, t.depth = t.last_depth = depth, t.accumulate = accumulate;
  t.a_row = a_row, t.a_depth = a_depth, t.b_depth = static_cast<std::ptrdiff_t>(b_depth);
  t.c_row = static_cast<std::ptrdiff_t>(c_row);
  for (std::size_t v = 0; v < columns;) {
    const std::size_t vectors = tile_vectors((columns - v) / width<T>);
    t.b = b + v;
    for (std::size_t row = 0; row < rows;) {
      const std::size_t height = next_height<T>(rows - row, vectors);
      t.a = a + static_cast<std::ptrdiff_t>(row) * a_row, t.c = c + row * c_row + v;
      tile_function<T>(height, vectors)(t);
      row += height;
    }
    v += vectors * width<T>;
  }
}

}  // namespace detail

/// From samples as lanes, {length, features} each, to tokens as lanes: a panel of `out` holds tokens of one sample, the
/// last one of a sample zeros behind its end. Or back, where `x` is written; lanes without a sample stay as they are.
template <bool Back, class T>
void turn_tokens(Panels<T> x, std::size_t length, Panels<T> out) {
  constexpr std::size_t w = width<T>;
  const std::size_t features = out.features, side = (length + out.lanes - 1) / out.lanes, rows = side * out.lanes;
  const auto token = [&](std::size_t sample, std::size_t t, std::size_t f) {
    return out.panel(sample * side + t / out.lanes) + f * out.lanes + t % out.lanes;
  };
  const std::size_t blocks = (features + w - 1) / w;  // of features
  const double cost = nanoseconds::transposed * static_cast<double>(rows * w * x.lanes);
  parallel_for(x.panels() * blocks, cost, [&](std::size_t begin, std::size_t end) {
    for (std::size_t task = begin; task < end; ++task) {
      const std::size_t panel = task / blocks, first = task % blocks * w, last = std::min(features, first + w);
      const std::size_t live = x.live(panel);
      for (std::size_t f = first; f < last; ++f)
        for (std::size_t t = 0; t < rows; t += w)
          for (std::size_t lane = 0; lane < live; lane += w) {
            T* const at = x.panel(panel) + (t * features + f) * x.lanes + lane;
            const std::size_t step = features * x.lanes, tokens = t < length ? std::min(w, length - t) : 0;
            const std::size_t samples = std::min(w, live - lane), sample = panel * x.lanes + lane;
            if (x.lanes < w) {  // a single sample
              for (std::size_t i = 0; i < w; ++i)
                if constexpr (!Back)
                  token(sample, t + i, f)[0] = i < tokens ? at[i * step] : T(0);
                else if (i < tokens)
                  at[i * step] = token(sample, t + i, f)[0];
              continue;
            }
            Vector<T> square[w];
            unroll<w>([&](auto i) {
              if constexpr (!Back)
                square[i] = i < tokens ? load(static_cast<const T*>(at + i * step)) : Vector<T>(T(0));
              else
                square[i] = i < samples ? load(static_cast<const T*>(token(sample + i, t, f))) : Vector<T>(T(0));
            });
            transpose<T>(square);
            unroll<w>([&](auto i) {
              if constexpr (!Back) {
                if (i < samples) store(token(sample + i, t, f), square[i]);
              } else if (i < tokens) {
                store(at + i * step, square[i]);
              }
            });
          }
    }
  });
}

/// Turns the tokens of all samples, or turns them back.
template <class T>
void rotate(const Rotation& r, bool back, Panels<T> tokens) {
  const std::size_t lanes = tokens.lanes, side = (r.length + lanes - 1) / lanes;
  const double cost = nanoseconds::value<T> * static_cast<double>(2 * tokens.stride());
  parallel_for(tokens.panels(), cost, [&](std::size_t begin, std::size_t end) {
    for (std::size_t panel = begin; panel < end; ++panel)
      for (std::size_t head = 0; head < tokens.features / r.width; ++head)
        for (std::size_t i = 0; i < r.width / 2; ++i) {
          T *const a = tokens.panel(panel) + (head * r.width + 2 * i) * lanes, *const b = a + lanes;
          const std::size_t first = panel % side * lanes, at = i * r.length + first;
          for (std::size_t k = 0; k < std::min(lanes, r.length - first); ++k) {
            const T c = static_cast<T>(r.cosines[at + k]);
            const T s = static_cast<T>(back ? -r.sines[at + k] : r.sines[at + k]), x = a[k];
            a[k] = x * c - b[k] * s, b[k] = x * s + b[k] * c;
          }
        }
  });
}

template <class T>
class Attend {
 public:
  Attend(const Attention& a, std::size_t lanes)
      : a_(a), lanes_(lanes), side_(a.tiles->queries()), key_side_(a.tiles->keys()) {}

  /// Elements that backward needs.
  std::size_t scratch() const { return tasks() * slot(); }

  /// o = the values weighted by softmax(scale * q k); `log_sums` gets the logarithm of each softmax's denominator, one
  /// a head and query. `keys`, unless null, is 0 for keys that no query reads, one a token. A query without a key gets
  /// 0.
  void forward(Panels<const T> q, Panels<const T> k, Panels<const T> v, const T* keys, Panels<T> o, T* log_sums) const {
    const double cost = nanoseconds::multiply_add<T> * 2 * static_cast<double>(a_.tiles->count() * a_.width) *
                        static_cast<double>(lanes_ * lanes_) / static_cast<double>(side_);
    parallel_for(a_.samples * a_.heads * side_, cost, [&](std::size_t begin, std::size_t end) {
      alignas(cache_line) T scores[most_lanes<T> * most_lanes<T>];
      for (std::size_t task = begin; task < end; ++task)
        forward_queries(task / side_ / a_.heads, task / side_ % a_.heads, task % side_, q, k, v, keys, o, log_sums,
                        scores);
    });
  }

  /// The gradients of queries, keys and values from that of o, which it overwrites none of.
  void backward(Panels<const T> q, Panels<const T> k, Panels<const T> v, const T* keys, Panels<const T> o,
                const T* log_sums, Panels<const T> d_o, Panels<T> dq, Panels<T> dk, Panels<T> dv, T* scratch) const {
    const double cost = nanoseconds::multiply_add<T> * 5 * static_cast<double>(a_.tiles->count() * a_.width) *
                        static_cast<double>(a_.shared() * lanes_ * lanes_);
    parallel_for(tasks(), cost, [&](std::size_t begin, std::size_t end) {
      for (std::size_t task = begin; task < end; ++task)
        backward_head(task / a_.key_heads, task % a_.key_heads, q, k, v, keys, o, log_sums, d_o, dq, dk, dv,
                      scratch + task * slot());
    });
  }

 private:
  static constexpr std::size_t w = width<T>;

  std::size_t tasks() const { return a_.samples * a_.key_heads; }
  std::size_t padded() const { return round_up(a_.width, w); }
  /// Rows of the queries' gradients of the heads that share keys, what each query is reduced by, and squares.
  std::size_t slot() const {
    const std::size_t tokens = side_ * lanes_;
    return a_.shared() * tokens * (padded() + 1) + 2 * lanes_ * lanes_ + lanes_ * padded();
  }
  static const T* at(Panels<const T> p, std::size_t panel, std::size_t feature) {
    return p.panel(panel) + feature * p.lanes;
  }
  static T* at(Panels<T> p, std::size_t panel, std::size_t feature) { return p.panel(panel) + feature * p.lanes; }
  /// Of a tile of queries, or of keys.
  std::size_t live(std::size_t tile, std::size_t tokens) const { return std::min(lanes_, tokens - tile * lanes_); }
  /// For the queries of a tile what dropout draws their weights from.
  void draw(std::size_t sample, std::size_t head, std::size_t tile, std::uint32_t* from) const {
    for (std::size_t i = 0; i < lanes_ && a_.dropout > 0; ++i) from[i] = a_.drawn_from(sample, head, tile * lanes_ + i);
  }
  /// Dropout's factors of `w` pairs: of one key with queries, or of one query with keys in a row.
  Vector<T> factors(const std::uint32_t* from, std::size_t key) const {
    alignas(cache_line) T f[w];
    for (std::size_t i = 0; i < w; ++i) f[i] = a_.template factor<T>(from[i], key);
    return load(static_cast<const T*>(f));
  }
  Vector<T> factors(std::uint32_t from, std::size_t first_key) const {
    alignas(cache_line) T f[w];
    for (std::size_t i = 0; i < w; ++i) f[i] = a_.template factor<T>(from, first_key + i);
    return load(static_cast<const T*>(f));
  }

  void forward_queries(std::size_t sample, std::size_t head, std::size_t tile, Panels<const T> q, Panels<const T> k,
                       Panels<const T> v, const T* keys, Panels<T> o, T* log_sums, T* scores) const {
    constexpr T lowest = T(-1e30);
    const std::size_t n = lanes_, panel = sample * side_ + tile, key_head = head / a_.shared();
    const auto row = static_cast<std::ptrdiff_t>(n);
    const T scale = static_cast<T>(a_.scale);
    alignas(cache_line) T largest[most_lanes<T>], total[most_lanes<T>];
    std::fill_n(largest, n, lowest), std::fill_n(total, n, T(0));
    std::uint32_t drawn[most_lanes<T>];
    draw(sample, head, tile, drawn);
    const T* const query = at(q, panel, head * a_.width);
    T* const out = at(o, panel, head * a_.width);
    std::fill_n(out, a_.width * n, T(0));
    for (const AttentionTiles::Tile& t : a_.tiles->of_query(tile)) {
      const std::size_t from = sample * key_side_ + t.other;
      const T *const key = at(k, from, key_head * a_.width), *const value = at(v, from, key_head * a_.width);
      const AttentionTiles::Mask* const mask = t.mask != AttentionTiles::full ? &a_.tiles->mask(t.mask) : nullptr;
      const T* const read = keys != nullptr ? keys + from * n : nullptr;
      for (const Part& part : parts(mask, &AttentionTiles::Mask::by_key, live(t.other, a_.keys))) {
        T* const square = scores + part.row * n;
        detail::square_product(key + part.row, 1, row, query + part.lane, n, square + part.lane, n, part.rows, a_.width,
                               part.lanes, false);
        for (std::size_t i = part.lane; i < part.lane + part.lanes; i += w) {
          const Vector<T> before = load(&largest[i]);
          Vector<T> most = before;
          for (std::size_t j = 0; j < part.rows; ++j) {
            if (read != nullptr && read[part.row + j] == T(0)) continue;
            Vector<T> s = load(square + j * n + i) * Vector<T>(scale);
            if (mask != nullptr) s = xsimd::select(mask_at(*mask, part.row + j, i), s, Vector<T>(lowest));
            store(square + j * n + i, s);
            most = xsimd::max(most, s);
          }
          Vector<T> sum(T(0));
          for (std::size_t j = 0; j < part.rows; ++j) {
            Vector<T> p(T(0));
            if (read == nullptr || read[part.row + j] != T(0)) {
              p = detail::exp_below_zero<T>(load(square + j * n + i) - most);
              if (mask != nullptr) p = xsimd::select(mask_at(*mask, part.row + j, i), p, Vector<T>(T(0)));
            }
            sum += p;
            if (a_.dropout > 0) p *= factors(drawn + i, t.other * n + part.row + j);
            store(square + j * n + i, p);
          }
          const Vector<T> less = detail::exp_below_zero<T>(before - most);
          store(&total[i], xsimd::fma(load(&total[i]), less, sum));
          store(&largest[i], most);
          for (std::size_t f = 0; f < a_.width; ++f) store(out + f * n + i, load(out + f * n + i) * less);
        }
        detail::square_product(value + part.row, row, 1, static_cast<const T*>(square + part.lane), n, out + part.lane,
                               n, a_.width, part.rows, part.lanes, true);
      }
    }
    T* const log_sum = log_sums + (head * a_.samples * side_ + panel) * n;
    for (std::size_t i = 0; i < n; i += w) {
      const Vector<T> all = load(&total[i]);
      const auto some = all > Vector<T>(T(0));
      const Vector<T> share = xsimd::select(some, Vector<T>(T(1)) / all, Vector<T>(T(0)));
      for (std::size_t f = 0; f < a_.width; ++f) store(out + f * n + i, load(out + f * n + i) * share);
      store(log_sum + i, xsimd::select(some, Vector<T>(load(&largest[i]) + xsimd::log(all)), Vector<T>(-lowest)));
    }
  }

  void backward_head(std::size_t sample, std::size_t key_head, Panels<const T> q, Panels<const T> k, Panels<const T> v,
                     const T* keys, Panels<const T> o, const T* log_sums, Panels<const T> d_o, Panels<T> dq,
                     Panels<T> dk, Panels<T> dv, T* scratch) const {
    const std::size_t n = lanes_, tokens = side_ * n, row = padded(), shared = a_.shared();
    const auto step = static_cast<std::ptrdiff_t>(n);
    const T scale = static_cast<T>(a_.scale);
    T* const queries = scratch;                          // rows of dq
    T* const reduced = queries + shared * tokens * row;  // the sum of o * d_o for each query
    T *const p = reduced + shared * tokens, *const ds = p + n * n, *const turned = ds + n * n;
    std::fill_n(queries, shared * tokens * row, T(0));
    for (std::size_t h = 0; h < shared; ++h)
      for (std::size_t tile = 0; tile < side_; ++tile)
        for (std::size_t i = 0; i < n; i += w) {
          const std::size_t panel = sample * side_ + tile, first = (key_head * shared + h) * a_.width;
          Vector<T> sum(T(0));
          for (std::size_t f = 0; f < a_.width; ++f)
            sum = xsimd::fma(load(at(o, panel, first + f) + i), load(at(d_o, panel, first + f) + i), sum);
          store(reduced + h * tokens + tile * n + i, sum);
        }
    for (std::size_t tile = 0; tile < key_side_; ++tile) {
      const std::size_t panel = sample * key_side_ + tile, count = live(tile, a_.keys), first = key_head * a_.width;
      const T *const key = at(k, panel, first), *const value = at(v, panel, first);
      T *const d_key = at(dk, panel, first), *const d_value = at(dv, panel, first);
      std::fill_n(d_key, a_.width * n, T(0)), std::fill_n(d_value, a_.width * n, T(0));
      for (std::size_t j = 0; j < n; ++j) {
        for (std::size_t f = 0; f < a_.width; ++f) turned[j * row + f] = key[f * n + j];
        std::fill_n(turned + j * row + a_.width, row - a_.width, T(0));
      }
      alignas(cache_line) T lives[most_lanes<T>];
      for (std::size_t j = 0; j < n; ++j)
        lives[j] = j < count && (keys == nullptr || keys[panel * n + j] != T(0)) ? T(1) : T(0);
      for (std::size_t h = 0; h < shared; ++h)
        for (const AttentionTiles::Tile& t : a_.tiles->of_key(tile)) {
          const std::size_t head = key_head * shared + h, from = sample * side_ + t.other;
          std::uint32_t drawn[most_lanes<T>];
          draw(sample, head, t.other, drawn);
          const AttentionTiles::Mask* const mask = t.mask != AttentionTiles::full ? &a_.tiles->mask(t.mask) : nullptr;
          for (const Part& part : parts(mask, &AttentionTiles::Mask::by_query, live(t.other, a_.queries))) {
            const T* const query = at(q, from, head * a_.width) + part.row;
            const T* const up = at(d_o, from, head * a_.width) + part.row;
            const T* const log_sum = log_sums + (head * a_.samples * side_ + from) * n + part.row;
            const std::size_t first_query = h * tokens + t.other * n + part.row, lane = part.lane;
            T *const weights = p + part.row * n + lane, *const by_score = ds + part.row * n + lane;
            detail::square_product(query, 1, step, key + lane, n, weights, n, part.rows, a_.width, part.lanes, false);
            detail::square_product(up, 1, step, value + lane, n, by_score, n, part.rows, a_.width, part.lanes, false);
            for (std::size_t i = 0; i < part.lanes; i += w) {
              const Vector<T> lanes_live = load(&lives[lane + i]);
              for (std::size_t r = 0; r < part.rows; ++r) {
                T *const weight = weights + r * n + i, *const score = by_score + r * n + i;
                const Vector<T> exponent = xsimd::fma(load(weight), Vector<T>(scale), Vector<T>(-log_sum[r]));
                Vector<T> e = detail::exp_below_zero<T>(xsimd::min(exponent, Vector<T>(T(0)))) * lanes_live;
                if (mask != nullptr) e *= detail::from_bits<T>(mask->by_query[part.row + r], lane + i);
                Vector<T> by_weight = load(score);
                if (a_.dropout > 0) {
                  const Vector<T> factor = factors(drawn[part.row + r], tile * n + lane + i);
                  store(weight, e * factor);
                  by_weight *= factor;
                } else {
                  store(weight, e);
                }
                store(score, e * (by_weight - Vector<T>(reduced[first_query + r])) * Vector<T>(scale));
              }
            }
            detail::square_product(up, step, 1, static_cast<const T*>(weights), n, d_value + lane, n, a_.width,
                                   part.rows, part.lanes, true);
            detail::square_product(query, step, 1, static_cast<const T*>(by_score), n, d_key + lane, n, a_.width,
                                   part.rows, part.lanes, true);
            if (lane < count)
              detail::square_product(static_cast<const T*>(by_score), step, 1,
                                     static_cast<const T*>(turned + lane * row), row, queries + first_query * row, row,
                                     part.rows, std::min(part.lanes, count - lane), row, true);
          }
        }
    }
    for (std::size_t h = 0; h < shared; ++h)
      for (std::size_t tile = 0; tile < side_; ++tile) {
        T* const to = at(dq, sample * side_ + tile, (key_head * shared + h) * a_.width);
        const T* const from = queries + (h * tokens + tile * n) * row;
        for (std::size_t f = 0; f < a_.width; ++f)
          for (std::size_t j = 0; j < n; ++j) to[f * n + j] = from[j * row + f];
      }
  }

  /// Lanes of a square and the rows in which they are live.
  struct Part {
    std::size_t lane, lanes, row, rows;
  };
  /// A full square as a whole; of another each half of its lanes, with the rows that it reaches.
  std::array<Part, 2> parts(const AttentionTiles::Mask* mask,
                            const std::array<std::uint64_t, 64> AttentionTiles::Mask::*rows, std::size_t count) const {
    if (mask == nullptr) return {Part{0, lanes_, 0, count}, Part{0, 0, 0, 0}};
    const std::size_t half = lanes_ >= 2 * w ? round_up(lanes_ / 2, w) : lanes_;
    const auto part = [&](std::size_t begin, std::size_t end) {
      const auto [first, last] = AttentionTiles::Mask::reach(mask->*rows, begin, end);
      return Part{begin, end - begin, first, last - first};
    };
    return {part(0, half), half < lanes_ ? part(half, lanes_) : Part{0, 0, 0, 0}};
  }
  static auto mask_at(const AttentionTiles::Mask& mask, std::size_t key, std::size_t first) {
    return detail::from_bits<T>(mask.by_key[key], first) != Vector<T>(T(0));
  }

  Attention a_;
  std::size_t lanes_, side_, key_side_;
};

/// One query of each sample, the last of `count`: rows of queries and results, one a sample; keys and values are
/// [sample][place][feature], with room for a.keys places; `live`, unless null, says which places count. `scores` has
/// room for a.keys numbers for each sample and head.
template <class T>
void attend_step(const Attention& a, std::size_t count, const Matrix<T>& q, const T* keys, const T* values,
                 const T* live, const Matrix<T>& o, T* scores) {
  constexpr std::size_t w = width<T>;
  const std::size_t features = a.key_heads * a.width;
  const double cost = nanoseconds::multiply_add<T> * static_cast<double>(4 * count * a.width);
  parallel_for(a.samples * a.heads, cost, [&](std::size_t begin, std::size_t end) {
    for (std::size_t task = begin; task < end; ++task) {
      const std::size_t sample = task / a.heads, head = task % a.heads;
      const std::size_t first = sample * a.keys * features + head / a.shared() * a.width;
      const T* const query = q.row(sample) + head * a.width;
      T *const to = o.row(sample) + head * a.width, *const weights = scores + task * a.keys;
      T largest = std::numeric_limits<T>::lowest(), total(0);
      const auto reads = [&](std::size_t j) {
        return a.live(count - 1, j) && (live == nullptr || live[sample * a.keys + j] != T(0));
      };
      for (std::size_t j = 0; j < count; ++j) {
        if (!reads(j)) continue;
        const T* const key = keys + first + j * features;
        Vector<T> sum(T(0));
        for (std::size_t d = 0; d < a.width; d += w)
          sum = xsimd::fma(load(query + d, a.width - d), load(key + d, a.width - d), sum);
        weights[j] = xsimd::hadd(sum) * static_cast<T>(a.scale);
        largest = std::max(largest, weights[j]);
      }
      std::fill_n(to, a.width, T(0));
      for (std::size_t j = 0; j < count; ++j) {
        if (!reads(j)) continue;
        const T weight = std::exp(weights[j] - largest), *const value = values + first + j * features;
        total += weight;
        for (std::size_t d = 0; d < a.width; d += w) {
          const Vector<T> so_far = load(static_cast<const T*>(to + d), a.width - d);
          store(to + d, xsimd::fma(Vector<T>(weight), load(value + d, a.width - d), so_far), a.width - d);
        }
      }
      const T share = total > T(0) ? T(1) / total : T(0);
      for (std::size_t d = 0; d < a.width; ++d) to[d] *= share;
    }
  });
}

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
