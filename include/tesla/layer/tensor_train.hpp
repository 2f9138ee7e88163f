// The tensor-train layer: y = f(W x + b) with W in tensor-train form (Novikov et al., "Tensorizing Neural Networks",
// 2015), which is never built unless that is the fastest way.
#pragma once

#include <tesla/layer/activation.hpp>
#include <tesla/layer/dense.hpp>
#include <tesla/layer/layer.hpp>
#include <tesla/network/contraction/execute.hpp>
#include <tesla/network/tensor_train/decompose.hpp>
#include <tesla/network/tensor_train/modes.hpp>

#include <array>
#include <cmath>
#include <cstdio>
#include <memory>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct TensorTrainOptions {
  Shape in = {}, out = {};  // modes: their products are the numbers of features
  std::size_t rank = 0;     // between all cores; larger than it can be is cut to what it can be,
  Shape ranks = {};         // or one for each place between two cores
  bool use_bias = true;
  Activation activation = {};
  init::Initializer initializer =
      init::orthogonal;  // of W: orthogonal cores, or cores drawn so that W has its deviation
  init::Initializer bias_initializer = init::zeros;
  double rate = 1;  // of the cores, times the optimizer's learning rate: deep trains of low rank may want more than 1
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

namespace detail {

/// The cores among a layer's parameters, which are the first ones, or their gradients.
template <class T>
class CoreMatrices {
 public:
  template <class Slot>
  CoreMatrices(std::span<Slot> slots, std::size_t count, backend::Matrix<T> Slot::*member) : count_(count) {
    for (std::size_t k = 0; k < count; ++k) all_[k] = slots[k].*member;
  }
  std::span<const backend::Matrix<T>> used() const { return {all_.data(), count_}; }

 private:
  std::array<backend::Matrix<T>, Shape::max_rank> all_;
  std::size_t count_;
};

}  // namespace detail

/// Cores are {rank before, out_k, in_k, rank after}.
struct TensorTrain : TensorTrainOptions {
  static constexpr std::string_view kind = "TensorTrain";

  TensorTrain() = default;
  TensorTrain(TensorTrainOptions options) : TensorTrainOptions(std::move(options)) {}

  /// A layer that begins with the cores of a tensor-train matrix. Modes and ranks are those of the matrix, and not to
  /// be given again; its bias begins as the options say.
  template <class T>
  static TensorTrain from(const network::TensorTrainMatrix<T>& matrix, TensorTrainOptions options = {}) {
    if (matrix.size() == 0) raise<UsageError>("TensorTrain::from: the matrix has no cores");
    const auto differs = [](const Shape& given, const Shape& own) { return given.rank() != 0 && !(given == own); };
    if (differs(options.in, matrix.in()) || differs(options.out, matrix.out()) ||
        differs(options.ranks, matrix.ranks()) || options.rank != 0)
      raise<UsageError>("TensorTrain::from: modes and ranks are those of the matrix, ", matrix.in(), " to ",
                        matrix.out(), " with ranks ", matrix.ranks(),
                        "; leave .in, .out, .rank and .ranks out, or round ", "the matrix first");
    options.in = matrix.in(), options.out = matrix.out(), options.ranks = matrix.ranks();
    TensorTrain result(std::move(options));
    Values values;
    for (const Tensor<T>& core : matrix.cores()) {
      Tensor<double> copy(core.shape());
      std::copy(core.begin(), core.end(), copy.begin());
      values.push_back(std::move(copy));
    }
    result.initial = std::make_shared<const Values>(std::move(values));
    return result;
  }

  /// A layer that begins as the best of its kind near a dense layer with values, as model.layer<Dense>(name) gives it.
  /// Bias and activation are those of the dense layer; modes, and ranks or a tolerance, come from the options.
  template <class DenseLayer>
  requires std::same_as<DenseLayer, Dense>
  static TensorTrain from(const DenseLayer& dense, TensorTrainOptions options, double tolerance = 0) {
    need_values("from", dense);
    const network::DecomposeOptions wanted{.in = options.in,
                                           .out = options.out,
                                           .max_rank = options.rank,
                                           .max_ranks = options.ranks,
                                           .tolerance = tolerance};
    options.use_bias = dense.use_bias, options.activation = dense.activation;
    options.in = options.out = options.ranks = {}, options.rank = 0;
    TensorTrain result = from(network::tt_svd(dense.initial->at(0), wanted), std::move(options));
    if (dense.use_bias) {
      Values values = *result.initial;
      values.push_back(dense.initial->at(1));
      result.initial = std::make_shared<const Values>(std::move(values));
    }
    return result;
  }

