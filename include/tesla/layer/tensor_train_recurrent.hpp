// Recurrent layers whose input weights are a tensor-train (Yang et al., "Tensor-train recurrent neural networks for
// video classification", 2017). The input's share of all gates is one contraction over all steps of all samples; the
// steps are then walked as those of any recurrent layer.
#pragma once

#include <tesla/layer/recurrent.hpp>
#include <tesla/layer/tensor_train.hpp>

#include <array>
#include <span>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct TensorTrainRecurrentOptions {
  std::size_t units = 0;
  Shape in = {}, out = {};  // modes: their products are the features of a step, and gates times units
  std::size_t rank = 0;     // between all cores; larger than it can be is cut to what it can be,
  Shape ranks = {};         // or one for each place between two cores
  bool return_sequences = false;
  bool bidirectional = false;  // two trains of the same modes and ranks
  bool masking = false;
  double mask_value = 0;
  bool use_bias = true;
  init::Initializer initializer = init::orthogonal;  // of the input weights, as in TensorTrain
  init::Initializer recurrent_initializer = init::orthogonal;
  init::Initializer bias_initializer = init::zeros;
  double rate = 1;  // of the cores, times the optimizer's learning rate
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept

  /// The input weights as a layer of their own.
  [[gnu::cold]] TensorTrain train() const {
    return TensorTrain({.in = in,
                        .out = out,
                        .rank = rank,
                        .ranks = ranks,
                        .use_bias = false,
                        .initializer = initializer,
                        .rate = rate});
  }
};

namespace detail {

/// The input's weights as a tensor-train, which sees each step of each sample as a sample. Where a panel is not full,
/// its other lanes count as samples too, with gradients of zero.
class InputTrain {
 public:
  template <class T>
  struct Room {
    std::array<std::span<T>, 2> kept = {};  // of the two directions
    std::span<T> scratch = {};
    T *x = nullptr, *shares = nullptr, *dx = nullptr, *more = nullptr, *live = nullptr;
  };

  /// Asks for the cores of a direction. `weights` matrices of gates; `rows` of a unit in memory.
  [[gnu::cold]] void setup(const TensorTrainRecurrentOptions& options, std::shared_ptr<const Values> initial,
                           std::size_t weights, std::size_t rows, const Shape& in, const std::string& prefix,
                           Setup& setup) {
    TensorTrain train = options.train();
    train.check_features(in[1]);
    const std::size_t wanted = checked_product(weights, options.units);
    if (train.out.elements() != wanted)
      raise<ShapeError>("its .out modes ", train.out, " make ", train.out.elements(), " rows, its ", options.units,
                        " units have ", wanted, weights > 1 ? text(", ", weights, " for each") : "",
                        TensorTrain::proposal(wanted, train.out.rank()));
    shape_ = train.shape(), steps_ = in[0], apart_ = rows > weights;
    train.initial = std::move(initial);
    train.ask_for_cores(setup, network::is_product(shape_), prefix, setup.parameters().size());
  }
  std::size_t cores() const { return shape_.size(); }

  template <class T, class B>
  const network::contraction::Plan& plan(std::size_t batch, std::size_t lanes, bool training) const {
    using network::contraction::Purpose;
    const Samples s = samples<T, B>(batch, lanes);
    return network::contraction::plan_for<T, B>(shape_, s.count, training ? Purpose::train : Purpose::predict, s.lanes);
  }

  /// `lasting` and `passing` give out memory.
  template <class T, class B, class Lasting, class Passing>
  Room<T> lay_out(std::size_t batch, std::size_t lanes, bool training, std::size_t directions, const Lasting& lasting,
                  const Passing& passing) const {
    const MemoryNeed need = network::contraction::Execution<T, B>(plan<T, B>(batch, lanes, training)).memory();
    const Samples s = samples<T, B>(batch, lanes);
    const auto panels = [&](const Shape& modes) { return passing(round_up(s.count, s.lanes) * modes.elements()); };
    Room<T> room;
    for (std::size_t d = 0; d < directions; ++d) room.kept[d] = {lasting(need.kept), need.kept};
    room.scratch = {passing(need.scratch), need.scratch};
    if (s.copied) room.x = panels(shape_.in);
    if (s.copied || apart_) room.shares = panels(shape_.out);
    if (!training) return room;
    if (s.copied) room.dx = panels(shape_.in);
    if (directions > 1) room.more = panels(shape_.in);
    room.live = passing(lanes);
    return room;
  }

