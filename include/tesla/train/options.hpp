// What models are asked for: when they are made, by fit(), evaluate() and predict().
#pragma once

#include <tesla/data/dataset.hpp>
#include <tesla/train/callback.hpp>

#include <cstdint>
#include <vector>

namespace tesla::inline TESLA_TARGET {

struct SequentialOptions {
  std::uint64_t seed = 0;  // of the initial parameters
};

struct EvaluateOptions {
  std::size_t batch_size = 256;
};

struct PredictOptions {
  std::size_t batch_size = 256;
};

struct CompileOptions {
  // Bytes that training may take: parameters, gradients, the optimizer's state, activations and scratch. Where that is
  // too little for all activations, some are made again, in the way that costs the least time. 0: no limit.
  std::size_t memory = 0;
};

inline constexpr std::size_t batch_size_limit = std::size_t{1} << 40;  // beyond any memory, far below an overflow

template <class Model>
struct FitOptions {
  std::size_t epochs = 1;
  std::size_t batch_size = 32;
  bool shuffle = true;
  std::uint64_t seed = 0;         // of the shuffling
  data::Samples validation = {};  // a dataset, or {x, y}: evaluated after each epoch
  ArrayView sample_weight = {};   // one weight a sample, multiplied onto its loss
  std::vector<callback::AnyCallback<Model>> callbacks = {};
  int verbose = 1;                        // 0 silent, 1 a bar on a terminal and else a line an epoch, 2 a line an epoch
  bool stop_on_interrupt = false;         // Ctrl-C ends training after the batch, with the history so far
  std::vector<double> class_weight = {};  // one weight a class, multiplied onto the loss of its samples
  std::size_t accumulate = 1;             // batches whose gradients make one step of the optimizer
  double average = 0;                     // how much of the parameters' running averages a step keeps; 0: none are made

  [[gnu::cold]] void check() const {
    if (verbose < 0 || verbose > 2) raise<UsageError>("fit: .verbose is 0, 1 or 2, not ", verbose);
    if (accumulate == 0 || accumulate > batch_size_limit)
      raise<UsageError>("fit: .accumulate has to be 1 or more batches, not ", accumulate);
    if (!(average >= 0 && average < 1)) raise<UsageError>("fit: .average has to lie in [0, 1), not ", average);
  }
};

}  // namespace tesla::inline TESLA_TARGET
