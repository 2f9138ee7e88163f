// The memory of one batch, laid out in one arena: inputs, outputs, gradients, and one scratch area. What is not needed
// all the time shares its place with others.
#pragma once

#include <tesla/backend/product.hpp>
#include <tesla/model/checkpointing.hpp>
#include <tesla/model/wiring.hpp>
#include <tesla/tensor/panels.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

/// What the layers of a model need, in features.
struct WorkspaceNeeds {
  struct Layer {
    std::size_t out;
    bool passthrough;
    bool gradient_in_output;  // nobody needs its output any more when its gradient is made
    bool sums_products;
    std::vector<std::size_t> sources;  // the layers whose outputs it reads, or the model's input
    std::size_t last_reader;           // of its output; of the last layer its own number
    std::vector<std::size_t> kept;
    std::function<MemoryNeed(std::size_t batch, bool training)> memory;  // beside all that
  };
  std::vector<Layer> layers;
  std::size_t input = 0, target = 0, rows = 0;
  std::size_t spare = 0;  // of a gradient on its way to an output that several layers read
  bool gathered_rows = false;
};

/// Finds places for blocks of memory that come and go: the first gap that is large enough.
class Places {
 public:
  /// Where the block of this number is from now on.
  std::size_t take(std::size_t number, std::size_t size) {
    std::size_t at = 0, k = 0;
    for (; k < blocks_.size() && blocks_[k].first - at < size; ++k) at = blocks_[k].first + blocks_[k].size;
    blocks_.insert(blocks_.begin() + static_cast<std::ptrdiff_t>(k), {at, size, number});
    most_ = std::max(most_, at + size);
    return at;
  }
  void free(std::size_t number) {
    std::erase_if(blocks_, [&](const Block& b) { return b.number == number; });
  }
  void clear() { blocks_.clear(), most_ = 0; }
  /// What all of them took at most.
  std::size_t most() const { return most_; }

 private:
  struct Block {
    std::size_t first, size, number;
  };
  std::vector<Block> blocks_;
  std::size_t most_ = 0;
};

template <class T>
class Workspace {
 public:
  Workspace() = default;
  explicit Workspace(WorkspaceNeeds needs)
      : needs_(std::move(needs)),
        outputs_(needs_.layers.size()),
        gradients_(needs_.layers.size()),
        kept_(needs_.layers.size()),
        kept_memory_(needs_.layers.size()),
        stamps_(needs_.layers.size()),
        turns_(needs_.layers.size()) {
    for (std::size_t i = 0; i < kept_.size(); ++i) kept_[i].resize(needs_.layers[i].kept.size());
  }

  const WorkspaceNeeds& needs() const { return needs_; }
  void set_target(std::size_t features) { needs_.target = features; }
  /// By which outputs are kept in training and others made again, from the next layout on.
  void set_plan(std::shared_ptr<const CheckpointPlan> plan) { plan_ = std::move(plan); }
  const CheckpointPlan& plan() const { return *plan_; }
  bool planned() const { return training_ && plan_; }

