// Recurrent layers: SimpleRNN, LSTM and GRU, over the steps of sequences.
#pragma once

#include <tesla/layer/layer.hpp>
#include <tesla/layer/masking.hpp>
#include <tesla/layer/products.hpp>
#include <tesla/layer/recurrent_steps.hpp>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct RecurrentOptions {
  std::size_t units = 0;
  bool return_sequences = false;  // the outputs of all steps; else that of the last one
  bool bidirectional = false;     // a second one, from the last step to the first, beside the first one's outputs
  bool masking = false;           // a step whose inputs are all .mask_value keeps the state as it is
  double mask_value = 0;
  bool use_bias = true;
  init::Initializer initializer = init::glorot_uniform;
  init::Initializer recurrent_initializer = init::orthogonal;  // of each gate's matrix by itself
  init::Initializer bias_initializer = init::zeros;            // the forget gate of LSTM begins 1 above it
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

namespace detail {

/// The input's weights are a matrix.
struct NoTrain {
  template <class T>
  struct Room {};
};

/// Train: the input's weights in another form (InputTrain), whose options are among the others.
template <class Cell, class Options = RecurrentOptions, class Train = NoTrain>
struct Recurring : Options {
  using Options::units, Options::return_sequences, Options::bidirectional, Options::masking, Options::mask_value;
  using Options::use_bias, Options::initializer, Options::recurrent_initializer, Options::bias_initializer;

  Recurring() = default;
  Recurring(Options options) : Options(std::move(options)) {}

  [[gnu::cold]] Shape setup(const Shape& input, Setup& setup) {
    if (units == 0) raise<UsageError>("needs .units, the number of outputs, to be 1 or more");
    if (input.rank() != 2 || input.elements() == 0)
      raise<ShapeError>("expects sequences of shape {length, features}, both 1 or more, its input has shape ", input);
    if (!is_finite(mask_value)) raise<UsageError>("needs a finite .mask_value, not ", mask_value);
    steps_ = input[0], features_ = input[1];
    for (std::size_t d = 0; d < directions(); ++d) {
      const std::string prefix = d == 0 ? "" : "reverse.";
      const std::size_t weights = checked_product(Cell::weights, units);
      if constexpr (has_train)
        train_.setup(*this, initial, Cell::weights, Cell::rows, input, prefix, setup);
      else
        given(setup, prefix + "weight", {weights, features_}, initializer);
      given(setup, prefix + "recurrent_weight", {weights, units}, recurrent_initializer).draw =
          [initializer = recurrent_initializer, units = units](std::uint64_t seed, std::uint64_t stream) {
            Tensor<double> result({Cell::weights * units, units});
            for (std::size_t k = 0; k < Cell::weights; ++k) {
              const Tensor<double> gate = initializer.values({units, units}, seed, stream + (k << 32));
              std::copy(gate.begin(), gate.end(), result.data() + k * units * units);
            }
            return result;
          };
      if (!use_bias) continue;
      Setup::Parameter& bias = given(setup, prefix + "bias", {weights}, bias_initializer);
      if constexpr (Cell::has_state)
        bias.draw = [initializer = bias_initializer, units = units](std::uint64_t seed, std::uint64_t stream) {
          Tensor<double> result = initializer.values({Cell::weights * units}, seed, stream);
          for (std::size_t u = units; u < 2 * units; ++u) result[u] += 1;
          return result;
        };
      if constexpr (Cell::rows > Cell::weights) given(setup, prefix + "recurrent_bias", {units}, bias_initializer);
    }
    const std::size_t outputs = checked_product(directions(), units);
    if (return_sequences) return {steps_, outputs};
    return {outputs};
  }

