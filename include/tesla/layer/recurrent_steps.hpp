// A walk over the steps of a sequence on the primitives of any backend, step by step and panel by panel.
#pragma once

#include <tesla/backend/backend.hpp>
#include <tesla/backend/recurrent.hpp>
#include <tesla/layer/products.hpp>

#include <cstddef>
#include <utility>

namespace tesla::inline TESLA_TARGET::layer::detail {

template <class Cell, class T, class B>
class StepByStep {
 public:
  /// `scratch` has the size that memory() says.
  StepByStep(B& backend, const backend::Recurrence<T>& recurrence, T* scratch)
      : backend_(backend), r_(recurrence), block_(r_.units * r_.lanes), scratch_(scratch) {}

  static std::size_t memory(std::size_t units, std::size_t lanes) { return (Cell::rows + 4) * units * lanes + line; }

  void forward() {
    begin();
    for (std::size_t i = r_.begin; i < r_.end; ++i) {
      const std::size_t t = r_.step(i), last = i > 0 ? r_.step(i - 1) : t;
      for (std::size_t k = 0; k < 2; ++k) {
        const bool apart = k == 1;  // this product is not added to the input's share
        const std::size_t first = apart ? r_.template apart<Cell>() : 0;
        const std::size_t count = apart ? Cell::weights - first : r_.template apart<Cell>();
        if (count == 0 || (i == 0 && !apart)) continue;
        backend::Product<T> p = over_panels(count * r_.units, i > 0 ? r_.units : 0);
        p.a = r_.weight.row(first * r_.units), p.a_row = signed_(r_.weight.stride), p.a_depth = 1;
        p.b = r_.hidden.at(0, last), p.b_item = signed_(r_.hidden.panel);
        p.c = r_.gates.at(0, t) + (apart ? Cell::rows - 1 : 0) * block_, p.c_item = signed_(r_.gates.panel);
        p.bias = apart ? r_.bias : nullptr, p.accumulate = !apart;
        backend_.multiply(p);
      }
      for (std::size_t panel = 0; panel < r_.panels(); ++panel)
        forward(i, panel, std::make_index_sequence<Cell::rows>());
    }
  }

  void backward() {
    begin();
    if (r_.end == r_.steps) {
      backend_.fill(r_.dh, r_.panels() * block_, T(0));
      backend_.fill(r_.dstate, r_.panels() * block_, T(0));
    }
    for (std::size_t i = r_.end; i-- > r_.begin;) {
      for (std::size_t panel = 0; panel < r_.panels(); ++panel)
        backward(i, panel, std::make_index_sequence<Cell::rows>());
      if (i == 0) break;
      for (std::size_t k = 0; k < 2; ++k) {
        const std::size_t first = k == 1 ? r_.template apart<Cell>() : 0;
        const std::size_t count = k == 1 ? Cell::weights - first : r_.template apart<Cell>();
        if (count == 0) continue;
        backend::Product<T> p = over_panels(r_.units, count * r_.units);
        p.a = r_.weight.row(first * r_.units), p.a_row = 1, p.a_depth = signed_(r_.weight.stride);
        p.b = r_.gates.at(0, r_.step(i)) + (k == 1 ? Cell::rows - 1 : 0) * block_, p.b_item = signed_(r_.gates.panel);
        p.c = r_.dh, p.c_item = signed_(block_), p.accumulate = true;
        backend_.multiply(p);
      }
    }
  }

 private:
  static constexpr std::size_t line = cache_line / sizeof(T);
  static std::ptrdiff_t signed_(std::size_t n) { return static_cast<std::ptrdiff_t>(n); }

  T* temporary(std::size_t k) const { return scratch_ + k * block_; }
  T* zeros() const { return temporary(Cell::rows + 2); }
  T* mask() const { return temporary(Cell::rows + 3); }
  T* one() const { return temporary(Cell::rows + 4); }
  Panels<T> rows(T* data, std::size_t panel) const { return {data, r_.units, r_.live(panel), r_.lanes}; }
  Panels<const T> rows(const T* data, std::size_t panel) const { return {data, r_.units, r_.live(panel), r_.lanes}; }

  void begin() {
    backend_.fill(zeros(), block_, T(0));
    backend_.fill(one(), 1, T(1));
  }
  backend::Product<T> over_panels(std::size_t rows, std::size_t depth) const {
    backend::Product<T> p;
    p.rows = rows, p.depth = depth, p.columns = r_.lanes, p.count = r_.panels();
    p.last_columns = std::min(r_.lanes, round_up(r_.live(r_.panels() - 1), line));
    p.b_depth = p.c_row = signed_(r_.lanes);
    return p;
  }
  /// The mask of a step, repeated for all units.
  Panels<const T> repeated_mask(std::size_t t, std::size_t panel) {
    backend::Product<T> p;
    p.rows = r_.units, p.depth = 1, p.columns = r_.lanes;
    p.a = one(), p.a_depth = 1;
    p.b = r_.mask.at(panel, t), p.b_depth = signed_(r_.lanes);
    p.c = mask(), p.c_row = signed_(r_.lanes);
    backend_.multiply(p);
    return rows(static_cast<const T*>(mask()), panel);
  }
  /// What the step before left: `from`, or zeros.
  const T* before(const backend::StepPanels<T>& from, std::size_t i, std::size_t panel) const {
    return i == 0 ? zeros() : from.at(panel, r_.step(i - 1));
  }
  static auto choose() {
    return [](auto live, auto yes, auto no) {
      using math::select;
      return decltype(no)(select(live > math::number<decltype(live)>(0.5), yes, no));
    };
  }
  static auto copy() {
    return [](auto v) { return v; };
  }

