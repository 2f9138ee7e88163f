// Layers, metrics, optimizers and losses of a user's own, on two backends, with numbers worked out by hand.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>

namespace test_layer_custom {

using namespace tesla;

namespace {

/// A learned scale for each feature.
struct Scale {
  static constexpr std::string_view kind = "Scale";

  Shape setup(const Shape& in, layer::Setup& setup) const {
    setup.parameter("scale", {in.elements()}, init::ones);
    return in;
  }
  template <class T, class B>
  void forward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    pass.map([](auto value, auto scale) { return value * scale; }, y, x, pass.parameter(0));
  }
  template <class T, class B>
  void backward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T>, Panels<T> dy, Panels<T> dx) const {
    pass.reduce([](auto slope, auto value) { return slope * value; }, pass.gradient(0), dy, x);
    if (dx) pass.map([](auto slope, auto scale) { return slope * scale; }, dx, dy, pass.parameter(0));
  }
};

struct LargestError {
  static constexpr std::string_view name = "largest_error";
  template <class T>
  double operator()(const metric::Outcome<T>& o) const {
    T largest = 0;
    for (std::size_t i = 0; i < o.prediction.size(); ++i)
      largest = std::max(largest, std::abs(o.prediction[i] - o.target[i]));
    return largest;
  }
};

/// A quarter in the direction of the gradient's sign.
struct SignDescent {
  static constexpr std::string_view kind = "SignDescent";
  static constexpr std::size_t slots = 0;
  auto at(std::size_t) const {
    return [](auto& weight, auto gradient, auto&) {
      using math::number, math::select;
      using V = decltype(gradient);
      weight -= select(gradient > V(0), number<V>(0.25), number<V>(-0.25));
    };
  }
};

/// The sum of all gradients so far, over the number of the step.
struct Averaged {
  static constexpr std::string_view kind = "Averaged";
  static constexpr std::size_t slots = 1;
  auto at(std::size_t step) const {
    return [rate = 0.001 / static_cast<double>(step)](auto& weight, auto gradient, auto& state) {
      state[0] += gradient;
      weight -= math::number<decltype(gradient)>(rate) * state[0];
    };
  }
};

const auto fourth_power = loss::custom([](auto y, auto t) { return (y - t) * (y - t) * (y - t) * (y - t); });

/// The same loss as a type.
struct FourthPower {
  static constexpr std::string_view kind = "FourthPower";
  loss::Targets targets() const { return loss::Targets::values; }
  template <class T, class B>
  double operator()(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights,
                    Panels<T> gradient) const {
    return loss::mean_over_features(backend, fourth_power.function, y, target, weights, gradient);
  }
};

using OnCpu = BasicSequential<float, backend::Cpu>;
using OnReference = BasicSequential<double, backend::Reference>;

// Two samples of two features, scaled by {2, -1}: predictions are {2, -2} and {6, -4}.
const Tensor<float> x({2, 2}, {1, 2, 3, 4}), zeros({2, 2});
const std::vector<double> scale = {2, -1};

template <class Model>
std::vector<double> parameter(Model& model, std::string_view name) {
  const auto values = model.parameter(name).value();
  return {values.begin(), values.end()};
}

void check(const std::vector<double>& actual, const std::vector<double>& expected) {
  REQUIRE(actual.size() == expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) CHECK(actual[i] == Approx(expected[i]).epsilon(1e-6).margin(1e-5));
}

}  // namespace

TEMPLATE_TEST_CASE("A layer and a loss of one's own", "[layer][loss][custom]", OnCpu, OnReference) {
  const auto run = [](const auto& loss) {
    TestType model{Scale()};
    model.build({2});
    CHECK(model.count_parameters() == 2);
    model.parameter("scale.scale").assign(scale);
    model.compile(optim::SGD({.learning_rate = 0.001}), loss);
    const auto y = model.predict(x);
    check({y.begin(), y.end()}, {2, -2, 6, -4});
    // (2^4 + 2^4 + 6^4 + 4^4) / 4, and the sums over the samples of y^3 x.
    CHECK(model.evaluate(x, zeros)["loss"] == Approx(396));
    CHECK(model.train_step(x, zeros) == Approx(396));
    check(parameter(model, "scale.scale"), {2 - 0.001 * (8 * 1 + 216 * 3), -1 - 0.001 * (-8 * 2 - 64 * 4)});
  };
  run(fourth_power);
  run(FourthPower());
}

