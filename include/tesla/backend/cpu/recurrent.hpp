// Walks over the steps of a recurrent layer. Lanes know nothing of each other, so each thread takes some of them
// through all steps: none waits for another, and the weights stay in its second-level cache. The gates of a few units
// are finished while they are in the first.
#pragma once

#include <tesla/backend/cpu/tile.hpp>
#include <tesla/backend/recurrent.hpp>
#include <tesla/core/parallel.hpp>

#include <algorithm>

namespace tesla::inline TESLA_TARGET::backend::cpu {

namespace detail {

/// The rows of some units in one step.
template <class T>
struct UnitRows {
  T* gates;
  std::size_t gate, row;     // elements from one gate to the next, and from unit to unit
  const T *before, *output;  // what the step before left, and its output
  std::size_t before_row;    // 0: one row of zeros
  T *state, *hidden;         // of this step; the first may be null
  const T* mask;             // null: none
  const T* dy;               // null: none
  T *dh, *dstate;
  std::size_t units, lanes;
};
template <class T>
using UnitKernel = void (*)(const UnitRows<T>& rows);

template <class T>
inline constexpr std::array<T, most_lanes<T>> no_state{};

template <class T, class Cell, class F>
[[gnu::noinline]] void forward_units(const UnitRows<T>& r) {
  using V = Vector<T>;
  for (std::size_t u = 0; u < r.units; ++u)
    for (std::size_t lane = 0; lane < r.lanes; lane += width<T>) {
      const std::size_t at = u * r.row + lane, from = u * r.before_row + lane;
      std::array<V, Cell::rows> gates;
      unroll<Cell::rows>([&](auto k) { gates[k] = load(r.gates + k * r.gate + at); });
      const V before = load(r.before + from);
      CellOutput<V, Cell::rows> out = Cell::template forward<F>(gates, before);
      unroll<Cell::rows>([&](auto k) { store(r.gates + k * r.gate + at, out.gates[k]); });
      if (r.mask != nullptr) {
        const auto live = load(r.mask + lane) > V(T(0.5));
        out.hidden = xsimd::select(live, out.hidden, load(r.output + from));
        out.state = xsimd::select(live, out.state, before);
      }
      if constexpr (Cell::has_state) store(r.state + at, out.state);
      store(r.hidden + at, out.hidden);
    }
}

/// Leaves in dh what goes to the step before by no product.
template <class T, class Cell, class F>
[[gnu::noinline]] void backward_units(const UnitRows<T>& r) {
  using V = Vector<T>;
  const V zero(T(0));
  for (std::size_t u = 0; u < r.units; ++u)
    for (std::size_t lane = 0; lane < r.lanes; lane += width<T>) {
      const std::size_t at = u * r.row + lane;
      std::array<V, Cell::rows> gates;
      unroll<Cell::rows>([&](auto k) { gates[k] = load(r.gates + k * r.gate + at); });
      V dh = load(r.dh + at), ds = zero, state = zero;
      if (r.dy != nullptr) dh += load(r.dy + at);
      if constexpr (Cell::has_state) ds = load(r.dstate + at), state = load(r.state + at);
      const V before = load(r.before + u * r.before_row + lane);
      CellGradient<V, Cell::rows> d = Cell::template backward<F>(gates, before, state, dh, ds);
      V kept = Cell::has_state ? zero : d.direct;
      if (r.mask != nullptr) {
        const auto live = load(r.mask + lane) > V(T(0.5));
        unroll<Cell::rows>([&](auto k) { d.gates[k] = xsimd::select(live, d.gates[k], zero); });
        kept = xsimd::select(live, kept, dh);
        d.direct = xsimd::select(live, d.direct, ds);
      }
      unroll<Cell::rows>([&](auto k) { store(r.gates + k * r.gate + at, d.gates[k]); });
      store(r.dh + at, kept);
      if constexpr (Cell::has_state) store(r.dstate + at, d.direct);
    }
}

/// A product into rows of so many vectors, by tiles.
template <class T>
void multiply_rows(TileArguments<T> t, std::size_t rows, std::size_t vectors) {
  while (vectors > 0) {
    const std::size_t now = tile_vectors(vectors);
    TileArguments<T> part = t;
    for (std::size_t r = rows; r > 0;) {
      const std::size_t height = next_height<T>(r, now);
      tile_function<T>(height, now)(part);
      part.a += static_cast<std::ptrdiff_t>(height) * t.a_row, part.c += static_cast<std::ptrdiff_t>(height) * t.c_row;
      if (part.bias != nullptr) part.bias += height;
      r -= height;
    }
    t.b += now * width<T>, t.c += now * width<T>, vectors -= now;
  }
}

/// The same for rows of which there is one tile, if the vectors are those of a tile.
template <class T>
[[gnu::always_inline]] inline void multiply_few(const TileArguments<T>& t, TileFunction<T> whole, std::size_t rows,
                                                std::size_t vectors) {
  if (whole != nullptr) return whole(t);
  multiply_rows(t, rows, vectors);
}

}  // namespace detail

/// For lanes in whole vectors.
template <class T>
class Recurrent {
 public:
  template <class Cell>
  static void forward(const Recurrence<T>& r) {
    const Shape shape{Cell::weights, Cell::rows, r.template apart<Cell>(), Cell::has_state};
    each_part(r, shape, [&](std::size_t panel, std::size_t lane, std::size_t vectors) {
      forward(r, shape, &detail::forward_units<T, Cell, Functions>, panel, lane, vectors);
    });
  }
  template <class Cell>
  static void backward(const Recurrence<T>& r) {
    const Shape shape{Cell::weights, Cell::rows, r.template apart<Cell>(), Cell::has_state};
    each_part(r, shape, [&](std::size_t panel, std::size_t lane, std::size_t vectors) {
      backward(r, shape, &detail::backward_units<T, Cell, Functions>, panel, lane, vectors);
    });
  }

