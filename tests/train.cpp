// train and evaluate as functions, optimizers made for parameters, and loops of one's own.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <io/temporary_folder.hpp>
#include <model/support.hpp>
#include <string>
#include <utility>
#include <vector>

using tesla::Dense;
using tesla::Sequential;
using tesla::data::batches;
using tesla::loss::SparseCategoricalCrossEntropy;
namespace loss = tesla::loss;
namespace optim = tesla::optim;

namespace {

const auto x = normal_numbers({75, 2, 3}, 1);
const auto y = labels_below(4, 75, 2);

Sequential fresh() {
  Sequential model{tesla::Flatten(), Dense({.units = 9, .activation = tesla::relu}), Dense({.units = 4})};
  model.build({2, 3});
  return model;
}

/// A loss whose options cannot be compared, as it does not list them.
struct Scaled {
  static constexpr std::string_view kind = "Scaled";
  double factor = 1;
  loss::Targets targets() const { return loss::Targets::values; }
  template <class T, class B>
  double operator()(B& backend, tesla::Panels<const T> a, tesla::backend::Target<T> b, const T* weights,
                    tesla::Panels<T> gradient) const {
    return loss::mean_over_features(
        backend, [f = factor](auto p, auto t) { return (p - t) * (p - t) * f; }, a, b, weights, gradient);
  }
};

// All three ways, three epochs of batches of 20, the last one of 15.
template <class Optimizer, class Loss, class Targets>
void check_three_ways(const auto& options, const Loss& loss, const Targets& targets) {
  Sequential usual = fresh(), function = fresh(), loop = fresh();
  usual.compile(Optimizer(options), loss);
  const auto history = usual.fit(x, targets, {.epochs = 3, .batch_size = 20, .seed = 5, .verbose = 0});

  const Optimizer first(function.parameters(), options);
  auto trained =
      tesla::train(function, x, targets, first, loss, {.epochs = 1, .batch_size = 20, .seed = 5, .verbose = 0});
  CHECK(trained["loss"] == std::vector<double>{history["loss"][0]});
  const Optimizer copy = first;  // is the same optimizer
  trained = tesla::train(function, tesla::data::Samples(x, targets), copy, loss,
                         {.epochs = 2, .batch_size = 20, .seed = 5, .verbose = 0});
  CHECK(trained["loss"][1] == history["loss"][2]);
  CHECK(parameter_bits(function) == parameter_bits(usual));

  const Optimizer second(loop.parameters(), options);
  auto range = batches(x, targets, {.size = 20, .seed = 5});
  for (int epoch = 0; epoch < 3; ++epoch) {
    double sum = 0;
    for (const auto& batch : range)
      sum += loop.train_step(batch, loss, second) * static_cast<double>(batch.x.samples());
    CHECK(sum / 75 == Approx(history["loss"][static_cast<std::size_t>(epoch)]));
  }
  CHECK(parameter_bits(loop) == parameter_bits(usual));
}

}  // namespace

TEST_CASE("compile and fit, train, and a loop of one's own give the same bits", "[train]") {
  const SparseCategoricalCrossEntropy labels;
  check_three_ways<optim::SGD>(optim::SGDOptions{.learning_rate = 0.1f, .momentum = 0.9}, labels, y);
  check_three_ways<optim::Adam>(optim::AdamOptions{.learning_rate = 0.01}, labels, y);
  check_three_ways<optim::AdamW>(optim::AdamWOptions{}, labels, y);
  check_three_ways<optim::RMSprop>(optim::RMSpropOptions{.momentum = 0.5}, labels, y);
  check_three_ways<optim::Adagrad>(optim::AdagradOptions{}, labels, y);
  check_three_ways<optim::Lion>(optim::LionOptions{}, labels, y);
  check_three_ways<optim::LAMB>(optim::LAMBOptions{}, labels, y);
  const auto numbers = normal_numbers({75, 4}, 3);
  const optim::AdamOptions falling{.learning_rate = tesla::schedule::Piecewise({.rates = {0.01, 0.001}, .until = {5}})};
  check_three_ways<optim::Adam>(falling, Scaled{1.5}, numbers);
  check_three_ways<optim::Adam>(falling, loss::custom([](auto a, auto b) { return (a - b) * (a - b); }), numbers);
}

