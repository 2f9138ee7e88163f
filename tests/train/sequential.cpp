// Making models: layers, names, parameters, summaries, and changes to a model that was trained.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <model/support.hpp>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace test_train_sequential {

using tesla::Dense;
using tesla::Flatten;
using tesla::Sequential;
using tesla::Shape;

namespace {

std::vector<std::string> parameter_names(Sequential& model) {
  std::vector<std::string> result;
  for (const auto& p : model.parameters()) result.push_back(p.name());
  return result;
}

std::vector<std::string> layer_names(Sequential& model) {
  std::vector<std::string> result;
  for (const auto& entry : model.network().entries()) result.push_back(entry.name);
  return result;
}

const auto x = normal_numbers({20, 2, 3}, 1);
const auto y = labels_below(4, 20, 2);

void compile(Sequential& model, const auto& optimizer) {
  model.compile(optimizer, tesla::loss::SparseCategoricalCrossEntropy(), {tesla::metric::Accuracy()});
}

}  // namespace

TEST_CASE("a model is made from a list of layers or one by one", "[sequential]") {
  Sequential listed{Flatten(), Dense({.units = 5, .activation = tesla::relu}), Dense({.units = 4})};
  Sequential added;
  added.add_layer(Flatten()).add_layer(Dense({.units = 5})).add_layer(tesla::ReLU()).add_layer(Dense({.units = 4}));
  CHECK(bits(listed.predict(x)) == bits(added.predict(x)));
  CHECK(listed.predict(x).shape() == Shape{20, 4});

  static_assert(!std::is_copy_constructible_v<Sequential>);
  Sequential moved = std::move(listed);
  CHECK(bits(moved.predict(x)) == bits(added.predict(x)));
  compile(moved, tesla::optim::Adam());
  moved.fit(x, y, {.verbose = 0});
  Sequential again;
  again = std::move(moved);
  CHECK(again.fit(x, y, {.verbose = 0})["loss"].size() == 1);
}

TEST_CASE("layers without a name get one that is their own", "[sequential]") {
  Sequential model{tesla::Input({2, 3}),
                   Flatten(),
                   Dense({.units = 5}),
                   tesla::ReLU(),
                   Dense({.units = 5, .name = "mine"}),
                   tesla::ReLU(),
                   Dense({.units = 5}),
                   tesla::LeakyReLU({.name = "leak"}),
                   Dense({.units = 5})};
  CHECK(layer_names(model) ==
        std::vector<std::string>{"input", "flatten", "dense", "relu", "mine", "relu_1", "dense_1", "leak", "dense_2"});
}

TEST_CASE("parameters are listed in the order of the layers, with their shapes", "[sequential]") {
  Sequential model{tesla::Input({6}), Dense({.units = 5, .name = "first"}), Dense({.units = 4, .use_bias = false})};
  // The shape of the input is known, so nothing needs to be built by hand.
  CHECK(parameter_names(model) == std::vector<std::string>{"first.weight", "first.bias", "dense.weight"});
  CHECK(model.parameter("first.weight").shape() == Shape{5, 6});
  CHECK(model.parameter("first.bias").shape() == Shape{5});
  CHECK(model.parameter("dense.weight").shape() == Shape{4, 5});
  CHECK(model.count_parameters() == 30 + 5 + 20);
  CHECK(model.parameter("dense.weight").size() == 20);

  std::vector<double> values(30);
  for (std::size_t i = 0; i < 30; ++i) values[i] = 0.5 * static_cast<double>(i);
  model.parameter("first.weight").assign(values);
  const auto read = model.parameter("first.weight").value();
  CHECK(read(4, 5) == 14.5F);
  CHECK(std::vector<double>(read.begin(), read.end()) == values);

  // Output 1 of the first layer for a one at input 2 is weight {1, 2}.
  model.parameter("dense.weight").assign(std::vector<int>{1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0});
  CHECK(model.predict(tesla::view(std::vector<float>{0, 0, 1, 0, 0, 0}, {1, 6}))[1] == 4.0F);
}

