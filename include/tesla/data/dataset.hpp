// Samples: what a model is trained and measured on.
#pragma once

#include <tesla/tensor/view.hpp>

#include <cstdint>
#include <utility>

namespace tesla::inline TESLA_TARGET::data {

/// An owning set of samples: x has one row a sample, y one label or one row of targets a sample.
template <class X = float, class Y = std::int32_t>
class Dataset {
 public:
  Dataset() = default;
  Dataset(Tensor<X> x, Tensor<Y> y) : x_(std::move(x)), y_(std::move(y)) {
    const std::size_t targets = y_.shape().rank() == 0 ? 0 : y_.shape()[0];
    if (size() != targets)
      raise<ShapeError>("a dataset needs a target for every sample: x ", x_.shape(), " has ", size(), " samples, y ",
                        y_.shape(), " has ", targets, " targets");
  }

  const Tensor<X>& x() const { return x_; }
  const Tensor<Y>& y() const { return y_; }
  /// The number of samples.
  std::size_t size() const { return x_.shape().rank() == 0 ? 0 : x_.shape()[0]; }

 private:
  Tensor<X> x_;
  Tensor<Y> y_;
};

/// What a source of data returns: `auto [train, test] = tesla::data::digits();`
template <class X = float, class Y = std::int32_t>
struct Split {
  Dataset<X, Y> train, test;
};

/// Samples borrowed from arrays of any kind, for the length of a call.
struct Samples {
  ArrayView x, y, weight;

  Samples() = default;
  Samples(ArrayView x_, ArrayView y_, ArrayView weight_ = {}) : x(x_), y(y_), weight(weight_) {}
  template <class X, class Y>
  Samples(const Dataset<X, Y>& dataset) : Samples(dataset.x(), dataset.y()) {}

  /// Whether there are arrays at all, if perhaps empty ones.
  bool given() const { return x.data() != nullptr || y.data() != nullptr || x.shape().rank() > 1; }
};

}  // namespace tesla::inline TESLA_TARGET::data
