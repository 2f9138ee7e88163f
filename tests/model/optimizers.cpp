// Optimizers give the numbers of PyTorch and of their papers, and training goes on from files with the same bits.
#include <reference/optimizers.hpp>
#include <reference/pytorch.hpp>
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <io/temporary_folder.hpp>
#include <map>
#include <model/support.hpp>
#include <string>
#include <vector>

namespace test_model_optimizers {

using tesla::Dense;
using tesla::Sequential;
using tesla::UsageError;
namespace optim = tesla::optim;
namespace schedule = tesla::schedule;

namespace {

using DoubleOnCpu = tesla::BasicSequential<double, tesla::backend::Cpu>;
using DoubleOnReference = tesla::BasicSequential<double, tesla::backend::Reference>;

/// Calls f with the optimizer of a case.
template <class F>
void with_optimizer(const std::string& name, const F& f) {
  if (name == "rmsprop") return f(optim::RMSprop());
  if (name == "rmsprop momentum") return f(optim::RMSprop({.alpha = 0.9, .momentum = 0.8}));
  if (name == "rmsprop centered") return f(optim::RMSprop({.alpha = 0.9, .epsilon = 1e-4, .centered = true}));
  if (name == "rmsprop all")
    return f(optim::RMSprop({.learning_rate = 0.005,
                             .alpha = 0.8,
                             .epsilon = 1e-3,
                             .momentum = 0.5,
                             .centered = true,
                             .weight_decay = 0.02}));
  if (name == "adagrad") return f(optim::Adagrad({.learning_rate = 0.1}));
  if (name == "adagrad all")
    return f(optim::Adagrad(
        {.learning_rate = 0.1, .rate_decay = 0.2, .initial_sum = 0.3, .epsilon = 1e-4, .weight_decay = 0.02}));
  if (name == "lion") return f(optim::Lion({.learning_rate = 0.01}));
  if (name == "lion all")
    return f(optim::Lion({.learning_rate = 0.02, .beta_1 = 0.8, .beta_2 = 0.95, .weight_decay = 0.1}));
  if (name == "lamb") return f(optim::LAMB({.learning_rate = 0.02}));
  if (name == "lamb all")
    return f(optim::LAMB({.learning_rate = 0.05, .beta_1 = 0.8, .beta_2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.2}));
  if (name == "sgd groups") return f(optim::SGD({.learning_rate = 0.05, .momentum = 0.9, .weight_decay = 0.1}));
  if (name == "adam cosine")
    return f(optim::Adam({.learning_rate = schedule::Cosine({.from = 0.05, .to = 0.005, .steps = 10})}));
  FAIL("no optimizer of the name " << name);
}

void add_layers(Sequential& model) {
  model.add_layer(Dense({.units = 9, .activation = tesla::gelu})).add_layer(Dense({.units = 3}));
}

}  // namespace

TEMPLATE_TEST_CASE("ten steps of optimizers are those of the reference", "[optimizers]", Sequential, DoubleOnCpu,
                   DoubleOnReference) {
  using T = typename TestType::Scalar;
  constexpr double tolerance = sizeof(T) == sizeof(float) ? 2e-5 : 1e-10;
  constexpr std::size_t inputs = reference::layer_sizes[0], batch = reference::batch;
  const std::vector<T> x(reference::inputs, reference::inputs + reference::samples * inputs);
  for (const reference::OptimizerCase& c : reference::optimizer_cases) {
    const std::string name = c.name;
    INFO(name);
    TestType model;
    for (std::size_t i = 1; i < 4; ++i)
      model.add_layer(Dense({.units = static_cast<std::size_t>(reference::layer_sizes[i]),
                             .activation = i < 3 ? tesla::relu : tesla::linear}));
    model.build({inputs});
    const double* initial = reference::initial_parameters;
    for (auto& p : model.parameters()) {
      p.assign(std::vector<T>(initial, initial + p.size()));
      initial += p.size();
    }
    with_optimizer(
        name, [&](const auto& optimizer) { model.compile(optimizer, tesla::loss::SparseCategoricalCrossEntropy()); });
    // Nine tenths less of the rate, and nothing of the decay, for one; more of the decay for others.
    if (name == "sgd groups")
      model.group("dense.weight", {.rate = 0.1, .weight_decay = 0}).group("*.bias", {.weight_decay = 0.5});
    for (std::size_t step = 0; step < reference::steps; ++step) {
      const std::size_t first = step % 2 * batch;
      INFO("step " << step);
      CHECK(model.train_step(tesla::ArrayView(x.data() + first * inputs, {batch, inputs}),
                             tesla::ArrayView(reference::labels + first, {batch})) ==
            Approx(c.losses[step]).margin(tolerance).epsilon(0));
    }
    double worst = 0;
    const double* wanted = c.parameters;
    for (const auto& p : model.parameters())
      for (const T value : p.value()) worst = std::max(worst, std::fabs(static_cast<double>(value) - *wanted++));
    CHECK(worst < tolerance);
  }
}

TEMPLATE_TEST_CASE("optimizers go on after a load, also in the middle of a schedule", "[optimizers]", optim::SGD,
                   optim::Adam, optim::RMSprop, optim::Adagrad, optim::Lion, optim::LAMB) {
  const TemporaryFolder folder;
  const std::string path = folder.path("model");
  const auto x = normal_numbers({53, 6}, 1);
  const auto y = labels_below(3, 53, 2);
  const std::vector<schedule::LearningRate> rates{
      0.02,
      schedule::Step({.from = 0.02, .factor = 0.5, .every = 4, .warm_up = 2}),
      schedule::Exponential({.from = 0.02, .factor = 0.5, .every = 9}),
      schedule::Cosine({.from = 0.02, .steps = 5, .restarts = 4, .growth = 1.5}),
      schedule::OneCycle({.peak = 0.02, .steps = 18}),
      schedule::Piecewise({.rates = {0.01, 0.02, 0.005}, .until = {3, 9}})};
  std::map<std::string, bool> outcomes;
  for (const auto& rate : rates) {
    INFO(rate.kind());
    TestType optimizer;
    optimizer.learning_rate = rate;
    optimizer.weight_decay = 0.01;
    optimizer.clip_norm = 3;
    const auto options = [](std::size_t epochs) {
      return Sequential::Options{.epochs = epochs, .batch_size = 10, .verbose = 0};
    };
    Sequential straight({.seed = 9}), first({.seed = 9});
    for (Sequential* m : {&straight, &first}) {
      add_layers(*m);
      m->compile(optimizer, tesla::loss::SparseCategoricalCrossEntropy());
    }
    straight.fit(x, y, options(3));
    first.fit(x, y, options(1));
    first.save(path);
    Sequential second = Sequential::load(path);
    CHECK(second.learning_rate() == first.learning_rate());
    second.fit(x, y, options(2));
    CHECK((parameter_bits(second) == parameter_bits(straight)));
    CHECK(outcomes.emplace(parameter_bits(straight), true).second);  // a schedule does something
    second.save(path);
    Sequential again = Sequential::load(path);
    again.save(folder.path("again"));
    CHECK(tesla::io::read_file(folder.path("again")) == tesla::io::read_file(path));
  }
}

TEMPLATE_TEST_CASE("optimizers give the same bits at any number of threads", "[optimizers]", optim::RMSprop,
                   optim::Adagrad, optim::Lion, optim::LAMB) {
  const auto x = normal_numbers({60, 300}, 1);
  const auto y = labels_below(10, 60, 2);
  std::string wanted;
  for (const int threads : {1, 2, 4}) {
    tesla::set_threads(threads);
    Sequential model({.seed = 2});
    model.add_layer(Dense({.units = 200, .activation = tesla::relu})).add_layer(Dense({.units = 10}));
    model.compile(TestType(), tesla::loss::SparseCategoricalCrossEntropy());
    model.fit(x, y, {.epochs = 2, .batch_size = 32, .verbose = 0});
    model.fit(x, y, {.batch_size = 1, .verbose = 0});
    if (wanted.empty()) wanted = parameter_bits(model);
    CHECK((parameter_bits(model) == wanted));
  }
  tesla::set_threads(0);
}

TEST_CASE("the padding of parameters stays zero", "[optimizers]") {
  // What an optimizer makes of a gradient of zero must not be read as part of a norm, or leak into a product.
  const auto x = normal_numbers({20, 5}, 1);
  const auto y = labels_below(3, 20, 2);
  const auto check = [&](const auto& optimizer) {
    INFO(optimizer.kind);
    Sequential model;
    model.add_layer(Dense({.units = 3}));
    model.compile(optimizer, tesla::loss::SparseCategoricalCrossEntropy());
    model.fit(x, y, {.epochs = 3, .verbose = 0});
    auto& store = model.network().store();
    for (const auto& p : store.places())
      for (std::size_t r = 0; r < p.rows; ++r)
        for (std::size_t c = p.columns; c < p.stride; ++c) CHECK(store.values()[p.offset + r * p.stride + c] == 0);
  };
  check(optim::RMSprop({.momentum = 0.5, .centered = true}));
  check(optim::Adagrad());
  check(optim::Lion({.weight_decay = 0.1}));
  check(optim::LAMB());
}

TEST_CASE("options of optimizers out of range are refused", "[optimizers]") {
  check_raises<UsageError>([] { optim::RMSprop({.learning_rate = -1}); }, {"RMSprop", ".learning_rate"});
  check_raises<UsageError>([] { optim::RMSprop({.alpha = 1}); }, {"RMSprop", ".alpha"});
  check_raises<UsageError>([] { optim::RMSprop({.epsilon = 0}); }, {"RMSprop", ".epsilon"});
  check_raises<UsageError>([] { optim::RMSprop({.momentum = 1}); }, {"RMSprop", ".momentum"});
  check_raises<UsageError>([] { optim::Adagrad({.rate_decay = -1}); }, {"Adagrad", ".rate_decay"});
  check_raises<UsageError>([] { optim::Adagrad({.initial_sum = -1}); }, {"Adagrad", ".initial_sum"});
  check_raises<UsageError>([] { optim::Lion({.beta_2 = 1}); }, {"Lion", ".beta_2"});
  check_raises<UsageError>([] { optim::Lion({.weight_decay = -1}); }, {"Lion", ".weight_decay"});
  check_raises<UsageError>([] { optim::LAMB({.beta_1 = -0.1}); }, {"LAMB", ".beta_1"});
  check_raises<UsageError>([] { optim::LAMB({.clip_norm = -1}); }, {"LAMB", ".clip_norm"});
}

TEST_CASE("a file with a schedule that is none is refused", "[optimizers]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("model");
  Sequential model;
  add_layers(model);
  model.compile(optim::SGD({.learning_rate = schedule::Cosine({.from = 0.125, .steps = 77})}),
                tesla::loss::MeanSquaredError());
  model.build({4});
  const auto changed = [&](const std::string& from, const std::string& to) {
    model.save(path);
    const auto file = tesla::io::SafeTensors::read(path);
    std::string description = file.metadata().get<std::string>("tesla");
    const std::size_t at = description.find(from);
    INFO(description);
    REQUIRE(at != description.npos);
    description.replace(at, from.size(), to);
    tesla::io::write_safetensors(path, file.tensors(), tesla::io::Json::object({{"tesla", description}}));
  };
  changed("\"Cosine\"", "\"Sawtooth\"");
  check_raises<tesla::FormatError>([&] { Sequential::load(path); }, {"Sawtooth", "schedule"});
  changed("\"steps\":77", "\"steps\":0");
  check_raises<UsageError>([&] { Sequential::load(path); }, {"Cosine: .steps"});
  changed("\"restarts\":0,", "");
  CHECK(Sequential::load(path).learning_rate() == 0.125);
}

}  // namespace test_model_optimizers