  /// The dense layer of the same values.
  template <class DenseLayer = Dense>
  DenseLayer to_dense() const {
    need_values("to_dense", *this);
    DenseLayer result({.units = out.elements(), .use_bias = use_bias, .activation = activation});
    Values values{matrix().to_dense()};
    if (use_bias) values.push_back(initial->back());
    result.initial = std::make_shared<const Values>(std::move(values));
    return result;
  }

  /// The values as a matrix in tensor-train form.
  network::TensorTrainMatrix<double> matrix() const {
    need_values("matrix", *this);
    return network::TensorTrainMatrix<double>(
        std::vector<Tensor<double>>(initial->begin(), initial->begin() + static_cast<std::ptrdiff_t>(in.rank())));
  }

  [[gnu::cold]] Shape setup(const Shape& given, Setup& setup) const {
    check_features(given.elements());
    if (given.rank() != 1 && !(given == in))
      raise<ShapeError>("expects one extent of features, its input has shape ", given,
                        "; put a Flatten layer before it");
    activation.check();
    const network::TensorTrainShape s = shape();
    const bool product = network::is_product(s);
    ask_for_cores(setup, product);
    if (product) {
      setup.sum_products();
      setup.keep(s.ranks[0]), setup.keep(s.ranks[0]);
    }
    const std::size_t units = out.elements();
    if (!activation.from_output()) setup.keep(units);
    return {units};
  }

  /// Whether modes and ranks go together, and with so many features.
  [[gnu::cold]] void check_features(std::size_t features) const {
    check_modes();
    if (features != in.elements())
      raise<ShapeError>("its .in modes ", in, " make ", in.elements(), " features, its input has ", features,
                        proposal(features, in.rank()));
  }

  /// "; modes of 100 are {5, 20}"
  [[gnu::cold]] static std::string proposal(std::size_t features, std::size_t count) {
    if (features == 0) return "";
    const network::FactoredModes f = network::factor_modes(features, count);
    if (f.padding == 0) return text("; modes that fit are ", f.modes);
    return text("; no ", count, " even modes make that number, but ", f.modes, " make ", f.modes.elements());
  }

  /// The parameters alone, cores and bias; as_product: the cores as the matrices that a product of two multiplies.
  /// Names begin with `prefix`; `first` is the first core's place among the initial values; `rows` says in how many
  /// rows a core is kept, where that is not its first extent.
  [[gnu::cold]] void ask_for_cores(Setup& setup, bool as_product, const std::string& prefix = "", std::size_t first = 0,
                                   std::size_t (*rows)(const network::TensorTrainShape&, std::size_t) = nullptr) const {
    check_modes();
    if (!(rate > 0 && rate <= 1e6)) raise<UsageError>("needs .rate to lie above 0 and up to 1e6, not ", rate);
    const network::TensorTrainShape s = shape();
    for (std::size_t k = 0; k < s.size(); ++k) {
      const Shape core = s.core(k);
      const Tensor<double>* const values = initial ? &initial->at(first + k) : nullptr;
      if (values != nullptr && !(values->shape() == core))
        raise<ShapeError>("was made with a core ", k, " of shape ", values->shape(), ", but its options ask for ",
                          core);
      const Shape as =
          as_product ? Shape{core[0] * core[2], core[1] * core[3]} : Shape{core[0] * core[1], core[2] * core[3]};
      auto& parameter = setup.parameter(prefix + "core." + std::to_string(k), core,
                                        core_initializer(s, k, as, as_product), as, values);
      parameter.rate = rate;
      if (as_product) parameter.rows = as[0];
      if (rows != nullptr) parameter.rows = rows(s, k);
    }
    if (use_bias)
      setup.parameter("bias", {out.elements()}, bias_initializer, {out.elements()},
                      initial && initial->size() > s.size() ? &initial->back() : nullptr);
  }

