// What fit() and evaluate() return, and which samples they saw.
#include <tesla/tesla.hpp>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <model/support.hpp>
#include <string>
#include <utility>
#include <vector>

namespace test_train_history {

using tesla::Dense;
using tesla::Sequential;

namespace {

Sequential made(double learning_rate = 0.05) {
  Sequential model({.seed = 6});
  model.add_layer(Dense({.units = 8, .activation = tesla::tanh})).add_layer(Dense({.units = 3}));
  model.compile(tesla::optim::SGD({.learning_rate = learning_rate}), tesla::loss::SparseCategoricalCrossEntropy(),
                {tesla::metric::Accuracy()});
  return model;
}

template <class Named>
std::vector<std::string> names(const Named& named) {
  std::vector<std::string> result;
  for (const auto& [name, value] : named) result.push_back(name);
  return result;
}

/// One sample for each feature, of 1 there and 0 elsewhere: with the loss y * t, each sample moves a weight of its own.
struct OneWeightEach {
  static constexpr std::size_t count = 12;
  tesla::Tensor<float> x{{count, count}}, y{{count, 1}};
  Sequential model;

  explicit OneWeightEach(std::size_t batch_size) {
    for (std::size_t i = 0; i < count; ++i) x(i, i) = y(i, 0) = 1;
    model.add_layer(Dense({.units = 1, .use_bias = false, .initializer = tesla::init::zeros}));
    model.compile(tesla::optim::SGD({.learning_rate = static_cast<double>(batch_size)}),
                  tesla::loss::custom([](auto a, auto b) { return a * b; }));
    model.build({count});
  }
  tesla::Tensor<float> weights() { return model.parameters().front().value(); }
};

/// Writes down which samples have been used, batch after batch.
struct OrderRecorder {
  OneWeightEach* problem;
  std::vector<std::vector<std::size_t>>* batches;
  std::vector<float> before = std::vector<float>(OneWeightEach::count, 0.0F);