TEST_CASE("the three ways agree on the reference backend", "[train]") {
  using Model = tesla::BasicSequential<double, tesla::backend::Reference>;
  Model usual{tesla::Flatten(), Dense({.units = 4})}, loop{tesla::Flatten(), Dense({.units = 4})};
  usual.compile(optim::Adam(), SparseCategoricalCrossEntropy());
  usual.fit(x, y, {.batch_size = 25, .verbose = 0});
  loop.build({2, 3});
  const optim::Adam optimizer(loop.parameters());
  for (const auto& batch : batches(x, y, {.size = 25}))
    loop.train_step(batch, SparseCategoricalCrossEntropy(), optimizer);
  CHECK(parameter_bits(loop) == parameter_bits(usual));
}

TEST_CASE("an optimizer made for parameters goes on, any other begins anew", "[train]") {
  const optim::SGDOptions options{.learning_rate = 0.1, .momentum = 0.9};
  const SparseCategoricalCrossEntropy loss;
  const auto twice = [&](const auto& first, const auto& second, Sequential& model) {
    tesla::train(model, x, y, first, loss, {.shuffle = false, .verbose = 0});
    tesla::train(model, x, y, second, loss, {.shuffle = false, .verbose = 0});
    return parameter_bits(model);
  };
  Sequential going_on = fresh(), anew = fresh(), free = fresh(), by_hand = fresh();
  const optim::SGD one(going_on.parameters(), options);
  const std::string expected = twice(one, one, going_on);
  const optim::SGD a(anew.parameters(), options), b(anew.parameters(), options);
  const std::string begun_twice = twice(a, b, anew);
  CHECK(begun_twice != expected);
  CHECK(twice(optim::SGD(options), optim::SGD(options), free) == begun_twice);
  for (int i = 0; i < 2; ++i) {
    by_hand.compile(optim::SGD(options), loss);
    by_hand.fit(x, y, {.shuffle = false, .verbose = 0});
  }
  CHECK(parameter_bits(by_hand) == begun_twice);
}

TEST_CASE("options of an optimizer may change between steps", "[train]") {
  Sequential usual = fresh(), model = fresh();
  const SparseCategoricalCrossEntropy loss;
  usual.compile(optim::SGD({.learning_rate = 0.5, .momentum = 0.9}), loss);
  usual.train_step(x, y);
  usual.scale_learning_rate(0.25);
  usual.train_step(x, y);
  optim::SGD optimizer(model.parameters(), {.learning_rate = 0.5, .momentum = 0.9});
  model.train_step({x, y}, loss, optimizer);
  optimizer.learning_rate = 0.125;
  model.train_step({x, y}, loss, optimizer);
  CHECK(parameter_bits(model) == parameter_bits(usual));
  CHECK(model.learning_rate() == 0.125);
  CHECK(model.training().step == 2);
}

TEST_CASE("an optimizer belongs to one model", "[train]") {
  Sequential model = fresh(), other = fresh();
  const SparseCategoricalCrossEntropy loss;
  const auto optimizer = optim::Adam(other.parameters(), {.learning_rate = 0.01});
  const std::string before = parameter_bits(model);
  const std::vector<std::string> words{"this Adam was made with the parameters of another model", "optim::Adam("};
  check_raises<tesla::UsageError>([&] { tesla::train(model, x, y, optimizer, loss); }, words);
  check_raises<tesla::UsageError>([&] { model.train_step({x, y}, loss, optimizer); }, words);
  check_raises<tesla::UsageError>([&] { model.compile(optimizer, loss); }, words);
  CHECK(parameter_bits(model) == before);
  check_raises<tesla::UsageError>([&] { model.train_step(x, y); }, {"call compile"});  // nothing was set

  check_raises<tesla::UsageError>(
      [&] {
        model.train_step({x, y}, loss, optim::Adam());
      },
      {"this Adam would begin anew with each step", "optim::Adam(model.parameters()"});
  auto some = model.parameters();
  some.pop_back();
  check_raises<tesla::UsageError>([&] { optim::SGD{some}; }, {"SGD: takes all 4 parameters", "not 3", "freeze"});
  some.push_back(other.parameters().back());
  check_raises<tesla::UsageError>([&] { optim::SGD{some}; }, {"SGD", "more than one model"});
  some.clear();
  check_raises<tesla::UsageError>([&] { optim::LAMB{some}; }, {"LAMB", "no parameters"});
  check_raises<tesla::UsageError>([&] { optim::SGD(model.parameters(), {.momentum = 2}); }, {"SGD", "momentum"});

  // It follows the model that it belongs to, and so do layers that are added.
  other.train_step({x, y}, loss, optimizer);
  Sequential moved = std::move(other);
  moved.train_step({x, y}, loss, optimizer);
  moved.add_layer(Dense({.units = 4}));
  moved.build({2, 3});
  moved.train_step({x, y}, loss, optimizer);
  CHECK(moved.training().step == 3);
}

