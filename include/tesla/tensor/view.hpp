// Borrowed arrays. An ArrayView is memory of somebody else's with a shape, strides and an element type known at run
// time: the one form in which arrays of any library enter TESLA, without a copy.
//
// A library joins by specialising Borrow for its types; tensor/eigen.hpp and tensor/xtensor.hpp do.
#pragma once

#include <tesla/tensor/tensor.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <span>
#include <type_traits>

namespace tesla::inline TESLA_TARGET {

enum class ElementType : std::uint8_t { float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64 };

template <class T>
concept Element = std::is_arithmetic_v<T> && !std::same_as<std::remove_cv_t<T>, bool> && sizeof(T) <= 8;

template <Element T>
constexpr ElementType element_type() {
  if constexpr (std::floating_point<T>) {
    return sizeof(T) == 4 ? ElementType::float32 : ElementType::float64;
  } else {
    constexpr auto base = std::is_signed_v<T> ? ElementType::int8 : ElementType::uint8;
    constexpr int step = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
    return static_cast<ElementType>(static_cast<int>(base) + step);
  }
}

/// How arrays of type X are borrowed: a specialisation has `static ArrayView view(const X&)`.
template <class X>
struct Borrow;

class ArrayView {
 public:
  using Strides = std::array<std::ptrdiff_t, Shape::max_rank>;

  ArrayView() : shape_{0} {}

  /// Row-major memory.
  template <Element T>
  ArrayView(const T* data, const Shape& shape) : ArrayView(data, shape, row_major(shape)) {}

  /// Memory with strides, counted in elements.
  template <Element T>
  ArrayView(const T* data, const Shape& shape, const Strides& strides)
      : data_(data), type_(element_type<T>()), shape_(shape), strides_(strides) {}

  template <Element T>
  ArrayView(const Tensor<T>& tensor) : ArrayView(tensor.data(), tensor.shape()) {}

  /// A vector, array or span: one extent.
  template <class Range>
  requires(
      std::contiguous_iterator<decltype(std::data(std::declval<const Range&>()))> &&
      !requires(const Range& r) { r.shape(); } && !requires(const Range& r) { r.rows(); }) ArrayView(const Range& range)
      : ArrayView(std::data(range), Shape{std::size(range)}) {}

  template <class X>
  requires requires(const X& x) {
    { Borrow<X>::view(x) } -> std::same_as<ArrayView>;
  }
  ArrayView(const X& x) : ArrayView(Borrow<X>::view(x)) {}

  const void* data() const { return data_; }
  ElementType type() const { return type_; }
  const Shape& shape() const { return shape_; }
  std::ptrdiff_t stride(std::size_t axis) const { return strides_[axis]; }
  std::size_t size() const { return shape_.elements(); }
  bool empty() const { return size() == 0; }

  /// The number of samples: the first extent.
  std::size_t samples() const { return shape_.rank() == 0 ? 0 : shape_[0]; }
  /// The number of values of one sample.
  std::size_t features() const { return shape_.tail().elements(); }

  /// Whether the values of one sample follow each other in memory.
  bool contiguous_samples() const {
    std::ptrdiff_t expected = 1;
    for (std::size_t axis = shape_.rank(); axis-- > 1;) {
      if (shape_[axis] != 1 && strides_[axis] != expected) return false;
      expected *= static_cast<std::ptrdiff_t>(shape_[axis]);
    }
    return true;
  }

  /// Where feature `feature` (row-major over the sample's shape) lies, in elements from the sample's first.
  std::ptrdiff_t offset_of_feature(std::size_t feature) const {
    std::ptrdiff_t offset = 0;
    for (std::size_t axis = shape_.rank(); axis-- > 1;) {
      offset += static_cast<std::ptrdiff_t>(feature % shape_[axis]) * strides_[axis];
      feature /= shape_[axis];
    }
    return offset;
  }

  /// The first `count` samples, or all of fewer.
  ArrayView first(std::size_t count) const {
    ArrayView result = *this;
    if (shape_.rank() != 0 && count < samples()) result.shape_ = shape_.tail().with_front(count);
    return result;
  }

  /// Calls f with a typed pointer to the first element.
  template <class F>
  decltype(auto) visit(F&& f) const {
    switch (type_) {
      case ElementType::float32:
        return f(static_cast<const float*>(data_));
      case ElementType::float64:
        return f(static_cast<const double*>(data_));
      case ElementType::int8:
        return f(static_cast<const std::int8_t*>(data_));
      case ElementType::int16:
        return f(static_cast<const std::int16_t*>(data_));
      case ElementType::int32:
        return f(static_cast<const std::int32_t*>(data_));
      case ElementType::int64:
        return f(static_cast<const std::int64_t*>(data_));
      case ElementType::uint8:
        return f(static_cast<const std::uint8_t*>(data_));
      case ElementType::uint16:
        return f(static_cast<const std::uint16_t*>(data_));
      case ElementType::uint32:
        return f(static_cast<const std::uint32_t*>(data_));
      default:
        return f(static_cast<const std::uint64_t*>(data_));
    }
  }

  /// Features first .. first + count - 1 of a sample, converted.
  template <std::floating_point T>
  void read(std::size_t sample, std::size_t first, std::size_t count, T* to) const;

  /// One value.
  [[gnu::noinline]] double value(std::size_t sample, std::size_t feature = 0) const {
    const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(sample) * stride(0) + offset_of_feature(feature);
    return visit([at](const auto* data) { return static_cast<double>(data[at]); });
  }

  static Strides row_major(const Shape& shape) {
    Strides strides{};
    std::ptrdiff_t stride = 1;
    for (std::size_t axis = shape.rank(); axis-- > 0;) {
      strides[axis] = stride;
      stride *= static_cast<std::ptrdiff_t>(shape[axis]);
    }
    return strides;
  }

 private:
  const void* data_ = nullptr;
  ElementType type_ = ElementType::float32;
  Shape shape_;
  Strides strides_{};
};

// One function for all element types and strides, out of line: it is a switch over ten loops.
template <std::floating_point T>
[[gnu::cold, gnu::noinline]] void ArrayView::read(std::size_t sample, std::size_t first, std::size_t count,
                                                  T* to) const {
  const bool contiguous = contiguous_samples();
  visit([&](const auto* data) __attribute__((cold)) {
    const auto* row = data + static_cast<std::ptrdiff_t>(sample) * stride(0);
    if constexpr (std::same_as<decltype(row), const T*>)
      if (contiguous) {
        std::memcpy(to, row + first, count * sizeof(T));
        return;
      }
    if (contiguous || shape_.rank() == 2) {
      const std::ptrdiff_t step = contiguous ? 1 : stride(1);
      for (std::size_t f = 0; f < count; ++f)
        to[f] = static_cast<T>(row[static_cast<std::ptrdiff_t>(first + f) * step]);
    } else {
      for (std::size_t f = 0; f < count; ++f) to[f] = static_cast<T>(row[offset_of_feature(first + f)]);
    }
  });
}

/// Any contiguous memory as a row-major array of the given shape.
template <class Range>
requires std::contiguous_iterator<decltype(std::data(std::declval<const Range&>()))> ArrayView
view(const Range& range, const Shape& shape) {
  if (shape.elements() != std::size(range))
    raise<ShapeError>("view: a shape of ", shape, " takes ", shape.elements(), " values, the memory holds ",
                      std::size(range));
  return ArrayView(std::data(range), shape);
}

}  // namespace tesla::inline TESLA_TARGET