  template <class T, class B>
  MemoryNeed memory(std::size_t batch, bool training) const {
    const Room<T> room = lay_out<T, B>(batch, B::template lanes<T>(batch), training, nullptr, nullptr);
    return {room.kept_size, room.scratch_size};
  }

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    const Room<T> room = room_of(pass, x);
    if (masking)
      mark_steps(pass, mask_value, x, Panels<T>{room.mask, steps_, x.batch, x.lanes}, room.differs, room.sums);
    for (std::size_t d = 0; d < directions(); ++d) {
      backend::Recurrence<T> r = recurrence(pass, room, x, y, d);
      r.end = steps_;
      const bool kernels = walks_by_kernels<T, B>(x.lanes);
      if constexpr (has_train)
        train_.forward(pass, room.train, x, r.gates, d, d * parameters(), use_bias ? bias_of(pass, d) : nullptr);
      else if (kernels)
        give_inputs(pass, r, x, d);
      else
        project(pass, x, r.gates, d);
      if constexpr (has_kernels<T, B>) {
        if (kernels) B::template Recurrent<T>::template forward<Cell>(r);
      }
      if (!kernels) StepByStep<Cell, T, B>(pass.backend, r, room.temporaries).forward();
      if (!return_sequences) keep_last(pass, r, y, d);
    }
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const {
    const Room<T> room = room_of(pass, x);
    const std::size_t outputs = directions() * units;
    for (std::size_t d = 0; d < directions(); ++d) {
      backend::Recurrence<T> r = recurrence(pass, room, x, y, d);
      r.every_step = return_sequences;
      r.dy = {dy.data + d * units * dy.lanes, dy.stride(), return_sequences ? outputs * dy.lanes : 0, steps_};
      r.dh = room.dh, r.dstate = room.dstate;
      const bool kernels = walks_by_kernels<T, B>(x.lanes);
      if (kernels && !has_train) {
        give_inputs(pass, r, x, d);
        if (dx) r.dx = steps_of(dx), r.add_dx = d == 1;
      }
      // Some steps at a time, whose gradients are in the cache when those of the weights are summed.
      const std::size_t most = steps_at_once<T>(r);
      for (r.end = steps_; r.end > 0; r.end = r.begin) {
        r.begin = r.end - std::min(most, r.end);
        if constexpr (has_kernels<T, B>) {
          if (kernels) B::template Recurrent<T>::template backward<Cell>(r);
        }
        if (!kernels) StepByStep<Cell, T, B>(pass.backend, r, room.temporaries).backward();
        sum_gradients(pass, x, room, r, d);
      }
      if constexpr (has_train)
        train_.backward(pass, room.train, x, r.gates, dx, d, d * parameters());
      else if (dx && !kernels)
        input_gradient(pass, r.gates, dx, d);
    }
  }

  void fields(auto&& field) {
    field("units", units);
    field("return_sequences", return_sequences);
    field("bidirectional", bidirectional);
    field("masking", masking);
    field("mask_value", mask_value);
    field("use_bias", use_bias);
    field("initializer", initializer);
    field("recurrent_initializer", recurrent_initializer);
    field("bias_initializer", bias_initializer);
  }

  std::shared_ptr<const Values> initial = {};  // of all parameters, instead of initialisers

 protected:
  std::size_t directions() const { return bidirectional ? 2 : 1; }
  /// Parameters of one direction: those of the input's weights, recurrent weights, bias, and that of the product kept
  /// apart.
  std::size_t parameters() const { return inputs() + (!use_bias ? 1 : Cell::rows > Cell::weights ? 3 : 2); }

  [[no_unique_address]] Train train_ = {};
  std::size_t steps_ = 0, features_ = 0;

 private:
  static constexpr bool has_train = !std::same_as<Train, NoTrain>;
  template <class T, class B>
  static constexpr bool has_kernels = requires {
    typename B::template Recurrent<T>;
  };
  template <class T, class B>
  static bool walks_by_kernels(std::size_t lanes) {
    return has_kernels<T, B> && lanes > 1;
  }
  static std::ptrdiff_t signed_(std::size_t n) { return static_cast<std::ptrdiff_t>(n); }

  /// How many parameters the input's weights are.
  std::size_t inputs() const {
    if constexpr (has_train)
      return train_.cores();
    else
      return 1;
  }
  template <class T, class B>
  const T* bias_of(const Pass<T, B>& pass, std::size_t d) const {
    return pass.parameter(d * parameters() + inputs() + 1).data;
  }

  [[gnu::cold]] Setup::Parameter& given(Setup& setup, std::string what, const Shape& shape,
                                        const init::Initializer& begin) const {
    const std::size_t i = setup.parameters().size();
    const Tensor<double>* const values = initial ? &initial->at(i) : nullptr;
    if (values != nullptr && !(values->shape() == shape))
      raise<ShapeError>("was made with ", what, " of shape ", values->shape(), ", but needs ", shape);
    return setup.parameter(std::move(what), shape, begin, shape, values);
  }

