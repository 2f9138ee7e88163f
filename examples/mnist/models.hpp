// The networks of the MNIST example.
#pragma once

#include "options.hpp"

#include <tesla/tesla.hpp>

#include <string_view>
#include <vector>

/// A tensor-train layer, and 10 units.
inline tesla::Sequential new_tensor_train(const Options& options) {
  const bool even = options.ranks.rank() == 1;  // one rank for all
  tesla::Sequential model({.seed = options.seed});
  model.add_layer(tesla::TensorTrain({.in = options.in,
                                      .out = options.out,
                                      .rank = even ? options.ranks[0] : 0,
                                      .ranks = even ? tesla::Shape() : options.ranks,
                                      .activation = tesla::relu}));
  model.add_layer(tesla::Dense({.units = 10}));
  model.build({options.in.elements()});
  return model;
}

inline tesla::Sequential new_sparse(const Options& options) {
  const std::vector<double> density =
      options.method == "prune" ? std::vector<double>(3, 1.0)
                                : tesla::sparse::erdos_renyi({{300, 784}, {100, 300}, {10, 100}}, options.density);
  const tesla::sparse::Block block{options.block[0], options.block[1]};
  tesla::Sequential model({.seed = options.seed});
  model.add_layer(tesla::Input({784}));
  model.add_layer(tesla::SparseDense({.units = 300, .density = density[0], .block = block, .activation = tesla::relu}));
  model.add_layer(tesla::SparseDense({.units = 100, .density = density[1], .block = block, .activation = tesla::relu}));
  model.add_layer(tesla::SparseDense({.units = 10, .density = density[2]}));
  model.build({784});
  return model;
}

inline tesla::Sequential new_dense(const Options& options) {
  tesla::Sequential model({.seed = options.seed});
  model.add_layer(tesla::Input({784}));
  model.add_layer(tesla::Dense({.units = 300, .activation = tesla::relu, .initializer = tesla::init::he_normal}));
  model.add_layer(tesla::Dense({.units = 100, .activation = tesla::relu, .initializer = tesla::init::he_normal}));
  model.add_layer(tesla::Dense({.units = 10}));
  model.build({784});
  return model;
}

/// Two convolutions and a dense layer, the two large ones of the three as tensor-trains where wanted. The norms make
/// biases before them superfluous.
inline tesla::Sequential new_convolutional(const Options& options, bool tensor_trains) {
  const auto shrink = [](tesla::Sequential& model) {  // to half as many rows and columns
    model.add_layer(tesla::BatchNorm()).add_layer(tesla::ReLU()).add_layer(tesla::MaxPool2D({.pool = {2, 2}}));
  };
  const std::size_t rank = options.ranks[0];
  tesla::Sequential model({.seed = options.seed});
  model.add_layer(tesla::Input({28, 28, 1}));
  model.add_layer(tesla::Conv2D({.filters = 32,
                                 .kernel = {3, 3},
                                 .padding = tesla::same,
                                 .use_bias = false,
                                 .initializer = tesla::init::he_normal}));
  shrink(model);
  if (tensor_trains)
    model.add_layer(tesla::TensorTrainConv2D({.filters = 64,
                                              .kernel = {3, 3},
                                              .in = {4, 8},
                                              .out = {8, 8},
                                              .rank = rank,
                                              .padding = tesla::same,
                                              .use_bias = false}));
  else
    model.add_layer(tesla::Conv2D({.filters = 64,
                                   .kernel = {3, 3},
                                   .padding = tesla::same,
                                   .use_bias = false,
                                   .initializer = tesla::init::he_normal}));
  shrink(model);
  model.add_layer(tesla::Flatten());
  if (tensor_trains)
    model.add_layer(tesla::TensorTrain({.in = {7, 7, 8, 8},
                                        .out = {4, 4, 4, 2},
                                        .rank = rank,
                                        .activation = tesla::relu}));  // rows, columns, channels
  else
    model.add_layer(tesla::Dense({.units = 128, .activation = tesla::relu, .initializer = tesla::init::he_normal}));
  model.add_layer(tesla::Dropout({.rate = options.dropout}));
  model.add_layer(tesla::Dense({.units = 10}));
  model.build({28, 28, 1});
  return model;
}

inline tesla::Sequential new_model(const Options& options) {
  if (options.model == "tt") return new_tensor_train(options);
  if (options.model == "sparse") return new_sparse(options);
  if (options.convolutional()) return new_convolutional(options, options.model == "tt-cnn");
  return new_dense(options);
}

/// The weights of convolutions and dense layers, in whatever form, without biases and norms.
inline std::size_t count_weights(tesla::Sequential& model) {
  std::size_t count = 0;
  for (const auto& p : model.parameters()) {
    const std::string_view name = p.name();
    if (name.ends_with(".weight") || name.find(".core.") != name.npos) count += p.shape().elements();
  }
  return count;
}
