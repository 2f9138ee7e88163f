// Labels for each step: kernels against plain loops, PyTorch's numbers, central differences, ignored labels, errors.
#include <backend/conformance.hpp>
#include <io/temporary_folder.hpp>
#include <loss/steps_pytorch.hpp>
#include <model/support.hpp>
#include <tesla/tesla.hpp>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace test_loss_steps {

using namespace tesla;
using conformance::Bench;
using conformance::Cases;
using conformance::Real;
using conformance::Reals;
using Labels = std::vector<std::int32_t>;

namespace {

struct Extents {
  std::size_t batch, steps, classes;
};
/// Some of them are of one sample, of part of a panel, and worth several threads.
const Extents all_extents[] = {{1, 1, 3},  {1, 7, 5},  {2, 3, 2},   {7, 5, 4},   {16, 2, 33},
                               {17, 9, 3}, {63, 1, 7}, {65, 4, 10}, {130, 6, 5}, {40, 64, 50}};

/// Samples in panels as a loss gets them: a label and a weight for each step.
template <class C>
struct StepBench {
  using T = typename C::Scalar;

  StepBench(const Extents& e, std::vector<T> predictions) : extents(e), y(std::move(predictions)) {
    const std::size_t count = e.batch * e.steps, lanes = C::Backend::template lanes<T>(e.batch);
    weights = conformance::numbers<T>(count, 3, 0, 2);
    for (std::size_t i = 0; i < count; i += 3) weights[i] = T(0);
    placed_labels.resize(round_up(e.batch, lanes) * e.steps);
    std::vector<T> placed_weights(placed_labels.size()), rows(count * e.classes);
    for (std::size_t s = 0; s < e.batch; ++s)
      for (std::size_t t = 0; t < e.steps; ++t) {
        const std::size_t i = s * e.steps + t, at = (s / lanes * e.steps + t) * lanes + s % lanes;
        labels.push_back(static_cast<std::int32_t>((s * 5 + t * 3) % e.classes));
        placed_labels[at] = labels[i], placed_weights[at] = weights[i];
        rows[i * e.classes + static_cast<std::size_t>(labels[i])] = T(1);
      }
    predicted.emplace_back(bench.batch({e.batch, e.steps * e.classes}, y));
    one_hot.emplace_back(bench.batch({e.batch, e.steps * e.classes}, rows));
    q.emplace_back(bench.array(placed_weights));
    // Of the samples, which a loss does not look at where steps have their own.
    sample_weights.emplace_back(bench.array(std::vector<T>(round_up(e.batch, lanes), T(77))));
  }

  template <class L>
  std::vector<T> operator()(const L& loss, double& value, bool with_gradient = true) {
    const bool by_sample = extents.steps == 1;
    const backend::Target<T> target{placed_labels.data(),
                                    loss.targets() == loss::Targets::one_hot ? one_hot[0].in() : Panels<const T>(),
                                    extents.steps, by_sample ? nullptr : q[0].data()};
    const auto slopes = bench.batch({extents.batch, extents.steps * extents.classes});
    value = loss(bench.backend, predicted[0].in(), target,
                 static_cast<const T*>(by_sample ? q[0].data() : sample_weights[0].data()),
                 with_gradient ? slopes.panels() : Panels<T>());
    return slopes.rows();
  }

