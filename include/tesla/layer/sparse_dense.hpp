// The fully connected layer whose weights are few: y = f(W x + b), W sparse. Memory and time follow the live weights.
#pragma once

#include <tesla/layer/activation.hpp>
#include <tesla/layer/layer.hpp>
#include <tesla/layer/products.hpp>
#include <tesla/network/on_host.hpp>
#include <tesla/network/sparse/density.hpp>
#include <tesla/network/sparse/expand.hpp>
#include <tesla/network/sparse/plan.hpp>
#include <tesla/network/sparse/rewire.hpp>

#include <cstring>
#include <memory>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct SparseDenseOptions {
  std::size_t units = 0;
  double density = 0.1;       // live weights, of all; in places drawn at random,
  sparse::Pattern live = {};  // or in the places given, {units, inputs}
  sparse::Block block = {};   // weights that live together; {4, 1} is the fastest
  bool use_bias = true;
  Activation activation = {};
  init::Initializer initializer = init::glorot_uniform;  // with the fan-in and fan-out of live weights
  init::Initializer bias_initializer = init::zeros;
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

/// Where the weights of a layer are, in the form that kernels read.
struct SparseWeights final : StoredOrder {
  explicit SparseWeights(const sparse::Pattern& pattern, const sparse::Block& block)
      : layout(network::sparse::layout_of(
            pattern,
            network::sparse::tiling_for(pattern.rows(), pattern.columns(), pattern.density(), block.rows % 4 == 0))),
        live(pattern.live()) {}

  std::size_t bytes() const override { return layout.bytes(); }
  std::size_t stored() const override { return layout.count; }
  std::vector<std::uint32_t> order() const override { return network::sparse::pattern_of(layout).second; }
  sparse::Pattern pattern() const override { return network::sparse::pattern_of(layout).first; }

  backend::SparseLayout layout;
  std::size_t live;
  network::sparse::Best growth;  // where its count is not 0, the next backward pass offers it all dead blocks
  std::uint64_t twin_stamp = 0;  // of the values that are in the gradient's memory in the twin's order
};

/// The parameter `weight` is the list of live weights, row by row.
struct SparseDense : SparseDenseOptions {
  static constexpr std::string_view kind = "SparseDense";

  SparseDense() = default;
  SparseDense(SparseDenseOptions options) : SparseDenseOptions(std::move(options)) {}

  /// Which weights are live, in a layer of a built model.
  sparse::Pattern pattern() const { return weights_ ? weights_->pattern() : live; }

  [[gnu::cold]] Shape setup(const Shape& given, Setup& setup) {
    check();
    if (given.rank() != 1 || given[0] == 0)
      raise<ShapeError>("expects one extent of features, its input has shape ", given,
                        "; put a Flatten layer before it");
    const std::size_t in = given[0];
    const auto fits = [&](const auto& p) { return p.rows == units && p.columns == in; };
    if (!live.empty() && (live.rows() != units || live.columns() != in))
      raise<ShapeError>("was given a .live of ", live.rows(), " x ", live.columns(), ", but needs ", units, " x ", in);
    if (!live.empty() || !weights_ || !fits(weights_->layout)) {
      const sparse::Pattern own =
          live.empty() ? sparse::Pattern::random(units, in, {.density = density, .block = block, .seed = setup.seed()})
                       : std::move(live);
      if (own.live() == 0) raise<UsageError>("was given a .live without any live weight");
      if (!own.in_blocks(block))
        raise<UsageError>("was given a .live that does not come in blocks of ", block.rows, " x ", block.columns);
      weights_ = std::make_shared<SparseWeights>(own, block);
      live = {};
    }
    const Tensor<double>* const values = initial ? &initial->at(0) : nullptr;
    if (values != nullptr && values->size() != weights_->live)
      raise<ShapeError>("was made with ", values->size(), " weights, but its pattern has ", weights_->live);
    Setup::Parameter& weight = setup.parameter("weight", {weights_->live}, initializer, {weights_->live}, values);
    weight.form = weights_;
    weight.initializer = live_initializer(in);
    if (use_bias)
      setup.parameter("bias", {units}, bias_initializer, {units},
                      initial && initial->size() > 1 ? &initial->at(1) : nullptr);
    if (!activation.from_output()) setup.keep(units);
    return {units};
  }

