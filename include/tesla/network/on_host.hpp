// Memory of a backend that the host works on.
#pragma once

#include <tesla/core/target.hpp>

#include <cstddef>
#include <vector>

namespace tesla::inline TESLA_TARGET::network {

/// Memory of a backend where the host can work on it: itself, or a copy that is read at the beginning and, if it was
/// written to, sent back at the end.
template <class T, class B>
class OnHost {
 public:
  OnHost(B& backend, T* data, std::size_t size, bool reads) : data_(data) {
    if constexpr (!B::host_memory) {
      copy_.resize(size);
      if (reads) backend.read(copy_.data(), data, size);
    }
  }
  T* data() {
    if constexpr (B::host_memory) return data_;
    return copy_.data();
  }
  void send(B& backend) {
    if constexpr (!B::host_memory) backend.write(data_, copy_.data(), copy_.size());
  }

 private:
  T* data_;
  std::vector<T> copy_;
};

}  // namespace tesla::inline TESLA_TARGET::network
