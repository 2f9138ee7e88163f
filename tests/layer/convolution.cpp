// Convolutions as layers: gradients with every kind of option, and both backends.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <layer/training_checks.hpp>

namespace test_layer_convolution {

using namespace tesla;
using namespace layer_test;

namespace {

const auto swish = [](auto x) { return x / (1 + exp(-x)); };

struct Image {
  const char* what;
  Shape in;
  layer::Conv2DOptions options;
};
std::vector<Image> images() {
  std::vector<Image> result = {
      {"valid", {6, 5, 3}, {.filters = 4}},
      {"same", {5, 6, 3}, {.filters = 4, .padding = same, .activation = tesla::tanh}},
      {"same, an even kernel, strides", {7, 6, 2}, {.filters = 3, .kernel = {2, 4}, .padding = same, .stride = {2, 3}}},
      {"two sides", {5, 5, 2}, {.filters = 5, .kernel = {3, 2}, .padding = {2, 1}, .activation = softplus}},
      {"four sides", {4, 5, 2}, {.filters = 3, .padding = {0, 2, 1, 3}, .stride = {1, 2}, .activation = elu}},
      {"dilation", {8, 9, 2}, {.filters = 3, .padding = {2, 0}, .dilation = {2, 3}, .activation = sigmoid}},
      {"stride and dilation", {9, 9, 2}, {.filters = 3, .padding = same, .stride = {2, 2}, .dilation = {2, 2}}},
      {"groups", {5, 5, 6}, {.filters = 4, .groups = 2, .activation = gelu}},
      {"groups, strides", {6, 5, 6}, {.filters = 9, .padding = same, .stride = {2, 1}, .groups = 3}},
      {"depthwise", {5, 6, 5}, {.filters = 5, .padding = same, .groups = 5, .activation = relu}},
      {"two filters a channel", {5, 6, 3}, {.filters = 6, .stride = {2, 2}, .groups = 3, .activation = gelu}},
      {"one pixel", {3, 4, 7}, {.filters = 6, .kernel = {1, 1}, .activation = softmax}},
      {"no bias", {5, 5, 2}, {.filters = 3, .padding = same, .use_bias = false, .activation = log_softmax}},
      {"custom", {5, 5, 2}, {.filters = 3, .padding = same, .activation = activation(swish)}},
      {"custom, no bias", {5, 5, 2}, {.filters = 3, .use_bias = false, .activation = activation(swish)}},
      {"leaky, as large as the image", {4, 3, 2}, {.filters = 3, .kernel = {4, 3}, .activation = leaky_relu}},
  };
  for (Image& image : result) image.options.bias_initializer = init::normal(0.3);
  return result;
}

struct Signal {
  const char* what;
  Shape in;
  layer::Conv1DOptions options;
};
std::vector<Signal> signals() {
  std::vector<Signal> result = {
      {"valid", {9, 3}, {.filters = 4, .activation = gelu}},
      {"same", {8, 2}, {.filters = 3, .kernel = 4, .padding = same, .stride = 2}},
      {"two sides", {7, 2}, {.filters = 5, .padding = {3, 1}, .activation = tesla::tanh}},
      {"dilation", {11, 2}, {.filters = 3, .padding = {0, 2}, .stride = 2, .dilation = 3, .activation = softmax}},
      {"groups", {6, 6}, {.filters = 4, .groups = 2, .activation = activation(swish)}},
      {"depthwise, no bias", {6, 5}, {.filters = 5, .padding = same, .groups = 5, .use_bias = false}},
  };
  for (Signal& signal : result) signal.options.bias_initializer = init::normal(0.3);
  return result;
}

const auto behind = [](const auto& options) {
  return [options](auto& model) {
    if constexpr (std::is_same_v<std::decay_t<decltype(options)>, layer::Conv2DOptions>)
      model.add_layer(Conv2D(options));
    else
      model.add_layer(Conv1D(options));
  };
};

}  // namespace

TEMPLATE_TEST_CASE("gradients: convolutions of images and signals", "[layer][gradients]", backend::Reference,
                   backend::Cpu) {
  for (const std::size_t batch : {1, 5, 70}) {
    for (const Image& image : images()) {
      INFO(image.what << ", batch " << batch);
      check_training_gradients<TestType>(image.in, batch, behind(image.options));
    }
    for (const Signal& signal : signals()) {
      INFO(signal.what << ", batch " << batch << ", a signal");
      check_training_gradients<TestType>(signal.in, batch, behind(signal.options));
    }
  }
}

TEST_CASE("convolutions: both backends train alike", "[layer]") {
  for (const std::size_t batch : {1, 5, 70}) {
    for (const Image& image : images()) {
      INFO(image.what << ", batch " << batch);
      check_backends_agree(image.in, batch, behind(image.options));
    }
    for (const Signal& signal : signals()) {
      INFO(signal.what << ", batch " << batch << ", a signal");
      check_backends_agree(signal.in, batch, behind(signal.options));
    }
  }
}

TEST_CASE("convolutions: samples without channels get a hint that compiles", "[layer]") {
  using Catch::Matchers::Contains;
  CHECK_THAT(complaint(Conv2D({.filters = 2}), {28, 20}), Contains("Input({28, 20, 1})"));
  CHECK_THAT(complaint(Conv2D({.filters = 2}), {784}), Contains("Input({28, 28, 1})") && Contains("Reshape"));
  CHECK_THAT(complaint(Conv2D({.filters = 2}), {17}), Contains("as in Input({28, 28, 1})"));
  CHECK_THAT(complaint(Conv1D({.filters = 2}), {17}), Contains("Input({17, 1})"));
  CHECK_THAT(complaint(Conv1D({.filters = 2}), {4, 4, 1}), !Contains("Input("));
  CHECK_THAT(complaint(Conv2D({.filters = 2, .kernel = {9, 3}}), {4, 4, 1}), Contains("a smaller .kernel"));
}

TEST_CASE("a signal is an image of one row", "[layer]") {
  Sequential one({.seed = 3}), two({.seed = 3});
  one.add_layer(Conv1D({.filters = 4, .kernel = 3, .padding = {2, 1}, .stride = 2, .activation = gelu}));
  two.add_layer(
      Conv2D({.filters = 4, .kernel = {1, 3}, .padding = {0, 0, 2, 1}, .stride = {1, 2}, .activation = gelu}));
  Tensor<float> signals({6, 9, 2}), images({6, 1, 9, 2});
  random::fill_normal(signals, {.seed = 1});
  std::copy(signals.begin(), signals.end(), images.begin());
  const auto y = one.predict(signals), z = two.predict(images);
  CHECK(y.shape() == Shape{6, 5, 4});
  CHECK(z.shape() == Shape{6, 1, 5, 4});
  CHECK(std::equal(y.begin(), y.end(), z.begin()));
  CHECK(one.parameter("conv1d.weight").shape() == Shape{4, 3, 2});
  CHECK(two.parameter("conv2d.weight").shape() == Shape{4, 1, 3, 2});
}

TEST_CASE("filters are drawn by what they read, and by what their group writes", "[layer]") {
  const auto limit_of = [](std::size_t groups, const init::Initializer& initializer) {
    Sequential model(Conv2D({.filters = 256, .kernel = {3, 3}, .groups = groups, .initializer = initializer}));
    model.build({8, 8, 64});
    float largest = 0;
    for (const float w : model.parameter("conv2d.weight").value()) largest = std::max(largest, std::abs(w));
    return static_cast<double>(largest);
  };
  for (const std::size_t groups : {1, 4, 64}) {
    const auto inputs = static_cast<double>(9 * 64 / groups), outputs = static_cast<double>(9 * 256 / groups);
    CHECK(limit_of(groups, init::glorot_uniform) == Approx(std::sqrt(6 / (inputs + outputs))).epsilon(0.01));
    CHECK(limit_of(groups, init::he_uniform) == Approx(std::sqrt(6 / inputs)).epsilon(0.01));
  }
}

}  // namespace test_layer_convolution
