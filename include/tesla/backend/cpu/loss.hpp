// Softmax and losses: vertical operations, each lane a sample. One lane (a batch of one) runs the same code on scalars.
#pragma once

#include <tesla/backend/cpu/elementwise.hpp>

#include <array>

namespace tesla::inline TESLA_TARGET::backend::cpu {

namespace detail {

/// Calls body(panel, lane, V) for every vector of lanes, or for the one lane of a batch of one.
template <class T, class Body>
void for_each_lane(Panels<const T> in, double cost, const Body& body) {
  if (in.batch == 0) return;
  if (in.lanes == 1) {
    body(std::size_t{0}, std::size_t{0}, std::type_identity<T>());
    return;
  }
  const std::size_t vectors = in.lanes / width<T>;
  parallel_for(in.panels() * vectors, cost * static_cast<double>(width<T>), [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i)
      body(i / vectors, i % vectors * width<T>, std::type_identity<Vector<T>>());
  });
}

/// The largest of n values, `stride` apart.
template <class V, class T>
V largest_of(const T* in, std::size_t n, std::size_t stride) {
  using math::max;
  V largest = load_as<V>(in);
  for (std::size_t i = 1; i < n; ++i) largest = max(largest, load_as<V>(in + i * stride));
  return largest;
}

}  // namespace detail

template <class T>
void softmax(Panels<const T> in, Panels<T> out, std::size_t group, bool logarithm) {
  using math::exp, math::log;
  detail::for_each_lane(in, 10.0 * static_cast<double>(in.features), [&]<class V>(std::size_t panel, std::size_t lane,
                                                                                  std::type_identity<V>) {
    const std::size_t stride = in.lanes;
    for (std::size_t first = 0; first < in.features; first += group) {
      const T* x = in.panel(panel) + first * stride + lane;
      T* const y = out.panel(panel) + first * stride + lane;
      const V largest = detail::largest_of<V>(x, group, stride);
      V total(T(0));
      for (std::size_t i = 0; i < group; ++i) {
        const V shifted = load_as<V>(x + i * stride) - largest, e = exp(shifted);
        total += e;
        store_as(y + i * stride, logarithm ? shifted : e);
      }
      const V last = logarithm ? V(log(total)) : V(T(1)) / total;
      for (std::size_t i = 0; i < group; ++i) {
        const V value = load_as<V>(y + i * stride);
        store_as(y + i * stride, logarithm ? value - last : value * last);
      }
    }
  });
}

template <class T>
void softmax_gradient(Panels<const T> y, Panels<const T> dy, Panels<T> dx, std::size_t group, bool logarithm) {
  using math::exp;
  detail::for_each_lane(y, 4.0 * static_cast<double>(y.features), [&]<class V>(std::size_t panel, std::size_t lane,
                                                                               std::type_identity<V>) {
    const std::size_t stride = y.lanes;
    for (std::size_t first = 0; first < y.features; first += group) {
      const std::size_t offset = first * stride + lane;
      const T *value = y.panel(panel) + offset, *slope = dy.panel(panel) + offset;
      T* const result = dx.panel(panel) + offset;
      V total(T(0));
      for (std::size_t i = 0; i < group * stride; i += stride) {
        const V d = load_as<V>(slope + i);
        total += logarithm ? d : d * load_as<V>(value + i);
      }
      for (std::size_t i = 0; i < group * stride; i += stride) {
        const V v = load_as<V>(value + i), d = load_as<V>(slope + i);
        store_as(result + i, logarithm ? d - V(exp(v)) * total : (d - total) * v);
      }
    }
  });
}

