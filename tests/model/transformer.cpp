// Two blocks of a transformer: outputs, gradients, training steps and predictions are PyTorch's.
#include <reference/transformer.hpp>
#include <tesla/tesla.hpp>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

namespace test_model_transformer {

using namespace tesla;
namespace wanted = reference::transformer;

namespace {

using FloatOnCpu = BasicSequential<float, backend::Cpu>;
using DoubleOnCpu = BasicSequential<double, backend::Cpu>;
using DoubleOnReference = BasicSequential<double, backend::Reference>;

constexpr std::size_t length = wanted::length, features = wanted::features, batch = wanted::batch;

/// The transformer of transformer.py, with its initial parameters.
template <class Model>
struct Transformer {
  using T = typename Model::Scalar;
  Model model;
  std::vector<T> x{std::begin(wanted::inputs), std::end(wanted::inputs)};

  explicit Transformer(const auto& optimizer) {
    layer::TransformerBlockOptions block{.features = features, .heads = wanted::heads, .hidden = wanted::hidden};
    block.causal = true;
    model.add_layer(TransformerBlock(block));
    block.key_heads = wanted::key_heads, block.rotary = true;
    model.add_layer(TransformerBlock(block));
    model.add_layer(GlobalAveragePool());
    model.add_layer(Dense({.units = wanted::classes}));
    model.build({length, features});
    const double* initial = wanted::initial;
    for (auto& p : model.parameters()) {
      p.assign(std::vector<T>(initial, initial + p.size()));
      initial += p.size();
    }
    REQUIRE(initial == std::end(wanted::initial));
    model.compile(optimizer, loss::SparseCategoricalCrossEntropy());
  }

  double step(std::size_t number) {
    const std::size_t first = number % 2 * batch;
    return model.train_step(ArrayView(x.data() + first * length * features, {batch, length, features}),
                            ArrayView(wanted::labels + first, {batch}));
  }
  double distance_of_outputs(const double* expected) {
    double worst = 0;
    for (const T value : model.predict(ArrayView(x.data(), {wanted::samples, length, features})))
      worst = std::max(worst, std::abs(static_cast<double>(value) - *expected++));
    return worst;
  }
};

}  // namespace

TEMPLATE_TEST_CASE("blocks of a transformer are PyTorch's", "[pytorch][attention]", FloatOnCpu, DoubleOnCpu,
                   DoubleOnReference) {
  // Ten steps carry the rounding of single precision on.
  constexpr bool single = sizeof(typename TestType::Scalar) == sizeof(float);
  constexpr double tolerance = single ? 1e-5 : 1e-11, after_steps = single ? 2e-4 : 1e-10;
  {
    Transformer<TestType> t(optim::SGD({.learning_rate = 1}));
    CHECK(t.distance_of_outputs(wanted::outputs) < tolerance);
    t.step(0);
    const double *before = wanted::initial, *gradient = wanted::gradients;
    for (const auto& p : t.model.parameters()) {
      INFO(p.name());
      double largest = 0.05, worst = 0;  // that by the keys' bias of the first block is 0, but for rounding
      for (const auto value : p.value()) {
        largest = std::max(largest, std::abs(*gradient));
        worst = std::max(worst, std::abs(*before++ - static_cast<double>(value) - *gradient++));
      }
      CHECK(worst / largest < tolerance);
    }
  }
  Transformer<TestType> t(optim::Adam({.learning_rate = wanted::learning_rate}));
  for (std::size_t step = 0; step < wanted::steps; ++step) {
    INFO("step " << step);
    CHECK(t.step(step) == Approx(wanted::losses[step]).margin(after_steps).epsilon(0));
  }
  CHECK(t.distance_of_outputs(wanted::predictions) < after_steps);
}

}  // namespace test_model_transformer
