// Elementwise functions over panels, with and without sums over the batch, and the optimizers' pass over parameters.
//
// What depends on a function is one small kernel over a run of contiguous values; how panels are walked and shared
// among threads is written once for all of them. That keeps programs small and quick to compile.
#pragma once

#include <tesla/backend/backend.hpp>
#include <tesla/backend/cpu/vector.hpp>
#include <tesla/core/parallel.hpp>

#include <algorithm>
#include <array>
#include <span>
#include <type_traits>

namespace tesla::inline TESLA_TARGET::backend::cpu {

/// What kernels cost one thread, for parallel_for; right within a factor of two or so.
namespace nanoseconds {
template <class T>
inline constexpr double multiply_add = 0.25 / width<T>;  // in a tile
template <class T>
inline constexpr double streamed = 0.8 / width<T>;  // a multiply-add whose weight comes from beyond the first cache
template <class T>
inline constexpr double value = 1.5 / width<T>;  // of an elementwise function
template <class T>
inline constexpr double exponential = 6.0 / width<T>;
template <class T>
inline constexpr double update = 3.0 / width<T>;  // of a weight
inline constexpr double transposed = 0.5;         // a value, from rows to panels or back
}  // namespace nanoseconds

/// A run of values, or one value for the whole run.
template <class T>
struct Operand {
  const T* data = nullptr;
  bool same = false;

  [[gnu::always_inline]] Vector<T> at(std::size_t i, std::size_t n) const {
    return same ? Vector<T>(*data) : load(data + i, n - i);
  }
};

/// out[i] = f(in[0][i], in[1][i], ...) for i < n.
template <class T>
using MapKernel = void (*)(const void* f, T* out, const Operand<T>* in, std::size_t n);

template <class T, class F, std::size_t Inputs>
void map_kernel(const void* context, T* out, const Operand<T>* in, std::size_t n) {
  // Copies of our own: the stores below cannot change them, so constants are made once, before the loop.
  const F f = *static_cast<const F*>(context);
  std::array<Operand<T>, Inputs> operands;
  for (std::size_t k = 0; k < Inputs; ++k) operands[k] = in[k];
  for (std::size_t i = 0; i < n; i += width<T>) [&]<std::size_t... I>(std::index_sequence<I...>) {
      store(out + i, Vector<T>(f(operands[I].at(i, n)...)), n - i);
    }
  (std::make_index_sequence<Inputs>());
}

namespace detail {

/// An argument of map: panels, or one value a feature, the same ones over and over where they are fewer.
template <class T>
struct Source {
  const T* data;
  std::size_t period;  // 0: panels

  Source(Panels<T> p) : data(p.data), period(0) {}
  Source(Panels<const T> p) : data(p.data), period(0) {}
  Source(Features<T> v) : data(v.data), period(v.size) {}
  Source(Features<const T> v) : data(v.data), period(v.size) {}

