// Softmax and losses: vertical operations, each lane a sample.
#pragma once

#include <tesla/backend/cpu/elementwise.hpp>

#include <array>

namespace tesla::inline TESLA_TARGET::backend::cpu {

namespace detail {

/// Calls body(panel, lane, n) for every vector of lanes, n of them being there.
template <class T, class Body>
void for_each_lane(Panels<const T> in, double cost, const Body& body) {
  const std::size_t vectors = (in.lanes + width<T> - 1) / width<T>;
  parallel_for(in.panels() * vectors, cost * static_cast<double>(width<T>), [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const std::size_t lane = i % vectors * width<T>;
      body(i / vectors, lane, in.lanes - lane);
    }
  });
}

/// The largest of `count` values, `stride` apart; n lanes of them.
template <class T>
[[gnu::always_inline]] inline Vector<T> largest_of(const T* in, std::size_t count, std::size_t stride, std::size_t n) {
  Vector<T> largest = load(in, n);
  for (std::size_t i = 1; i < count; ++i) largest = xsimd::max(largest, load(in + i * stride, n));
  return largest;
}

}  // namespace detail

template <class T>
void softmax(Panels<const T> in, Panels<T> out, std::size_t group, bool logarithm) {
  using V = Vector<T>;
  detail::for_each_lane(in, 2 * nanoseconds::exponential<T> * static_cast<double>(in.features),
                        [&](std::size_t panel, std::size_t lane, std::size_t n) {
                          const std::size_t stride = in.lanes;
                          for (std::size_t first = 0; first < in.features; first += group) {
                            const T* x = in.panel(panel) + first * stride + lane;
                            T* const y = out.panel(panel) + first * stride + lane;
                            const V largest = detail::largest_of(x, group, stride, n);
                            V total(T(0));
                            for (std::size_t i = 0; i < group * stride; i += stride) {
                              const V shifted = load(x + i, n) - largest, e = exp(shifted);
                              total += e;
                              store(y + i, logarithm ? shifted : e, n);
                            }
                            const V last = logarithm ? log(total) : V(T(1)) / total;
                            for (std::size_t i = 0; i < group * stride; i += stride) {
                              const V value = load(y + i, n);
                              store(y + i, logarithm ? value - last : value * last, n);
                            }
                          }
                        });
}

template <class T>
void softmax_gradient(Panels<const T> y, Panels<const T> dy, Panels<T> dx, std::size_t group, bool logarithm) {
  using V = Vector<T>;
  detail::for_each_lane(y, nanoseconds::exponential<T> * static_cast<double>(y.features),
                        [&](std::size_t panel, std::size_t lane, std::size_t n) {
                          const std::size_t stride = y.lanes;
                          for (std::size_t first = 0; first < y.features; first += group) {
                            const std::size_t offset = first * stride + lane;
                            const T *value = y.panel(panel) + offset, *slope = dy.panel(panel) + offset;
                            T* const result = dx.panel(panel) + offset;
                            V total(T(0));
                            for (std::size_t i = 0; i < group * stride; i += stride) {
                              const V d = load(slope + i, n);
                              total += logarithm ? d : d * load(value + i, n);
                            }
                            for (std::size_t i = 0; i < group * stride; i += stride) {
                              const V v = load(value + i, n), d = load(slope + i, n);
                              store(result + i, logarithm ? d - exp(v) * total : (d - total) * v, n);
                            }
                          }
                        });
}

namespace detail {

/// Calls take(sample, cost) for the samples of vectors begin ... last - 1; costs are without the weights.
template <class T, class Take>
[[gnu::always_inline]] inline void cross_entropy_of(Panels<const T> logits, Target<T> target, const T* weights,
                                                    Panels<T> gradient, std::size_t begin, std::size_t last,
                                                    const Take& take) {
  using V = Vector<T>;
  const std::size_t stride = logits.lanes, end = logits.features * stride, step = std::min(stride, width<T>);
  for (std::size_t first = begin * step; first < last * step; first += step) {
    const std::size_t panel = first / stride, lane = first % stride, n = stride - lane;
    const T* x = logits.panel(panel) + lane;
    T* const dx = gradient ? gradient.panel(panel) + lane : nullptr;
    const T* wanted = target.labels != nullptr ? nullptr : target.values.panel(panel) + lane;
    const V largest = largest_of(x, logits.features, stride, n), weight = load(weights + first, n);
    V total(T(0)), mass(T(wanted == nullptr ? 1 : 0)), dot(T(0));
    for (std::size_t i = 0; i < end; i += stride) {
      const V shifted = load(x + i, n) - largest, e = exp(shifted);
      total += e;
      if (dx != nullptr) store(dx + i, e, n);
      if (wanted != nullptr) {
        const V t = load(wanted + i, n);
        mass += t;
        dot = xsimd::fma(t, shifted, dot);
      }
    }
    if (dx != nullptr) {
      const V scale = weight * mass / total;
      for (std::size_t i = 0; i < end; i += stride) {
        V d = load(dx + i, n) * scale;
        if (wanted != nullptr) d -= weight * load(wanted + i, n);
        store(dx + i, d, n);
      }
    }
    alignas(cache_line) T costs[width<T>], tops[width<T>];
    store(costs, log(total) * mass - dot);
    store(tops, largest);
    for (std::size_t s = 0; s < std::min(n, width<T>) && first + s < logits.batch; ++s) {
      T cost = costs[s];
      if (target.labels != nullptr) {
        const std::size_t at = static_cast<std::size_t>(target.labels[first + s]) * stride + s;
        cost -= x[at] - tops[s];
        if (dx != nullptr) dx[at] -= weights[first + s];
      }
      take(first + s, cost);
    }
  }
}

}  // namespace detail