  /// Where everything lies that a batch needs beside inputs and outputs.
  template <class T>
  struct Room {
    T *gates = nullptr, *hidden = nullptr, *state = nullptr, *mask = nullptr;
    T *dh = nullptr, *dstate = nullptr, *x_rows = nullptr, *hidden_rows = nullptr, *differs = nullptr, *sums = nullptr;
    T* temporaries = nullptr;
    [[no_unique_address]] typename Train::template Room<T> train = {};
    std::size_t kept_size = 0, scratch_size = 0;
  };
  template <class T, class B>
  Room<T> lay_out(std::size_t batch, std::size_t lanes, bool training, T* kept, T* scratch) const {
    Room<T> room;
    const std::size_t samples = round_up(batch, lanes), all = samples * steps_, outputs = directions() * units;
    constexpr std::size_t line = cache_line / sizeof(T);
    const auto take = [](T* base, std::size_t& used, std::size_t n) {
      T* const at = base == nullptr ? nullptr : base + used;
      used += round_up(n, line);
      return at;
    };
    const auto lasting = [&](std::size_t n) {
      return training ? take(kept, room.kept_size, n) : take(scratch, room.scratch_size, n);
    };
    const auto passing = [&](std::size_t n) { return take(scratch, room.scratch_size, n); };
    room.gates = lasting((training ? directions() : 1) * Cell::rows * units * all);
    if (training && !return_sequences) room.hidden = lasting(outputs * all);
    if (!training && !return_sequences) room.hidden = lasting(2 * units * samples);
    if (Cell::has_state) room.state = lasting(training ? outputs * all : units * samples);
    if (masking) room.mask = lasting(all), room.differs = passing(features_ * all);
    if (training) {
      room.dh = passing(units * samples), room.dstate = passing(units * samples);
      backend::Recurrence<T> r;
      r.units = units, r.steps = steps_, r.batch = batch, r.lanes = lanes;
      const std::size_t now = samples * steps_at_once<T>(r);
      if (!has_train) room.x_rows = passing(now * backend::row_stride<T>(features_));
      room.hidden_rows = passing(now * backend::row_stride<T>(units));
    }
    room.sums = passing(Cell::rows * units + line);
    if (!walks_by_kernels<T, B>(lanes)) room.temporaries = passing(StepByStep<Cell, T, B>::memory(units, lanes));
    if constexpr (has_train)
      room.train = train_.template lay_out<T, B>(
          batch, lanes, training, directions(), [&](std::size_t n) { return take(kept, room.kept_size, n); }, passing);
    return room;
  }
  template <class T, class B>
  Room<T> room_of(const Pass<T, B>& pass, Panels<const T> x) const {
    return lay_out<T, B>(x.batch, x.lanes, pass.training, pass.kept_memory.data(), pass.scratch.data());
  }

  template <class T, class B>
  backend::Recurrence<T> recurrence(const Pass<T, B>& pass, const Room<T>& room, Panels<const T> x, Panels<T> y,
                                    std::size_t d) const {
    const std::size_t block = units * x.lanes, all = round_up(x.batch, x.lanes) * steps_, outputs = directions();
    backend::Recurrence<T> r;
    r.units = units, r.steps = steps_, r.batch = x.batch, r.lanes = x.lanes, r.reverse = d == 1;
    const std::size_t recurrent = d * parameters() + inputs();
    r.weight = pass.weight(recurrent);
    if (use_bias && Cell::rows > Cell::weights) r.bias = pass.parameter(recurrent + 2).data;
    const bool training = pass.training;
    r.gates = {room.gates + (training ? d * Cell::rows * units * all : 0), steps_ * Cell::rows * block,
               Cell::rows * block, steps_};
    if (return_sequences || training)
      r.hidden = {(return_sequences ? y.data : room.hidden) + d * block, steps_ * outputs * block, outputs * block,
                  steps_};
    else
      r.hidden = {room.hidden, 2 * block, block, 2};
    if (Cell::has_state && training)
      r.state = {room.state + d * units * all, steps_ * block, block, steps_};
    else if (Cell::has_state)
      r.state = {room.state, block, 0, 1};
    if (masking) r.mask = {room.mask, steps_ * x.lanes, x.lanes, steps_};
    return r;
  }

  /// Calls f(first panel, how many, columns, samples in each) for the full panels and for the last one.
  template <class T, class F>
  static void each_part(Panels<const T> x, const F& f) {
    const std::size_t full = x.batch / x.lanes, rest = x.batch % x.lanes;
    if (full > 0) f(std::size_t{0}, full, x.lanes, x.lanes);
    if (rest > 0) f(full, std::size_t{1}, std::min(x.lanes, round_up(rest, cache_line / sizeof(T))), rest);
  }
  /// A product for every step of some panels: items in a row, but for a single sample, whose columns are one.
  template <class T, class B>
  static void multiply_steps(B& backend, backend::Product<T> p, std::size_t count, std::size_t lanes) {
    p.count = lanes == 1 ? 1 : count;
    for (std::size_t i = 0; i < count; i += p.count, p.b += p.b_item, p.c += p.c_item) backend.multiply(p);
  }