TEST_CASE("evaluate gives any loss, and leaves what a model was compiled with", "[train]") {
  Sequential model = fresh(), same = fresh();
  for (Sequential* m : {&model, &same})
    m->compile(optim::Adam(), SparseCategoricalCrossEntropy(), {tesla::metric::Accuracy()});
  model.fit(x, y, {.verbose = 0});
  same.fit(x, y, {.verbose = 0});
  const auto scores = model.evaluate(x, y);
  CHECK(tesla::evaluate(model, x, y, SparseCategoricalCrossEntropy(), {.batch_size = 10}) == Approx(scores["loss"]));
  CHECK(tesla::evaluate(model, tesla::data::Samples(x, y), SparseCategoricalCrossEntropy()) == scores["loss"]);
  const auto numbers = normal_numbers({75, 4}, 3);
  const auto outputs = model.predict(x);
  double squares = 0;
  for (std::size_t i = 0; i < outputs.size(); ++i) squares += (outputs[i] - numbers[i]) * (outputs[i] - numbers[i]);
  CHECK(tesla::evaluate(model, x, numbers, loss::MeanSquaredError()) == Approx(squares / 300));
  check_raises<tesla::ShapeError>(
      [&] {
        tesla::evaluate(model, x, normal_numbers({75, 3}, 3), loss::Huber());
      },
      {"evaluate: y", "4 outputs"});
  CHECK(model.fit(x, y, {.verbose = 0})["accuracy"] == same.fit(x, y, {.verbose = 0})["accuracy"]);
  CHECK(parameter_bits(model) == parameter_bits(same));
  // train keeps the metrics.
  CHECK(tesla::train(model, x, y, optim::SGD(), SparseCategoricalCrossEntropy(), {.verbose = 0}).contains("accuracy"));

  Sequential unbuilt{tesla::Flatten(), Dense({.units = 4})};
  CHECK(tesla::evaluate(unbuilt, x, y, SparseCategoricalCrossEntropy()) > 0);
}

TEST_CASE("training goes on from a file with an optimizer made for what was read", "[train]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("model.safetensors");
  const optim::AdamOptions options{.learning_rate = 0.01};
  const SparseCategoricalCrossEntropy loss;
  const auto epoch = [&](Sequential& model, const auto& optimizer) {
    tesla::train(model, x, y, optimizer, loss, {.batch_size = 20, .verbose = 0});
  };
  Sequential whole = fresh(), half = fresh();
  const optim::Adam optimizer(whole.parameters(), options), first(half.parameters(), options);
  epoch(whole, optimizer);
  epoch(whole, optimizer);
  epoch(half, first);
  half.save(path);

  Sequential loaded = Sequential::load(path);
  check_raises<tesla::UsageError>([&] { epoch(loaded, first); }, {"another model"});
  epoch(loaded, optim::Adam(loaded.parameters(), options));
  CHECK(parameter_bits(loaded) == parameter_bits(whole));
  epoch(loaded, optim::Adam(loaded.parameters(), options));  // but only the first one goes on
  epoch(whole, optimizer);
  CHECK(parameter_bits(loaded) != parameter_bits(whole));

  Sequential restored = fresh();
  const optim::Adam own(restored.parameters(), options);
  restored.compile(own, loss);
  restored.restore(path);
  epoch(restored, own);
  epoch(restored, own);
  CHECK(parameter_bits(restored) == parameter_bits(whole));
}