  Extents extents;
  std::vector<T> y, weights;
  Labels labels, placed_labels;
  Bench<C> bench;
  std::vector<typename Bench<C>::Batch> predicted, one_hot;
  std::vector<typename Bench<C>::Array> q, sample_weights;
};

/// What a step costs by its logits, or probabilities, and the derivatives.
using Cost = Real (*)(const Real* y, std::size_t classes, std::size_t label, Real* slopes);

Real of_logits(const Real* y, std::size_t classes, std::size_t label, Real* slopes) {
  Real total = 0;
  for (std::size_t i = 0; i < classes; ++i) total += std::exp(y[i]);
  for (std::size_t i = 0; i < classes; ++i) slopes[i] = std::exp(y[i]) / total - (i == label ? 1 : 0);
  return std::log(total) - y[label];
}
Real of_chances(const Real* y, std::size_t classes, std::size_t label, Real* slopes) {
  std::fill_n(slopes, classes, Real(0));
  slopes[label] = -1 / y[label];
  return -std::log(y[label]);
}
/// Of focal loss, by the slope of (1 - p)^2 (-log p) over p.
Real focal_of_chances(const Real* y, std::size_t classes, std::size_t label, Real* slopes) {
  const Real p = y[label], cost = -(1 - p) * (1 - p) * std::log(p);
  std::fill_n(slopes, classes, Real(0));
  slopes[label] = 2 * (1 - p) * std::log(p) - (1 - p) * (1 - p) / p;
  return cost;
}
Real focal_of_logits(const Real* y, std::size_t classes, std::size_t label, Real* slopes) {
  Reals chances(classes), by_chance(classes);
  Real total = 0;
  for (std::size_t i = 0; i < classes; ++i) total += chances[i] = std::exp(y[i]);
  for (Real& p : chances) p /= total;
  const Real cost = focal_of_chances(chances.data(), classes, label, by_chance.data());
  for (std::size_t i = 0; i < classes; ++i)
    slopes[i] = by_chance[label] * chances[label] * ((i == label ? 1 : 0) - chances[i]);
  return cost;
}

template <class C, class L>
void check_kernel(const L& loss, double low, double high, Cost cost) {
  using T = typename C::Scalar;
  for (const Extents& e : all_extents) {
    INFO(loss.kind << ", batch " << e.batch << ", steps " << e.steps << ", classes " << e.classes);
    const std::size_t count = e.batch * e.steps;
    StepBench<C> steps(e, conformance::numbers<T>(count * e.classes, 1, low, high));
    Real wanted = 0, sizes = 0;
    Reals gradient(count * e.classes), row(e.classes);
    for (std::size_t i = 0; i < count; ++i) {
      std::copy_n(steps.y.begin() + static_cast<std::ptrdiff_t>(i * e.classes), e.classes, row.begin());
      Real* const slopes = gradient.data() + i * e.classes;
      const Real own = cost(row.data(), e.classes, static_cast<std::size_t>(steps.labels[i]), slopes);
      for (std::size_t k = 0; k < e.classes; ++k) slopes[k] *= steps.weights[i];
      wanted += steps.weights[i] * own, sizes += std::fabs(steps.weights[i] * own);
    }
    const auto result = steps.bench.repeated([&] {
      double value = 0, alone = 0;
      std::vector<T> all = steps(loss, value);
      REQUIRE(std::fabs(Real(value) - wanted) <= C::tolerance * (1 + sizes));
      steps(loss, alone, false);
      REQUIRE(std::fabs(Real(alone - value)) <= C::tolerance * (1 + sizes));
      all.push_back(static_cast<T>(value));
      all.push_back(static_cast<T>(value - static_cast<double>(all.back())));
      return all;
    });
    steps.bench.compare({result.begin(), result.end() - 2}, gradient, 4 * (std::sqrt(Real(e.classes)) + 1));
  }
}

template <class Model>
Model table_model(std::size_t tokens, std::size_t steps, std::size_t classes) {
  Model model;
  model.add_layer(Input({steps})).add_layer(Embedding({.tokens = tokens, .units = classes, .name = "table"}));
  model.build({steps});
  return model;
}

/// A model whose predictions are its parameters: sample s, step t looks up row s * steps + t.
template <class Model>
struct Table {
  using T = typename Model::Scalar;
  Model model;
  Tensor<std::int32_t> x;

  Table(const Extents& e, const std::vector<T>& predictions)
      : model(table_model<Model>(e.batch * e.steps, e.steps, e.classes)), x({e.batch, e.steps}) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<std::int32_t>(i);
    assign(predictions);
  }
  void assign(const std::vector<T>& predictions) { model.parameter("table.weight").assign(predictions); }
  /// The loss; the gradient of the predictions into `gradient`.
  template <class L>
  double operator()(const L& loss, const ArrayView& y, std::vector<double>* gradient = nullptr,
                    typename Model::Options options = {}) {
    model.compile(optim::SGD({.learning_rate = gradient != nullptr ? 1.0 : 0.0}), loss);
    const Tensor<T> before = model.parameter("table.weight").value();
    options.shuffle = false, options.verbose = 0, options.batch_size = x.shape()[0];
    const double result = model.fit(x, y, options)["loss"][0];
    const Tensor<T> after = model.parameter("table.weight").value();
    if (gradient != nullptr) gradient->clear();
    for (std::size_t i = 0; gradient != nullptr && i < before.size(); ++i)
      gradient->push_back(static_cast<double>(before[i]) - static_cast<double>(after[i]));
    model.parameter("table.weight").assign(before);
    return result;
  }
};