  template <class T, class B>
  MemoryNeed memory(std::size_t batch, bool training) const {
    const auto& p = plan<T, B>(batch, training);
    const std::size_t lanes = B::template lanes<T>(batch);
    if (in_two(p)) return {0, training ? 0 : round_up(batch, lanes) * p.job.shape.ranks[0]};
    return network::contraction::Execution<T, B>(p).memory();
  }

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    const auto& p = plan<T, B>(x.batch, pass.training);
    const bool keep = !activation.from_output() && pass.training;
    const Panels<T> z = keep ? pass.kept.back() : y;
    if (in_two(p)) return forward_in_two(pass, x, y, z, keep, p.job.shape.ranks[0]);
    const network::contraction::Execution<T, B> execution(p);
    const detail::CoreMatrices<T> cores(pass.slots, in.rank(), &Pass<T, B>::Slot::value);
    const T* const bias = use_bias ? pass.parameter(in.rank()).data : nullptr;
    const auto run = [&](backend::InPlace<T> f) {
      execution.forward(pass.backend, cores.used(), x, z, bias, f, pass.kept_memory, pass.scratch, pass.stamps);
    };
    if constexpr (requires { typename B::template DepthFirst<T>; })
      if (!keep && execution.applies() && activation.visit([&](const auto& f) { run(B::template in_place<T>(f)); }))
        return;
    run({});
    activation.apply(pass.backend, Panels<const T>(z), y, y.features);
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const {
    const Panels<const T> kept = activation.from_output() ? y : pass.kept.back(), upstream = dy;
    activation.gradient_with_bias(pass, kept, dy, dy.features, use_bias, in.rank());
    const auto& p = plan<T, B>(x.batch, true);
    if (in_two(p)) {
      const Panels<T> between = pass.kept[0], gradient = pass.kept[1];
      pass.backend.multiply(output_product(pass.weight(1), upstream, gradient));
      if (dx) pass.backend.multiply(output_product(pass.weight(0), Panels<const T>(gradient), dx));
      pass.sum_products(0, x, gradient);
      pass.sum_products(1, between, upstream);
      return;
    }
    const network::contraction::Execution<T, B> execution(p);
    const detail::CoreMatrices<T> cores(pass.slots, in.rank(), &Pass<T, B>::Slot::value);
    const detail::CoreMatrices<T> gradients(pass.slots, in.rank(), &Pass<T, B>::Slot::gradient);
    execution.backward(pass.backend, cores.used(), gradients.used(), x, upstream, dx, pass.kept_memory, pass.scratch);
  }

  /// How this layer computes a batch, and why so.
  template <class T, class B>
  const network::contraction::Plan& plan(std::size_t batch, bool training) const {
    using network::contraction::Purpose;
    return network::contraction::plan_for<T, B>(shape(), batch, training ? Purpose::train : Purpose::predict);
  }

  /// Modes and ranks, the ranks being no larger than they can be.
  [[gnu::noinline]] network::TensorTrainShape shape() const { return network::clipped_shape(in, out, wanted_ranks()); }

  /// For summaries: how small the layer is, and which ranks it has.
  [[gnu::cold]] std::string note() const { return note_of(1, " weights for ", "a Dense layer"); }
  /// The same of a layer that has so many trains.
  [[gnu::cold]] std::string note_of(std::size_t trains, std::string_view what, std::string_view instead) const {
    const network::TensorTrainShape s = shape();
    const std::size_t dense = trains * in.elements() * out.elements(), own = trains * s.count_parameters();
    char ratio[32];
    std::snprintf(ratio, sizeof ratio, "%.3g", static_cast<double>(dense) / static_cast<double>(own));
    std::string result = text(own, what, dense);
    result += own < dense ? text(" (", ratio, " times fewer)") : text(", no fewer than ", instead, " has");
    if (s.ranks.rank() != 0) result += text(", ranks ", s.ranks);
    for (std::size_t k = 0; k < s.ranks.rank(); ++k)
      if (s.ranks[k] < (rank != 0 ? rank : ranks[k])) {
        result += rank != 0 ? text(", the most there are of ", rank) : text(", the most there are of ", ranks);
        break;
      }
    return result;
  }

  void fields(auto&& field) {
    field("in", in);
    field("out", out);
    field("rank", rank);
    field("ranks", ranks);
    field("use_bias", use_bias);
    field("activation", activation);
    field("initializer", initializer);
    field("bias_initializer", bias_initializer);
    field("rate", rate);
  }

  std::shared_ptr<const Values> initial = {};  // cores, and the bias where there is one

