// The tensor-train layer: gradients, beginnings, conversions, misuse, files.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <io/temporary_folder.hpp>
#include <layer/checks.hpp>

namespace test_layer_tensor_train {

using namespace tesla;

using layer_test::check_gradients;
using layer_test::complaint;
using layer_test::Model;

TEMPLATE_TEST_CASE("tensor-train: gradients, 1 to 6 cores", "[layer][gradients]", backend::Reference, backend::Cpu) {
  struct Case {
    Shape in, out;
    std::size_t rank;
  };
  const std::vector<Case> cases{{{6}, {5}, 0},
                                {{4, 3}, {3, 5}, 3},
                                {{2, 3, 2}, {3, 2, 3}, 3},
                                {{2, 2, 3, 2}, {2, 3, 2, 1}, 3},
                                {{2, 1, 2, 2, 2}, {1, 2, 2, 2, 2}, 2},
                                {{2, 1, 2, 2, 1, 2}, {2, 2, 1, 2, 2, 1}, 2}};
  for (const Case& c : cases)
    for (const std::size_t batch : {1, 3, 70})
      for (const bool use_bias : {true, false})
        for (const Activation& f : std::vector<Activation>{linear, relu, gelu}) {
          INFO(c.in << " to " << c.out << ", batch " << batch << ", bias " << use_bias << ", " << f.function_name());
          Model<TestType> model(SequentialOptions{.seed = 4});
          model.add_layer(Dense({.units = c.in.elements(), .activation = tesla::tanh}));
          model.add_layer(TensorTrain({.in = c.in,
                                       .out = c.out,
                                       .rank = c.rank,
                                       .use_bias = use_bias,
                                       .activation = f,
                                       .bias_initializer = init::normal(0.3)}));
          model.add_layer(Dense({.units = 2}));
          check_gradients(std::move(model), 4, 2, batch);
        }
}

TEST_CASE("tensor-train: the same as the dense layer of its values", "[layer]") {
  for (const std::size_t batch : {1, 2, 50, 130}) {
    Sequential train;
    train.add_layer(TensorTrain({.in = {4, 7, 4, 7},
                                 .out = {4, 8, 4, 8},
                                 .rank = 8,
                                 .activation = relu,
                                 .bias_initializer = init::normal(0.5),
                                 .name = "train"}));
    train.build({784});
    Sequential dense;
    dense.add_layer(train.layer<TensorTrain>("train").to_dense());
    Tensor<float> x({batch, 784});
    random::fill_normal(x, {.seed = 8});
    REQUIRE(relative_error(dense.predict(x), train.predict(x)) < 1e-5);
    REQUIRE(dense.parameter("dense.weight").shape() == Shape{1024, 784});

    // And back, at full ranks.
    Sequential again;
    again.add_layer(
        TensorTrain::from(dense.layer<Dense>("dense"), {.in = {4, 7, 4, 7}, .out = {4, 8, 4, 8}, .rank = 8}));
    REQUIRE(relative_error(train.predict(x), again.predict(x)) < 1e-5);
  }
}

TEST_CASE("tensor-train: from matrices and dense layers", "[layer]") {
  Tensor<float> w({30, 24});
  random::fill_normal(w, {.seed = 5});
  const auto matrix = network::tt_svd(w, {.in = {4, 6}, .out = {5, 6}, .max_rank = 3});
  Sequential model(TensorTrain::from(matrix, {.use_bias = false, .activation = tesla::tanh}));
  Tensor<float> x({9, 24});
  random::fill_normal(x, {.seed = 6});
  const Tensor<float> y = model.predict(x), expected = matrix.apply(x);
  for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(y[i] == Approx(std::tanh(expected[i])).margin(1e-5));
  REQUIRE(model.parameter("tensor_train.core.1").shape() == Shape{3, 6, 6, 1});

  Sequential dense(Dense({.units = 30, .activation = relu, .bias_initializer = init::normal(1), .name = "first"}));
  dense.build({24});
  const auto near = [&](const TensorTrain& layer) {
    Sequential other(layer);
    return relative_error(dense.predict(x), other.predict(x));
  };
  const Dense first = dense.layer<Dense>("first");
  REQUIRE(near(TensorTrain::from(first, {.in = {4, 6}, .out = {5, 6}}, 1e-6)) < 1e-5);
  REQUIRE(near(TensorTrain::from(first, {.in = {4, 6}, .out = {5, 6}, .rank = 5})) < 0.9);
  const TensorTrain cut = TensorTrain::from(first, {.in = {2, 3, 4}, .out = {5, 3, 2}, .ranks = {2, 4}});
  REQUIRE(cut.ranks == Shape{2, 4});
  REQUIRE(cut.activation.function == relu.function);

  REQUIRE_THROWS_WITH(TensorTrain::from(Dense({.units = 30}), {.in = {4, 6}, .out = {5, 6}, .rank = 2}),
                      Catch::Contains("has no values yet") && Catch::Contains("model.layer<Dense>"));
  REQUIRE_THROWS_WITH(TensorTrain({.in = {4}, .out = {4}}).to_dense(), Catch::Contains("has no values yet"));
  REQUIRE_THROWS_WITH(dense.layer<TensorTrain>("first"), Catch::Contains("is of kind Dense, not TensorTrain"));
  REQUIRE_THROWS_WITH(dense.layer<Dense>("second"), Catch::Contains("there is no \"second\", only first"));
}

TEST_CASE("tensor-train: the matrix begins with the deviation asked for", "[layer]") {
  const auto deviation_of = [](const init::Initializer& initializer, const Shape& in, const Shape& out,
                               std::size_t rank) {
    double squares = 0;
    std::size_t count = 0;
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
      Sequential model(SequentialOptions{.seed = seed});
      model.add_layer(TensorTrain({.in = in, .out = out, .rank = rank, .initializer = initializer, .name = "t"}));
      model.build({in.elements()});
      const Tensor<double> w = model.layer<TensorTrain>("t").matrix().to_dense();
      for (const double v : w) squares += v * v, ++count;
    }
    return std::sqrt(squares / static_cast<double>(count));
  };
  const Shape in{4, 8, 4}, out{8, 4, 4};
  REQUIRE(deviation_of(init::glorot_uniform, in, out, 6) == Approx(std::sqrt(2.0 / 256)).epsilon(0.05));
  REQUIRE(deviation_of(init::he_normal, in, out, 6) == Approx(std::sqrt(2.0 / 128)).epsilon(0.05));
  REQUIRE(deviation_of(init::normal(0.3), {2, 3, 2, 3}, {3, 2, 3, 2}, 4) == Approx(0.3).epsilon(0.1));
  REQUIRE(deviation_of(init::uniform(0.3), {6, 6}, {6, 6}, 9) == Approx(0.3 / std::sqrt(3)).epsilon(0.05));
  // Orthogonal cores keep the length of what goes in, on average; six of rank 32 as well as one.
  for (const std::size_t cores : {1, 3, 6}) {
    const std::array<std::size_t, 6> modes{4, 4, 4, 4, 4, 4};
    const Shape square(std::span<const std::size_t>(modes.data(), cores));
    Sequential model(TensorTrain({.in = square, .out = square, .rank = 32, .initializer = init::orthogonal}));
    Tensor<float> x({20, square.elements()});
    random::fill_normal(x, {.seed = 3});
    double before = 0, after = 0;
    const Tensor<float> y = model.predict(x);
    for (const float v : x) before += static_cast<double>(v) * static_cast<double>(v);
    for (const float v : y) after += static_cast<double>(v) * static_cast<double>(v);
    REQUIRE(after / before == Approx(1).margin(0.5));
  }
}

