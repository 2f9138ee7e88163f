// A layer at every step: the same as the layer on each step by itself.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <layer/checks.hpp>
#include <layer/sequences.hpp>
#include <string>
#include <vector>

namespace test_layer_time_distributed {

using namespace tesla;

namespace {

using sequence_test::random_sequences;

template <class B>
using Model = BasicSequential<double, B>;

}  // namespace

TEMPLATE_TEST_CASE("time distributed: gradients", "[layer][sequences][gradients]", backend::Reference, backend::Cpu) {
  for (const std::size_t batch : {1, 5, 64, 70})
    for (const std::size_t length : {1, 3}) {
      INFO("batch " << batch << ", length " << length);
      const auto x = random_sequences<double>(batch, length, 4, false, 0);
      const auto check = [&](const auto& layer, std::size_t outputs) {
        INFO(layer.kind);
        Model<TestType> model(SequentialOptions{.seed = 5});
        model.add_layer(GRU({.units = 6, .return_sequences = true})).add_layer(layer);
        model.build({length, 4});
        layer_test::check_gradients(std::move(model), x, length * outputs);
      };
      check(TimeDistributed(Dense({.units = 3, .activation = gelu, .bias_initializer = init::normal(0.3)})), 3);
      check(TimeDistributed(LayerNorm()), 6);
      check(TimeDistributed(TensorTrain({.in = {2, 3}, .out = {3, 2}, .rank = 2})), 6);
    }
}

TEMPLATE_TEST_CASE("time distributed: a layer within a layer", "[layer][sequences][gradients]", backend::Reference,
                   backend::Cpu) {
  for (const std::size_t batch : {1, 5, 64}) {
    // Of {3, 4, 2}: each of three steps is a sequence of four.
    Model<TestType> model(SequentialOptions{.seed = 5});
    model.add_layer(TimeDistributed(LSTM({.units = 3, .bidirectional = true}))).add_layer(SimpleRNN({.units = 2}));
    model.build({3, 4, 2});
    CHECK(model.output_shape() == Shape{2});
    layer_test::check_gradients(std::move(model), random_sequences<double>(batch, 12, 2, false, 0), 2);
  }
}

TEST_CASE("time distributed: what the layer gives for each step", "[layer][sequences]") {
  for (const std::size_t batch : {1, 3, 64, 70}) {
    const auto x = random_sequences<float>(batch, 5, 7, false, 0);
    Sequential all({.seed = 4}), each({.seed = 4});
    all.add_layer(TimeDistributed(Dense({.units = 9, .activation = relu})));
    each.add_layer(Dense({.units = 9, .activation = relu}));
    all.build({5, 7}), each.build({7});
    CHECK(all.output_shape() == Shape{5, 9});
    CHECK(all.parameters()[0].name() == "time_distributed_dense.weight");
    const auto a = all.predict(x), b = each.predict(ArrayView(x.data(), {batch * 5, 7}));
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(a[i] - b[i])));
    CHECK(worst < 1e-6);
  }
}

TEST_CASE("time distributed: saved and loaded", "[layer][sequences]") {
  const std::string path = (std::filesystem::temp_directory_path() / "tesla_time_distributed.safetensors").string();
  const auto x = random_sequences<float>(20, 5, 8, false, 0);
  Tensor<float> y({20, 10});
  random::fill_normal(y, {.seed = 2});
  Sequential model;
  model.add_layer(Reshape({5, 4, 2})).add_layer(TimeDistributed(Flatten()));
  model.add_layer(TimeDistributed(Dense({.units = 2}), "each"));
  model.compile(optim::Adam(), loss::MeanSquaredError());
  model.fit(x, y, {.epochs = 2, .batch_size = 8, .verbose = 0});
  model.save(path);
  auto loaded = Sequential::load(path);
  for (auto* m : {&model, &loaded}) m->fit(x, y, {.epochs = 1, .batch_size = 8, .verbose = 0});
  const auto a = model.predict(x), b = loaded.predict(x);
  CHECK(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
  std::filesystem::remove(path);
}

TEST_CASE("time distributed: complaints", "[layer][sequences]") {
  using Catch::Matchers::Contains;
  using layer_test::complaint;
  CHECK_THAT(complaint(TimeDistributed(Dense({.units = 2})), {4}), Contains("{length, ...}") && Contains("{4}"));
  CHECK_THAT(complaint(TimeDistributed(Dense({.units = 2})), {4, 2, 3}), Contains("Flatten"));
  CHECK_THAT(complaint(TimeDistributed(BatchNorm()), {4, 2}), Contains("takes sequences itself"));
}

}  // namespace test_layer_time_distributed
