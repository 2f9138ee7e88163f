// Logs, lambdas as callbacks, errors on the way, and the search for a learning rate.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <io/temporary_folder.hpp>
#include <limits>
#include <model/support.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace test_train_logs {

using tesla::Dense;
using tesla::Sequential;
using tesla::UsageError;
using tesla::io::Json;
namespace callback = tesla::callback;

namespace {

const auto x = normal_numbers({40, 4}, 1);
const auto y = labels_below(3, 40, 2);

Sequential made(const auto& optimizer) {
  Sequential model({.seed = 6});
  model.add_layer(Dense({.units = 8, .activation = tesla::tanh})).add_layer(Dense({.units = 3}));
  model.compile(optimizer, tesla::loss::SparseCategoricalCrossEntropy(), {tesla::metric::Accuracy()});
  return model;
}
Sequential made() { return made(tesla::optim::SGD({.learning_rate = 0.1, .momentum = 0.9})); }

Sequential::Options options(std::vector<tesla::callback::AnyCallback<Sequential>> callbacks, std::size_t epochs = 2) {
  return {.epochs = epochs, .batch_size = 10, .callbacks = std::move(callbacks), .verbose = 0};
}

std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

/// The cells of a line without quotes, as numbers.
std::vector<double> numbers(const std::string& line) {
  std::vector<double> result;
  std::istringstream cells(line);
  for (std::string cell; std::getline(cells, cell, ',');) result.push_back(std::stod(cell));
  return result;
}

/// All that training goes on from.
std::string state_of(Sequential& model) {
  auto& store = model.network().store();
  std::string result = parameter_bits(model);
  for (const auto& p : store.places())
    for (std::size_t s = 0; s < store.slots(); ++s) result += bits(store.read(store.slot(s), p));
  return result + tesla::text(model.training().step, ' ', model.training().epochs, ' ', model.learning_rate());
}

}  // namespace

TEST_CASE("CsvLog writes a table of all epochs", "[logs]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("log.csv");
  Sequential model = made();
  const callback::CsvLog log({.path = path});
  // Each line is there as soon as its epoch is over.
  const auto complete = callback::on_epoch_end([&](auto& m) { CHECK(lines_of(path).size() == m.epoch + 1); });
  auto with = options({log, complete});
  with.validation = {x, y};
  const auto history = model.fit(x, y, with);
  with.callbacks = {log};
  const auto more = model.fit(x, y, with);
  std::vector<std::string> lines = lines_of(path);
  REQUIRE(lines.size() == 5);
  CHECK(lines[0] == "epoch,loss,accuracy,val_loss,val_accuracy");
  for (std::size_t epoch = 0; epoch < 4; ++epoch) {
    const auto& from = epoch < 2 ? history : more;
    std::vector<double> wanted{static_cast<double>(epoch + 1)};
    for (const char* name : {"loss", "accuracy", "val_loss", "val_accuracy"}) wanted.push_back(from[name][epoch % 2]);
    CHECK(numbers(lines[epoch + 1]) == wanted);  // exactly
  }

  // Another object begins anew, or goes on; other columns get a head of their own.
  model.fit(x, y, options({callback::CsvLog({.path = path, .append = true})}, 1));
  lines = lines_of(path);
  REQUIRE(lines.size() == 7);
  CHECK(lines[5] == "epoch,loss,accuracy");
  model.fit(x, y, options({callback::CsvLog({.path = path})}, 1));
  CHECK(lines_of(path).size() == 2);
  model.fit(x, y, options({callback::CsvLog({.path = path, .append = true})}, 1));
  lines = lines_of(path);
  REQUIRE(lines.size() == 3);
  CHECK(numbers(lines[2])[0] == 7);
}

