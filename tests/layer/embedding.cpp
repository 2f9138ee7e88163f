// Embedding: what is looked up, gradients and updates of rows, PyTorch's numbers, files, and complaints about numbers.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <layer/checks.hpp>
#include <layer/sequences.hpp>
#include <reference/embedding.hpp>
#include <string>
#include <vector>

namespace test_layer_embedding {

using namespace tesla;

namespace {

template <class T, class B>
using Model = BasicSequential<T, B>;
using FloatOnCpu = Model<float, backend::Cpu>;
using DoubleOnCpu = Model<double, backend::Cpu>;
using DoubleOnReference = Model<double, backend::Reference>;

/// Some tokens come often, some once, most never.
template <class T>
Tensor<T> token_rows(std::size_t batch, std::size_t length, std::size_t count) {
  Tensor<T> x({batch, length});
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(i % 3 == 0 ? i % 5 : (i * i + 7 * i) % count);
  return x;
}

template <class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const DataError& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEMPLATE_TEST_CASE("embedding: gradients", "[layer][embedding][gradients]", backend::Reference, backend::Cpu) {
  for (const std::size_t batch : {1, 5, 64, 70})
    for (const std::size_t length : {1, 3}) {
      INFO("batch " << batch << ", length " << length);
      Model<double, TestType> model(SequentialOptions{.seed = 5});
      model.add_layer(Embedding({.tokens = 9, .units = 3}));
      model.build({length});
      layer_test::check_gradients(std::move(model), token_rows<double>(batch, length, 9), 3 * length);
    }
}

TEMPLATE_TEST_CASE("embedding: ten steps are PyTorch's", "[layer][embedding][pytorch]", FloatOnCpu, DoubleOnCpu,
                   DoubleOnReference) {
  using T = typename TestType::Scalar;
  using namespace reference::embedding;
  constexpr double tolerance = sizeof(T) == sizeof(float) ? 1e-5 : 1e-12;
  constexpr std::size_t values = batch * length * units;
  for (const bool adam : {false, true}) {
    INFO((adam ? "adam" : "sgd"));
    TestType model;
    model.add_layer(Embedding({.tokens = tokens, .units = units, .padding_index = padding}));
    model.build({length});
    model.parameter("embedding.weight").assign(std::vector<T>(initial, initial + tokens * units));
    if (adam)
      model.compile(optim::Adam({.learning_rate = 0.1, .epsilon = 1e-20}), loss::MeanSquaredError());
    else
      model.compile(optim::SGD({.learning_rate = 0.5}), loss::MeanSquaredError());
    for (std::size_t step = 0; step < steps; ++step) {
      const double loss = model.train_step(ArrayView(numbers + step % 2 * batch * length, {batch, length}),
                                           ArrayView(targets + step % 2 * values, {batch, values / batch}));
      CHECK(loss == Approx((adam ? adam_losses : sgd_losses)[step]).margin(tolerance).epsilon(0));
    }
    const auto table = model.parameter("embedding.weight").value();
    double worst = 0;
    for (std::size_t i = 0; i < table.size(); ++i)
      worst = std::max(worst, std::abs(static_cast<double>(table[i]) - (adam ? adam_trained : sgd_trained)[i]));
    CHECK(worst < tolerance);
  }
}

TEST_CASE("embedding: the same on both backends, with every kind of step", "[layer][embedding]") {
  const std::size_t length = 5, count = 40;
  const auto x = token_rows<float>(90, length, count);
  Tensor<float> y({90, 2});
  random::fill_normal(y, {.seed = 2});
  const auto trained = [&](auto model, const auto& optimizer, std::size_t accumulate) {
    using M = decltype(model);
    model.add_layer(Embedding({.tokens = count, .units = 17, .padding_index = 3}));
    model.add_layer(LSTM({.units = 6})).add_layer(Dense({.units = 2}));
    model.compile(optimizer, loss::MeanSquaredError());
    typename M::Options options;
    options.epochs = 3, options.batch_size = 25, options.accumulate = accumulate, options.verbose = 0;
    model.fit(x, y, options);
    return model.parameter("embedding.weight").value();
  };
  const auto compare = [&](const auto& optimizer, std::size_t accumulate) {
    INFO(optimizer.kind << ", batches in a step: " << accumulate);
    const auto fast = trained(Sequential(), optimizer, accumulate);
    const auto exact = trained(DoubleOnReference(), optimizer, accumulate);
    double worst = 0;
    for (std::size_t i = 0; i < fast.size(); ++i)
      worst = std::max(worst, std::abs(static_cast<double>(fast[i]) - static_cast<double>(exact[i])));
    CHECK(worst < 2e-4);
    for (std::size_t u = 0; u < 17; ++u) CHECK(fast[3 * 17 + u] == 0);
  };
  for (const std::size_t accumulate : {1, 2}) {
    compare(optim::SGD({.learning_rate = 0.2, .momentum = 0.9}), accumulate);
    compare(optim::SGD({.learning_rate = 0.2, .clip_norm = 0.01}), accumulate);
    compare(optim::AdamW({.learning_rate = 0.01, .weight_decay = 0.1}), accumulate);
    compare(optim::LAMB({.learning_rate = 0.01}), accumulate);
  }
}

TEST_CASE("embedding: a step of several batches is that of one", "[layer][embedding]") {
  const auto x = token_rows<double>(24, 3, 30);
  Tensor<double> y({24, 12});
  random::fill_normal(y, {.seed = 2});
  const auto trained = [&](std::size_t batch_size, std::size_t accumulate) {
    DoubleOnCpu model;
    model.add_layer(Embedding({.tokens = 30, .units = 4}));
    model.compile(optim::Adam(), loss::MeanSquaredError());
    model.fit(x, y, {.epochs = 3, .batch_size = batch_size, .shuffle = false, .verbose = 0, .accumulate = accumulate});
    return model.parameter("embedding.weight").value();
  };
  const auto one = trained(12, 1), several = trained(4, 3);
  for (std::size_t i = 0; i < one.size(); ++i) CHECK(several[i] == Approx(one[i]).margin(1e-12));
}

TEST_CASE("embedding: rows that are not used stay, with what the optimizer keeps of them", "[layer][embedding]") {
  Sequential model;
  model.add_layer(Embedding({.tokens = 6, .units = 2}));
  model.compile(optim::AdamW({.learning_rate = 0.1, .weight_decay = 0.1}), loss::MeanSquaredError());
  const std::vector<float> first = {1, 4}, second = {4, 4}, target = {1, 2, 3, 4};
  model.build({2});
  const auto at_first = model.parameter("embedding.weight").value();
  model.train_step(view(first, {1, 2}), view(target, {1, 4}));
  const auto once = model.parameter("embedding.weight").value();
  model.train_step(view(second, {1, 2}), view(target, {1, 4}));
  const auto twice = model.parameter("embedding.weight").value();
  for (std::size_t row = 0; row < 6; ++row)
    for (std::size_t u = 0; u < 2; ++u) {
      CHECK((once[row * 2 + u] != at_first[row * 2 + u]) == (row == 1 || row == 4));
      CHECK((twice[row * 2 + u] != once[row * 2 + u]) == (row == 4));
    }
}

TEST_CASE("embedding: the same bits at any number of threads", "[layer][embedding]") {
  const auto x = token_rows<float>(200, 20, 1000);
  Tensor<float> y({200, 1});
  random::fill_normal(y, {.seed = 2});
  const auto trained = [&](int threads) {
    set_threads(threads);
    Sequential model;
    model.add_layer(Embedding({.tokens = 1000, .units = 100}))
        .add_layer(GRU({.units = 5}))
        .add_layer(Dense({.units = 1}));
    model.compile(optim::Adam(), loss::MeanSquaredError());
    model.fit(x, y, {.epochs = 2, .batch_size = 70, .verbose = 0});
    set_threads(0);
    return model.parameter("embedding.weight").value();
  };
  const auto one = trained(1);
  for (const int threads : {2, 5}) {
    const auto more = trained(threads);
    CHECK(std::memcmp(one.data(), more.data(), one.size() * sizeof(float)) == 0);
  }
}

TEST_CASE("embedding: a step costs what its rows cost", "[layer][embedding]") {
  const auto x = token_rows<float>(64, 16, 1000);
  Tensor<float> y({64, 16 * 64});
  random::fill_normal(y, {.seed = 2});
  const auto seconds = [&](std::size_t count) {
    Sequential model;
    model.add_layer(Embedding({.tokens = count, .units = 64}));
    model.compile(optim::Adam({.clip_norm = 1}), loss::MeanSquaredError());
    double best = 1e9;
    for (int i = 0; i < 15; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      model.train_step(x, y);
      if (i > 0) best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return best;
  };
  const double few = seconds(1000), many = seconds(200000);
  CAPTURE(few, many);
  CHECK(many < 10 * few);  // a pass over the table would be a hundred times as long
}

TEST_CASE("embedding: saved, loaded, and trained on with the same bits", "[layer][embedding]") {
  const std::string path = (std::filesystem::temp_directory_path() / "tesla_embedding.safetensors").string();
  const auto x = token_rows<float>(20, 5, 30);
  Tensor<float> y({20, 2});
  random::fill_normal(y, {.seed = 2});
  Sequential model;
  model.add_layer(Embedding({.tokens = 30, .units = 6, .padding_index = 0}))
      .add_layer(LSTM({.units = 2, .masking = true}));
  model.compile(optim::Adam(), loss::MeanSquaredError());
  model.fit(x, y, {.epochs = 2, .batch_size = 8, .verbose = 0});
  model.save(path);
  auto loaded = Sequential::load(path);
  for (auto* m : {&model, &loaded}) m->fit(x, y, {.epochs = 1, .batch_size = 8, .verbose = 0});
  const auto a = model.predict(x), b = loaded.predict(x);
  CHECK(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
  for (std::size_t u = 0; u < 6; ++u) CHECK(loaded.parameter("embedding.weight").value()[u] == 0);
  std::filesystem::remove(path);
}

TEST_CASE("embedding: complaints", "[layer][embedding]") {
  using Catch::Matchers::Contains;
  using layer_test::complaint;
  CHECK_THAT(complaint(Embedding({.units = 2}), {4}), Contains(".tokens"));
  CHECK_THAT(complaint(Embedding({.tokens = 1 << 25, .units = 2}), {4}), Contains("16777216"));
  CHECK_THAT(complaint(Embedding({.tokens = 3}), {4}), Contains(".units"));
  CHECK_THAT(complaint(Embedding({.tokens = 3, .units = 2, .padding_index = 3}), {4}), Contains(".padding_index = 3"));
  CHECK_THAT(complaint(Embedding({.tokens = 3, .units = 2}), {4, 2}), Contains("{length}") && Contains("{4, 2}"));
  CHECK_THAT(complaint(Embedding({.tokens = 3, .units = 2}), {0}), Contains("{0}"));

  Sequential model;
  model.add_layer(Embedding({.tokens = 10, .units = 2}));
  model.compile(optim::Adam(), loss::MeanSquaredError());
  model.build({3});
  const auto before = model.parameter("embedding.weight").value();
  Tensor<float> y({40, 6});
  for (const float wrong : {-1.0F, 2.5F, 10.0F}) {
    auto x = token_rows<float>(40, 3, 10);
    x[3 * 31 + 2] = wrong;
    const std::string which = "sample 31, step 2 is " + text(wrong), wanted = "whole numbers from 0 to 9";
    // In the last batch of the first epoch; nothing is trained before.
    CHECK_THAT(message_of([&] { model.fit(x, y, {.batch_size = 10, .shuffle = false, .verbose = 0}); }),
               Contains("fit: x: " + which) && Contains(wanted));
    CHECK_THAT(message_of([&] { model.predict(x); }), Contains("predict: x: " + which) && Contains(wanted));
    CHECK_THAT(message_of([&] { model.evaluate(x, y); }), Contains(which));
    CHECK_THAT(message_of([&] { model.train_step(x, y); }), Contains(which));
  }
  const auto after = model.parameter("embedding.weight").value();
  CHECK(std::memcmp(before.data(), after.data(), before.size() * sizeof(float)) == 0);
  // Behind a layer that changes the samples only their values tell.
  Sequential behind;
  behind.add_layer(ReLU()).add_layer(Embedding({.tokens = 10, .units = 2}));
  CHECK_THAT(message_of([&] {
               behind.predict(Tensor<float>({1, 3}, {11, 1, 2}));
             }),
             Contains("from the layer before: sample 0, step 0 is 11") && Contains("a larger .tokens"));
  CHECK_THAT(message_of([&] {
               behind.predict(Tensor<float>({1, 3}, {1.5F, 1, 2}));
             }),
             Contains("is 1.5") && !Contains(".tokens"));
}

}  // namespace test_layer_embedding
