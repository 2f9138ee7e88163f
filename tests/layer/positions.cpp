// Learned places.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <layer/training_checks.hpp>

namespace test_layer_positions {

using namespace layer_test;

TEST_CASE("positions: each place has a vector of its own", "[layer]") {
  for (const std::size_t batch : {1, 3, 70}) {
    Sequential model;
    model.add_layer(Positions({.initializer = init::normal(1), .name = "p"}));
    model.build({5, 3});
    const Tensor<float> vectors = model.parameter("p.weight").value();
    REQUIRE(vectors.shape() == Shape{5, 3});
    Tensor<float> x({batch, 5, 3});
    random::fill_normal(x, {.seed = 2});
    const Tensor<float> y = model.predict(x);
    for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(y[i] == x[i] + vectors[i % 15]);
  }
}

TEMPLATE_TEST_CASE("gradients: positions", "[layer][gradients]", backend::Cpu, backend::Reference) {
  for (const std::size_t batch : {1, 5})
    check_training_gradients<TestType>({4, 3}, batch, [](auto& m) { m.add_layer(Positions()); });
}

TEST_CASE("positions: both backends train alike, and what does not fit is said", "[layer]") {
  check_backends_agree({9, 4}, 18, [](auto& m) { m.add_layer(Positions()); });
  CHECK_THAT(complaint(Positions(), {6}), Catch::Matchers::Contains("{length, features}"));
}

}  // namespace test_layer_positions
