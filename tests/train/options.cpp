// Options of fit and settings of the model: gradients summed over batches, averages, frozen parameters, groups, weights
// of classes.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <io/temporary_folder.hpp>
#include <limits>
#include <model/support.hpp>
#include <string>
#include <vector>

namespace test_train_options {

using tesla::Dense;
using tesla::Sequential;
using tesla::UsageError;
namespace callback = tesla::callback;
namespace optim = tesla::optim;

namespace {

using DoubleOnReference = tesla::BasicSequential<double, tesla::backend::Reference>;
using DoubleOnCpu = tesla::BasicSequential<double, tesla::backend::Cpu>;

constexpr std::size_t samples = 45;
const auto x = normal_numbers({samples, 6}, 1);
const auto y = labels_below(3, samples, 2);

template <class Model = Sequential>
Model made(const auto& optimizer) {
  Model model({.seed = 6});
  model.add_layer(Dense({.units = 9, .activation = tesla::tanh, .name = "first"}))
      .add_layer(Dense({.units = 7, .activation = tesla::tanh, .name = "second"}))
      .add_layer(Dense({.units = 3, .name = "last"}));
  model.compile(optimizer, tesla::loss::SparseCategoricalCrossEntropy(), {tesla::metric::Accuracy()});
  return model;
}

const optim::SGD momentum({.learning_rate = 0.1, .momentum = 0.9});

template <class Model>
double distance(Model& a, Model& b) {
  double worst = 0;
  for (const auto& p : a.parameters()) {
    const auto v = p.value(), w = b.parameter(p.name()).value();
    for (std::size_t i = 0; i < v.size(); ++i) worst = std::max(worst, std::fabs(static_cast<double>(v[i] - w[i])));
  }
  return worst;
}

template <class Model>
std::string bits_of(Model& model, const std::string& name) {
  return bits(model.parameter(name).value());
}

/// Adds an offset to each feature, and counts how often its gradient was asked for.
struct Counted {
  static constexpr std::string_view kind = "Counted";
  std::size_t* calls;
  std::string name = {};