using FloatOnCpu = BasicSequential<float, backend::Cpu>;
using DoubleOnCpu = BasicSequential<double, backend::Cpu>;
using DoubleOnReference = BasicSequential<double, backend::Reference>;

/// Less the logit of the right class.
struct Hits {
  static constexpr std::string_view kind = "Hits";
  bool steps = true;

  loss::Targets targets() const { return {loss::Targets::one_hot, steps}; }
  template <class T, class B>
  double operator()(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights,
                    Panels<T> gradient) const {
    const loss::Batch<T> b = loss::by_step(y, target, weights, gradient);
    return backend.elementwise_loss([](auto p, auto t) { return -(p * t); }, b.y, b.target.values, b.weights,
                                    b.gradient);
  }
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("losses on labels a step are sums over all steps, by weights of their own", "[loss][steps]",
                        Cases) {
  check_kernel<TestType>(loss::SparseCategoricalCrossEntropy(), -5, 5, of_logits);
  check_kernel<TestType>(loss::SparseCategoricalCrossEntropy({.from_logits = false}), 0.1, 0.9, of_chances);
  check_kernel<TestType>(loss::Focal({.labels = true}), -3, 3, focal_of_logits);
  check_kernel<TestType>(loss::Focal({.labels = true, .from_logits = false}), 0.1, 0.9, focal_of_chances);
}

TEMPLATE_TEST_CASE("losses on labels a step are PyTorch's", "[loss][steps][pytorch]", FloatOnCpu, DoubleOnCpu,
                   DoubleOnReference) {
  using T = typename TestType::Scalar;
  using namespace torch_steps;
  constexpr std::size_t n = samples * steps * classes;
  constexpr double tolerance = sizeof(T) == sizeof(float) ? 1e-5 : 1e-12;
  for (const auto& c : torch_steps::cases) {
    INFO(c.name);
    const double* const predictions = c.from_logits ? logits : chances;
    Table<TestType> table({samples, steps, classes}, std::vector<T>(predictions, predictions + n));
    typename TestType::Options options;
    if (c.sample_weights) options.sample_weight = ArrayView(torch_steps::sample_weights, {samples});
    if (c.class_weights)
      options.class_weight.assign(std::begin(torch_steps::class_weights), std::end(torch_steps::class_weights));
    const ArrayView y(c.ignoring ? some_labels : labels, {samples, steps});
    std::vector<double> gradient;
    double value = 0;
    if (c.gamma >= 0)
      value =
          table(loss::Focal({.gamma = c.gamma, .labels = true, .from_logits = c.from_logits}), y, &gradient, options);
    else if (c.ignoring)
      value = table(loss::SparseCategoricalCrossEntropy({.from_logits = c.from_logits, .ignore_label = -1}), y,
                    &gradient, options);
    else
      value = table(loss::SparseCategoricalCrossEntropy({.from_logits = c.from_logits}), y, &gradient, options);
    CHECK(std::fabs(value - c.value) < tolerance);
    double worst = 0;
    for (std::size_t i = 0; i < n; ++i) worst = std::max(worst, std::fabs(gradient[i] - c.gradient[i]));
    CHECK(worst < tolerance);
  }
}

TEMPLATE_TEST_CASE("gradients of labels a step are central differences", "[loss][steps][gradients]", DoubleOnCpu,
                   DoubleOnReference) {
  const auto check = [](const auto& loss, const Extents& e, double low, double high) {
    INFO(loss.kind << ", batch " << e.batch << ", steps " << e.steps);
    const std::size_t count = e.batch * e.steps;
    auto predictions = conformance::numbers<double>(count * e.classes, 5, low, high);
    const auto weight = conformance::numbers<double>(e.batch, 6, 0, 2);
    Labels y = labels_below(e.classes, count, 7);
    if (loss.targets().ignored)
      for (std::size_t i = 0; i < count; i += 3) y[i] = *loss.targets().ignored;
    const typename TestType::Options options{.sample_weight = weight, .class_weight = {0.5, 2, 1}};
    const ArrayView labels = view(y, {e.batch, e.steps});
    Table<TestType> table(e, predictions);
    std::vector<double> gradient;
    table(loss, labels, &gradient, options);
    for (std::size_t i = 0; i < predictions.size(); ++i) {
      constexpr double step = 1e-5;
      const auto at = [&](double value) {
        const double before = std::exchange(predictions[i], value);
        table.assign(predictions);
        predictions[i] = before;
        return table(loss, labels, nullptr, options);
      };
      const double expected = (at(predictions[i] + step) - at(predictions[i] - step)) / (2 * step);
      CAPTURE(i, gradient[i], expected);
      REQUIRE(std::fabs(gradient[i] - expected) <= 1e-8 * (1 + std::fabs(expected)));
    }
  };
  for (const Extents& e : {Extents{1, 4, 3}, Extents{5, 3, 3}, Extents{6, 1, 3}}) {
    check(loss::SparseCategoricalCrossEntropy(), e, -3, 3);
    check(loss::SparseCategoricalCrossEntropy({.ignore_label = -1}), e, -3, 3);
    check(loss::SparseCategoricalCrossEntropy({.ignore_label = 1}), e, -3, 3);
    check(loss::SparseCategoricalCrossEntropy({.from_logits = false}), e, 0.2, 0.8);
    check(loss::SparseCategoricalCrossEntropy({.from_logits = false, .ignore_label = 2}), e, 0.2, 0.8);
    check(loss::Focal({.labels = true}), e, -3, 3);
    check(loss::Focal({.labels = true, .from_logits = false}), e, 0.2, 0.8);
  }
}

TEST_CASE("steps are learned as samples of their own are", "[loss][steps]") {
  constexpr std::size_t samples = 70, steps = 6, features = 4, classes = 3;
  const auto x = normal_numbers<double>({samples, steps, features}, 1);
  const Labels y = labels_below(classes, samples * steps, 2);
  DoubleOnCpu by_step(TimeDistributed(Dense({.units = classes, .name = "dense"})));
  DoubleOnCpu by_sample(Dense({.units = classes, .name = "dense"}));
  const auto losses = [&](DoubleOnCpu& model, const ArrayView& in, const ArrayView& labels, std::size_t batch) {
    model.compile(optim::Adam({.learning_rate = 0.05}), loss::SparseCategoricalCrossEntropy());
    return model.fit(in, labels, {.epochs = 5, .batch_size = batch, .shuffle = false, .verbose = 0})["loss"];
  };
  const auto a = losses(by_step, x, view(y, {samples, steps}), 20);
  const auto b = losses(by_sample, ArrayView(x.data(), {samples * steps, features}), y, 20 * steps);
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).epsilon(1e-10));
  CHECK(a.back() < a.front());
  for (std::size_t p = 0; p < 2; ++p)
    CHECK(relative_error(by_step.parameters()[p].value(), by_sample.parameters()[p].value()) < 1e-9);
}