  void on_batch_end(tesla::callback::Moment<Sequential>&) {
    const auto now = problem->weights();
    batches->emplace_back();
    for (std::size_t i = 0; i < now.size(); ++i)
      if (now[i] != before[i]) batches->back().push_back(i);
    before.assign(now.begin(), now.end());
  }
};

}  // namespace

TEST_CASE("a history has one number an epoch under each name", "[history]") {
  const auto x = normal_numbers({50, 4}, 1);
  const auto y = labels_below(3, 50, 2);
  Sequential model = made();
  const tesla::History history = model.fit(x, y, {.epochs = 3, .batch_size = 16, .validation = {x, y}, .verbose = 0});
  CHECK(names(history) == std::vector<std::string>{"loss", "accuracy", "val_loss", "val_accuracy"});
  CHECK(history.size() == 4);
  for (const auto& [name, values] : history) {
    CHECK(values.size() == 3);
    for (const double value : values) CHECK(tesla::is_finite(value));
  }
  CHECK(history.contains("val_loss"));
  CHECK_FALSE(history.contains("val"));
  CHECK_FALSE(history.interrupted);
  CHECK(history["loss"].back() < history["loss"].front());
  check_raises<tesla::UsageError>([&] { static_cast<void>(history["acuracy"]); },
                                  {"\"acuracy\"", "loss, accuracy, val_loss, val_accuracy"});

  const tesla::Scores scores = model.evaluate(x, y);
  CHECK(names(scores) == std::vector<std::string>{"loss", "accuracy"});
  check_raises<tesla::UsageError>([&] { static_cast<void>(scores["val_loss"]); }, {"\"val_loss\"", "loss, accuracy"});
  check_raises<tesla::UsageError>([] { static_cast<void>(tesla::Scores()["loss"]); }, {"\"loss\"", "nothing"});
}

TEST_CASE("no epochs change nothing", "[history]") {
  const auto x = normal_numbers({5, 4}, 1);
  Sequential model = made();
  model.build({4});
  const std::string before = parameter_bits(model);
  const auto history = model.fit(x, labels_below(3, 5, 2), {.epochs = 0, .verbose = 0});
  CHECK(history.size() == 0);
  CHECK_FALSE(history.interrupted);
  CHECK(parameter_bits(model) == before);
}

TEST_CASE("scores of the validation are those of evaluate", "[history]") {
  const auto x = normal_numbers({50, 4}, 1), other = normal_numbers({171, 4}, 3);
  const auto y = labels_below(3, 50, 2), other_y = labels_below(3, 171, 4);
  for (const std::size_t batch_size : {7, 100}) {
    Sequential model = made();
    const auto history =
        model.fit(x, y, {.epochs = 2, .batch_size = batch_size, .validation = {other, other_y}, .verbose = 0});
    for (const std::size_t by : {1, 64, 100, 256}) {
      const auto scores = model.evaluate(other, other_y, {.batch_size = by});
      CHECK(history["val_loss"].back() == Approx(scores["loss"]).epsilon(1e-6));
      CHECK(history["val_accuracy"].back() == Approx(scores["accuracy"]).epsilon(1e-12));
    }
  }
}

TEST_CASE("evaluation and validation do not change a model", "[history]") {
  const auto x = normal_numbers({50, 4}, 1);
  const auto y = labels_below(3, 50, 2);
  Sequential with = made(), without = made();
  const auto a = with.fit(x, y, {.epochs = 3, .validation = {x, y}, .verbose = 0});
  const auto b = without.fit(x, y, {.epochs = 3, .verbose = 0});
  CHECK(a["loss"] == b["loss"]);
  CHECK(parameter_bits(with) == parameter_bits(without));
  without.evaluate(x, y);
  CHECK(parameter_bits(with) == parameter_bits(without));
}

TEST_CASE("the loss of an epoch is the mean over samples, whatever the batches", "[history]") {
  const auto x = normal_numbers({50, 4}, 1);
  const auto y = labels_below(3, 50, 2);
  for (const std::size_t batch_size : {1, 7, 32, 50, 1000}) {
    Sequential model = made(0);  // so that the parameters stay
    const auto history = model.fit(x, y, {.epochs = 2, .batch_size = batch_size, .verbose = 0});
    const auto scores = model.evaluate(x, y);
    for (const double loss : history["loss"]) CHECK(loss == Approx(scores["loss"]).epsilon(1e-6));
    for (const double accuracy : history["accuracy"]) CHECK(accuracy == Approx(scores["accuracy"]).epsilon(1e-12));
  }
}

TEST_CASE("without shuffling, batches are consecutive samples and the last one is smaller", "[history]") {
  const auto x = normal_numbers({10, 4}, 1);
  const auto y = labels_below(3, 10, 2);
  const auto by_steps = [&](std::size_t batch_size) {
    Sequential model = made();
    double total = 0;
    for (std::size_t first = 0; first < 10; first += batch_size) {
      const std::size_t count = std::min(batch_size, 10 - first);
      total += static_cast<double>(count) * model.train_step(tesla::ArrayView(x.data() + 4 * first, {count, 4}),
                                                             tesla::ArrayView(y.data() + first, {count}));
    }
    return std::pair(parameter_bits(model), total / 10);
  };
  for (const std::size_t batch_size : {1, 4, 5, 9, 10, 11, 1000}) {
    INFO("batches of " << batch_size);
    Sequential model = made();
    const auto history = model.fit(x, y, {.batch_size = batch_size, .shuffle = false, .verbose = 0});
    const auto [wanted, loss] = by_steps(batch_size);
    CHECK(parameter_bits(model) == wanted);
    CHECK(history["loss"].front() == Approx(loss).epsilon(1e-12));
  }
}

TEST_CASE("shuffling takes every sample once an epoch, in an order of its own", "[history]") {
  std::vector<std::vector<std::size_t>> order;
  OneWeightEach problem(1);
  problem.model.fit(
      problem.x, problem.y,
      {.epochs = 3, .batch_size = 1, .seed = 2, .callbacks = {OrderRecorder{&problem, &order}}, .verbose = 0});
  REQUIRE(order.size() == 3 * problem.count);
  std::vector<std::vector<std::size_t>> epochs(3);
  for (std::size_t i = 0; i < order.size(); ++i) {
    REQUIRE(order[i].size() == 1);
    epochs[i / problem.count].push_back(order[i].front());
  }
  std::vector<std::size_t> all(problem.count);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
  for (const auto& epoch : epochs) {
    CHECK(epoch != all);
    CHECK(std::is_permutation(epoch.begin(), epoch.end(), all.begin()));
  }
  CHECK(epochs[0] != epochs[1]);
  CHECK(epochs[1] != epochs[2]);

  std::vector<std::vector<std::size_t>> kept;
  OneWeightEach straight(4);
  straight.model.fit(straight.x, straight.y,
                     {.batch_size = 4, .shuffle = false, .callbacks = {OrderRecorder{&straight, &kept}}, .verbose = 0});
  CHECK(kept == std::vector<std::vector<std::size_t>>{{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}});
  for (const float weight : straight.weights()) CHECK(weight == -1.0F);
}

TEST_CASE("a weight of 0 leaves a sample out, a weight of 2 takes it twice", "[history]") {
  const auto x = normal_numbers({8, 4}, 1);
  const auto y = labels_below(3, 8, 2);
  const std::vector<float> weight{1, 0, 2, 1, 0, 1, 1, 2};
  std::vector<float> chosen_x;
  std::vector<std::int32_t> chosen_y;
  for (std::size_t i = 0; i < 8; ++i)
    for (int n = 0; n < static_cast<int>(weight[i]); ++n) {
      chosen_x.insert(chosen_x.end(), x.data() + 4 * i, x.data() + 4 * (i + 1));
      chosen_y.push_back(y[i]);
    }
  const std::size_t count = chosen_y.size();
  REQUIRE(count == 8);  // so that the means are over as many
  const auto chosen = tesla::view(chosen_x, {count, 4});

  Sequential weighted = made(), plain = made();
  const auto history = weighted.fit(x, y, {.epochs = 5, .batch_size = 8, .sample_weight = weight, .verbose = 0});
  const auto wanted = plain.fit(chosen, chosen_y, {.epochs = 5, .batch_size = 8, .verbose = 0});
  for (std::size_t i = 0; i < 5; ++i) CHECK(history["loss"][i] == Approx(wanted["loss"][i]).epsilon(1e-5));
  for (const auto& p : weighted.parameters()) {
    const auto found = p.value(), other = plain.parameter(p.name()).value();
    for (std::size_t i = 0; i < found.size(); ++i) CHECK(std::fabs(found[i] - other[i]) < 1e-6F);
  }
  CHECK(weighted.evaluate(tesla::data::Samples(x, y, weight))["loss"] ==
        Approx(weighted.evaluate(chosen, chosen_y)["loss"]).epsilon(1e-5));

  // Weights follow their samples when these are shuffled: a sample of weight 0 moves nothing in any batch.
  OneWeightEach problem(4);
  std::vector<double> each(problem.count, 1.0);
  each[3] = 0, each[7] = 0.5;
  problem.model.fit(problem.x, problem.y, {.batch_size = 4, .seed = 9, .sample_weight = each, .verbose = 0});
  const auto moved = problem.weights();
  for (std::size_t i = 0; i < moved.size(); ++i) CHECK(moved[i] == static_cast<float>(-each[i]));
}

TEST_CASE("a network learns digits", "[history]") {
  const auto [train, test] = tesla::data::digits({.train = 2000, .test = 500});
  Sequential model({.seed = 1});
  model.add_layer(Dense({.units = 64, .activation = tesla::relu})).add_layer(Dense({.units = 10}));
  model.compile(tesla::optim::Adam({.learning_rate = 2e-3}), tesla::loss::SparseCategoricalCrossEntropy(),
                {tesla::metric::Accuracy()});
  const auto history = model.fit(train, {.epochs = 8, .batch_size = 32, .validation = test, .verbose = 0});
  CHECK(history["loss"].back() < history["loss"].front() / 4);
  CHECK(history["accuracy"].back() > 0.95);
  CHECK(history["val_accuracy"].back() > 0.9);
  const auto classes = tesla::argmax(model.predict(test.x()));
  std::size_t right = 0;
  for (std::size_t i = 0; i < classes.size(); ++i) right += classes[i] == static_cast<std::size_t>(test.y()[i]) ? 1 : 0;
  CHECK(static_cast<double>(right) / 500 == Approx(history["val_accuracy"].back()));
}

}  // namespace test_train_history
