// Max pooling that runs inside the convolution or the batch norm before it, against the same layers one by one.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <layer/training_checks.hpp>

namespace test_layer_pooling_inside {

using namespace layer_test;

namespace {

struct Case {
  Shape in;
  layer::Conv2DOptions convolution;
  layer::Pool2DOptions pool;
};
const std::vector<Case> cases = {
    {{10, 9, 1}, {.filters = 5, .activation = relu}, {}},
    {{10, 9, 1}, {.filters = 6, .padding = same, .activation = leaky_relu}, {.pool = {3, 2}}},
    {{9, 40, 3}, {.filters = 7, .kernel = {2, 3}}, {.pool = {2, 3}, .stride = {3, 4}}},
    {{11, 10, 2}, {.filters = 26, .stride = {2, 1}, .activation = tesla::tanh}, {.pool = {1, 2}}},
    {{12, 12, 2}, {.filters = 4, .dilation = {2, 3}, .use_bias = false, .activation = elu}, {}},
    {{8, 8, 17}, {.filters = 33, .padding = {1, 0, 2, 1}, .activation = sigmoid}, {.pool = {2, 2}}},
    // These cannot run inside: windows that share outputs, padding, groups, activations that do not grow.
    {{8, 8, 4}, {.filters = 4, .activation = relu}, {.pool = {3, 3}, .stride = {2, 2}}},
    {{8, 8, 4}, {.filters = 4, .activation = relu}, {.padding = {1, 1}}},
    {{8, 8, 4}, {.filters = 4, .groups = 2, .activation = relu}, {}},
    {{8, 8, 4}, {.filters = 4, .activation = gelu}, {}},
};

/// Losses of some steps, and predictions, with a second convolution behind.
template <class Model, class T>
std::vector<double> trained(const Case& c, std::size_t batch, bool apart, bool activation_apart) {
  Model model({.seed = 3});
  layer::Conv2DOptions first = c.convolution;
  if (activation_apart) first.activation = {};
  model.add_layer(Input(c.in)).add_layer(Conv2D(first));
  if (activation_apart) model.add_layer(c.convolution.activation);
  if (apart) model.add_layer(Copy());
  model.add_layer(MaxPool2D(c.pool)).add_layer(Conv2D({.filters = 24, .kernel = {2, 1}, .activation = relu}));
  if (apart) model.add_layer(Copy());
  model.add_layer(MaxPool2D({.pool = {1, 2}})).add_layer(Flatten()).add_layer(Dense({.units = 3}));
  model.compile(optim::SGD({.learning_rate = 0.1}), loss::MeanSquaredError());
  Tensor<T> x({batch, c.in[0], c.in[1], c.in[2]}), y({batch, 3});
  random::fill_normal(x, {.seed = 1}), random::fill_normal(y, {.seed = 2});
  std::vector<double> numbers;
  for (int step = 0; step < 3; ++step) numbers.push_back(static_cast<double>(model.train_step(x, y)));
  for (const auto& p : model.parameters())
    for (const auto v : p.value()) numbers.push_back(static_cast<double>(v));
  for (const auto v : model.predict(x)) numbers.push_back(static_cast<double>(v));
  for (const auto v : model.predict(x, {.batch_size = 1})) numbers.push_back(static_cast<double>(v));
  return numbers;
}

double difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

}  // namespace

TEST_CASE("pooling inside a convolution: what the layers do one by one", "[layer]") {
  using Exact = BasicSequential<double, backend::Reference>;
  for (std::size_t k = 0; k < cases.size(); ++k)
    for (const std::size_t batch : {1, 2, 17, 64, 70, 130}) {
      CAPTURE(k, batch);
      const auto expected = trained<Exact, double>(cases[k], batch, true, false);
      using Double = BasicSequential<double, backend::Cpu>;
      for (const bool activation_apart : {false, true}) {
        CAPTURE(activation_apart);
        CHECK(difference(trained<Double, double>(cases[k], batch, false, activation_apart), expected) < 1e-11);
      }
      CHECK(difference(trained<Sequential, float>(cases[k], batch, false, false), expected) < 2e-4);
    }
}

TEST_CASE("pooling inside a convolution: the same bits at any number of threads", "[layer]") {
  set_threads(1);
  const auto expected = trained<Sequential, float>(cases[1], 130, false, false);
  for (const int threads : {2, 3, 4}) {
    set_threads(threads);
    CHECK(trained<Sequential, float>(cases[1], 130, false, false) == expected);
  }
  set_threads(0);
}

TEST_CASE("pooling inside a convolution: all kinds of convolutions and pooling", "[layer]") {
  const auto check = [](const auto& add) {
    for (const std::size_t batch : {1, 5, 70}) check_backends_agree({8, 6, 4}, batch, add);
  };
  check([](auto& model) {
    model.add_layer(TensorTrainConv2D({.filters = 6, .in = {2, 2}, .out = {3, 2}, .rank = 3, .activation = relu}))
        .add_layer(MaxPool2D());
  });
  check([](auto& model) {
    model.add_layer(Reshape({48, 4})).add_layer(Conv1D({.filters = 5, .activation = softplus})).add_layer(MaxPool1D());
  });
  check([](auto& model) { model.add_layer(Conv2D({.filters = 5})).add_layer(MaxPool2D()); });
  check([](auto& model) { model.add_layer(Conv2D({.filters = 5, .activation = relu})).add_layer(GlobalMaxPool()); });
  check([](auto& model) {  // the convolution is read twice
    model.add_layer(Conv2D({.filters = 4, .padding = same}))
        .add_layer(Residual(Conv2D({.filters = 4, .padding = same, .activation = relu})))
        .add_layer(MaxPool2D());
  });
}

TEST_CASE("pooling inside batch norm: what the layers do one by one", "[layer]") {
  const auto check = [](const Shape& in, const layer::BatchNormOptions& norm, const layer::Pool2DOptions& pool,
                        const auto& before_pool) {
    const auto numbers = [&](auto model, bool apart, std::size_t batch) {
      using T = typename decltype(model)::Scalar;
      model.add_layer(Input(in)).add_layer(Conv2D({.filters = 5, .kernel = {2, 2}})).add_layer(BatchNorm(norm));
      before_pool(model);
      if (apart) model.add_layer(Copy());
      model.add_layer(MaxPool2D(pool)).add_layer(Flatten()).add_layer(Dense({.units = 3}));
      model.build(in);
      for (auto& p : model.parameters())  // so that some channels fall with their input
        if (p.name().find("scale") != std::string::npos || p.name().find("shift") != std::string::npos) {
          Tensor<T> moved(p.shape());
          random::fill_normal(moved, {.seed = 8});
          moved[1] = T(0);
          p.assign(moved);
        }
      model.compile(optim::SGD({.learning_rate = 0.01}), loss::MeanSquaredError());
      Tensor<T> x({batch, in[0], in[1], in[2]}), y({batch, 3});
      random::fill_normal(x, {.seed = 1}), random::fill_normal(y, {.seed = 2});
      std::vector<double> result;
      for (int step = 0; step < 2; ++step) result.push_back(static_cast<double>(model.train_step(x, y)));
      for (const auto& p : model.parameters())
        for (const auto v : p.value()) result.push_back(static_cast<double>(v));
      for (const auto v : model.predict(x)) result.push_back(static_cast<double>(v));
      return result;
    };
    for (const std::size_t batch : {1, 2, 17, 70, 130}) {
      CAPTURE(batch);
      const auto expected = numbers(BasicSequential<double, backend::Reference>({.seed = 4}), true, batch);
      CHECK(difference(numbers(BasicSequential<double, backend::Cpu>({.seed = 4}), false, batch), expected) < 1e-9);
      CHECK(difference(numbers(Sequential({.seed = 4}), false, batch), expected) < 5e-3);
    }
  };
  check({7, 9, 2}, {}, {}, [](auto&) {});
  check({7, 8, 1}, {.use_scale = false}, {.pool = {3, 2}}, [](auto& m) { m.add_layer(LeakyReLU()); });
  check({9, 8, 2}, {.use_shift = false}, {.pool = {2, 2}, .stride = {3, 4}},
        [](auto& m) { m.add_layer(Activation(tesla::tanh)); });
  check({7, 8, 1}, {}, {.pool = {3, 3}, .stride = {2, 2}},
        [](auto& m) { m.add_layer(Activation(relu)); });                                      // not inside
  check({7, 8, 1}, {}, {.padding = {1, 1}}, [](auto& m) { m.add_layer(Activation(relu)); });  // nor this
  check({7, 8, 1}, {}, {}, [](auto& m) { m.add_layer(Activation(gelu)); });                   // nor this
}

TEST_CASE("pooling inside a convolution: the image of the outputs is not kept", "[layer]") {
  const auto memory = [](bool apart) {
    Sequential model;
    model.add_layer(Input({64, 64, 1})).add_layer(Conv2D({.filters = 32, .activation = relu}));
    if (apart) model.add_layer(Copy());
    model.add_layer(MaxPool2D()).add_layer(GlobalAveragePool());
    model.build({64, 64, 1});
    return model.network().workspace_size(64, true, 0);
  };
  CHECK(memory(false) * 2 < memory(true));
}

}  // namespace test_layer_pooling_inside
