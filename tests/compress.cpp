// Layers replaced by tensor-train layers, to a budget.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <io/temporary_folder.hpp>
#include <string>

using namespace tesla;

namespace {

/// 256 to 1024 to 256 to 10, the first two layers being near low ranks, with a step of training behind them.
Sequential model_of(const Tensor<float>& x, const Tensor<std::int32_t>& y) {
  const auto layer = [](std::size_t in, std::size_t out, std::uint64_t seed, const char* name) {
    Tensor<double> left({out, 3}), right({3, in}), w({out, in}), bias({out});
    random::fill_normal(left, {.seed = seed});
    random::fill_normal(right, {.seed = seed + 1});
    random::fill_normal(w, {.seed = seed + 2});
    for (std::size_t o = 0; o < out; ++o)
      for (std::size_t i = 0; i < in; ++i) {
        double sum = 0;
        for (std::size_t r = 0; r < 3; ++r) sum += left[o * 3 + r] * right[r * in + i];
        w[o * in + i] = 0.03 * sum + 1e-4 * w[o * in + i];
      }
    Dense dense({.units = out, .activation = relu, .name = name});
    dense.initial = std::make_shared<const layer::Values>(layer::Values{w, bias});
    return dense;
  };
  Sequential model(layer(256, 1024, 1, "wide"), layer(1024, 256, 4, "narrow"), Dense({.units = 10, .name = "last"}));
  model.compile(optim::SGD({.learning_rate = 0.01f, .momentum = 0.9}), loss::SparseCategoricalCrossEntropy());
  model.fit(x, y, {.batch_size = 64, .verbose = 0});
  return model;
}

struct Data {
  Tensor<float> x{{256, 256}};
  Tensor<std::int32_t> y{{256}};
  Data() {
    random::fill_normal(x, {.seed = 8});
    for (std::size_t i = 0; i < 256; ++i) y[i] = static_cast<std::int32_t>(i % 10);
  }
};

}  // namespace

TEST_CASE("compress: keeps to a budget of bytes, and training goes on", "[compress]") {
  const Data d;
  Sequential model = model_of(d.x, d.y);
  const std::size_t before = model.count_parameters() * 4;
  const CompressReport report = compress<Dense>(model, {.budget = before / 4, .calibration = {d.x, d.y}});
  INFO(report.to_string());
  REQUIRE(report.bytes_before == before);
  REQUIRE(report.bytes <= before / 4);
  REQUIRE(report.bytes == model.count_parameters() * 4);
  REQUIRE(report.layers.size() == 3);
  REQUIRE(report.layers[0].name == "wide");
  REQUIRE(report.layers[0].parameters < report.layers[0].parameters_before);
  REQUIRE(report.layers[0].microseconds < report.layers[0].microseconds_before);
  REQUIRE(report.loss == Approx(model.evaluate(d.x, d.y)["loss"]));
  REQUIRE(report.to_string().find("stays dense") != std::string::npos);
  REQUIRE(model.layer<TensorTrain>("wide").in.elements() == 256);
  REQUIRE(model.layer<Dense>("last").units == 10);
  REQUIRE(model.parameter("wide.core.0").shape()[0] == 1);
  model.fit(d.x, d.y, {.epochs = 2, .batch_size = 64, .verbose = 0});
}

TEST_CASE("compress: convolutions, to a budget of bytes", "[compress][convolution]") {
  Tensor<float> x({192, 12, 12, 1});
  Tensor<std::int32_t> y({192});
  random::fill_normal(x, {.seed = 5});
  for (std::size_t i = 0; i < 192; ++i) {
    y[i] = static_cast<std::int32_t>(i % 4);
    for (std::size_t p = 0; p < 36; ++p) x[i * 144 + (i % 4) * 36 + p] += 1;
  }
  Sequential model(Conv2D({.filters = 16, .padding = same, .activation = relu, .name = "first"}),
                   MaxPool2D({.pool = {2, 2}}), Conv2D({.filters = 32, .activation = relu, .name = "second"}),
                   Conv2D({.filters = 32, .groups = 4, .activation = relu, .name = "grouped"}), GlobalAveragePool(),
                   Dense({.units = 4, .name = "last"}));
  model.compile(optim::Adam({.learning_rate = 3e-3}), loss::SparseCategoricalCrossEntropy());
  model.fit(x, y, {.epochs = 4, .verbose = 0});
  const std::size_t before = model.count_parameters() * 4, budget = before * 2 / 3;
  const CompressReport report =
      compress<Dense, Conv2D>(model, {.budget = budget, .batch_size = 16, .calibration = {x, y}, .most_cores = 2});
  INFO(report.to_string());
  REQUIRE(report.bytes_before == before);
  REQUIRE(report.bytes <= budget);
  REQUIRE(report.bytes == model.count_parameters() * 4);
  REQUIRE(report.layers.size() == 4);
  REQUIRE(report.layers[1].parameters < report.layers[1].parameters_before);
  REQUIRE(report.layers[1].microseconds < 1.05 * report.layers[1].microseconds_before);
  REQUIRE(report.layers[2].what == "stays dense: it has groups");
  REQUIRE(model.layer<TensorTrainConv2D>("second").in.elements() == 16);
  REQUIRE(report.loss == Approx(model.evaluate(x, y)["loss"]));
  model.fit(x, y, {.epochs = 4, .verbose = 0});
  REQUIRE(model.evaluate(x, y)["loss"] < report.loss);
}