  /// The run of lanes at row `row` = panel * features + feature.
  Operand<T> row(std::size_t row, std::size_t lanes) const {
    if (period != 0) return {data + row % period, true};
    return {data + row * lanes, false};
  }
  /// From a feature of a single sample on; values of features are as contiguous as the sample's own.
  Operand<T> from(std::size_t feature) const { return {data + (period != 0 ? feature % period : feature), false}; }
};

inline constexpr std::size_t max_inputs = 8, sums_at_once = 8;

template <class T>
bool all_panels(std::span<const Source<T>> in) {
  return std::all_of(in.begin(), in.end(), [](const Source<T>& s) { return s.period == 0; });
}
/// After how many features of a single sample the first operand begins anew.
template <class T>
std::size_t shortest_period(std::size_t features, std::span<const Source<T>> in) {
  for (const Source<T>& s : in)
    if (s.period != 0) features = std::min(features, s.period);
  return features;
}

template <class T>
void map_rows(MapKernel<T> kernel, const void* f, Panels<T> out, std::span<const Source<T>> in) {
  if (out.batch == 0 || out.features == 0) return;
  const bool flat = all_panels(in), single = out.lanes == 1 && out.batch == 1;
  const std::size_t lanes = single ? shortest_period(out.features, in) : out.lanes;
  const std::size_t rows = single ? out.features / lanes : out.panels() * out.features;
  parallel_for(rows, nanoseconds::value<T> * static_cast<double>(lanes), [&](std::size_t begin, std::size_t end) {
    Operand<T> operands[max_inputs];
    const auto run = [&](std::size_t row, std::size_t count) {
      for (std::size_t k = 0; k < in.size(); ++k)
        operands[k] = flat || single ? in[k].from(row * lanes) : in[k].row(row, lanes);
      kernel(f, out.data + row * lanes, operands, count * lanes);
    };
    if (flat) return run(begin, end - begin);
    for (std::size_t row = begin; row < end; ++row) run(row, 1);
  });
}

/// The same, with sums over the samples for each feature, or over all features that repeat; without `out` only the
/// sums. A null kernel sums the first operand, which is panels then, as it is.
template <class T>
void sum_rows(MapKernel<T> kernel, const void* f, Panels<const T> shape, T* out, Features<T> sums,
              std::span<const Source<T>> in) {
  constexpr std::size_t block = sums_at_once;
  const std::size_t repeats = sums.size == 0 ? 0 : shape.features / sums.size;
  if (shape.lanes == 1 && shape.batch == 1) {
    constexpr std::size_t most = 256;
    T buffer[most];
    const std::size_t period = std::min(shortest_period(sums.size, in), most);
    std::fill_n(sums.data, sums.size, T(0));
    for (std::size_t first = 0; first < shape.features;) {
      const std::size_t at = first % sums.size, n = std::min(period - at % period, sums.size - at);
      T* const to = out != nullptr ? out + first : buffer;
      Operand<T> operands[max_inputs];
      for (std::size_t k = 0; k < in.size(); ++k) operands[k] = in[k].from(first);
      if (kernel != nullptr) kernel(f, to, operands, n);
      const T* const values = kernel != nullptr ? to : operands[0].data;
      for (std::size_t i = 0; i < n; ++i) sums.data[at + i] += values[i];
      first += n;
    }
    return;
  }
  const bool flat = all_panels(in);
  const std::size_t lanes = shape.lanes, blocks = (sums.size + block - 1) / block;
  parallel_for(blocks, nanoseconds::value<T> * static_cast<double>(shape.panels() * lanes * block * repeats),
               [&](std::size_t begin, std::size_t end) {
                 T buffer[sums_at_once * most_lanes<T>];
                 T mask[2 * width<T>] = {};  // from its middle back, as many ones as wanted
                 std::fill(mask, mask + width<T>, T(1));
                 for (std::size_t i = begin; i < end; ++i) {
                   const std::size_t first = i * block, count = std::min(block, sums.size - first);
                   Vector<T> totals[block];
                   for (std::size_t k = 0; k < count; ++k) totals[k] = Vector<T>(T(0));
                   for (std::size_t panel = 0; panel < shape.panels(); ++panel) {
                     const std::size_t live = shape.live(panel), whole = live / width<T> * width<T>;
                     const Vector<T> part = load(&mask[width<T> - live % width<T>]);
                     for (std::size_t repeat = 0; repeat < repeats; ++repeat) {
                       const std::size_t row = panel * shape.features + repeat * sums.size + first;
                       T* const to = out != nullptr ? out + row * lanes : buffer;
                       const T* const values = kernel != nullptr ? to : in[0].data + row * lanes;
                       Operand<T> operands[max_inputs];
                       for (std::size_t now = 0; kernel != nullptr && now < count; now += flat ? count : 1) {
                         for (std::size_t k = 0; k < in.size(); ++k) operands[k] = in[k].row(row + now, lanes);
                         kernel(f, to + now * lanes, operands, flat ? count * lanes : lanes);
                       }
                       for (std::size_t k = 0; k < count; ++k) {
                         Vector<T> total = totals[k];
                         std::size_t lane = 0;
                         for (; lane < whole; lane += width<T>) total += load(values + k * lanes + lane);
                         if (lane < live) total += load(values + k * lanes + lane) * part;
                         totals[k] = total;
                       }
                     }
                   }
                   for (std::size_t k = 0; k < count; ++k) sums.data[first + k] = sum<T>(totals[k]);
                 }
               });
}

}  // namespace detail

template <class F, class T, class... In>
void map(const F& f, Panels<T> out, const In&... in) {
  static_assert(sizeof...(In) <= detail::max_inputs);
  const detail::Source<T> sources[] = {detail::Source<T>(in)...};
  detail::map_rows<T>(&map_kernel<T, F, sizeof...(In)>, &f, out, sources);
}

/// sums[i] = sum over the samples of f(in...) at feature i; f's results go to `out` where there is one. The first input
/// has to be panels.
template <class F, class T, class First, class... In>
void map_sum(const F& f, T* out, Features<T> sums, const First& first, const In&... in) {
  static_assert(sizeof...(In) < detail::max_inputs);
  const detail::Source<T> sources[] = {detail::Source<T>(first), detail::Source<T>(in)...};
  constexpr bool plain = std::is_same_v<F, math::Identity> && sizeof...(In) == 0;
  const MapKernel<T> kernel = plain && out == nullptr ? nullptr : &map_kernel<T, F, sizeof...(In) + 1>;
  detail::sum_rows<T>(kernel, &f, Panels<const T>(first), out, sums, sources);
}

/// A rectangle of weights, their optimizer state and their gradient, for a step of an optimizer's rule. Rows are padded
/// to whole vectors, and the padding takes part.
template <class T>
struct UpdateBlock {
  T* weight;
  T* const* slots;
  std::size_t stride;  // from row to row of these
  const T* gradient;
  std::size_t gradient_stride;
  T scale;  // of the gradient
  std::size_t rows, columns;
};
template <class T>
using UpdateKernel = void (*)(const void* rule, const UpdateBlock<T>& block);

template <class T, class F, std::size_t Slots>
void update_kernel(const void* context, const UpdateBlock<T>& block) {
  const F rule = *static_cast<const F*>(context);  // a copy, as above
  T* weight = block.weight;
  const T* gradient = block.gradient;
  std::array<T*, Slots> slot;
  unroll<Slots>([&](auto s) { slot[s] = block.slots[s]; });
  const Vector<T> factor(block.scale);
  const std::size_t n = block.columns, stride = block.stride, gradient_stride = block.gradient_stride;
  for (std::size_t row = block.rows; row > 0; --row) {
    for (std::size_t i = 0; i < n; i += width<T>) {
      Vector<T> w = load(weight + i);
      std::array<Vector<T>, Slots> state;
      unroll<Slots>([&](auto s) { state[s] = load(slot[s] + i); });
      rule(w, Vector<T>(factor * load(gradient + i)), state);
      store(weight + i, w);
      unroll<Slots>([&](auto s) { store(slot[s] + i, state[s]); });
    }
    weight += stride, gradient += gradient_stride;
    unroll<Slots>([&](auto s) { slot[s] += stride; });
  }
}

/// Runs a rule over a parameter with its gradient.
template <class T, std::size_t Slots>
void update(UpdateKernel<T> kernel, const void* rule, const Updated<T, Slots>& parameter, const T* gradient) {
  constexpr std::size_t chunk = 1024;
  const std::size_t size = parameter.value.rows * parameter.value.stride;  // the padding takes part: it is zero
  parallel_for((size + chunk - 1) / chunk, nanoseconds::update<T> * chunk, [&](std::size_t begin, std::size_t end) {
    const std::size_t first = begin * chunk;
    std::array<T*, Slots + 1> slots{};
    for (std::size_t s = 0; s < Slots; ++s) slots[s] = parameter.slots[s] + first;
    kernel(rule, {parameter.value.data + first, slots.data(), 0, gradient + first, 0, T(1), 1,
                  std::min(end * chunk, size) - first});
  });
}

/// The same over some rows, whose gradients follow each other.
template <class T, std::size_t Slots>
void update_rows(UpdateKernel<T> kernel, const void* rule, const Updated<T, Slots>& parameter, const T* gradient,
                 std::span<const std::uint32_t> rows) {
  const std::size_t stride = parameter.value.stride;
  parallel_for(rows.size(), nanoseconds::update<T> * static_cast<double>(stride),
               [&](std::size_t begin, std::size_t end) {
                 std::array<T*, Slots + 1> slots{};
                 for (std::size_t k = begin; k < end; ++k) {
                   if (k + 4 < end) __builtin_prefetch(parameter.value.row(rows[k + 4]), 1);
                   for (std::size_t s = 0; s < Slots; ++s) slots[s] = parameter.slots[s] + rows[k] * stride;
                   kernel(rule, {parameter.value.row(rows[k]), slots.data(), 0, gradient + k * stride, 0, T(1), 1,
                                 parameter.value.stride});
                 }
               });
}

/// Each thread adds some columns of all rows, so that every sum has one order.
template <class T>
[[gnu::noinline]] void add_rows(const Matrix<T>& in, std::span<const std::uint32_t> to, const Matrix<T>& out) {
  constexpr std::size_t run = 2 * cache_line / sizeof(T);
  parallel_for((out.columns + run - 1) / run, nanoseconds::value<T> * static_cast<double>(run * to.size()),
               [&](std::size_t begin, std::size_t end) {
                 const std::size_t first = begin * run, n = std::min(end * run, out.columns) - first;
                 for (std::size_t i = 0; i < to.size(); ++i) {
                   if (to[i] == ~std::uint32_t{0}) continue;
                   const T* const from = in.row(i) + first;
                   T* const sum = out.row(to[i]) + first;
                   for (std::size_t c = 0; c < n; ++c) sum[c] += from[c];
                 }
               });
}

/// Of the columns, not of the padding.
template <class T>
[[gnu::noinline]] double squared_norm(const Matrix<T>& m) {
  constexpr std::size_t w = width<T>, chains = 4, run = 64 * chains * w;  // few enough for sums in T
  double total = 0;
  for (std::size_t r = 0; r < m.rows; ++r)
    for (std::size_t begin = 0; begin < m.columns; begin += run) {
      const T* const at = m.row(r) + begin;
      const std::size_t n = std::min(run, m.columns - begin);
      Vector<T> sums[chains];
      unroll<chains>([&](auto k) { sums[k] = Vector<T>(T(0)); });
      std::size_t i = 0;
      for (; i + chains * w <= n; i += chains * w)
        unroll<chains>([&](auto k) {
          const Vector<T> v = load(at + i + k * w);
          sums[k] = xsimd::fma(v, v, sums[k]);
        });
      for (; i < n; i += w) {
        const Vector<T> v = load(at + i, n - i);
        sums[0] = xsimd::fma(v, v, sums[0]);
      }
      total += static_cast<double>(sum<T>((sums[0] + sums[1]) + (sums[2] + sums[3])));
    }
  return total;
}

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
