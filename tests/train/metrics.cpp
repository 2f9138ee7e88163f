// Metrics over whole models: what is right is known, because the outputs are.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <model/support.hpp>
#include <string>
#include <vector>

namespace test_train_metrics {

using tesla::Dense;
using tesla::Sequential;

namespace {

/// A model whose outputs are its inputs.
Sequential identity(std::size_t features) {
  Sequential model;
  model.add_layer(Dense({.units = features, .use_bias = false, .initializer = tesla::init::zeros, .name = "copy"}));
  model.build({features});
  std::vector<float> weight(features * features);
  for (std::size_t i = 0; i < features; ++i) weight[i * features + i] = 1;
  model.parameter("copy.weight").assign(weight);
  return model;
}

tesla::Scores scores(Sequential& model, const auto& loss, const tesla::ArrayView& x, const tesla::ArrayView& y) {
  model.compile(tesla::optim::SGD(), loss, {tesla::metric::Accuracy(), tesla::metric::MeanAbsoluteError()});
  return model.evaluate(x, y, {.batch_size = 3});
}

/// The share of outputs below a limit; its name is its own.
struct BelowZero {
  static constexpr std::string_view name = "below_zero";
  template <class T>
  double operator()(const tesla::metric::Outcome<T>& o) const {
    double count = 0;
    for (const T value : o.prediction) count += value < 0 ? 1 : 0;
    return count / static_cast<double>(o.prediction.size());
  }
};

}  // namespace

TEST_CASE("accuracy of classes is the share of samples whose largest output is right", "[metrics]") {
  Sequential model = identity(3);
  const tesla::Tensor<float> x({5, 3}, {3, 1, 2, /**/ 0, 5, 1, /**/ -3, -2, -1, /**/ 0.1F, 0.2F, 0.3F, /**/ 9, 8, 7});
  const std::vector<std::int32_t> labels{0, 1, 2, 0, 1};  // the last two are wrong
  const tesla::Tensor<float> one_hot({5, 3}, {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0});
  CHECK(scores(model, tesla::loss::SparseCategoricalCrossEntropy(), x, labels)["accuracy"] == 0.6);
  CHECK(scores(model, tesla::loss::CategoricalCrossEntropy(), x, one_hot)["accuracy"] == 0.6);
  CHECK(scores(model, tesla::loss::MeanSquaredError(), x, one_hot)["accuracy"] == 0.6);

  const tesla::Tensor<float> sure({2, 3}, {0.5F, 0.25F, 0.25F, 0.25F, 0.25F, 0.5F});
  const std::vector<std::int32_t> both{0, 1};
  CHECK(scores(model, tesla::loss::SparseCategoricalCrossEntropy({.from_logits = false}), sure, both)["accuracy"] ==
        0.5);
}

TEST_CASE("accuracy of binary outputs is the share on the right side", "[metrics]") {
  const tesla::loss::BinaryCrossEntropy from_logits, from_probabilities({.from_logits = false});
  {
    Sequential model = identity(1);
    const tesla::Tensor<float> logits({4, 1}, {-0.1F, 0.3F, 0.7F, -2}), chances({4, 1}, {0.1F, 0.3F, 0.7F, 0.9F});
    const tesla::Tensor<float> y({4, 1}, {0, 0, 1, 1});
    const std::vector<float> flat{0, 0, 1, 1};
    CHECK(scores(model, from_logits, logits, y)["accuracy"] == 0.5);
    CHECK(scores(model, from_logits, logits, flat)["accuracy"] == 0.5);
    CHECK(scores(model, from_probabilities, chances, y)["accuracy"] == 1.0);
    // The same numbers as logits are all above 0.
    CHECK(scores(model, from_logits, chances, y)["accuracy"] == 0.5);
  }
  {
    Sequential model = identity(3);  // three independent questions
    const tesla::Tensor<float> logits({2, 3}, {-1, 2, 3, 4, -5, -6}), y({2, 3}, {0, 1, 0, 1, 1, 1});
    CHECK(scores(model, from_logits, logits, y)["accuracy"] == 0.5);
  }
}

TEST_CASE("the mean absolute error is over features and samples", "[metrics]") {
  Sequential model = identity(2);
  const tesla::Tensor<float> x({4, 2}, {1, 2, 3, 4, 5, 6, 7, 8}), y({4, 2}, {1, 1, 1, 1, 5, 6, 7, 16});
  CHECK(scores(model, tesla::loss::MeanSquaredError(), x, y)["mean_absolute_error"] ==
        (0 + 1 + 2 + 3 + 0 + 0 + 0 + 8) / 8.0);
  // Against labels it is against rows of 0 and 1.
  const tesla::Tensor<float> chances({2, 2}, {0.75F, 0.25F, 0.5F, 0.5F});
  const std::vector<int> labels{0, 1};
  CHECK(scores(model, tesla::loss::SparseCategoricalCrossEntropy({.from_logits = false}), chances,
               labels)["mean_absolute_error"] == 0.375);
}

TEST_CASE("a list of metrics serves several models", "[metrics]") {
  const std::vector<tesla::model::AnyMetric<float>> metrics{tesla::metric::Accuracy()};
  Sequential binary = identity(3), classes = identity(3);
  const tesla::Tensor<float> x({2, 3}, {3, 1, 2, 1, 2, 3}), y({2, 3}, {1, 0, 0, 0, 0, 1});
  binary.compile(tesla::optim::SGD(), tesla::loss::BinaryCrossEntropy(), metrics);
  classes.compile(tesla::optim::SGD(), tesla::loss::CategoricalCrossEntropy(), metrics);
  CHECK(binary.evaluate(x, y)["accuracy"] == Approx(1.0 / 3));
  CHECK(classes.evaluate(x, y)["accuracy"] == 1.0);
  binary.compile(tesla::optim::SGD(), tesla::loss::CategoricalCrossEntropy(), metrics);
  CHECK(binary.evaluate(x, y)["accuracy"] == 1.0);
}

TEST_CASE("a metric of one's own is reported under its name", "[metrics]") {
  Sequential model = identity(2);
  const tesla::Tensor<float> x({2, 2}, {-1, 2, -3, -4}), y({2, 2});
  model.compile(tesla::optim::SGD({.learning_rate = 0}), tesla::loss::MeanSquaredError(), {BelowZero()});
  CHECK(model.evaluate(x, y)["below_zero"] == 0.75);
  const auto history = model.fit(x, y, {.batch_size = 1, .validation = {x, y}, .verbose = 0});
  CHECK(history["below_zero"].back() == 0.75);
  CHECK(history["val_below_zero"].back() == 0.75);
}

}  // namespace test_train_metrics
