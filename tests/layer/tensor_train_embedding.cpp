// Embeddings in tensor-train form against the tables they stand for.
#include <tesla/tesla.hpp>

#include <cstring>
#include <io/temporary_folder.hpp>
#include <layer/checks.hpp>
#include <numeric>

namespace test_layer_tensor_train_embedding {

using namespace layer_test;
using Catch::Matchers::Contains;
using Options = layer::TensorTrainEmbeddingOptions;

namespace {

/// Memory out of the host's reach, as a device's is.
struct Far : backend::Reference {
  static constexpr bool host_memory = false;
};

/// Some tokens come often, some once, some never.
template <class T = double>
Tensor<T> token_rows(std::size_t batch, std::size_t length, std::size_t count) {
  Tensor<T> x({batch, length});
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<T>(i % 3 == 0 ? i % 5 % count : (i * i + 7 * i) % count);
  return x;
}

std::vector<Options> all_options() {
  return {{.tokens = 11, .units = 6, .in = {3, 4}, .out = {3, 2}, .rank = 3},
          {.tokens = 30, .units = 12, .in = {2, 5, 3}, .out = {2, 3, 2}, .ranks = {4, 5}, .padding_index = 1},
          {.tokens = 24, .units = 6, .in = {2, 2, 3, 2}, .out = {1, 2, 1, 3}, .rank = 17},
          {.tokens = 9, .units = 5, .in = {9}, .out = {5}},
          {.tokens = 23, .units = 7, .rank = 4, .padding_index = 22},
          {.tokens = 1, .units = 3, .rank = 2},
          {.tokens = 290, .units = 256, .in = {10, 6, 5}, .out = {4, 16, 4}, .rank = 18, .padding_index = 0}};
}

template <class M>
M model_of(const Options& options, std::size_t length) {
  M model(SequentialOptions{.seed = 5});
  model.add_layer(TensorTrainEmbedding(options));
  model.build({length});
  return model;
}

template <class M>
TensorTrainEmbedding layer_of(M& model) {
  return model.template layer<TensorTrainEmbedding>("tensor_train_embedding");
}

template <class A, class B>
double worst_difference(const A& a, const B& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return worst;
}

/// What a step of gradient descent at rate 1 takes off each parameter.
template <class M>
std::vector<Tensor<double>> step_of(M& model, const Tensor<double>& x, const Tensor<double>& y) {
  std::vector<Tensor<double>> result;
  for (const auto& p : model.parameters()) result.push_back(p.value());
  model.compile(optim::SGD({.learning_rate = 1}), loss::MeanSquaredError());
  model.train_step(x, y);
  for (std::size_t i = 0; i < result.size(); ++i) {
    const auto after = model.parameters()[i].value();
    for (std::size_t k = 0; k < after.size(); ++k) result[i][k] -= after[k];
  }
  return result;
}

template <class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEMPLATE_TEST_CASE("tensor-train embedding: looks up what its table holds", "[layer][embedding]", backend::Cpu,
                   backend::Reference, Far) {
  for (const Options& options : all_options()) {
    auto model = model_of<Model<TestType>>(options, 3);
    const Embedding dense = layer_of(model).to_dense();
    const Tensor<double>& table = dense.initial->at(0);
    Model<TestType> table_model;
    table_model.add_layer(dense);
    for (const std::size_t batch : {1, 2, 17, 70, 130}) {
      CAPTURE(options.tokens, batch);
      const auto x = token_rows(batch, 3, options.tokens);
      const auto y = model.predict(x, {.batch_size = batch});
      REQUIRE(worst_difference(y, table_model.predict(x)) < 1e-12);
      for (std::size_t i = 0; i < x.size(); ++i)
        for (std::size_t u = 0; u < options.units; ++u)
          REQUIRE(std::abs(y[i * options.units + u] - table[static_cast<std::size_t>(x[i]) * options.units + u]) <
                  1e-12);
    }
  }
}

TEMPLATE_TEST_CASE("tensor-train embedding: gradients", "[layer][embedding][gradients]", backend::Cpu,
                   backend::Reference, Far) {
  for (const Options& options : all_options())
    for (const std::size_t batch : {1, 5, 70}) {
      CAPTURE(options.tokens, batch);
      if (options.units > 100 && batch > 5 && !std::is_same_v<TestType, backend::Cpu>) continue;  // slow, plain loops
      const std::size_t length = batch == 5 ? 1 : 3;
      check_gradients(model_of<Model<TestType>>(options, length), token_rows(batch, length, options.tokens),
                      options.units * length);
    }
}

TEMPLATE_TEST_CASE("tensor-train embedding: the gradient is the table's, contracted with the other cores",
                   "[layer][embedding][gradients]", backend::Cpu, backend::Reference) {
  for (const Options& options : all_options())
    for (const std::size_t batch : {1, 2, 17, 70, 130}) {
      if (options.units > 100) continue;
      CAPTURE(options.tokens, batch);
      auto model = model_of<Model<TestType>>(options, 3);
      const TensorTrainEmbedding layer = layer_of(model);
      const auto x = token_rows(batch, 3, options.tokens);
      Tensor<double> y({batch, 3 * options.units});
      random::fill_normal(y, {.seed = 2});
      Model<TestType> dense;
      dense.add_layer(layer.to_dense());
      dense.build({3});
      const Tensor<double> table = step_of(dense, x, y)[0];
      const auto cores = step_of(model, x, y);
      // The table is linear in each core.
      for (std::size_t k = 0; k < cores.size(); ++k)
        for (std::size_t e = 0; e < cores[k].size(); ++e) {
          auto one = *layer.initial;
          std::fill(one[k].begin(), one[k].end(), 0.0);
          one[k][e] = 1;
          const Tensor<double> w = network::TensorTrainMatrix<double>(one).to_dense();
          double expected = 0;
          for (std::size_t t = 0; t < options.tokens; ++t)
            for (std::size_t u = 0; u < options.units; ++u)
              expected += table[t * options.units + u] * w[u * w.shape()[1] + t];
          CAPTURE(k, e);
          REQUIRE(std::abs(cores[k][e] - expected) < 1e-12 * (1 + std::abs(expected)));
        }
    }
}

TEST_CASE("tensor-train embedding: what numbers have in common is found once", "[layer][embedding]") {
  const network::Prefixes prefixes({3, 4, 5}, 9);
  std::vector<std::uint32_t> memory(prefixes.numbers()), numbers = {59, 7, 59, 6, 27, 0, 59, 1, 13};
  const std::vector<std::uint32_t> before = numbers;
  prefixes.find(memory, numbers, 13);
  CHECK(prefixes.level(memory, 0).size() == 3);  // 0, 1, 2
  CHECK(prefixes.level(memory, 1).size() == 4);  // (0, 0), (0, 1), (1, 1), (2, 3)
  CHECK(prefixes.level(memory, 2).size() == 6);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (before[i] == 13) {
      CHECK(numbers[i] == network::Prefixes::none);
      continue;
    }
    std::uint32_t place = numbers[i], number = 0, weight = 1;
    for (std::size_t k = 3; k-- > 0;) {
      const auto level = prefixes.level(memory, k);
      number += weight * level.index[place], weight *= k == 2 ? 5 : 4, place = level.parent[place];
    }
    CHECK(number == before[i]);
  }
  for (std::size_t k = 0; k < 3; ++k) {
    const auto level = prefixes.level(memory, k);
    CHECK(std::is_sorted(level.index.begin(), level.index.end()));
  }
}

TEST_CASE("tensor-train embedding: padding is zero, and teaches nothing", "[layer][embedding]") {
  const Options options{.tokens = 30, .units = 12, .in = {2, 5, 3}, .out = {2, 3, 2}, .rank = 4, .padding_index = 7};
  const auto check = [&](auto model) {
    const Tensor<double> x({3, 2}, {7, 8, 7, 7, 1, 7});
    const auto y = model.predict(x);
    for (const std::size_t i : {0, 2, 3, 5})
      for (std::size_t u = 0; u < 12; ++u) CHECK(y[i * 12 + u] == 0);
    CHECK(y[12] != 0);
    const Tensor<double> only({2, 2}, {7, 7, 7, 7}), target({2, 24}, std::vector<double>(48, 1));
    for (const auto& step : step_of(model, only, target))
      for (const double value : step) CHECK(value == 0);
    CHECK(model.predict(x)[0] == 0);
  };
  check(model_of<Model<backend::Cpu>>(options, 2));
  check(model_of<Model<backend::Reference>>(options, 2));
}

TEST_CASE("tensor-train embedding: ten steps are the same on both backends", "[layer][embedding]") {
  const auto trained = [](auto model, std::size_t batch) {
    using T = typename decltype(model)::Scalar;
    model.add_layer(TensorTrainEmbedding({.tokens = 400, .units = 24, .rank = 6, .padding_index = 3, .rate = 2}));
    model.add_layer(LSTM({.units = 5, .masking = true})).add_layer(Dense({.units = 2}));
    model.compile(optim::Adam({.learning_rate = 0.01, .clip_norm = 1}), loss::MeanSquaredError());
    Tensor<T> y({batch, 2});
    random::fill_normal(y, {.seed = 2});
    std::vector<double> result;
    for (int step = 0; step < 10; ++step) result.push_back(model.train_step(token_rows<T>(batch, 5, 390), y));
    for (const auto& p : model.parameters())
      for (const auto v : p.value()) result.push_back(static_cast<double>(v));
    return result;
  };
  for (const std::size_t batch : {1, 2, 17, 70, 130}) {
    CAPTURE(batch);
    const auto exact = trained(Model<backend::Reference>(), batch);
    CHECK(worst_difference(exact, trained(Model<backend::Cpu>(), batch)) < 1e-9);
    CHECK(worst_difference(exact, trained(Sequential(), batch)) < 5e-3);
    CHECK(worst_difference(exact, trained(BasicSequential<float, backend::Reference>(), batch)) < 5e-3);
  }
}

TEST_CASE("tensor-train embedding: the same bits at any number of threads", "[layer][embedding]") {
  const auto x = token_rows<float>(200, 20, 2900);
  Tensor<float> y({200, 1});
  random::fill_normal(y, {.seed = 2});
  const auto trained = [&](int threads) {
    set_threads(threads);
    Sequential model;
    model.add_layer(TensorTrainEmbedding({.tokens = 2900, .units = 96, .rank = 20}))
        .add_layer(GRU({.units = 5}))
        .add_layer(Dense({.units = 1}));
    model.compile(optim::Adam(), loss::MeanSquaredError());
    model.fit(x, y, {.epochs = 2, .batch_size = 70, .verbose = 0});
    set_threads(0);
    std::vector<float> result;
    for (const auto& p : model.parameters())
      for (const float v : p.value()) result.push_back(v);
    return result;
  };
  const auto one = trained(1);
  for (const int threads : {2, 3, 4}) {
    const auto more = trained(threads);
    CHECK(std::memcmp(one.data(), more.data(), one.size() * sizeof(float)) == 0);
  }
}

TEST_CASE("tensor-train embedding: the table begins with the deviation asked for", "[layer][embedding]") {
  for (const init::Initializer& initializer :
       {init::normal(1), init::uniform(0.3), init::Initializer(init::orthogonal)}) {
    auto model =
        model_of<Model<backend::Cpu>>({.tokens = 1000, .units = 64, .rank = 16, .initializer = initializer}, 1);
    const Tensor<double> table = layer_of(model).to_dense().initial->at(0);
    double squares = 0;
    for (const double v : table) squares += v * v;
    CHECK(std::sqrt(squares / static_cast<double>(table.size())) ==
          Approx(initializer.deviation({64, 1000})).epsilon(0.2));
  }
}

TEST_CASE("tensor-train embedding: from an embedding and back", "[layer][embedding]") {
  Model<backend::Reference> dense({.seed = 3});
  dense.add_layer(Embedding({.tokens = 50, .units = 12, .padding_index = 4, .name = "e"}));
  dense.build({50});
  const Embedding table = dense.layer<Embedding>("e");
  double last = 1e9;
  for (const std::size_t rank : {1u, 4u, 8u, 0u}) {  // 0: all there are
    const auto layer =
        TensorTrainEmbedding::from(table, {.in = {3, 4, 5}, .out = {2, 3, 2}, .rank = rank, .name = "tt"});
    const Tensor<double> again = layer.to_dense().initial->at(0);
    REQUIRE(again.shape() == table.initial->at(0).shape());
    double error = 0;
    for (std::size_t i = 0; i < again.size(); ++i) error += std::pow(again[i] - table.initial->at(0)[i], 2);
    CHECK(error < last);
    last = error;
    CHECK(layer.padding_index == 4u);
    Sequential model;
    model.add_layer(layer);
    Tensor<float> x({1, 50});
    std::iota(x.begin(), x.end(), 0.0F);
    CHECK(worst_difference(model.predict(x), again) < 1e-5);
  }
  CHECK(last < 1e-20);
  // The modes may be left out, and a tolerance given.
  const auto near = TensorTrainEmbedding::from(table, {}, 0.3);
  const Tensor<double> again = near.to_dense().initial->at(0);
  double error = 0, all = 0;
  for (std::size_t i = 0; i < again.size(); ++i)
    error += std::pow(again[i] - table.initial->at(0)[i], 2), all += std::pow(table.initial->at(0)[i], 2);
  CHECK(std::sqrt(error / all) < 0.3);
  CHECK(error > 0);
  CHECK_THAT(message_of([] { TensorTrainEmbedding::from(Embedding({.tokens = 3, .units = 2}), {}); }),
             Contains("no values yet") && Contains("model.layer<Embedding>(name)"));
  CHECK_THAT(message_of([] { TensorTrainEmbedding({.tokens = 3, .units = 2}).to_dense(); }),
             Contains("model.layer<TensorTrainEmbedding>(name)"));
}

TEST_CASE("tensor-train embedding: saved, loaded, and trained on with the same bits", "[layer][embedding]") {
  const TemporaryFolder folder;
  const auto x = token_rows<float>(20, 5, 30);
  Tensor<float> y({20, 2});
  random::fill_normal(y, {.seed = 2});
  Sequential model;
  model.add_layer(TensorTrainEmbedding({.tokens = 30, .units = 6, .rank = 3, .padding_index = 0, .rate = 3}))
      .add_layer(LSTM({.units = 2, .masking = true}));
  model.compile(optim::Adam(), loss::MeanSquaredError());
  model.fit(x, y, {.epochs = 2, .batch_size = 8, .verbose = 0});
  model.save(folder.path("m"));
  auto loaded = Sequential::load<AllLayers>(folder.path("m"));
  for (auto* m : {&model, &loaded}) m->fit(x, y, {.epochs = 1, .batch_size = 8, .verbose = 0});
  const auto a = model.predict(x), b = loaded.predict(x);
  CHECK(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
  const TensorTrainEmbedding layer = layer_of(loaded);
  CHECK(layer.padding_index == 0u);
  CHECK(layer.rate == 3);
}

TEST_CASE("tensor-train embedding: what it says of itself", "[layer][embedding]") {
  auto model = model_of<Sequential>({.tokens = 100000, .units = 64, .rank = 16}, 4);
  const TensorTrainEmbedding layer = layer_of(model);
  CHECK(layer.in == Shape{40, 50, 50});
  CHECK(layer.out == Shape{4, 4, 4});
  CHECK(layer.note() == "56960 weights for 6400000 (112 times fewer), ranks {16, 16}");
  CHECK(model_of<Sequential>({.tokens = 10, .units = 7, .in = {2, 5}, .rank = 2}, 4)
            .layer<TensorTrainEmbedding>("tensor_train_embedding")
            .out == Shape{1, 7});
}

TEST_CASE("tensor-train embedding: complaints", "[layer][embedding]") {
  const auto says = [](const Options& options, const Shape& in = {4}) {
    return complaint(TensorTrainEmbedding(options), in);
  };
  CHECK_THAT(says({.units = 2}), Contains(".tokens"));
  CHECK_THAT(says({.tokens = 1 << 25, .units = 2}), Contains("16777216"));
  CHECK_THAT(says({.tokens = 3}), Contains(".units"));
  CHECK_THAT(says({.tokens = 3, .units = 2, .rank = 1, .padding_index = 3}), Contains(".padding_index = 3"));
  CHECK_THAT(says({.tokens = 3, .units = 2, .rank = 1}, {4, 2}), Contains("{length}") && Contains("{4, 2}"));
  CHECK_THAT(
      says({.tokens = 10, .units = 4, .in = {3, 3}, .out = {2, 2}, .rank = 1}),
      Contains(".in modes {3, 3}") && Contains("make 9") && Contains("at least .tokens = 10") && Contains("{2, 5}"));
  CHECK_THAT(says({.tokens = 9, .units = 6, .in = {3, 3}, .out = {2, 2}, .rank = 1}),
             Contains(".out modes {2, 2}") && Contains(".units = 6") && Contains("{2, 3}"));
  CHECK_THAT(says({.tokens = 9, .units = 4, .in = {3, 3}, .out = {4}, .rank = 1}), Contains("as many modes"));
  CHECK_THAT(says({.tokens = 9, .units = 4, .in = {0, 3}, .rank = 1}), Contains("{0, 3}"));
  CHECK_THAT(says({.tokens = 9, .units = 4}), Contains("needs .rank"));
  CHECK_THAT(says({.tokens = 9, .units = 4, .rank = 2, .ranks = {2, 2}}), Contains("not both"));
  CHECK_THAT(says({.tokens = 9, .units = 4, .ranks = {2}}), Contains("2 ranks"));
  CHECK_THAT(says({.tokens = 9, .units = 4, .rank = 2, .rate = 0}), Contains(".rate"));
  CHECK_THAT(says({.tokens = 9, .units = 4, .rank = 2, .initializer = init::zeros}), Contains(".initializer"));

  Sequential model;
  model.add_layer(TensorTrainEmbedding({.tokens = 10, .units = 2, .rank = 2}));
  model.compile(optim::Adam(), loss::MeanSquaredError());
  Tensor<float> y({40, 6});
  for (const float wrong : {-1.0F, 2.5F, 10.0F}) {
    auto x = token_rows<float>(40, 3, 10);
    x[3 * 31 + 2] = wrong;
    const std::string which = "sample 31, step 2 is " + text(wrong),
                      wanted = "TensorTrainEmbedding looks up whole numbers from 0 to 9";
    CHECK_THAT(message_of([&] { model.fit(x, y, {.batch_size = 10, .verbose = 0}); }),
               Contains("fit: x: " + which) && Contains(wanted));
    CHECK_THAT(message_of([&] { model.predict(x); }), Contains("predict: x: " + which) && Contains(wanted));
  }
  // Behind a layer that changes the samples only their values tell.
  Sequential behind;
  behind.add_layer(ReLU()).add_layer(TensorTrainEmbedding({.tokens = 10, .units = 2, .rank = 2}));
  CHECK_THAT(message_of([&] {
               behind.predict(Tensor<float>({1, 3}, {11, 1, 2}));
             }),
             Contains("sample 0, step 0 is 11"));
}

}  // namespace test_layer_tensor_train_embedding