TEST_CASE("one step is bit for bit one label a sample", "[loss][steps]") {
  const auto x = normal_numbers({50, 4}, 1);
  const Labels y = labels_below(3, 50, 2);
  const std::vector<float> weight(50, 0.7F);
  const auto check = [&](const auto& loss, const Reshape& last) {
    Sequential one(Dense({.units = 3})), steps;
    steps.add_layer(Dense({.units = 3})).add_layer(last);
    std::string bits_of[2];
    std::vector<double> losses[2];
    for (const std::size_t k : {0, 1}) {
      Sequential& model = k == 0 ? one : steps;
      model.compile(optim::SGD({.learning_rate = 0.1}), loss, {metric::Accuracy()});
      const auto history = model.fit(x, k == 0 ? ArrayView(y) : view(y, {50, 1}),
                                     {.epochs = 3, .sample_weight = weight, .verbose = 0, .class_weight = {1, 2, 0.5}});
      losses[k] = history["loss"];
      losses[k].insert(losses[k].end(), history["accuracy"].begin(), history["accuracy"].end());
      bits_of[k] = parameter_bits(model);
    }
    CHECK(losses[0] == losses[1]);
    CHECK((bits_of[0] == bits_of[1]));
  };
  check(loss::SparseCategoricalCrossEntropy(), Reshape({1, 3}));
  check(loss::SparseCategoricalCrossEntropy({.from_logits = false}), Reshape({1, 3}));
  check(loss::Focal({.labels = true}), Reshape({1, 3}));
  check(loss::SparseCategoricalCrossEntropy(), Reshape({3, 1}));  // a column, not three steps
}

