// The gradients of whole models against central differences.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>

namespace test_layer_gradients {

using namespace tesla;

namespace {

constexpr std::size_t inputs = 6, outputs = 4;
const std::vector<std::size_t> batches = {1, 3, 64, 70};

const auto swish = [](auto x) { return x / (1 + exp(-x)); };

/// Every activation, by the name it is reported under.
std::vector<Activation> activations() {
  return {linear,
          relu,
          Activation({leaky_relu.function, 0.2}),
          Activation({elu.function, 0.7}),
          gelu,
          sigmoid,
          tesla::tanh,
          softplus,
          softmax,
          log_softmax,
          activation(swish)};
}

template <class B>
using Model = BasicSequential<double, B>;

template <class B>
std::vector<std::vector<double>> values(Model<B>& model) {
  std::vector<std::vector<double>> result;
  for (const auto& p : model.parameters()) {
    const Tensor<double> v = p.value();
    result.emplace_back(v.begin(), v.end());
  }
  return result;
}

/// Compares the gradient of every parameter, which a step of gradient descent at rate 1 shows, with differences of the
/// loss.
template <class B, class L>
void check_gradients(Model<B> model, const L& loss, std::size_t batch, bool weighted = false) {
  INFO("loss " << L::kind << ", batch " << batch << ", weighted " << weighted);
  Tensor<double> x({batch, inputs}), targets({batch, outputs}), weights({batch});
  Tensor<std::int32_t> labels({batch});
  random::fill_normal(x, {.seed = 1});
  random::fill_uniform(targets, {.seed = 2, .low = 0.05, .high = 0.95});
  random::fill_uniform(weights, {.seed = 3, .low = 0, .high = 2});
  for (std::size_t i = 0; i < batch; ++i) labels[i] = static_cast<std::int32_t>(i * 7 % outputs);
  data::Samples samples(x, targets);
  if (loss.targets() != loss::Targets::values) samples.y = labels;
  if (weighted) samples.weight = weights;

  if (!model.network().built()) model.build({inputs});
  model.compile(optim::SGD({.learning_rate = 1}), loss);
  const auto evaluated = [&] { return model.evaluate(samples, {.batch_size = batch})["loss"]; };
  const auto before = values(model);
  const double at_first = evaluated();
  REQUIRE(model.train_step(samples) == Approx(at_first).epsilon(1e-12));
  const auto after = values(model);
  auto parameters = model.parameters();
  for (std::size_t i = 0; i < before.size(); ++i) parameters[i].assign(before[i]);
  REQUIRE(evaluated() == at_first);

  double size = 0;
  for (std::size_t i = 0; i < before.size(); ++i)
    for (std::size_t k = 0; k < before[i].size(); ++k) {
      constexpr double step = 1e-5;
      const auto loss_at = [&](double value) {
        std::vector<double> moved = before[i];
        moved[k] = value;
        parameters[i].assign(moved);
        return evaluated();
      };
      const double expected = (loss_at(before[i][k] + step) - loss_at(before[i][k] - step)) / (2 * step);
      parameters[i].assign(before[i]);
      const double gradient = before[i][k] - after[i][k];
      size = std::max(size, std::abs(gradient));
      if (std::abs(gradient - expected) <= 1e-8 * (1 + std::abs(expected))) continue;
      FAIL(parameters[i].name() << "[" << k << "]: gradient " << gradient << ", by differences " << expected);
    }
  REQUIRE(size > 1e-4);
}

layer::DenseOptions dense(std::size_t units, Activation activation = {}, bool use_bias = true) {
  return {.units = units, .use_bias = use_bias, .activation = activation, .bias_initializer = init::normal(0.3)};
}

}  // namespace

TEMPLATE_TEST_CASE("gradients: dense layers with every activation", "[layer][gradients]", backend::Reference,
                   backend::Cpu) {
  for (const Activation& f : activations())
    for (const bool use_bias : {true, false})
      for (const std::size_t batch : batches) {
        INFO(f.function_name() << ", bias " << use_bias);
        Model<TestType> model(SequentialOptions{.seed = 5});
        model.add_layer(Dense(dense(5, f, use_bias)));
        model.add_layer(Dense(dense(outputs, f, use_bias)));
        check_gradients(std::move(model), loss::MeanSquaredError(), batch);
      }
}

TEMPLATE_TEST_CASE("gradients: activations as layers, first, between and last", "[layer][gradients]",
                   backend::Reference, backend::Cpu) {
  const std::vector<Activation> layers = {
      ReLU(),       LeakyReLU({.slope = 0.2}), ELU({.alpha = 0.7}), GELU(), Sigmoid(), Tanh(), Softplus(), Softmax(),
      LogSoftmax(), activation(swish)};
  for (const Activation& f : layers)
    for (const std::size_t batch : batches) {
      INFO(f.function_name());
      Model<TestType> model(SequentialOptions{.seed = 6});
      model.add_layer(f);
      model.add_layer(Dense(dense(5)));
      model.add_layer(f);
      model.add_layer(Dense(dense(outputs)));
      model.add_layer(f);
      check_gradients(std::move(model), loss::MeanSquaredError(), batch);
    }
}

TEMPLATE_TEST_CASE("gradients: shapes that are only seen in another way", "[layer][gradients]", backend::Reference,
                   backend::Cpu) {
  for (const std::size_t batch : batches) {
    Model<TestType> model(Input({2, 3}), Flatten(), Dense(dense(7, tesla::tanh)), Flatten(), Dense(dense(outputs)));
    model.build({2, 3});
    check_gradients(std::move(model), loss::MeanSquaredError(), batch);
  }
}

TEMPLATE_TEST_CASE("gradients: every loss, with and without weights", "[layer][loss][gradients]", backend::Reference,
                   backend::Cpu) {
  for (const std::size_t batch : batches)
    for (const bool weighted : {false, true}) {
      const auto check = [&](const Activation& last, const auto& loss) {
        Model<TestType> model(Dense(dense(5, gelu)), Dense(dense(outputs, last)));
        check_gradients(std::move(model), loss, batch, weighted);
      };
      check(linear, loss::MeanSquaredError());
      check(linear, loss::MeanAbsoluteError());
      check(linear, loss::Huber());
      check(linear, loss::Huber({.delta = 0.3}));
      check(linear, loss::BinaryCrossEntropy());
      check(sigmoid, loss::BinaryCrossEntropy({.from_logits = false}));
      check(linear, loss::CategoricalCrossEntropy());
      check(softmax, loss::CategoricalCrossEntropy({.from_logits = false}));
      check(linear, loss::SparseCategoricalCrossEntropy());
      check(softmax, loss::SparseCategoricalCrossEntropy({.from_logits = false}));
      check(linear, loss::custom([](auto y, auto t) {
              const auto d = y - t;
              return d * d * d * d + log(1 + d * d);
            }));
    }
}

TEMPLATE_TEST_CASE("gradients: sizes beyond a tile", "[layer][gradients]", backend::Reference, backend::Cpu) {
  for (const std::size_t batch : {1, 70}) {
    Model<TestType> model(Dense(dense(37, tesla::tanh)), Dense(dense(19, gelu)), Dense(dense(outputs)));
    check_gradients(std::move(model), loss::SparseCategoricalCrossEntropy(), batch);
  }
}

}  // namespace test_layer_gradients
