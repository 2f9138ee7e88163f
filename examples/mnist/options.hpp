// The command line of the MNIST example.
#pragma once

#include "../command_line.hpp"

#include <tesla/tensor/shape.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <string_view>

struct Options {
  std::string data, save, load;
  std::string model = "dense", optimizer;                           // none: what suits the model
  tesla::Shape in = {7, 4, 7, 4}, out = {5, 5, 5, 5}, ranks = {4};  // of the tensor-train
  std::size_t epochs = 10, batch = 64;
  std::size_t budget = 0;  // of the tensor-train's cores; 0: none
  double density = 0.05;   // of the sparse layers together
  tesla::Shape block = {1, 1};
  std::string method = "rigl";
  std::size_t every = 100;  // steps between its rewirings
  double dropout = 0.25;    // behind the dense layer of the convolutional networks
  double rate = 0;          // 0: what suits the optimizer
  double decay = -1;        // of the weights; below 0: what suits the model
  int threads = 0;
  std::uint64_t seed = 0;
  bool new_optimizer = false;  // --optimizer or --rate was given
  bool help = false;

  bool convolutional() const { return model == "cnn" || model == "tt-cnn"; }
};

inline constexpr const char* usage =
    R"(Trains a small network to read digits, and tests it.

  --data DIR        the folder with MNIST's four files, plain or .gz (default: digits that the library draws)
  --model NAME      dense: layers of 784-300-100-10 units; tt: a tensor-train layer, and 10 units; sparse: layers of
                    784-300-100-10 units with few weights; cnn: convolutions of 32 and 64 filters, and layers of 128-10
                    units; tt-cnn: the same with tensor-trains as the second convolution and the layer of 128 units
                    (default: dense)
  --in M,M,...      tt: modes of the image, whose product is 784, or 1024 to pad images to 32 x 32 (default: 7,4,7,4)
  --out M,M,...     tt: as many modes of the layer's outputs (default: 5,5,5,5)
  --ranks R,...     tt: one rank for all places between two cores, or one for each (default: 4); tt-cnn: one rank for
                    both layers (default: 16)
  --budget N        tt: lowers the ranks while training, until the cores have at most N numbers (default: 0, no budget);
                    try --ranks 12 --budget 1100
  --density X       sparse: the share of weights that live, of all layers together, shared out by Erdos and Renyi's rule
                    (default: 0.05)
  --block R,C       sparse: weights that live together, outputs by inputs; 4,1 is the fastest (default: 1,1)
  --method NAME     sparse: how it is rewired: rigl, set, prune (little by little, from dense) or fixed (default: rigl)
  --every N         sparse: steps between rewirings of rigl and prune (default: 100)
  --dropout X       cnn, tt-cnn: the share of the 128 units that a step leaves out (default: 0.25, 0.1 for tt-cnn)
  --epochs N        passes over the training samples, 0 to test only (default: 10, 5 for cnn and tt-cnn); the last fifth
                    of them at a tenth of the rate, with cnn and tt-cnn the rate rises in the first tenth and falls along
                    a cosine, to a hundredth
  --batch N         samples a step (default: 64)
  --optimizer NAME  sgd (with Nesterov momentum), adam or adamw (default: sgd, adam for cnn and tt-cnn)
  --rate X          the learning rate (default: 0.05 for sgd, 0.1 for sgd with --model sparse, 0.001 for adam and adamw,
                    0.002 for them with cnn and tt-cnn)
  --decay X         weight decay (default: 0.0005 for sgd with --model sparse, 0.01 for adamw, otherwise 0)
  --threads N       threads, 0 for as many as the machine has (default: 0)
  --seed N          of the first weights and of the shuffling (default: 0)
  --save FILE       writes the trained model as safetensors
  --load FILE       goes on from a model that --save wrote, with its optimizer and rate unless others are given
  --help            shows this

Ctrl-C ends the training after the current step and goes on to the test.
)";

namespace detail {

/// "7,4,7,4" as a shape.
inline tesla::Shape sizes(const std::string& option, std::string_view value) {
  std::array<std::size_t, tesla::Shape::max_rank> all{};
  std::size_t count = 0;
  for (std::size_t begin = 0; begin <= value.size(); ++count) {
    const std::size_t end = std::min(value.find(',', begin), value.size());
    if (count == all.size()) throw BadOption(option + " takes at most 8 numbers, not \"" + std::string(value) + "\"");
    all[count] = read_number<std::size_t>(option, value.substr(begin, end - begin), 1, 4096,
                                          "whole numbers from 1 to 4096 with commas between them");
    begin = end + 1;
  }
  return tesla::Shape(std::span<const std::size_t>(all.data(), count));
}

/// ", did you mean --epochs?" for --epoch.
inline std::string suggestion(std::string_view option) {
  for (const std::string_view known :
       {"--data",  "--model",  "--in",      "--out",     "--ranks",  "--budget", "--density",
        "--block", "--method", "--every",   "--dropout", "--epochs", "--batch",  "--optimizer",
        "--rate",  "--decay",  "--threads", "--seed",    "--save",   "--load",   "--help"}) {
    const std::size_t same = known.size() < option.size() ? known.size() : option.size();
    if (same >= 4 && known.substr(0, same) == option.substr(0, same))
      return ", did you mean " + std::string(known) + "?";
  }
  return {};
}

}  // namespace detail

