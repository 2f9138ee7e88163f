// Normalisations that are folded into the weights before them for predictions, against the same layers one by one.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <io/temporary_folder.hpp>
#include <layer/training_checks.hpp>

namespace test_layer_folding {

using namespace layer_test;

namespace {

/// Predictions after some steps of training, and after some more.
template <class M, class F>
std::vector<double> predictions(const Shape& in, std::size_t batch, bool apart, const F& add) {
  M model({.seed = 3});
  model.add_layer(Input(in));
  add(model, [&] {
    if (apart) model.add_layer(Copy());
  });
  model.add_layer(Flatten()).add_layer(Dense({.units = 3}));
  model.compile(optim::SGD({.learning_rate = 0.02}), loss::MeanSquaredError());
  Tensor<typename M::Scalar> x(batch_shape(batch, in)), y({batch, 3});
  random::fill_normal(x, {.seed = 1}), random::fill_normal(y, {.seed = 2});
  std::vector<double> result;
  for (int round = 0; round < 2; ++round) {
    for (int step = 0; step < 2; ++step) model.train_step(x, y);
    for (const std::size_t size : {batch, std::size_t{1}})
      for (const auto v : model.predict(x, {.batch_size = size})) result.push_back(static_cast<double>(v));
  }
  return result;
}

template <class F>
void check(const Shape& in, const F& add) {
  for (const std::size_t batch : {2, 17, 70}) {
    CAPTURE(batch, in);
    const auto expected = predictions<Model<backend::Reference>>(in, batch, true, add);
    const auto agrees = [&](const std::vector<double>& found, double tolerance) {
      double worst = 0;
      for (std::size_t i = 0; i < expected.size(); ++i) worst = std::max(worst, std::abs(found[i] - expected[i]));
      CHECK(worst < tolerance);
    };
    agrees(predictions<Model<backend::Reference>>(in, batch, false, add), 1e-10);
    agrees(predictions<Model<backend::Cpu>>(in, batch, false, add), 1e-10);
    agrees(predictions<Sequential>(in, batch, false, add), 1e-3);
  }
}

}  // namespace

TEST_CASE("folding: predictions are those of the layers one by one", "[layer]") {
  check({7},
        [](auto& model, auto apart) { model.add_layer(Dense({.units = 6})), apart(), model.add_layer(BatchNorm()); });
  check({7}, [](auto& model, auto apart) {
    model.add_layer(Dense({.units = 6, .use_bias = false})), apart(), model.add_layer(BatchNorm({.use_scale = false}));
    model.add_layer(Activation(relu)).add_layer(Dense({.units = 5, .activation = relu}));
  });
  check({6, 7, 2}, [](auto& model, auto apart) {
    model.add_layer(Conv2D({.filters = 5})), apart(), model.add_layer(BatchNorm({.use_shift = false}));
    model.add_layer(LeakyReLU());
    apart(), model.add_layer(MaxPool2D());
  });
  check({6, 7, 2}, [](auto& model, auto apart) {
    model.add_layer(Conv2D({.filters = 4, .groups = 2, .use_bias = false})), apart(), model.add_layer(BatchNorm());
    apart(), model.add_layer(MaxPool2D());
  });
  check({9, 3}, [](auto& model, auto apart) {
    model.add_layer(Conv1D({.filters = 5, .activation = relu})), apart(), model.add_layer(BatchNorm());
    model.add_layer(Conv1D({.filters = 4})), apart(), model.add_layer(BatchNorm());
  });
  check({6, 6, 4}, [](auto& model, auto apart) {  // read twice
    model.add_layer(Conv2D({.filters = 4, .padding = same})), apart();
    model.add_layer(Residual(BatchNorm(), Activation(relu)));
  });
  check({6, 6, 4}, [](auto& model, auto apart) {  // the normalisation is
    model.add_layer(Conv2D({.filters = 4, .padding = same})), apart(), model.add_layer(BatchNorm());
    model.add_layer(Residual(Conv2D({.filters = 4, .padding = same}), BatchNorm(), Activation(relu)));
  });
}

TEST_CASE("folding: what changes between predictions is seen", "[layer]") {
  Sequential model({.seed = 3});
  model.add_layer(Dense({.units = 6})).add_layer(BatchNorm()).add_layer(Dense({.units = 2}));
  model.build({4});
  Tensor<float> x({3, 4});
  random::fill_normal(x, {.seed = 1});
  const Tensor<float> before = model.predict(x);
  for (auto& p : model.parameters())
    if (p.name() == "batch_norm.running_mean") p.assign(Tensor<float>({6}, std::vector<float>(6, 2)));
  const Tensor<float> after = model.predict(x);
  REQUIRE_FALSE(std::equal(before.begin(), before.end(), after.begin()));
  const TemporaryFolder folder;
  model.save(folder.path("m"));
  const Tensor<float> loaded = Sequential::load(folder.path("m")).predict(x);
  REQUIRE(std::equal(after.begin(), after.end(), loaded.begin()));
}

}  // namespace test_layer_folding
