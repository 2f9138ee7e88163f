// Metrics where there is a label for each step: every step is a sample to them. And perplexity.
#include <metric/support.hpp>
#include <model/support.hpp>
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace test_metric_steps {

using namespace tesla;
using metric_test::identity;
using Metrics = std::vector<model::AnyMetric<float>>;
using Labels = std::vector<std::int32_t>;

namespace {

constexpr std::size_t samples = 23, steps = 6, classes = 4;

const Metrics& all_metrics() {
  static const Metrics all{metric::Accuracy(),
                           metric::TopK({.k = 2}),
                           metric::Precision(),
                           metric::Recall(),
                           metric::F1(),
                           metric::RocAuc(),
                           metric::Perplexity(),
                           metric::MeanAbsoluteError(),
                           metric::RootMeanSquaredError(),
                           metric::R2(),
                           metric::ConfusionMatrix()};
  return all;
}

/// Outputs are inputs, {steps, classes}.
Sequential identity_of_steps() {
  Sequential model(
      TimeDistributed(Dense({.units = classes, .use_bias = false, .initializer = init::zeros, .name = "copy"})));
  model.build({steps, classes});
  std::vector<float> weight(classes * classes);
  for (std::size_t i = 0; i < classes; ++i) weight[i * classes + i] = 1;
  model.parameters()[0].assign(weight);
  return model;
}

struct Data {
  Tensor<float> x = normal_numbers({samples, steps, classes}, 1);
  Labels y = labels_below(classes, samples* steps, 2);

  Data() {  // outputs lean towards the label
    for (std::size_t i = 0; i < y.size(); ++i) x[i * classes + static_cast<std::size_t>(y[i])] += 1;
  }
};

void check_same(const Scores& a, const Scores& b) {
  REQUIRE(a.size() == b.size());
  for (const auto& [name, value] : a) {
    INFO(name);
    CHECK(value == Approx(b[name]).epsilon(1e-6));
    CHECK(value != 0);
  }
}

}  // namespace

TEST_CASE("metrics of steps are those of as many samples", "[metric][steps]") {
  const Data data;
  const loss::SparseCategoricalCrossEntropy loss;
  Sequential by_step = identity_of_steps(), by_sample = identity(classes);
  by_step.compile(optim::SGD(), loss, all_metrics());
  by_sample.compile(optim::SGD(), loss, all_metrics());
  const ArrayView labels = view(data.y, {samples, steps});
  const ArrayView rows(data.x.data(), {samples * steps, classes});
  const Scores wanted = by_sample.evaluate(rows, data.y);
  for (const std::size_t batch : {1, 7, 23, 256}) {
    INFO("batches of " << batch);
    check_same(by_step.evaluate(data.x, labels, {.batch_size = batch}), wanted);
  }
  const auto found = by_step.metric<metric::ConfusionMatrix>(), matrix = by_sample.metric<metric::ConfusionMatrix>();
  REQUIRE(found.classes() == classes);
  std::size_t total = 0;
  for (std::size_t i = 0; i < classes; ++i)
    for (std::size_t k = 0; k < classes; ++k) {
      CHECK(found(i, k) == matrix(i, k));
      total += found(i, k);
    }
  CHECK(total == samples * steps);
  // In training too, and shuffled: nothing is learned, so the scores are those of the evaluation.
  by_step.compile(optim::SGD({.learning_rate = 0}), loss, all_metrics());
  const auto history = by_step.fit(data.x, labels, {.batch_size = 5, .validation = {data.x, labels}, .verbose = 0});
  for (const auto& [name, value] : wanted) {
    INFO(name);
    CHECK(history[name][0] == Approx(value).epsilon(1e-6));
    CHECK(history["val_" + name][0] == Approx(value).epsilon(1e-6));
  }
}

TEST_CASE("metrics do not see ignored labels", "[metric][steps]") {
  Data data;
  std::vector<float> kept_x;
  Labels kept_y;
  for (std::size_t i = 0; i < data.y.size(); ++i) {
    if (i % 3 == 1 || i / steps == 2) {
      data.y[i] = -1;
      continue;
    }
    kept_y.push_back(data.y[i]);
    kept_x.insert(kept_x.end(), data.x.data() + i * classes, data.x.data() + (i + 1) * classes);
  }
  for (const bool from_logits : {true, false}) {
    if (!from_logits)
      for (std::vector<float>* values : {&kept_x})
        for (float& value : *values) value = 1 / (1 + std::exp(-value));
    if (!from_logits)
      for (float& value : data.x) value = 1 / (1 + std::exp(-value));
    Sequential by_step = identity_of_steps(), by_sample = identity(classes);
    by_step.compile(optim::SGD(), loss::SparseCategoricalCrossEntropy({.from_logits = from_logits, .ignore_label = -1}),
                    all_metrics());
    by_sample.compile(optim::SGD(), loss::SparseCategoricalCrossEntropy({.from_logits = from_logits}), all_metrics());
    check_same(by_step.evaluate(data.x, view(data.y, {samples, steps}), {.batch_size = 4}),
               by_sample.evaluate(view(kept_x, {kept_y.size(), classes}), kept_y));
    std::size_t total = 0;
    const auto matrix = by_step.metric<metric::ConfusionMatrix>();
    for (std::size_t i = 0; i < classes * classes; ++i) total += matrix(i / classes, i % classes);
    CHECK(total == kept_y.size());
  }
}

TEST_CASE("perplexity is exp of the mean cross-entropy", "[metric]") {
  const Data data;
  const ArrayView rows(data.x.data(), {samples * steps, classes});
  Sequential model = identity(classes);
  model.compile(optim::SGD(), loss::SparseCategoricalCrossEntropy(), {metric::Perplexity()});
  Scores scores = model.evaluate(rows, data.y);
  CHECK(scores["perplexity"] == Approx(std::exp(scores["loss"])).epsilon(1e-6));
  // Rows of targets have classes too.
  Tensor<float> one_hot({samples * steps, classes});
  for (std::size_t i = 0; i < data.y.size(); ++i) one_hot(i, static_cast<std::size_t>(data.y[i])) = 1;
  model.compile(optim::SGD(), loss::CategoricalCrossEntropy(), {metric::Perplexity()});
  CHECK(model.evaluate(rows, one_hot)["perplexity"] == Approx(scores["perplexity"]).epsilon(1e-12));
  // Who knows nothing is undecided between all classes, who knows all between one.
  const Tensor<float> nothing({2, classes}), sure({2, classes}, {900, 0, 0, 0, 0, 0, -900, 2000});
  model.compile(optim::SGD(), loss::SparseCategoricalCrossEntropy(), {metric::Perplexity()});
  CHECK(model.evaluate(nothing, Labels{1, 3})["perplexity"] == Approx(classes));
  CHECK(model.evaluate(sure, Labels{0, 3})["perplexity"] == 1);
  const Tensor<float> chances({2, classes}, {0.5F, 0.25F, 0.25F, 0, 0, 0, 0, 1});
  model.compile(optim::SGD(), loss::SparseCategoricalCrossEntropy({.from_logits = false}), {metric::Perplexity()});
  CHECK(model.evaluate(chances, Labels{1, 3})["perplexity"] == Approx(2));
  CHECK(std::isfinite(model.evaluate(chances, Labels{1, 0})["perplexity"]));

  Sequential binary = identity(1);
  binary.compile(optim::SGD(), loss::BinaryCrossEntropy(), {metric::Perplexity()});
  check_raises<UsageError>(
      [&] {
        binary.evaluate(Tensor<float>({2, 1}), Tensor<float>({2, 1}));
      },
      {"Perplexity", "an output for each class"});
}

TEST_CASE("accuracy of predictions that are there already, for each step", "[metric][steps]") {
  const Data data;
  Sequential model = identity_of_steps();
  model.compile(optim::SGD(), loss::SparseCategoricalCrossEntropy({.ignore_label = -1}), {metric::Accuracy()});
  const Tensor<float> predictions = model.predict(data.x);
  REQUIRE(predictions.shape() == Shape{samples, steps, classes});
  const double wanted = model.evaluate(data.x, view(data.y, {samples, steps}))["accuracy"];
  CHECK(utils::accuracy(predictions, view(data.y, {samples, steps})) == Approx(wanted));
  CHECK((wanted > 0.4 && wanted < 0.9));
  Labels some = data.y;
  for (std::size_t i = 0; i < some.size(); i += 2) some[i] = -1;
  CHECK(utils::accuracy(predictions, view(some, {samples, steps}), {.ignore_label = -1}) ==
        Approx(model.evaluate(data.x, view(some, {samples, steps}))["accuracy"]));
  some[6] = -2;
  check_raises<DataError>(
      [&] {
        utils::accuracy(predictions, view(some, {samples, steps}), {.ignore_label = -1});
      },
      {"sample 1, step 0", "-2", "0 to 3"});
  check_raises<ShapeError>(
      [&] {
        utils::accuracy(predictions, Tensor<float>({samples, steps + 1}));
      },
      {"{23, 6, 4}", "{23, 7}"});
}

}  // namespace test_metric_steps
