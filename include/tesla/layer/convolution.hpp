// Convolutions of images and signals: y = f(W * x + b).
#pragma once

#include <tesla/layer/activation.hpp>
#include <tesla/layer/window.hpp>
#include <tesla/network/on_host.hpp>

#include <optional>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct Conv2DOptions {
  std::size_t filters = 0;
  Extents kernel = {3, 3};  // rows, columns
  Padding padding = {};     // tesla::valid, tesla::same, {rows, columns} or {top, bottom, left, right}
  Extents stride = {1, 1};
  Extents dilation = {1, 1};
  std::size_t groups = 1;  // each group of filters reads its own group of channels; as many as channels: depthwise
  bool use_bias = true;
  Activation activation = {};
  init::Initializer initializer = init::glorot_uniform;
  init::Initializer bias_initializer = init::zeros;
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

struct Conv1DOptions {
  std::size_t filters = 0;
  std::size_t kernel = 3;
  Padding padding = {};  // tesla::valid, tesla::same or {before, after}
  std::size_t stride = 1;
  std::size_t dilation = 1;
  std::size_t groups = 1;
  bool use_bias = true;
  Activation activation = {};
  init::Initializer initializer = init::glorot_uniform;
  init::Initializer bias_initializer = init::zeros;
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

namespace detail {

/// What is derived from the filters and kept: behind a head that says from which values it was made.
template <class T>
inline constexpr std::size_t filters_head = cache_line / sizeof(T);

[[gnu::cold]] inline void check_filters(std::size_t filters, std::size_t groups, std::size_t channels) {
  if (filters == 0) raise<UsageError>("needs .filters, the number of output channels, to be 1 or more");
  if (groups == 0 || channels % groups != 0 || filters % groups != 0)
    raise<UsageError>("has .groups = ", groups, ", which has to divide its ", channels, " input channels and its ",
                      filters, " filters");
}

/// What a layer that keeps what its kernels make of its filters needs for that.
template <class T, class B>
MemoryNeed convolution_memory(const backend::Convolution& g, std::size_t batch, bool training) {
  MemoryNeed need = B::template convolution_memory<T>(g, batch, training);
  if (need.kept != 0) need.kept += filters_head<T>;
  return need;
}

/// What the kernels make of the filters, made again only if these changed.
template <class T, class B>
const T* prepared_filters(Pass<T, B>& pass, const backend::Convolution& g, backend::Matrix<T> w, std::size_t batch) {
  if (pass.kept_memory.empty()) return nullptr;
  T* const prepared = pass.kept_memory.data() + filters_head<T>;
  if (!network::made_before<B>(pass.kept_memory.data(), pass.stamps))
    pass.backend.prepare_filters(g, w, batch, prepared);
  return prepared;
}

/// What a convolution needs for max pooling inside it, if that can be.
template <class T, class B>
std::optional<PoolingNeed> pooling_need(const backend::Convolution& g, const Activation& activation,
                                        const backend::Convolution& pool, std::size_t batch, bool training) {
  if (activation.function != Activation::Function::linear && !activation.grows()) return {};
  if constexpr (requires { typename B::template PooledConvolve<T>; }) {
    using Pooled = typename B::template PooledConvolve<T>;
    if (Pooled::applies(g, pool)) return PoolingNeed{Pooled(g, pool).whole_size(batch, training)};
  }
  return {};
}

/// y = f(W * x + b), with what the gradient of f wants in the first of the layer's kept panels; or the largest of each
/// window of that.
template <class T, class B>
void convolve(Pass<T, B>& pass, const backend::Convolution& g, backend::Matrix<T> w, const T* prepared,
              Panels<const T> x, Panels<T> y, const T* bias, const Activation& activation) {
  if constexpr (requires { typename B::template PooledConvolve<T>; })
    if (pass.pool != nullptr) {
      const auto run = [&](const auto& f) {
        typename B::template PooledConvolve<T>(g, *pass.pool)
            .forward(w, prepared, x, y, pass.training ? pass.kept[0] : Panels<T>(), bias, B::template in_place<T>(f),
                     pass.whole);
      };
      (pass.moved_activation != nullptr ? *pass.moved_activation : Activation()).visit(run);
      return;
    }
  const bool keep = !activation.from_output() && pass.training;
  const Panels<T> z = keep ? pass.kept[0] : y;
  const Activation f = pass.activation_moved ? Activation() : activation;
  const auto run = [&](const auto& function) { pass.backend.convolve(g, w, prepared, x, y, bias, function); };
  if (!keep && f.visit(run)) return;
  pass.backend.convolve(g, w, prepared, x, z, bias);
  f.apply(pass.backend, Panels<const T>(z), y, g.filters);
}

/// The gradients of filters, bias (null: none) and input (null: not wanted); dy becomes the one at what f was given.
template <class T, class B>
void convolution_gradients(Pass<T, B>& pass, const backend::Convolution& g, backend::Matrix<T> w, Panels<const T> x,
                           Panels<const T> y, Panels<T> dy, Panels<T> dx, backend::Matrix<T> dw, T* bias,
                           const Activation& activation, T* scratch) {
  const Panels<const T> upstream = dy;
  if (pass.normalised && bias != nullptr) {
    pass.backend.fill(bias, g.filters, T(0));
    bias = nullptr;
  }
  if constexpr (requires { typename B::template PooledConvolve<T>; })
    if (pass.pool != nullptr) {
      if (pass.moved_activation != nullptr) pass.moved_activation->gradient(pass.backend, y, upstream, dy, g.filters);
      typename B::template PooledConvolve<T>(g, *pass.pool)
          .backward(w, Panels<const T>(pass.kept[0]), upstream, x, dw, bias, dx, pass.whole, scratch);
      return;
    }
  const Panels<const T> kept = activation.from_output() ? y : Panels<const T>(pass.kept[0]);
  if (activation.function != Activation::Function::linear && !pass.activation_moved)
    activation.gradient(pass.backend, kept, upstream, dy, g.filters);
  pass.backend.convolve_filters(g, upstream, x, dw, bias, scratch);
  if (dx) pass.backend.convolve_input(g, w, upstream, dx, scratch);
}

/// Both kinds, by the rank of their samples.
template <class Options, std::size_t Rank>
struct Convolving : Options {
  static constexpr bool activation_can_move = true, takes_affine = true;

