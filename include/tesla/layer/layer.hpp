// The concept of a layer.
//
// A layer is a small value: its options, and three functions that work on any backend. It owns no memory: it says in
// setup() what it needs, and finds it in the Pass when it runs.
#pragma once

#include <tesla/backend/backend.hpp>
#include <tesla/backend/convolution.hpp>
#include <tesla/layer/initializer.hpp>
#include <tesla/network/sparse/pattern.hpp>
#include <tesla/tensor/tensor.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tesla::inline TESLA_TARGET::layer {

/// What the parameters of a layer begin with, in the order in which setup() asks for them.
using Values = std::vector<Tensor<double>>;

/// A parameter that holds some entries of a matrix, in an order of its own.
class StoredOrder {
 public:
  static constexpr std::uint32_t none = ~std::uint32_t{0};

  virtual ~StoredOrder() = default;
  /// Which entries there are; the values are theirs, row by row.
  virtual sparse::Pattern pattern() const = 0;
  /// What saying so takes.
  virtual std::size_t bytes() const = 0;
  /// How many places there are.
  virtual std::size_t stored() const = 0;
  /// For each place the number of the value that it holds, or none, where it stays zero.
  virtual std::vector<std::uint32_t> order() const = 0;
};

/// Which rows of a parameter a batch uses, where its gradient has no others.
struct UsedRows {
  static constexpr std::uint32_t none = ~std::uint32_t{0};
  std::vector<std::uint32_t>
      looked_up;                      // for each value of the input its row; in the backward pass its place in `rows`
  std::vector<std::uint32_t> rows;    // each row once; the gradient's rows are theirs, in this order
  std::vector<std::uint32_t> places;  // of the parameter's rows in `rows`; good where that says the same
  std::vector<std::uint32_t> summed;  // the rows of several batches, where a step sums their gradients

  /// Where a row is in `rows`, from now on.
  std::uint32_t place_of(std::uint32_t row, std::size_t all) {
    if (places.size() != all) places.assign(all, 0);
    if (rows.empty()) rows.reserve(std::min(all, looked_up.size()));
    std::uint32_t& place = places[row];
    if (place < rows.size() && rows[place] == row) return place;
    place = static_cast<std::uint32_t>(rows.size());
    rows.push_back(row);
    return place;
  }
};

/// What a layer asks for before it runs.
class Setup {
 public:
  explicit Setup(std::uint64_t seed = 0, std::size_t steps = 0) : seed_(seed), steps_(steps) {}

  struct Parameter {
    std::string name;
    Shape shape;  // {outputs, inputs} or {features}
    init::Initializer initializer;
    Shape initialized_as;                    // the matrix that the initialiser sees, of as many elements
    const Tensor<double>* values = nullptr;  // instead of the initialiser
    double rate = 1;                         // times the optimizer's learning rate
    std::shared_ptr<const StoredOrder> form = {};
    bool learned = true;   // or the layer sets it itself, while it trains; then it has no gradient
    bool by_rows = false;  // its gradient has the rows of Slot::used alone
    std::function<Tensor<double>(std::uint64_t seed, std::uint64_t stream)> draw = {};  // instead of the initialiser
    std::size_t rows = 0;  // of the matrix as which the values are kept; 0: the first extent
  };

  /// A learned array; Pass::parameter and Pass::gradient number them in this order.
  Parameter& parameter(std::string name, const Shape& shape, const init::Initializer& initializer) {
    return parameter(std::move(name), shape, initializer, shape);
  }
  /// The same, for a parameter that the initialiser sees as a matrix, or that begins with values of its own.
  Parameter& parameter(std::string name, const Shape& shape, const init::Initializer& initializer, const Shape& matrix,
                       const Tensor<double>* values = nullptr) {
    parameters_.push_back({std::move(name), shape, initializer, matrix, values});
    return parameters_.back();
  }
  /// Room for so many features of every sample, kept from the forward to the backward pass.
  void keep(std::size_t features) { kept_.push_back(features); }
  /// backward() will call Pass::sum_products.
  void sum_products() { sums_products_ = true; }

  /// For what a layer draws at random: of the model's seed and the layer's place.
  std::uint64_t seed() const { return seed_; }
  /// Not 0: sequences of up to so many steps come one step at a time, in order; Pass::place says which one.
  std::size_t steps() const { return steps_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  const std::vector<std::size_t>& kept() const { return kept_; }
  bool sums_products() const { return sums_products_; }

 private:
  std::uint64_t seed_;
  std::size_t steps_;
  std::vector<Parameter> parameters_;
  std::vector<std::size_t> kept_;
  bool sums_products_ = false;
};

struct Activation;

/// What a layer needs for max pooling that runs inside it: room for all its outputs, and how many panels like the
/// pooled ones are kept from the forward to the backward pass.
struct PoolingNeed {
  std::size_t whole = 0, kept = 1;
};

/// What a layer finds when it runs: the backend, its parameters, their gradients, and the memory it asked for.
template <class T, class B>
struct Pass {
  struct Slot {
    backend::Matrix<T> value, gradient;
    Panels<const T> dy, x;  // sum_products: the gradient is not stored
    double rate = 1;        // times the optimizer's learning rate
    bool by_rows = false;
    bool frozen = false;                    // by the user
    UsedRows used = {};                     // by_rows: the gradient has these rows, one behind the other
    std::vector<std::uint32_t> notes = {};  // of a batch, from the forward to the backward pass