 private:
  template <class L>
  [[gnu::cold]] static void need_values(std::string_view who, const L& layer) {
    if (!layer.initial)
      raise<UsageError>("TensorTrain::", who, ": this ", L::kind, " layer has no values yet; take one from a built ",
                        "model, with model.layer<", L::kind, ">(name)");
  }

  /// A product of two matrices that are not merged: each does what a dense layer does, turned round, with all that goes
  /// with it.
  static bool in_two(const network::contraction::Plan& plan) {
    return plan.contraction().steps == 2 && network::is_product(plan.job.shape);
  }
  template <class T, class B>
  void forward_in_two(Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> z, bool keep, std::size_t r) const {
    const Panels<T> between = pass.training ? pass.kept[0] : Panels<T>{pass.scratch.data(), r, x.batch, x.lanes};
    pass.backend.multiply(input_product(pass.weight(0), x, between));
    backend::Product<T> p = input_product(pass.weight(1), Panels<const T>(between), z);
    if (use_bias) p.bias = pass.weight(2).data;
    if (!keep && activation.visit([&](const auto& f) { pass.backend.multiply(p, f); })) return;
    pass.backend.multiply(p);
    activation.apply(pass.backend, Panels<const T>(z), y, y.features);
  }

  Shape wanted_ranks() const {
    if (ranks.rank() != 0 || in.rank() < 2) return ranks;
    std::array<std::size_t, Shape::max_rank> all;
    for (std::size_t k = 1; k < in.rank(); ++k) all[k - 1] = std::min(rank, network::largest_rank(in, out, k));
    return Shape(std::span<const std::size_t>(all.data(), in.rank() - 1));
  }

  [[gnu::cold]] void check_modes() const {
    if (in.rank() == 0 || in.rank() != out.rank())
      raise<ShapeError>("needs as many modes in .in as in .out, 1 to ", backend::max_cores, " of them, not ", in,
                        " and ", out);
    for (const Shape& modes : {in, out})
      if (modes.elements() == 0) raise<ShapeError>("has modes ", modes, "; each of them has to be 1 or more");
    if (in.rank() == 1) return;
    if (rank == 0 && ranks.rank() == 0)
      raise<UsageError>("needs .rank, or .ranks with ", in.rank() - 1, " numbers, to be 1 or more");
    if (rank != 0 && ranks.rank() != 0) raise<UsageError>("takes .rank or .ranks, not both");
    if (ranks.rank() != 0 && ranks.rank() != in.rank() - 1)
      raise<ShapeError>("has ", in.rank(), " cores and so ", in.rank() - 1, " ranks between them, not ", ranks.rank(),
                        ", as in .ranks ", ranks);
    for (const std::size_t r : ranks)
      if (r == 0) raise<UsageError>("has .ranks ", ranks, "; each of them has to be 1 or more");
  }

  /// What gives W the deviation asked for: its entries are sums over all ranks of products of d numbers.
  [[gnu::cold]] init::Initializer core_initializer(const network::TensorTrainShape& s, std::size_t k, const Shape& core,
                                                   bool as_product) const {
    using Kind = init::Initializer::Kind;
    initializer.check();
    const double cores = static_cast<double>(s.size());
    if (initializer.kind == Kind::constant)
      raise<UsageError>("cores that begin as a constant stay equal to each other; choose another .initializer");
    const double deviation = initializer.deviation({out.elements(), in.elements()});
    if (deviation < static_cast<double>(std::numeric_limits<float>::min()))
      raise<UsageError>("cores that begin as zero have no gradient; choose an .initializer with a larger number");
    if (initializer.kind == Kind::orthogonal) {
      // Steps of the contraction that keep the mean square of what they are given, times the gain.
      const double turned = static_cast<double>(core[0]) / static_cast<double>(core[1]);
      const double widens = !as_product ? std::max(1.0, turned) : k == 0 ? 1 : 1 / turned;
      const double gain = deviation * std::sqrt(static_cast<double>(in.elements()));
      return {Kind::orthogonal, std::pow(gain, 1 / cores) * std::sqrt(widens)};
    }
    double paths = 1;
    for (const std::size_t r : s.ranks) paths *= static_cast<double>(r);
    const double each = std::pow(deviation * deviation / paths, 0.5 / cores);
    return initializer.is_uniform() ? init::uniform(each * std::sqrt(3.0)) : init::normal(each);
  }
};

}  // namespace layer

using layer::TensorTrain;

}  // namespace tesla::inline TESLA_TARGET