  Convolving() = default;
  Convolving(Options options) : Options(std::move(options)) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    const auto [rows, columns, channels] = image_extents(in, Rank);
    check_filters(this->filters, this->groups, channels);
    this->activation.check();
    if constexpr (Rank == 3) {
      geometry.rows = window_axis(rows, this->kernel[0], this->stride[0], this->dilation[0], this->padding, 0, "rows");
      geometry.columns =
          window_axis(columns, this->kernel[1], this->stride[1], this->dilation[1], this->padding, 2, "columns");
    } else {
      geometry.columns =
          window_axis(columns, this->kernel, this->stride, this->dilation, signal_padding(this->padding), 0, "steps");
    }
    geometry.channels = channels, geometry.filters = this->filters, geometry.groups = this->groups;
    const std::size_t fan_in = geometry.depth();
    Shape shape{this->filters, geometry.rows.kernel, geometry.columns.kernel, geometry.group_channels()};
    if (Rank == 2) shape = {this->filters, geometry.columns.kernel, geometry.group_channels()};
    if (initial && !(initial->at(0).shape() == shape))
      raise<ShapeError>("was made with weights of shape ", initial->at(0).shape(), ", but needs ", shape);
    Setup::Parameter& weight = setup.parameter("weight", shape, this->initializer, {this->filters, fan_in},
                                               initial ? &initial->at(0) : nullptr);
    weight.initializer = this->initializer.with_fans(static_cast<double>(fan_in),
                                                     static_cast<double>(geometry.taps() * geometry.group_filters()));
    if (this->use_bias)
      setup.parameter("bias", {this->filters}, this->bias_initializer, {this->filters},
                      initial && initial->size() > 1 ? &initial->at(1) : nullptr);
    if (!this->activation.from_output()) setup.keep(geometry.out_features());
    if (Rank == 2) return {geometry.columns.out, this->filters};
    return {geometry.rows.out, geometry.columns.out, this->filters};
  }

  template <class T, class B>
  MemoryNeed memory(std::size_t batch, bool training) const {
    return convolution_memory<T, B>(geometry, batch, training);
  }

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    const T* const bias = pass.bias(1, this->use_bias);
    const T* const prepared = prepared_filters(pass, geometry, pass.weight(0), x.batch);
    convolve(pass, geometry, pass.weight(0), prepared, x, y, bias, this->activation);
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const {
    convolution_gradients(pass, geometry, pass.weight(0), x, Panels<const T>(y), dy, dx, pass.slots[0].gradient,
                          this->use_bias ? pass.slots[1].gradient.data : nullptr, this->activation,
                          pass.scratch.data());
  }

  template <class T, class B>
  std::optional<PoolingNeed> pooling_need(const backend::Convolution& pool, std::size_t batch, bool training) const {
    return detail::pooling_need<T, B>(geometry, this->activation, pool, batch, training);
  }

  void fields(auto&& field) {
    field("filters", this->filters);
    field("kernel", this->kernel);
    field("padding", this->padding);
    field("stride", this->stride);
    field("dilation", this->dilation);
    field("groups", this->groups);
    field("use_bias", this->use_bias);
    field("activation", this->activation);
    field("initializer", this->initializer);
    field("bias_initializer", this->bias_initializer);
  }

  std::shared_ptr<const Values> initial = {};  // weights, and the bias where there is one, instead of initialisers
  backend::Convolution geometry;               // once set up
};

}  // namespace detail

/// Images of {height, width, channels}; weights are {filters, rows, columns, channels of a group}.
struct Conv2D : detail::Convolving<Conv2DOptions, 3> {
  static constexpr std::string_view kind = "Conv2D";
  Conv2D() = default;
  Conv2D(Conv2DOptions options) : Convolving(std::move(options)) {}
};

/// Signals of {length, channels}; weights are {filters, taps, channels of a group}.
struct Conv1D : detail::Convolving<Conv1DOptions, 2> {
  static constexpr std::string_view kind = "Conv1D";
  Conv1D() = default;
  Conv1D(Conv1DOptions options) : Convolving(std::move(options)) {}
};

}  // namespace layer

using layer::Conv1D;
using layer::Conv2D;

}  // namespace tesla::inline TESLA_TARGET
