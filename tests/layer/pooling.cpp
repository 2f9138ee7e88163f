// Pooling as layers: gradients, both backends, numbers by hand, and activations that run behind it.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <layer/training_checks.hpp>

namespace test_layer_pooling {

using namespace tesla;
using namespace layer_test;

namespace {

/// Calls f with a name, a shape and what adds the layers.
template <class F>
void for_each_pool(const F& f) {
  const auto images = [&](const char* what, const Shape& in, const layer::Pool2DOptions& o) {
    f(what, in, [=](auto& model) { model.add_layer(MaxPool2D(o)); });
    f(what, in, [=](auto& model) { model.add_layer(AveragePool2D(o)); });
  };
  const auto signals = [&](const char* what, const Shape& in, const layer::Pool1DOptions& o) {
    f(what, in, [=](auto& model) { model.add_layer(MaxPool1D(o)); });
    f(what, in, [=](auto& model) { model.add_layer(AveragePool1D(o)); });
  };
  images("apart", {4, 6, 3}, {});
  images("apart, some inputs left", {5, 7, 2}, {.pool = {2, 3}});
  images("shared", {5, 6, 3}, {.pool = {3, 2}, .stride = {1, 1}});
  images("shared, padded", {6, 5, 2}, {.pool = {3, 3}, .stride = {2, 2}, .padding = same});
  images("two sides", {5, 5, 2}, {.pool = {3, 2}, .stride = {2, 1}, .padding = {2, 1}});
  images("four sides", {4, 4, 2}, {.pool = {3, 3}, .stride = {2, 3}, .padding = {0, 2, 1, 1}});
  images("gaps", {7, 5, 2}, {.pool = {2, 1}, .stride = {3, 2}});
  signals("apart", {8, 3}, {});
  signals("shared", {7, 2}, {.pool = 3, .stride = 2, .padding = {2, 1}});
  for (const Shape& in : {Shape{3, 4, 5}, Shape{7, 3}}) {
    f("all", in, [](auto& model) { model.add_layer(GlobalMaxPool()); });
    f("all", in, [](auto& model) { model.add_layer(GlobalAveragePool()); });
  }
}

/// Activations that grow with their input, which pooling may come before, and some that do not.
const std::vector<Activation> activations = {
    relu,    leaky_relu, Activation({elu.function, 0.7}),         sigmoid, tesla::tanh, softplus, gelu,
    softmax, linear,     activation([](auto x) { return x * x; })};

/// Losses, parameters and predictions of two steps on images.
template <class B, class F>
std::vector<double> trained(std::size_t batch, const F& add, bool probed = true) {
  const Shape in{7, 6, 2};
  Model<B> model(SequentialOptions{.seed = 5});
  if (probed) model.add_layer(Probe());
  add(model);
  model.build(in);
  Tensor<double> x(batch_shape(batch, in)), y({batch, model.output_shape().elements()});
  random::fill_normal(x, {.seed = 1});
  random::fill_normal(y, {.seed = 2});
  model.compile(optim::SGD({.learning_rate = 0.1}), loss::MeanSquaredError());
  std::vector<double> result;
  for (int step = 0; step < 2; ++step) result.push_back(model.train_step(x, y));
  for (const auto& p : model.parameters())
    for (const double v : p.value()) result.push_back(v);
  for (const double v : model.predict(x)) result.push_back(v);
  return result;
}

void check_same(const std::vector<double>& found, const std::vector<double>& wanted) {
  REQUIRE(found.size() == wanted.size());
  double worst = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i)
    worst = std::max(worst, std::abs(found[i] - wanted[i]) / (1 + std::abs(wanted[i])));
  CHECK(worst < 1e-12);
}

}  // namespace

TEMPLATE_TEST_CASE("gradients: pooling", "[layer][gradients]", backend::Reference, backend::Cpu) {
  for (const std::size_t batch : {1, 5, 70})
    for_each_pool([&](const char* what, const Shape& in, const auto& add) {
      INFO(what << ", batch " << batch);
      check_training_gradients<TestType>(in, batch, add);
    });
}

TEST_CASE("pooling: both backends train alike", "[layer]") {
  for (const std::size_t batch : {1, 5, 70})
    for_each_pool([&](const char* what, const Shape& in, const auto& add) {
      INFO(what << ", batch " << batch);
      check_backends_agree(in, batch, add);
    });
}

TEST_CASE("pooling: padding is neither the largest nor counted", "[layer]") {
  const Tensor<float> x({1, 3, 3, 1}, {-1, -2, -3, -4, -5, -6, -7, -8, -9});
  const auto pooled = [&](const auto& pool) {
    Sequential model(pool);
    const auto y = model.predict(x);
    return std::vector<float>(y.begin(), y.end());
  };
  const layer::Pool2DOptions options{.pool = {2, 2}, .stride = {2, 2}, .padding = {1, 0, 1, 0}};
  CHECK(pooled(MaxPool2D(options)) == std::vector<float>{-1, -2, -4, -5});
  CHECK(pooled(AveragePool2D(options)) == std::vector<float>{-1, -2.5F, -5.5F, -7});
  CHECK(pooled(GlobalAveragePool()) == std::vector<float>{-5});
  CHECK(pooled(GlobalMaxPool()) == std::vector<float>{-1});
}

