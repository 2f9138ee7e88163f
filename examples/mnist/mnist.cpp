// Trains a small network on MNIST, or on digits that the library draws itself: examples/mnist/run --help
#include "options.hpp"
#include "report.hpp"

#include <tesla/tesla.hpp>

#include <cstdio>
#include <exception>
#include <optional>

#include <unistd.h>

namespace {

tesla::Sequential new_model(const Options& options) {
  tesla::Sequential model({.seed = options.seed});
  model.add_layer(tesla::Input({784}));
  model.add_layer(tesla::Dense({.units = 300, .activation = tesla::relu, .initializer = tesla::init::he_normal}));
  model.add_layer(tesla::Dense({.units = 100, .activation = tesla::relu, .initializer = tesla::init::he_normal}));
  model.add_layer(tesla::Dense({.units = 10}));
  return model;
}

void compile(tesla::Sequential& model, const Options& options) {
  const tesla::loss::SparseCategoricalCrossEntropy loss;  // integer labels, from logits
  const tesla::metric::Accuracy accuracy;
  const double rate = options.rate > 0 ? options.rate : options.optimizer == "sgd" ? 0.05 : 0.001;
  if (options.optimizer == "sgd")
    model.compile(tesla::optim::SGD({.learning_rate = rate, .momentum = 0.9, .nesterov = true}), loss, {accuracy});
  else if (options.optimizer == "adam")
    model.compile(tesla::optim::Adam({.learning_rate = rate}), loss, {accuracy});
  else
    model.compile(tesla::optim::AdamW({.learning_rate = rate}), loss, {accuracy});
}

void run(const Options& options) {
  tesla::set_threads(options.threads);
  if (!options.save.empty()) tesla::io::AtomicFile(options.save);  // that it can be written is known before training

  tesla::Sequential model = options.load.empty() ? new_model(options) : tesla::Sequential::load(options.load);
  if (options.load.empty() || options.recompile) compile(model, options);

  const auto [train, test] = options.data.empty() ? tesla::data::digits() : tesla::data::mnist(options.data);
  std::printf("%s: %zu samples to train on, %zu to test on\n",
              options.data.empty() ? "drawn digits" : options.data.c_str(), train.size(), test.size());
  model.summary(options.batch);

  if (options.epochs != 0)
    model.fit(train, {.epochs = options.epochs,
                      .batch_size = options.batch,
                      .seed = options.seed,
                      .validation = test,
                      .stop_on_interrupt = true});

  const auto read = tesla::argmax(model.predict(test.x()));
  print_confusion(test.y(), read);
  if (isatty(STDOUT_FILENO) == 1) draw_misread(test, read);
  std::printf("\n");
  if (!options.save.empty()) {
    model.save(options.save);
    std::printf("the model is in %s\n", options.save.c_str());
  }
  const tesla::Scores scores = model.evaluate(test);
  std::printf("test accuracy %.4f  test loss %.4f\n", scores["accuracy"], scores["loss"]);
}

}  // namespace

int main(int count, char** arguments) {
  try {
    const Options options = parse(count, arguments);
    if (options.help)
      std::fputs(usage, stdout);
    else
      run(options);
    return 0;
  } catch (const BadOption& problem) {
    std::fprintf(stderr, "mnist: %s; --help lists all options\n", problem.what());
    return 2;
  } catch (const tesla::Error& error) {
    std::fprintf(stderr, "mnist: %s\n", error.what());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "mnist: there is not enough memory; try a smaller --batch\n");
  }
  return 1;
}