  /// Leaves the input's share in the gates of direction d, whose first core is parameter `first`.
  template <class T, class B>
  void forward(Pass<T, B>& pass, const Room<T>& room, Panels<const T> x, const backend::StepPanels<T>& gates,
               std::size_t d, std::size_t first, const T* bias) const {
    const Samples s = samples<T, B>(x.batch, x.lanes);
    const Panels<T> y = shares_of(s, room, gates);
    const CoreMatrices<T> cores(pass.slots.subspan(first), shape_.size(), &Pass<T, B>::Slot::value);
    const network::contraction::Execution<T, B> execution(plan<T, B>(x.batch, x.lanes, pass.training));
    execution.forward(pass.backend, cores.used(), inputs_of(pass.backend, s, room, x, d == 0), y, bias, {},
                      room.kept[d], room.scratch, pass.stamps);
    if (s.copied)
      pass.backend.transpose(Panels<const T>(y), backend::Matrix<T>{gates.data, s.count, y.features, gates.step});
    else if (apart_)
      each_step(x, y, gates, [&](Panels<T> share, Panels<T> own) { copy(pass, share, own); });
  }

  /// The gradients of the cores and dx, from the gradients by the gates.
  template <class T, class B>
  void backward(Pass<T, B>& pass, const Room<T>& room, Panels<const T> x, const backend::StepPanels<T>& gates,
                Panels<T> dx, std::size_t d, std::size_t first) const {
    const Samples s = samples<T, B>(x.batch, x.lanes);
    const Panels<T> dy = shares_of(s, room, gates);
    if (s.copied)
      to_panels(pass.backend, gates.data, gates.step, dy);
    else if (apart_)
      each_step(x, dy, gates, [&](Panels<T> share, Panels<T> own) { copy(pass, own, share); });
    if (!s.copied) clear_others(pass, room, x, dy);
    // The second direction's dx is added to the first one's.
    const Panels<T> sum{dx && s.copied ? room.dx : dx.data, shape_.in.elements(), s.count, s.lanes};
    const Panels<T> own{dx && d == 1 ? room.more : sum.data, sum.features, s.count, s.lanes};
    const auto slots = pass.slots.subspan(first);
    const CoreMatrices<T> cores(slots, shape_.size(), &Pass<T, B>::Slot::value);
    const CoreMatrices<T> gradients(slots, shape_.size(), &Pass<T, B>::Slot::gradient);
    const network::contraction::Execution<T, B> execution(plan<T, B>(x.batch, x.lanes, true));
    execution.backward(pass.backend, cores.used(), gradients.used(), inputs_of(pass.backend, s, room, x, d == 0),
                       Panels<const T>(dy), own, room.kept[d], room.scratch);
    if (!dx) return;
    if (d == 1) pass.map([](auto a, auto b) { return a + b; }, sum, Panels<const T>(sum), Panels<const T>(own));
    if (s.copied)
      pass.backend.transpose(Panels<const T>(sum), backend::Matrix<T>{dx.data, s.count, sum.features, sum.features});
  }

 private:
  /// The samples that the train sees. Those of whole panels are where they are; the steps of a single sample, which are
  /// rows, are copied into panels.
  struct Samples {
    std::size_t count, lanes;
    bool copied;
  };
  template <class T, class B>
  Samples samples(std::size_t batch, std::size_t lanes) const {
    const std::size_t all = batch * steps_;
    if (lanes == 1 && all > 1) return {all, B::template lanes<T>(all), true};
    return {round_up(batch, lanes) * steps_, lanes, false};
  }