TEST_CASE("ignored labels: the mean is over the others, whatever the batches are", "[loss][steps]") {
  constexpr std::size_t samples = 37, steps = 5, classes = 4;
  const auto predictions = conformance::numbers<double>(samples * steps * classes, 1, -3, 3);
  Labels y = labels_below(classes, samples * steps, 2);
  for (std::size_t i = 0; i < y.size(); ++i)
    if (i % 7 < 3 || i / steps == 4) y[i] = -100;
  Real total = 0;
  std::size_t counted = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (y[i] == -100) continue;
    Reals row(predictions.begin() + static_cast<std::ptrdiff_t>(i * classes),
              predictions.begin() + static_cast<std::ptrdiff_t>((i + 1) * classes)),
        slopes(classes);
    total += of_logits(row.data(), classes, static_cast<std::size_t>(y[i]), slopes.data());
    ++counted;
  }
  const double wanted = static_cast<double>(total) / static_cast<double>(counted);
  Table<DoubleOnCpu> table({samples, steps, classes}, predictions);
  const loss::SparseCategoricalCrossEntropy loss({.ignore_label = -100});
  const ArrayView labels = view(y, {samples, steps});
  table.model.compile(optim::SGD({.learning_rate = 0}), loss, {metric::Accuracy()});
  for (const std::size_t batch : {1, 5, 16, 37, 256}) {
    INFO("batches of " << batch);
    CHECK(table.model.evaluate(table.x, labels, {.batch_size = batch})["loss"] == Approx(wanted).epsilon(1e-12));
    CHECK(table.model.fit(table.x, labels, {.batch_size = batch, .verbose = 0})["loss"][0] ==
          Approx(wanted).epsilon(1e-12));
  }
  // A class may be left out too: nothing then says that it is wanted, but it takes part in the softmax.
  Labels zeros = y;
  for (std::int32_t& label : zeros) label = label == -100 ? 0 : label;
  std::vector<double> gradient;
  table(loss::SparseCategoricalCrossEntropy({.ignore_label = 0}), view(zeros, {samples, steps}), &gradient);
  for (std::size_t i = 0; i < y.size(); ++i) {
    double size = 0;
    for (std::size_t k = 0; k < classes; ++k) size += std::fabs(gradient[i * classes + k]);
    CAPTURE(i, zeros[i]);
    REQUIRE((size == 0) == (zeros[i] == 0));
  }
  // Where nothing counts there is nothing to learn.
  const Labels none(samples * steps, -100);
  CHECK(table(loss, view(none, {samples, steps}), &gradient) == 0);
  CHECK(std::all_of(gradient.begin(), gradient.end(), [](double g) { return g == 0; }));
}

