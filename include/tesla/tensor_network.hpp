// A model by its dimensions: each layer is two cores with a bond between them.
#pragma once

#include <tesla/layer/input.hpp>
#include <tesla/layer/tensor_train.hpp>
#include <tesla/sequential.hpp>

#include <string>
#include <utility>

namespace tesla::inline TESLA_TARGET {

/// One layer of a TensorNetwork: y = f(W x + b), W being a core of input_dim x hidden_dim times one of hidden_dim x
/// output_dim. Where modes are given, W is a tensor-train over them, whose bonds are all of hidden_dim.
struct TensorLayerOptions {
  std::size_t input_dim = 0, hidden_dim = 0, output_dim = 0;
  layer::Activation activation = {};
  Shape input_modes = {}, output_modes = {};  // their products are the dimensions
  bool use_bias = true;
  init::Initializer initializer = init::orthogonal;  // of W
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

/// The first layer, and what is said of the model as a whole.
struct TensorNetworkOptions {
  std::size_t input_dim = 0, hidden_dim = 0, output_dim = 0;
  layer::Activation activation = {};
  Shape input_modes = {}, output_modes = {};
  bool use_bias = true;
  init::Initializer initializer = init::orthogonal;
  std::string name = {};
  std::uint64_t seed = 0;  // of the initial parameters
  bool checkpoint_gradients = false;
};

/// A BasicSequential whose first layer says what the input is: samples of input_dim numbers, in any shape.
template <class T, class B>
class BasicTensorNetwork : public BasicSequential<T, B> {
  using Base = BasicSequential<T, B>;

 public:
  /// Without layers yet.
  BasicTensorNetwork() = default;
  explicit BasicTensorNetwork(const TensorNetworkOptions& o) : Base(SequentialOptions{o.seed}) {
    add_layer(TensorLayerOptions{o.input_dim, o.hidden_dim, o.output_dim, o.activation, o.input_modes, o.output_modes,
                                 o.use_bias, o.initializer, o.name, o.checkpoint_gradients});
  }

  /// Adds a layer that takes what the one before gives.
  [[gnu::cold]] BasicTensorNetwork& add_layer(const TensorLayerOptions& options) {
    layer::TensorTrain layer = checked(options);
    if (this->network().entries().empty()) Base::add_layer(layer::Input({options.input_dim}));
    Base::add_layer(std::move(layer));
    last_ = options.output_dim;
    return *this;
  }
  /// Any other layer, branches of layers, or the layers of another model.
  template <layer::Part L>
  BasicTensorNetwork& add_layer(L layer) {
    Base::add_layer(std::move(layer));
    last_ = 0;
    return *this;
  }
  BasicTensorNetwork& add_layer(Base inner) {
    Base::add_layer(std::move(inner));
    last_ = 0;
    return *this;
  }

  static BasicTensorNetwork load(const std::string& path) {
    BasicTensorNetwork result;
    static_cast<Base&>(result) = Base::load(path);
    if (result.output_shape().rank() == 1) result.last_ = result.output_shape()[0];
    return result;
  }

 private:
  [[gnu::cold]] layer::TensorTrain checked(const TensorLayerOptions& o) {
    if (o.input_dim == 0 || o.hidden_dim == 0 || o.output_dim == 0)
      raise<UsageError>("TensorNetwork: a layer needs .input_dim, .hidden_dim and .output_dim to be 1 or more, not ",
                        o.input_dim, ", ", o.hidden_dim, " and ", o.output_dim);
    if (last_ != 0 && o.input_dim != last_)
      raise<ShapeError>("TensorNetwork: a layer with .input_dim = ", o.input_dim, " cannot follow \"",
                        this->network().entries().back().name, "\", which gives ", last_,
                        "; .input_dim has to be that number");
    layer::TensorTrainOptions train{.in = {o.input_dim, 1}, .out = {1, o.output_dim}};
    if (o.input_modes.rank() != 0 || o.output_modes.rank() != 0) {
      if (o.input_modes.rank() < 2 || o.input_modes.rank() != o.output_modes.rank())
        raise<ShapeError>("TensorNetwork: .input_modes and .output_modes need as many modes, 2 or more, not ",
                          o.input_modes, " and ", o.output_modes);
      if (o.input_modes.elements() != o.input_dim || o.output_modes.elements() != o.output_dim)
        raise<ShapeError>("TensorNetwork: modes ", o.input_modes, " to ", o.output_modes, " make ",
                          o.input_modes.elements(), " -> ", o.output_modes.elements(), ", not ", o.input_dim, " -> ",
                          o.output_dim);
      train.in = o.input_modes, train.out = o.output_modes;
    }
    train.rank = o.hidden_dim, train.use_bias = o.use_bias, train.activation = o.activation;
    train.initializer = o.initializer, train.name = o.name;
    train.checkpoint_gradients = o.checkpoint_gradients;
    return train;
  }

  std::size_t last_ = 0;  // what the last layer gives; 0 where only build() can tell
};

using TensorNetwork = BasicTensorNetwork<float, backend::Cpu>;

}  // namespace tesla::inline TESLA_TARGET
