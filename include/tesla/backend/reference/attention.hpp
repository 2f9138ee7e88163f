// Attention by plain loops.
#pragma once

#include <tesla/backend/attention.hpp>
#include <tesla/backend/product.hpp>
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

/// What a query reads.
template <class T>
struct Weight {
  std::size_t key;
  T value, factor;  // of dropout
};
/// Calls f(head, query, those that it reads, the logarithm of the softmax's denominator).
template <class T, class F>
void each_query(const Attention& a, Panels<const T> q, Panels<const T> k, const T* keys, const F& f) {
  const std::size_t samples = std::max<std::size_t>(a.samples, 1), rows = q.batch / samples,
                    keys_of = k.batch / samples;
  for (std::size_t sample = 0; sample < a.samples; ++sample)
    for (std::size_t head = 0; head < a.heads; ++head)
      for (std::size_t i = 0; i < a.queries; ++i) {
        std::vector<Weight<T>> weights;
        T largest = std::numeric_limits<T>::lowest(), total(0);
        for (std::size_t j = 0; j < a.keys; ++j) {
          const std::size_t key = sample * keys_of + j;
          if (!a.live(i, j) || (keys != nullptr && keys[key] == T(0))) continue;
          T score(0);
          for (std::size_t d = 0; d < a.width; ++d)
            score += q.at(sample * rows + i, head * a.width + d) * k.at(key, head / a.shared() * a.width + d);
          const T factor = a.dropout > 0 ? a.template factor<T>(a.drawn_from(sample, head, i), j) : T(1);
          weights.push_back({key, score * static_cast<T>(a.scale), factor});
          largest = std::max(largest, weights.back().value);
        }
        for (auto& w : weights) total += w.value = std::exp(w.value - largest);
        for (auto& w : weights) w.value /= total;
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
      for (const auto& w : weights) total += w.value * w.factor * v.at(w.key, head / a.shared() * a.width + f);
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
    for (const auto& [key, weight, factor] : weights) {
      T by_weight(0);
      for (std::size_t f = 0; f < a.width; ++f) {
        by_weight += factor * d_o.at(query, own + f) * v.at(key, shared + f);
        dv.at(key, shared + f) += weight * factor * d_o.at(query, own + f);
      }
      const T by_score = weight * (by_weight - mean) * static_cast<T>(a.scale);
      for (std::size_t f = 0; f < a.width; ++f) {
        dq.at(query, own + f) += by_score * k.at(key, shared + f);
        dk.at(key, shared + f) += by_score * q.at(query, own + f);
      }
    }
  });
}

/// One query of each sample, the last of `count`: rows of queries and results, one a sample; keys and values are
/// [sample][place][feature], with room for a.keys places; `live`, unless null, says which places count.
template <class T>
void attend_step(const Attention& a, std::size_t count, const Matrix<T>& q, const T* keys, const T* values,
                 const T* live, const Matrix<T>& o) {
  const std::size_t features = a.key_heads * a.width;
  for (std::size_t sample = 0; sample < a.samples; ++sample)
    for (std::size_t head = 0; head < a.heads; ++head) {
      const std::size_t first = head / a.shared() * a.width;
      T* const to = o.row(sample) + head * a.width;
      std::vector<std::pair<std::size_t, T>> weights;
      T largest = std::numeric_limits<T>::lowest(), total(0);
      for (std::size_t j = 0; j < count; ++j) {
        if (!a.live(count - 1, j) || (live != nullptr && live[sample * a.keys + j] == T(0))) continue;
        T score(0);
        for (std::size_t d = 0; d < a.width; ++d)
          score += q.row(sample)[head * a.width + d] * keys[(sample * a.keys + j) * features + first + d];
        weights.emplace_back(j, score * static_cast<T>(a.scale));
        largest = std::max(largest, weights.back().second);
      }
      std::fill_n(to, a.width, T(0));
      for (auto& [j, weight] : weights) total += weight = std::exp(weight - largest);
      for (const auto& [j, weight] : weights)
        for (std::size_t d = 0; d < a.width; ++d)
          to[d] += weight / total * values[(sample * a.keys + j) * features + first + d];
    }
}

}  // namespace tesla::inline TESLA_TARGET::backend::reference