TEST_CASE("pooling: complaints name its options", "[layer]") {
  using Catch::Matchers::Contains;
  CHECK_THAT(complaint(MaxPool2D({.pool = {3, 3}}), {1, 5, 1}), Contains("a smaller .pool") && !Contains(".kernel"));
  CHECK_THAT(complaint(AveragePool1D({.pool = 0}), {5, 1}), Contains("needs a .pool") && !Contains(".kernel"));
  CHECK_THAT(complaint(MaxPool2D(), {784}), Contains("Input({28, 28, 1})"));
  CHECK_THAT(complaint(GlobalMaxPool(), {3072}), Contains("Input({32, 32, 3})"));
}

TEMPLATE_TEST_CASE("an activation before pooling gives what it gives elsewhere", "[layer][gradients]",
                   backend::Reference, backend::Cpu) {
  for (const Activation& f : activations)
    for (const std::size_t batch : {1, 70}) {
      INFO(f.function_name() << ", batch " << batch);
      const layer::Conv2DOptions plain{.filters = 3, .bias_initializer = init::normal(0.3), .name = "first"};
      layer::Conv2DOptions ending = plain;
      ending.activation = f;
      const MaxPool2D pool({.pool = {3, 2}, .stride = {1, 2}});
      const auto inside = [&](auto& model) { model.add_layer(Conv2D(ending)).add_layer(pool); };
      const auto between = [&](auto& model) { model.add_layer(Conv2D(plain)).add_layer(f).add_layer(pool); };
      const auto apart = [&](auto& model) {
        model.add_layer(Conv2D(plain)).add_layer(f).add_layer(Copy()).add_layer(pool);
      };
      check_training_gradients<TestType>({7, 6, 2}, batch, inside);
      check_training_gradients<TestType>({7, 6, 2}, batch, between);
      const auto wanted = trained<TestType>(batch, apart);
      check_same(trained<TestType>(batch, inside), wanted);
      check_same(trained<TestType>(batch, between), wanted);
    }
}

TEMPLATE_TEST_CASE("an activation moves behind pooling from any place", "[layer]", backend::Reference, backend::Cpu) {
  const auto check = [](const auto& moved, const auto& held) {
    for (const std::size_t batch : {1, 5, 70})
      for (const bool probed : {true, false})
        check_same(trained<TestType>(batch, moved, probed), trained<TestType>(batch, held, probed));
  };
  // First of all, behind layers of other kinds, two after each other, and pools after each other.
  check(
      [](auto& m) { m.add_layer(Tanh()).add_layer(GlobalMaxPool()).add_layer(Dense({.units = 2})); },
      [](auto& m) { m.add_layer(Tanh()).add_layer(Copy()).add_layer(GlobalMaxPool()).add_layer(Dense({.units = 2})); });
  check(
      [](auto& m) {
        m.add_layer(BatchNorm()).add_layer(LeakyReLU({.slope = 0.2})).add_layer(MaxPool2D());
        m.add_layer(Flatten()).add_layer(Dense({.units = 3}));
      },
      [](auto& m) {
        m.add_layer(BatchNorm()).add_layer(LeakyReLU({.slope = 0.2})).add_layer(Copy()).add_layer(MaxPool2D());
        m.add_layer(Flatten()).add_layer(Dense({.units = 3}));
      });
  check(
      [](auto& m) {
        m.add_layer(Conv2D({.filters = 3, .activation = tesla::tanh})).add_layer(ELU()).add_layer(MaxPool2D());
      },
      [](auto& m) {
        m.add_layer(Conv2D({.filters = 3, .activation = tesla::tanh})).add_layer(Copy()).add_layer(ELU());
        m.add_layer(Copy()).add_layer(MaxPool2D());
      });
  check(
      [](auto& m) {
        m.add_layer(Conv2D({.filters = 3, .activation = relu})).add_layer(MaxPool2D({.stride = {1, 1}}));
        m.add_layer(Conv2D({.filters = 2, .kernel = {2, 2}, .activation = softplus})).add_layer(GlobalMaxPool());
      },
      [](auto& m) {
        m.add_layer(Conv2D({.filters = 3, .activation = relu})).add_layer(Copy());
        m.add_layer(MaxPool2D({.stride = {1, 1}}));
        m.add_layer(Conv2D({.filters = 2, .kernel = {2, 2}, .activation = softplus})).add_layer(Copy());
        m.add_layer(GlobalMaxPool());
      });
}

}  // namespace test_layer_pooling