/// Softmax and cross-entropy in one, from logits; the largest logit is taken off first, so nothing overflows.
template <class T>
double cross_entropy(Panels<const T> logits, Target<T> target, const T* weights, Panels<T> gradient) {
  using math::exp, math::log;
  constexpr std::size_t w = width<T>;
  const std::size_t stride = logits.lanes, n = logits.features;
  double loss = 0;
  const auto column = [&]<class V>(std::size_t panel, std::size_t lane, std::type_identity<V>) {
    constexpr std::size_t samples = std::is_same_v<V, T> ? 1 : w;
    const std::size_t first = panel * stride + lane;
    if (first >= logits.batch && !gradient) return;
    const T* x = logits.panel(panel) + lane;
    T* const dx = gradient ? gradient.panel(panel) + lane : nullptr;
    const T* wanted = target.labels != nullptr ? nullptr : target.values.panel(panel) + lane;
    const V largest = detail::largest_of<V>(x, n, stride), weight = load_as<V>(weights + first);
    V total(T(0)), mass(T(1)), dot(T(0));
    if (wanted != nullptr) mass = V(T(0));
    for (std::size_t i = 0; i < n * stride; i += stride) {
      const V shifted = load_as<V>(x + i) - largest, e = exp(shifted);
      total += e;
      if (dx != nullptr) store_as(dx + i, e);
      if (wanted != nullptr) {
        const V t = load_as<V>(wanted + i);
        mass += t;
        dot += t * shifted;
      }
    }
    if (dx != nullptr) {
      const V scale = weight * mass / total;
      for (std::size_t i = 0; i < n * stride; i += stride) {
        V d = load_as<V>(dx + i) * scale;
        if (wanted != nullptr) d -= weight * load_as<V>(wanted + i);
        store_as(dx + i, d);
      }
    }
    alignas(cache_line) T logs[samples], tops[samples];
    const V value = V(log(total)) * mass - dot;
    store_as(logs, value);
    store_as(tops, largest);
    for (std::size_t s = 0; s < samples && first + s < logits.batch; ++s) {
      T own = logs[s];
      if (target.labels != nullptr) {
        const std::size_t at = static_cast<std::size_t>(target.labels[first + s]) * stride + s;
        own -= x[at] - tops[s];
        if (dx != nullptr) dx[at] -= weights[first + s];
      }
      loss += static_cast<double>(weights[first + s]) * static_cast<double>(own);
    }
  };
  if (logits.lanes == 1) {
    column(0, 0, std::type_identity<T>());
  } else {
    for (std::size_t first = 0; first < logits.panels() * stride; first += w)
      column(first / stride, first % stride, std::type_identity<Vector<T>>());
  }
  return loss;
}

/// A loss that is a sum over features of f(y, target), f being run on dual numbers for its derivative.
template <class F, class T>
double elementwise_loss(const F& f, Panels<const T> y, Panels<const T> target, const T* weights, Panels<T> gradient) {
  constexpr std::size_t chunks = 64;  // partial sums, by shape and never by thread
  std::array<double, chunks> partial{};
  if (y.batch == 0) return 0;
  const bool single = y.lanes == 1;
  const std::size_t w = single ? 1 : width<T>, vectors = y.panels() * (y.lanes / w);
  parallel_for(std::min(chunks, vectors), static_cast<double>(8 * y.size()) / static_cast<double>(std::min(chunks, vectors)),
               [&](std::size_t begin, std::size_t end) {
                 for (std::size_t chunk = begin; chunk < end; ++chunk) {
                   const std::size_t n = std::min(chunks, vectors);
                   for (std::size_t i = vectors * chunk / n; i < vectors * (chunk + 1) / n; ++i) {
                     const std::size_t panel = i * w / y.lanes, lane = i * w % y.lanes;
                     const auto column = [&]<class V>(std::type_identity<V>) {
                       const V weight = load_as<V>(weights + panel * y.lanes + lane), zero(T(0)), one(T(1));
                       V loss = zero;
                       for (std::size_t at = lane; at < y.features * y.lanes; at += y.lanes) {
                         const math::Dual<V> l = f(math::Dual<V>(load_as<V>(y.panel(panel) + at), one),
                                                   math::Dual<V>(load_as<V>(target.panel(panel) + at), zero));
                         loss += l.value;
                         if (gradient) store_as(gradient.panel(panel) + at, V(weight * l.slope));
                       }
                       if constexpr (std::is_same_v<V, T>) {
                         partial[chunk] += static_cast<double>(weight) * static_cast<double>(loss);
                       } else {
                         T lanes[width<T>];
                         store(lanes, loss);
                         for (std::size_t s = 0; s < width<T> && panel * y.lanes + lane + s < y.batch; ++s)
                           partial[chunk] += static_cast<double>(weights[panel * y.lanes + lane + s]) * static_cast<double>(lanes[s]);
                       }
                     };
                     if (single)
                       column(std::type_identity<T>());
                     else
                       column(std::type_identity<Vector<T>>());
                   }
                 }
               });
  double total = 0;
  for (const double value : partial) total += value;
  return total;
}

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