  template <class T>
  Panels<T> shares_of(const Samples& s, const Room<T>& room, const backend::StepPanels<T>& gates) const {
    return {s.copied || apart_ ? room.shares : gates.data, shape_.out.elements(), s.count, s.lanes};
  }
  /// `fresh`: they have not been copied yet in this pass.
  template <class T, class B>
  Panels<const T> inputs_of(B& backend, const Samples& s, const Room<T>& room, Panels<const T> x, bool fresh) const {
    const std::size_t features = shape_.in.elements();
    if (!s.copied) return {x.data, features, s.count, s.lanes};
    const Panels<T> to{room.x, features, s.count, s.lanes};
    if (fresh) to_panels(backend, x.data, features, to);
    return to;
  }
  /// Rows, so far apart, into panels.
  template <class T, class B>
  static void to_panels(B& backend, const T* rows, std::size_t apart, Panels<T> to) {
    network::OnHost<T, B> host(backend, const_cast<T*>(rows), (to.batch - 1) * apart + to.features, true);
    const ArrayView all(static_cast<const T*>(host.data()), {to.batch, to.features},
                        {static_cast<std::ptrdiff_t>(apart), 1});
    backend.gather({&all, nullptr, 0, to.batch}, to, {});
  }

  template <class T, class B>
  static void copy(Pass<T, B>& pass, Panels<T> from, Panels<T> to) {
    pass.map([](auto v) { return v; }, to, Panels<const T>(from));
  }
  /// Calls f with the shares of every step, and with the place that they have among its gates.
  template <class T, class F>
  void each_step(Panels<const T> x, Panels<T> shares, const backend::StepPanels<T>& gates, const F& f) const {
    for (std::size_t panel = 0; panel < x.panels(); ++panel)
      for (std::size_t t = 0; t < steps_; ++t)
        f(Panels<T>{shares.panel(panel * steps_ + t), shares.features, x.lanes, x.lanes},
          Panels<T>{gates.at(panel, t), shares.features, x.lanes, x.lanes});
  }
  /// Lanes without a sample have no gradient.
  template <class T, class B>
  void clear_others(Pass<T, B>& pass, const Room<T>& room, Panels<const T> x, Panels<T> dy) const {
    const std::size_t last = x.panels() - 1, live = x.live(last);
    if (live == x.lanes) return;
    pass.backend.fill(room.live, live, T(1));
    pass.backend.fill(room.live + live, x.lanes - live, T(0));
    // As one sample, whose features are the lanes of all rows.
    const Panels<T> values{dy.panel(last * steps_), steps_ * dy.stride(), 1, 1};
    pass.map(
        [](auto v, auto lives) {
          using V = decltype(v);
          using math::select;
          return V(select(lives > math::number<V>(0.5), v, math::number<V>(0)));
        },
        values, Panels<const T>(values), backend::Features<const T>{room.live, x.lanes});
  }

  network::TensorTrainShape shape_;
  std::size_t steps_ = 0;
  bool apart_ = false;  // gates have more rows than the input has a share of
};

/// The trains of the input's matrices among a layer's values, in ranks that are the same for all of them.
[[gnu::cold]] inline std::vector<network::TensorTrainMatrix<double>> trains_near(
    const std::vector<const Tensor<double>*>& matrices, network::DecomposeOptions options) {
  std::vector<network::TensorTrainMatrix<double>> result;
  const auto decompose = [&] {
    result.clear();
    for (const Tensor<double>* w : matrices) result.push_back(network::tt_svd(*w, options));
    bool same = true;
    for (const auto& train : result) same = same && train.ranks() == result.front().ranks();
    return same;
  };
  if (decompose()) return result;
  // One tolerance, but matrices that need different ranks: each gets the most that any of them needs.
  std::array<std::size_t, Shape::max_rank> most{};
  const std::size_t places = result.front().ranks().rank();
  for (const auto& train : result)
    for (std::size_t k = 0; k < places; ++k) most[k] = std::max(most[k], train.ranks()[k]);
  options.max_rank = 0, options.tolerance = 0;
  options.max_ranks = Shape(std::span<const std::size_t>(most.data(), places));
  if (decompose()) return result;
  for (auto& train : result) {  // a matrix that has no such rank: zeros behind what it has
    std::vector<Tensor<double>> cores;
    for (std::size_t k = 0; k <= places; ++k) {
      const Tensor<double>& core = train.cores()[k];
      const Shape& from = core.shape();
      const std::size_t modes = from[1] * from[2];
      const Shape to{k == 0 ? 1 : most[k - 1], from[1], from[2], k == places ? 1 : most[k]};
      Tensor<double>& wider = cores.emplace_back(to);
      for (std::size_t row = 0; row < from[0] * modes; ++row)
        std::copy_n(core.data() + row * from[3], from[3], wider.data() + row * to[3]);
    }
    train = network::TensorTrainMatrix<double>(std::move(cores));
  }
  return result;
}

/// `Own` is the kind, `Matrix` the one with a matrix in the place of the train.
template <class Own, class Matrix, class Cell>
struct TensorTrainRecurring : Recurring<Cell, TensorTrainRecurrentOptions, InputTrain> {
  using Base = Recurring<Cell, TensorTrainRecurrentOptions, InputTrain>;
  using Base::Base;