TEST_CASE("tensor-train: six cores of rank 32 train from the default initialiser", "[layer]") {
  // Which of eight directions a sample lies along most. Cores drawn at random, which make W's few largest singular
  // values far larger than the others, diverge here at this rate.
  const std::size_t n = 1024, samples = 256;
  Tensor<float> x({samples, n}), directions({n, 8});
  random::fill_normal(x, {.seed = 1});
  random::fill_normal(directions, {.seed = 2});
  Tensor<std::int32_t> y({samples});
  for (std::size_t s = 0; s < samples; ++s) {
    float best = -std::numeric_limits<float>::infinity();
    for (std::size_t k = 0; k < 8; ++k) {
      float along = 0;
      for (std::size_t i = 0; i < n; ++i) along += x(s, i) * directions(i, k);
      if (along > best) best = along, y[s] = static_cast<std::int32_t>(k);
    }
  }
  for (const std::uint64_t seed : {0, 1, 2}) {
    Sequential model({.seed = seed});
    model.add_layer(TensorTrain({.in = {2, 2, 4, 4, 4, 4}, .out = {4, 4, 4, 4, 2, 2}, .rank = 32, .activation = relu}))
        .add_layer(Dense({.units = 8}));
    model.compile(optim::SGD({.learning_rate = 0.05, .momentum = 0.9}), loss::SparseCategoricalCrossEntropy());
    const History history = model.fit(x, y, {.epochs = 25, .batch_size = 64, .verbose = 0});
    REQUIRE(history["loss"].back() < 0.02);
  }
}