  tesla::Shape setup(const tesla::Shape& in, tesla::layer::Setup& setup) const {
    setup.parameter("offset", {in.elements()}, tesla::init::zeros);
    return in;
  }
  template <class T, class B>
  void forward(tesla::layer::Pass<T, B>& pass, tesla::Panels<const T> in, tesla::Panels<T> out) const {
    pass.map([](auto a, auto offset) { return a + offset; }, out, in, pass.parameter(0));
  }
  template <class T, class B>
  void backward(tesla::layer::Pass<T, B>& pass, tesla::Panels<const T>, tesla::Panels<T>, tesla::Panels<T> dy,
                tesla::Panels<T> dx) const {
    ++*calls;
    const tesla::Panels<const T> upstream = dy;
    pass.reduce([](auto g) { return g; }, pass.gradient(0), upstream);
    if (dx) pass.map([](auto g) { return g; }, dx, upstream);
  }
};

/// All that the optimizer remembers of a parameter.
std::string state_of(Sequential& model, const std::string& name) {
  const auto& store = model.network().store();
  std::string result;
  for (const auto& place : store.places())
    if (place.name == name)
      for (std::size_t s = 0; s < store.slots(); ++s) result += bits(store.read(store.slot(s), place));
  return result;
}

}  // namespace

TEMPLATE_TEST_CASE("several batches make one step, the same as one large batch", "[fit options]", Sequential,
                   DoubleOnCpu, DoubleOnReference) {
  const double tolerance = sizeof(typename TestType::Scalar) == sizeof(float) ? 1e-5 : 1e-13;
  const auto check = [&](const auto& optimizer) {
    INFO(optimizer.kind);
    TestType whole = made<TestType>(optimizer), parts = made<TestType>(optimizer), straight = made<TestType>(optimizer);
    // Three steps an epoch: 20, 20 and 5 samples, in batches of 4 to 5 of them, the last in one batch and a bit.
    const auto one = whole.fit(x, y, {.epochs = 3, .batch_size = 20, .verbose = 0});
    const auto sum = parts.fit(x, y, {.epochs = 3, .batch_size = 4, .verbose = 0, .accumulate = 5});
    straight.fit(x, y, {.epochs = 3, .batch_size = 4, .verbose = 0});
    CHECK(parts.training().step == 9);
    CHECK(distance(whole, parts) < tolerance);
    CHECK(distance(whole, straight) > 1e-3);
    for (std::size_t epoch = 0; epoch < 3; ++epoch)
      CHECK(one["loss"][epoch] == Approx(sum["loss"][epoch]).epsilon(1e-5));
  };
  check(optim::SGD({.learning_rate = 0.1, .momentum = 0.9, .clip_norm = 0.3}));
  check(optim::Adam({.epsilon = 1e-3}));
  check(optim::LAMB({.learning_rate = 0.01, .epsilon = 1e-3}));
}

TEST_CASE("weights of samples are summed over batches too", "[fit options]") {
  std::vector<float> weight(samples);
  for (std::size_t i = 0; i < samples; ++i) weight[i] = static_cast<float>(i % 4);
  Sequential whole = made(momentum), parts = made(momentum);
  whole.fit(x, y, {.epochs = 2, .batch_size = 20, .sample_weight = weight, .verbose = 0});
  parts.fit(x, y, {.epochs = 2, .batch_size = 5, .sample_weight = weight, .verbose = 0, .accumulate = 4});
  CHECK(distance(whole, parts) < 1e-5);
}

TEST_CASE("sums over batches work with tensor-trains and with sparse weights that are rewired", "[fit options]") {
  const auto sparse = [] {
    Sequential model({.seed = 3});
    model.add_layer(tesla::SparseDense({.units = 16, .density = 0.3, .activation = tesla::relu, .name = "sparse"}))
        .add_layer(tesla::TensorTrain({.in = {4, 4}, .out = {3, 2}, .rank = 2}))
        .add_layer(Dense({.units = 3}));
    model.compile(optim::SGD({.learning_rate = 0.1}), tesla::loss::SparseCategoricalCrossEntropy());
    return model;
  };
  Sequential whole = sparse(), parts = sparse();
  whole.fit(x, y, {.epochs = 2, .batch_size = 20, .verbose = 0});
  parts.fit(x, y, {.epochs = 2, .batch_size = 5, .verbose = 0, .accumulate = 4});
  CHECK(distance(whole, parts) < 1e-5);

  const tesla::sparse::RigL rigl({.every = 1, .until = 100});
  Sequential rewired = sparse();
  rewired.fit(x, y, {.epochs = 3, .batch_size = 5, .callbacks = {rigl}, .verbose = 0, .accumulate = 4});
  CHECK(rewired.training().step == 9);
  CHECK(rigl.history().size() == 9);  // once a step, not once a batch
  CHECK(all_finite(rewired));
}

TEST_CASE("a stop within a step drops the batches it has seen", "[fit options]") {
  Sequential stopped = made(momentum), whole = made(momentum);
  const auto stop = callback::on_batch_end([](auto& m) {
    CHECK(m.stepped == (m.batch % 4 == 0));
    if (m.batch == 6) m.stop = true;
  });
  stopped.fit(x, y, {.batch_size = 5, .shuffle = false, .callbacks = {stop}, .verbose = 0, .accumulate = 4});
  whole.fit(tesla::ArrayView(x.data(), {20, 6}), tesla::ArrayView(y.data(), {20}),
            {.batch_size = 5, .shuffle = false, .verbose = 0, .accumulate = 4});
  CHECK((parameter_bits(stopped) == parameter_bits(whole)));
}

TEST_CASE("running averages of the parameters", "[fit options]") {
  const double decay = 0.8;
  std::vector<std::vector<double>> steps;  // the parameters after each step
  const auto keep = callback::on_batch_end([&](auto& m) {
    if (!m.stepped) return;
    std::vector<double>& all = steps.emplace_back();
    for (const auto& p : m.model.parameters())
      for (const double value : p.value()) all.push_back(value);
  });
  DoubleOnCpu model = made<DoubleOnCpu>(momentum), plain = made<DoubleOnCpu>(momentum);
  model.build({6});
  std::vector<double> average;
  for (const auto& p : model.parameters())
    for (const double value : p.value()) average.push_back(value);
  check_raises<UsageError>([&] { model.use_average(); }, {"use_average", ".average"});
  const auto history = model.fit(x, y,
                                 {.epochs = 2,
                                  .batch_size = 10,
                                  .validation = {x, y},
                                  .callbacks = {keep},
                                  .verbose = 0,
                                  .accumulate = 2,
                                  .average = decay});
  plain.fit(x, y, {.epochs = 2, .batch_size = 10, .verbose = 0, .accumulate = 2});
  CHECK((parameter_bits(model) == parameter_bits(plain)));  // training itself is as ever
  REQUIRE(steps.size() == 6);
  for (std::size_t t = 1; t <= steps.size(); ++t) {
    const double kept = std::min(decay, static_cast<double>(t) / static_cast<double>(t + 9));
    for (std::size_t i = 0; i < average.size(); ++i) average[i] = kept * average[i] + (1 - kept) * steps[t - 1][i];
  }
  const std::string own = parameter_bits(model);
  model.use_average();
  std::size_t i = 0;
  for (const auto& p : model.parameters())
    for (const double value : p.value()) CHECK(value == Approx(average[i++]).epsilon(1e-12).margin(1e-15));
  // The validation was of the averages.
  CHECK(history["val_loss"].back() == Approx(model.evaluate(x, y)["loss"]).epsilon(1e-12));
  model.use_average();
  CHECK((parameter_bits(model) != own));
  model.use_average(false);
  CHECK((parameter_bits(model) == own));
}

TEST_CASE("averages are saved, and go on", "[fit options]") {
  const TemporaryFolder folder;
  const auto fit = [&](Sequential& model, std::size_t epochs, double average = 0.9) {
    model.fit(x, y, {.epochs = epochs, .batch_size = 10, .verbose = 0, .average = average});
  };
  Sequential straight = made(optim::Adam()), half = made(optim::Adam());
  fit(straight, 4);
  fit(half, 2);
  half.save(folder.path("own"));
  const std::string own = parameter_bits(half);
  half.use_average();
  const std::string average = parameter_bits(half);
  half.save(folder.path("average"));
  straight.use_average();

  Sequential from_own = Sequential::load(folder.path("own")), from_average = Sequential::load(folder.path("average"));
  CHECK((parameter_bits(from_own) == own));
  CHECK((parameter_bits(from_average) == average));
  from_own.use_average();
  CHECK((parameter_bits(from_own) == average));
  for (Sequential* m : {&half, &from_own, &from_average}) {
    fit(*m, 2);
    m->use_average();
    CHECK((parameter_bits(*m) == parameter_bits(straight)));
  }
  CHECK(tesla::io::SafeTensors::read(folder.path("own")).find("first.weight.average") != nullptr);

  Sequential restored = made(optim::Adam());
  restored.restore(folder.path("average"));
  fit(restored, 2);
  restored.use_average();
  CHECK((parameter_bits(restored) == parameter_bits(straight)));

  // Without the option the averages that were in place are what training goes on from, and others are forgotten.
  Sequential tuned = Sequential::load(folder.path("average"));
  fit(tuned, 1, 0);
  check_raises<UsageError>([&] { tuned.use_average(); }, {"use_average"});
  tuned.save(folder.path("tuned"));
  CHECK(tesla::io::SafeTensors::read(folder.path("tuned")).find("first.weight.average") == nullptr);
}

TEST_CASE("a step is of the parameters themselves, another optimizer begins with what is in place", "[fit options]") {
  Sequential model = made(momentum), plain = made(momentum);
  model.fit(x, y, {.batch_size = 10, .verbose = 0, .average = 0.9});
  plain.fit(x, y, {.batch_size = 10, .verbose = 0});
  model.use_average();
  for (Sequential* m : {&model, &plain}) m->train_step(x, y);
  CHECK((parameter_bits(model) == parameter_bits(plain)));
  // A callback that leaves the averages in place does no harm.
  const auto leave = callback::on_batch_end([](auto& m) { m.model.use_average(); });
  model.fit(x, y, {.batch_size = 10, .callbacks = {leave}, .verbose = 0, .average = 0.9});
  plain.fit(x, y, {.batch_size = 10, .verbose = 0});
  model.use_average(false);
  CHECK((parameter_bits(model) == parameter_bits(plain)));
  model.use_average();
  const std::string average = parameter_bits(model);
  model.compile(momentum, tesla::loss::SparseCategoricalCrossEntropy());
  CHECK((parameter_bits(model) == average));
  check_raises<UsageError>([&] { model.use_average(false); }, {"use_average"});
}

TEST_CASE("averages keep up with parameters that change their places", "[fit options]") {
  Sequential model({.seed = 3});
  model.add_layer(tesla::SparseDense({.units = 16, .density = 0.3, .activation = tesla::relu, .name = "sparse"}))
      .add_layer(tesla::TensorTrain({.in = {4, 4}, .out = {3, 2}, .rank = 3, .name = "train"}))
      .add_layer(Dense({.units = 3}));
  model.compile(optim::Adam({.learning_rate = 0.01}), tesla::loss::SparseCategoricalCrossEntropy());
  model.fit(x, y,
            {.epochs = 20,
             .batch_size = 5,
             .callbacks = {tesla::sparse::SET({.fraction = 0.2}),
                           tesla::callback::LowerRanks({.parameters = 40, .by_epoch = 3})},
             .verbose = 0,
             .average = 0.9});
  // The last epochs change little, so an average that belongs to the parameters is near them.
  const double own = model.evaluate(x, y)["loss"];
  model.use_average();
  CHECK(model.evaluate(x, y)["loss"] == Approx(own).margin(0.05));
  // Rounding does to the averages what it does to the parameters.
  Sequential rounded({.seed = 3});
  rounded.add_layer(tesla::TensorTrain({.in = {3, 2}, .out = {5, 4}, .rank = 4, .activation = tesla::tanh}))
      .add_layer(Dense({.units = 3}));
  rounded.compile(optim::SGD({.learning_rate = 0.05}), tesla::loss::SparseCategoricalCrossEntropy());
  rounded.fit(x, y, {.epochs = 50, .batch_size = 15, .verbose = 0, .average = 0.5});
  rounded.fit(
      x, y,
      {.batch_size = 15, .callbacks = {tesla::callback::LowerRanks({.parameters = 60})}, .verbose = 0, .average = 0.5});
  const auto values = rounded.predict(x);
  rounded.use_average();
  const auto averages = rounded.predict(x);
  double worst = 0;
  for (std::size_t i = 0; i < values.size(); ++i)
    worst = std::max(worst, std::fabs(static_cast<double>(values[i] - averages[i])));
  CHECK(worst < 0.05);
  // A layer that is added has averages of its own values.
  Sequential grown = made(optim::Adam());
  grown.fit(x, y, {.verbose = 0, .average = 0.9});
  grown.add_layer(Dense({.units = 3, .name = "new"}));
  grown.build({6});
  const std::string fresh = bits_of(grown, "new.weight");
  grown.use_average();
  CHECK((bits_of(grown, "new.weight") == fresh));
}

TEST_CASE("frozen parameters stay, and so does their state", "[fit options]") {
  const TemporaryFolder folder;
  const auto fit = [](Sequential& m) { m.fit(x, y, {.batch_size = 10, .verbose = 0}); };
  Sequential model = made(momentum);
  fit(model);
  const std::string weight = bits_of(model, "second.weight"), bias = bits_of(model, "second.bias"),
                    first = bits_of(model, "first.bias"), state = state_of(model, "second.weight");
  model.freeze("second").freeze("first.bias").unfreeze("second.bias");
  fit(model);
  CHECK((bits_of(model, "second.weight") == weight));
  CHECK((bits_of(model, "second.bias") != bias));
  CHECK((bits_of(model, "first.bias") == first));
  CHECK((state_of(model, "second.weight") == state));

  model.save(folder.path("model"));
  Sequential loaded = Sequential::load(folder.path("model")), restored = made(momentum);
  restored.restore(folder.path("model"));
  for (Sequential* m : {&model, &loaded, &restored}) {
    fit(*m);
    CHECK((bits_of(*m, "second.weight") == weight));
  }
  CHECK((parameter_bits(loaded) == parameter_bits(model)));
  CHECK((parameter_bits(restored) == parameter_bits(model)));
  model.unfreeze("*");
  fit(model);
  CHECK((bits_of(model, "second.weight") != weight));
  CHECK((bits_of(model, "first.bias") != first));
}

TEST_CASE("freezing the first layers changes nothing for the others", "[fit options]") {
  // Without a gradient for them the backward pass ends sooner.
  const auto tail = tesla::Tensor<float>(made(momentum).predict(x));
  Sequential frozen = made(momentum), all = made(momentum);
  frozen.freeze("first").freeze("second");
  const double loss = frozen.train_step(x, y);
  CHECK(all.train_step(x, y) == loss);
  CHECK((bits_of(frozen, "last.weight") == bits_of(all, "last.weight")));
  CHECK((bits_of(frozen, "second.weight") != bits_of(all, "second.weight")));
  frozen.freeze("*");
  const std::string before = parameter_bits(frozen);
  frozen.train_step(x, y);
  CHECK((parameter_bits(frozen) == before));
  frozen.unfreeze("*");
  frozen.train_step(x, y);
  CHECK((parameter_bits(frozen) != before));
  CHECK(frozen.learning_rate() == 0.1);
  CHECK(tail.size() == samples * 3);
}

TEST_CASE("the backward pass ends where all that is left is frozen", "[fit options]") {
  std::size_t first = 0, second = 0;
  Sequential model;
  model.add_layer(Counted{&first, "one"})
      .add_layer(Dense({.units = 4, .name = "dense"}))
      .add_layer(Counted{&second, "two"});
  model.add_layer(Dense({.units = 3}));
  model.compile(momentum, tesla::loss::SparseCategoricalCrossEntropy());
  const auto calls = [&] {
    first = second = 0;
    model.train_step(x, y);
    return 10 * first + second;
  };
  CHECK(calls() == 11);
  model.freeze("one").freeze("two");
  CHECK(calls() == 1);  // the weights between them still learn
  model.freeze("dense");
  CHECK(calls() == 0);
  model.unfreeze("one");
  CHECK(calls() == 11);
}

TEST_CASE("a callback may freeze and unfreeze", "[fit options]") {
  Sequential model = made(momentum);
  model.build({6});
  std::vector<std::string> seen{bits_of(model, "first.weight")};
  model.fit(x, y,
            {.epochs = 3,
             .callbacks = {callback::on_epoch_begin([](auto& m) {
                             if (m.epoch == 1) m.model.freeze("first");
                             if (m.epoch == 3) m.model.unfreeze("first");
                           }),
                           callback::on_epoch_end([&](auto& m) { seen.push_back(bits_of(m.model, "first.weight")); })},
             .verbose = 0});
  CHECK((seen[1] == seen[0]));
  CHECK((seen[2] == seen[0]));
  CHECK((seen[3] != seen[0]));
}

TEST_CASE("clipping does not count frozen parameters", "[fit options]") {
  Sequential clipped = made(optim::SGD({.learning_rate = 1, .clip_norm = 0.01}));
  clipped.freeze("first").freeze("second").freeze("last.bias");
  clipped.build({6});
  const auto before = clipped.parameter("last.weight").value();
  clipped.train_step(x, y);
  const auto after = clipped.parameter("last.weight").value();
  double squares = 0;
  for (std::size_t i = 0; i < before.size(); ++i) squares += std::pow(static_cast<double>(after[i] - before[i]), 2);
  CHECK(std::sqrt(squares) == Approx(0.01).epsilon(1e-3));
}

TEST_CASE("groups have a rate and a weight decay of their own", "[fit options]") {
  const TemporaryFolder folder;
  const auto with = [](double rate, double decay) {
    return made(optim::SGD({.learning_rate = rate, .momentum = 0.9, .weight_decay = decay}));
  };
  // What one step does to a parameter is what it does in a model where all parameters have those options.
  Sequential model = with(0.1, 0.2), slow = with(0.01, 0), other = with(0.1, 0.2), decayed = with(0.1, 0.5);
  model.group("*.weight", {.rate = 0.1})
      .group("second", {.rate = 0.1, .weight_decay = 0})
      .group("last.bia?", {.weight_decay = 0.5});
  for (Sequential* m : {&model, &slow, &other, &decayed}) m->train_step(x, y);
  CHECK((bits_of(model, "second.weight") == bits_of(slow, "second.weight")));
  CHECK((bits_of(model, "second.bias") == bits_of(slow, "second.bias")));
  CHECK((bits_of(model, "first.bias") == bits_of(other, "first.bias")));
  CHECK((bits_of(model, "first.weight") != bits_of(other, "first.weight")));
  CHECK((bits_of(model, "last.bias") == bits_of(decayed, "last.bias")));
  model.save(folder.path("model"));
  Sequential loaded = Sequential::load(folder.path("model"));
  for (Sequential* m : {&model, &loaded}) m->train_step(x, y);
  CHECK((parameter_bits(loaded) == parameter_bits(model)));
  // The same pattern again takes the place of what it said before.
  Sequential again = with(0.1, 0.2);
  again.group("*", {.rate = 0.5, .weight_decay = 3}).group("*", {});
  again.train_step(x, y);
  CHECK((parameter_bits(again) == parameter_bits(other)));
}

TEST_CASE("groups have penalties", "[fit options]") {
  const TemporaryFolder folder;
  const auto plain = [] { return made(optim::SGD({.learning_rate = 0.1})); };
  Sequential model = plain(), other = plain();
  model.build({6}), other.build({6});
  model.group("first.weight", {.l1 = 0.3}).group("second.weight", {.l2 = 0.2}).group("*.bias", {.l1 = 0.1, .l2 = 0.1});
  std::vector<tesla::Tensor<float>> before;
  for (const auto& p : model.parameters()) before.push_back(p.value());
  model.train_step(x, y), other.train_step(x, y);
  auto parameters = model.parameters(), plainly = other.parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i].name();
    const bool bias = name.find("bias") != name.npos;
    const double l1 = bias ? 0.1 : name == "first.weight" ? 0.3 : 0;
    const double l2 = bias ? 0.1 : name == "second.weight" ? 0.2 : 0;
    const tesla::Tensor<float> with = parameters[i].value(), without = plainly[i].value();
    for (std::size_t k = 0; k < with.size(); ++k) {
      const double w = static_cast<double>(before[i][k]), sign = w > 0 ? 1 : w < 0 ? -1 : 0;
      CAPTURE(name, k);
      CHECK(static_cast<double>(with[k]) ==
            Approx(static_cast<double>(without[k]) - 0.1 * (l1 * sign + 2 * l2 * w)).margin(1e-6));
    }
  }
  model.save(folder.path("model"));
  Sequential loaded = Sequential::load(folder.path("model"));
  for (Sequential* m : {&model, &loaded}) m->train_step(x, y);
  CHECK((parameter_bits(loaded) == parameter_bits(model)));
  check_raises<UsageError>([&] { model.group("first", {.l1 = -1}); }, {"group", ".l1"});
}