  /// A layer that begins as the best of its kind near a trained one, as model.layer<LSTM>(name) gives it. All but
  /// modes, ranks or a tolerance, rate and name is that of the other layer.
  [[gnu::cold]] static Own from(const Matrix& layer, TensorTrainRecurrentOptions options, double tolerance = 0) {
    if (!layer.initial)
      raise<UsageError>(Own::kind, "::from: this ", Matrix::kind, " layer has no values yet; take one from a built ",
                        "model, with model.layer<", Matrix::kind, ">(name)");
    options.units = layer.units, options.return_sequences = layer.return_sequences;
    options.bidirectional = layer.bidirectional, options.masking = layer.masking;
    options.mask_value = layer.mask_value, options.use_bias = layer.use_bias;
    options.recurrent_initializer = layer.recurrent_initializer, options.bias_initializer = layer.bias_initializer;
    const Values& values = *layer.initial;
    const std::size_t directions = layer.bidirectional ? 2 : 1, each = values.size() / directions;
    std::vector<const Tensor<double>*> matrices;
    for (std::size_t d = 0; d < directions; ++d) matrices.push_back(&values[d * each]);
    const auto trains = trains_near(matrices, {.in = options.in,
                                               .out = options.out,
                                               .max_rank = options.rank,
                                               .max_ranks = options.ranks,
                                               .tolerance = tolerance});
    Values own;
    for (std::size_t d = 0; d < directions; ++d) {
      own.insert(own.end(), trains[d].cores().begin(), trains[d].cores().end());
      const auto rest = values.begin() + static_cast<std::ptrdiff_t>(d * each + 1);
      own.insert(own.end(), rest, rest + static_cast<std::ptrdiff_t>(each - 1));
    }
    options.rank = 0, options.ranks = trains[0].ranks();
    Own result(std::move(options));
    result.initial = std::make_shared<const Values>(std::move(own));
    return result;
  }

  /// How this layer computes the input's share of a batch, and why so.
  template <class T, class B>
  const network::contraction::Plan& plan(std::size_t batch, bool training) const {
    return this->train_.template plan<T, B>(batch, B::template lanes<T>(batch), training);
  }

  [[gnu::cold]] std::string note() const {
    return this->train().note_of(this->directions(), " input weights for ", Matrix::kind);
  }

  void fields(auto&& field) {
    Base::fields(field);
    field("in", this->in);
    field("out", this->out);
    field("rank", this->rank);
    field("ranks", this->ranks);
    field("rate", this->rate);
  }
};

}  // namespace detail

/// SimpleRNN with a tensor-train for W.
struct TensorTrainSimpleRNN : detail::TensorTrainRecurring<TensorTrainSimpleRNN, SimpleRNN, backend::SimpleCell> {
  static constexpr std::string_view kind = "TensorTrainSimpleRNN";
  using TensorTrainRecurring::TensorTrainRecurring;
};

/// LSTM with a tensor-train for W, the rows of all gates together.
struct TensorTrainLSTM : detail::TensorTrainRecurring<TensorTrainLSTM, LSTM, backend::LongShortCell> {
  static constexpr std::string_view kind = "TensorTrainLSTM";
  using TensorTrainRecurring::TensorTrainRecurring;
};

/// GRU with a tensor-train for W, the rows of all gates together.
struct TensorTrainGRU : detail::TensorTrainRecurring<TensorTrainGRU, GRU, backend::GatedCell> {
  static constexpr std::string_view kind = "TensorTrainGRU";
  using TensorTrainRecurring::TensorTrainRecurring;
};

}  // namespace layer

using layer::TensorTrainGRU;
using layer::TensorTrainLSTM;
using layer::TensorTrainSimpleRNN;

}  // namespace tesla::inline TESLA_TARGET
