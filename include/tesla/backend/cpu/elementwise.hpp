// Elementwise functions over panels, with and without sums over the batch, and the optimizers' pass over parameters.
#pragma once

#include <tesla/backend/backend.hpp>
#include <tesla/backend/cpu/vector.hpp>
#include <tesla/core/parallel.hpp>

#include <type_traits>

namespace tesla::inline TESLA_TARGET::backend::cpu {

/// Calls body(i, V) for the vectors that fit into n elements, then for the single elements left; V tells which.
template <class T, class Body>
[[gnu::always_inline]] inline void for_each_vector(std::size_t n, const Body& body) {
  std::size_t i = 0;
  for (; i + width<T> <= n; i += width<T>) body(i, std::type_identity<Vector<T>>());
  for (; i < n; ++i) body(i, std::type_identity<T>());
}

template <class V, class T>
[[gnu::always_inline]] inline V load_as(const T* p) {
  if constexpr (std::is_same_v<V, T>)
    return *p;
  else
    return V::load_unaligned(p);
}
template <class T>
[[gnu::always_inline]] inline void store_as(T* p, T value) {
  *p = value;
}
template <class T>
[[gnu::always_inline]] inline void store_as(T* p, Vector<T> value) {
  value.store_unaligned(p);
}

namespace detail {

// An operand at one feature of one panel: lanes to load, or one value for all of them. With one sample (one lane) the
// features are contiguous in both kinds, and the loops run over features instead.
template <class T>
struct Lanes {
  const T* data;
  template <class V>
  [[gnu::always_inline]] V at(std::size_t lane) const {
    return load_as<V>(data + lane);
  }
};
template <class T>
struct Same {
  T value;
  template <class V>
  [[gnu::always_inline]] V at(std::size_t) const {
    return V(value);
  }
};

template <class T>
Lanes<std::remove_const_t<T>> operand(Panels<T> p, std::size_t panel, std::size_t feature) {
  return {p.panel(panel) + feature * p.lanes};
}
template <class T>
Same<std::remove_const_t<T>> operand(Features<T> v, std::size_t, std::size_t feature) {
  return {v.data[feature]};
}
template <class T>
const T* first_of(Panels<T> p) {
  return p.data;
}
template <class T>
const T* first_of(Features<T> v) {
  return v.data;
}

}  // namespace detail

template <class F, class T, class... In>
void map(const F& f, Panels<T> out, const In&... in) {
  if (out.batch == 0) return;
  if (out.lanes == 1 && out.batch == 1) {
    for_each_vector<T>(out.features, [&]<class V>(std::size_t i, std::type_identity<V>) {
      store_as(out.data + i, V(f(load_as<V>(detail::first_of(in) + i)...)));
    });
    return;
  }
  parallel_for(out.panels() * out.features, static_cast<double>(out.lanes), [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const std::size_t panel = i / out.features, feature = i % out.features;
      T* const to = out.panel(panel) + feature * out.lanes;
      const auto row = [&](const auto&... operands) {
        for_each_vector<T>(out.lanes, [&]<class V>(std::size_t lane, std::type_identity<V>) {
          store_as(to + lane, V(f(operands.template at<V>(lane)...)));
        });
      };
      row(detail::operand(in, panel, feature)...);
    }
  });
}

