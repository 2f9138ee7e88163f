// Gradients of layers that behave in training as they do not in predictions, or whose samples are images or signals.
#pragma once

#include <layer/checks.hpp>

#include <functional>

namespace layer_test {

/// A layer that changes nothing, and over which nothing moves.
struct Copy {
  static constexpr std::string_view kind = "Copy";

  Shape setup(const Shape& in, layer::Setup&) const { return in; }
  template <class T, class B>
  void forward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    pass.map([](auto v) { return v; }, y, x);
  }
  template <class T, class B>
  void backward(layer::Pass<T, B>& pass, Panels<const T>, Panels<T>, Panels<T> dy, Panels<T> dx) const {
    if (dx) pass.map([](auto d) { return d; }, dx, Panels<const T>(dy));
  }
};

/// y = scale * x + offset, for each feature. As the first layer it shows which gradient it was given: offset has the
/// sum over the samples, scale that of its products with the inputs.
struct Probe {
  static constexpr std::string_view kind = "Probe";

  Shape setup(const Shape& in, layer::Setup& setup) const {
    setup.parameter("scale", {in.elements()}, init::constant(1.25));
    setup.parameter("offset", {in.elements()}, init::normal(0.1));
    return in;
  }
  template <class T, class B>
  void forward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    pass.map([](auto v, auto s, auto o) { return v * s + o; }, y, x, pass.parameter(0), pass.parameter(1));
  }
  template <class T, class B>
  void backward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T>, Panels<T> dy, Panels<T>) const {
    const Panels<const T> up = dy;
    pass.reduce([](auto d, auto v) { return d * v; }, pass.gradient(0), up, x);
    pass.reduce([](auto d) { return d; }, pass.gradient(1), up);
  }
};

/// A model of a probe and the layers that `add` puts behind it. What begins with ones or zeros has other values.
template <class M, class F>
M probed(const Shape& in, const F& add) {
  M model(SequentialOptions{.seed = 5});
  model.add_layer(Probe());
  add(model);
  model.build(in);
  std::uint64_t seed = 10;
  for (auto& p : model.parameters()) {
    Tensor<typename M::Scalar> moved(p.shape());
    random::fill_normal(moved, {.seed = ++seed});
    const auto before = p.value();
    for (std::size_t i = 0; i < moved.size(); ++i) moved[i] = before[i] + std::abs(moved[i]) / 4;
    p.assign(moved);
  }
  return model;
}

inline Shape batch_shape(std::size_t batch, const Shape& in) {
  std::vector<std::size_t> extents{batch};
  for (std::size_t i = 0; i < in.rank(); ++i) extents.push_back(in[i]);
  return Shape(std::span<const std::size_t>(extents));
}

/// The gradients of the layers and of what comes before them, which a step of gradient descent at rate 1 shows, against
/// differences of the loss of a step. Each step is the first after compile(), so that it draws the same random numbers.
template <class B, class F>
void check_training_gradients(const Shape& in, std::size_t batch, const F& add) {
  auto model = probed<Model<B>>(in, add);
  Tensor<double> x(batch_shape(batch, in)), y({batch, model.output_shape().elements()});
  random::fill_normal(x, {.seed = 1});
  random::fill_normal(y, {.seed = 2});
  const auto step_at = [&](double rate) {
    model.compile(optim::SGD({.learning_rate = rate}), loss::MeanSquaredError());
    return model.train_step(x, y);
  };
  auto parameters = model.parameters();
  const auto values = [&] {
    std::vector<Tensor<double>> result;
    for (const auto& p : parameters) result.push_back(p.value());
    return result;
  };
  const std::vector<Tensor<double>> before = values();
  step_at(1);
  const std::vector<Tensor<double>> after = values();
  for (std::size_t i = 0; i < before.size(); ++i) parameters[i].assign(before[i]);
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (!model.network().store().places()[i].learned) continue;
    double largest = 0;
    for (std::size_t k = 0; k < before[i].size(); ++k)
      largest = std::max(largest, std::abs(before[i][k] - after[i][k]));
    CAPTURE(parameters[i].name());
    REQUIRE(largest > 1e-6);
    for (std::size_t k = 0; k < before[i].size(); k += 1 + before[i].size() / 20) {
      constexpr double step = 1e-5;
      const auto loss_at = [&](double value) {
        Tensor<double> moved = before[i];
        moved[k] = value;
        parameters[i].assign(moved);
        return step_at(0);
      };
      const double expected = (loss_at(before[i][k] + step) - loss_at(before[i][k] - step)) / (2 * step);
      parameters[i].assign(before[i]);
      const double gradient = before[i][k] - after[i][k];
      CAPTURE(k, gradient, expected);
      REQUIRE(std::abs(gradient - expected) <= 5e-6 * (1e-3 + std::abs(expected)));
    }
  }
}

/// Both backends train to the same parameters and predict the same.
template <class F>
void check_backends_agree(const Shape& in, std::size_t batch, const F& add) {
  const auto trained = [&](auto model) {
    Tensor<double> x(batch_shape(batch, in)), y({batch, model.output_shape().elements()});
    random::fill_normal(x, {.seed = 1});
    random::fill_normal(y, {.seed = 2});
    model.compile(optim::SGD({.learning_rate = 0.02}), loss::MeanSquaredError());
    std::vector<double> result;
    for (int step = 0; step < 2; ++step) result.push_back(model.train_step(x, y));
    for (const auto& p : model.parameters())
      for (const auto v : p.value()) result.push_back(static_cast<double>(v));
    for (const auto v : model.predict(x)) result.push_back(static_cast<double>(v));
    return result;
  };
  const auto exact = trained(probed<Model<backend::Reference>>(in, add));
  const auto check = [&](const std::vector<double>& found, double tolerance) {
    REQUIRE(found.size() == exact.size());
    double worst = 0;
    for (std::size_t i = 0; i < exact.size(); ++i)
      worst = std::max(worst, std::abs(found[i] - exact[i]) / (1 + std::abs(exact[i])));
    CHECK(worst < tolerance);
  };
  check(trained(probed<Model<backend::Cpu>>(in, add)), 1e-10);
  check(trained(probed<BasicSequential<float, backend::Cpu>>(in, add)), 2e-4);
}

}  // namespace layer_test
