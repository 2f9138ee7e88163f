// Networks of convolutions, pooling and norms: outputs, gradients, training steps and predictions are PyTorch's.
#include <reference/layers.hpp>
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

namespace test_model_layers_pytorch {

using namespace tesla;

namespace {

using FloatOnCpu = BasicSequential<float, backend::Cpu>;
using DoubleOnCpu = BasicSequential<double, backend::Cpu>;
using DoubleOnReference = BasicSequential<double, backend::Reference>;

/// The networks of layers.py; returns the shape of a sample.
template <class Model>
Shape add_layers(Model& model, const std::string& name) {
  if (name == "batch_norm_and_pooling") {
    model.add_layer(Conv2D({.filters = 4, .padding = same, .use_bias = false}));
    model.add_layer(BatchNorm({.momentum = 0.75}));
    model.add_layer(LeakyReLU({.slope = 0.1}));
    model.add_layer(MaxPool2D());
    model.add_layer(Conv2D({.filters = 5, .kernel = {2, 2}, .activation = relu}));
    model.add_layer(MaxPool2D({.pool = {2, 3}, .stride = {1, 1}}));
    model.add_layer(Flatten());
    model.add_layer(Dense({.units = 3}));
    return {8, 9, 2};
  }
  if (name == "strides_and_groups") {
    model.add_layer(
        Conv2D({.filters = 8, .padding = {1, 0, 2, 1}, .stride = {2, 1}, .groups = 2, .activation = tesla::tanh}));
    model.add_layer(LayerNorm());
    model.add_layer(Conv2D({.filters = 8, .padding = same, .dilation = {1, 2}, .groups = 8, .activation = gelu}));
    model.add_layer(AveragePool2D({.pool = {2, 3}, .stride = {1, 2}, .padding = {1, 1}}));
    model.add_layer(GroupNorm({.groups = 4}));
    model.add_layer(GlobalAveragePool());
    model.add_layer(Dense({.units = 3}));
    return {9, 8, 4};
  }
  model.add_layer(Conv1D({.filters = 6, .padding = same, .dilation = 2}));
  model.add_layer(RMSNorm());
  model.add_layer(
      Conv1D({.filters = 4, .kernel = 4, .padding = {2, 1}, .stride = 2, .use_bias = false, .activation = elu}));
  model.add_layer(MaxPool1D({.pool = 3, .stride = 2, .padding = {1, 1}}));
  model.add_layer(BatchNorm());
  model.add_layer(AveragePool1D({.pool = 2, .stride = 1}));
  model.add_layer(GlobalMaxPool());
  model.add_layer(Dense({.units = 4}));
  return {17, 3};
}

template <class Model>
struct Trained {
  const reference::LayerCase& c;
  Model model = Model();
  Shape in = add_layers(model, c.name);
  std::vector<typename Model::Scalar> x{c.inputs, c.inputs + static_cast<std::size_t>(c.samples) * in.elements()};

  void begin() {
    model.build(in);
    const double* initial = c.initial_parameters;
    for (auto& p : model.parameters()) {
      p.assign(std::vector<typename Model::Scalar>(initial, initial + p.size()));
      initial += p.size();
    }
    REQUIRE(initial == c.initial_parameters + c.parameter_count);
  }
  void compile(const auto& optimizer) {
    if (c.labels != nullptr)
      model.compile(optimizer, loss::SparseCategoricalCrossEntropy());
    else
      model.compile(optimizer, loss::MeanSquaredError());
  }
  ArrayView rows(std::size_t first, std::size_t count) const {
    std::vector<std::size_t> extents{count};
    for (std::size_t i = 0; i < in.rank(); ++i) extents.push_back(in[i]);
    return {x.data() + first * in.elements(), Shape(std::span<const std::size_t>(extents))};
  }
  double step(std::size_t number) {
    const auto batch = static_cast<std::size_t>(c.batch), classes = static_cast<std::size_t>(c.classes);
    const std::size_t first = number % 2 * batch;
    return c.labels != nullptr
               ? model.train_step(rows(first, batch), ArrayView(c.labels + first, {batch}))
               : model.train_step(rows(first, batch), ArrayView(c.targets + first * classes, {batch, classes}));
  }
  /// The largest distance between the model's outputs and wanted ones, relative to the larger of these and 1.
  double distance_of_outputs(const double* wanted) {
    double worst = 0;
    for (const auto value : model.predict(rows(0, static_cast<std::size_t>(c.samples))))
      worst = std::max(worst, distance(static_cast<double>(value), *wanted++));
    return worst;
  }
  static double distance(double found, double wanted) {
    return std::abs(found - wanted) / std::max(1.0, std::abs(wanted));
  }
};

}  // namespace

TEMPLATE_TEST_CASE("networks of convolutions, pooling and norms are PyTorch's", "[pytorch]", FloatOnCpu, DoubleOnCpu,
                   DoubleOnReference) {
  // Ten steps carry the rounding of single precision on.
  constexpr bool single = sizeof(typename TestType::Scalar) == sizeof(float);
  constexpr double tolerance = single ? 1e-5 : 1e-10, after_steps = single ? 2e-4 : 1e-9;
  for (const reference::LayerCase& c : reference::layer_cases) {
    INFO(c.name);
    {
      Trained<TestType> t{c};
      t.begin();
      CHECK(t.distance_of_outputs(c.outputs) < tolerance);
      t.compile(optim::SGD({.learning_rate = 1}));
      t.step(0);
      double worst = 0;
      const double *before = c.initial_parameters, *gradient = c.gradients;
      std::size_t i = 0;
      for (const auto& p : t.model.parameters()) {
        const bool learned = t.model.network().store().places()[i++].learned;
        for (const auto value : p.value()) {
          const double found = *before++ - static_cast<double>(value);
          worst = std::max(worst, learned ? Trained<TestType>::distance(found, *gradient) : 0);
          ++gradient;
        }
      }
      CHECK(worst < tolerance);
    }
    Trained<TestType> t{c};
    t.begin();
    const std::string name = c.name;
    if (name == "batch_norm_and_pooling") t.compile(optim::SGD({.learning_rate = 0.05, .momentum = 0.9}));
    if (name == "strides_and_groups") t.compile(optim::Adam({.learning_rate = 0.01}));
    if (name == "signals") t.compile(optim::SGD({.learning_rate = 0.1}));
    for (int step = 0; step < c.steps; ++step) {
      INFO("step " << step);
      CHECK(t.step(static_cast<std::size_t>(step)) == Approx(c.losses[step]).margin(after_steps).epsilon(0));
    }
    double worst = 0;
    const double* wanted = c.parameters;
    for (const auto& p : t.model.parameters())
      for (const auto value : p.value())
        worst = std::max(worst, Trained<TestType>::distance(static_cast<double>(value), *wanted++));
    CHECK(worst < after_steps);
    CHECK(t.distance_of_outputs(c.predictions) < after_steps);
  }
}

}  // namespace test_model_layers_pytorch
