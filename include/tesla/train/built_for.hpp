// A model that does not know the shape of its input yet takes it from the data of a call.
#pragma once

#include <tesla/model/network.hpp>

namespace tesla::inline TESLA_TARGET::training {

/// Builds a network for data, and takes that back if the call then refuses the data.
template <class T, class B>
class BuiltFor {
 public:
  // With targets beside it, an array of one extent is samples of one value.
  [[gnu::cold]] BuiltFor(model::Network<T, B>& network, const ArrayView& x, bool with_targets = true) {
    if (network.built()) return;
    if (x.empty()) raise<DataError>("x: there are no values in an array of shape ", x.shape());
    Shape sample = network.wanted_input();
    if (sample.rank() == 0 && x.shape().rank() == 1) {
      if (!with_targets)
        raise<ShapeError>("x: the model does not know its input's shape yet, and an array of shape ", x.shape(),
                          " does not tell; call build(shape) first, or use view(x, {samples, features})");
      sample = {1};
    } else if (sample.rank() == 0) {
      sample = x.shape().tail();
    }
    network.build(sample);
    network_ = &network;
  }
  BuiltFor(const BuiltFor&) = delete;
  BuiltFor& operator=(const BuiltFor&) = delete;
  ~BuiltFor() {
    if (network_ != nullptr) network_->unbuild();
  }
  /// The data is fine.
  void keep() { network_ = nullptr; }

 private:
  model::Network<T, B>* network_ = nullptr;  // null: it was built before, or the data is fine
};

}  // namespace tesla::inline TESLA_TARGET::training