TEST_CASE("tensor-train: what is wrong is said", "[layer][errors]") {
  using Catch::Contains;
  const auto says = [](const TensorTrain& layer, const Shape& input, std::vector<std::string> parts) {
    const std::string said = complaint(layer, input);
    for (const std::string& part : parts) REQUIRE_THAT(said, Contains(part));
    REQUIRE_THAT(said, Contains("layer 1 (tensor_train: TensorTrain)"));
  };
  says(TensorTrain({.in = {4, 7}, .out = {4, 8}, .rank = 2}), {30},
       {"{4, 7} make 28 features", "has 30", "modes that fit are {5, 6}"});
  says(TensorTrain({.in = {4, 7}, .out = {4, 8}, .rank = 2}), {29}, {"no 2 even modes", "{5, 6} make 30"});
  says(TensorTrain({.in = {4, 7}, .out = {4}, .rank = 2}), {28}, {"as many modes in .in as in .out"});
  says(TensorTrain(), {28}, {"as many modes", "1 to 8"});
  says(TensorTrain({.in = {4, 0}, .out = {4, 8}, .rank = 2}), {28}, {"modes {4, 0}", "1 or more"});
  says(TensorTrain({.in = {4, 7}, .out = {4, 8}}), {28}, {"needs .rank, or .ranks with 1 numbers"});
  says(TensorTrain({.in = {4, 7}, .out = {4, 8}, .rank = 2, .ranks = {2}}), {28}, {".rank or .ranks, not both"});
  says(TensorTrain({.in = {4, 7}, .out = {4, 8}, .ranks = {2, 3}}), {28}, {"2 cores and so 1 ranks", "{2, 3}"});
  says(TensorTrain({.in = {4, 7}, .out = {4, 8}, .ranks = {0}}), {28}, {"{0}", "1 or more"});
  says(TensorTrain({.in = {4, 7}, .out = {4, 8}, .rank = 2}), {14, 2}, {"expects one extent", "Flatten"});
  says(TensorTrain({.in = {4, 7}, .out = {4, 8}, .rank = 2, .initializer = init::zeros}), {28},
       {"begin as a constant"});
  says(TensorTrain({.in = {4, 7}, .out = {4, 8}, .rank = 2, .initializer = init::normal(0)}), {28},
       {"begin as zero", "larger number"});
  says(TensorTrain({.in = {4, 7}, .out = {4, 8}, .rank = 2, .initializer = init::normal(-1)}), {28}, {"not -1"});
  TensorTrain changed = TensorTrain::from(network::TensorTrainMatrix<float>({Tensor<float>({1, 4, 7, 1})}));
  changed.in = {14};
  says(changed, {14}, {"was made with a core 0 of shape {1, 4, 7, 1}", "ask for {1, 4, 14, 1}"});
  REQUIRE(complaint(TensorTrain({.in = {4, 7}, .out = {4, 8}, .rank = 2}), {4, 7}) == "");
}

