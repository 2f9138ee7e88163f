// Batch panels, the layout in which activations live inside a model: [batch / lanes][feature][lane].
//
// The samples are the lanes: the values of one feature for the samples of one panel are contiguous. The last panel may
// be filled in part; what stands in its unused lanes is finite and means nothing. Users never see panels.
#pragma once

#include <tesla/core/memory.hpp>

#include <cstddef>
#include <span>

namespace tesla::inline TESLA_TARGET {

template <class T>
struct Panels {
  T* data = nullptr;
  std::size_t features = 0;
  std::size_t batch = 0;
  std::size_t lanes = 1;  // samples a panel has room for

  std::size_t panels() const { return batch == 0 ? 0 : (batch + lanes - 1) / lanes; }
  /// Elements from one panel to the next.
  std::size_t stride() const { return features * lanes; }
  std::size_t size() const { return panels() * stride(); }
  T* panel(std::size_t p) const { return data + p * stride(); }
  /// Lanes of panel p that hold samples.
  std::size_t live(std::size_t p) const { return p + 1 == panels() ? batch - p * lanes : lanes; }
  T& at(std::size_t sample, std::size_t feature) const {
    return data[(sample / lanes) * stride() + feature * lanes + sample % lanes];
  }
  explicit operator bool() const { return data != nullptr; }
  operator Panels<const T>() const requires(!std::is_const_v<T>) { return {data, features, batch, lanes}; }
};

}  // namespace tesla::inline TESLA_TARGET
