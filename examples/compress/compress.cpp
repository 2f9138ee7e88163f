// A trained network made smaller: its large layer becomes a tensor-train, and the training goes on.
//
//   examples/compress/run [--data DIR] [--rank R | --bytes N] [--seed N]
#include <tesla/tesla.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

struct Options {
  std::string data;
  std::size_t rank = 16, bytes = 0;
  std::uint64_t seed = 0;
};

constexpr const char* usage =
    R"(Trains a network of 784-625-10 units on digits, replaces its first layer by a tensor-train, and trains on.

  --data DIR   the folder with MNIST's four files, plain or .gz (default: digits that the library draws)
  --rank R     replaces the layer by the best tensor-train of this rank in modes of 7 x 4 x 7 x 4 and 5 x 5 x 5 x 5
               (default: 16)
  --bytes N    instead: tesla::compress chooses modes and ranks so that all parameters take at most N bytes
  --seed N     of the first weights and of the shuffling (default: 0)
  --help       shows this
)";

/// A whole number above 0, or the end of the program.
std::size_t number(const char* option, const char* text) {
  char* end = nullptr;
  const long long value = std::strtoll(text, &end, 10);
  if (*text != '\0' && *end == '\0' && value >= 0) return static_cast<std::size_t>(value);
  std::fprintf(stderr, "compress: %s takes a whole number, not \"%s\"; --help lists all options\n", option, text);
  std::exit(2);
}

Options parse(int count, char** arguments) {
  Options o;
  for (int i = 1; i < count; i += 2) {
    const std::string name = arguments[i];
    if (name == "--help") {
      std::fputs(usage, stdout);
      std::exit(0);
    }
    const bool known = name == "--data" || name == "--rank" || name == "--bytes" || name == "--seed";
    if (!known || i + 1 == count) {
      std::fprintf(stderr, "compress: %s \"%s\"; --help lists all options\n",
                   known ? "there is no value for" : "there is no option", name.c_str());
      std::exit(2);
    }
    const char* const value = arguments[i + 1];
    if (name == "--data") o.data = value;
    if (name == "--rank") o.rank = number("--rank", value);
    if (name == "--bytes") o.bytes = number("--bytes", value);
    if (name == "--seed") o.seed = number("--seed", value);
  }
  if (o.rank == 0) {
    std::fprintf(stderr, "compress: --rank takes a whole number of 1 or more\n");
    std::exit(2);
  }
  return o;
}

template <class Optimizer>
void compile(tesla::Sequential& model, const Optimizer& optimizer) {
  model.compile(optimizer, tesla::loss::SparseCategoricalCrossEntropy(), {tesla::metric::Accuracy()});
}

void run(const Options& options) {
  const tesla::data::Split<> digits = options.data.empty() ? tesla::data::digits() : tesla::data::mnist(options.data);
  const auto fit = [&](tesla::Sequential& model, std::size_t epochs) {
    model.fit(digits.train, {.epochs = epochs, .batch_size = 64, .seed = options.seed, .validation = digits.test});
  };
  const auto report = [&](tesla::Sequential& model, const char* what) {
    const tesla::Scores scores = model.evaluate(digits.test);
    std::printf("%s: %zu parameters, test accuracy %.4f\n", what, model.count_parameters(), scores["accuracy"]);
  };

  tesla::Sequential model({.seed = options.seed});
  model
      .add_layer(tesla::Dense(
          {.units = 625, .activation = tesla::relu, .initializer = tesla::init::he_normal, .name = "hidden"}))
      .add_layer(tesla::Dense({.units = 10, .name = "digits"}));
  const auto rate = [](double r) { return tesla::optim::SGD({.learning_rate = r, .momentum = 0.9, .nesterov = true}); };
  compile(model, rate(0.05));
  fit(model, 8);
  compile(model, rate(0.005));
  fit(model, 2);
  report(model, "dense");

  if (options.bytes > 0) {
    const tesla::CompressReport done =
        tesla::compress<tesla::Dense>(model, {.budget = options.bytes, .batch_size = 64, .calibration = digits.train});
    std::fputs(done.to_string().c_str(), stdout);
  } else {
    tesla::Sequential smaller({.seed = options.seed});
    smaller
        .add_layer(tesla::TensorTrain::from(model.layer<tesla::Dense>("hidden"),
                                            {.in = {7, 4, 7, 4}, .out = {5, 5, 5, 5}, .rank = options.rank}))
        .add_layer(model.layer<tesla::Dense>("digits"));
    smaller.build({784});
    model = std::move(smaller);
    compile(model, rate(0.005));
  }
  report(model, "compressed");
  model.summary(64);

  compile(model, tesla::optim::Adam({.learning_rate = 3e-3}));
  fit(model, 1);
  compile(model, tesla::optim::Adam({.learning_rate = 3e-4}));
  fit(model, 1);
  report(model, "trained on");
}

}  // namespace

int main(int count, char** arguments) {
  try {
    run(parse(count, arguments));
  } catch (const tesla::Error& error) {
    std::fprintf(stderr, "compress: %s\n", error.what());
    return 1;
  }
  return 0;
}
