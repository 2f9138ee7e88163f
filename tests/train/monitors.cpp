// EarlyStopping, Checkpoint and ReduceOnPlateau: what they do at which score, alone and over several calls of fit.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <filesystem>
#include <io/temporary_folder.hpp>
#include <limits>
#include <model/support.hpp>
#include <string>
#include <vector>

namespace test_train_monitors {

using tesla::Dense;
using tesla::Sequential;
using tesla::UsageError;
namespace callback = tesla::callback;

namespace {

const auto x = normal_numbers({25, 4}, 1);
const auto y = labels_below(3, 25, 2);

Sequential made(double rate = 0.1) {
  Sequential model({.seed = 6});
  model.add_layer(Dense({.units = 3}));
  model.compile(tesla::optim::SGD({.learning_rate = rate}), tesla::loss::SparseCategoricalCrossEntropy(),
                {tesla::metric::Accuracy()});
  return model;
}

/// Gives the scores of the epochs to come, whatever the model does, to callbacks behind it.
struct Scripted {
  std::string name;
  std::vector<double> values;
  std::size_t next = 0;
  void on_epoch_end(auto& m) { const_cast<tesla::Scores&>(m.scores).entry(name) = values.at(next++); }
};

/// Writes down the parameters at the end of each epoch.
struct Keeper {
  std::vector<std::string>* bits;
  void on_epoch_end(auto& m) { bits->push_back(parameter_bits(m.model)); }
};

Sequential::Options options(std::vector<tesla::callback::AnyCallback<Sequential>> callbacks, std::size_t epochs) {
  return {.epochs = epochs, .batch_size = 10, .callbacks = std::move(callbacks), .verbose = 0};
}

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("EarlyStopping ends training and brings the best parameters back", "[monitors]") {
  struct Case {
    std::string name;
    std::vector<double> scores;
    callback::EarlyStoppingOptions options;
    std::size_t epochs, best;  // that are run; the best one of them, from 1
  };
  const double inf = std::numeric_limits<double>::infinity();
  const std::vector<Case> cases{
      {"val_loss", {5, 4, 3, 4, 3.5, 1}, {.patience = 2}, 5, 3},
      {"val_loss", {5, 4, 3, 4, 2, 3, 3, 3}, {.patience = 2}, 7, 5},
      {"val_loss", {5, 4, 3, 4, 3, 1}, {}, 4, 3},
      {"val_accuracy", {.1, .2, .3, .2, .3, .9}, {.monitor = "val_accuracy", .patience = 2}, 5, 3},
      {"val_accuracy", {.1, .2, .3}, {.monitor = "val_accuracy", .mode = callback::Mode::lowest}, 2, 1},
      {"val_loss", {5, 4.5, 4, 3.5, 3}, {.patience = 2, .min_delta = 2}, 3, 1},
      {"val_loss", {nan_value, nan_value, 3, nan_value, 2}, {.patience = 3}, 5, 5},
      {"val_loss", {-inf, 0, 0}, {.patience = 2}, 3, 1},
      {"val_loss", {1, 5, 4, 5, 5}, {.patience = 2, .start_from = 1}, 5, 3},
  };
  for (const Case& c : cases) {
    INFO(c.name << ", patience " << c.options.patience << ", " << c.scores.size() << " scores");
    std::vector<std::string> bits;
    Sequential model = made();
    const callback::EarlyStopping stopping(c.options);
    const auto history =
        model.fit(x, y, options({Keeper{&bits}, Scripted{c.name, c.scores}, stopping}, c.scores.size()));
    CHECK(history["loss"].size() == c.epochs);
    CHECK(history.interrupted == (c.epochs < c.scores.size()));
    CHECK(stopping.best_epoch() == c.best);
    CHECK(stopping.best() == c.scores[c.best - 1]);
    CHECK(stopping.stopped_epoch() == (c.epochs < c.scores.size() ? c.epochs : stopping.stopped_epoch()));
    REQUIRE(bits.size() == c.epochs);
    CHECK((parameter_bits(model) == bits[c.best - 1]));
  }
}

TEST_CASE("EarlyStopping leaves the last parameters where that is asked for", "[monitors]") {
  std::vector<std::string> bits;
  Sequential model = made();
  model.fit(x, y,
            options({Keeper{&bits}, Scripted{"val_loss", {1, 2, 3, 4}},
                     callback::EarlyStopping({.patience = 2, .restore_best = false})},
                    4));
  REQUIRE(bits.size() == 3);
  CHECK((parameter_bits(model) == bits[2]));
}

TEST_CASE("EarlyStopping goes on with its best score in another fit, but not with another model", "[monitors]") {
  std::vector<std::string> bits;
  Sequential model = made();
  const callback::EarlyStopping stopping({.patience = 2});
  model.fit(x, y, options({Keeper{&bits}, Scripted{"val_loss", {3, 2, 4, 4}}, stopping}, 4));
  CHECK((parameter_bits(model) == bits[1]));
  model.fit(x, y, options({Keeper{&bits}, Scripted{"val_loss", {3, 3, 1}}, stopping}, 3));
  CHECK(bits.size() == 6);
  CHECK(stopping.best() == 2);
  CHECK(stopping.best_epoch() == 2);
  CHECK((parameter_bits(model) == bits[1]));
  Sequential other = made(0.2);
  bits.clear();
  other.fit(x, y, options({Keeper{&bits}, Scripted{"val_loss", {7, 8}}, stopping}, 2));
  CHECK(stopping.best() == 7);
  CHECK((parameter_bits(other) == bits[0]));
}

TEST_CASE("EarlyStopping says so where the parameters have had other shapes since", "[monitors]") {
  Sequential model(tesla::TensorTrain({.in = {2, 2}, .out = {3, 2}, .rank = 2, .name = "first"}), Dense({.units = 3}));
  model.compile(tesla::optim::Adam(), tesla::loss::SparseCategoricalCrossEntropy());
  const auto history = model.fit(x, y,
                                 options({Scripted{"val_loss", {1, 2, 3}}, callback::EarlyStopping({.patience = 2}),
                                          tesla::callback::LowerRanks({.parameters = 10, .by_epoch = 2})},
                                         3));
  REQUIRE(history.warnings.size() == 1);
  CHECK_THAT(history.warnings[0], Catch::Contains("EarlyStopping"));
  CHECK(model.layer<tesla::TensorTrain>("first").shape().count_parameters() <= 10);
}

TEST_CASE("a score that is not there is an error that names those that are", "[monitors]") {
  for (const int kind : {0, 1, 2}) {
    Sequential model = made();
    tesla::callback::AnyCallback<Sequential> watching = callback::EarlyStopping({.monitor = "val_accuracy"});
    if (kind == 1) watching = callback::Checkpoint({.path = "never", .monitor = "val_accuracy"});
    if (kind == 2) watching = callback::ReduceOnPlateau({.monitor = "val_accuracy"});
    check_raises<UsageError>([&] { model.fit(x, y, options({watching}, 2)); },
                             {"\"val_accuracy\"", "loss, accuracy", ".validation"});
  }
}

TEST_CASE("Checkpoint keeps the best epoch, or each", "[monitors]") {
  const TemporaryFolder folder;
  std::vector<std::string> bits;
  Sequential model = made();
  const callback::Checkpoint best({.path = folder.path("best")}),
      each({.path = folder.path("{epoch}-{epoch}"), .best_only = false});
  model.fit(x, y, options({Keeper{&bits}, Scripted{"val_loss", {3, 1, 2}}, best, each}, 3));
  Sequential found = Sequential::load(folder.path("best"));
  CHECK((parameter_bits(found) == bits[1]));
  CHECK(best.saved() == folder.path("best"));
  CHECK(best.best() == 1);
  // Another fit goes on with the best score and the numbers.
  model.fit(x, y, options({Keeper{&bits}, Scripted{"val_loss", {1.5, 0.5}}, best, each}, 2));
  for (std::size_t epoch = 1; epoch <= 5; ++epoch) {
    Sequential one = Sequential::load(folder.path(tesla::text(epoch, '-', epoch)));
    CHECK((parameter_bits(one) == bits[epoch - 1]));
  }
  found = Sequential::load(folder.path("best"));
  CHECK((parameter_bits(found) == bits[4]));
}

TEST_CASE("Checkpoint goes on where a file cannot be written", "[monitors]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("none") + "/best";
  std::vector<std::string> bits;
  Sequential model = made();
  const callback::Checkpoint checkpoint({.path = path});
  const auto open_later = callback::on_epoch_begin([&](auto& m) {
    if (m.epoch == 3) std::filesystem::create_directory(folder.path("none"));
  });
  const auto history =
      model.fit(x, y, options({open_later, Keeper{&bits}, Scripted{"val_loss", {1, 4, 3, 2}}, checkpoint}, 4));
  CHECK(history["loss"].size() == 4);
  REQUIRE(checkpoint.failures().size() == 2);
  CHECK_THAT(checkpoint.failures()[0], Catch::Contains("epoch 1") && Catch::Contains(path));
  CHECK(history.warnings == checkpoint.failures());
  // What could not be written is no best score: the file has the best of what came after.
  CHECK(checkpoint.best() == 2);
  Sequential found = Sequential::load(path);
  CHECK((parameter_bits(found) == bits[3]));
}

TEST_CASE("ReduceOnPlateau lowers the rate, which the model keeps", "[monitors]") {
  const TemporaryFolder folder;
  Sequential model = made(0.4);
  std::vector<double> rates;
  const auto note = callback::on_epoch_end([&](auto& m) { rates.push_back(m.model.learning_rate()); });
  const callback::ReduceOnPlateau plateau({.factor = 0.5, .patience = 2, .cooldown = 1, .min_rate = 0.15});
  model.fit(x, y, options({Scripted{"val_loss", {3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1}}, plateau, note}, 13));
  CHECK(rates == std::vector<double>{0.4, 0.4, 0.4, 0.2, 0.2, 0.15, 0.15, 0.15, 0.15, 0.15, 0.15, 0.15, 0.15});
  CHECK(plateau.reductions() == std::vector<std::size_t>{4, 6});
  model.save(folder.path("model"));
  Sequential loaded = Sequential::load(folder.path("model"));
  CHECK(loaded.learning_rate() == Approx(0.15));
  loaded.train_step(x, y);
  model.train_step(x, y);
  CHECK((parameter_bits(loaded) == parameter_bits(model)));
  // The factor counts: a step of a model with the same parameters and the whole rate goes further.
  Sequential whole = made(0.4), lowered = made(0.4), direct = made(0.2);
  lowered.scale_learning_rate(0.5);
  for (Sequential* m : {&whole, &lowered, &direct}) m->train_step(x, y);
  CHECK((parameter_bits(lowered) == parameter_bits(direct)));
  CHECK((parameter_bits(lowered) != parameter_bits(whole)));
  model.compile(tesla::optim::SGD({.learning_rate = 0.4}), tesla::loss::SparseCategoricalCrossEntropy());
  CHECK(model.learning_rate() == 0.4);
}

TEST_CASE("ReduceOnPlateau goes together with a schedule", "[monitors]") {
  Sequential model = made();
  model.compile(tesla::optim::SGD({.learning_rate = tesla::schedule::Step({.from = 1, .factor = 0.5, .every = 6})}),
                tesla::loss::SparseCategoricalCrossEntropy());
  model.fit(x, y, options({Scripted{"val_loss", {1, 1, 1}}, callback::ReduceOnPlateau({.patience = 2})}, 3));
  CHECK(model.training().step == 9);
  CHECK(model.learning_rate() == Approx(0.05));
}

TEST_CASE("options of callbacks out of range are refused", "[monitors]") {
  check_raises<UsageError>([] { callback::EarlyStopping({.min_delta = -1}); }, {"EarlyStopping", ".min_delta"});
  check_raises<UsageError>([] { callback::Checkpoint({.path = ""}); }, {"Checkpoint", ".path"});
  check_raises<UsageError>([] { callback::ReduceOnPlateau({.factor = 1}); }, {"ReduceOnPlateau", ".factor"});
  check_raises<UsageError>([] { callback::ReduceOnPlateau({.min_rate = -1}); }, {"ReduceOnPlateau", ".min_rate"});
  check_raises<UsageError>([] { callback::CsvLog({.path = ""}); }, {"CsvLog", ".path"});
  check_raises<UsageError>([] { callback::JsonLines({.path = ""}); }, {"JsonLines", ".path"});
  check_raises<UsageError>([] { callback::LearningRateFinder({.from = 0}); }, {"LearningRateFinder", ".from"});
  check_raises<UsageError>([] { callback::LearningRateFinder({.from = 2, .to = 1}); }, {".from and .to"});
  check_raises<UsageError>([] { callback::LearningRateFinder({.steps = 1}); }, {"LearningRateFinder", ".steps"});
  check_raises<UsageError>([] { callback::LearningRateFinder({.smoothing = 1}); }, {".smoothing"});
  check_raises<UsageError>([] { callback::LearningRateFinder({.diverges_at = 1}); }, {".diverges_at"});
  Sequential model = made();
  check_raises<UsageError>([&] { model.scale_learning_rate(-1); }, {"scale_learning_rate", "-1"});
  Sequential bare;
  check_raises<UsageError>([&] { bare.learning_rate(); }, {"learning_rate", "compile"});
  // All of them can be had without options.
  const std::vector<tesla::callback::AnyCallback<Sequential>> all{
      callback::EarlyStopping(), callback::Checkpoint(), callback::ReduceOnPlateau(),
      callback::CsvLog(),        callback::JsonLines(),  callback::LearningRateFinder()};
  CHECK(all.size() == 6);
}

}  // namespace test_train_monitors