TEST_CASE("labels of one a sample may be ignored as well", "[loss][steps]") {
  const auto x = normal_numbers<double>({6, 3}, 1);
  const Tensor<double> some({4, 3}, {x(0, 0), x(0, 1), x(0, 2), x(2, 0), x(2, 1), x(2, 2), x(3, 0), x(3, 1), x(3, 2),
                                     x(5, 0), x(5, 1), x(5, 2)});
  for (const bool from_logits : {true, false}) {
    DoubleOnCpu all(Dense({.units = 3, .activation = tesla::softmax})),
        part(Dense({.units = 3, .activation = tesla::softmax}));
    const loss::SparseCategoricalCrossEntropy loss({.from_logits = from_logits, .ignore_label = -1});
    all.compile(optim::SGD({.learning_rate = 0.5}), loss, {metric::Accuracy()});
    part.compile(optim::SGD({.learning_rate = 0.5}), loss, {metric::Accuracy()});
    const auto a = all.fit(x, Labels{0, -1, 2, 1, -1, 2}, {.epochs = 4, .shuffle = false, .verbose = 0});
    const auto b = part.fit(some, Labels{0, 2, 1, 2}, {.epochs = 4, .shuffle = false, .verbose = 0});
    for (std::size_t i = 0; i < 4; ++i) CHECK(a["loss"][i] == Approx(b["loss"][i]).epsilon(1e-12));
    CHECK(a["accuracy"] == b["accuracy"]);
  }
}

TEST_CASE("places of images have labels, too, and arrays may be of any kind", "[loss][steps]") {
  constexpr std::size_t samples = 9, height = 3, width = 4, classes = 5;
  Sequential model;
  model.add_layer(Conv2D({.filters = classes, .kernel = {1, 1}}));
  model.compile(optim::SGD(), loss::SparseCategoricalCrossEntropy(), {metric::Accuracy()});
  const auto x = normal_numbers({samples, height, width, 2}, 1);
  const Labels y = labels_below(classes, samples * height * width, 2);
  model.build({height, width, 2});
  const double wanted = model.evaluate(x, view(y, {samples, height, width}))["loss"];
  CHECK(wanted == model.evaluate(x, view(y, {samples, height * width}))["loss"]);
  CHECK(wanted == model.evaluate(x, view(y, {samples, height, width, 1}))["loss"]);
  const std::vector<std::int64_t> wide(y.begin(), y.end());
  const std::vector<float> real(y.begin(), y.end());
  CHECK(wanted == model.evaluate(x, view(wide, {samples, height, width}))["loss"]);
  CHECK(wanted == model.evaluate(x, view(real, {samples, height, width}))["loss"]);
  // Walked through in another order.
  std::vector<std::int32_t> turned(y.size());
  for (std::size_t i = 0; i < y.size(); ++i) turned[i % (height * width) * samples + i / (height * width)] = y[i];
  const ArrayView strided(turned.data(), {samples, height, width}, {1, width * samples, samples});
  CHECK(wanted == model.evaluate(x, strided)["loss"]);
  check_raises<ShapeError>(
      [&] {
        model.evaluate(x, view(y, {samples, width, height}));
      },
      {"evaluate: y", "{3, 4, 5}", "{9, 3, 4}", "{9, 4, 3}"});
}

