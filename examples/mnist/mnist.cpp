// Trains a small network on MNIST, or on digits that the library draws itself: examples/mnist/run --help
#include "../command_line.hpp"
#include "models.hpp"
#include "options.hpp"
#include "report.hpp"

#include <tesla/tesla.hpp>

#include <algorithm>
#include <cstdio>
#include <vector>

#include <unistd.h>

namespace {

void compile(tesla::Sequential& model, const Options& options, const tesla::schedule::LearningRate& rate) {
  const tesla::loss::SparseCategoricalCrossEntropy loss;  // integer labels, from logits
  const tesla::metric::Accuracy accuracy;
  const auto decay = [&](double suits) { return options.decay >= 0 ? options.decay : suits; };
  if (options.optimizer == "sgd")
    model.compile(tesla::optim::SGD({.learning_rate = rate,
                                     .momentum = 0.9,
                                     .nesterov = true,
                                     .weight_decay = decay(options.model == "sparse" ? 5e-4 : 0)}),
                  loss, {accuracy});
  else if (options.optimizer == "adam")
    model.compile(tesla::optim::Adam({.learning_rate = rate, .weight_decay = decay(0)}), loss, {accuracy});
  else
    model.compile(tesla::optim::AdamW({.learning_rate = rate, .weight_decay = decay(0.01)}), loss, {accuracy});
}

/// Up in the first tenth of the steps and down along a cosine; not to nothing, so that a saved model can be trained on.
tesla::schedule::Cosine falling(double rate, const Options& options, std::size_t samples) {
  const std::size_t steps = options.epochs * ((samples + options.batch - 1) / options.batch), rising = steps / 10;
  return tesla::schedule::Cosine(
      {.from = rate, .to = rate / 100, .steps = std::max<std::size_t>(steps - rising, 1), .warm_up = rising});
}

/// Images of 28 x 28 in the middle of 32 x 32.
tesla::data::Dataset<> padded(const tesla::data::Dataset<>& digits) {
  constexpr std::size_t own = 28, side = 32, margin = (side - own) / 2;
  if (digits.x().shape().back() != own * own)
    tesla::raise<tesla::DataError>("only images of 28 x 28 can be padded, not of ", digits.x().shape().back(),
                                   " pixels");
  tesla::Tensor<float> x({digits.size(), side * side});
  for (std::size_t s = 0; s < digits.size(); ++s)
    for (std::size_t row = 0; row < own; ++row)
      std::copy_n(digits.x().data() + (s * own + row) * own, own, x.data() + (s * side + row + margin) * side + margin);
  return {std::move(x), digits.y()};
}

/// Whether Ctrl-C left the epochs at that.
bool fit(tesla::Sequential& model, const Options& options, std::size_t epochs, const tesla::data::Split<>& digits) {
  std::vector<tesla::callback::AnyCallback<tesla::Sequential>> callbacks;
  if (options.budget > 0)
    callbacks.emplace_back(tesla::callback::LowerRanks({.parameters = options.budget,
                                                        .by_epoch = std::max<std::size_t>(options.epochs * 3 / 10, 1),
                                                        .verbose = true}));
  if (options.model == "sparse") {
    // Until three quarters of all steps, also where the last epochs are a fit of their own.
    const std::size_t batches = (digits.train.size() + options.batch - 1) / options.batch;
    const std::size_t until = std::max<std::size_t>(options.epochs * batches * 3 / 4, 1);
    if (options.method == "rigl") callbacks.emplace_back(tesla::sparse::RigL({.every = options.every, .until = until}));
    if (options.method == "set") callbacks.emplace_back(tesla::sparse::SET({.until = options.epochs * 3 / 4}));
    if (options.method == "prune")
      callbacks.emplace_back(
          tesla::sparse::GradualPruning({.density = options.density, .until = until, .every = options.every}));
  }
  const tesla::History history = model.fit(digits.train, {.epochs = epochs,
                                                          .batch_size = options.batch,
                                                          .seed = options.seed,
                                                          .validation = digits.test,
                                                          .callbacks = callbacks,
                                                          .stop_on_interrupt = true});
  return history.interrupted;
}

void run(const Options& options) {
  tesla::set_threads(options.threads);
  if (!options.save.empty()) tesla::io::AtomicFile(options.save);  // that it can be written is known before training

  const bool compiled = !options.load.empty() && !options.new_optimizer;  // by the file
  const double suits =
      options.optimizer == "sgd" ? (options.model == "sparse" ? 0.1 : 0.05) : (options.convolutional() ? 0.002 : 0.001);
  const double rate = options.rate > 0 ? options.rate : suits;
  tesla::Sequential model = options.load.empty() ? new_model(options) : tesla::Sequential::load(options.load);
  if (model.network().output_shape().elements() != 10)
    tesla::raise<tesla::DataError>("the model in ", options.load, " has not the ten outputs that ten digits need");

  tesla::data::Split<> digits = options.data.empty() ? tesla::data::digits() : tesla::data::mnist(options.data);
  std::printf("%s: %zu samples to train on, %zu to test on\n",
              options.data.empty() ? "drawn digits" : options.data.c_str(), digits.train.size(), digits.test.size());
  if (model.network().input_shape().elements() == 1024) digits = {padded(digits.train), padded(digits.test)};
  if (!compiled && options.convolutional())
    compile(model, options, falling(rate, options, digits.train.size()));
  else if (!compiled)
    compile(model, options, rate);
  model.summary(std::min(options.batch, digits.train.size()));
  if (options.model == "tt-cnn" && options.load.empty()) {
    tesla::Sequential cnn = new_convolutional(options, false);
    const std::size_t dense = count_weights(cnn), own = count_weights(model);
    std::printf("%zu weights in convolutions and dense layers, for the %zu of --model cnn (%.3g times fewer)\n", own,
                dense, static_cast<double>(dense) / static_cast<double>(own));
  }

  const std::size_t last = compiled || options.convolutional() ? 0 : options.epochs / 5;
  if (!fit(model, options, options.epochs - last, digits) && last > 0) {
    std::printf("the last %zu at a tenth of the rate:\n", last);
    compile(model, options, rate / 10);
    fit(model, options, last, digits);
  }

  if (options.model == "sparse") {
    std::puts("how many weights of the first layer read each pixel, 9 being the most:");
    draw_inputs(model.layer("sparse_dense").pattern());
  }
  const tesla::Scores scores = model.evaluate(digits.test);
  const std::vector<std::size_t> read = tesla::argmax(model.predict(digits.test.x()));
  print_confusion(digits.test.y(), read);
  if (isatty(STDOUT_FILENO) == 1) draw_misread(digits.test, read);
  if (!options.save.empty()) {
    model.save(options.save);
    std::printf("\nthe model is in %s\n", options.save.c_str());
  }
  std::printf("\ntest accuracy %.4f  test loss %.4f\n", scores["accuracy"], scores["loss"]);
}

}  // namespace

int main(int count, char** arguments) {
  return run_program({"mnist", usage, "a smaller --batch"}, count, arguments, parse, run);
}