  template <class T, class B>
  MemoryNeed memory(std::size_t batch, bool training) const {
    if (!plan<T, B>(batch, training).dense()) return {};
    const backend::SparseLayout& l = weights_->layout;
    const std::size_t matrix = l.rows * backend::row_stride<T>(l.columns);
    return {head<T> + matrix, training ? matrix + batch * backend::row_stride<T>(l.columns) : 0};
  }

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    const bool keep = !activation.from_output() && pass.training;
    const Panels<T> z = keep ? pass.kept[0] : y;
    const backend::SparseLayout& l = weights_->layout;
    const T *const values = pass.weight(0).data, *const bias = use_bias ? pass.parameter(1).data : nullptr;
    if (plan<T, B>(x.batch, pass.training).dense()) {
      const backend::Matrix<T> w = matrix<T>(pass.kept_memory.data() + head<T>);
      if (!network::made_before<B>(pass.kept_memory.data(), pass.stamps)) {
        network::OnHost<T, B> from(pass.backend, const_cast<T*>(values), l.count, true);
        network::OnHost<T, B> to(pass.backend, w.data, w.rows * w.stride, false);
        network::sparse::expand<T>(l, from.data(), {to.data(), w.rows, w.columns, w.stride});
        to.send(pass.backend);
      }
      backend::Product<T> p = output_product(w, x, z);
      p.bias = bias;
      if (!keep && activation.visit([&](const auto& f) { pass.backend.multiply(p, f); })) return;
      pass.backend.multiply(p);
    } else if constexpr (requires { typename B::template Sparse<T>; }) {
      const typename B::template Sparse<T> kernels(l);
      const T* weights = values;
      if (l.has_twin()) {
        // Between two backward passes the gradient's memory holds the values in the other order.
        T* const twin = pass.slots[0].gradient.data;
        if (weights_->twin_stamp != pass.stamps[0] || pass.stamps[0] == 0) kernels.make_twin(values, twin);
        weights_->twin_stamp = pass.stamps[0];
        weights = twin;
      }
      if (!keep &&
          activation.visit([&](const auto& f) { kernels.forward(weights, x, y, bias, B::template in_place<T>(f)); }))
        return;
      kernels.forward(weights, x, z, bias, {});
    }
    activation.apply(pass.backend, Panels<const T>(z), y, units);
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const {
    const Panels<const T> kept = activation.from_output() ? y : pass.kept[0], upstream = dy;
    activation.gradient_with_bias(pass, kept, dy, units, use_bias, 1);
    const backend::SparseLayout& l = weights_->layout;
    T* const gradient = pass.slots[0].gradient.data;
    weights_->twin_stamp = 0;
    if (weights_->growth.count() != 0) offer_growth(pass, x, upstream);
    if (plan<T, B>(x.batch, true).dense()) {
      const backend::Matrix<T> w = matrix<T>(pass.kept_memory.data() + head<T>);
      if (dx) pass.backend.multiply(input_product(w, upstream, dx));
      const backend::Matrix<T> dw = matrix<T>(pass.scratch.data());
      const backend::Matrix<T> rows{dw.data + dw.rows * dw.stride, x.batch, x.features, dw.stride};
      if (x.batch > 1) pass.backend.transpose(x, rows);
      pass.backend.multiply(weight_product(dw, upstream, x, rows));
      network::OnHost<T, B> from(pass.backend, dw.data, dw.rows * dw.stride, true);
      network::OnHost<T, B> to(pass.backend, gradient, l.count, false);
      network::sparse::collect<T>(l, {from.data(), dw.rows, dw.columns, dw.stride}, to.data());
      to.send(pass.backend);
    } else if constexpr (requires { typename B::template Sparse<T>; }) {
      typename B::template Sparse<T>(l).backward(pass.weight(0).data, x, upstream, dx, gradient);
    }
  }

  /// How many blocks are live; those at the edge count for what there is of them.
  std::size_t live_blocks() const { return weights_->live / (block.rows * block.columns); }
  /// The next backward pass finds the dead blocks whose gradients are largest, as many as `count`; see grown().
  void look_for_growth(std::size_t count) { weights_->growth = network::sparse::Best(count); }
  std::vector<std::uint64_t> grown() { return std::exchange(weights_->growth, network::sparse::Best()).take(); }

  /// Other weights in the place of these.
  void rewire(std::shared_ptr<SparseWeights> weights) {
    weights->growth = network::sparse::Best(weights_->growth.count());
    weights_ = std::move(weights);
  }