/// sums[i] = sum over the samples of f(in...) at feature i; f's results go to `out` where there is one.
template <class F, class T, class First, class... In>
void reduce(const F& f, Panels<T> out, Features<T> sums, const First& first, const In&... in) {
  if (first.lanes == 1 && first.batch == 1) {
    for_each_vector<T>(sums.size, [&]<class V>(std::size_t i, std::type_identity<V>) {
      const V value(f(load_as<V>(detail::first_of(first) + i), load_as<V>(detail::first_of(in) + i)...));
      if (out) store_as(out.data + i, value);
      store_as(sums.data + i, value);
    });
    return;
  }
  parallel_for(sums.size, static_cast<double>(first.batch), [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      Vector<T> total(T(0));
      T rest(0);
      for (std::size_t panel = 0; panel < first.panels(); ++panel) {
        const std::size_t live = first.live(panel);
        const auto row = [&](const auto&... operands) {
          std::size_t lane = 0;
          for (; lane < first.lanes; lane += width<T>) {
            if (lane + width<T> > first.lanes) break;
            const Vector<T> value(f(operands.template at<Vector<T>>(lane)...));
            if (out) store(out.panel(panel) + i * out.lanes + lane, value);
            if (lane + width<T> <= live) {
              total += value;
            } else if (lane < live) {
              T lanes[width<T>];
              store(lanes, value);
              for (std::size_t l = 0; l < live - lane; ++l) rest += lanes[l];
            }
          }
          for (; lane < first.lanes; ++lane) {
            const T value(f(operands.template at<T>(lane)...));
            if (out) out.panel(panel)[i * out.lanes + lane] = value;
            if (lane < live) rest += value;
          }
        };
        row(detail::operand(first, panel, i), detail::operand(in, panel, i)...);
      }
      sums.data[i] = sum<T>(total) + rest;
    }
  });
}

/// One pass over a parameter: gradient_at(i, V) gives the gradient at element i of row r.
template <class F, class T, std::size_t Slots, class Gradient>
[[gnu::always_inline]] inline void update_range(const F& f, const Updated<T, Slots>& parameter, std::size_t begin,
                                                std::size_t size, const Gradient& gradient_at) {
  T* const value = parameter.value.data + begin;
  std::array<T*, Slots> slots;
  for (std::size_t s = 0; s < Slots; ++s) slots[s] = parameter.slots[s] + begin;
  for_each_vector<T>(size, [&]<class V>(std::size_t i, std::type_identity<V> type) {
    V weight = load_as<V>(value + i);
    std::array<V, Slots> state;
    unroll<Slots>([&](auto s) { state[s] = load_as<V>(slots[s] + i); });
    f(weight, gradient_at(i, type), state);
    store_as(value + i, weight);
    unroll<Slots>([&](auto s) { store_as(slots[s] + i, state[s]); });
  });
}

template <class F, class T, std::size_t Slots>
void update(const F& f, const Updated<T, Slots>& parameter, const T* gradient) {
  constexpr std::size_t chunk = 1024;
  const std::size_t size = parameter.value.rows * parameter.value.stride;  // the padding takes part: it is zero
  parallel_for((size + chunk - 1) / chunk, 2.0 * chunk, [&](std::size_t begin, std::size_t end) {
    const std::size_t first = begin * chunk, last = std::min(end * chunk, size);
    update_range(f, parameter, first, last - first,
                 [&]<class V>(std::size_t i, std::type_identity<V>) { return load_as<V>(gradient + first + i); });
  });
}

template <class F, class T, std::size_t Slots>
void update_outer(const F& f, const Updated<T, Slots>& parameter, const T* left, const T* right) {
  const Matrix<T>& m = parameter.value;
  parallel_for(m.rows, 2.0 * static_cast<double>(m.columns), [&](std::size_t begin, std::size_t end) {
    for (std::size_t r = begin; r < end; ++r)
      update_range(f, parameter, r * m.stride, m.columns, [&]<class V>(std::size_t i, std::type_identity<V>) {
        return V(left[r]) * load_as<V>(right + i);
      });
  });
}

template <class T>
double squared_norm(const Matrix<T>& m) {
  double total = 0;
  for (std::size_t r = 0; r < m.rows; ++r) {
    Vector<T> squares(T(0));
    T rest(0);
    for_each_vector<T>(m.columns, [&]<class V>(std::size_t i, std::type_identity<V>) {
      const V v = load_as<V>(m.row(r) + i);
      if constexpr (std::is_same_v<V, T>)
        rest += v * v;
      else
        squares = xsimd::fma(v, v, squares);
    });
    total += static_cast<double>(sum<T>(squares) + rest);
  }
  return total;
}

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
