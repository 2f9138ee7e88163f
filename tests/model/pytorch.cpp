// Training steps, activations and losses give the numbers of PyTorch.
#include <reference/pytorch.hpp>
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace test_model_pytorch {

namespace {

using FloatOnCpu = tesla::BasicSequential<float, tesla::backend::Cpu>;
using DoubleOnCpu = tesla::BasicSequential<double, tesla::backend::Cpu>;
using DoubleOnReference = tesla::BasicSequential<double, tesla::backend::Reference>;

template <class Model>
constexpr double tolerance = sizeof(typename Model::Scalar) == sizeof(float) ? 1e-5 : 1e-10;

template <class T>
std::vector<T> values(const double* from, std::size_t count) {
  return {from, from + count};
}

template <class Model>
void compile(Model& model, const reference::TrainingCase& c) {
  const auto with_loss = [&](const auto& optimizer) {
    if (std::string(c.loss) == "mse")
      model.compile(optimizer, tesla::loss::MeanSquaredError());
    else
      model.compile(optimizer, tesla::loss::SparseCategoricalCrossEntropy());
  };
  const std::string optimizer = c.optimizer;
  if (optimizer == "sgd")
    with_loss(tesla::optim::SGD({.learning_rate = c.learning_rate,
                                 .momentum = c.momentum,
                                 .nesterov = c.nesterov,
                                 .weight_decay = c.weight_decay,
                                 .clip_norm = c.clip_norm}));
  else if (optimizer == "adam")
    with_loss(tesla::optim::Adam(
        {.learning_rate = c.learning_rate, .weight_decay = c.weight_decay, .clip_norm = c.clip_norm}));
  else
    with_loss(tesla::optim::AdamW(
        {.learning_rate = c.learning_rate, .weight_decay = c.weight_decay, .clip_norm = c.clip_norm}));
}

tesla::layer::NamedActivation activation_of(const std::string& name, double parameter) {
  for (std::size_t i = 0; i < tesla::layer::NamedActivation::names.size(); ++i)
    if (tesla::layer::NamedActivation::names[i] == name)
      return {static_cast<tesla::layer::NamedActivation::Function>(i), parameter};
  FAIL("no activation of the name " << name);
  return {};
}

/// One row of 0 and 1 for each sample: a dense layer then gives the columns of its weights.
template <class T>
std::vector<T> unit_rows(std::size_t count) {
  std::vector<T> x(count * count, T(0));
  for (std::size_t i = 0; i < count; ++i) x[i * count + i] = T(1);
  return x;
}

/// A matrix {rows, columns} turned over.
template <class T>
std::vector<T> transposed(const double* from, std::size_t rows, std::size_t columns) {
  std::vector<T> result(rows * columns);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c) result[c * rows + r] = static_cast<T>(from[r * columns + c]);
  return result;
}

/// The largest distance between a tensor {columns, rows} and a matrix {rows, columns}.
template <class T>
double distance_to_transposed(const tesla::Tensor<T>& tensor, const double* wanted, std::size_t rows,
                              std::size_t columns) {
  double worst = 0;
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c)
      worst = std::max(worst, std::fabs(static_cast<double>(tensor[c * rows + r]) - wanted[r * columns + c]));
  return worst;
}

/// What one step of plain gradient descent took off the weights: the gradient.
template <class Model, class Samples>
tesla::Tensor<typename Model::Scalar> gradient_of_step(Model& model, const Samples& samples, double& loss) {
  const auto before = model.parameters().front().value();
  loss = model.train_step(samples);
  auto gradient = model.parameters().front().value();
  for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] = before[i] - gradient[i];
  return gradient;
}

}  // namespace

TEMPLATE_TEST_CASE("ten training steps are PyTorch's", "[pytorch]", FloatOnCpu, DoubleOnCpu, DoubleOnReference) {
  using T = typename TestType::Scalar;
  constexpr std::size_t inputs = reference::layer_sizes[0], outputs = reference::layer_sizes[3];
  constexpr std::size_t batch = reference::batch;
  const auto x = values<T>(reference::inputs, reference::samples * inputs);
  const auto targets = values<T>(reference::targets, reference::samples * outputs);

  for (const reference::TrainingCase& c : reference::training_cases) {
    INFO(c.name);
    const auto activation = activation_of(c.activation, 0);
    TestType model;
    for (std::size_t i = 1; i < 4; ++i)
      model.add_layer(tesla::Dense({.units = static_cast<std::size_t>(reference::layer_sizes[i]),
                                    .activation = i < 3 ? activation : tesla::linear}));
    model.build({inputs});
    const double* initial = reference::initial_parameters;
    for (auto& p : model.parameters()) {
      p.assign(values<T>(initial, p.size()));
      initial += p.size();
    }
    REQUIRE(initial == reference::initial_parameters + reference::parameter_count);
    compile(model, c);

    for (std::size_t step = 0; step < reference::steps; ++step) {
      const std::size_t first = step % 2 * batch;
      const tesla::ArrayView rows(x.data() + first * inputs, {batch, inputs});
      const double loss =
          std::string(c.loss) == "mse"
              ? model.train_step(rows, tesla::ArrayView(targets.data() + first * outputs, {batch, outputs}))
              : model.train_step(rows, tesla::ArrayView(reference::labels + first, {batch}));
      INFO("step " << step);
      CHECK(loss == Approx(c.losses[step]).margin(tolerance<TestType>).epsilon(0));
    }
    double worst = 0;
    const double* wanted = c.parameters;
    for (const auto& p : model.parameters())
      for (const T value : p.value()) worst = std::max(worst, std::fabs(static_cast<double>(value) - *wanted++));
    CHECK(worst < tolerance<TestType>);
  }
}

