// Callbacks: when they are called, what they see, and how they end training.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <csignal>
#include <model/support.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace test_train_callbacks {

using tesla::Dense;
using tesla::Sequential;
using Moment = tesla::callback::Moment<Sequential>;

namespace {

/// Writes down every event, and may ask for the end at one of them.
struct Recorder {
  std::vector<std::string>* events;
  std::string stop_at = {};

  void on_fit_begin(Moment& m) { note("fit_begin", m); }
  void on_epoch_begin(Moment& m) { note("epoch_begin", m); }
  void on_batch_end(Moment& m) { note("batch_end", m); }
  void on_epoch_end(Moment& m) { note("epoch_end", m); }
  void on_fit_end(Moment& m) { note("fit_end", m); }

 private:
  void note(const char* event, Moment& m) {
    events->push_back(tesla::text(event, ' ', m.epoch, '/', m.epochs, ' ', m.batch, '/', m.batches));
    if (events->back() == stop_at) m.stop = true;
  }
};

struct Raiser {
  int at_batch;
  void on_batch_end(Moment& m) {
    if (m.epoch == 2 && static_cast<int>(m.batch) == at_batch) std::raise(SIGINT);
  }
};

struct Thrower {
  std::string* bits;
  void on_batch_end(Moment& m) {
    if (m.epoch != 2 || m.batch != 2) return;
    *bits = parameter_bits(m.model);
    throw std::runtime_error("no more");
  }
};

/// Uses the model for other things between the batches.
struct Meddler {
  const tesla::Tensor<float>* x;
  const std::vector<std::int32_t>* y;
  void on_batch_end(Moment& m) {
    m.model.predict(*x, {.batch_size = 3});
    m.model.evaluate(*x, *y);
  }
};

/// Checks what a moment shows.
struct Observer {
  std::vector<double>* at_epoch_end;
  void on_batch_end(Moment& m) {
    CHECK(m.scores.contains("loss"));
    CHECK(m.scores.contains("accuracy"));
    CHECK(m.scores["loss"] > 0);
  }
  void on_epoch_end(Moment& m) {
    for (const char* name : {"loss", "accuracy", "val_loss", "val_accuracy"}) at_epoch_end->push_back(m.scores[name]);
  }
};

const auto x = normal_numbers({25, 4}, 1);
const auto y = labels_below(3, 25, 2);

Sequential made() {
  Sequential model({.seed = 6});
  model.add_layer(Dense({.units = 3}));
  model.compile(tesla::optim::SGD({.learning_rate = 0.1, .momentum = 0.9}),
                tesla::loss::SparseCategoricalCrossEntropy(), {tesla::metric::Accuracy()});
  return model;
}

Sequential::Options options(std::vector<tesla::callback::AnyCallback<Sequential>> callbacks, std::size_t epochs = 2) {
  return {.epochs = epochs, .batch_size = 10, .callbacks = std::move(callbacks), .verbose = 0};
}

int interrupts = 0;
void count_interrupt(int) {
  ++interrupts;
  std::signal(SIGINT, count_interrupt);
}

/// A handler of Ctrl-C of the program's own, for a part of a test.
struct Handler {
  Handler() : old(std::signal(SIGINT, count_interrupt)) { interrupts = 0; }
  ~Handler() { std::signal(SIGINT, old); }
  bool in_place() const {
    const auto now = std::signal(SIGINT, count_interrupt);
    return now == count_interrupt;
  }
  void (*old)(int);
};

}  // namespace

TEST_CASE("callbacks are called at every event in order", "[callbacks]") {
  std::vector<std::string> events;
  Sequential model = made();
  model.fit(x, y, options({Recorder{&events}}));
  CHECK(events == std::vector<std::string>{"fit_begin 0/2 0/3", "epoch_begin 1/2 0/3", "batch_end 1/2 1/3",
                                           "batch_end 1/2 2/3", "batch_end 1/2 3/3", "epoch_end 1/2 3/3",
                                           "epoch_begin 2/2 0/3", "batch_end 2/2 1/3", "batch_end 2/2 2/3",
                                           "batch_end 2/2 3/3", "epoch_end 2/2 3/3", "fit_end 2/2 3/3"});
  events.clear();
  model.fit(x, y, options({Recorder{&events}, Recorder{&events}}, 1));
  REQUIRE(events.size() == 14);
  for (std::size_t i = 0; i < events.size(); i += 2) CHECK(events[i] == events[i + 1]);
}

