// Norms as layers: gradients, both backends, running statistics, and what they are for.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <layer/training_checks.hpp>

namespace test_layer_normalisation {

using namespace tesla;
using namespace layer_test;

namespace {

/// Calls f with a name, a shape and what adds the layers.
template <class F>
void for_each_norm(const F& f) {
  const auto on = [&](const Shape& in, const auto& layer) {
    f(std::string(layer.kind), in, [=](auto& model) { model.add_layer(layer); });
  };
  for (const bool scale : {true, false})
    for (const bool shift : {true, false})
      for (const Shape& in : {Shape{3, 2, 4}, Shape{5, 6}, Shape{8}}) {
        on(in, LayerNorm({.use_scale = scale, .use_shift = shift}));
        on(in, GroupNorm({.groups = 2, .epsilon = 1e-3, .use_scale = scale, .use_shift = shift}));
        if (!shift) on(in, RMSNorm({.use_scale = scale}));
        on(in, BatchNorm({.epsilon = 1e-2, .use_scale = scale, .use_shift = shift}));
      }
  on({2, 3, 6}, GroupNorm({.groups = 6}));
  on({2, 3, 6}, GroupNorm({.groups = 1}));
  on({4, 19}, RMSNorm({.epsilon = 0.1}));
}

/// A norm between layers, so that it begins with values that were learned and has something to pass on.
template <class F>
auto within(const F& add) {
  return [add](auto& model) {
    model.add_layer(tesla::Tanh());
    add(model);
    model.add_layer(activation([](auto x) { return x * x + x; }));
  };
}

}  // namespace

TEMPLATE_TEST_CASE("gradients: norms", "[layer][gradients]", backend::Reference, backend::Cpu) {
  for (const std::size_t batch : {1, 5, 70})
    for_each_norm([&](const std::string& kind, const Shape& in, const auto& add) {
      // Of a single value the mean is the value: nothing is passed on.
      if (kind == "BatchNorm" && batch == 1 && in.rank() == 1) return;
      INFO(kind << ' ' << in << ", batch " << batch);
      check_training_gradients<TestType>(in, batch, within(add));
    });
}

TEST_CASE("norms: both backends train alike", "[layer]") {
  for (const std::size_t batch : {1, 5, 70})
    for_each_norm([&](const std::string& kind, const Shape& in, const auto& add) {
      INFO(kind << ' ' << in << ", batch " << batch);
      check_backends_agree(in, batch, within(add));
    });
}

TEMPLATE_TEST_CASE("norms: means and deviations of what comes out", "[layer]",
                   (BasicSequential<double, backend::Reference>), (BasicSequential<double, backend::Cpu>)) {
  Tensor<double> x({7, 3, 2, 6});
  random::fill_normal(x, {.seed = 1});
  for (double& v : x) v = 3 * v + 5;
  // Of the features [first, first + count), at `pixels` places that are 6 apart.
  const auto check = [&](const Tensor<double>& y, std::size_t first, std::size_t count, std::size_t pixels, double mean,
                         double square) {
    for (std::size_t s = 0; s < 7; ++s) {
      double sum = 0, squares = 0;
      for (std::size_t p = 0; p < pixels; ++p)
        for (std::size_t i = first; i < first + count; ++i) {
          const double v = y[s * 36 + p * 6 + i];
          sum += v, squares += v * v;
        }
      const auto n = static_cast<double>(count * pixels);
      if (mean == 0) CHECK(std::abs(sum / n) < 1e-12);
      CHECK(squares / n == Approx(square).epsilon(1e-6));
    }
  };
  const auto predicted = [&](const auto& norm) { return TestType(norm).predict(x); };
  for (const std::size_t pixel : {0, 5}) {
    check(predicted(LayerNorm({.epsilon = 1e-9})), 6 * pixel, 6, 1, 0, 1);
    check(predicted(RMSNorm({.epsilon = 1e-9})), 6 * pixel, 6, 1, 1, 1);
  }
  for (const std::size_t group : {0, 2})
    check(predicted(GroupNorm({.groups = 3, .epsilon = 1e-9})), 2 * group, 2, 6, 0, 1);
}

TEMPLATE_TEST_CASE("batch norm: running statistics", "[layer]", (BasicSequential<double, backend::Reference>),
                   (BasicSequential<double, backend::Cpu>)) {
  for (const bool scale : {true, false})
    for (const std::size_t batch : {1, 5, 70}) {
      INFO("scale " << scale << ", batch " << batch);
      const Shape in{2, 3, 4};
      constexpr double epsilon = 1e-2;
      TestType model(BatchNorm({.momentum = 0.75, .epsilon = epsilon, .use_scale = scale, .name = "norm"}));
      model.compile(optim::SGD({.learning_rate = 0}), loss::MeanSquaredError());
      model.build(in);
      CHECK(model.parameter("norm.running_variance").value()[3] == 1);
      std::vector<double> mean(4, 0.0), variance(4, 1.0);
      Tensor<double> x(batch_shape(batch, in)), y({batch, 24});
      for (std::uint64_t step = 0; step < 3; ++step) {
        random::fill_normal(x, {.seed = step});
        for (double& v : x) v = 2 * v + static_cast<double>(step);
        model.train_step(x, y);
        const auto n = static_cast<double>(x.size() / 4);
        for (std::size_t c = 0; c < 4; ++c) {
          double sum = 0, squares = 0;
          for (std::size_t i = c; i < x.size(); i += 4) sum += x[i];
          for (std::size_t i = c; i < x.size(); i += 4) squares += (x[i] - sum / n) * (x[i] - sum / n);
          mean[c] += 0.25 * (sum / n - mean[c]);
          variance[c] += 0.25 * (squares / (n - 1) - variance[c]);
        }
      }
      const auto running_mean = model.parameter("norm.running_mean").value();
      const auto running_variance = model.parameter("norm.running_variance").value();
      const auto predicted = model.predict(x);
      for (std::size_t c = 0; c < 4; ++c) {
        CHECK(running_mean[c] == Approx(mean[c]).epsilon(1e-12));
        CHECK(running_variance[c] == Approx(variance[c]).epsilon(1e-12));
      }
      for (std::size_t i = 0; i < predicted.size(); i += 5)
        CHECK(predicted[i] == Approx((x[i] - mean[i % 4]) / std::sqrt(variance[i % 4] + epsilon)).epsilon(1e-10));
      // Predictions and scores leave them as they are.
      model.evaluate(x, y);
      CHECK(model.parameter("norm.running_mean").value()[0] == running_mean[0]);
    }
}

TEST_CASE("batch norm: of one value the deviation is unknown, and nothing becomes infinite", "[layer]") {
  Sequential model(BatchNorm(), Dense({.units = 2}));
  model.compile(optim::SGD({.learning_rate = 0.1}), loss::MeanSquaredError());
  Tensor<float> x({1, 3}, {1, 2, 3}), y({1, 2}, {1, -1});
  for (int step = 0; step < 5; ++step) model.train_step(x, y);
  for (const auto& p : model.parameters())
    for (const float v : p.value()) CHECK(is_finite(v));
  for (const float v : model.parameter("batch_norm.running_variance").value())
    CHECK(v == 1);  // one value says nothing of it
}

TEST_CASE("batch norm: statistics are no weights for the optimizer", "[layer]") {
  const auto trained = [](double decay, double clip) {
    Sequential model({.seed = 2});
    model.add_layer(BatchNorm({.name = "norm"})).add_layer(Dense({.units = 2}));
    model.compile(optim::AdamW({.learning_rate = 0.05, .weight_decay = decay, .clip_norm = clip}),
                  loss::MeanSquaredError());
    Tensor<float> x({20, 3}), y({20, 2});
    random::fill_normal(x, {.seed = 1});
    random::fill_normal(y, {.seed = 2});
    for (int step = 0; step < 5; ++step) model.train_step(x, y);
    const auto mean = model.parameter("norm.running_mean").value(),
               variance = model.parameter("norm.running_variance").value(),
               scale = model.parameter("norm.scale").value();
    std::vector<float> result(mean.begin(), mean.end());
    result.insert(result.end(), variance.begin(), variance.end());
    return std::pair{result, std::vector<float>(scale.begin(), scale.end())};
  };
  const auto [plain, plain_scale] = trained(0, 0);
  for (const auto& [decay, clip] : {std::pair{0.5, 0.0}, std::pair{0.0, 1e-3}}) {
    const auto [statistics, scale] = trained(decay, clip);
    CHECK(statistics == plain);
    CHECK(scale != plain_scale);
  }
}

TEST_CASE("batch norm: statistics are not counted as learned", "[layer]") {
  Sequential model(Dense({.units = 7, .use_bias = false}), BatchNorm(), BatchNorm({.use_shift = false}));
  model.build({3});
  CHECK(model.count_parameters() == 3 * 7 + 2 * 7 + 7);
  CHECK_THAT(model.summary_text(), Catch::Contains("42 parameters"));
  CHECK(model.parameters().size() == 1 + 4 + 3);
}

TEST_CASE("batch norm: the statistics follow where no layer before it learns, and in each batch of a step", "[layer]") {
  Tensor<float> x({40, 3}), y({40, 2});
  random::fill_normal(x, {.seed = 1});
  for (float& v : x) v += 2;
  const auto running_mean = [&](const layer::BatchNormOptions& options, std::size_t accumulate) {
    Sequential model(BatchNorm(options), Dense({.units = 2}));
    model.compile(optim::SGD({.learning_rate = 0.01}), loss::MeanSquaredError());
    model.fit(x, y, {.epochs = 1, .batch_size = 10, .shuffle = false, .verbose = 0, .accumulate = accumulate});
    return model.parameter("batch_norm.running_mean").value()[0];
  };
  const float wanted = running_mean({}, 1);
  CHECK(wanted > 0.5F);
  CHECK(running_mean({.use_scale = false, .use_shift = false}, 1) == wanted);
  CHECK(running_mean({}, 2) == wanted);
  CHECK(running_mean({}, 4) == wanted);
}

TEMPLATE_TEST_CASE("batch norm: frozen, it keeps its statistics and uses them", "[layer][gradients]", backend::Cpu,
                   backend::Reference) {
  for (const bool pooled : {false, true}) {
    CAPTURE(pooled);
    Model<TestType> model({.seed = 5});
    model.add_layer(Conv2D({.filters = 3, .kernel = {2, 2}, .name = "conv"})).add_layer(BatchNorm({.name = "norm"}));
    model.add_layer(LeakyReLU());
    if (pooled) model.add_layer(MaxPool2D());
    model.add_layer(Flatten()).add_layer(Dense({.units = 2}));
    model.build({5, 5, 2});
    Tensor<double> x({6, 5, 5, 2}), y({6, 2});
    random::fill_normal(x, {.seed = 1});
    random::fill_normal(y, {.seed = 2});
    model.compile(optim::SGD({.learning_rate = 0.1}), loss::MeanSquaredError());
    model.train_step(x, y);  // so that the statistics are some
    model.freeze("norm.running_*");
    model.compile(optim::SGD({.learning_rate = 1}), loss::MeanSquaredError());
    std::vector<Tensor<double>> before, after;
    for (const auto& p : model.parameters()) before.push_back(p.value());
    const double expected_loss = model.evaluate(x, y)["loss"];
    REQUIRE(std::abs(model.train_step(x, y) - expected_loss) < 1e-12);
    for (const auto& p : model.parameters()) after.push_back(p.value());
    auto parameters = model.parameters();
    for (std::size_t i = 0; i < before.size(); ++i) parameters[i].assign(before[i]);
    for (std::size_t i = 0; i < before.size(); ++i)
      for (std::size_t k = 0; k < before[i].size(); k += 1 + before[i].size() / 20) {
        CAPTURE(parameters[i].name(), k);
        if (parameters[i].name().find("running") != std::string::npos) {
          REQUIRE(after[i][k] == before[i][k]);
          continue;
        }
        constexpr double step = 1e-6;
        const auto loss_at = [&](double value) {
          Tensor<double> moved = before[i];
          moved[k] = value;
          parameters[i].assign(moved);
          return model.evaluate(x, y)["loss"];
        };
        const double expected = (loss_at(before[i][k] + step) - loss_at(before[i][k] - step)) / (2 * step);
        parameters[i].assign(before[i]);
        REQUIRE(std::abs(before[i][k] - after[i][k] - expected) < 1e-7);
      }
  }
}

TEST_CASE("batch norm: a batch of one value a channel leaves the statistics alone", "[layer]") {
  Sequential model{BatchNorm({.momentum = 0, .name = "norm"}), Dense({.units = 1})};
  Tensor<float> x({5, 3}), y({5, 1});
  random::fill_normal(x, {.seed = 1});
  model.build({3});
  model.compile(optim::SGD({.learning_rate = 0}), loss::MeanSquaredError());
  model.fit(x, y, {.epochs = 1, .batch_size = 4, .shuffle = false, .verbose = 0});  // of four, and of one
  for (const float v : model.parameter("norm.running_variance").value()) REQUIRE(v > 0.01F);
}

}  // namespace test_layer_normalisation
