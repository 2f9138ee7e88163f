// The fully connected layer: y = f(W x + b).
#pragma once

#include <tesla/layer/activation.hpp>
#include <tesla/layer/layer.hpp>
#include <tesla/layer/products.hpp>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct DenseOptions {
  std::size_t units = 0;
  bool use_bias = true;
  Activation activation = {};
  init::Initializer initializer = init::glorot_uniform;
  init::Initializer bias_initializer = init::zeros;
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

/// Weights are {units, inputs}.
struct Dense : DenseOptions {
  static constexpr std::string_view kind = "Dense";
  static constexpr bool takes_affine = true;

  Dense() = default;
  Dense(DenseOptions options) : DenseOptions(std::move(options)) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) const {
    if (units == 0) raise<UsageError>("needs .units, the number of outputs, to be 1 or more");
    if (in.rank() != 1 || in[0] == 0)
      raise<ShapeError>("expects one extent of features, its input has shape ", in, "; put a Flatten layer before it");
    activation.check();
    if (initial && !(initial->at(0).shape() == Shape{units, in[0]}))
      raise<ShapeError>("was made with weights of shape ", initial->at(0).shape(), ", but needs ", Shape{units, in[0]});
    setup.parameter("weight", {units, in[0]}, initializer, {units, in[0]}, initial ? &initial->at(0) : nullptr);
    if (use_bias)
      setup.parameter("bias", {units}, bias_initializer, {units},
                      initial && initial->size() > 1 ? &initial->at(1) : nullptr);
    if (!activation.from_output()) setup.keep(units);
    setup.sum_products();
    return {units};
  }

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    const bool keep = !activation.from_output() && pass.training;
    const Panels<T> z = keep ? pass.kept[0] : y;
    const backend::Matrix<T> w = pass.weight(0);
    backend::Product<T> p = output_product(w, x, z);
    p.bias = pass.bias(1, use_bias);
    if (!keep && activation.visit([&](const auto& f) { pass.backend.multiply(p, f); })) return;
    pass.backend.multiply(p);
    activation.apply(pass.backend, Panels<const T>(z), y, units);
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const {
    const backend::Matrix<T> w = pass.weight(0);
    const Panels<const T> kept = activation.from_output() ? y : pass.kept[0], upstream = dy;
    activation.gradient_with_bias(pass, kept, dy, units, use_bias, 1);
    if (dx) pass.backend.multiply(input_product(w, upstream, dx));
    pass.sum_products(0, upstream, x);
  }

  void fields(auto&& field) {
    field("units", units);
    field("use_bias", use_bias);
    field("activation", activation);
    field("initializer", initializer);
    field("bias_initializer", bias_initializer);
  }

  std::shared_ptr<const Values> initial = {};  // weights, and the bias where there is one, instead of initialisers
};

}  // namespace layer

using layer::Dense;

}  // namespace tesla::inline TESLA_TARGET