 private:
  using Functions = ExactFunctions;
  static constexpr std::size_t w = width<T>;

  struct Shape {
    std::size_t weights, rows, apart;
    bool has_state;
  };

  /// Shares the lanes of all panels among threads.
  template <class F>
  static void each_part(const Recurrence<T>& r, const Shape& shape, const F& f) {
    const std::size_t vectors = r.lanes / w, wanted = static_cast<std::size_t>(threads());
    const std::size_t parts = std::clamp<std::size_t>((wanted + r.panels() - 1) / r.panels(), 1, vectors);
    const double lanes = static_cast<double>(r.lanes) / static_cast<double>(parts);
    const double each =
        static_cast<double>((r.end - r.begin) * r.units) * lanes *
        (static_cast<double>(shape.weights * (r.units + r.input_weight.columns)) * nanoseconds::multiply_add<T> +
         static_cast<double>(shape.rows) * nanoseconds::exponential<T>);
    parallel_for(r.panels() * parts, each, [&](std::size_t begin, std::size_t end) {
      for (std::size_t task = begin; task < end; ++task) {
        const std::size_t panel = task / parts, part = task % parts, live = (r.live(panel) + w - 1) / w;
        const std::size_t first = live * part / parts, last = live * (part + 1) / parts;
        if (first < last) f(panel, first * w, last - first);
      }
    });
  }

  static TileArguments<T> tile_of(const Matrix<T>& a, bool transposed, std::size_t depth, std::size_t lanes) {
    TileArguments<T> tile{};
    tile.a = a.data, tile.a_row = static_cast<std::ptrdiff_t>(transposed ? 1 : a.stride);
    tile.a_depth = static_cast<std::ptrdiff_t>(transposed ? a.stride : 1);
    tile.b_depth = tile.c_row = static_cast<std::ptrdiff_t>(lanes);
    tile.segments = 1, tile.depth = tile.last_depth = depth;
    return tile;
  }