TEST_CASE("a summary shows layers, shapes, parameters and memory", "[sequential]") {
  Sequential model{Flatten(), Dense({.units = 300, .activation = tesla::relu, .name = "hidden"}), Dense({.units = 10})};
  const std::string before = model.summary_text();
  CHECK_THAT(before, Catch::StartsWith("TESLA ") && Catch::Contains("hidden") && Catch::Contains("?") &&
                         Catch::Contains("build(shape)"));
  model.build({28, 28, 1});
  compile(model, tesla::optim::Adam());
  const std::string text = model.summary_text(64);
  INFO(text);
  for (const char* words :
       {"layer", "kind", "output", "parameters", "flatten", "Flatten", "784", "hidden", "Dense", "300", "235500",
        "dense", "3010", "238510 parameters", "batch 64", "gradients", "optimizer"})
    CHECK_THAT(text, Catch::Contains(words));
  CHECK_THAT(text, Catch::Contains(tesla::model::bytes_text(model.training_bytes(64))));
  CHECK(model.count_parameters() == 238510);
  CHECK(model.training_bytes(128) > model.training_bytes(64));
  CHECK(model.training_bytes(64) > 4 * 238510 * sizeof(float));  // values, gradients and two of Adam

  Sequential known{tesla::Input({4}), Dense({.units = 2})};
  CHECK_THAT(known.summary_text(), Catch::Contains("10 parameters"));
  CHECK_NOTHROW(Sequential().summary_text());
}

TEST_CASE("fit, predict and evaluate build a model from the data", "[sequential]") {
  const auto make = [] {
    Sequential model{Flatten(), Dense({.units = 4})};
    compile(model, tesla::optim::SGD());
    return model;
  };
  Sequential built = make(), predicted = make(), evaluated = make(), stepped = make();
  built.build({2, 3});
  predicted.predict(x);
  evaluated.evaluate(x, y);
  CHECK(parameter_bits(predicted) == parameter_bits(built));
  CHECK(parameter_bits(evaluated) == parameter_bits(built));
  const double loss = built.train_step(x, y);
  CHECK(stepped.train_step(x, y) == loss);
  CHECK(parameter_bits(stepped) == parameter_bits(built));
  // Another shape of as many features is taken as it is.
  const tesla::Tensor<float> flat = x.reshaped({20, 6});
  CHECK(bits(built.predict(flat)) == bits(built.predict(x)));
}

TEST_CASE("layers added later keep what the others have learned", "[sequential]") {
  Sequential model{Flatten(), Dense({.units = 4, .name = "first"})};
  compile(model, tesla::optim::Adam());
  model.fit(x, y, {.epochs = 2, .verbose = 0});
  const auto weight = model.parameter("first.weight").value();
  model.add_layer(tesla::Tanh()).add_layer(Dense({.units = 4, .name = "second"}));
  model.build({2, 3});
  CHECK(bits(model.parameter("first.weight").value()) == bits(weight));
  CHECK(model.count_parameters() == 28 + 20);
  CHECK(model.fit(x, y, {.epochs = 30, .verbose = 0})["loss"].back() < 2);
  CHECK(bits(model.parameter("first.weight").value()) != bits(weight));
}

TEST_CASE("compiling again begins with a new optimizer", "[sequential]") {
  for (const bool grown : {false, true}) {
    INFO(grown);
    Sequential used{Flatten(), Dense({.units = 4, .name = "first"})},
        fresh{Flatten(), Dense({.units = 4, .name = "first"})};
    compile(used, tesla::optim::Adam());
    used.fit(x, y, {.epochs = 2, .verbose = 0});
    if (grown) {
      used.add_layer(Dense({.units = 4, .name = "second"}));
      fresh.add_layer(Dense({.units = 4, .name = "second"}));
    }
    compile(used, tesla::optim::AdamW());
    compile(fresh, tesla::optim::AdamW());
    used.build({2, 3});
    fresh.build({2, 3});
    for (auto& p : fresh.parameters()) p.assign(used.parameter(p.name()).value());
    for (int i = 0; i < 3; ++i) CHECK(used.train_step(x, y) == fresh.train_step(x, y));
    CHECK(parameter_bits(used) == parameter_bits(fresh));
  }
}

TEST_CASE("predict_into writes rows into memory that is there", "[sequential]") {
  Sequential model{Flatten(), Dense({.units = 4})};
  const auto wanted = model.predict(x);
  std::vector<float> out(82, 7.0F);
  model.predict_into(x, std::span(out).subspan(1, 80), {.batch_size = 6});
  CHECK(bits(std::vector<float>(out.begin() + 1, out.end() - 1)) == bits(wanted));
  CHECK(out.front() == 7.0F);
  CHECK(out.back() == 7.0F);
}

}  // namespace test_train_sequential