TEST_CASE("labels a step that do not fit are refused", "[loss][steps][errors]") {
  const auto x = normal_numbers({8, 6, 3}, 1);
  const Labels y = labels_below(4, 48, 2);
  const auto refused = [&]<class E>(std::type_identity<E>, const auto& loss, const ArrayView& labels,
                                    const std::vector<std::string>& words) {
    Sequential model(TimeDistributed(Dense({.units = 4})));
    model.compile(optim::SGD(), loss);
    check_raises<E>([&] { model.fit(x, labels, {.verbose = 0}); }, words);
    check_raises<E>([&] { model.evaluate(x, labels); }, words);
    CHECK(!model.network().built());
  };
  const std::type_identity<ShapeError> shape;
  const std::type_identity<DataError> data;
  const loss::SparseCategoricalCrossEntropy loss, ignoring({.ignore_label = -1});
  refused(shape, loss, ArrayView(y.data(), {8}),
          {": y:", "{6, 4}", "4 classes", "6 steps", "{8, 6}", "{8}", "Flatten"});
  refused(shape, loss, ArrayView(y.data(), {8, 5}), {"{8, 6}", "{8, 5}"});
  refused(shape, loss, Tensor<float>({8, 6, 4}), {"{8, 6}", "{8, 6, 4}", "number of the class"});
  refused(shape, loss, ArrayView(y.data(), {6, 8}), {"8 samples in x"});
  refused(shape, loss::Focal({.labels = true}), ArrayView(y.data(), {8}), {"{8, 6}", "{8}"});
  Labels wrong = y;
  wrong[3 * 6 + 5] = 4;
  refused(data, loss, view(wrong, {8, 6}), {": y:", "sample 3, step 5", "is 4", "0 to 3", "at a step"});
  refused(data, ignoring, view(wrong, {8, 6}), {"sample 3, step 5", "is 4", "0 to 3", "or -1", ".ignore_label"});
  wrong[3 * 6 + 5] = -1;
  refused(data, loss, view(wrong, {8, 6}), {"sample 3, step 5", "is -1"});
  std::vector<float> real(48);
  real[47] = 0.5F;
  refused(data, loss, view(real, {8, 6}), {"sample 7, step 5", "0.5", "whole numbers"});
  real[47] = std::numeric_limits<float>::quiet_NaN();
  refused(data, ignoring, view(real, {8, 6}), {"sample 7, step 5", "nan"});

  // A model without steps says what would have them.
  Sequential model(Flatten(), Dense({.units = 4}));
  model.compile(optim::SGD(), loss);
  check_raises<ShapeError>(
      [&] {
        model.fit(x, view(y, {8, 6}), {.verbose = 0});
      },
      {"one label a sample", "{8, 6}", "{steps, classes}", "{4}"});
  // Weights of classes are those of a step.
  Sequential weighted(TimeDistributed(Dense({.units = 4})));
  weighted.compile(optim::SGD(), loss);
  check_raises<UsageError>(
      [&] {
        weighted.fit(x, view(y, {8, 6}), {.verbose = 0, .class_weight = std::vector<double>(24, 1.0)});
      },
      {".class_weight", "24", "4 classes"});
}

TEST_CASE("a model that learns labels a step goes into a file", "[loss][steps][file]") {
  const TemporaryFolder folder;
  constexpr std::size_t samples = 60, steps = 7, tokens = 5;
  Tensor<std::int32_t> x({samples, steps}), y({samples, steps});
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = labels_below(tokens, x.size(), 3)[i];
    y[i] = i % steps == 0 ? -1 : (x[i] + x[i - 1]) % static_cast<std::int32_t>(tokens);  // of what was before
  }
  Sequential model(Embedding({.tokens = tokens, .units = 8}), SimpleRNN({.units = 32, .return_sequences = true}),
                   TimeDistributed(Dense({.units = tokens})));
  model.compile(optim::Adam({.learning_rate = 0.02}), loss::SparseCategoricalCrossEntropy({.ignore_label = -1}),
                {metric::Accuracy()});
  const auto history = model.fit(x, y, {.epochs = 40, .batch_size = 16, .verbose = 0});
  CHECK(history["accuracy"].back() > 0.95);
  CHECK(history["loss"].back() < 0.2 * history["loss"].front());
  model.save(folder.path("model"));
  Sequential loaded = Sequential::load<AllLayers>(folder.path("model"));
  CHECK(loaded.evaluate(x, y)["loss"] == model.evaluate(x, y)["loss"]);
  CHECK(loaded.train_step(x, y) == model.train_step(x, y));
  CHECK(parameter_bits(loaded) == parameter_bits(model));
  const auto text = model::options_of(loss::SparseCategoricalCrossEntropy()).write();
  CHECK(text == R"({"from_logits":true})");  // as before there was anything to ignore
}

TEST_CASE("a loss of one's own takes labels a step if it says so", "[loss][steps]") {
  const Tensor<float> logits({2, 2, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  const Labels y{0, 1, 2, 0};
  Table<FloatOnCpu> table({2, 2, 3}, std::vector<float>(logits.begin(), logits.end()));
  std::vector<double> gradient;
  CHECK(table(Hits(), view(y, {2, 2}), &gradient) == -(1 + 5 + 9 + 10) / 4.0);
  for (std::size_t i = 0; i < 12; ++i) CHECK(gradient[i] == (static_cast<std::size_t>(y[i / 3]) == i % 3 ? -0.25 : 0));
  check_raises<ShapeError>([&] { table(Hits{false}, view(y, {2, 2})); }, {"one label a sample", "{2, 2}"});
}

}  // namespace test_loss_steps
