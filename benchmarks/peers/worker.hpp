// What the C++ workers share: the line protocol, the timing, the fixed data, and the optimizers for those libraries
// that bring none.
//
// A worker prints "ready NAME VERSION", then answers each line "CASE REPEATS" with "CASE t1 t2 ...", microseconds per
// step, or with "CASE unsupported". The first use of a case sets it up and warms it up. Cases:
//   step:784-300-100-10:32:sgd   one training step: forward, softmax cross-entropy, backward, optimizer (sgd or adam)
//   step:784-300-100-10:100:sgd:2   the same with 2 of 100 weights alive: by a mask or, where they are stored sparse,
//                                with the rewiring that such training needs
//   predict:784-300-100-10:1     forward only, up to the logits
//   cnn:plain:128                one training step on images of 28 x 28 x 1: a convolution of 32 filters, 3 x 3, ReLU,
//   max
//                                pool 2, one of 64, ReLU, max pool 2, dense 128, ReLU, dense 10; SGD with momentum
//   cnn:norm:128                 the same with padding, and batch norm and leaky ReLU 0.01 after the convolutions,
//   which
//                                have no bias then
//   product:256:256:256          (256 x 256) times (256 x 256)
//   tt:4x8x8x4:4x8x8x4:8:128:forward   y = W x with W in tensor-train form: input modes, output modes, all ranks, batch
//   tt:4x8x8x4:4x8x8x4:8:128:both      that, and from a given dy the gradients of x and of all cores
//   dense:1024:1024:128:both     the same for a dense W, of inputs and outputs
//   sparse:1024:1024:10:128:forward   y = W x where 10 of 100 weights live
//   lstm:64:64:128:64:forward    an LSTM over 64 steps of 64 inputs, with 128 units, batch 64: the outputs of all steps
//   lstm:64:64:128:64:both       that, and from a given dy the gradients of x and of all weights and biases
//   gru:64:64:128:64:both        the same for a GRU
//   attention:512:512:8:1:causal:forward   self-attention over 512 tokens of 512 features with 8 heads, batch 1; the
//                                products for queries, keys, values and output are a part of it, and without biases;
//                                causal: no token reads a later one, dense: each reads all
//   attention:512:512:8:1:causal:both   that, and from a given dy the gradients of x and of all weights
//   transformer:256:256:4:8:2:adam   one training step: 256 tokens of 256 features, blocks with 4 heads, batch 8, 2
//                                blocks: norms first, causal, 4 times as wide between their dense layers, GELU; then
//                                the mean of the tokens, dense 10
//   embedding:100000:64:32:64:adam   one training step: 32 of 100000 tokens a sample, batch 64, vectors of 64 numbers,
//                                their mean, dense 10; Adam that moves only the vectors that the batch has looked up
// Rows of x, y and dy are samples: of sequences one step after another.
// W[(o_1..o_d),(i_1..i_d)] = G_1[o_1,i_1] ... G_d[o_d,i_d] with cores {rank before, out_k, in_k, rank after}, no bias.
#pragma once

#include <xmmintrin.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace peers {

constexpr float sgd_rate = 0.01f, momentum = 0.9f, adam_rate = 0.001f;

struct Case {
  std::string kind;
  std::vector<int> sizes;               // of the layers; of a product: M, K, N
  std::vector<int> in, out;             // modes of a tensor-train
  int batch = 1, rank = 0, live = 100;  // the last: of 100 weights
  int steps = 1;                        // of a sequence
  int tokens = 0, units = 0;            // of an embedding
  int heads = 1, blocks = 0;            // of attention
  int samples = 1024;                   // about so many are there
  bool adam = false, backward = false, norm = false, causal = false;

  bool recurrent() const { return kind == "lstm" || kind == "gru"; }
  /// Whether this is about a network of dense layers.
  bool network() const { return (kind == "step" || kind == "predict") && live == 100; }
};

/// Does a number of steps and returns something that depends on all of them; empty where a case is unsupported.
using Run = std::function<double(int)>;

inline std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

inline Case parse(const std::string& name) {
  const auto parts = split(name, ':');
  Case c;
  c.kind = parts.at(0);
  const auto numbers = [](const std::string& text, char separator) {
    std::vector<int> result;
    for (const auto& size : split(text, separator)) result.push_back(std::stoi(size));
    return result;
  };
  if (c.kind == "product") {
    for (int i = 1; i <= 3; ++i) c.sizes.push_back(std::stoi(parts.at(i)));
  } else if (c.kind == "sparse") {
    for (int i = 1; i <= 2; ++i) c.sizes.push_back(std::stoi(parts.at(i)));
    c.live = std::stoi(parts.at(3)), c.batch = std::stoi(parts.at(4));
  } else if (c.recurrent()) {
    c.steps = std::stoi(parts.at(1)), c.batch = std::stoi(parts.at(4)), c.backward = parts.back() == "both";
    for (int i = 2; i <= 3; ++i) c.sizes.push_back(c.steps * std::stoi(parts.at(i)));
  } else if (c.kind == "attention" || c.kind == "transformer") {
    const int features = std::stoi(parts.at(2));
    c.steps = std::stoi(parts.at(1)), c.heads = std::stoi(parts.at(3)), c.batch = std::stoi(parts.at(4));
    c.sizes = {c.steps * features, c.kind == "attention" ? c.steps * features : 10};
    c.causal = c.kind == "transformer" || parts.at(5) == "causal", c.backward = parts.back() == "both";
    if (c.kind == "transformer") c.blocks = std::stoi(parts.at(5)), c.adam = parts.at(6) == "adam", c.samples = 64;
  } else if (c.kind == "embedding") {
    c.tokens = std::stoi(parts.at(1)), c.units = std::stoi(parts.at(2)), c.sizes = {std::stoi(parts.at(3)), 10};
    c.batch = std::stoi(parts.at(4)), c.adam = parts.at(5) == "adam";
  } else if (c.kind == "cnn") {
    c.sizes = {28 * 28, 10}, c.norm = parts.at(1) == "norm", c.batch = std::stoi(parts.at(2));
  } else if (c.kind == "tt" || c.kind == "dense") {
    c.in = numbers(parts.at(1), 'x'), c.out = numbers(parts.at(2), 'x');
    for (const auto* modes : {&c.in, &c.out}) {
      int size = 1;
      for (const int mode : *modes) size *= mode;
      c.sizes.push_back(size);
    }
    if (c.kind == "tt") c.rank = std::stoi(parts.at(3));
    c.batch = std::stoi(parts.at(parts.size() - 2));
    c.backward = parts.back() == "both";
  } else {
    c.sizes = numbers(parts.at(1), '-');
    c.batch = std::stoi(parts.at(2));
    if (c.kind == "step") c.adam = parts.at(3) == "adam";
    if (parts.size() > 4) c.live = std::stoi(parts.at(4));
  }
  return c;
}