  template <std::size_t... K>
  void forward(std::size_t i, std::size_t panel, std::index_sequence<K...>) {
    const std::size_t t = r_.step(i);
    T* const gates = r_.gates.at(panel, t);
    const auto each = [&](const auto& f, T* out, const T* previous) {
      backend_.map(f, rows(out, panel), rows(previous, panel),
                   rows(static_cast<const T*>(gates + K * block_), panel)...);
    };
    const auto part = []<std::size_t Which>(std::integral_constant<std::size_t, Which>) {
      return [](auto previous, auto... gate) {
        using V = decltype(previous);
        const auto out = Cell::template forward<backend::ExactFunctions>(std::array<V, Cell::rows>{gate...}, previous);
        if constexpr (Which < Cell::rows)
          return out.gates[Which];
        else
          return Which == Cell::rows ? out.state : out.hidden;
      };
    };
    const T* const output = before(r_.hidden, i, panel);
    const T* const previous = Cell::has_state ? before(r_.state, i, panel) : output;
    (each(part(std::integral_constant<std::size_t, K>()), temporary(K), previous), ...);
    T *const state = temporary(Cell::rows), *const hidden = temporary(Cell::rows + 1);
    if constexpr (Cell::has_state) each(part(std::integral_constant<std::size_t, Cell::rows>()), state, previous);
    each(part(std::integral_constant<std::size_t, Cell::rows + 1>()), hidden, previous);
    const auto keep = [&](const T* now, const T* old, T* to) {
      if (r_.mask)
        backend_.map(choose(), rows(to, panel), repeated_mask(t, panel), rows(now, panel), rows(old, panel));
      else
        backend_.map(copy(), rows(to, panel), rows(now, panel));
    };
    (backend_.map(copy(), rows(gates + K * block_, panel), rows(static_cast<const T*>(temporary(K)), panel)), ...);
    if constexpr (Cell::has_state) keep(state, previous, r_.state.at(panel, t));
    keep(hidden, output, r_.hidden.at(panel, t));
  }

  template <std::size_t... K>
  void backward(std::size_t i, std::size_t panel, std::index_sequence<K...>) {
    const std::size_t t = r_.step(i);
    T *const gates = r_.gates.at(panel, t), *const dh = r_.dh + panel * block_, *const ds = r_.dstate + panel * block_;
    const auto fixed = [&](const T* data) { return rows(data, panel); };
    if (r_.every_step || i + 1 == r_.steps)
      backend_.map([](auto a, auto b) { return a + b; }, rows(dh, panel), fixed(dh), fixed(r_.dy.at(panel, t)));
    const T* const previous = before(Cell::has_state ? r_.state : r_.hidden, i, panel);
    const T* const state = Cell::has_state ? r_.state.at(panel, t) : previous;
    const auto each = [&]<std::size_t Which>(std::integral_constant<std::size_t, Which>) {
      const auto f = [](auto before, auto now, auto by_output, auto by_state, auto... gate) {
        using V = decltype(before);
        const auto d = Cell::template backward<backend::ExactFunctions>(std::array<V, Cell::rows>{gate...}, before, now,
                                                                        by_output, by_state);
        if constexpr (Which < Cell::rows)
          return d.gates[Which];
        else
          return d.direct;
      };
      backend_.map(f, rows(temporary(Which), panel), fixed(previous), fixed(state), fixed(dh), fixed(ds),
                   fixed(gates + K * block_)...);
    };
    (each(std::integral_constant<std::size_t, K>()), ...);
    each(std::integral_constant<std::size_t, Cell::rows>());
    T* const direct = temporary(Cell::rows);
    const auto keep = [&](const T* now, const T* old, T* to) {
      if (r_.mask)
        backend_.map(choose(), rows(to, panel), repeated_mask(t, panel), fixed(now), fixed(old));
      else
        backend_.map(copy(), rows(to, panel), fixed(now));
    };
    (keep(temporary(K), zeros(), gates + K * block_), ...);
    if constexpr (Cell::has_state) keep(direct, ds, ds);
    keep(Cell::has_state ? zeros() : direct, dh, dh);
  }

  B& backend_;
  const backend::Recurrence<T>& r_;
  std::size_t block_;
  T* scratch_;
};

}  // namespace tesla::inline TESLA_TARGET::layer::detail
