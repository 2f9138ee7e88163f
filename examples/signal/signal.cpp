// How many steps a machine has left, from its vibration: a network of convolutions, beside lines through the energy and
// the kurtosis.
//
//   examples/signal/run [--machines N] [--epochs N] [--threads N] [--seed N]
#include "../command_line.hpp"
#include "machine.hpp"

#include <tesla/tesla.hpp>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace {

struct Options {
  std::size_t machines = 60, epochs = 8;
  int threads = 0;
  std::uint64_t seed = 0;
  bool help = false;
};

constexpr const char* usage =
    R"(Simulates machines that wear out, learns from their vibration how many steps they have left, and tests that on
machines it has not seen.

  --machines N  machines to learn from (default: 60); a quarter as many are tested
  --epochs N    passes over their steps (default: 8)
  --threads N   threads, 0 for as many as there are (default: 0)
  --seed N      of the machines, the first weights and the shuffling (default: 0)
  --help        shows this

Ctrl-C ends the training after the current step and goes on to the test.
)";

Options parse(int count, char** arguments) {
  Options o;
  for (int i = 1; i < count; i += 2) {
    const std::string name = arguments[i];
    if (name == "--help") {
      o.help = true;
      return o;
    }
    const std::string value = read_value({"--machines", "--epochs", "--threads", "--seed"}, i, count, arguments);
    if (name == "--machines") o.machines = read_number<std::size_t>(name, value, 4, 10'000);
    if (name == "--epochs") o.epochs = read_number<std::size_t>(name, value, 1, 10'000);
    if (name == "--threads") o.threads = read_number(name, value, 0, 1024);
    if (name == "--seed") o.seed = read_number<std::uint64_t>(name, value, 0, ~std::uint64_t{0});
  }
  return o;
}

/// The mean of some power of the values that were measured in a step.
double moment(const float* values, int power) {
  double sum = 0;
  for (std::size_t i = 0; i < window; ++i) sum += std::pow(static_cast<double>(values[i]), power);
  return sum / window;
}
double energy(const float* values) { return std::log(moment(values, 2)); }
/// How much of the energy is in few values, as engineers look for knocks.
double kurtosis(const float* values) { return std::log(moment(values, 4) / std::pow(moment(values, 2), 2)); }

/// The simple answer: the line through one number for each step that is nearest to the steps left.
class Line {
 public:
  using Feature = double (*)(const float* values);

  Line(Feature feature, const Steps& steps) : feature_(feature) {
    const auto n = static_cast<double>(steps.y.size());
    double sum_x = 0, sum_y = 0, sum_xx = 0, sum_xy = 0;
    for (std::size_t i = 0; i < steps.y.size(); ++i) {
      const double x = feature(steps.values(i)), y = steps.y[i];
      sum_x += x, sum_y += y, sum_xx += x * x, sum_xy += x * y;
    }
    slope_ = (n * sum_xy - sum_x * sum_y) / (n * sum_xx - sum_x * sum_x);
    at_zero_ = (sum_y - slope_ * sum_x) / n;
  }
  double operator()(const float* values) const { return at_zero_ + slope_ * feature_(values); }

 private:
  Feature feature_;
  double slope_ = 0, at_zero_ = 0;
};

tesla::Sequential new_model(const Options& options, std::size_t samples, std::size_t batch) {
  using namespace tesla;
  Sequential model({.seed = options.seed});
  model.add_layer(Input({window, 1}))
      .add_layer(Conv1D({.filters = 16, .kernel = 9, .padding = same, .use_bias = false}))
      .add_layer(BatchNorm())
      .add_layer(ReLU())
      .add_layer(MaxPool1D({.pool = 4}))
      .add_layer(Conv1D({.filters = 32, .kernel = 5, .padding = same, .use_bias = false}))
      .add_layer(BatchNorm())
      .add_layer(ReLU())
      .add_layer(MaxPool1D({.pool = 2}))
      .add_layer(Conv1D({.filters = 32, .kernel = 5, .padding = same, .activation = relu}))
      .add_layer(GlobalAveragePool())
      .add_layer(Dense({.units = 32, .activation = relu}))
      .add_layer(Dense({.units = 1}));
  const std::size_t steps = options.epochs * ((samples + batch - 1) / batch);
  model.compile(optim::Adam({.learning_rate = schedule::OneCycle({.peak = 5e-3, .steps = steps})}),
                loss::MeanAbsoluteError());
  return model;
}

/// Mean absolute errors over all steps, and over those with less than a quarter of the horizon left.
struct Errors {
  double all = 0, late = 0;
  std::size_t count = 0, late_count = 0;

  void add(double answer, double left) {
    all += std::abs(answer - left), ++count;
    if (left < horizon / 4) late += std::abs(answer - left), ++late_count;
  }
  void print(const char* who) const {
    std::printf("%-28s%8.1f%24.1f\n", who, all / static_cast<double>(count), late / static_cast<double>(late_count));
  }
};

void run(const Options& options) {
  tesla::set_threads(options.threads);
  const std::size_t tested = options.machines / 4, batch = 64;
  Steps train = simulate(options.seed, 0, options.machines);
  const Steps test = simulate(options.seed, options.machines, tested);
  std::printf("%zu machines with %zu steps to learn from, %zu machines with %zu steps to test on\n", options.machines,
              train.y.size(), tested, test.y.size());
  const Line by_energy(energy, train), by_kurtosis(kurtosis, train);
  double mean = 0;
  for (const float left : train.y) mean += static_cast<double>(left) / static_cast<double>(train.y.size());

  // Networks learn numbers around 1 more easily than steps.
  tesla::Sequential model = new_model(options, train.y.size(), batch);
  for (float& left : train.y) left /= static_cast<float>(horizon);
  model.summary(batch);
  model.fit(train.x, train.y,
            {.epochs = options.epochs, .batch_size = batch, .seed = options.seed, .stop_on_interrupt = true});
  const tesla::Tensor<float> outputs = model.predict(test.x);
  const auto network = [&](std::size_t row) { return horizon * static_cast<double>(outputs[row]); };

  std::printf("\nthe first machine of the test, every tenth step:\n steps left   network   by energy   by kurtosis\n");
  for (std::size_t row = Machine(options.seed, options.machines).life() % 10; row < test.y.size(); row += 10) {
    std::printf("%11.0f%10.0f%12.0f%14.0f\n", static_cast<double>(test.y[row]), network(row),
                by_energy(test.values(row)), by_kurtosis(test.values(row)));
    if (test.y[row] < 10) break;
  }

  Errors own, of_energy, of_kurtosis, of_mean;
  for (std::size_t row = 0; row < test.y.size(); ++row) {
    own.add(network(row), test.y[row]);
    of_energy.add(by_energy(test.values(row)), test.y[row]);
    of_kurtosis.add(by_kurtosis(test.values(row)), test.y[row]);
    of_mean.add(mean, test.y[row]);
  }
  std::printf("\nmean error in steps         all steps    less than %.0f steps left\n", horizon / 4);
  own.print("network");
  of_kurtosis.print("line through the kurtosis");
  of_energy.print("line through the energy");
  of_mean.print("always the mean");
}

}  // namespace

int main(int count, char** arguments) {
  return run_program({"signal", usage, "fewer --machines"}, count, arguments, parse, run);
}