TEST_CASE("tensor-train: ranks beyond what can be are cut, and the summary says so", "[layer]") {
  Sequential model(TensorTrain({.in = {2, 8, 8}, .out = {2, 8, 8}, .rank = 50}), Dense({.units = 3}));
  model.build({128});
  REQUIRE(model.parameter("tensor_train.core.0").shape() == Shape{1, 2, 2, 4});
  REQUIRE(model.parameter("tensor_train.core.1").shape() == Shape{4, 8, 8, 50});
  const std::string said = model.summary_text();
  INFO(said);
  for (const char* part : {"16016 weights for 16384", "ranks {4, 50}, the most there are of 50"})
    REQUIRE(said.find(part) != std::string::npos);
  REQUIRE(model.plan(64).find("layer 1 (tensor_train: TensorTrain 128 -> 128)") == 0);
  REQUIRE(Sequential(Dense({.units = 2}), Dense({.units = 3})).summary_text().find("weights for") == std::string::npos);
}

TEST_CASE("tensor-train: a rate of its own for the cores", "[layer]") {
  Tensor<float> x({20, 12}), y({20, 6});
  random::fill_normal(x, {.seed = 1});
  random::fill_normal(y, {.seed = 2});
  const auto steps = [&](double rate, const auto& optimizer) {
    Sequential model(TensorTrain({.in = {3, 4}, .out = {2, 3}, .rank = 2, .rate = rate, .name = "t"}));
    model.build({12});
    model.compile(optimizer, loss::MeanSquaredError());
    std::vector<double> lengths;
    for (const char* name : {"t.core.0", "t.bias"}) {
      const Tensor<float> before = model.parameter(name).value();
      lengths.push_back(0);
      if (std::string(name) == "t.core.0") model.train_step(x, y);
      const Tensor<float> after = model.parameter(name).value();
      for (std::size_t i = 0; i < after.size(); ++i)
        lengths.back() += std::abs(static_cast<double>(after[i]) - static_cast<double>(before[i]));
      if (std::string(name) == "t.core.0")
        for (const float v : model.parameter("t.bias").value()) lengths.push_back(static_cast<double>(v));
    }
    return lengths;
  };
  const auto sgd = optim::SGD({.learning_rate = 0.01f});
  const auto adam = optim::Adam({.learning_rate = 0.01f});
  REQUIRE(steps(3, sgd)[0] == Approx(3 * steps(1, sgd)[0]).epsilon(1e-4));
  REQUIRE(steps(0.5, adam)[0] == Approx(0.5 * steps(1, adam)[0]).epsilon(1e-4));
  REQUIRE(steps(3, sgd)[1] == Approx(steps(1, sgd)[1]).epsilon(1e-6));  // the bias goes as before
  REQUIRE_THAT(complaint(TensorTrain({.in = {4}, .out = {4}, .rate = 0}), {4}), Catch::Contains(".rate"));
}

TEST_CASE("tensor-train: saved, loaded and trained on with the same bits", "[layer][file]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("model.safetensors");
  const auto digits = data::digits({.train = 600, .test = 100});
  const auto make = [] {
    Sequential model(TensorTrain({.in = {7, 4, 7, 4}, .out = {5, 5, 5, 5}, .ranks = {3, 4, 5}, .activation = gelu}),
                     TensorTrain({.in = {25, 25}, .out = {8, 8}, .rank = 6, .use_bias = false}), Dense({.units = 10}));
    model.compile(optim::Adam({.learning_rate = 3e-3f}), loss::SparseCategoricalCrossEntropy(), {metric::Accuracy()});
    return model;
  };
  Sequential whole = make(), first = make();
  const auto fit = [&](Sequential& model, std::size_t epochs) {
    return model.fit(digits.train, {.epochs = epochs, .batch_size = 50, .verbose = 0});
  };
  const History history = fit(whole, 6);
  REQUIRE(history["loss"].back() < 0.6 * history["loss"].front());
  fit(first, 3);
  first.save(path);
  Sequential second = Sequential::load(path);
  fit(second, 3);
  const auto a = whole.parameters(), b = second.parameters();
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    REQUIRE(a[i].name() == b[i].name());
    const Tensor<float> x = a[i].value(), y = b[i].value();
    REQUIRE(std::equal(x.begin(), x.end(), y.begin()));
  }
}

}  // namespace test_layer_tensor_train