TEST_CASE("JsonLines writes one object an epoch", "[logs]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("log.jsonl");
  Sequential model = made();
  const auto strange = callback::on_epoch_end([](auto& m) {
    const_cast<tesla::Scores&>(m.scores).entry("odd, \"name\"") = std::numeric_limits<double>::quiet_NaN();
  });
  const auto history = model.fit(x, y, options({callback::JsonLines({.path = path})}));
  model.fit(x, y,
            options({strange, callback::JsonLines({.path = path, .append = true}),
                     callback::CsvLog({.path = folder.path("csv")})},
                    1));
  const std::vector<std::string> lines = lines_of(path);
  REQUIRE(lines.size() == 3);
  for (std::size_t epoch = 0; epoch < 3; ++epoch) {
    const Json line = Json::parse(lines[epoch]);
    CHECK(line.get<std::size_t>("epoch") == epoch + 1);
    if (epoch < 2) CHECK(line.get<double>("loss") == history["loss"][epoch]);
    CHECK(line.contains("odd, \"name\"") == (epoch == 2));
  }
  CHECK(Json::parse(lines[2]).at("odd, \"name\"").is_null());
  CHECK_THAT(lines_of(folder.path("csv"))[0], Catch::Contains(R"(,"odd, ""name""")"));
}

TEST_CASE("lines that cannot be written wait", "[logs]") {
  const TemporaryFolder folder;
  const std::string csv = folder.path("none") + "/csv", json = folder.path("none") + "/json";
  Sequential model = made();
  const auto open_later = callback::on_epoch_begin([&](auto& m) {
    if (m.epoch == 3) std::filesystem::create_directory(folder.path("none"));
  });
  const auto history =
      model.fit(x, y, options({open_later, callback::CsvLog({.path = csv}), callback::JsonLines({.path = json})}, 4));
  CHECK(history.warnings.size() == 4);
  CHECK_THAT(history.warnings[0], Catch::Contains("CsvLog") && Catch::Contains(csv));
  CHECK(lines_of(csv).size() == 5);
  CHECK(lines_of(json).size() == 4);
}

TEST_CASE("a lambda is a callback at any event", "[logs]") {
  std::string events;
  const int captured = 3;
  Sequential model = made();
  model.fit(x, y,
            options({callback::on_fit_begin([&](auto&) { events += "["; }),
                     callback::on_epoch_begin([&](auto& m) { events += std::to_string(m.epoch); }),
                     callback::on_batch_end([&, captured](auto& m) {
                       events += m.loss > 0 && captured == 3 ? "." : "?";
                       if (m.batch == 1) CHECK(m.loss == m.scores["loss"]);
                       if (m.batch == 2) CHECK(m.loss != m.scores["loss"]);
                     }),
                     callback::on_epoch_end([&](auto& m) { events += m.model.count_parameters() > 0 ? "|" : "?"; }),
                     callback::on_error([&](auto&) { events += "!"; }),
                     callback::on_fit_end([&](auto&) { events += "]"; })}));
  CHECK(events == "[1....|2....|]");
}

TEST_CASE("an exception of a callback reaches the caller, and the model keeps what it has", "[logs]") {
  enum class Where { fit_begin, epoch_begin, batch_end, epoch_end, fit_end };
  for (const Where where : {Where::fit_begin, Where::epoch_begin, Where::batch_end, Where::epoch_end, Where::fit_end}) {
    INFO("at event " << static_cast<int>(where));
    std::string last, events;
    const auto now = [&](Where here) {
      return [&, here](auto& m) {
        if (here != where || (where != Where::fit_begin && m.epoch < 2)) return;
        if (here == Where::batch_end && m.batch < 3) return;
        last = parameter_bits(m.model);
        throw std::runtime_error("no more");
      };
    };
    Sequential model = made();
    const auto with =
        options({callback::on_fit_begin(now(Where::fit_begin)), callback::on_epoch_begin(now(Where::epoch_begin)),
                 callback::on_batch_end(now(Where::batch_end)), callback::on_epoch_end(now(Where::epoch_end)),
                 callback::on_fit_end(now(Where::fit_end)), callback::on_error([&](auto& m) {
                   events += "error";
                   CHECK((parameter_bits(m.model) == last));
                   throw std::logic_error("not this one");
                 })});
    CHECK_THROWS_WITH(model.fit(x, y, with), "no more");
    CHECK(events == (where == Where::fit_end ? "" : "error"));
    CHECK((parameter_bits(model) == last));
    const auto history = model.fit(x, y, options({}, 20));
    CHECK(history["loss"].back() < history["loss"].front());
  }
  // One that is dealt with ends training as a stop does.
  Sequential model = made();
  const auto history = model.fit(x, y,
                                 options({callback::on_epoch_end([](auto&) { throw std::runtime_error("no"); }),
                                          callback::on_error([](auto& m) { m.handled = true; })}));
  CHECK(history.interrupted);
  CHECK(history["loss"].size() == 1);
}

TEST_CASE("a search for a learning rate leaves the model as it was", "[logs]") {
  const auto check = [&](const auto& optimizer, const callback::LearningRateFinderOptions& finder_options) {
    INFO(optimizer.kind << " from " << finder_options.from);
    Sequential model = made(optimizer);
    model.fit(x, y, options({}, 1));
    const std::string before = state_of(model);
    const callback::LearningRateFinder finder(finder_options);
    const auto history = model.fit(x, y, options({finder}, 100));
    CHECK(history.interrupted);
    CHECK(state_of(model) == before);
    const auto& points = finder.points();
    REQUIRE(points.size() >= 2);
    CHECK(points.size() <= finder.steps);
    CHECK(points.front().rate == Approx(finder.from));
    if (points.size() == finder.steps) CHECK(points.back().rate == Approx(finder.to));
    for (std::size_t i = 1; i < points.size(); ++i)
      CHECK(points[i].rate / points[i - 1].rate ==
            Approx(std::pow(finder.to / finder.from, 1 / static_cast<double>(finder.steps - 1))));
    CHECK(finder.suggestion() > finder.from);
    CHECK(finder.suggestion() < finder.to);
    // Training goes on as if there had been no search.
    Sequential plain = made(optimizer);
    plain.fit(x, y, options({}, 1));
    for (Sequential* m : {&model, &plain}) m->fit(x, y, options({}, 1));
    CHECK((parameter_bits(model) == parameter_bits(plain)));
  };
  check(tesla::optim::SGD({.learning_rate = 0.1, .momentum = 0.9}), {.from = 1e-4, .to = 10, .steps = 60});
  check(tesla::optim::Adam({.learning_rate = tesla::schedule::Cosine({.from = 0.01, .steps = 30})}), {.steps = 80});
  check(tesla::optim::Adam(), {.from = 1e-5, .to = 1e3, .steps = 40, .smoothing = 0});
}

TEST_CASE("a search for a learning rate ends with the loss, whatever becomes of it", "[logs]") {
  const auto targets = normal_numbers({40, 3}, 7);
  Sequential model({.seed = 6});
  model.add_layer(Dense({.units = 3}));
  model.compile(tesla::optim::SGD(), tesla::loss::MeanSquaredError());
  model.train_step(x, targets);
  const std::string before = state_of(model);
  // The loss multiplies by thousands in a step, and is beyond all numbers before a mean of it is large.
  const callback::LearningRateFinder reckless({.from = 1e-3, .to = 1e6, .steps = 5, .diverges_at = 1e300});
  const auto history = model.fit(x, targets, options({reckless}, 100));
  CHECK(history.interrupted);
  CHECK(reckless.points().size() >= 2);
  CHECK(state_of(model) == before);
  const callback::LearningRateFinder wary({.from = 1e-3, .to = 1e4, .steps = 60});
  model.fit(x, targets, options({wary}, 100));
  CHECK(wary.points().size() < 60);
  CHECK(wary.points().back().loss < 1e3);
  CHECK(state_of(model) == before);
  // A mistake in another callback is not the loss's.
  const callback::LearningRateFinder none;
  const auto wrong = callback::on_epoch_begin([](auto& m) {
    if (m.epoch == 2) throw std::runtime_error("no");
  });
  CHECK_THROWS_WITH(model.fit(x, targets, options({none, wrong})), "no");
  CHECK(none.points().size() == 4);
  CHECK(state_of(model) == before);
  // A fit that is shorter than the search is said to be.
  const callback::LearningRateFinder cut;
  const auto short_fit = model.fit(x, targets, options({cut}, 2));
  REQUIRE(short_fit.warnings.size() == 1);
  CHECK_THAT(short_fit.warnings[0], Catch::Contains(tesla::text("after ", cut.points().size(), " of 100 steps")));
  CHECK(state_of(model) == before);
  CHECK(history.warnings.empty());
  check_raises<UsageError>([] { callback::LearningRateFinder().suggestion(); }, {"LearningRateFinder", "steps"});
}

}  // namespace test_train_logs
