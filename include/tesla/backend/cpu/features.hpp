// What is done along the features of each sample, the samples being lanes: normalising groups, picking and adding
// features, drawing random numbers.
#pragma once

#include <tesla/backend/cpu/elementwise.hpp>
#include <tesla/backend/features.hpp>

#include <cstring>

namespace tesla::inline TESLA_TARGET::backend::cpu {

namespace detail {

/// Calls f(lane, live lanes) for the vectors of a panel's lanes; lanes of a single sample are one.
template <class T, class F>
[[gnu::always_inline]] inline void each_vector(std::size_t lanes, const F& f) {
  for (std::size_t lane = 0; lane < lanes; lane += width<T>) f(lane, std::min(width<T>, lanes - lane));
}

template <class T, class F>
[[gnu::always_inline]] inline void each_member(const Groups& g, std::size_t group, std::size_t lanes, const F& f) {
  for (std::size_t r = 0; r < g.repeats; ++r)
    for (std::size_t i = 0; i < g.size; ++i) f((group * g.size + r * g.apart + i) * lanes);
}

template <class T, class F>
void each_group(const Groups& g, Panels<const T> shape, double passes, const F& f) {
  const double cost = passes * nanoseconds::value<T> * static_cast<double>(g.features() * shape.lanes);
  parallel_for(shape.panels() * g.count, cost, [&](std::size_t begin, std::size_t end) {
    for (std::size_t task = begin; task < end; ++task) f(task / g.count, task % g.count);
  });
}

}  // namespace detail

/// y = (x - mean) / spread for each group, where spread = sqrt(variance + epsilon); without `centred` the mean is taken
/// to be 0. `scale`, one a group, is 1 / spread.
template <class T>
void normalise(const Groups& g, bool centred, double epsilon, Panels<const T> x, Panels<T> y, Panels<T> scale) {
  const Vector<T> share(T(1) / static_cast<T>(g.features())), least(static_cast<T>(epsilon));
  detail::each_group<T>(g, x, 3, [&](std::size_t panel, std::size_t group) {
    const T* const from = x.panel(panel);
    T* const to = y.panel(panel);
    detail::each_vector<T>(x.lanes, [&](std::size_t lane, std::size_t n) {
      Vector<T> mean(T(0)), squares(T(0));
      if (centred) {
        detail::each_member<T>(g, group, x.lanes, [&](std::size_t at) { mean += load(from + at + lane, n); });
        mean *= share;
      }
      detail::each_member<T>(g, group, x.lanes, [&](std::size_t at) {
        const Vector<T> d = load(from + at + lane, n) - mean;
        squares = xsimd::fma(d, d, squares);
      });
      const Vector<T> factor = Vector<T>(T(1)) / xsimd::sqrt(xsimd::fma(squares, share, least));
      detail::each_member<T>(g, group, x.lanes, [&](std::size_t at) {
        store(to + at + lane, (load(from + at + lane, n) - mean) * factor, n);
      });
      store(scale.panel(panel) + group * x.lanes + lane, factor, n);
    });
  });
}

/// dx from the gradient by y; dy and dx may be the same.
template <class T>
void normalise_gradient(const Groups& g, bool centred, Panels<const T> y, Panels<const T> scale, Panels<const T> dy,
                        Panels<T> dx) {
  const Vector<T> share(T(1) / static_cast<T>(g.features()));
  detail::each_group<T>(g, y, 3, [&](std::size_t panel, std::size_t group) {
    const T *const out = y.panel(panel), *const up = dy.panel(panel);
    T* const to = dx.panel(panel);
    detail::each_vector<T>(y.lanes, [&](std::size_t lane, std::size_t n) {
      Vector<T> mean(T(0)), along(T(0));
      detail::each_member<T>(g, group, y.lanes, [&](std::size_t at) {
        const Vector<T> d = load(up + at + lane, n);
        if (centred) mean += d;
        along = xsimd::fma(d, load(out + at + lane, n), along);
      });
      mean *= share, along *= share;
      const Vector<T> factor = load(scale.panel(panel) + group * y.lanes + lane, n);
      detail::each_member<T>(g, group, y.lanes, [&](std::size_t at) {
        const Vector<T> own = load(up + at + lane, n) - mean - along * load(out + at + lane, n);
        store(to + at + lane, own * factor, n);
      });
    });
  });
}

template <class T>
void pick(const Picks& p, Panels<const T> x, Panels<T> y, bool add) {
  const std::size_t lanes = y.lanes;
  parallel_for(y.panels() * y.features, nanoseconds::value<T> * static_cast<double>(lanes),
               [&](std::size_t begin, std::size_t end) {
                 for (std::size_t task = begin; task < end; ++task) {
                   const std::size_t panel = task / y.features, f = task % y.features;
                   const T* const from = x.panel(panel);
                   T* const to = y.panel(panel) + f * lanes;
                   std::uint32_t k = p.pointers[f];
                   const std::uint32_t last = p.pointers[f + 1];
                   if (!add && k == last) std::fill_n(to, lanes, T(0));
                   if (!add && k < last) std::memcpy(to, from + p.from[k++] * lanes, lanes * sizeof(T));
                   for (; k < last; ++k)
                     for (std::size_t i = 0; i < lanes; ++i) to[i] += from[p.from[k] * lanes + i];
                 }
               });
}

namespace detail {

using Words [[gnu::vector_size(64)]] = std::uint64_t;  // eight words of 32 bits, with room for products

/// Eight blocks at a time, whose counters differ in their second word.
[[gnu::always_inline]] inline void philox(std::uint32_t first, std::uint32_t second, const Draw& draw, Words (&c)[4]) {
  constexpr std::uint64_t low = 0xFFFFFFFF;
  c[0] = Words{} + first;
  c[1] = (Words{0, 1, 2, 3, 4, 5, 6, 7} + second) & low;
  c[2] = Words{} + (draw.stream & low), c[3] = Words{} + (draw.stream >> 32);
  std::uint64_t k0 = draw.seed & low, k1 = draw.seed >> 32;
  for (int round = 0; round < 10; ++round) {
    const Words p0 = c[0] * 0xD2511F53u, p1 = c[2] * 0xCD9E8D57u;
    c[0] = (p1 >> 32) ^ c[1] ^ k0, c[1] = p1 & low;
    c[2] = (p0 >> 32) ^ c[3] ^ k1, c[3] = p0 & low;
    k0 = (k0 + 0x9E3779B9) & low, k1 = (k1 + 0xBB67AE85) & low;
  }
}

}  // namespace detail

template <class T>
void draw(const Draw& d, Panels<T> out) {
  const std::size_t lanes = out.lanes, blocks = (out.features + 3) / 4;
  const double each = d.kind == Draw::Kind::uniform ? 1.5 : 20;
  parallel_for(out.panels() * blocks, each * static_cast<double>(4 * lanes), [&](std::size_t begin, std::size_t end) {
    for (std::size_t task = begin; task < end; ++task) {
      const std::size_t panel = task / blocks, feature = task % blocks * 4;
      const std::size_t words = std::min<std::size_t>(4, out.features - feature);
      T* const to = out.panel(panel) + feature * lanes;
      const std::size_t sample = panel * lanes;
      if (d.kind == Draw::Kind::normal || lanes % 8 != 0) {
        for (std::size_t lane = 0; lane < lanes; ++lane) {
          const random::Block bits = d.bits(sample + lane, feature);
          for (std::size_t i = 0; i < words; ++i) to[i * lanes + lane] = static_cast<T>(d.number(bits, i));
        }
        continue;
      }
      for (std::size_t lane = 0; lane < lanes; lane += 8) {
        detail::Words block[4];
        detail::philox(static_cast<std::uint32_t>(feature / 4), static_cast<std::uint32_t>(sample + lane), d, block);
        for (std::size_t i = 0; i < words; ++i)
          for (std::size_t k = 0; k < 8; ++k)
            to[i * lanes + lane + k] = static_cast<T>(static_cast<std::int32_t>(block[i][k] >> 8)) * T(0x1p-24);
      }
    }
  });
}

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
