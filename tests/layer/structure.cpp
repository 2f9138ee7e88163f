// Layers that move features, transposed convolutions, and connections between layers: gradients and results.
#include <tesla/tesla.hpp>

#include <io/temporary_folder.hpp>
#include <layer/checks.hpp>
#include <numeric>

namespace test_layer_structure {

using namespace layer_test;

namespace {

/// A layer between two dense ones, so that the gradient goes through it to both sides.
template <class B, class... L>
void check_between(const Shape& shape, const L&... layers) {
  for (const std::size_t batch : {1u, 5u, 70u}) {
    CAPTURE(batch);
    Model<B> model({.seed = 5});
    model.add_layer(Dense({.units = shape.elements(), .activation = tesla::tanh}));
    model.add_layer(Reshape(shape));
    (model.add_layer(layers), ...);
    model.add_layer(Flatten()).add_layer(Dense({.units = 3}));
    check_gradients(std::move(model), 4, 3, batch);
  }
}

bool same_values(const Tensor<float>& a, const Tensor<float>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

/// What a model of these layers makes of 0, 1, 2, ...
template <class... L>
std::vector<float> outputs(const Shape& shape, const L&... layers) {
  Sequential model;
  model.add_layer(Input(shape));
  (model.add_layer(layers), ...);
  Tensor<float> x(shape.with_front(1));
  std::iota(x.begin(), x.end(), 0.0f);
  const Tensor<float> y = model.predict(x);
  return {y.begin(), y.end()};
}

}  // namespace

TEMPLATE_TEST_CASE("structure: gradients through moved features", "[layer]", backend::Cpu, backend::Reference) {
  check_between<TestType>({2, 3, 4}, Permute({2, 0, 1}));
  check_between<TestType>({3, 2, 2}, ZeroPad2D({.padding = {1, 0, 2, 1}}));
  check_between<TestType>({3, 2, 2}, UpSample2D({.size = {2, 3}}));
  check_between<TestType>({4, 6}, Reshape({2, 12}), Permute({1, 0}));
  check_between<TestType>({5}, Lambda([](auto x) { return x * x * x; }));
}

TEMPLATE_TEST_CASE("structure: gradients of transposed convolutions", "[layer]", backend::Cpu, backend::Reference) {
  check_between<TestType>({3, 2, 4}, TransposedConv2D({.filters = 6}));
  check_between<TestType>(
      {2, 3, 4},
      TransposedConv2D({.filters = 2, .kernel = {3, 2}, .padding = same, .stride = {2, 3}, .activation = tesla::tanh}));
  check_between<TestType>({3, 3, 4}, TransposedConv2D({.filters = 6,
                                                       .kernel = {3, 3},
                                                       .padding = {1, 1},
                                                       .stride = {1, 2},
                                                       .dilation = {2, 1},
                                                       .groups = 2,
                                                       .activation = gelu}));
}

TEST_CASE("structure: features are where they should be", "[layer]") {
  REQUIRE(outputs({2, 3}, Permute({1, 0})) == std::vector<float>{0, 3, 1, 4, 2, 5});
  REQUIRE(outputs({1, 2, 1}, ZeroPad2D({.padding = {1, 0, 0, 1}})) == std::vector<float>{0, 0, 0, 0, 1, 0});
  REQUIRE(outputs({1, 2, 1}, UpSample2D({.size = {2, 2}})) == std::vector<float>{0, 0, 1, 1, 0, 0, 1, 1});
  REQUIRE(outputs({2, 2}, Lambda([](auto x) { return 2 * x + 1; })) == std::vector<float>{1, 3, 5, 7});
  // Each pixel adds its value times the kernel, two apart.
  const auto grown = outputs(
      {1, 2, 1}, TransposedConv2D({.filters = 1, .kernel = {1, 3}, .stride = {1, 2}, .initializer = init::ones}));
  REQUIRE(grown == std::vector<float>{0, 0, 1, 1, 1});
}

TEST_CASE("structure: what does not fit is said", "[layer]") {
  using Catch::Matchers::Contains;
  REQUIRE_THAT(complaint(Reshape({2, 5}), {12}), Contains("12 features") && Contains("reshape"));
  REQUIRE_THAT(complaint(Permute({0, 0}), {3, 4}), Contains("an order"));
  REQUIRE_THAT(complaint(ZeroPad2D({.padding = same}), {3, 4, 1}), Contains(".padding"));
  constexpr std::size_t half = std::size_t{1} << 63;  // twice that is 0
  REQUIRE_THAT(complaint(ZeroPad2D({.padding = {half, half}}), {3, 4, 1}), Contains(".padding of more than"));
  REQUIRE_THAT(complaint(ZeroPad2D({.padding = {1, 1}}), {~std::size_t{0}, 1, 1}), Contains("at most 2^32 - 2"));
  REQUIRE_THAT(complaint(UpSample2D({.size = {0, 2}}), {3, 4, 1}), Contains(".size"));
  REQUIRE_THAT(complaint(TransposedConv2D({.filters = 0}), {3, 4, 1}), Contains(".filters"));
  REQUIRE_THAT(complaint(TransposedConv2D({.filters = 4, .groups = 3}), {3, 4, 1}), Contains(".groups"));
  REQUIRE_THAT(complaint(TransposedConv2D({.filters = 4, .padding = {9, 9}}), {3, 4, 1}), Contains("cuts off"));
  REQUIRE_THAT(complaint(TransposedConv2D({.filters = 4, .kernel = {0, 1}}), {3, 4, 1}), Contains(".kernel"));
}

TEMPLATE_TEST_CASE("structure: gradients through branches", "[layer]", backend::Cpu, backend::Reference) {
  const auto dense = [](std::size_t units) { return Dense({.units = units, .activation = tesla::tanh}); };
  check_between<TestType>({6}, Residual(dense(4), dense(6)));
  check_between<TestType>({6}, Residual(dense(6)), Residual(Residual(dense(6)), dense(6)));
  check_between<TestType>({2, 3, 2}, Parallel(concatenate, Conv2D({.filters = 3, .padding = same}),
                                              Chain(Conv2D({.filters = 2, .kernel = {1, 1}}), Tanh()),
                                              MaxPool2D({.pool = {2, 2}, .stride = {1, 1}, .padding = same})));
  check_between<TestType>({5}, Parallel(tesla::sum, dense(3), Chain(dense(4), dense(3)), dense(3)), dense(2));
  // A branch that is the input as it is, and one that only gives it another shape.
  check_between<TestType>({6}, Parallel(concatenate, Chain(), Chain(Reshape({6})), dense(2)));
  check_between<TestType>({2, 2, 2}, Chain(Conv2D({.filters = 2, .kernel = {1, 1}, .activation = relu}), MaxPool2D()));
}

TEST_CASE("structure: branches from the input of a model, and in the memory of predictions", "[layer]") {
  const std::vector<float> joined =
      outputs({3}, Parallel(concatenate, Lambda([](auto x) { return x + 1; }), Lambda([](auto x) { return 2 * x; })),
              Residual(Lambda([](auto x) { return -x; }), Lambda([](auto x) { return x + 1; }),
                       Lambda([](auto x) { return 3 * x; })));
  // 1 2 3 0 2 4, then x + 3 (1 - x)
  REQUIRE(joined == std::vector<float>{1, -1, -3, 3, -1, -5});
}

TEST_CASE("structure: branches are saved and loaded, and go on with the same bits", "[layer]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("model.safetensors");
  Sequential model({.seed = 3});
  model.add_layer(Input({4, 4, 2}))
      .add_layer(Residual(Conv2D({.filters = 3, .padding = same, .activation = relu}), BatchNorm(),
                          Conv2D({.filters = 2, .padding = same})))
      .add_layer(Parallel(concatenate, MaxPool2D(), AveragePool2D()))
      .add_layer(Flatten())
      .add_layer(Dense({.units = 3}));
  model.compile(optim::Adam(), loss::MeanSquaredError());
  Tensor<float> x({20, 4, 4, 2}), y({20, 3});
  random::fill_normal(x, {.seed = 1});
  random::fill_normal(y, {.seed = 2});
  for (int i = 0; i < 3; ++i) model.train_step(x, y);
  model.save(path);
  Sequential again = Sequential::load(path);
  for (int i = 0; i < 3; ++i) REQUIRE(model.train_step(x, y) == again.train_step(x, y));
}

TEST_CASE("structure: branches that do not meet are explained", "[layer]") {
  using Catch::Matchers::Contains;
  const auto said = [](const auto& part, const Shape& in) {
    Sequential model;
    model.add_layer(part);
    try {
      model.build(in);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  REQUIRE_THAT(said(Residual(Dense({.units = 4})), {5}), Contains("{4} and {5}") && Contains("sum"));
  REQUIRE_THAT(said(Parallel(concatenate, Conv2D({.filters = 4}), Conv2D({.filters = 4, .padding = same})), {5, 5, 1}),
               Contains("{3, 3, 4} and {5, 5, 4}"));
  Sequential model;
  model.add_layer(Dense({.units = 4, .name = "a"}));
  REQUIRE_THROWS_WITH(model.add_layer(Residual(Dense({.units = 4}), Dense({.units = 4, .name = "a"}))),
                      Contains("already a layer"));
  REQUIRE(model.network().entries().size() == 1);
}

TEST_CASE("structure: a model inside a model", "[layer]") {
  Tensor<float> x({8, 5}), y({8, 3});
  random::fill_normal(x, {.seed = 1});
  random::fill_normal(y, {.seed = 2});
  Sequential inner({.seed = 1});
  inner.add_layer(Dense({.units = 4, .activation = relu})).add_layer(Residual(Dense({.units = 4})));
  inner.build({5});
  const Tensor<float> before = inner.parameter("dense.weight").value(), features = inner.predict(x);

  Sequential model;
  model.add_layer(std::move(inner)).add_layer(Dense({.units = 3}));
  REQUIRE_THROWS_WITH(inner.build({5}), Catch::Matchers::Contains("moved"));
  model.build({5});
  REQUIRE(same_values(model.parameter("sequential.dense.weight").value(), before));
  model.freeze("sequential.*");
  model.compile(optim::Adam(), loss::MeanSquaredError());
  model.fit(x, y, {.epochs = 3, .verbose = 0});
  REQUIRE(same_values(model.parameter("sequential.dense.weight").value(), before));

  // Joined to itself by a branch, its features are still what they were.
  Sequential another({.seed = 1});
  another.add_layer(Dense({.units = 4, .activation = relu, .name = "dense"})).add_layer(Residual(Dense({.units = 4})));
  another.build({5});
  Sequential outer;
  outer.add_layer(Input({5})).add_layer(std::move(another));
  const Tensor<float> same_features = outer.predict(x);
  REQUIRE(same_values(features, same_features));

  Sequential with_input;
  with_input.add_layer(Input({5})).add_layer(Dense({.units = 5}));
  outer.add_layer(std::move(with_input));
  REQUIRE_THROWS_WITH(outer.build({5}), Catch::Matchers::Contains("expects samples of shape {5}"));
}

TEST_CASE("structure: a kind that no one names is not known, but by all layers", "[layer]") {
  const TemporaryFolder folder;
  BasicSequential<double, backend::Reference> model;  // of these, nothing else here makes these layers
  model.add_layer(Input({4, 3})).add_layer(Permute({1, 0})).add_layer(Flatten()).add_layer(Dense({.units = 2}));
  model.build({4, 3});
  model.save(folder.path("m"));
  // The layers of one number type and backend are not those of another.
  REQUIRE_THROWS_WITH(
      (BasicSequential<float, backend::Reference>::load(folder.path("m"))),
      Catch::Matchers::Contains("no layer of kind \"Permute\"") && Catch::Matchers::Contains("AllLayers"));
  using All = model::LayerList<Permute>;
  REQUIRE_NOTHROW(BasicSequential<double, backend::Reference>::load(folder.path("m")));
  auto here = BasicSequential<double, backend::Reference>::load<All>(folder.path("m"));
  REQUIRE(here.network().entries().size() == 4);
}

TEST_CASE("structure: one branch, and a residual around a residual", "[layer]") {
  const Tensor<float> x({2, 3}, {1, -2, 3, -4, 5, -6});
  const Tensor<float> once = Sequential(Parallel(sum, ReLU())).predict(x);
  const Tensor<float> nested = Sequential(Residual(Residual(ReLU()))).predict(x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float positive = std::max(x[i], 0.0F);
    REQUIRE(once[i] == positive);
    REQUIRE(nested[i] == 2 * x[i] + positive);
  }
}

}  // namespace test_layer_structure
