// Callbacks that change ranks while a model is trained.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <vector>

namespace test_train_ranks {

using namespace tesla;

namespace {

Sequential model_of(std::size_t rank, bool adam = true) {
  Sequential model(
      TensorTrain({.in = {7, 4, 7, 4}, .out = {5, 5, 5, 5}, .rank = rank, .activation = relu, .name = "first"}),
      TensorTrain({.in = {25, 25}, .out = {6, 6}, .rank = rank, .use_bias = false, .name = "second"}),
      Dense({.units = 10}));
  if (adam)
    model.compile(optim::Adam({.learning_rate = 2e-3f}), loss::SparseCategoricalCrossEntropy(), {metric::Accuracy()});
  else
    model.compile(optim::SGD({.learning_rate = 0.05f, .momentum = 0.9}), loss::SparseCategoricalCrossEntropy());
  return model;
}

std::size_t count_cores(Sequential& model) {
  return model.layer<TensorTrain>("first").shape().count_parameters() +
         model.layer<TensorTrain>("second").shape().count_parameters();
}

}  // namespace

TEST_CASE("lower ranks: to a budget, and training goes on", "[train]") {
  const auto digits = data::digits({.train = 2000, .test = 200});
  for (const bool adam : {true, false}) {
    Sequential model = model_of(8, adam);
    model.build({784});
    const std::size_t before = count_cores(model);
    std::vector<std::size_t> counts;
    struct Count {
      std::vector<std::size_t>* counts;
      void on_epoch_end(callback::Moment<Sequential>& m) { counts->push_back(count_cores(m.model)); }
    };
    const History history = model.fit(
        digits.train, {.epochs = 6,
                       .batch_size = 50,
                       .callbacks = {callback::LowerRanks({.parameters = 1500, .by_epoch = 4}), Count{&counts}},
                       .verbose = 0});
    REQUIRE(before > 6000);
    for (std::size_t e = 1; e < 4; ++e) REQUIRE(counts[e] < counts[e - 1]);
    REQUIRE(counts[3] <= 1500);
    REQUIRE(counts[5] == counts[3]);
    REQUIRE(counts[3] > 1200);
    REQUIRE(history["loss"].back() < 0.7 * history["loss"].front());
    REQUIRE(model.parameter("first.core.0").shape()[3] == model.layer<TensorTrain>("first").ranks[0]);
  }
}

TEST_CASE("lower ranks: to a tolerance, the model computes nearly the same", "[train]") {
  const auto digits = data::digits({.train = 500, .test = 100});
  Sequential model = model_of(8);
  model.fit(digits.train, {.epochs = 2, .verbose = 0});
  const Tensor<float> before = model.predict(digits.test.x());
  const auto bias = model.parameter("first.bias").value();
  std::vector<Shape> seen;
  struct Round {
    std::vector<Shape>* seen;
    callback::LowerRanks lower{{.tolerance = 0.02}};
    void on_epoch_begin(callback::Moment<Sequential>& m) {
      lower.on_epoch_end(m);
      seen->push_back(m.model.layer<TensorTrain>("first").ranks);
      m.stop = true;
    }
  };
  model.fit(digits.train, {.callbacks = {Round{&seen}}, .verbose = 0});
  REQUIRE(relative_error(before, model.predict(digits.test.x())) < 0.1);
  const auto after = model.parameter("first.bias").value();
  REQUIRE(std::equal(bias.begin(), bias.end(), after.begin()));
  REQUIRE(!(seen[0] == Shape{8, 8, 8}));
}

TEST_CASE("lower ranks: the optimizer's state goes along", "[train]") {
  // Rounding that cuts nothing but turns the cores: momentum then points the same way in W.
  const auto digits = data::digits({.train = 200, .test = 50});
  const auto after_two = [&](bool recast) {
    Sequential model(TensorTrain({.in = {28, 28}, .out = {4, 4}, .rank = 4, .use_bias = false, .name = "first"}),
                     Dense({.units = 10}));
    model.compile(optim::SGD({.learning_rate = 1e-3f, .momentum = 0.9}), loss::SparseCategoricalCrossEntropy());
    model.build({784});
    for (int k = 0; k < 3; ++k) model.train_step(digits.train.x(), digits.train.y());
    auto& net = model.network();
    const auto matrix = [&] { return model.layer<TensorTrain>("first").matrix().to_dense(); };
    if (recast) {
      const auto layer = model.layer<TensorTrain>("first");
      const layer::Values cores(layer.initial->begin(), layer.initial->begin() + 2);
      const network::Balance balance(cores);
      const auto factors = balance.factors(cores, {4});
      const std::vector<bool> squares;
      callback::detail::Recast(net, 0, squares).put({4}, [&](const auto& c, network::Balance::Kind kind) {
        return balance.cut(c, {4}, kind, factors);
      });
    }
    const Tensor<double> before = matrix();
    model.train_step(digits.train.x(), digits.train.y());
    Tensor<double> change = matrix();
    for (std::size_t i = 0; i < change.size(); ++i) change[i] -= before[i];
    return change;
  };
  const Tensor<double> plain = after_two(false), recast = after_two(true);
  double dot = 0, a = 0, b = 0;
  for (std::size_t i = 0; i < plain.size(); ++i)
    dot += plain[i] * recast[i], a += plain[i] * plain[i], b += recast[i] * recast[i];
  REQUIRE(dot / std::sqrt(a * b) > 0.9);
}

TEST_CASE("raise ranks: only where the gradient asks for it", "[train]") {
  const auto digits = data::digits({.train = 600, .test = 50});
  const auto ranks_after = [&](double threshold) {
    Sequential model = model_of(2);
    model.fit(digits.train,
              {.epochs = 3,
               .batch_size = 50,
               .callbacks = {callback::RaiseRanks({.by = 2, .at_most = 5, .batches = 4, .threshold = threshold})},
               .verbose = 0});
    return model.layer<TensorTrain>("first").shape().ranks;
  };
  REQUIRE(ranks_after(0) == Shape{5, 5, 5});
  REQUIRE(ranks_after(1e9) == Shape{2, 2, 2});

  // A trial begins without changing what the model computes.
  Sequential model = model_of(3);
  model.fit(digits.train, {.epochs = 1, .verbose = 0});
  const Tensor<float> before = model.predict(digits.test.x());
  Tensor<float> during;
  struct Look {
    const Tensor<float>* x;
    Tensor<float>* out;
    callback::RaiseRanks raise{{.by = 2}};
    void on_epoch_begin(callback::Moment<Sequential>& m) {
      raise.on_epoch_begin(m);
      *out = m.model.predict(*x);
      raise.on_fit_end(m);
      m.stop = true;
    }
  };
  model.fit(digits.train, {.callbacks = {Look{&digits.test.x(), &during}}, .verbose = 0});
  REQUIRE(relative_error(before, during) < 1e-6);
  REQUIRE(relative_error(before, model.predict(digits.test.x())) < 1e-6);
  REQUIRE(model.layer<TensorTrain>("first").shape().ranks == Shape{3, 3, 3});
}

TEST_CASE("ranks: options that make no sense", "[train][errors]") {
  REQUIRE_THROWS_WITH(callback::LowerRanks({}), Catch::Contains(".parameters, the budget of all cores, or .tolerance"));
  REQUIRE_THROWS_AS(callback::LowerRanks({.tolerance = 1.5}), UsageError);
  REQUIRE_THROWS_AS(callback::LowerRanks({.tolerance = std::numeric_limits<double>::quiet_NaN()}), UsageError);
  REQUIRE_THROWS_AS(callback::LowerRanks({.parameters = 10, .every = 0}), UsageError);
  REQUIRE_THROWS_AS(callback::RaiseRanks({.by = 0}), UsageError);
  REQUIRE_THROWS_AS(callback::RaiseRanks({.threshold = -1}), UsageError);

  const auto digits = data::digits({.train = 100, .test = 10});
  const auto fit = [&](Sequential& model, const callback::AnyCallback<Sequential>& callback) {
    model.fit(digits.train, {.epochs = 1, .callbacks = {callback}, .verbose = 0});
  };
  Sequential model = model_of(3);
  REQUIRE_THROWS_WITH(fit(model, callback::LowerRanks({.parameters = 100})), Catch::Contains("even at ranks of 1"));
  Sequential dense(Dense({.units = 10}));
  dense.compile(optim::SGD(), loss::SparseCategoricalCrossEntropy());
  REQUIRE_THROWS_WITH(fit(dense, callback::LowerRanks({.parameters = 9000})), Catch::Contains("no TensorTrain layers"));
  REQUIRE_THROWS_WITH(fit(dense, callback::RaiseRanks()), Catch::Contains("no TensorTrain layers"));
}

TEST_CASE("ranks: twice two epochs are the same as four", "[train]") {
  const auto digits = data::digits({.train = 500, .test = 100});
  const auto run = [&](std::vector<std::size_t> parts) {
    Sequential model = model_of(6);
    for (const std::size_t epochs : parts)
      model.fit(
          digits.train,
          {.epochs = epochs, .callbacks = {callback::LowerRanks({.parameters = 2000, .by_epoch = 4})}, .verbose = 0});
    REQUIRE(count_cores(model) <= 2000);
    return model.predict(digits.test.x());
  };
  const Tensor<float> whole = run({4}), parts = run({2, 2});
  REQUIRE(std::equal(whole.begin(), whole.end(), parts.begin()));
}

}  // namespace test_train_ranks
