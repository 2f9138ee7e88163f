// What tests of layers share.
#pragma once

#include <tesla/sequential.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

namespace layer_test {

using namespace tesla;

template <class B>
using Model = BasicSequential<double, B>;

/// The gradient of every parameter, which a step of gradient descent at rate 1 shows, against differences of the loss.
template <class B>
void check_gradients(Model<B> model, const Tensor<double>& x, std::size_t out) {
  const std::size_t batch = x.shape()[0];
  Tensor<double> y({batch, out});
  random::fill_normal(y, {.seed = 2});
  model.compile(optim::SGD({.learning_rate = 1}), loss::MeanSquaredError());
  std::vector<Tensor<double>> before;
  for (const auto& p : model.parameters()) before.push_back(p.value());
  model.train_step(x, y);
  std::vector<Tensor<double>> after;
  for (const auto& p : model.parameters()) after.push_back(p.value());
  auto parameters = model.parameters();
  for (std::size_t i = 0; i < before.size(); ++i) parameters[i].assign(before[i]);
  double largest = 0;
  for (std::size_t i = 0; i < before.size(); ++i)
    for (std::size_t k = 0; k < before[i].size(); k += 1 + before[i].size() / 20) {
      constexpr double step = 1e-5;
      const auto loss_at = [&](double value) {
        Tensor<double> moved = before[i];
        moved[k] = value;
        parameters[i].assign(moved);
        return model.evaluate(x, y, {.batch_size = batch})["loss"];
      };
      const double expected = (loss_at(before[i][k] + step) - loss_at(before[i][k] - step)) / (2 * step);
      parameters[i].assign(before[i]);
      const double gradient = before[i][k] - after[i][k];
      largest = std::max(largest, std::abs(gradient));
      CAPTURE(parameters[i].name(), k, gradient, expected);
      REQUIRE(std::abs(gradient - expected) <= 1e-8 * (1 + std::abs(expected)));
    }
  REQUIRE(largest > 1e-5);
}
template <class B>
void check_gradients(Model<B> model, std::size_t in, std::size_t out, std::size_t batch) {
  Tensor<double> x({batch, in});
  random::fill_normal(x, {.seed = 1});
  model.build({in});
  check_gradients(std::move(model), x, out);
}

/// What building a model of this one layer says is wrong.
template <class Layer>
std::string complaint(const Layer& layer, const Shape& input) {
  Sequential model;
  model.add_layer(layer);
  try {
    model.build(input);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace layer_test