  /// Places everything from `base` on and returns how many elements that takes; a null base only counts.
  std::size_t lay_out(T* base, std::size_t batch, std::size_t lanes, bool training) {
    size_up(batch, lanes, training);
    const std::uint64_t stamp = base != nullptr ? next_stamp() : 0;
    std::size_t used = 0;
    const auto take = [&](std::size_t n) {
      T* const at = base == nullptr ? nullptr : base + used;
      used += round_up(n, line);
      return at;
    };
    const auto panels = [&](std::size_t features) {
      Panels<T> p = panels_at(nullptr, features);
      p.data = take(p.size());
      return p;
    };
    const auto rows = [&](std::size_t features) {
      const std::size_t stride = backend::row_stride<T>(features);
      return backend::Matrix<T>{take(batch * stride), batch, features, stride};
    };

    input_ = panels(needs_.input);
    weights_ = take((batch + lanes - 1) / lanes * lanes);
    target_ = needs_.target != 0 ? panels(needs_.target) : Panels<T>();
    gathered_rows_ = training && batch > 1 && needs_.gathered_rows ? rows(needs_.input) : backend::Matrix<T>();
    scratch_rows_ = training && batch > 1 && needs_.rows != 0 ? rows(needs_.rows) : backend::Matrix<T>();
    spare_ = training && needs_.spare != 0 ? panels(needs_.spare) : Panels<T>();
    stage_memory_ = planned() ? take(plan_->memory) : nullptr;

    // One after the other, in the order in which the layers are run.
    places_.clear();
    for (std::size_t i = 0; i < outputs_.size() && !training; ++i) {
      if (needs_.layers[i].passthrough) continue;
      turns_[i] = places_.take(i, size_of(needs_.layers[i].out));
      for (std::size_t k = 0; k < i; ++k)
        if (needs_.layers[k].last_reader == i) places_.free(k);
    }
    for (std::size_t i = outputs_.size(); i-- > 0 && training;) {
      const auto& layer = needs_.layers[i];
      if (layer.passthrough) continue;
      if (i == layer.last_reader && !in_output(i)) turns_[i] = places_.take(i, size_of(layer.out));
      for (const std::size_t s : layer.sources)
        if (s != model_input && needs_.layers[s].last_reader == i && !in_output(s))
          turns_[s] = places_.take(s, size_of(needs_.layers[s].out));
      if (!lasts(i)) places_.free(i);
    }
    T* const turns = take(places_.most());

    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const auto& layer = needs_.layers[i];
      stamps_[i] = stamp;
      if (layer.passthrough) {
        see_through(i);
        continue;
      }
      const Panels<T> in_turn = panels_at(turns == nullptr ? nullptr : turns + turns_[i], layer.out);
      if (!training) {
        outputs_[i] = in_turn;
        continue;
      }
      gradients_[i] = in_turn;
      if (planned()) continue;
      outputs_[i] = panels(layer.out);
      for (std::size_t k = 0; k < layer.kept.size(); ++k) kept_[i][k] = panels(layer.kept[k]);
      if (in_output(i)) gradients_[i] = outputs_[i];
    }
    std::size_t scratch = 0;
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const MemoryNeed& need = memory_[i];
      if (!planned()) kept_memory_[i] = {take(need.kept), need.kept};
      scratch = std::max(scratch, need.scratch);
    }
    scratch_ = {take(scratch), scratch};
    return used;
  }

  /// What the plan says of where the numbers of a stage are, from now on.
  void place(const Move& move) {
    const Stage& stage = plan_->stages[move.stage];
    std::size_t inside = move.inside;
    const std::uint64_t stamp = next_stamp();
    each_block(stage, [&](std::size_t i, std::size_t k, std::size_t size, std::size_t features) {
      const bool output = k == output_number, last = output && i == stage.last;
      T* const at = stage_memory_ + (last ? move.out : inside);
      if (!last) inside += size;
      if (k == memory_number)
        kept_memory_[i] = {at, features};
      else
        (output ? outputs_[i] : kept_[i][k]) = panels_at(at, features);
    });
    for (std::size_t i = stage.first; i < outputs_.size() && (i <= stage.last || needs_.layers[i].passthrough); ++i) {
      stamps_[i] = stamp;
      if (in_output(i)) gradients_[i] = outputs_[i];
      if (needs_.layers[i].passthrough) see_through(i);
    }
  }

  /// Sets the size of a batch, for those who only ask what it takes.
  void size_up(std::size_t batch, std::size_t lanes, bool training) {
    batch_ = batch, lanes_ = lanes, training_ = training;
    memory_.clear();
    for (const auto& layer : needs_.layers) memory_.push_back(layer.memory(batch, training));
  }
  /// What the layers first to last take in training.
  Stage stage(std::size_t first, std::size_t last) const {
    Stage result{first, last};
    each_block(result, [&](std::size_t i, std::size_t k, std::size_t size, std::size_t) {
      (k == output_number && i == last ? result.out : result.inside) += size;
    });
    return result;
  }

  std::size_t batch() const { return batch_; }
  /// Of a layer's memory: another one whenever it was placed anew.
  std::uint64_t stamp(std::size_t layer) const { return stamps_[layer]; }
  bool training() const { return training_; }
  Panels<T> input() const { return input_; }
  Panels<T> target() const { return target_; }
  /// What no input exceeds, without its sign.
  double input_limit() const { return input_limit_; }
  void set_input_limit(double limit) { input_limit_ = limit; }
  /// One weight a lane: of the sample over the batch's size, 0 in unused lanes.
  T* weights() const { return weights_; }
  std::size_t weight_count() const { return (batch_ + lanes_ - 1) / lanes_ * lanes_; }
  backend::Matrix<T> gathered_rows() const { return gathered_rows_; }
  backend::Matrix<T> scratch_rows() const { return scratch_rows_; }
  Panels<T> output(std::size_t layer) const { return outputs_[layer]; }
  /// What a layer reads; of a join its first input.
  Panels<const T> input_of(std::size_t layer) const { return source(needs_.layers[layer].sources[0]); }
  /// The output of a layer, or the model's input.
  Panels<const T> source(std::size_t layer) const { return layer == model_input ? input_ : outputs_[layer]; }
  /// For a gradient of so many features that is yet to be added to others.
  Panels<T> spare(std::size_t features) const { return {spare_.data, features, batch_, lanes_}; }
  std::span<Panels<T>> kept(std::size_t layer) { return kept_[layer]; }
  std::span<T> kept_memory(std::size_t layer) const { return kept_memory_[layer]; }
  std::span<T> scratch() const { return scratch_; }
  /// Of the loss by the output of a layer; there is none before the first layer that is more than another shape.
  Panels<T> gradient(std::size_t layer) const { return gradients_[layer]; }

 private:
  static constexpr std::size_t line = cache_line / sizeof(T);
  static constexpr std::size_t output_number = ~std::size_t{0}, memory_number = output_number - 1;

  Panels<T> panels_at(T* data, std::size_t features) const { return {data, features, batch_, lanes_}; }
  std::size_t size_of(std::size_t features) const { return round_up(panels_at(nullptr, features).size(), line); }

  /// Whether the gradient by an output is needed until the parameters change.
  bool lasts(std::size_t i) const { return needs_.layers[i].sums_products && !planned(); }
  /// Whether it lies in the output's place: not where that is written again.
  bool in_output(std::size_t i) const {
    if (!needs_.layers[i].gradient_in_output) return false;
    return !planned() ||
           std::none_of(plan_->stages.begin(), plan_->stages.end(), [&](const Stage& s) { return s.last == i; });
  }
  /// The output of a layer that costs nothing is another one's.
  void see_through(std::size_t i) {
    const std::size_t source = needs_.layers[i].sources[0];
    outputs_[i] = source == model_input ? input_ : outputs_[source];
    gradients_[i] = source == model_input ? Panels<T>() : gradients_[source];
  }
  /// Calls f(layer, number, size, features) for all that the layers of a stage need from forward to backward: their
  /// outputs, what they keep, and their own memory.
  template <class F>
  void each_block(const Stage& stage, const F& f) const {
    for (std::size_t i = stage.first; i <= stage.last; ++i) {
      const auto& layer = needs_.layers[i];
      if (layer.passthrough) continue;
      f(i, output_number, size_of(layer.out), layer.out);
      for (std::size_t k = 0; k < layer.kept.size(); ++k) f(i, k, size_of(layer.kept[k]), layer.kept[k]);
      if (const std::size_t kept = memory_[i].kept; kept != 0) f(i, memory_number, round_up(kept, line), kept);
    }
  }

  WorkspaceNeeds needs_;
  std::shared_ptr<const CheckpointPlan> plan_;
  std::size_t batch_ = 0, lanes_ = 1;
  bool training_ = false;
  double input_limit_ = 0;
  Panels<T> input_, target_, spare_;
  T *weights_ = nullptr, *stage_memory_ = nullptr;
  backend::Matrix<T> gathered_rows_, scratch_rows_;
  std::vector<Panels<T>> outputs_, gradients_;
  std::vector<std::vector<Panels<T>>> kept_;
  std::vector<std::span<T>> kept_memory_;
  std::vector<MemoryNeed> memory_;
  std::vector<std::uint64_t> stamps_;
  std::vector<std::size_t> turns_;  // where outputs, or gradients, are that share a place with others
  Places places_;
  std::span<T> scratch_;
};

}  // namespace tesla::inline TESLA_TARGET::model