TEST_CASE("compress: embeddings and recurrent layers, to a budget of bytes", "[compress][recurrent]") {
  Tensor<std::int32_t> x({256, 6}), y({256});
  const random::Stream random(3);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<std::int32_t>(random.bits(i) % 401);
  for (std::size_t i = 0; i < 256; ++i) y[i] = x[i * 6] % 2;
  const bool bidirectional = GENERATE(false, true);
  Sequential model(Embedding({.tokens = 401, .units = 32, .padding_index = 0, .name = "words"}),
                   GRU({.units = 12, .bidirectional = bidirectional, .name = "steps"}),
                   Dense({.units = 2, .name = "last"}));
  model.compile(optim::Adam({.learning_rate = 3e-3}), loss::SparseCategoricalCrossEntropy());
  model.fit(x, y, {.epochs = 3, .verbose = 0});
  const Tensor<float> outputs = model.predict(x);
  REQUIRE_THROWS_AS(compress<Embedding>(model, {.budget = 100, .calibration = {x, y}, .samples = 32, .most_cores = 2}),
                    UsageError);
  const Tensor<float> same = model.predict(x);
  REQUIRE(std::equal(outputs.begin(), outputs.end(), same.begin()));

  const std::size_t before = model.count_parameters() * 4, budget = before / 2;
  const CompressReport report = compress<Embedding, GRU>(
      model, {.budget = budget, .batch_size = 32, .calibration = {x, y}, .samples = 128, .most_cores = 3});
  INFO(report.to_string());
  REQUIRE(report.bytes <= budget);
  REQUIRE(report.bytes == model.count_parameters() * 4);
  REQUIRE(report.layers.size() == 2);
  REQUIRE(report.layers[0].name == "words");
  REQUIRE(report.layers[0].parameters < report.layers[0].parameters_before);
  REQUIRE(report.layers[1].parameters <= report.layers[1].parameters_before);
  REQUIRE(model.layer<TensorTrainEmbedding>("words").in.elements() >= 401);
  model.fit(x, y, {.epochs = 3, .verbose = 0});
  REQUIRE(model.evaluate(x, y)["loss"] < report.loss);

  const TemporaryFolder folder;
  model.save(folder.path("model"));
  Sequential loaded = Sequential::load(folder.path("model"));
  const Tensor<float> here = model.predict(x), there = loaded.predict(x);
  REQUIRE(std::equal(here.begin(), here.end(), there.begin()));
}

TEST_CASE("compress: a budget that is kept already changes nothing", "[compress]") {
  const Data d;
  Sequential model = model_of(d.x, d.y);
  const Tensor<float> before = model.predict(d.x);
  const CompressReport report = compress<Dense>(model, {.budget = 1u << 30, .calibration = {d.x, d.y}});
  // Only what costs no loss at all could have been replaced.
  REQUIRE(report.loss <= report.loss_before + 1e-9);
  REQUIRE(relative_error(before, model.predict(d.x)) < 1e-2);
}

TEST_CASE("compress: what cannot be is said, and nothing is changed", "[compress][errors]") {
  using Catch::Contains;
  const Data d;
  Sequential model = model_of(d.x, d.y);
  const Tensor<float> before = model.predict(d.x);
  const data::Samples samples(d.x, d.y);
  REQUIRE_THROWS_WITH(compress<Dense>(model, {.budget = 100, .calibration = samples}),
                      Contains("the least that the model can take is") && Contains("more than the budget of 100"));
  REQUIRE_THROWS_WITH(compress<Dense>(model, {.calibration = samples}),
                      Contains("one of .budget, in bytes, and .microsec"));
  REQUIRE_THROWS_WITH(compress<Dense>(model, {.budget = 1000, .microseconds = 5, .calibration = samples}),
                      Contains("one of"));
  REQUIRE_THROWS_WITH(compress<Dense>(model, {.budget = 1000}), Contains("needs .calibration"));
  REQUIRE_THROWS_AS(compress<Dense>(model, {.budget = 1000, .batch_size = 0, .calibration = samples}), UsageError);
  REQUIRE_THROWS_AS(compress<Dense>(model, {.budget = 1000, .calibration = samples, .most_cores = 1}), UsageError);
  const Tensor<float> after = model.predict(d.x);
  REQUIRE(std::equal(before.begin(), before.end(), after.begin()));
  Sequential bare(Dense({.units = 4}));
  REQUIRE_THROWS_WITH(compress<Dense>(bare, {.budget = 1000, .calibration = samples}), Contains("compile"));
}