TEST_CASE("names and options that are wrong are refused", "[fit options]") {
  Sequential model = made(momentum);
  model.build({6});
  check_raises<UsageError>([&] { model.freeze("third"); }, {"freeze", "\"third\"", "first.weight"});
  check_raises<UsageError>([&] { model.unfreeze("third*"); }, {"unfreeze", "\"third*\""});
  check_raises<UsageError>([&] { model.group("first.weights", {}); }, {"group", "first.weights"});
  check_raises<UsageError>([&] { model.group("first", {.rate = -1}); }, {"group", ".rate"});
  check_raises<UsageError>([&] { model.group("first", {.weight_decay = std::nan("")}); }, {"group", ".weight_decay"});
  // Before the model is built no name is known: then fit tells, once.
  Sequential fresh = made(momentum);
  fresh.freeze("first").freeze("frist");
  check_raises<UsageError>([&] { fresh.fit(x, y, {.verbose = 0}); }, {"freeze", "\"frist\""});
  CHECK_NOTHROW(fresh.fit(x, y, {.verbose = 0}));

  check_raises<UsageError>([&] { model.fit(x, y, {.verbose = 0, .accumulate = 0}); }, {"fit", ".accumulate"});
  check_raises<UsageError>([&] { model.fit(x, y, {.verbose = 0, .average = 1}); }, {"fit", ".average"});
  check_raises<UsageError>([&] { model.fit(x, y, {.verbose = 0, .average = -0.1}); }, {"fit", ".average"});
  check_raises<UsageError>(
      [&] {
        model.fit(x, y, {.verbose = 0, .class_weight = {1, 2}});
      },
      {"2 weights", "3 classes"});
  check_raises<UsageError>([&] { model.fit(x, y, {.verbose = 0, .class_weight = {1, 2, -1}}); }, {"class 2", "-1"});
  const double inf = std::numeric_limits<double>::infinity();
  check_raises<UsageError>([&] { model.fit(x, y, {.verbose = 0, .class_weight = {1, inf, 1}}); }, {"class 1"});
  model.compile(momentum, tesla::loss::MeanSquaredError());
  const auto targets = normal_numbers({samples, 3}, 5);
  check_raises<UsageError>(
      [&] {
        model.fit(x, targets, {.verbose = 0, .class_weight = {1, 2, 3}});
      },
      {".class_weight", "MeanSquaredError", ".sample_weight"});
}

