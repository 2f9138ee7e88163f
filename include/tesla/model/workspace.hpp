// The memory of one batch, laid out in one arena: inputs, the outputs of all layers (training) or of two in turn
// (prediction), gradients, and one scratch area.
#pragma once

#include <tesla/backend/product.hpp>
#include <tesla/model/wiring.hpp>
#include <tesla/tensor/panels.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
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
    std::size_t source;  // the layer whose output it reads, or the model's input; of a join the first
    bool lasting;        // its output is read later than by the next layer
    std::vector<std::size_t> kept;
    std::function<MemoryNeed(std::size_t batch, bool training)> memory;  // beside all that
  };
  std::vector<Layer> layers;
  std::size_t input = 0, target = 0, rows = 0;
  std::size_t spare = 0;  // of a gradient on its way to an output that several layers read
  bool gathered_rows = false;
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
        kept_memory_(needs_.layers.size()) {
    for (std::size_t i = 0; i < kept_.size(); ++i) kept_[i].resize(needs_.layers[i].kept.size());
  }

  const WorkspaceNeeds& needs() const { return needs_; }
  void set_target(std::size_t features) { needs_.target = features; }

  /// Places everything from `base` on and returns how many elements that takes; a null base only counts.
  std::size_t lay_out(T* base, std::size_t batch, std::size_t lanes, bool training) {
    batch_ = batch, training_ = training;
    if (base != nullptr) stamp_ = next_stamp();
    std::size_t used = 0;
    const auto take = [&](std::size_t n) {
      T* const at = base == nullptr ? nullptr : base + used;
      used += round_up(n, cache_line / sizeof(T));
      return at;
    };
    const auto panels = [&](std::size_t features) {
      Panels<T> p{nullptr, features, batch, lanes};
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

    std::size_t widest = 0;
    for (const auto& layer : needs_.layers)
      if (!layer.passthrough) widest = std::max(widest, layer.out);
    // Outputs, in prediction, and gradients live until the next layer is done; gradients of products longer.
    std::array<T*, 2> turns{};
    for (T*& turn : turns) turn = panels(widest).data;
    std::size_t turn = 0;
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const auto& layer = needs_.layers[i];
      const auto in_turn = [&] { return Panels<T>{turns[turn++ % 2], layer.out, batch, lanes}; };
      if (layer.passthrough) {
        const bool first = layer.source == model_input;
        outputs_[i] = first ? input_ : outputs_[layer.source];
        gradients_[i] = first ? Panels<T>() : gradients_[layer.source];
      } else if (training) {
        outputs_[i] = panels(layer.out);
        if (layer.gradient_in_output)
          gradients_[i] = outputs_[i];
        else
          gradients_[i] = layer.sums_products || layer.lasting ? panels(layer.out) : in_turn();
        for (std::size_t k = 0; k < layer.kept.size(); ++k) kept_[i][k] = panels(layer.kept[k]);
      } else {
        outputs_[i] = layer.lasting ? panels(layer.out) : in_turn();
      }
    }
    spare_ = training && needs_.spare != 0 ? panels(needs_.spare) : Panels<T>();
    std::size_t scratch = 0;
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const MemoryNeed need = needs_.layers[i].memory(batch, training);
      kept_memory_[i] = {take(need.kept), need.kept};
      scratch = std::max(scratch, need.scratch);
    }
    scratch_ = {take(scratch), scratch};
    lanes_ = lanes;
    return used;
  }

  std::size_t batch() const { return batch_; }
  /// Another one whenever memory was placed anew.
  std::uint64_t stamp() const { return stamp_; }
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
  Panels<const T> input_of(std::size_t layer) const { return source(needs_.layers[layer].source); }
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
  WorkspaceNeeds needs_;
  std::size_t batch_ = 0, lanes_ = 1;
  std::uint64_t stamp_ = 0;
  bool training_ = false;
  double input_limit_ = 0;
  Panels<T> input_, target_, spare_;
  T* weights_ = nullptr;
  backend::Matrix<T> gathered_rows_, scratch_rows_;
  std::vector<Panels<T>> outputs_, gradients_;
  std::vector<std::vector<Panels<T>>> kept_;
  std::vector<std::span<T>> kept_memory_;
  std::span<T> scratch_;
};

}  // namespace tesla::inline TESLA_TARGET::model
