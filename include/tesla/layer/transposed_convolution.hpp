// The adjoint of a convolution: every input pixel adds a small image to the output, `.stride` apart, so images grow.
#pragma once

#include <tesla/layer/convolution.hpp>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct TransposedConv2DOptions {
  std::size_t filters = 0;
  Extents kernel = {2, 2};
  Padding padding = {};  // what is cut off; tesla::same: the output is `stride` times as large as the input
  Extents stride = {2, 2};
  Extents dilation = {1, 1};
  std::size_t groups = 1;
  bool use_bias = true;
  Activation activation = {};
  init::Initializer initializer = init::glorot_uniform;
  init::Initializer bias_initializer = init::zeros;
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

/// Images of {height, width, channels}; weights are {channels, rows, columns, filters of a group}.
struct TransposedConv2D : TransposedConv2DOptions {
  static constexpr std::string_view kind = "TransposedConv2D";

  TransposedConv2D() = default;
  TransposedConv2D(TransposedConv2DOptions options) : TransposedConv2DOptions(std::move(options)) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    const auto [rows, columns, channels] = detail::image_extents(in, 3);
    detail::check_filters(filters, groups, channels);
    activation.check();
    geometry_.rows = axis(rows, 0, "rows"), geometry_.columns = axis(columns, 1, "columns");
    // The convolution whose adjoint this is goes from the output to the input.
    geometry_.channels = filters, geometry_.filters = channels, geometry_.groups = groups;
    const Shape shape{channels, kernel[0], kernel[1], filters / groups};
    Setup::Parameter& weight = setup.parameter("weight", shape, initializer, {channels, geometry_.depth()});
    weight.initializer = initializer.with_fans(static_cast<double>(geometry_.taps() * geometry_.group_filters()),
                                               static_cast<double>(geometry_.depth()));
    if (use_bias) setup.parameter("bias", {filters}, bias_initializer);
    if (!activation.from_output()) setup.keep(geometry_.in_features());
    return {geometry_.rows.in, geometry_.columns.in, filters};
  }

  template <class T, class B>
  MemoryNeed memory(std::size_t batch, bool) const {
    return detail::convolution_memory<T, B>(geometry_, batch, true);
  }

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    const bool keep = !activation.from_output() && pass.training;
    const Panels<T> z = keep ? pass.kept[0] : y;
    const Panels<const T> plain = z;
    pass.backend.convolve_input(geometry_, pass.weight(0), x, z, pass.scratch.data());
    if (use_bias) pass.map([](auto a, auto b) { return a + b; }, z, plain, pass.parameter(1));
    if (keep || activation.function != Activation::Function::linear) activation.apply(pass.backend, plain, y, filters);
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const {
    const Panels<const T> kept = activation.from_output() ? Panels<const T>(y) : pass.kept[0], upstream = dy;
    activation.gradient_with_bias(pass, kept, dy, filters, use_bias, 1);
    pass.backend.convolve_filters(geometry_, x, upstream, pass.slots[0].gradient, static_cast<T*>(nullptr),
                                  pass.scratch.data());
    if (!dx) return;
    const T* const prepared = detail::prepared_filters(pass, geometry_, pass.weight(0), x.batch);
    pass.backend.convolve(geometry_, pass.weight(0), prepared, upstream, dx, static_cast<const T*>(nullptr));
  }

  void fields(auto&& field) {
    field("filters", filters);
    field("kernel", kernel);
    field("padding", padding);
    field("stride", stride);
    field("dilation", dilation);
    field("groups", groups);
    field("use_bias", use_bias);
    field("activation", activation);
    field("initializer", initializer);
    field("bias_initializer", bias_initializer);
  }

 private:
  /// Of the convolution from the output to the input.
  [[gnu::cold]] backend::ConvolutionAxis axis(std::size_t in, std::size_t which, const char* what) const {
    const std::size_t k = kernel[which], s = stride[which], d = dilation[which];
    // What a kernel, a stride and a dilation may be is known there; one pixel always fits.
    detail::window_axis(checked_product(std::max<std::size_t>(k, 1), std::max<std::size_t>(d, 1)), k, s, d, {}, 0,
                        what);
    const std::size_t reach = (k - 1) * d + 1, all = checked_product(in - 1, s) + reach;
    std::size_t out = all, before = 0;
    if (padding.kind == Padding::Kind::same) {
      out = checked_product(in, s), before = all > out ? (all - out) / 2 : 0;
    } else if (padding.kind == Padding::Kind::sides) {
      const std::size_t cut = padding.sides[2 * which] + padding.sides[2 * which + 1];
      if (cut >= all || cut < padding.sides[2 * which])
        raise<ShapeError>("cuts off ", cut, ' ', what, " by its .padding, of ", all);
      out = all - cut, before = padding.sides[2 * which];
    }
    return {out, in, k, s, d, before};
  }

  backend::Convolution geometry_;
};

}  // namespace layer

using layer::TransposedConv2D;

}  // namespace tesla::inline TESLA_TARGET
