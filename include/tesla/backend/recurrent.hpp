// Recurrences: what one step of a sequence does to one unit, written once for all kinds of numbers, and the description
// of a walk over all steps.
#pragma once

#include <tesla/backend/product.hpp>
#include <tesla/core/math.hpp>

#include <array>
#include <cstddef>

namespace tesla::inline TESLA_TARGET::backend {

/// The functions of gates as the standard library, or that of the SIMD batches, has them.
struct ExactFunctions {
  template <class V>
  static V tanh(V x) {
    using math::tanh;
    return V(tanh(x));
  }
  template <class V>
  static V sigmoid(V x) {
    using math::exp;
    return math::number<V>(1) / (math::number<V>(1) + V(exp(-x)));
  }
};

/// The gates of a unit after their functions, what the unit carries to the next step beside its output, and the output.
template <class V, std::size_t Rows>
struct CellOutput {
  std::array<V, Rows> gates;
  V state, hidden;
};

/// The gradients by the gates before their functions, and what goes to the step before by no product.
template <class V, std::size_t Rows>
struct CellGradient {
  std::array<V, Rows> gates;
  V direct;
};

// A cell says how many matrices of units x units its weights are made of, and how many rows a unit has in memory: where
// these are more, the product of the last matrix is kept apart from the input's share. Its functions get the gates,
// what the step before left (the state, or the output where there is none), and the functions F.

/// h' = tanh(a)
struct SimpleCell {
  static constexpr std::size_t weights = 1, rows = 1;
  static constexpr bool has_state = false;

  template <class F, class V>
  static CellOutput<V, rows> forward(const std::array<V, rows>& a, V) {
    const V h = F::tanh(a[0]);
    return {{h}, h, h};
  }
  /// `state` is what forward gave; dh and ds are the gradients by the output and by the state.
  template <class F, class V>
  static CellGradient<V, rows> backward(const std::array<V, rows>& h, V, V, V dh, V) {
    return {{dh * (math::number<V>(1) - h[0] * h[0])}, math::number<V>(0)};
  }
};

/// c' = f c + i g, h' = o tanh(c') (Hochreiter and Schmidhuber 1997; Gers et al. 2000); gates i, f, g, o.
struct LongShortCell {
  static constexpr std::size_t weights = 4, rows = 4;
  static constexpr bool has_state = true;

  template <class F, class V>
  static CellOutput<V, rows> forward(const std::array<V, rows>& a, V c) {
    const V i = F::sigmoid(a[0]), f = F::sigmoid(a[1]), g = F::tanh(a[2]), o = F::sigmoid(a[3]);
    const V state = f * c + i * g;
    return {{i, f, g, o}, state, o * F::tanh(state)};
  }
  template <class F, class V>
  static CellGradient<V, rows> backward(const std::array<V, rows>& gates, V c, V state, V dh, V ds) {
    const V one = math::number<V>(1), t = F::tanh(state);
    const V i = gates[0], f = gates[1], g = gates[2], o = gates[3];
    const V dc = ds + dh * o * (one - t * t);
    return {{dc * g * i * (one - i), dc * c * f * (one - f), dc * i * (one - g * g), dh * t * o * (one - o)}, dc * f};
  }
};

/// h' = (1 - z) n + z h with n = tanh(a + r q), q the recurrent share (Cho et al. 2014); gates r, z, n, and q.
struct GatedCell {
  static constexpr std::size_t weights = 3, rows = 4;
  static constexpr bool has_state = false;

  template <class F, class V>
  static CellOutput<V, rows> forward(const std::array<V, rows>& a, V h) {
    const V r = F::sigmoid(a[0]), z = F::sigmoid(a[1]), n = F::tanh(a[2] + r * a[3]);
    const V hidden = n + z * (h - n);
    return {{r, z, n, a[3]}, hidden, hidden};
  }
  template <class F, class V>
  static CellGradient<V, rows> backward(const std::array<V, rows>& gates, V h, V, V dh, V) {
    const V one = math::number<V>(1);
    const V r = gates[0], z = gates[1], n = gates[2], q = gates[3];
    const V dn = dh * (one - z) * (one - n * n), dq = dn * r;
    return {{dn * q * r * (one - r), dh * (h - n) * z * (one - z), dn, dq}, dh * z};
  }
};

/// Something of every step, [panel][step][row][lane]; of the last ones only, where fewer are kept.
template <class T>
struct StepPanels {
  T* data = nullptr;
  std::size_t panel = 0, step = 0;  // elements from one to the next
  std::size_t kept = 1;

  T* at(std::size_t p, std::size_t t) const { return data + p * panel + t % kept * step; }
  explicit operator bool() const { return data != nullptr; }
};

/// One direction of a recurrent layer. Before a walk forward without inputs `gates` holds the input's share of them,
/// rows [0, weights * units) of each step; a walk back leaves the gradients by the gates there.
template <class T>
struct Recurrence {
  std::size_t units = 0, steps = 0, batch = 0, lanes = 1;
  bool reverse = false;      // from the last step to the first
  Matrix<T> weight = {};     // {weights * units, units}
  const T* bias = nullptr;   // of the product that is kept apart; null: none
  StepPanels<T> gates = {};  // rows * units
  StepPanels<T> hidden = {}, state = {};
  StepPanels<const T> mask = {};  // one row of 0 and 1; at 0 a step keeps the state
  // Inputs, where the walk multiplies them: for backends with kernels.
  StepPanels<const T> x = {};
  Matrix<T> input_weight = {};
  const T* input_bias = nullptr;
  // The walk back: the gradient by the outputs, of each step or of the last one, memory of [panel][unit][lane] that
  // goes from call to call, and the gradient by the inputs, if it is wanted here.
  StepPanels<const T> dy = {};
  bool every_step = false;
  T *dh = nullptr, *dstate = nullptr;
  StepPanels<T> dx = {};
  bool add_dx = false;
  std::size_t begin = 0, end = 0;  // which steps, in the order of the walk forward

  std::size_t panels() const { return (batch + lanes - 1) / lanes; }
  std::size_t live(std::size_t p) const { return p + 1 == panels() ? batch - p * lanes : lanes; }
  /// Which step is the i-th.
  std::size_t step(std::size_t i) const { return reverse ? steps - 1 - i : i; }
  /// Which of the weights' matrices has its product kept apart, behind the others' rows; none: as many as there are.
  template <class Cell>
  static constexpr std::size_t apart() {
    return Cell::rows > Cell::weights ? Cell::weights - 1 : Cell::weights;
  }
};

}  // namespace tesla::inline TESLA_TARGET::backend
