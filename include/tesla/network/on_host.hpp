// Memory of a backend that the host works on.
#pragma once

#include <tesla/backend/backend.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
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

/// Of the values that something was derived from, and of the memory where it is kept; zeros: of what will never be the
/// same again.
using Stamps = std::array<std::uint64_t, 2>;

/// Whether what stands behind this head carries these stamps; from now on it does.
template <class B, class T>
bool made_before(T* head, const Stamps& stamps) {
  if constexpr (!B::host_memory) return false;
  if (stamps != Stamps() && std::memcmp(head, stamps.data(), sizeof stamps) == 0) return true;
  std::memcpy(head, stamps.data(), sizeof stamps);
  return false;
}

/// Rows of a backend's memory, one a sample without gaps, to panels.
template <class T, class B>
void rows_to_panels(B& backend, T* rows, Panels<T> to) {
  OnHost<T, B> host(backend, rows, to.batch * to.features, true);
  const ArrayView all(static_cast<const T*>(host.data()), {to.batch, to.features});
  backend.gather({&all, nullptr, 0, to.batch}, to, {});
}
/// The same numbers in panels of another kind, where they are the same as rows. `rows` has room for all.
template <class T, class B>
void copy_rows(B& backend, Panels<const T> from, Panels<T> to, T* rows) {
  backend.transpose(from, backend::Matrix<T>{rows, from.batch, from.features, from.features});
  rows_to_panels(backend, rows, to);
}

}  // namespace tesla::inline TESLA_TARGET::network
