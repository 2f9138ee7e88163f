// One layer by itself: forward, both gradients, and a step of gradient descent with momentum.
#pragma once

#include <tesla/backend/cpu/cpu.hpp>
#include <tesla/core/random.hpp>
#include <tesla/model/network.hpp>
#include <tesla/optimizer/sgd.hpp>

#include <cstddef>

class OneLayer {
 public:
  enum Passes { forward, both, step };

  /// In front stands a layer that learns, so that the gradient by the input is wanted.
  struct Front {
    static constexpr std::string_view kind = "Front";
    tesla::Shape shape;
    tesla::Shape setup(const tesla::Shape&, tesla::layer::Setup& setup) const {
      setup.parameter("unused", {1}, tesla::init::zeros);
      return shape;
    }
    void forward(const auto&...) const {}
    void backward(const auto&...) const {}
  };

  template <class L>
  OneLayer(L layer, std::size_t in, std::size_t batch, Passes passes)
      : OneLayer(std::move(layer), tesla::Shape{in}, batch, passes) {}
  template <class L>
  OneLayer(L layer, const tesla::Shape& in, std::size_t batch, Passes passes)
      : net_(0), batch_(batch), passes_(passes) {
    net_.add(Front{in});
    net_.add(std::move(layer));
    net_.build({1});
    if (passes == step) net_.store().allocate_slots(1);
    auto& w = net_.workspace(batch_, passes_ != forward, 0);
    const tesla::random::Stream random(1);
    for (const auto& p : {w.output(0), w.output(1), passes_ != forward ? w.gradient(1) : w.output(1)})
      for (std::size_t i = 0; i < p.size(); ++i) p.data[i] = static_cast<float>(random.uniform(i) - 0.5);
  }

  void run() {
    auto& w = net_.workspace(batch_, passes_ != forward, 0);
    const auto& entry = net_.entries()[1];
    auto& store = net_.store();
    tesla::layer::Pass<float, tesla::backend::Cpu> pass{
        net_.backend(), passes_ != forward,
        entry.in,       net_.gradient_slots().subspan(entry.first_parameter, entry.parameters),
        w.kept(1),      w.kept_memory(1),
        w.scratch(),    {store.stamp(), w.stamp(1)}};
    entry.node->forward(pass, w.output(0), w.output(1));
    if (passes_ == forward) return;
    entry.node->backward(pass, w.output(0), w.output(1), w.gradient(1), w.gradient(0));
    for (std::size_t p = 0; p < pass.slots.size(); ++p) {
      const auto& slot = pass.slots[p];
      if (passes_ == both) {
        if (slot.dy) net_.backend().multiply(net_.gradient_product(w, slot));
        continue;
      }
      const auto rule = tesla::optim::SGD({.learning_rate = 1e-6, .momentum = 0.9}).at(1);
      const tesla::backend::Updated<float, 1> updated{
          slot.value, {store.slot(0) + store.places()[entry.first_parameter + p].offset}};
      if (slot.dy)
        net_.backend().update_product(rule, updated, net_.gradient_product(w, slot));
      else
        net_.backend().update(rule, updated, static_cast<const float*>(slot.gradient.data));
    }
    if (passes_ == step) store.touch();
  }

  tesla::model::Network<float, tesla::backend::Cpu>& network() { return net_; }

 private:
  tesla::model::Network<float, tesla::backend::Cpu> net_;
  std::size_t batch_;
  Passes passes_;
};