inline std::vector<float> uniform(std::size_t count, float low, float high, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> draw(low, high);
  std::vector<float> values(count);
  for (auto& value : values) value = draw(engine);
  return values;
}

/// Random samples with random labels, cut into batches that the steps visit in turn.
struct Data {
  int batches;
  std::vector<float> inputs;  // one sample after another
  std::vector<int> labels;

  explicit Data(const Case& c) : batches(c.batch < c.samples ? c.samples / c.batch : 1) {
    const std::size_t samples = static_cast<std::size_t>(batches) * c.batch;
    inputs = uniform(samples * c.sizes.front(), -0.5f, 0.5f, 1);
    for (float& value : inputs)
      if (c.tokens > 0) value = std::min(std::floor((value + 0.5f) * c.tokens), c.tokens - 1.0f);
    for (float value : uniform(samples, 0, 1, 2))
      labels.push_back(static_cast<int>(value * c.sizes.back()) % c.sizes.back());
  }
};

/// Momentum or Adam over one block of parameters.
class Optimizer {
 public:
  Optimizer(bool adam, std::size_t count) : adam_(adam), first_(count), second_(adam ? count : 0) {}

  void operator()(float* parameters, const float* gradient, float* first, float* second, std::size_t count) const {
    if (!adam_) {
      for (std::size_t i = 0; i < count; ++i)
        parameters[i] -= sgd_rate * (first[i] = momentum * first[i] + gradient[i]);
    } else {
      const float scale = adam_rate / (1 - std::pow(0.9f, static_cast<float>(step_)));
      const float unbias = 1 / std::sqrt(1 - std::pow(0.999f, static_cast<float>(step_)));
#pragma GCC ivdep
      for (std::size_t i = 0; i < count; ++i) {
        first[i] += 0.1f * (gradient[i] - first[i]);
        second[i] += 0.001f * (gradient[i] * gradient[i] - second[i]);
        parameters[i] -= scale * first[i] / (std::sqrt(second[i]) * unbias + 1e-8f);
      }
    }
  }

  void operator()(float* parameters, const float* gradient) {
    ++step_;
    const long count = static_cast<long>(first_.size()), block = 16384;
#pragma omp parallel for if (count > 8 * block)
    for (long i = 0; i < count; i += block) {
      (*this)(parameters + i, gradient + i, &first_[i], adam_ ? &second_[i] : nullptr, std::min(block, count - i));
    }
  }

 private:
  bool adam_;
  int step_ = 0;
  std::vector<float> first_, second_;
};

inline double microseconds(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

/// Answers requests until the end of the input. `setup` makes the Run of a case.
inline int serve(const char* name, const std::string& version, const std::function<Run(const Case&)>& setup) {
  constexpr double sample = 22e3;     // microseconds that a sample lasts at least
  _mm_setcsr(_mm_getcsr() | 0x8040);  // subnormal numbers count as zero, also in threads that start from here
  struct Prepared {
    Run run;
    int steps = 1;  // per sample
  };
  std::map<std::string, Prepared> cases;
  double checksum = 0;
  std::cout << "ready " << name << ' ' << version << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream request(line);
    std::string text;
    int repeats = 0;
    if (!(request >> text >> repeats)) continue;
    const bool fresh = cases.find(text) == cases.end();
    Prepared& p = cases[text];
    if (fresh) p.run = setup(parse(text));
    std::cout << text;
    if (!p.run) {
      std::cout << " unsupported" << std::endl;
      continue;
    }
    if (fresh) {
      checksum += p.run(1);
      for (double spent = 0, last = 0; spent < 4 * sample || last < sample;) {
        last = microseconds([&] { checksum += p.run(p.steps); });
        spent += last;
        if (last < sample) p.steps = static_cast<int>(p.steps * std::min(10.0, 1.1 * sample / last) + 1);
      }
    } else {
      checksum += p.run(p.steps / 4 + 1);  // wakes the threads and warms the caches
    }
    for (int i = 0; i < repeats; ++i) {
      std::cout << ' ' << microseconds([&] { checksum += p.run(p.steps); }) / p.steps;
    }
    std::cout << std::endl;
  }
  std::cerr << name << " checksum " << checksum << '\n';
  return 0;
}

}  // namespace peers
