// Steps of sequences that do not count.
#pragma once

#include <tesla/layer/layer.hpp>

namespace tesla::inline TESLA_TARGET::layer::detail {

/// mask = 1 for the steps of x of which some input is not `value`, else 0. `differs` has room for x, `one` for a
/// number.
template <class T, class B>
void mark_steps(Pass<T, B>& pass, double value, Panels<const T> x, Panels<T> mask, T* differs, T* one) {
  pass.map(
      [value](auto v) {
        using V = decltype(v);
        using math::select;
        return V(select(v == math::number<V>(value), math::number<V>(0), math::number<V>(1)));
      },
      Panels<T>{differs, x.features, x.batch, x.lanes}, x);
  pass.backend.fill(one, 1, T(1));
  const std::size_t features = x.features / mask.features;
  const auto lanes = static_cast<std::ptrdiff_t>(x.lanes);
  backend::Product<T> p;
  p.rows = 1, p.depth = features, p.columns = x.lanes;
  p.a = one;
  p.b = differs, p.b_depth = lanes, p.b_item = static_cast<std::ptrdiff_t>(features) * lanes;
  p.c = mask.data, p.c_row = p.c_item = lanes;
  p.count = x.panels() * mask.features;
  pass.backend.multiply(p);
  pass.map(
      [](auto v) {
        using V = decltype(v);
        using math::min;
        return V(min(v, math::number<V>(1)));
      },
      mask, Panels<const T>(mask));
}

}  // namespace tesla::inline TESLA_TARGET::layer::detail
