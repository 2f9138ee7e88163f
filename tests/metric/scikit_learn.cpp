// Metrics give the numbers of scikit-learn, in evaluate and in fit, whatever the batches.
#include <metric/scikit_learn.hpp>
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <metric/support.hpp>
#include <string>
#include <vector>

namespace test_metric_scikit_learn {

namespace sk = scikit_learn;
using namespace tesla;
using metric_test::identity;

namespace {

constexpr double tolerance = 1e-13;

/// What evaluate gives for metrics of outputs, at several batch sizes; and what fit gives, which here learns nothing.
template <class Loss>
void check_scores(std::size_t outputs, const Loss& loss, const ArrayView& x, const ArrayView& y,
                  const std::vector<model::AnyMetric<float>>& metrics,
                  const std::vector<std::pair<std::string, double>>& wanted) {
  Sequential model = identity(outputs);
  model.compile(optim::SGD({.learning_rate = 0}), loss, metrics);
  for (const std::size_t batch : {1, 7, 256}) {
    const Scores scores = model.evaluate(x, y, {.batch_size = batch});
    for (const auto& [name, value] : wanted) {
      INFO(name << ", batches of " << batch);
      CHECK(std::fabs(scores[name] - value) < tolerance * (1 + std::fabs(value)));
    }
  }
  const History history = model.fit(x, y, {.epochs = 2, .batch_size = 8, .validation = {x, y}, .verbose = 0});
  for (const auto& [name, value] : wanted)
    for (const double found :
         {history[name][0], history[name][1], history["val_" + name][0], history["val_" + name][1]}) {
      INFO(name << " in fit");
      CHECK(std::fabs(found - value) < tolerance * (1 + std::fabs(value)));
    }
}

}  // namespace

TEST_CASE("classes: precision, recall, F1 and the best k are scikit-learn's", "[metric]") {
  const ArrayView x(sk::logits, {sk::samples, sk::classes}), y(sk::labels, {sk::samples});
  const std::vector<model::AnyMetric<float>> metrics{metric::Precision(),
                                                     metric::Precision({.average = metric::micro}),
                                                     metric::Recall(),
                                                     metric::Recall({.average = metric::micro}),
                                                     metric::F1(),
                                                     metric::F1({.average = metric::micro}),
                                                     metric::Precision({.average = metric::weighted}),
                                                     metric::Recall({.average = metric::weighted}),
                                                     metric::F1({.average = metric::weighted}),
                                                     metric::TopK({.k = 1}),
                                                     metric::TopK({.k = 2}),
                                                     metric::TopK(),
                                                     metric::TopK({.k = 4}),
                                                     metric::Accuracy()};
  check_scores(sk::classes, loss::SparseCategoricalCrossEntropy(), x, y, metrics,
               {{"precision", sk::classes_precision_macro},
                {"micro_precision", sk::classes_precision_micro},
                {"recall", sk::classes_recall_macro},
                {"micro_recall", sk::classes_recall_micro},
                {"f1", sk::classes_f1_macro},
                {"micro_f1", sk::classes_f1_micro},
                {"weighted_precision", sk::classes_precision_weighted},
                {"weighted_recall", sk::classes_recall_weighted},
                {"weighted_f1", sk::classes_f1_weighted},
                {"top_1", sk::top_1},
                {"top_2", sk::top_2},
                {"top_3", sk::top_3},
                {"top_4", sk::top_4},
                {"accuracy", sk::top_1}});

  // A class that neither occurs nor is predicted does not count.
  std::vector<float> never(std::begin(sk::logits), std::end(sk::logits));
  for (std::size_t i = 3; i < never.size(); i += sk::classes) never[i] = -8;
  check_scores(sk::classes, loss::SparseCategoricalCrossEntropy(), view(never, {sk::samples, sk::classes}), y,
               {metric::Precision(), metric::Recall(), metric::F1(), metric::F1({.average = metric::micro})},
               {{"precision", sk::never_precision_macro},
                {"recall", sk::never_recall_macro},
                {"f1", sk::never_f1_macro},
                {"micro_f1", sk::never_f1_micro}});
}

TEST_CASE("classes: a row of 0 and 1 is as good as a label", "[metric]") {
  const ArrayView x(sk::logits, {sk::samples, sk::classes});
  std::vector<float> one_hot(sk::samples * sk::classes);
  for (std::size_t i = 0; i < sk::samples; ++i) one_hot[i * sk::classes + static_cast<std::size_t>(sk::labels[i])] = 1;
  check_scores(sk::classes, loss::CategoricalCrossEntropy(), x, view(one_hot, {sk::samples, sk::classes}),
               {metric::Recall(), metric::TopK({.k = 2})},
               {{"recall", sk::classes_recall_macro}, {"top_2", sk::top_2}});
}

TEST_CASE("classes: the confusion matrix is scikit-learn's, and can be looked at", "[metric]") {
  const ArrayView x(sk::logits, {sk::samples, sk::classes}), y(sk::labels, {sk::samples});
  Sequential model = identity(sk::classes);
  model.compile(optim::SGD({.learning_rate = 0}), loss::SparseCategoricalCrossEntropy(),
                {metric::Accuracy(), metric::ConfusionMatrix()});
  CHECK(model.metric<metric::ConfusionMatrix>().classes() == 0);
  const auto check = [&] {
    const auto matrix = model.metric<metric::ConfusionMatrix>();
    REQUIRE(matrix.classes() == sk::classes);
    for (std::size_t i = 0; i < sk::classes; ++i)
      for (std::size_t j = 0; j < sk::classes; ++j)
        CHECK(matrix(i, j) == static_cast<std::size_t>(sk::confusion[i * sk::classes + j]));
  };
  CHECK(model.evaluate(x, y, {.batch_size = 7}).size() == 2);  // it reports no score
  check();
  model.evaluate(x, y);  // counts begin anew
  check();
  CHECK(model.fit(x, y, {.epochs = 2, .verbose = 0}).size() == 2);  // those of the last epoch alone
  check();

  // Where there are validation samples, theirs.
  const ArrayView one_x(sk::logits, {1, sk::classes}), one_y(sk::labels, {1});
  model.fit(x, y, {.validation = {one_x, one_y}, .verbose = 0});
  const auto one = model.metric<metric::ConfusionMatrix>();
  std::size_t all = 0;
  for (std::size_t i = 0; i < sk::classes; ++i)
    for (std::size_t j = 0; j < sk::classes; ++j) all += one(i, j);
  CHECK(all == 1);
}

TEST_CASE("answers of yes and no: all outputs by themselves, as scikit-learn has them", "[metric]") {
  const ArrayView x(sk::scores, {sk::asked, sk::questions}), y(sk::answers, {sk::asked, sk::questions});
  check_scores(sk::questions, loss::BinaryCrossEntropy(), x, y,
               {metric::Precision(), metric::Precision({.average = metric::micro}), metric::Recall(),
                metric::Recall({.average = metric::micro}), metric::F1(), metric::F1({.average = metric::micro}),
                metric::Precision({.average = metric::weighted}), metric::Recall({.average = metric::weighted}),
                metric::F1({.average = metric::weighted})},
               {{"precision", sk::answers_precision_macro},
                {"micro_precision", sk::answers_precision_micro},
                {"recall", sk::answers_recall_macro},
                {"micro_recall", sk::answers_recall_micro},
                {"f1", sk::answers_f1_macro},
                {"micro_f1", sk::answers_f1_micro},
                {"weighted_precision", sk::answers_precision_weighted},
                {"weighted_recall", sk::answers_recall_weighted},
                {"weighted_f1", sk::answers_f1_weighted}});
}

TEST_CASE("one output of yes and no: thresholds, and the area under the curve", "[metric]") {
  std::vector<float> scores, coarse(std::begin(sk::coarse), std::end(sk::coarse)), answers, chances, pairs;
  std::vector<std::int32_t> labels;
  for (std::size_t i = 0; i < sk::asked; ++i) {
    scores.push_back(sk::scores[i * sk::questions]);
    answers.push_back(sk::answers[i * sk::questions]);
    chances.push_back(1 / (1 + std::exp(-scores.back())));
    labels.push_back(static_cast<std::int32_t>(answers.back()));
    pairs.insert(pairs.end(), {1, 1 + scores.back()});
  }
  const ArrayView y = view(answers, {sk::asked, 1});
  for (const bool logits : {true, false}) {
    INFO("logits " << logits);
    const loss::BinaryCrossEntropy loss({.from_logits = logits});
    const ArrayView x = view(logits ? scores : chances, {sk::asked, 1});
    check_scores(1, loss, x, y, {metric::Precision(), metric::Recall(), metric::F1(), metric::RocAuc()},
                 {{"precision", sk::one_50_precision},
                  {"recall", sk::one_50_recall},
                  {"f1", sk::one_50_f1},
                  {"roc_auc", sk::roc_auc}});
    check_scores(1, loss, x, y,
                 {metric::Precision({.threshold = 0.75}), metric::Recall({.threshold = 0.75}),
                  metric::F1({.average = metric::micro, .threshold = 0.75})},
                 {{"precision", sk::one_75_precision}, {"recall", sk::one_75_recall}, {"micro_f1", sk::one_75_f1}});
  }
  check_scores(1, loss::BinaryCrossEntropy(), view(coarse, {sk::asked, 1}), y, {metric::RocAuc()},
               {{"roc_auc", sk::roc_auc_coarse}});
  check_scores(2, loss::SparseCategoricalCrossEntropy(), view(pairs, {sk::asked, 2}), labels, {metric::RocAuc()},
               {{"roc_auc", sk::roc_auc}});

  for (const double threshold : {0.5, 0.75}) {
    Sequential model = identity(1);
    model.compile(optim::SGD(), loss::BinaryCrossEntropy(), {metric::ConfusionMatrix({.threshold = threshold})});
    model.evaluate(scores, y);
    const auto matrix = model.metric<metric::ConfusionMatrix>();
    const int* wanted = threshold == 0.5 ? sk::one_50_confusion : sk::one_75_confusion;
    REQUIRE(matrix.classes() == 2);
    for (std::size_t i = 0; i < 4; ++i) CHECK(matrix(i / 2, i % 2) == static_cast<std::size_t>(wanted[i]));
  }
}

TEST_CASE("several classes: the area under the curve of each against the others, averaged", "[metric]") {
  const std::vector<model::AnyMetric<float>> areas{metric::RocAuc(), metric::RocAuc({.average = metric::weighted})};
  const ArrayView x(sk::ranked_logits, {sk::ranked, sk::kinds}), y(sk::ranked_labels, {sk::ranked});
  const loss::SparseCategoricalCrossEntropy from_logits;
  check_scores(sk::kinds, from_logits, x, y, areas,
               {{"roc_auc", sk::areas_macro}, {"weighted_roc_auc", sk::areas_weighted}});
  check_scores(sk::kinds, loss::SparseCategoricalCrossEntropy({.from_logits = false}),
               ArrayView(sk::ranked_coarse, {sk::ranked, sk::kinds}), y, areas,
               {{"roc_auc", sk::areas_coarse_macro}, {"weighted_roc_auc", sk::areas_coarse_weighted}});

  // A class that does not occur does not count.
  std::vector<std::int32_t> never;
  for (const int label : sk::ranked_labels) never.push_back(label == 1 ? 2 : label);
  check_scores(sk::kinds, from_logits, x, never, areas,
               {{"roc_auc", sk::areas_never_macro}, {"weighted_roc_auc", sk::areas_never_weighted}});
}

TEST_CASE("several outputs of yes and no: the mean of their areas", "[metric]") {
  check_scores(sk::several_questions, loss::BinaryCrossEntropy(),
               ArrayView(sk::several, {sk::ranked, sk::several_questions}),
               ArrayView(sk::several_answers, {sk::ranked, sk::several_questions}),
               {metric::RocAuc(), metric::RocAuc({.average = metric::weighted})},
               {{"roc_auc", sk::areas_several_macro}, {"weighted_roc_auc", sk::areas_several_weighted}});
}

TEST_CASE("values: R2, the root of the squared error, and percents", "[metric]") {
  const ArrayView x(sk::predictions, {sk::measured, sk::measures}), y(sk::targets, {sk::measured, sk::measures});
  check_scores(sk::measures, loss::MeanSquaredError(), x, y,
               {metric::R2(), metric::RootMeanSquaredError(), metric::MeanAbsolutePercentageError(),
                metric::MeanAbsoluteError()},
               {{"r2", sk::r2},
                {"root_mean_squared_error", sk::root_mean_squared_error},
                {"mean_absolute_percentage_error", sk::percentage},
                {"mean_absolute_error", sk::mean_absolute_error}});
  std::vector<float> one_x, one_y, constant(std::begin(sk::targets), std::end(sk::targets)),
      exact(std::begin(sk::predictions), std::end(sk::predictions));
  for (std::size_t i = 0; i < constant.size(); i += sk::measures) {
    one_x.push_back(sk::predictions[i]), one_y.push_back(sk::targets[i]);
    constant[i + 2] = exact[i + 2] = 0.25F;
  }
  check_scores(1, loss::MeanSquaredError(), view(one_x, {sk::measured, 1}), one_y, {metric::R2()},
               {{"r2", sk::r2_first}});
  const ArrayView constant_y = view(constant, {sk::measured, sk::measures});
  check_scores(sk::measures, loss::MeanSquaredError(), x, constant_y, {metric::R2()}, {{"r2", sk::r2_constant}});
  check_scores(sk::measures, loss::MeanSquaredError(), view(exact, {sk::measured, sk::measures}), constant_y,
               {metric::R2()}, {{"r2", sk::r2_constant_met}});
}

}  // namespace test_metric_scikit_learn