  /// The input's share of all gates, of all steps at once.
  template <class T, class B>
  void project(Pass<T, B>& pass, Panels<const T> x, const backend::StepPanels<T>& gates, std::size_t d) const {
    const backend::Matrix<T> w = pass.weight(d * parameters());
    each_part(x, [&](std::size_t panel, std::size_t panels, std::size_t columns, std::size_t) {
      backend::Product<T> p;
      p.rows = w.rows, p.depth = features_, p.columns = columns;
      p.a = w.data, p.a_row = signed_(w.stride), p.a_depth = 1;
      p.b = x.panel(panel), p.b_depth = signed_(x.lanes), p.b_item = signed_(features_ * x.lanes);
      p.c = gates.at(panel, 0), p.c_row = signed_(x.lanes), p.c_item = signed_(gates.step);
      if (use_bias) p.bias = bias_of(pass, d);
      multiply_steps(pass.backend, p, panels * steps_, x.lanes);
    });
  }
  template <class T, class B>
  void input_gradient(Pass<T, B>& pass, const backend::StepPanels<T>& gates, Panels<T> dx, std::size_t d) const {
    const backend::Matrix<T> w = pass.weight(d * parameters());
    each_part(Panels<const T>(dx), [&](std::size_t panel, std::size_t panels, std::size_t columns, std::size_t) {
      backend::Product<T> p;
      p.rows = features_, p.depth = w.rows, p.columns = columns;
      p.a = w.data, p.a_row = 1, p.a_depth = signed_(w.stride);
      p.b = gates.at(panel, 0), p.b_depth = signed_(dx.lanes), p.b_item = signed_(gates.step);
      p.c = dx.panel(panel), p.c_row = signed_(dx.lanes), p.c_item = signed_(features_ * dx.lanes);
      p.accumulate = d == 1;
      multiply_steps(pass.backend, p, panels * steps_, dx.lanes);
    });
  }

  template <class T>
  backend::StepPanels<T> steps_of(Panels<T> p) const {
    return {p.data, p.stride(), p.stride() / steps_, steps_};
  }
  template <class T, class B>
  void give_inputs(const Pass<T, B>& pass, backend::Recurrence<T>& r, Panels<const T> x, std::size_t d) const {
    r.x = steps_of(x), r.input_weight = pass.weight(d * parameters());
    if (use_bias) r.input_bias = bias_of(pass, d);
  }
  /// How many steps' gradients fit the second-level cache, but enough for the products that sum them.
  template <class T>
  std::size_t steps_at_once(const backend::Recurrence<T>& r) const {
    constexpr std::size_t bytes = std::size_t{512} << 10, samples = 256;
    const std::size_t all = r.panels() * r.lanes;
    return std::clamp<std::size_t>(std::max(bytes / (all * Cell::rows * units * sizeof(T)), (samples + all - 1) / all),
                                   1, steps_);
  }

  /// Steps of a panel as rows, one for each step of each lane.
  template <class T, class B>
  static void rows_of(B& backend, const backend::StepPanels<const T>& from, std::size_t panel, std::size_t first,
                      std::size_t count, std::size_t features, std::size_t lanes, T* to) {
    const std::size_t stride = backend::row_stride<T>(features), together = from.step == features * lanes ? count : 1;
    const auto same = [](auto v) { return v; };
    for (std::size_t t = 0; t<count; t += lanes> 1 ? together : 1) {
      const T* const at = from.at(panel, first + t);
      T* const rows = to + t * lanes * stride;
      if (lanes > 1)
        backend.transpose(Panels<const T>{at, features, together * lanes, lanes},
                          backend::Matrix<T>{rows, together * lanes, features, stride});
      else
        backend.map(same, Panels<T>{rows, features, 1, 1}, Panels<const T>{at, features, 1, 1});
    }
  }