TEMPLATE_TEST_CASE("activations and their gradients are PyTorch's", "[pytorch]", FloatOnCpu, DoubleOnCpu,
                   DoubleOnReference) {
  using T = typename TestType::Scalar;
  constexpr std::size_t rows = reference::activation_rows, columns = reference::activation_columns;
  const auto x = unit_rows<T>(rows);
  // The loss is the mean of prediction times target, so its gradient is the target over the number of values.
  std::vector<T> upstream = values<T>(reference::activation_upstream, rows * columns);
  for (T& value : upstream) value *= T(rows * columns);

  for (const reference::ActivationCase& c : reference::activation_cases) {
    const auto activation = activation_of(c.name, c.parameter);
    for (const bool as_layer : {false, true}) {
      INFO(c.name << (as_layer ? ", as a layer" : ", within Dense"));
      TestType model;
      model.add_layer(tesla::Dense(
          {.units = columns, .use_bias = false, .activation = as_layer ? tesla::linear : activation, .name = "dense"}));
      if (as_layer) model.add_layer(tesla::Activation(activation));
      model.build({rows});
      model.parameter("dense.weight").assign(transposed<T>(reference::activation_inputs, rows, columns));
      model.compile(tesla::optim::SGD({.learning_rate = 1}), tesla::loss::custom([](auto y, auto t) { return y * t; }));

      const auto y = model.predict(tesla::view(x, {rows, rows}));
      double worst = 0;
      for (std::size_t i = 0; i < y.size(); ++i)
        worst = std::max(worst, std::fabs(static_cast<double>(y[i]) - c.outputs[i]));
      CHECK(worst < tolerance<TestType>);

      double loss = 0;
      const tesla::data::Samples samples(tesla::view(x, {rows, rows}), tesla::view(upstream, {rows, columns}));
      const auto gradient = gradient_of_step(model, samples, loss);
      CHECK(distance_to_transposed(gradient, c.gradients, rows, columns) < tolerance<TestType>);
    }
  }
}

TEMPLATE_TEST_CASE("losses and their gradients are PyTorch's", "[pytorch]", FloatOnCpu, DoubleOnCpu,
                   DoubleOnReference) {
  using T = typename TestType::Scalar;
  constexpr std::size_t rows = reference::loss_rows, columns = reference::loss_columns;
  const auto x = unit_rows<T>(rows);

  for (const reference::LossCase& c : reference::loss_cases) {
    INFO(c.name << (c.weights == nullptr ? "" : ", weighted") << ", delta " << c.delta);
    TestType model;
    model.add_layer(tesla::Dense({.units = columns, .use_bias = false, .name = "dense"}));
    model.build({rows});
    model.parameter("dense.weight").assign(transposed<T>(c.predictions, rows, columns));
    const tesla::optim::SGD descent({.learning_rate = 1});
    const std::string name = c.name;
    const bool logits = name.ends_with("_logits");
    if (name == "mse") model.compile(descent, tesla::loss::MeanSquaredError());
    if (name == "mae") model.compile(descent, tesla::loss::MeanAbsoluteError());
    if (name == "huber") model.compile(descent, tesla::loss::Huber({.delta = c.delta}));
    if (name.starts_with("binary")) model.compile(descent, tesla::loss::BinaryCrossEntropy({.from_logits = logits}));
    if (name.starts_with("categorical"))
      model.compile(descent, tesla::loss::CategoricalCrossEntropy({.from_logits = logits}));
    if (name.starts_with("label"))
      model.compile(descent, tesla::loss::SparseCategoricalCrossEntropy({.from_logits = logits}));

    tesla::data::Samples samples(tesla::view(x, {rows, rows}), c.labels != nullptr
                                                                   ? tesla::ArrayView(c.labels, {rows})
                                                                   : tesla::ArrayView(c.targets, {rows, columns}));
    if (c.weights != nullptr) samples.weight = tesla::ArrayView(c.weights, {rows});
    CHECK(model.evaluate(samples)["loss"] == Approx(c.value).margin(tolerance<TestType>).epsilon(0));
    double loss = 0;
    const auto gradient = gradient_of_step(model, samples, loss);
    CHECK(loss == Approx(c.value).margin(tolerance<TestType>).epsilon(0));
    CHECK(distance_to_transposed(gradient, c.gradient, rows, columns) < tolerance<TestType>);
  }
}

}  // namespace test_model_pytorch