TEST_CASE("weights of classes are weights of their samples", "[fit options]") {
  const std::vector<double> weights{0.5, 2, 1};
  const auto check = [&](const auto& loss, const tesla::ArrayView& targets, const std::vector<double>& class_weight,
                         const auto& class_of, std::size_t units) {
    INFO(loss.kind);
    std::vector<double> each(samples), both(samples), given(samples);
    for (std::size_t i = 0; i < samples; ++i) {
      each[i] = class_weight[class_of(i)];
      given[i] = static_cast<double>(i % 3);
      both[i] = each[i] * given[i];
    }
    const auto trained = [&](const std::vector<double>& sample_weight, const std::vector<double>& by_class) {
      Sequential model({.seed = 3});
      model.add_layer(Dense({.units = units}));
      model.compile(momentum, loss);
      model.fit(x, targets,
                {.batch_size = 10,
                 .sample_weight = sample_weight.empty() ? tesla::ArrayView() : tesla::ArrayView(sample_weight),
                 .verbose = 0,
                 .class_weight = by_class});
      return parameter_bits(model);
    };
    CHECK((trained({}, class_weight) == trained(each, {})));
    CHECK((trained(given, class_weight) == trained(both, {})));
    CHECK((trained({}, class_weight) != trained({}, {})));
  };
  const auto label = [](std::size_t i) { return static_cast<std::size_t>(y[i]); };
  check(tesla::loss::SparseCategoricalCrossEntropy(), y, weights, label, 3);
  std::vector<float> rows(samples * 3), yes(samples);
  for (std::size_t i = 0; i < samples; ++i) rows[3 * i + label(i)] = 1, yes[i] = static_cast<float>(i % 2);
  check(tesla::loss::CategoricalCrossEntropy(), tesla::view(rows, {samples, 3}), weights, label, 3);
  check(
      tesla::loss::BinaryCrossEntropy(), yes, {0.5, 3}, [](std::size_t i) { return i % 2; }, 1);
}

TEST_CASE("all of it gives the same bits at any number of threads", "[fit options]") {
  std::string wanted;
  for (const int threads : {1, 2, 4}) {
    tesla::set_threads(threads);
    Sequential model({.seed = 2});
    model.add_layer(Dense({.units = 300, .activation = tesla::relu, .name = "wide"})).add_layer(Dense({.units = 3}));
    model.compile(optim::Adam({.learning_rate = tesla::schedule::Cosine({.from = 0.01, .steps = 9}), .clip_norm = 1}),
                  tesla::loss::SparseCategoricalCrossEntropy());
    model.group("wide", {.rate = 0.5, .weight_decay = 0.1}).freeze("dense.bias");
    model.fit(x, y,
              {.epochs = 3, .batch_size = 4, .verbose = 0, .class_weight = {1, 2, 3}, .accumulate = 3, .average = 0.9});
    std::string found = parameter_bits(model);
    model.use_average();
    found += parameter_bits(model);
    if (wanted.empty()) wanted = found;
    CHECK((found == wanted));
  }
  tesla::set_threads(0);
}

}  // namespace test_train_options