/// Reads `--name value` and `--name=value`; throws BadOption.
inline Options parse(int count, char** arguments) {
  Options o;
  std::set<std::string> given;
  for (int i = 1; i < count; ++i) {
    std::string name = arguments[i], value;
    if (name == "--help" || name == "-h") {
      o.help = true;
      return o;
    }
    const auto take = [&, equals = name.find('=')]() -> const std::string& {
      if (equals != name.npos) {
        value = name.substr(equals + 1);
        name.resize(equals);
      } else if (++i < count) {
        value = arguments[i];
      } else {
        throw BadOption(name + " needs a value");
      }
      if (value.empty()) throw BadOption(name + " needs a value that is not empty");
      return value;
    };
    const std::string known = name.substr(0, name.find('='));
    given.insert(known);
    if (known == "--data") {
      o.data = take();
    } else if (known == "--save") {
      o.save = take();
    } else if (known == "--load") {
      o.load = take();
    } else if (known == "--model") {
      o.model = take();
      if (o.model != "dense" && o.model != "tt" && o.model != "sparse" && !o.convolutional())
        throw BadOption("--model takes dense, tt, sparse, cnn or tt-cnn, not \"" + o.model + "\"");
    } else if (known == "--density") {
      o.density = read_number(known, take(), 1e-4, 1.0, "a number from 0.0001 to 1");
    } else if (known == "--block") {
      o.block = detail::sizes(known, take());
    } else if (known == "--method") {
      o.method = take();
      if (o.method != "rigl" && o.method != "set" && o.method != "prune" && o.method != "fixed")
        throw BadOption("--method takes rigl, set, prune or fixed, not \"" + o.method + "\"");
    } else if (known == "--every") {
      o.every = read_number<std::size_t>(known, take(), 1, 1'000'000);
    } else if (known == "--in" || known == "--out" || known == "--ranks") {
      (known == "--in" ? o.in : known == "--out" ? o.out : o.ranks) = detail::sizes(known, take());
    } else if (known == "--budget") {
      o.budget = read_number<std::size_t>(known, take(), 0, 1'000'000'000);
    } else if (known == "--dropout") {
      o.dropout = read_number(known, take(), 0.0, 0.99, "a number from 0 to 0.99");
    } else if (known == "--epochs") {
      o.epochs = read_number<std::size_t>(known, take(), 0, 1'000'000);
    } else if (known == "--batch") {
      o.batch = read_number<std::size_t>(known, take(), 1, 1'000'000);
    } else if (known == "--threads") {
      o.threads = read_number(known, take(), 0, 1024);
    } else if (known == "--seed") {
      o.seed = read_number<std::uint64_t>(known, take(), 0, std::numeric_limits<std::uint64_t>::max(),
                                          "a whole number from 0 to 2^64 - 1");
    } else if (known == "--rate") {
      o.rate = read_number(known, take(), 1e-30, 1e6, "a number above 0 and up to 1000000");
      o.new_optimizer = true;
    } else if (known == "--decay") {
      o.decay = read_number(known, take(), 0.0, 1e6, "a number from 0 to 1000000");
      o.new_optimizer = true;
    } else if (known == "--optimizer") {
      o.optimizer = take();
      o.new_optimizer = true;
      if (o.optimizer != "sgd" && o.optimizer != "adam" && o.optimizer != "adamw")
        throw BadOption("--optimizer takes sgd, adam or adamw, not \"" + o.optimizer + "\"");
    } else {
      throw BadOption("there is no option \"" + known + "\"" + detail::suggestion(known));
    }
  }
  const auto begins = [&](bool right_model) { return right_model && o.load.empty(); };
  const std::string not_loaded = ", and not with --load: a saved model has its own";
  for (const char* only : {"--in", "--out"})
    if (given.count(only) != 0 && !begins(o.model == "tt"))
      throw BadOption(std::string(only) + " goes with --model tt" + not_loaded);
  if (given.count("--ranks") != 0 && !begins(o.model == "tt" || o.model == "tt-cnn"))
    throw BadOption("--ranks goes with --model tt or tt-cnn" + not_loaded);
  if (given.count("--dropout") != 0 && !begins(o.convolutional()))
    throw BadOption("--dropout goes with --model cnn or tt-cnn" + not_loaded);
  for (const char* only : {"--density", "--block", "--method", "--every"})
    if (given.count(only) != 0 && o.model != "sparse") throw BadOption(std::string(only) + " goes with --model sparse");
  if (o.model == "sparse" && !o.load.empty())
    throw BadOption("--model sparse begins anew; --load goes on with what a file holds, and rewires nothing");
  if (o.block.rank() != 2) throw BadOption("--block takes two numbers, outputs by inputs");
  if (o.budget != 0 && o.model != "tt" && o.load.empty()) throw BadOption("--budget goes with --model tt or --load");
  if (o.in.elements() != 784 && o.in.elements() != 1024)
    throw BadOption("--in takes modes whose product is 784 or 1024, not " + std::to_string(o.in.elements()));
  if (o.in.rank() != o.out.rank()) throw BadOption("--in and --out take as many modes as each other");
  if (o.model == "tt-cnn" && o.ranks.rank() != 1) throw BadOption("--ranks takes one number with --model tt-cnn");
  if (o.ranks.rank() != 1 && o.ranks.rank() + 1 != o.in.rank())
    throw BadOption("--ranks takes one number, or one for each of the " + std::to_string(o.in.rank() - 1) +
                    " places between two cores");
  if (o.model == "tt-cnn" && given.count("--ranks") == 0) o.ranks = {16};
  if (o.model == "tt-cnn" && given.count("--dropout") == 0) o.dropout = 0.1;
  if (o.convolutional() && given.count("--epochs") == 0) o.epochs = 5;
  if (o.optimizer.empty()) o.optimizer = o.convolutional() ? "adam" : "sgd";
  return o;
}