  /// How this layer computes a batch, and why so.
  template <class T, class B>
  network::sparse::Plan plan(std::size_t batch, bool training) const {
    return network::sparse::plan_for<T, B>(weights_->layout, weights_->live, batch, training);
  }

  /// For summaries: how many weights are live.
  [[gnu::cold]] std::string note() const {
    const backend::SparseLayout& l = weights_->layout;
    char share[32];
    std::snprintf(
        share, sizeof share, "%.3g",
        100 * static_cast<double>(weights_->live) / (static_cast<double>(l.rows) * static_cast<double>(l.columns)));
    std::string result = text(weights_->live, " of ", l.rows * l.columns, " weights live (", share, " %)");
    if (!(block == sparse::Block())) result += text(", blocks of ", block.rows, " x ", block.columns);
    if (l.rows % block.rows != 0 || l.columns % block.columns != 0) result += ", those at the edge cut off";
    return result;
  }

  void fields(auto&& field) {
    field("units", units);
    field("density", density);
    field("block_rows", block.rows);
    field("block_columns", block.columns);
    field("use_bias", use_bias);
    field("activation", activation);
    field("initializer", initializer);
    field("bias_initializer", bias_initializer);
  }

  std::shared_ptr<const Values> initial = {};  // weights, row by row, and the bias where there is one

 private:
  /// Offers the dead blocks with their gradients, which are made strip by strip and never stored whole.
  template <class T, class B>
  [[gnu::cold]] void offer_growth(Pass<T, B>& pass, Panels<const T> x, Panels<const T> dy) const {
    const sparse::Pattern now = weights_->pattern();
    const std::size_t stride = backend::row_stride<T>(now.columns());
    const std::size_t strip = std::min(round_up(64, block.rows), round_up(now.rows(), block.rows));
    backend::Memory<T, B> rows(pass.backend, x.batch > 1 ? x.batch * stride : 0), memory(pass.backend, strip * stride);
    const backend::Matrix<T> x_rows{rows.data(), x.batch, x.features, stride};
    if (x.batch > 1) pass.backend.transpose(x, x_rows);
    for (std::size_t row = 0; row < now.rows(); row += strip) {
      const backend::Matrix<T> dw{memory.data(), std::min(strip, now.rows() - row), now.columns(), stride};
      backend::Product<T> product = weight_product(dw, dy, x, x_rows);
      product.a += row * dy.lanes;
      pass.backend.multiply(product);
      network::OnHost<T, B> host(pass.backend, dw.data, dw.rows * dw.stride, true);
      network::sparse::offer_dead(weights_->growth, now, block, row,
                                  backend::Matrix<T>{host.data(), dw.rows, dw.columns, dw.stride});
    }
  }

  [[gnu::cold]] void check() const {
    if (units == 0) raise<UsageError>("needs .units, the number of outputs, to be 1 or more");
    sparse::check_block(block);
    if (!(density > 0 && density <= 1)) raise<UsageError>("needs a .density in (0, 1], not ", density);
    if (initializer.kind == init::Initializer::Kind::orthogonal)
      raise<UsageError>("has no orthogonal .initializer: few rows of a sparse matrix can be so");
    activation.check();
  }

  /// The initialiser of a matrix with as few weights: their deviation follows the live fan-in and fan-out.
  [[gnu::cold]] init::Initializer live_initializer(std::size_t in) const {
    initializer.check();
    std::vector<bool> rows(units), columns(in);
    network::sparse::each_weight(weights_->layout,
                                 [&](std::size_t r, std::size_t c, std::size_t) { rows[r] = columns[c] = true; });
    const auto fan = [&](const std::vector<bool>& alive) {
      return static_cast<double>(weights_->live) / static_cast<double>(std::count(alive.begin(), alive.end(), true));
    };
    return initializer.with_fans(fan(rows), fan(columns));
  }

  /// Before the dense matrix stands which values it was made of.
  template <class T>
  static constexpr std::size_t head = cache_line / sizeof(T);

  /// Memory seen as the dense matrix.
  template <class T>
  backend::Matrix<T> matrix(T* data) const {
    const backend::SparseLayout& l = weights_->layout;
    return {data, l.rows, l.columns, backend::row_stride<T>(l.columns)};
  }

  std::shared_ptr<SparseWeights> weights_;
};

}  // namespace layer

using layer::SparseDense;

}  // namespace tesla::inline TESLA_TARGET