TEST_CASE("a callback sees the scores, those of the validation at the end of an epoch", "[callbacks]") {
  std::vector<double> seen;
  Sequential model = made();
  auto with = options({Observer{&seen}});
  with.validation = {x, y};
  const auto history = model.fit(x, y, with);
  std::vector<double> wanted;
  for (const std::size_t epoch : {0, 1})
    for (const char* name : {"loss", "accuracy", "val_loss", "val_accuracy"}) wanted.push_back(history[name][epoch]);
  CHECK(seen == wanted);
}

TEST_CASE("a callback ends training", "[callbacks]") {
  struct Case {
    const char* stop_at;
    std::size_t entries;
    bool interrupted;
    const char* second_last;
  };
  const Case cases[] = {
      {"fit_begin 0/3 0/3", 0, true, "fit_begin 0/3 0/3"},     {"epoch_begin 2/3 0/3", 1, true, "epoch_begin 2/3 0/3"},
      {"epoch_begin 3/3 0/3", 2, true, "epoch_begin 3/3 0/3"}, {"batch_end 2/3 1/3", 2, true, "epoch_end 2/3 1/3"},
      {"batch_end 2/3 3/3", 2, true, "epoch_end 2/3 3/3"},     {"epoch_end 1/3 3/3", 1, true, "epoch_end 1/3 3/3"},
      {"batch_end 3/3 2/3", 3, true, "epoch_end 3/3 2/3"},     {"epoch_end 3/3 3/3", 3, false, "epoch_end 3/3 3/3"}};
  for (const Case& c : cases) {
    INFO(c.stop_at);
    std::vector<std::string> events;
    Sequential model = made();
    const auto history = model.fit(x, y, options({Recorder{&events, c.stop_at}}, 3));
    CHECK(history.interrupted == c.interrupted);
    CHECK(history.contains("loss") == (c.entries > 0));
    if (c.entries > 0) CHECK(history["loss"].size() == c.entries);
    REQUIRE(events.size() >= 2);
    CHECK(events[events.size() - 2] == c.second_last);
    CHECK(events.back().starts_with("fit_end"));
  }
}

TEST_CASE("a callback may use the model", "[callbacks]") {
  Sequential plain = made(), used = made();
  plain.fit(x, y, options({}));
  used.fit(x, y, options({Meddler{&x, &y}}));
  CHECK(parameter_bits(used) == parameter_bits(plain));
}

TEST_CASE("a callback that throws leaves a model that can be used", "[callbacks]") {
  const Handler handler;
  Sequential model = made();
  std::string last;
  auto with = options({Thrower{&last}}, 3);
  with.stop_on_interrupt = true;
  CHECK_THROWS_WITH(model.fit(x, y, with), "no more");
  CHECK(handler.in_place());
  CHECK(parameter_bits(model) == last);
  const auto history = model.fit(x, y, options({}, 30));
  CHECK(history["loss"].size() == 30);
  CHECK(history["loss"].back() < history["loss"].front());
}

TEST_CASE("Ctrl-C ends training after the batch where that is asked for", "[callbacks]") {
  const Handler handler;
  struct Case {
    int batch;
    std::size_t epochs;
    bool interrupted;
  };
  for (const Case& c : {Case{1, 5, true}, Case{3, 5, true}, Case{2, 2, true}, Case{3, 2, false}}) {
    INFO("batch " << c.batch << " of epoch 2 of " << c.epochs);
    std::vector<std::string> events;
    Sequential model = made();
    auto with = options({Raiser{c.batch}, Recorder{&events}}, c.epochs);
    with.stop_on_interrupt = true;
    const auto history = model.fit(x, y, with);
    CHECK(history.interrupted == c.interrupted);
    CHECK(history["loss"].size() == 2);
    CHECK(events.back() == tesla::text("fit_end 2/", c.epochs, ' ', c.batch, "/3"));
    CHECK(interrupts == 0);
    CHECK(handler.in_place());
    CHECK(model.fit(x, y, options({}, 2))["loss"].size() == 2);
  }
}

TEST_CASE("Ctrl-C is the program's own where nothing else is asked for", "[callbacks]") {
  const Handler handler;
  Sequential model = made();
  const auto history = model.fit(x, y, options({Raiser{1}}, 3));
  CHECK(interrupts == 1);
  CHECK_FALSE(history.interrupted);
  CHECK(history["loss"].size() == 3);
  CHECK(handler.in_place());
}

}  // namespace test_train_callbacks
