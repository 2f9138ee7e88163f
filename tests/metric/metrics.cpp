// Metrics where there is little to measure, of one's own, several at once, in files; and what is refused.
#include <io/temporary_folder.hpp>
#include <metric/support.hpp>
#include <model/support.hpp>
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace test_metric_metrics {

using namespace tesla;
using metric_test::identity;
using Metrics = std::vector<model::AnyMetric<float>>;

namespace {

Scores scores(std::size_t outputs, const auto& loss, const Metrics& metrics, const ArrayView& x, const ArrayView& y) {
  Sequential model = identity(outputs);
  model.compile(optim::SGD(), loss, metrics);
  return model.evaluate(x, y, {.batch_size = 2});
}

/// The smallest and the largest first output; both names are its own.
struct Range {
  static constexpr std::string_view name = "range";
  double low = 0, high = 0;
  std::size_t promised = 0, seen = 0;

  void reset(const metric::Scope& scope) { *this = {0, 0, scope.samples, 0}; }
  template <class T>
  void add(const metric::Outcome<T>& o) {
    const auto value = static_cast<double>(o.prediction[0]);
    low = seen == 0 ? value : std::min(low, value), high = seen == 0 ? value : std::max(high, value);
    ++seen;
  }
  std::vector<std::string> keys() const { return {"lowest", "highest"}; }
  void values(std::span<double> out) const { out[0] = low, out[1] = high; }
};

}  // namespace

TEST_CASE("one class alone: what is undefined is 0, or no number", "[metric]") {
  const loss::BinaryCrossEntropy loss;
  const Metrics all{metric::Precision(), metric::Recall(), metric::F1(), metric::RocAuc()};
  const Tensor<float> x({3, 1}, {-1, 2, -3}), none({3, 1}), every({3, 1}, {1, 1, 1});
  const Scores without = scores(1, loss, all, x, none), with = scores(1, loss, all, x, every);
  for (const char* name : {"precision", "recall", "f1"}) CHECK(without[name] == 0);
  CHECK(std::isnan(without["roc_auc"]));
  CHECK(std::isnan(with["roc_auc"]));
  CHECK(with["precision"] == 1);
  CHECK(with["recall"] == Approx(1.0 / 3));
  CHECK(with["f1"] == 0.5);
  // Nothing wanted and nothing predicted.
  const Tensor<float> no({3, 1}, {-1, -2, -3});
  for (const char* name : {"precision", "recall", "f1"}) CHECK(scores(1, loss, all, no, none)[name] == 0);
}

TEST_CASE("the area under the curve: all in order, none, and ties", "[metric]") {
  const loss::BinaryCrossEntropy loss;
  const Tensor<float> y({4, 1}, {0, 0, 1, 1}), ordered({4, 1}, {-2, -1, 1, 2}), reversed({4, 1}, {2, 1, -1, -2}),
      equal({4, 1}, {1, 1, 1, 1}), some({4, 1}, {0, 1, 1, 2});
  const auto area = [&](const Tensor<float>& x) { return scores(1, loss, {metric::RocAuc()}, x, y)["roc_auc"]; };
  CHECK(area(ordered) == 1);
  CHECK(area(reversed) == 0);
  CHECK(area(equal) == 0.5);
  CHECK(area(some) == 0.875);
}

TEST_CASE("the area under the curve of several classes: sure answers, shifted logits, and classes alone", "[metric]") {
  const loss::SparseCategoricalCrossEntropy loss;
  const Metrics areas{metric::RocAuc(), metric::RocAuc({.average = metric::weighted})};
  const std::vector<std::int32_t> y{0, 0, 1, 2};
  // So sure that in a probability the differences are lost: of class 0 only the log of the odds can tell them.
  const Tensor<float> sure({4, 3}, {90, 0, 0, 80, 0, 0, 95, 0, 0, 0, 0, 70});
  CHECK(scores(3, loss, areas, sure, y)["roc_auc"] == 0.5);
  // A number that is added to all logits of a sample says nothing.
  const Tensor<float> shifted({4, 3}, {2, 0, 1, -6, -8, -8, 64, 66, 65, 32, 32, 36});
  CHECK(scores(3, loss, areas, shifted, y)["weighted_roc_auc"] == 1);
  const std::vector<std::int32_t> same{1, 1, 1, 1}, two{1, 1, 2, 2};
  const Tensor<float> some({4, 3}, {0, 3, 1, 0, 2, 1, 0, 1, 2, 0, 2, 2});
  for (const char* name : {"roc_auc", "weighted_roc_auc"}) {
    CHECK(std::isnan(scores(3, loss, areas, some, same)[name]));
    CHECK(scores(3, loss, areas, some, two)[name] == 1);  // of classes 1 and 2, both without a mistake
  }
  metric::RocAuc broken;
  broken.reset({2, 3, true});
  for (const float value : {1.0F, std::numeric_limits<float>::infinity()}) {
    const float outputs[] = {0, value, 0};
    broken.add(metric::Outcome<float>{outputs, {}, value == 1 ? 0 : 1});
  }
  CHECK(std::isnan(broken.value()));
  // Of outputs that say yes or no, one that is always wanted has no area.
  const Tensor<float> answers({4, 2}, {1, 0, 1, 0, 1, 1, 1, 1}), chances({4, 2}, {0, 2, 0, 1, 0, 3, 0, 1});
  CHECK(scores(2, loss::BinaryCrossEntropy(), areas, chances, answers)["roc_auc"] == 0.625);
}

TEST_CASE("the best k: more than there are classes, and ties", "[metric]") {
  const loss::SparseCategoricalCrossEntropy loss;
  const Tensor<float> x({3, 3}, {1, 1, 1, 1, 1, 1, 3, 2, 1});
  const std::vector<std::int32_t> y{1, 2, 2};
  const Scores found = scores(
      3, loss, {metric::TopK({.k = 1}), metric::TopK({.k = 2}), metric::TopK({.k = 3}), metric::TopK({.k = 9})}, x, y);
  CHECK(found["top_1"] == 0);  // of equal outputs the first is the largest, as for the accuracy
  CHECK(found["top_2"] == Approx(1.0 / 3));
  CHECK(found["top_3"] == 1);
  CHECK(found["top_9"] == 1);
}

TEST_CASE("a confusion matrix with empty rows, as text", "[metric]") {
  Sequential model = identity(3);
  model.compile(optim::SGD(), loss::SparseCategoricalCrossEntropy(), {metric::ConfusionMatrix()});
  Tensor<float> x({12, 3});
  for (std::size_t i = 0; i < 12; ++i) x(i, i < 11 ? 2 : 0) = 1;
  const std::vector<std::int32_t> y(12, 2);
  model.evaluate(x, y);
  const auto matrix = model.metric<metric::ConfusionMatrix>();
  CHECK(matrix(2, 2) == 11);
  CHECK(matrix(2, 0) == 1);
  CHECK(matrix(0, 0) + matrix(0, 1) + matrix(0, 2) + matrix(1, 0) + matrix(1, 1) + matrix(1, 2) + matrix(2, 1) == 0);
  CHECK(matrix.to_string() == "    |  0  1  2\n  0 |  0  0  0\n  1 |  0  0  0\n  2 |  1  0 11\n");
  check_raises<UsageError>([&] { matrix(0, 3); }, {"ConfusionMatrix", "(0, 3)", "3 classes"});
}

TEST_CASE("R2 of one sample, and of targets that are all the same", "[metric]") {
  const auto r2 = [](const Tensor<float>& x, const Tensor<float>& y) {
    return scores(1, loss::MeanSquaredError(), {metric::R2()}, x, y)["r2"];
  };
  CHECK(r2(Tensor<float>({1, 1}, {3}), Tensor<float>({1, 1}, {3})) == 1);
  CHECK(r2(Tensor<float>({1, 1}, {2}), Tensor<float>({1, 1}, {3})) == 0);
  CHECK(r2(Tensor<float>({3, 1}, {3, 3, 4}), Tensor<float>({3, 1}, {3, 3, 3})) == 0);
  CHECK(r2(Tensor<float>({3, 1}, {0.1F, 0.1F, 0.1F}), Tensor<float>({3, 1}, {0.1F, 0.1F, 0.1F})) == 1);
  CHECK(r2(Tensor<float>({2, 1}, {2, 1}), Tensor<float>({2, 1}, {1, 2})) == -3);
}

TEST_CASE("percents of a target of 0 are large and finite", "[metric]") {
  const Tensor<float> x({2, 1}, {1, 3}), y({2, 1}, {0, 2});
  CHECK(scores(1, loss::MeanSquaredError(), {metric::MeanAbsolutePercentageError()}, x,
               y)["mean_absolute_percentage_error"] == Approx((1e9 + 50) / 2).epsilon(1e-12));
}

TEST_CASE("a metric of one's own may report several numbers", "[metric]") {
  Sequential model = identity(1);
  const Tensor<float> x({4, 1}, {3, -1, 7, 2}), y({4, 1});
  model.compile(optim::SGD({.learning_rate = 0}), loss::MeanSquaredError(), {Range(), metric::RootMeanSquaredError()});
  const Scores found = model.evaluate(x, y, {.batch_size = 3});
  CHECK(found.size() == 4);
  CHECK(found["lowest"] == -1);
  CHECK(found["highest"] == 7);
  CHECK(model.metric<Range>().seen == 4);
  CHECK(model.metric<Range>().promised == 4);
  const auto history =
      model.fit(x, y, {.epochs = 2, .batch_size = 2, .validation = {view(x, {4, 1}), y}, .verbose = 0});
  CHECK(history["highest"] == std::vector<double>{7, 7});
  CHECK(history["val_lowest"] == std::vector<double>{-1, -1});
}

TEST_CASE("models and evaluations do not share what a metric has seen", "[metric]") {
  const Metrics metrics{metric::ConfusionMatrix(), metric::Recall()};
  Sequential one = identity(2), other = identity(2);
  const Tensor<float> x({3, 2}, {1, 0, 0, 1, 1, 0}), small({1, 2}, {1, 0});
  const std::vector<std::int32_t> y{0, 1, 1}, label{0};
  for (Sequential* m : {&one, &other})
    m->compile(optim::SGD({.learning_rate = 0}), loss::SparseCategoricalCrossEntropy(), metrics);
  one.evaluate(x, y);
  other.evaluate(small, label);
  CHECK(one.metric<metric::ConfusionMatrix>()(1, 0) == 1);
  CHECK(other.metric<metric::ConfusionMatrix>()(1, 0) == 0);

  // An evaluation in a callback, while fit is in the middle of an epoch.
  struct Look {
    const Tensor<float>* x;
    const std::vector<std::int32_t>* y;
    void on_batch_end(callback::Moment<Sequential>& moment) { moment.model.evaluate(*x, *y); }
  };
  const auto history = one.fit(x, y, {.epochs = 2, .batch_size = 1, .callbacks = {Look{&small, &label}}, .verbose = 0});
  CHECK(history["recall"] == std::vector<double>{0.75, 0.75});
  CHECK(one.metric<metric::ConfusionMatrix>()(0, 0) == 1);
  CHECK(one.metric<metric::ConfusionMatrix>()(1, 1) == 1);
}

TEST_CASE("several metrics of one type are told apart by their keys", "[metric]") {
  Sequential model = identity(3);
  const Tensor<float> x({1, 3}, {3, 2, 1});
  const std::vector<std::int32_t> y{1};
  model.compile(optim::SGD(), loss::SparseCategoricalCrossEntropy(),
                {metric::TopK({.k = 1}), metric::TopK({.k = 2}), metric::F1({.average = metric::micro})});
  model.evaluate(x, y);
  CHECK(model.metric<metric::TopK>().k == 1);
  CHECK(model.metric<metric::TopK>("top_2").k == 2);
  CHECK(model.metric<metric::F1>("micro_f1").average == metric::micro);
  check_raises<UsageError>([&] { model.metric<metric::TopK>("top_5"); }, {"metric", "top_k", "key", "f1"});
  check_raises<UsageError>([&] { model.metric<metric::R2>(); }, {"metric", "\"r2\"", "top_k, top_k, f1"});
}

TEST_CASE("metrics and their options come back from files, plain names too", "[metric][file]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("model");
  const auto x = normal_numbers({20, 4}, 1);
  const auto labels = labels_below(4, 20, 2);
  Sequential model(Dense({.units = 4}));
  model.compile(optim::SGD(), loss::SparseCategoricalCrossEntropy(),
                {metric::Accuracy(), metric::TopK({.k = 2}), metric::Precision(),
                 metric::Recall({.average = metric::micro, .threshold = 0.25}), metric::F1(), metric::ConfusionMatrix(),
                 metric::MeanAbsoluteError(), metric::RootMeanSquaredError(), metric::MeanAbsolutePercentageError(),
                 metric::R2(), metric::RocAuc({.average = metric::weighted})});
  const Scores wanted = model.evaluate(x, labels);
  model.save(path);
  Sequential loaded = Sequential::load(path);
  const Scores found = loaded.evaluate(x, labels);
  REQUIRE(found.size() == wanted.size());
  for (const auto& [name, value] : wanted) CHECK(found[name] == value);
  CHECK(loaded.metric<metric::Recall>().average == metric::micro);
  CHECK(loaded.metric<metric::Recall>().threshold == 0.25);
  CHECK(loaded.metric<metric::Precision>().average == metric::macro);
  CHECK(loaded.metric<metric::RocAuc>().average == metric::weighted);
  CHECK(loaded.metric<metric::ConfusionMatrix>().classes() == 4);
  loaded.save(folder.path("again"));
  CHECK(io::read_file(folder.path("again")) == io::read_file(path));

  // What the file says of the metrics, replaced.
  const auto with = [&](const std::string& metrics) {
    const io::SafeTensors tensors = io::SafeTensors::read(path);
    io::Json description = io::Json::parse(tensors.metadata().get<std::string>("tesla"));
    description.set("metrics", io::Json::parse(metrics));
    std::vector<Tensor<float>> values;
    std::vector<io::TensorInfo> infos;
    for (const char* name : {"dense.weight", "dense.weight.optimizer.0", "dense.bias", "dense.bias.optimizer.0"}) {
      values.push_back(tensors.tensor<float>(name));
      infos.push_back({name, io::dtype_of<float>(), values.back().shape()});
    }
    io::SafeTensorsWriter writer(folder.path("other"), infos, io::Json::object({{"tesla", description.write()}}));
    for (const auto& value : values) writer.write(io::bytes_of(value));
    writer.commit();
    return folder.path("other");
  };
  Sequential old = Sequential::load(with(R"(["mean_absolute_error","top_k"])"));
  CHECK(old.evaluate(x, labels)["mean_absolute_error"] == wanted["mean_absolute_error"]);
  CHECK(old.metric<metric::TopK>().k == 3);
  check_raises<UsageError>([&] { Sequential::load(with(R"(["own"])")); }, {"metric", "\"own\"", "restore"});
  check_raises<UsageError>([&] { Sequential::load(with(R"([{"kind":"top_k","options":{"k":0}}])")); }, {".k"});
  check_raises<FormatError>([&] { Sequential::load(with(R"([{"kind":"f1","options":{"average":"most"}}])")); },
                            {"\"most\"", "macro, micro or weighted"});
  check_raises<UsageError>([&] { Sequential::load(with(R"([{"kind":"roc_auc","options":{"average":"micro"}}])")); },
                           {"RocAuc", ".average"});
  CHECK(Sequential::load(with(R"(["roc_auc"])")).metric<metric::RocAuc>().average == metric::macro);
  check_raises<FormatError>([&] { Sequential::load(with(R"([{"options":{}}])")); }, {"kind"});
}

TEST_CASE("metrics that do not suit a model, or each other, are refused before training", "[metric][errors]") {
  const Tensor<float> x({2, 3}, {1, 2, 3, 4, 5, 6}), answers({2, 3}, {0, 1, 0, 1, 0, 1});
  const std::vector<std::int32_t> labels{0, 1};
  const auto check = [&](const auto& loss, const Metrics& metrics, const ArrayView& y,
                         const std::vector<std::string>& words) {
    Sequential model = identity(3);
    model.compile(optim::SGD(), loss, metrics);
    const std::string before = parameter_bits(model);
    check_raises<UsageError>([&] { model.fit(x, y, {.verbose = 0}); }, words);
    check_raises<UsageError>([&] { model.evaluate(x, y); }, words);
    CHECK(parameter_bits(model) == before);
  };
  check(loss::BinaryCrossEntropy(), {metric::TopK()}, answers, {"TopK", "3 outputs that say yes or no"});
  check(loss::BinaryCrossEntropy(), {metric::ConfusionMatrix()}, answers, {"ConfusionMatrix", "3 outputs"});

  check_raises<UsageError>([] { metric::TopK({.k = 0}); }, {"TopK", ".k", "1 or more"});
  check_raises<UsageError>([] { metric::RocAuc({.average = metric::micro}); }, {"RocAuc", ".average", "weighted"});
  for (const double threshold : {0.0, 1.0, std::nan("")}) {
    check_raises<UsageError>([&] { metric::Precision({.threshold = threshold}); }, {"Precision", ".threshold"});
    check_raises<UsageError>([&] { metric::Recall({.threshold = threshold}); }, {"Recall", ".threshold"});
    check_raises<UsageError>([&] { metric::F1({.threshold = threshold}); }, {"F1", ".threshold"});
    check_raises<UsageError>([&] { metric::ConfusionMatrix({.threshold = threshold}); }, {"ConfusionMatrix"});
  }
  Sequential model = identity(3);
  const loss::MeanSquaredError loss;
  check_raises<UsageError>(
      [&] {
        model.compile(optim::SGD(), loss, {metric::TopK(), metric::TopK({.k = 3})});
      },
      {"compile", "\"top_k\"", "\"top_3\""});
  check_raises<UsageError>([&] { model.evaluate(x, answers); }, {"compile"});  // it changed nothing
}

}  // namespace test_metric_metrics
