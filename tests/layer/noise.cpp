// Dropout and noise: how much, the same forward and backward, another one each time, and none in predictions.
#include <tesla/tesla.hpp>

#include <algorithm>
#include <catch2/catch.hpp>
#include <io/temporary_folder.hpp>
#include <layer/training_checks.hpp>
#include <model/support.hpp>
#include <set>

namespace test_layer_noise {

using namespace tesla;
using namespace layer_test;

namespace {

using OnCpu = BasicSequential<float, backend::Cpu>;
using OnReference = BasicSequential<double, backend::Reference>;

/// What layer `i` makes of ones, or of `x`, in a batch of a training step, the first or the second one.
template <class M>
std::vector<double> in_training(M& model, std::size_t batch, std::size_t step, std::size_t i = 0, double x = 1,
                                bool first = true) {
  using T = typename M::Scalar;
  auto& net = model.network();
  auto& w = net.workspace(batch, true, 0);
  std::fill_n(w.input().data, w.input().size(), T(x));
  net.begin_batch(step, true);
  if (!first) net.begin_batch(step, false);
  net.forward(w);
  const Panels<const T> y = w.output(i);
  std::vector<T> host(y.batch * y.features);
  net.backend().scatter(y, host.data());
  return {host.begin(), host.end()};
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

/// Writes down the numbers of the batches that it is trained with.
struct Numbers {
  static constexpr std::string_view kind = "Numbers";
  std::vector<std::uint64_t>* seen;

  Shape setup(const Shape& in, layer::Setup&) const { return in; }
  template <class T, class B>
  void forward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    if (pass.training) seen->push_back(pass.number);
    pass.map([](auto v) { return v; }, y, x);
  }
  template <class T, class B>
  void backward(layer::Pass<T, B>& pass, Panels<const T>, Panels<T>, Panels<T> dy, Panels<T> dx) const {
    if (dx) pass.map([](auto d) { return d; }, dx, Panels<const T>(dy));
  }
};

Sequential noisy() {
  Sequential model({.seed = 7});
  model.add_layer(GaussianNoise({.deviation = 0.2}))
      .add_layer(Dense({.units = 40, .activation = relu}))
      .add_layer(Dropout({.rate = 0.4}))
      .add_layer(Dense({.units = 30, .activation = relu}))
      .add_layer(Dropout({.rate = 0.2}))
      .add_layer(Dense({.units = 3}));
  model.compile(optim::Adam(), loss::SparseCategoricalCrossEntropy());
  return model;
}

}  // namespace

TEMPLATE_TEST_CASE("gradients: dropout and noise", "[layer][gradients]", backend::Reference, backend::Cpu) {
  for (const std::size_t batch : {1, 5, 70})
    for (const double amount : {0.0, 0.3}) {
      INFO("batch " << batch << ", " << amount);
      check_training_gradients<TestType>({4, 3, 3}, batch, [&](auto& model) {
        model.add_layer(Dropout({.rate = amount})).add_layer(tesla::Tanh()).add_layer(Dropout({.rate = amount}));
      });
      check_training_gradients<TestType>({19}, batch, [&](auto& model) {
        model.add_layer(GaussianNoise({.deviation = amount})).add_layer(tesla::Tanh());
      });
    }
}

TEST_CASE("dropout and noise: both backends train alike", "[layer]") {
  for (const std::size_t batch : {1, 5, 70})
    check_backends_agree({4, 3, 3}, batch, [](auto& model) {
      model.add_layer(Dropout({.rate = 0.3})).add_layer(GaussianNoise()).add_layer(Flatten());
      model.add_layer(Dense({.units = 3}));
    });
}

TEMPLATE_TEST_CASE("dropout: the share of zeros, and a mean that stays", "[layer]", OnCpu, OnReference) {
  for (const double rate : {0.0, 0.1, 0.5, 0.9}) {
    INFO("rate " << rate);
    TestType model(Dropout({.rate = rate}));
    model.build({1000});
    const std::vector<double> y = in_training(model, 70, 1);
    const auto n = static_cast<double>(y.size());
    const auto zeros = static_cast<double>(std::count(y.begin(), y.end(), 0.0));
    CHECK(std::abs(zeros / n - rate) <= 4 * std::sqrt(rate * (1 - rate) / n));
    CHECK(std::abs(mean_of(y) - 1) <= 4 * std::sqrt(rate / (1 - rate) / n));
    for (const double v : y) REQUIRE((v == 0 || v == Approx(1 / (1 - rate)).epsilon(1e-6)));
    // Neither samples nor features share their luck.
    const auto zeros_along = [&](std::size_t first, std::size_t count, std::size_t apart) {
      double result = 0;
      for (std::size_t i = 0; i < count; ++i) result += y[first + i * apart] == 0 ? 1 : 0;
      return result / static_cast<double>(count);
    };
    for (const std::size_t s : {0, 1, 63, 64, 69}) CHECK(std::abs(zeros_along(s * 1000, 1000, 1) - rate) < 0.08);
    for (const std::size_t f : {0, 1, 2, 3, 999}) CHECK(std::abs(zeros_along(f, 70, 1000) - rate) < 0.3);
  }
}

TEMPLATE_TEST_CASE("noise: mean and deviation", "[layer]", OnCpu, OnReference) {
  TestType model(GaussianNoise({.deviation = 0.5}));
  model.build({1000});
  const std::vector<double> y = in_training(model, 70, 1, 0, 3);
  double squares = 0, fourth = 0;
  for (const double v : y) squares += (v - 3) * (v - 3), fourth += std::pow(v - 3, 4);
  const auto n = static_cast<double>(y.size());
  CHECK(mean_of(y) == Approx(3).margin(4 * 0.5 / std::sqrt(n)));
  CHECK(squares / n == Approx(0.25).epsilon(0.03));
  CHECK(fourth / n == Approx(3 * 0.0625).epsilon(0.1));
}

TEMPLATE_TEST_CASE("dropout and noise: another one in each step, layer, model and place of a step", "[layer]", OnCpu,
                   OnReference) {
  const auto check = [](const auto& layer) {
    std::set<std::vector<double>> seen;
    std::size_t wanted = 0;
    for (const std::uint64_t seed : {0, 1}) {
      TestType model({.seed = seed});
      model.add_layer(layer).add_layer(layer);
      model.build({50});
      for (const std::size_t step : {0, 1, 2, 70000}) {
        for (const std::size_t i : {0, 1})
          for (const bool first : {true, false}) seen.insert(in_training(model, 5, step, i, 1, first)), ++wanted;
        CHECK(in_training(model, 5, step) == in_training(model, 5, step));
      }
    }
    CHECK(seen.size() == wanted);
  };
  check(Dropout({.rate = 0.5}));
  check(GaussianNoise());

  // A quarter is kept by both of two layers, an eighth by three.
  TestType model{Dropout(), Dropout(), Dropout()};
  model.build({1000});
  for (const std::size_t i : {0, 1, 2}) {
    const std::vector<double> y = in_training(model, 16, 1, i);
    const auto kept = static_cast<double>(y.size()) - static_cast<double>(std::count(y.begin(), y.end(), 0.0));
    CHECK(kept / static_cast<double>(y.size()) == Approx(std::pow(0.5, i + 1)).epsilon(0.05));
  }
}

TEST_CASE("each batch of training has a number of its own, which goes on after a load", "[layer]") {
  const auto x = normal_numbers({50, 4}, 1), y = normal_numbers({50, 2}, 2);
  std::vector<std::uint64_t> seen;
  const auto made = [&] {
    Sequential model;
    model.add_layer(Numbers{&seen}).add_layer(Dense({.units = 2}));
    model.compile(optim::SGD(), loss::MeanSquaredError());
    return model;
  };
  const auto fit = [&](Sequential& model, std::size_t epochs, std::size_t accumulate) {
    model.fit(x, y, {.epochs = epochs, .batch_size = 8, .verbose = 0, .accumulate = accumulate});
  };
  for (const std::size_t accumulate : {1, 3}) {
    Sequential model = made();
    fit(model, 4, accumulate);
    const std::vector<std::uint64_t> straight = std::exchange(seen, {});
    CHECK(straight.size() == 4 * 7);
    CHECK(std::set<std::uint64_t>(straight.begin(), straight.end()).size() == straight.size());

    const TemporaryFolder folder;
    Sequential first = made(), second = made();
    fit(first, 1, accumulate);
    first.save(folder.path("model"));
    second.restore(folder.path("model"));
    fit(second, 3, accumulate);
    CHECK(std::exchange(seen, {}) == straight);
  }
}

TEST_CASE("dropout and noise: the same bits at any number of threads, and after a load", "[layer]") {
  const auto x = normal_numbers({150, 60}, 1);
  const auto y = labels_below(3, 150, 2);
  const auto options = [](std::size_t epochs) {
    return Sequential::Options{.epochs = epochs, .batch_size = 70, .seed = 3, .verbose = 0};
  };
  std::string wanted;
  for (const int threads : {1, 2, 4}) {
    set_threads(threads);
    Sequential model = noisy();
    const auto history = model.fit(x, y, options(3));
    const std::string found = parameter_bits(model) + bits(history["loss"]) + bits(model.predict(x));
    if (wanted.empty()) wanted = found;
    CHECK((found == wanted));
  }
  set_threads(0);
  const TemporaryFolder folder;
  Sequential first = noisy();
  first.fit(x, y, options(1));
  first.save(folder.path("model"));
  Sequential second = Sequential::load(folder.path("model"));
  CHECK(bits(second.predict(x)) == bits(first.predict(x)));
  second.fit(x, y, options(2));
  CHECK((wanted.find(parameter_bits(second)) == 0));
  CHECK((wanted.find(bits(second.predict(x))) != wanted.npos));
}

TEMPLATE_TEST_CASE("dropout and noise: nothing in predictions and scores", "[layer]", OnCpu, OnReference) {
  TestType model(Dropout({.rate = 0.5}), GaussianNoise({.deviation = 10}));
  model.compile(optim::SGD(), loss::MeanSquaredError());
  for (const std::size_t batch : {1, 5, 70}) {
    const auto x = normal_numbers({batch, 19}, 1);
    const auto y = model.predict(x);
    for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(static_cast<float>(y[i]) == x[i]);
    CHECK(model.evaluate(x, x)["loss"] == 0);
  }
}

TEST_CASE("dropout makes a network that cannot learn its samples by heart", "[layer]") {
  auto [train, test] = data::digits({.train = 200, .test = 500});
  const auto losses = [&, &train = train, &test = test](double rate) {
    Sequential model({.seed = 1});
    model.add_layer(Dense({.units = 200, .activation = relu})).add_layer(Dropout({.rate = rate}));
    model.add_layer(Dense({.units = 10}));
    model.compile(optim::Adam({.learning_rate = 0.003}), loss::SparseCategoricalCrossEntropy());
    model.fit(train, {.epochs = 60, .batch_size = 20, .verbose = 0});
    return std::pair{model.evaluate(train)["loss"], model.evaluate(test)["loss"]};
  };
  const auto plain = losses(0), dropped = losses(0.6);
  CHECK(dropped.first > plain.first);
  CHECK(dropped.second < plain.second);
}

}  // namespace test_layer_noise
