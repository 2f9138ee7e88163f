// An owning array in row-major order: what goes into a model and what comes out.
#pragma once

#include <tesla/core/random.hpp>
#include <tesla/tensor/shape.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace tesla::inline TESLA_TARGET {

template <class T>
class Tensor {
 public:
  using value_type = T;

  Tensor() : shape_{0} {}
  /// All zeros.
  explicit Tensor(const Shape& shape) : shape_(shape), buffer_(shape.elements()) {}
  Tensor(const Shape& shape, const std::vector<T>& values) : Tensor(shape) {
    if (values.size() != size())
      raise<ShapeError>("a tensor of shape ", shape, " takes ", size(), " values, not ", values.size());
    std::copy(values.begin(), values.end(), begin());
  }

  const Shape& shape() const { return shape_; }
  std::size_t size() const { return buffer_.size(); }
  T* data() { return buffer_.data(); }
  const T* data() const { return buffer_.data(); }
  T* begin() { return buffer_.begin(); }
  T* end() { return buffer_.end(); }
  const T* begin() const { return buffer_.begin(); }
  const T* end() const { return buffer_.end(); }

  /// Element i of the row-major sequence.
  T& operator[](std::size_t i) { return buffer_[i]; }
  const T& operator[](std::size_t i) const { return buffer_[i]; }

  /// Element by one index an extent.
  template <std::integral... Index>
  T& operator()(Index... index) {
    return buffer_[offset(static_cast<std::size_t>(index)...)];
  }
  template <std::integral... Index>
  const T& operator()(Index... index) const {
    return buffer_[offset(static_cast<std::size_t>(index)...)];
  }

  /// The same values under another shape of as many elements.
  Tensor reshaped(const Shape& shape) const {
    if (shape.elements() != size()) raise<ShapeError>("a tensor of shape ", shape_, " cannot be reshaped to ", shape);
    Tensor result = *this;
    result.shape_ = shape;
    return result;
  }

 private:
  template <class... Index>
  std::size_t offset(Index... index) const {
    if (sizeof...(index) != shape_.rank())
      raise<ShapeError>("a tensor of shape ", shape_, " takes ", shape_.rank(), " indices, not ", sizeof...(index));
    std::size_t result = 0, axis = 0;
    ((result = result * shape_[axis++] + index), ...);
    return result;
  }

  Shape shape_;
  Buffer<T> buffer_;
};

/// The index of the largest value of each row: the predicted class of each sample. The first one of equals.
template <class T>
std::vector<std::size_t> argmax(const Tensor<T>& values) {
  if (values.shape().rank() == 0) return {0};
  const std::size_t rows = values.shape()[0], columns = values.shape().tail().elements();
  if (columns == 0) raise<ShapeError>("argmax: rows of shape ", values.shape(), " hold no values");
  std::vector<std::size_t> result(rows);
  for (std::size_t r = 0; r < rows; ++r) {
    const T* row = values.data() + r * columns;
    result[r] = static_cast<std::size_t>(std::max_element(row, row + columns) - row);
  }
  return result;
}

/// |a - b| / |a| in the Frobenius norm.
template <class T>
double relative_error(const Tensor<T>& a, const Tensor<T>& b) {
  if (!(a.shape() == b.shape())) raise<ShapeError>("relative_error: shapes ", a.shape(), " and ", b.shape(), " differ");
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    difference += (x - y) * (x - y), size += x * x;
  }
  return difference == 0 ? 0 : std::sqrt(difference / size);
}

namespace random {

struct NormalOptions {
  std::uint64_t seed = 0;
  double mean = 0, standard_deviation = 1;
};

struct UniformOptions {
  std::uint64_t seed = 0;
  double low = 0, high = 1;
};

/// Fills with normal numbers, the same for the same seed.
template <class T>
void fill_normal(Tensor<T>& tensor, const NormalOptions& options = {}) {
  const Stream stream(options.seed);
  for (std::size_t i = 0; i < tensor.size(); ++i)
    tensor[i] = static_cast<T>(options.mean + options.standard_deviation * stream.normal(i));
}

/// Fills with uniform numbers of [low, high), the same for the same seed.
template <class T>
void fill_uniform(Tensor<T>& tensor, const UniformOptions& options = {}) {
  const Stream stream(options.seed);
  for (std::size_t i = 0; i < tensor.size(); ++i)
    tensor[i] = static_cast<T>(options.low + (options.high - options.low) * stream.uniform(i));
}

}  // namespace random
}  // namespace tesla::inline TESLA_TARGET
