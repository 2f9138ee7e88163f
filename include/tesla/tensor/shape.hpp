// The extents of an array: up to eight whole numbers, held in place.
#pragma once

#include <tesla/core/memory.hpp>

#include <array>
#include <cstddef>
#include <initializer_list>
#include <span>
#include <string>

namespace tesla::inline TESLA_TARGET {

class Shape {
 public:
  static constexpr std::size_t max_rank = 8;

  Shape() = default;
  Shape(std::initializer_list<std::size_t> extents) : Shape(std::span(extents.begin(), extents.size())) {}
  explicit Shape(std::span<const std::size_t> extents) : rank_(extents.size()) {
    if (rank_ > max_rank) raise<ShapeError>("a shape has at most ", max_rank, " extents, not ", rank_);
    for (std::size_t i = 0; i < rank_; ++i) extents_[i] = extents[i];
    elements();  // an overflow shows here
  }

  std::size_t rank() const { return rank_; }
  std::size_t operator[](std::size_t i) const { return extents_[i]; }
  std::size_t back() const { return extents_[rank_ - 1]; }
  const std::size_t* begin() const { return extents_.data(); }
  const std::size_t* end() const { return extents_.data() + rank_; }

  /// The product of the extents; 1 for no extents.
  std::size_t elements() const {
    std::size_t product = 1;
    for (const std::size_t extent : *this) product = checked_product(product, extent);
    return product;
  }

  /// The shape without its first extent: of one sample, when the first counts samples.
  Shape tail() const { return rank_ == 0 ? Shape() : Shape(std::span(begin() + 1, rank_ - 1)); }

  /// The shape with one more extent in front.
  Shape with_front(std::size_t extent) const {
    std::array<std::size_t, max_rank + 1> extents{extent};
    for (std::size_t i = 0; i < rank_; ++i) extents[i + 1] = extents_[i];
    return Shape(std::span<const std::size_t>(extents.data(), rank_ + 1));
  }

  /// The shape with one extent replaced.
  Shape with(std::size_t axis, std::size_t extent) const {
    Shape result = *this;
    result.extents_[axis] = extent;
    return Shape(std::span(result.begin(), rank_));
  }
  Shape with_back(std::size_t extent) const { return with(rank_ - 1, extent); }

  /// "{4, 3}"
  [[gnu::cold]] std::string to_string() const {
    std::string result = "{";
    for (std::size_t i = 0; i < rank_; ++i) {
      if (i != 0) result += ", ";
      result += std::to_string(extents_[i]);
    }
    return result + "}";
  }

  /// "28 x 28 x 1", for people
  [[gnu::cold]] std::string extents() const {
    std::string result;
    for (const std::size_t extent : *this) result += (result.empty() ? "" : " x ") + std::to_string(extent);
    return result;
  }

  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (std::size_t i = 0; i < a.rank_; ++i)
      if (a.extents_[i] != b.extents_[i]) return false;
    return true;
  }

  template <class Stream>
  requires requires(Stream& out, const std::string& s) { out << s; }
  friend Stream& operator<<(Stream& out, const Shape& shape) {
    out << shape.to_string();
    return out;
  }

 private:
  std::array<std::size_t, max_rank> extents_{};
  std::size_t rank_ = 0;
};

}  // namespace tesla::inline TESLA_TARGET
