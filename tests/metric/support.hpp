// What tests of metrics share.
#pragma once

#include <tesla/sequential.hpp>

#include <vector>

namespace metric_test {

/// A model whose outputs are its inputs.
inline tesla::Sequential identity(std::size_t features) {
  tesla::Sequential model;
  model.add_layer(
      tesla::Dense({.units = features, .use_bias = false, .initializer = tesla::init::zeros, .name = "copy"}));
  model.build({features});
  std::vector<float> weight(features * features);
  for (std::size_t i = 0; i < features; ++i) weight[i * features + i] = 1;
  model.parameter("copy.weight").assign(weight);
  return model;
}

}  // namespace metric_test