/// Softmax and cross-entropy in one, from logits; the largest logit is taken off first, so nothing overflows.
template <class T>
double cross_entropy(Panels<const T> logits, Target<T> target, const T* weights, Panels<T> gradient) {
  constexpr std::size_t most = 128;        // vectors at a time
  constexpr double worth_threads = 10000;  // nanoseconds
  const std::size_t step = std::min(logits.lanes, width<T>), all = logits.panels() * (logits.lanes / step);
  const double each = nanoseconds::exponential<T> * static_cast<double>(logits.features * width<T>);
  double loss = 0;
  const auto add = [&](std::size_t sample, T cost) {
    loss += static_cast<double>(weights[sample]) * static_cast<double>(cost);
  };
  // Of doubles, whose products are rounded before they are added or not, as the compiler likes, by one thread always.
  if (sizeof(T) == sizeof(double) || static_cast<double>(all) * each < worth_threads) {
    detail::cross_entropy_of(logits, target, weights, gradient, 0, all, add);
    return loss;
  }
  T costs[most * width<T>];
  for (std::size_t done = 0; done < all; done += most) {
    const std::size_t first = done * step, count = std::min(most, all - done);
    parallel_for(count, each, [&](std::size_t begin, std::size_t end) {
      detail::cross_entropy_of(logits, target, weights, gradient, done + begin, done + end,
                               [&](std::size_t sample, T cost) { costs[sample - first] = cost; });
    });
    // In one order, whoever made them.
    for (std::size_t s = 0; s < count * step && first + s < logits.batch; ++s) add(first + s, costs[s]);
  }
  return loss;
}

/// Costs and gradients of a run of n values, both times the weights; the gradient may be null.
template <class T>
using LossKernel = void (*)(const void* f, const Operand<T>* y_target_weight, T* cost, T* gradient, std::size_t n);

template <class T, class F>
void loss_kernel(const void* context, const Operand<T>* in, T* cost, T* gradient, std::size_t n) {
  const F f = *static_cast<const F*>(context);
  using V = Vector<T>;
  for (std::size_t i = 0; i < n; i += width<T>) {
    const V weight = in[2].at(i, n);
    const math::Dual<V> result = f(math::Dual<V>(in[0].at(i, n), V(T(1))), math::Dual<V>(in[1].at(i, n), V(T(0))));
    store(cost + i, V(weight * result.value), n - i);
    if (gradient != nullptr) store(gradient + i, V(weight * result.slope), n - i);
  }
}

/// A loss that is a sum over features of f(y, target). Each sample's costs are added up in the order of the features,
/// then the samples'.
template <class T>
double sum_loss(LossKernel<T> kernel, const void* f, Panels<const T> y, Panels<const T> target, const T* weights,
                Panels<T> gradient) {
  constexpr std::size_t chunks = 64, run = most_lanes<T>;
  std::array<double, chunks> partial{};  // by shape and never by thread
  if (y.batch == 0) return 0;
  const bool single = y.lanes == 1 && y.batch == 1;
  // Rows of lanes; of a single sample, runs of features.
  const std::size_t rows = single ? (y.features + run - 1) / run : y.panels() * y.features;
  const std::size_t pieces = std::min(chunks, single ? rows : y.panels());
  parallel_for(pieces, nanoseconds::exponential<T> * static_cast<double>(y.size()) / static_cast<double>(pieces),
               [&](std::size_t begin, std::size_t end) {
                 for (std::size_t piece = begin; piece < end; ++piece) {
                   const std::size_t first = single ? rows * piece / pieces : y.panels() * piece / pieces * y.features;
                   const std::size_t last =
                       single ? rows * (piece + 1) / pieces : y.panels() * (piece + 1) / pieces * y.features;
                   for (std::size_t row = first; row < last; ++row) {
                     const std::size_t panel = row / y.features, at = single ? row * run : row * y.lanes;
                     const std::size_t n = single ? std::min(run, y.features - at) : y.lanes,
                                       live = single ? n : y.live(panel);
                     const Operand<T> in[] = {
                         {y.data + at}, {target.data + at}, {single ? weights : weights + panel * y.lanes, single}};
                     T cost[run];
                     kernel(f, in, cost, gradient ? gradient.data + at : nullptr, n);
                     double total = 0;
                     for (std::size_t i = 0; i < live; ++i) total += static_cast<double>(cost[i]);
                     partial[piece] += total;
                   }
                 }
               });
  double total = 0;
  for (const double value : partial) total += value;
  return total;
}