  /// Adds the steps of a walk back to the gradients of the weights: sums over steps and samples.
  template <class T, class B>
  void sum_gradients(Pass<T, B>& pass, Panels<const T> x, const Room<T>& room, const backend::Recurrence<T>& r,
                     std::size_t d) const {
    const std::size_t first = d * parameters(), block = units * x.lanes, apart = r.template apart<Cell>();
    constexpr std::size_t line = cache_line / sizeof(T);
    const bool fresh = r.end == steps_;
    const backend::Matrix<T>& recurrent = pass.slots[first + inputs()].gradient;
    if (steps_ == 1) pass.backend.fill(recurrent.data, recurrent.rows * recurrent.stride, T(0));
    // A step's gradients meet the outputs of the one before.
    const std::size_t begin = std::max<std::size_t>(r.begin, 1), pairs = r.end - std::min(begin, r.end);
    const std::size_t lowest = r.reverse ? steps_ - r.end : r.begin;
    const std::size_t later = r.reverse ? steps_ - r.end : begin, earlier = r.reverse ? later + 1 : later - 1;
    const backend::StepPanels<const T> hidden{r.hidden.data, r.hidden.panel, r.hidden.step, r.hidden.kept};
    for (std::size_t panel = 0; panel < r.panels(); ++panel) {
      const auto sum = [&](const backend::Matrix<T>& to, const T* gates, const T* from, std::size_t stride,
                           std::size_t steps) {
        backend::Product<T> p;
        p.rows = to.rows, p.columns = round_up(to.columns, line), p.c = to.data, p.c_row = signed_(to.stride);
        p.segments = steps, p.depth = p.last_depth = r.live(panel), p.accumulate = !fresh || panel > 0;
        p.a = gates, p.a_row = signed_(x.lanes), p.a_depth = 1, p.a_segment = signed_(r.gates.step);
        p.b = from, p.b_depth = signed_(stride), p.b_segment = signed_(x.lanes * stride);
        pass.backend.multiply(p);
      };
      if constexpr (!has_train) {
        rows_of(pass.backend, steps_of(x), panel, lowest, r.end - r.begin, features_, x.lanes, room.x_rows);
        sum(pass.slots[first].gradient, r.gates.at(panel, lowest), room.x_rows, backend::row_stride<T>(features_),
            r.end - r.begin);
      }
      if (pairs == 0) continue;
      rows_of(pass.backend, hidden, panel, earlier, pairs, units, x.lanes, room.hidden_rows);
      for (std::size_t k = 0; k < 2; ++k) {
        const std::size_t from = k == 1 ? apart : 0, count = k == 1 ? Cell::weights - apart : apart;
        if (count == 0) continue;
        sum({recurrent.row(from * units), count * units, units, recurrent.stride},
            r.gates.at(panel, later) + (k == 1 ? (Cell::rows - 1) * block : 0), room.hidden_rows,
            backend::row_stride<T>(units), pairs);
      }
    }
    if (use_bias) sum_biases(pass, room, r, first + inputs() + 1, lowest);
  }
  template <class T, class B>
  void sum_biases(Pass<T, B>& pass, const Room<T>& room, const backend::Recurrence<T>& r, std::size_t first,
                  std::size_t lowest) const {
    for (std::size_t panel = 0; panel < r.panels(); ++panel) {
      const Panels<const T> gates{r.gates.at(panel, lowest), (r.end - r.begin) * Cell::rows * units, r.live(panel),
                                  r.lanes};
      pass.reduce([](auto v) { return v; }, backend::Features<T>{room.sums, Cell::rows * units}, gates);
      for (std::size_t k = 0; k + inputs() + 1 < parameters(); ++k) {
        const Panels<T> to = pass.vector_gradient(first + k);
        const Panels<const T> now{room.sums + k * Cell::weights * units, to.features, 1, 1};
        if (r.end == steps_ && panel == 0)
          pass.map([](auto v) { return v; }, to, now);
        else
          pass.map([](auto sum, auto v) { return sum + v; }, to, Panels<const T>(to), now);
      }
    }
  }

  /// The last output, where it alone is wanted.
  template <class T, class B>
  void keep_last(Pass<T, B>& pass, const backend::Recurrence<T>& r, Panels<T> y, std::size_t d) const {
    for (std::size_t panel = 0; panel < y.panels(); ++panel)
      pass.map([](auto v) { return v; }, Panels<T>{y.panel(panel) + d * units * y.lanes, units, y.live(panel), y.lanes},
               Panels<const T>{r.hidden.at(panel, r.step(steps_ - 1)), units, y.live(panel), y.lanes});
  }
};

}  // namespace detail

/// h_t = tanh(W x_t + b + U h_(t - 1)), of Elman (1990).
struct SimpleRNN : detail::Recurring<backend::SimpleCell> {
  static constexpr std::string_view kind = "SimpleRNN";
  using Recurring::Recurring;
};

/// Long short-term memory; gates i, f, g, o.
struct LSTM : detail::Recurring<backend::LongShortCell> {
  static constexpr std::string_view kind = "LSTM";
  using Recurring::Recurring;
};

/// Gated recurrent units; gates r, z, n, and the reset after the product.
struct GRU : detail::Recurring<backend::GatedCell> {
  static constexpr std::string_view kind = "GRU";
  using Recurring::Recurring;
};

}  // namespace layer

using layer::GRU;
using layer::LSTM;
using layer::SimpleRNN;

}  // namespace tesla::inline TESLA_TARGET