    /// The gradient, where it is stored.
    backend::Matrix<T> stored() const {
      return {gradient.data, by_rows ? used.rows.size() : gradient.rows, gradient.columns, gradient.stride};
    }
  };

  B& backend;
  bool training;
  const Shape& in;  // of one sample
  std::span<Slot> slots;
  std::span<Panels<T>> kept;
  std::span<T> kept_memory, scratch;  // what the layer's memory() asked for
  // Of the parameters' values, and of kept_memory: what a layer derives from its values and keeps there is good for as
  // long as both are the same.
  std::array<std::uint64_t, 2> stamps = {};
  std::uint64_t number = 0;  // of the batch, over all training
  // Where the network runs the activation of one layer behind the next one, which is cheaper there: the layer without
  // its own, the next one with that of the layer before.
  bool activation_moved = false;
  const Activation* moved_activation = nullptr;
  // Where max pooling behind a convolution, and the activation moved there, run inside it: the windows, and room for
  // the outputs that no other layer reads. kept[0] is for which one of a window is the largest.
  const backend::Convolution* pool = nullptr;
  T* whole = nullptr;
  // In predictions, where a normalisation is folded into the layer's weights, which are one row a channel.
  const T* folded_bias = nullptr;
  // In training, where a normalisation alone reads the outputs, which takes the mean of each channel off: the gradient
  // of a bias is zero.
  bool normalised = false;
  std::size_t place = 0;  // of the step, where Setup::steps() is not 0

  backend::Matrix<T> weight(std::size_t i) const { return slots[i].value; }
  /// The bias of a layer, which is parameter i if it has one; null if there is none.
  const T* bias(std::size_t i, bool has) const {
    return folded_bias != nullptr ? folded_bias : has ? slots[i].value.data : nullptr;
  }
  /// A parameter of one extent, as an operand of map: one value a feature.
  backend::Features<const T> parameter(std::size_t i) const { return {slots[i].value.data, slots[i].value.columns}; }
  backend::Features<T> gradient(std::size_t i) const { return {slots[i].gradient.data, slots[i].gradient.columns}; }
  /// The same as one sample, to be changed by map.
  Panels<T> vector(std::size_t i) const { return {slots[i].value.data, slots[i].value.columns, 1, 1}; }
  Panels<T> vector_gradient(std::size_t i) const { return {slots[i].gradient.data, slots[i].gradient.columns, 1, 1}; }

  /// out = f(in...), elementwise. Panels go sample by sample, a parameter is the same for all samples.
  template <class F, class... In>
  void map(const F& f, Panels<T> out, const In&... operands) const {
    backend.map(f, out, operands...);
  }
  /// sums = sum over the samples of f(in...), for each feature.
  template <class F, class... In>
  void reduce(const F& f, backend::Features<T> sums, const In&... operands) const {
    backend.reduce(f, sums, operands...);
  }

  /// The gradient of parameter i, a matrix, is the sum over the samples of dy x^T. It is made later, together with the
  /// update, and never stored: dy, which is the one given to backward(), and x stay as they are now.
  void sum_products(std::size_t i, Panels<const T> dy, Panels<const T> x) const { slots[i].dy = dy, slots[i].x = x; }
};

// clang-format off
/// kind: the type's name in summaries and files, from which layers without a name get theirs.
/// setup(input shape of one sample, what is needed) returns the output's shape; it may change the layer, which lasts
/// where all layers of the model agree.
/// forward(pass, x, y) fills y. backward(pass, x, y, dy, dx) fills the gradients and, unless it is null, dx; it may
/// overwrite dy.
/// A layer that needs more memory than Setup can tell says how much, in elements, for one batch:
/// memory<T, B>(batch, training) returns a MemoryNeed.
template <class L>
concept Layer = std::copyable<L> && requires(L layer, const Shape& in, Setup& setup) {
  { L::kind } -> std::convertible_to<std::string_view>;
  { layer.setup(in, setup) } -> std::same_as<Shape>;
};
// clang-format on

/// A layer whose output is its input, seen in another shape; it costs nothing.
template <class L>
concept Passthrough = Layer<L> && requires {
  requires L::passthrough;
};

}  // namespace tesla::inline TESLA_TARGET::layer