/// The costs of a vector of samples and their gradients, both times the weights; the gradient may be null. Features lie
/// `stride` apart.
template <class T>
using SumsKernel = void (*)(const void* f, const T* y, const T* target, const T* weights, T* cost, T* gradient,
                            std::size_t features, std::size_t stride, std::size_t n);

template <class T, class F>
void sums_kernel(const void* context, const T* y, const T* target, const T* weights, T* cost, T* gradient,
                 std::size_t features, std::size_t stride, std::size_t n) {
  const F f = *static_cast<const F*>(context);
  using V = Vector<T>;
  using D = math::Dual<V>;
  using Indices = std::make_index_sequence<F::sums>;
  const V zero(T(0)), one(T(1)), weight = load(weights, n);
  const V largest = F::below_largest ? detail::largest_of(y, features, stride, n) : zero;
  const std::size_t end = features * stride;
  const auto terms = [&](std::size_t i) {
    return f.terms(D(load(y + i, n) - largest, one), D(load(target + i, n), zero));
  };
  V sums[F::sums], slopes[F::sums], costs;
  for (V& sum : sums) sum = zero;
  for (std::size_t i = 0; i < end; i += stride) {
    const auto term = terms(i);
    unroll<F::sums>([&](auto k) { sums[k] += term[k].value; });
  }
  // Of samples without weight nothing counts, finite or not: unused lanes are among them.
  const auto live = weight != zero;
  unroll<F::sums>([&](auto k) {
    const D result = [&]<std::size_t... I>(std::index_sequence<I...>) {
      return f.cost(std::array<D, F::sums>{D(sums[I], I == k ? one : zero)...});
    }
    (Indices());
    costs = result.value;
    slopes[k] = weight * result.slope;
  });
  store(cost, xsimd::select(live, V(weight * costs), zero), n);
  if (gradient == nullptr) return;
  for (std::size_t i = 0; i < end; i += stride) {
    const auto term = terms(i);
    V slope = zero;
    unroll<F::sums>([&](auto k) { slope += slopes[k] * term[k].slope; });
    store(gradient + i, xsimd::select(live, slope, zero), n);
  }
}

/// A loss of sums over the features of each sample.
template <class T>
double loss_of_sums(SumsKernel<T> kernel, const void* f, Panels<const T> y, Panels<const T> target, const T* weights,
                    Panels<T> gradient) {
  constexpr std::size_t chunks = 64;
  std::array<double, chunks> partial{};  // by shape and never by thread
  const std::size_t vectors = (y.lanes + width<T> - 1) / width<T>, all = y.panels() * vectors,
                    pieces = std::min(chunks, all);
  if (pieces == 0) return 0;
  parallel_for(pieces, 2 * nanoseconds::exponential<T> * static_cast<double>(y.size()) / static_cast<double>(pieces),
               [&](std::size_t begin, std::size_t end) {
                 for (std::size_t piece = begin; piece < end; ++piece)
                   for (std::size_t i = all * piece / pieces; i < all * (piece + 1) / pieces; ++i) {
                     const std::size_t panel = i / vectors, lane = i % vectors * width<T>, n = y.lanes - lane,
                                       first = panel * y.lanes + lane;
                     T cost[width<T>];
                     kernel(f, y.panel(panel) + lane, target.panel(panel) + lane, weights + first, cost,
                            gradient ? gradient.panel(panel) + lane : nullptr, y.features, y.lanes, n);
                     for (std::size_t s = 0; s < std::min(n, width<T>) && first + s < y.batch; ++s)
                       partial[piece] += static_cast<double>(cost[s]);
                   }
               });
  double total = 0;
  for (const double value : partial) total += value;
  return total;
}

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
