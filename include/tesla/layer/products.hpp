// The three products of a matrix of weights with activations: forward, and both gradients.
#pragma once

#include <tesla/backend/product.hpp>
#include <tesla/layer/layer.hpp>
#include <tesla/tensor/panels.hpp>

#include <algorithm>

namespace tesla::inline TESLA_TARGET::layer {

namespace detail {

/// A product of weights with activations: one item a panel, the samples as columns.
template <class T>
backend::Product<T> over_panels(Panels<const T> in, Panels<T> out) {
  backend::Product<T> p;
  p.count = in.panels(), p.columns = in.lanes;
  // Of the last panel only the lanes with samples, in whole cache lines.
  p.last_columns = std::min(in.lanes, round_up(in.live(in.panels() - 1), cache_line / sizeof(T)));
  p.b = in.data, p.b_depth = static_cast<std::ptrdiff_t>(in.lanes);
  p.b_item = static_cast<std::ptrdiff_t>(in.stride());
  p.c = out.data, p.c_row = static_cast<std::ptrdiff_t>(out.lanes);
  p.c_item = static_cast<std::ptrdiff_t>(out.stride());
  return p;
}

}  // namespace detail

/// y = W x
template <class T>
backend::Product<T> output_product(const backend::Matrix<T>& w, Panels<const T> x, Panels<T> y) {
  backend::Product<T> p = detail::over_panels(x, y);
  p.rows = w.rows, p.depth = w.columns;
  p.a = w.data, p.a_row = static_cast<std::ptrdiff_t>(w.stride), p.a_depth = 1;
  return p;
}

/// dx = W^T dy
template <class T>
backend::Product<T> input_product(const backend::Matrix<T>& w, Panels<const T> dy, Panels<T> dx) {
  backend::Product<T> p = detail::over_panels(dy, dx);
  p.rows = w.columns, p.depth = w.rows;
  p.a = w.data, p.a_row = 1, p.a_depth = static_cast<std::ptrdiff_t>(w.stride);
  return p;
}

/// dW = the sum over the samples of dy x^T. `rows` holds x, one row a sample; a single sample needs none.
template <class T>
backend::Product<T> weight_product(const backend::Matrix<T>& dw, Panels<const T> dy, Panels<const T> x,
                                   const backend::Matrix<T>& rows) {
  backend::Product<T> p;
  p.rows = dw.rows;
  p.c = dw.data, p.c_row = static_cast<std::ptrdiff_t>(dw.stride);
  p.a = dy.data, p.a_row = static_cast<std::ptrdiff_t>(dy.lanes), p.a_depth = 1;
  if (dy.batch == 1) {
    p.columns = dw.columns, p.depth = 1;
    p.b = x.data;
    return p;
  }
  p.columns = round_up(dw.columns, cache_line / sizeof(T));
  p.segments = dy.panels(), p.depth = dy.lanes, p.last_depth = dy.live(dy.panels() - 1);
  p.a_segment = static_cast<std::ptrdiff_t>(dy.stride());
  p.b = rows.data, p.b_depth = static_cast<std::ptrdiff_t>(rows.stride);
  p.b_segment = static_cast<std::ptrdiff_t>(dy.lanes * rows.stride);
  return p;
}

/// Makes the gradients that a pass has as sums of products, for layers inside others, whose operands do not last.
/// `rows` has room for x, one row a sample.
template <class T, class B>
void make_sums(Pass<T, B>& pass, const backend::Matrix<T>& rows) {
  for (auto& slot : pass.slots) {
    if (!slot.dy) continue;
    const backend::Matrix<T> x{rows.data, slot.x.batch, slot.x.features, backend::row_stride<T>(slot.x.features)};
    if (slot.x.batch > 1) pass.backend.transpose(slot.x, x);
    pass.backend.multiply(weight_product(slot.gradient, slot.dy, slot.x, x));
    slot.dy = {};
  }
}

}  // namespace tesla::inline TESLA_TARGET::layer