TEMPLATE_TEST_CASE("A layer of one's own passes gradients on, through one sample and many", "[layer][custom]", OnCpu,
                   OnReference) {
  for (const std::size_t batch : {1, 2, 3, 70}) {
    INFO("batch " << batch);
    // y = s (w x + b) with w = {{1, 2}, {0, -1}}, b = {0.5, 1}, s = {2, -1}, at x = {3, 1}: h = {5.5, 0}, y = {11, 0}.
    // Targets of {10, 1} make dy = {1, -1} of the mean of squares, all samples being alike.
    TestType model(Dense({.units = 2}), Scale());
    model.build({2});
    model.parameter("dense.weight").assign(std::vector<double>{1, 2, 0, -1});
    model.parameter("dense.bias").assign(std::vector<double>{0.5, 1});
    model.parameter("scale.scale").assign(scale);
    Tensor<float> inputs({batch, 2}), targets({batch, 2});
    for (std::size_t i = 0; i < batch; ++i) inputs(i, 0) = 3, inputs(i, 1) = 1, targets(i, 0) = 10, targets(i, 1) = 1;
    model.compile(optim::SGD({.learning_rate = 1}), loss::MeanSquaredError());
    CHECK(model.train_step(inputs, targets) == Approx(1));
    check(parameter(model, "scale.scale"), {2 - 5.5, -1 - 0.0});  // dy h
    check(parameter(model, "dense.bias"), {0.5 - 2, 1 - 1});      // dh = dy s = {2, 1}
    check(parameter(model, "dense.weight"), {1 - 6, 2 - 2, 0 - 3, -1 - 1});
  }
}

TEMPLATE_TEST_CASE("A metric of one's own", "[metric][custom]", OnCpu, OnReference) {
  TestType model{Scale()};
  model.build({2});
  model.parameter("scale.scale").assign(scale);
  model.compile(SignDescent(), fourth_power, {LargestError(), metric::MeanAbsoluteError()});
  const Scores scores = model.evaluate(x, zeros);
  CHECK(scores["largest_error"] == Approx((2 + 6) / 2.0));
  CHECK(scores["mean_absolute_error"] == Approx((2 + 2 + 6 + 4) / 4.0));
  const History history = model.fit(x, zeros, {.epochs = 2, .verbose = 0});
  CHECK(history["largest_error"].size() == 2);
  CHECK(history["largest_error"][0] == Approx(4));
  CHECK(history["largest_error"][1] == Approx((1.75 + 5.25) / 2));
}

TEMPLATE_TEST_CASE("Optimizers of one's own", "[optimizer][custom]", OnCpu, OnReference) {
  TestType model{Scale()};
  model.build({2});
  const auto& s = scale;
  model.parameter("scale.scale").assign(s);
  model.compile(SignDescent(), fourth_power);
  model.train_step(x, zeros);
  check(parameter(model, "scale.scale"), {1.75, -0.75});

  // The gradient of a scale is its cube times the sum of x^4: 82 and 272.
  model.parameter("scale.scale").assign(s);
  model.compile(Averaged(), fourth_power);
  std::vector<double> expected = s, sums = {0, 0};
  for (int step = 1; step <= 3; ++step) {
    model.train_step(x, zeros);
    for (std::size_t i = 0; i < 2; ++i) {
      sums[i] += expected[i] * expected[i] * expected[i] * (i == 0 ? 82 : 272);
      expected[i] -= 0.001 / step * sums[i];
    }
    check(parameter(model, "scale.scale"), expected);
  }
}

TEST_CASE("Extensions of one's own: both backends train alike", "[layer][custom]") {
  Tensor<float> inputs({150, 7}), targets({150, 3});
  random::fill_normal(inputs, {.seed = 1});
  random::fill_uniform(targets, {.seed = 2});
  const auto train = [&](auto model) {
    model.add_layer(Scale());
    model.add_layer(Dense({.units = 9, .activation = activation([](auto v) { return v / (1 + exp(-v)); })}));
    model.add_layer(Scale());
    model.add_layer(Dense({.units = 3}));
    model.compile(Averaged(), FourthPower(), {LargestError()});
    const History history = model.fit(inputs, targets, {.epochs = 3, .batch_size = 37, .seed = 4, .verbose = 0});
    std::vector<double> result = {history["loss"][2], history["largest_error"][2]};
    for (const auto& p : model.parameters())
      for (const auto v : p.value()) result.push_back(static_cast<double>(v));
    return result;
  };
  const auto on_cpu = train(OnCpu()), on_reference = train(OnReference());
  REQUIRE(on_cpu.size() == on_reference.size());
  for (std::size_t i = 0; i < on_cpu.size(); ++i)
    CHECK(on_cpu[i] == Approx(on_reference[i]).epsilon(1e-4).margin(1e-5));
}

namespace {

/// Leaves products to be summed without having said so.
struct Greedy : Scale {
  static constexpr std::string_view kind = "Greedy";
  template <class T, class B>
  void backward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T>, Panels<T> dy, Panels<T>) const {
    pass.sum_products(0, dy, x);
  }
};

}  // namespace

TEMPLATE_TEST_CASE("A layer has to say in setup what it sums", "[layer][custom]", OnCpu, OnReference) {
  TestType model{Greedy()};
  model.compile(SignDescent(), loss::MeanSquaredError());
  CHECK_THROWS_AS(model.train_step(x, zeros), UsageError);
  CHECK_THROWS_WITH(model.train_step(x, zeros), Catch::Contains("Setup::sum_products"));
}

}  // namespace test_layer_custom