  static void forward(const Recurrence<T>& r, const Shape& shape, detail::UnitKernel<T> kernel, std::size_t panel,
                      std::size_t lane, std::size_t vectors) {
    const std::size_t row = r.lanes, gate = r.units * row;
    const bool one_tile = vectors == tile_vectors(vectors);
    TileArguments<T> recurrent = tile_of(r.weight, false, r.units, row);
    TileArguments<T> input = tile_of(r.input_weight, false, r.input_weight.columns, row);
    for (std::size_t i = r.begin; i < r.end; ++i) {
      const std::size_t t = r.step(i);
      T* const gates = r.gates.at(panel, t) + lane;
      const T* const output = i == 0 ? detail::no_state<T>.data() : r.hidden.at(panel, r.step(i - 1)) + lane;
      detail::UnitRows<T> rows{};
      rows.gate = gate, rows.row = row, rows.before_row = i == 0 ? 0 : row, rows.lanes = vectors * w;
      rows.mask = r.mask ? r.mask.at(panel, t) + lane : nullptr;
      recurrent.b = output, input.b = r.x ? r.x.at(panel, t) + lane : nullptr;
      if (i == 0) recurrent.depth = recurrent.last_depth = 0;
      for (std::size_t first = 0, count; first < r.units; first += count) {
        count = next_height<T>(r.units - first, tile_vectors(vectors));
        const TileFunction<T> whole = one_tile ? tile_function<T>(count, vectors) : nullptr;
        const std::size_t offset = first * row;
        for (std::size_t k = 0; k < shape.weights; ++k) {
          const bool apart = k == shape.apart;
          if (r.x) {
            input.a = r.input_weight.row(k * r.units + first), input.c = gates + k * gate + offset;
            input.bias = r.input_bias != nullptr ? r.input_bias + k * r.units + first : nullptr;
            detail::multiply_few(input, whole, count, vectors);
          }
          if (i == 0 && !apart) continue;
          recurrent.a = r.weight.row(k * r.units + first);
          recurrent.c = gates + (apart ? shape.rows - 1 : k) * gate + offset;
          recurrent.bias = apart && r.bias != nullptr ? r.bias + first : nullptr;
          recurrent.accumulate = !apart;
          detail::multiply_few(recurrent, whole, count, vectors);
        }
        rows.gates = gates + offset, rows.units = count;
        rows.output = output + first * rows.before_row;
        rows.hidden = r.hidden.at(panel, t) + lane + offset;
        rows.before = rows.output;
        if (shape.has_state) {
          rows.state = r.state.at(panel, t) + lane + offset;
          if (i > 0) rows.before = r.state.at(panel, r.step(i - 1)) + lane + offset;
        }
        kernel(rows);
      }
      recurrent.depth = recurrent.last_depth = r.units;
    }
  }

  static void backward(const Recurrence<T>& r, const Shape& shape, detail::UnitKernel<T> kernel, std::size_t panel,
                       std::size_t lane, std::size_t vectors) {
    const std::size_t row = r.lanes, gate = r.units * row;
    T *const dh = r.dh + panel * gate + lane, *const dstate = r.dstate + panel * gate + lane;
    for (std::size_t u = 0; u < r.units && r.end == r.steps; ++u)
      for (std::size_t k = 0; k < vectors; ++k) {
        store(dh + u * row + k * w, Vector<T>(T(0)));
        store(dstate + u * row + k * w, Vector<T>(T(0)));
      }
    TileArguments<T> recurrent = tile_of(r.weight, true, shape.weights * r.units, row);
    if (shape.apart < shape.weights) {
      recurrent.segments = 2, recurrent.depth = shape.apart * r.units, recurrent.last_depth = r.units;
      recurrent.a_segment = static_cast<std::ptrdiff_t>(recurrent.depth * r.weight.stride);
      recurrent.b_segment = static_cast<std::ptrdiff_t>((shape.rows - 1) * gate);
    }
    recurrent.c = dh, recurrent.accumulate = true;
    TileArguments<T> input = tile_of(r.input_weight, true, r.input_weight.rows, row);
    input.accumulate = r.add_dx;
    for (std::size_t i = r.end; i-- > r.begin;) {
      const std::size_t t = r.step(i);
      detail::UnitRows<T> rows{};
      rows.gates = r.gates.at(panel, t) + lane, rows.gate = gate, rows.row = row, rows.before_row = i == 0 ? 0 : row;
      rows.units = r.units, rows.lanes = vectors * w;
      rows.before = detail::no_state<T>.data();
      if (i > 0) rows.before = (shape.has_state ? r.state : r.hidden).at(panel, r.step(i - 1)) + lane;
      if (shape.has_state) rows.state = r.state.at(panel, t) + lane;
      rows.mask = r.mask ? r.mask.at(panel, t) + lane : nullptr;
      rows.dy = r.every_step || i + 1 == r.steps ? r.dy.at(panel, t) + lane : nullptr;
      rows.dh = dh, rows.dstate = dstate;
      kernel(rows);
      recurrent.b = input.b = rows.gates;
      if (r.dx) {
        input.c = r.dx.at(panel, t) + lane;
        detail::multiply_rows(input, r.input_weight.columns, vectors);
      }
      if (i > 0) detail::multiply_rows(recurrent, r.units, vectors);
    }
  }
};

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
