// Focal, Hinge, KLDivergence and CosineSimilarity: PyTorch's numbers, central differences, extremes, errors, files.
#include <backend/conformance.hpp>
#include <io/temporary_folder.hpp>
#include <loss/pytorch.hpp>
#include <model/support.hpp>
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace test_loss_losses {

using namespace tesla;
using conformance::Bench;
using conformance::Cases;

namespace {

/// A loss on panels of a backend, from rows.
template <class C>
class LossBench {
 public:
  using T = typename C::Scalar;

  LossBench(std::size_t batch, std::size_t features) : size_{batch, features} {}

  /// What the samples cost on the mean, or by weights; the gradient goes into `gradient`.
  template <class L>
  double operator()(const L& loss, const std::vector<T>& y, const std::vector<T>& t, std::vector<T>* gradient = nullptr,
                    const std::vector<T>& weights = {}) {
    const auto predictions = bench_.batch(size_, y), targets = bench_.batch(size_, t), slopes = bench_.batch(size_);
    std::vector<T> q(size_.batch, T(1) / static_cast<T>(size_.batch));
    for (std::size_t i = 0; i < weights.size(); ++i) q[i] *= weights[i];
    q.resize(round_up(size_.batch, C::Backend::template lanes<T>(size_.batch)));
    const auto lane_weights = bench_.array(q);
    const double result =
        loss(bench_.backend, predictions.in(), backend::Target<T>{nullptr, targets.in()},
             static_cast<const T*>(lane_weights.data()), gradient != nullptr ? slopes.panels() : Panels<T>());
    if (gradient != nullptr) *gradient = slopes.rows();
    return result;
  }

 private:
  conformance::Size size_;
  Bench<C> bench_;
};

/// Rows of 0 and 1 from labels.
template <class T>
std::vector<T> one_hot(const int* labels, std::size_t rows, std::size_t classes) {
  std::vector<T> result(rows * classes);
  for (std::size_t i = 0; i < rows; ++i) result[i * classes + static_cast<std::size_t>(labels[i])] = T(1);
  return result;
}

/// Calls f with the loss that a case of PyTorch's is about.
template <class F>
void with_loss(const torch_losses::Case& c, const F& f) {
  const std::string name = c.name;
  const bool logits = name.ends_with("_logits");
  if (name.starts_with("focal_labels"))
    f(loss::Focal({.gamma = c.gamma, .labels = true, .from_logits = logits}));
  else if (name.starts_with("focal"))
    f(loss::Focal({.gamma = c.gamma, .alpha = c.alpha, .from_logits = logits}));
  else if (name.starts_with("kl"))
    f(loss::KLDivergence({.from_logits = logits}));
  else if (name == "hinge")
    f(loss::Hinge());
  else
    f(loss::CosineSimilarity());
}

/// Calls f with each loss, predictions that suit it and targets.
template <class T, class F>
void with_losses(std::size_t batch, std::size_t features, const F& f) {
  const std::size_t n = batch * features;
  const auto logits = conformance::numbers<T>(n, 1, -3, 3);
  auto chances = conformance::numbers<T>(n, 2, 0.1, 0.9), shares = conformance::numbers<T>(n, 3, 0.1, 0.9);
  std::vector<T> answers(n), labels(n);
  for (std::size_t s = 0; s < batch; ++s) {
    T sum(0);
    for (std::size_t i = 0; i < features; ++i) sum += shares[s * features + i];
    for (std::size_t i = 0; i < features; ++i) {
      shares[s * features + i] /= sum;
      answers[s * features + i] = T((s * 7 + i * 3) % 5 < 2);
    }
    labels[s * features + s * 5 % features] = T(1);
  }
  for (const double gamma : {0.0, 0.5, 2.0, 5.0}) {
    f(loss::Focal({.gamma = gamma}), logits, answers);
    f(loss::Focal({.gamma = gamma, .alpha = 0.6, .from_logits = false}), chances, answers);
    f(loss::Focal({.gamma = gamma, .labels = true}), logits, labels);
    f(loss::Focal({.gamma = gamma, .labels = true, .from_logits = false}), chances, labels);
  }
  f(loss::Hinge(), logits, answers);
  f(loss::KLDivergence(), logits, shares);
  f(loss::KLDivergence({.from_logits = false}), chances, shares);
  f(loss::CosineSimilarity(), logits, shares);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("losses and their gradients are PyTorch's, also these", "[loss]", Cases) {
  using T = typename TestType::Scalar;
  constexpr std::size_t rows = torch_losses::rows, columns = torch_losses::columns, n = rows * columns;
  constexpr double tolerance = sizeof(T) == sizeof(float) ? 1e-5 : 1e-12;
  LossBench<TestType> bench(rows, columns);
  for (const auto& c : torch_losses::cases)
    with_loss(c, [&](const auto& loss) {
      INFO(c.name << ", gamma " << c.gamma << ", alpha " << c.alpha);
      const std::vector<T> y(c.predictions, c.predictions + n);
      const std::vector<T> t =
          c.targets != nullptr ? std::vector<T>(c.targets, c.targets + n) : one_hot<T>(c.labels, rows, columns);
      std::vector<T> gradient;
      CHECK(std::fabs(bench(loss, y, t, &gradient) - c.value) < tolerance);
      double worst = 0;
      for (std::size_t i = 0; i < n; ++i)
        worst = std::max(worst, std::fabs(static_cast<double>(gradient[i]) - c.gradient[i]));
      CHECK(worst < tolerance);
    });
}

TEMPLATE_TEST_CASE("gradients of losses are central differences, weighted too", "[loss][gradients]",
                   (conformance::Case<backend::Reference, double>), (conformance::Case<backend::Cpu, double>)) {
  for (const std::size_t batch : {1, 3, 40})
    for (const std::size_t features : {1, 5}) {
      LossBench<TestType> bench(batch, features);
      const auto weights = conformance::numbers<double>(batch, 9, 0, 2);
      with_losses<double>(batch, features, [&](const auto& loss, std::vector<double> y, const std::vector<double>& t) {
        INFO(loss.kind << ", batch " << batch << ", features " << features);
        std::vector<double> gradient;
        const double value = bench(loss, y, t, &gradient, weights);
        REQUIRE(std::fabs(bench(loss, y, t, nullptr, weights) - value) <= 1e-14 * (1 + std::fabs(value)));
        for (std::size_t i = 0; i < y.size(); ++i) {
          constexpr double step = 1e-5;
          const double before = y[i];
          y[i] = before + step;
          const double above = bench(loss, y, t, nullptr, weights);
          y[i] = before - step;
          const double expected = (above - bench(loss, y, t, nullptr, weights)) / (2 * step);
          y[i] = before;
          CAPTURE(i, gradient[i], expected);
          REQUIRE(std::fabs(gradient[i] - expected) <= 1e-8 * (1 + std::fabs(expected)));
        }
      });
    }
}

TEMPLATE_LIST_TEST_CASE("losses stay finite where predictions are extreme", "[loss]", Cases) {
  using T = typename TestType::Scalar;
  for (const std::size_t batch : {1, 3, 65}) {
    LossBench<TestType> bench(batch, 3);
    with_losses<T>(batch, 3, [&](const auto& loss, std::vector<T> y, const std::vector<T>& t) {
      bool logits = false;
      if constexpr (requires { loss.from_logits; }) logits = loss.from_logits;
      const T large = logits ? T(1e4) : T(1), small = logits ? T(-1e4) : T(0);
      for (std::size_t i = 0; i < y.size(); ++i) y[i] = i % 3 == 0 ? large : i % 3 == 1 ? small : T(0);
      INFO(loss.kind << ", batch " << batch);
      std::vector<T> gradient;
      CHECK(is_finite(bench(loss, y, t, &gradient)));
      for (const T slope : gradient) REQUIRE(is_finite(slope));
    });
  }
  // A prediction without a direction costs 1 and has no gradient.
  LossBench<TestType> bench(1, 3);
  std::vector<T> gradient;
  CHECK(bench(loss::CosineSimilarity(), {0, 0, 0}, {1, 2, 3}, &gradient) == 1);
  CHECK(gradient == std::vector<T>(3));
}

TEST_CASE("focal loss without its factor is cross-entropy, and the same distribution diverges by nothing", "[loss]") {
  using C = conformance::Case<backend::Cpu, double>;
  LossBench<C> bench(4, 3);
  const auto y = conformance::numbers<double>(12, 1, -3, 3);
  const int chosen[] = {2, 0, 1, 1};
  const auto labels = one_hot<double>(chosen, 4, 3);
  CHECK(bench(loss::Focal({.gamma = 0, .alpha = 0.5}), y, labels) ==
        Approx(bench(loss::BinaryCrossEntropy(), y, labels) / 2).epsilon(1e-12));
  CHECK(bench(loss::Focal({.gamma = 0, .labels = true}), y, labels) ==
        Approx(bench(loss::CategoricalCrossEntropy(), y, labels)).epsilon(1e-12));
  const std::vector<double> logits(12, 0.3), thirds(12, 1.0 / 3);
  CHECK(std::fabs(bench(loss::KLDivergence(), logits, thirds)) < 1e-14);
  CHECK(std::fabs(bench(loss::KLDivergence({.from_logits = false}), thirds, thirds)) < 1e-14);
}

TEST_CASE("options of losses are checked", "[loss][errors]") {
  check_raises<UsageError>([] { loss::Focal({.gamma = -1}); }, {"Focal", ".gamma", "-1"});
  check_raises<UsageError>([] { loss::Focal({.gamma = std::numeric_limits<double>::infinity()}); }, {".gamma", "inf"});
  check_raises<UsageError>([] { loss::Focal({.alpha = 1}); }, {"Focal", ".alpha", "between 0 and 1"});
  check_raises<UsageError>([] { loss::Focal({.alpha = 0.5, .labels = true}); }, {"Focal", ".alpha", ".labels"});
}

TEST_CASE("targets that a loss has no use for are refused, and the model stays as it was", "[loss][errors]") {
  const Tensor<float> x({2, 3}, {1, 2, 3, 4, 5, 6});
  const auto check = [&](const auto& loss, const std::vector<float>& y, const std::vector<std::string>& words) {
    Sequential model(Dense({.units = 3}));
    model.compile(optim::SGD(), loss);
    const auto targets = view(y, y.size() == 2 ? Shape{2} : Shape{2, 3});
    std::vector<std::string> in_fit = words, in_evaluate = words;
    in_fit.emplace_back("fit: y"), in_evaluate.emplace_back("evaluate: y");
    check_raises<DataError>([&] { model.fit(x, targets, {.verbose = 0}); }, in_fit);
    check_raises<DataError>([&] { model.evaluate(x, targets); }, in_evaluate);
    CHECK(!model.network().built());
  };
  check(loss::Focal(), {0, 1, 1, 0, 0.5F, 1}, {"sample 1, output 1", "0.5", "0 or 1", ".labels"});
  check(loss::Focal({.labels = true}), {1, 3}, {"label of sample 1", "3", "0 to 2"});
  check(loss::Hinge(), {1, -1, 1, -1, 2, 1}, {"sample 1, output 1", "2", "-1 or 1", "0 or 1"});
  check(loss::Hinge(), {1, -1, 1, -1, 1, 0}, {"sample 1, output 2", "is 0", "-1 or 1"});
  check(loss::Hinge(), {0, 1, 1, 1, 1, -1}, {"sample 1, output 2", "is -1", "-1 or 1"});
  check(loss::KLDivergence(), {0, 1, 0, 0.5F, 0.25F, 0.5F}, {"sample 1", "1.25", "add up to 1"});
  check(loss::KLDivergence(), {0, 1, 0, 1.5F, -0.5F, 0}, {"sample 1, output 1", "-0.5", "0 to 1"});
  check(loss::CosineSimilarity(), {1, 2, 3, 0, 0, 0}, {"sample 1", "directions"});
}

TEST_CASE("one output that says yes or no has two classes to weigh", "[loss]") {
  const Tensor<float> x({4, 1}, {1, 2, 3, 4}), y({4, 1}, {0, 1, 1, 0}), weights({4}, {1, 3, 3, 1});
  const auto check = [&](const auto& loss) {
    INFO(loss.kind);
    Sequential by_class(Dense({.units = 1})), by_sample(Dense({.units = 1}));
    for (Sequential* m : {&by_class, &by_sample}) m->compile(optim::SGD(), loss);
    by_class.fit(x, y, {.verbose = 0, .class_weight = {1, 3}});
    by_sample.fit(x, y, {.sample_weight = weights, .verbose = 0});
    CHECK(parameter_bits(by_class) == parameter_bits(by_sample));
  };
  check(loss::Hinge());
  check(loss::Focal());
  check(loss::BinaryCrossEntropy());
}

TEST_CASE("models learn with each loss, and files keep it", "[loss][file]") {
  const TemporaryFolder folder;
  constexpr std::size_t samples = 60;
  const auto x = normal_numbers({samples, 4}, 1);
  std::vector<float> answers(samples * 3), signs(samples * 3), shares(samples * 3), directions(samples * 3);
  std::vector<std::int32_t> labels(samples);
  for (std::size_t i = 0; i < samples; ++i) {
    labels[i] = x(i, 0) > 0 ? (x(i, 1) > 0 ? 2 : 1) : 0;
    for (std::size_t k = 0; k < 3; ++k) {
      answers[3 * i + k] = x(i, k) > x(i, k + 1) ? 1 : 0;
      signs[3 * i + k] = 2 * answers[3 * i + k] - 1;
      shares[3 * i + k] = static_cast<std::size_t>(labels[i]) == k ? 0.5F : 0.25F;
      directions[3 * i + k] = x(i, k) - x(i, 3);
    }
  }
  const auto check = [&](const auto& loss, const ArrayView& y) {
    INFO(loss.kind);
    Sequential model;
    model.add_layer(Dense({.units = 16, .activation = tesla::tanh})).add_layer(Dense({.units = 3}));
    model.compile(optim::Adam({.learning_rate = 0.02}), loss, {metric::Accuracy()});
    const auto history = model.fit(x, y, {.epochs = 40, .batch_size = 16, .verbose = 0});
    CHECK(history["loss"].back() < 0.5 * history["loss"].front());

    model.save(folder.path("model"));
    Sequential loaded = Sequential::load(folder.path("model"));
    const Scores wanted = model.evaluate(x, y), found = loaded.evaluate(x, y);
    CHECK(found["loss"] == wanted["loss"]);
    CHECK(found["accuracy"] == wanted["accuracy"]);
    CHECK(loaded.train_step(x, y) == model.train_step(x, y));
    CHECK(parameter_bits(loaded) == parameter_bits(model));
    loaded.save(folder.path("again"));
    model.save(folder.path("model"));
    CHECK(io::read_file(folder.path("again")) == io::read_file(folder.path("model")));
    return wanted["accuracy"];
  };
  const ArrayView answered = view(answers, {samples, 3}), signed_ones = view(signs, {samples, 3});
  CHECK(check(loss::Focal({.gamma = 1.5, .alpha = 0.4}), answered) > 0.9);
  CHECK(check(loss::Focal({.gamma = 1, .labels = true}), labels) > 0.9);
  // Judged one by one, and 0 is between yes and no.
  CHECK(check(loss::Hinge(), answered) > 0.9);
  CHECK(check(loss::Hinge(), signed_ones) > 0.9);
  check(loss::KLDivergence(), view(shares, {samples, 3}));
  check(loss::CosineSimilarity(), view(directions, {samples, 3}));
}

}  // namespace test_loss_losses
