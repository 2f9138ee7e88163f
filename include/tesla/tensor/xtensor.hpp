// xtensor's containers, adaptors and strided views go in as they are; tensors come out as adaptors.
#pragma once

#include <tesla/tensor/view.hpp>

#include <vector>
#include <xtensor/xadapt.hpp>
#include <xtensor/xtensor_forward.hpp>

namespace tesla::inline TESLA_TARGET {

template <class X>
requires(std::derived_from<X, xt::xexpression<X>>&& requires(const X& x) {
  x.data();
  x.data_offset();
  x.strides();
}) struct Borrow<X> {
  static ArrayView view(const X& x) {
    const std::vector<std::size_t> extents(x.shape().begin(), x.shape().end());
    ArrayView::Strides strides{};
    const Shape shape{std::span<const std::size_t>(extents)};
    for (std::size_t i = 0; i < extents.size(); ++i) strides[i] = static_cast<std::ptrdiff_t>(x.strides()[i]);
    return ArrayView(x.data() + x.data_offset(), shape, strides);
  }
};

/// The tensor's own memory as an xtensor adaptor; it must outlive the adaptor.
template <class T>
auto as_xtensor(Tensor<T>& t) {
  return xt::adapt(t.data(), t.size(), xt::no_ownership(),
                   std::vector<std::size_t>(t.shape().begin(), t.shape().end()));
}
template <class T>
auto as_xtensor(const Tensor<T>& t) {
  return xt::adapt(t.data(), t.size(), xt::no_ownership(),
                   std::vector<std::size_t>(t.shape().begin(), t.shape().end()));
}
template <class T>
void as_xtensor(Tensor<T>&&) = delete;  // the adaptor would outlive its memory

}  // namespace tesla::inline TESLA_TARGET
