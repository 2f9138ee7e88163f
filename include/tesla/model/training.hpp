// What compile() adds to a network: the loss, the optimizer, the metrics, and how far training has come.
#pragma once

#include <tesla/model/network.hpp>

#include <memory>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

template <class T, class B>
struct Training {
  std::unique_ptr<LossNode<T, B>> loss;
  std::unique_ptr<OptimizerNode<T, B>> optimizer;
  std::vector<AnyMetric<T>> metrics;
  std::size_t step = 0, epochs = 0;  // made so far, over all calls of fit
  std::size_t batch_size = 32;       // of the last fit
  std::vector<T*> slot_pointers;     // scratch of an update

  template <class O>
  void set_optimizer(O new_optimizer) {
    optimizer = std::make_unique<OptimizerNodeOf<O, T, B>>(std::move(new_optimizer));
    step = 0;
  }
  template <class L>
  void set_loss(L new_loss, std::vector<AnyMetric<T>> new_metrics) {
    loss = std::make_unique<LossNodeOf<L, T, B>>(std::move(new_loss));
    metrics = std::move(new_metrics);
    if (loss->facts().binary)
      for (auto& m : metrics) m = m.binary();
  }
};

}  // namespace tesla::inline TESLA_TARGET::model
