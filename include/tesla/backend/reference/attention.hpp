// Attention by plain loops.
#pragma once

#include <tesla/backend/attention.hpp>
#include <tesla/tensor/panels.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace tesla::inline TESLA_TARGET::backend::reference {

template <class T>
void rotate(const Rotation& r, bool back, Panels<T> tokens) {
  const std::size_t rows = round_up(r.length, tokens.lanes);
  for (std::size_t token = 0; token < tokens.batch; ++token)
    for (std::size_t head = 0; head < tokens.features / r.width && token % rows < r.length; ++head)
      for (std::size_t i = 0; i < r.width / 2; ++i) {
        const std::size_t at = i * r.length + token % rows, f = head * r.width + 2 * i;
        const T c = static_cast<T>(r.cosines[at]), s = static_cast<T>(back ? -r.sines[at] : r.sines[at]);
        const T x = tokens.at(token, f), y = tokens.at(token, f + 1);
        tokens.at(token, f) = x * c - y * s, tokens.at(token, f + 1) = x * s + y * c;
      }
}

/// Calls f(head, query, {key, weight} of those that it reads, the logarithm of the softmax's denominator).
template <class T, class F>
void each_query(const Attention& a, Panels<const T> q, Panels<const T> k, const T* keys, const F& f) {
  const std::size_t rows = q.batch / std::max<std::size_t>(a.samples, 1);
  for (std::size_t sample = 0; sample < a.samples; ++sample)
    for (std::size_t head = 0; head < a.heads; ++head)
      for (std::size_t i = 0; i < a.length; ++i) {
        std::vector<std::pair<std::size_t, T>> weights;
        T largest = std::numeric_limits<T>::lowest(), total(0);
        for (std::size_t j = 0; j < a.length; ++j) {
          const std::size_t key = sample * rows + j;
          if (!a.live(i, j) || (keys != nullptr && keys[key] == T(0))) continue;
          T score(0);
          for (std::size_t d = 0; d < a.width; ++d)
            score += q.at(sample * rows + i, head * a.width + d) * k.at(key, head / a.shared() * a.width + d);
          weights.emplace_back(key, score * static_cast<T>(a.scale));
          largest = std::max(largest, weights.back().second);
        }
        for (auto& [key, weight] : weights) total += weight = std::exp(weight - largest);
        for (auto& [key, weight] : weights) weight /= total;
        f(head, sample * rows + i, weights, weights.empty() ? T(0) : largest + std::log(total));
      }
}

template <class T>
void to_tokens(Panels<const T> x, std::size_t length, Panels<T> tokens) {
  const std::size_t rows = tokens.batch / std::max<std::size_t>(x.batch, 1);
  for (std::size_t i = 0; i < tokens.batch; ++i)
    for (std::size_t f = 0; f < tokens.features; ++f)
      tokens.at(i, f) = i % rows < length ? x.at(i / rows, i % rows * tokens.features + f) : T(0);
}
template <class T>
void from_tokens(Panels<const T> tokens, std::size_t length, Panels<T> y) {
  const std::size_t rows = tokens.batch / std::max<std::size_t>(y.batch, 1);
  for (std::size_t i = 0; i < tokens.batch; ++i)
    for (std::size_t f = 0; f < tokens.features && i % rows < length; ++f)
      y.at(i / rows, i % rows * tokens.features + f) = tokens.at(i, f);
}
template <class T>
void attend(const Attention& a, Panels<const T> q, Panels<const T> k, Panels<const T> v, const T* keys, Panels<T> o,
            T* log_sums) {
  each_query(a, q, k, keys, [&](std::size_t head, std::size_t query, const auto& weights, T log_sum) {
    for (std::size_t f = 0; f < a.width; ++f) {
      T total(0);
      for (const auto& [key, weight] : weights) total += weight * v.at(key, head / a.shared() * a.width + f);
      o.at(query, head * a.width + f) = total;
    }
    log_sums[head * q.batch + query] = log_sum;
  });
}
template <class T>
void attend_gradient(const Attention& a, Panels<const T> q, Panels<const T> k, Panels<const T> v, const T* keys,
                     Panels<const T> o, Panels<const T> d_o, Panels<T> dq, Panels<T> dk, Panels<T> dv) {
  for (const Panels<T>& p : {dq, dk, dv}) std::fill_n(p.data, p.size(), T(0));
  each_query(a, q, k, keys, [&](std::size_t head, std::size_t query, const auto& weights, T) {
    const std::size_t own = head * a.width, shared = head / a.shared() * a.width;
    T mean(0);
    for (std::size_t f = 0; f < a.width; ++f) mean += o.at(query, own + f) * d_o.at(query, own + f);
    for (const auto& [key, weight] : weights) {
      T by_weight(0);
      for (std::size_t f = 0; f < a.width; ++f) {
        by_weight += d_o.at(query, own + f) * v.at(key, shared + f);
        dv.at(key, shared + f) += weight * d_o.at(query, own + f);
      }
      const T by_score = weight * (by_weight - mean) * static_cast<T>(a.scale);
      for (std::size_t f = 0; f < a.width; ++f) {
        dq.at(query, own + f) += by_score * k.at(key, shared + f);
        dk.at(key, shared + f) += by_score * q.at(query, own + f);
      }
    }
  });
}

}  // namespace tesla::inline TESLA_TARGET::backend::reference
