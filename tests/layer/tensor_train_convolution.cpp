// Convolutions of tensor-trains against the convolutions they stand for.
#include <tesla/tesla.hpp>

#include <io/temporary_folder.hpp>
#include <layer/checks.hpp>

namespace test_layer_tensor_train_convolution {

using namespace layer_test;

TEMPLATE_TEST_CASE("tensor-train convolution: gradients", "[layer]", backend::Cpu, backend::Reference) {
  const std::vector<layer::TensorTrainConv2DOptions> all = {
      {.filters = 6, .in = {2, 2}, .out = {3, 2}, .rank = 3, .padding = same},
      {.filters = 6, .kernel = {2, 3}, .in = {4}, .out = {6}, .ranks = {5}, .stride = {2, 1}, .activation = gelu},
      {.filters = 8, .in = {2, 1, 2}, .out = {2, 2, 2}, .ranks = {2, 3, 4}, .dilation = {1, 2}, .activation = relu},
      {.filters = 6, .kernel = {1, 1}, .in = {2, 2}, .out = {2, 3}, .rank = 8, .use_bias = false},
      // One channel, or one filter: the train is a product of two matrices, which TensorTrain lays out in its own way.
      {.filters = 6, .in = {1}, .out = {6}, .rank = 3, .padding = same},
      {.filters = 1, .in = {4}, .out = {1}, .rank = 2}};
  for (const layer::TensorTrainConv2DOptions& options : all)
    for (const std::size_t batch : {1u, 5u, 70u}) {
      const std::size_t channels = options.in.elements();
      CAPTURE(batch, channels);
      Model<TestType> model({.seed = 5});
      model.add_layer(Dense({.units = 6 * 5 * channels, .activation = tesla::tanh}))
          .add_layer(Reshape({6, 5, channels}))
          .add_layer(TensorTrainConv2D(options))
          .add_layer(Flatten())
          .add_layer(Dense({.units = 3}));
      check_gradients(std::move(model), 4, 3, batch);
    }
}

TEST_CASE("tensor-train convolution: made from a convolution, and saved", "[layer]") {
  BasicSequential<double, backend::Reference> dense({.seed = 2});
  dense.add_layer(Input({7, 6, 8}))
      .add_layer(Conv2D({.filters = 12, .padding = same, .activation = relu, .name = "c"}));
  dense.build({7, 6, 8});
  Tensor<double> x({3, 7, 6, 8});
  random::fill_normal(x, {.seed = 1});
  const Tensor<double> expected = dense.predict(x);

  const TensorTrainConv2D exact =
      TensorTrainConv2D::from(dense.layer<Conv2D>("c"), {.in = {4, 2}, .out = {3, 4}, .name = "tt"});
  Sequential model;
  model.add_layer(Input({7, 6, 8})).add_layer(exact);
  const Tensor<float> y = model.predict(Tensor<float>(x.shape(), std::vector<float>(x.begin(), x.end())));
  for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(std::abs(static_cast<double>(y[i]) - expected[i]) < 1e-5);

  // Of the ranks that are left the error is what the singular values say: it falls with them.
  double last = 1e9;
  for (const std::size_t rank : {1u, 3u, 6u, 9u}) {
    BasicSequential<double, backend::Reference> low;
    low.add_layer(Input({7, 6, 8}))
        .add_layer(TensorTrainConv2D::from(dense.layer<Conv2D>("c"), {.in = {4, 2}, .out = {3, 4}, .rank = rank}));
    const Tensor<double> z = low.predict(x);
    double error = 0;
    for (std::size_t i = 0; i < z.size(); ++i) error += (z[i] - expected[i]) * (z[i] - expected[i]);
    REQUIRE(error < last);
    last = error;
  }

  const TemporaryFolder folder;
  model.save(folder.path("m"));
  Sequential again = Sequential::load(folder.path("m"));
  const Tensor<float> same_y = again.predict(Tensor<float>(x.shape(), std::vector<float>(x.begin(), x.end())));
  REQUIRE(std::equal(y.begin(), y.end(), same_y.begin()));
  REQUIRE_THAT(model.plan(32), Catch::Matchers::Contains("made of the cores"));
}

TEST_CASE("tensor-train convolution: what does not fit is said", "[layer]") {
  using Catch::Matchers::Contains;
  const Shape image{5, 5, 4};
  REQUIRE_THAT(complaint(TensorTrainConv2D({.filters = 6, .in = {3}, .out = {6}, .rank = 2}), image),
               Contains("4 input channels"));
  REQUIRE_THAT(complaint(TensorTrainConv2D({.filters = 6, .in = {2, 2}, .out = {6}, .rank = 2}), image),
               Contains(".out modes"));
  REQUIRE_THAT(complaint(TensorTrainConv2D({.filters = 6, .in = {2, 2}, .out = {3, 2}}), image), Contains(".rank"));
  REQUIRE_THAT(
      complaint(TensorTrainConv2D({.filters = 6, .kernel = {9, 9}, .in = {2, 2}, .out = {3, 2}, .rank = 2}), image),
      Contains(".kernel"));

  Sequential dense;
  dense.add_layer(Conv2D({.filters = 4, .name = "c"})).add_layer(Conv2D({.filters = 4, .groups = 2, .name = "g"}));
  dense.build({9, 9, 2});
  const auto said = [&](const char* name, const layer::TensorTrainConv2DOptions& options) {
    try {
      TensorTrainConv2D::from(dense.layer<Conv2D>(name), options);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  REQUIRE_THAT(said("c", {.in = {2, 2}, .out = {2, 2}}), Contains("from: ") && Contains("2 input channels"));
  REQUIRE_THAT(said("c", {.in = {2, 1}, .out = {4}}), Contains(".out modes {4}") && Contains("4 filters"));
  REQUIRE_THAT(said("c", {.in = {2, 1}, .out = {2, 2}, .ranks = {1}}), Contains(".ranks {1}"));
  REQUIRE_THAT(said("g", {.in = {2, 2}, .out = {2, 2}}), Contains("has 2 groups"));
}

}  // namespace test_layer_tensor_train_convolution
