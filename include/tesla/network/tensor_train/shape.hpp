// The sizes of a tensor-train, without its values.
#pragma once

#include <tesla/tensor/shape.hpp>

#include <algorithm>
#include <array>
#include <cstddef>

namespace tesla::inline TESLA_TARGET::network {

struct TensorTrainShape {
  Shape in, out;  // modes of the columns and of the rows
  Shape ranks;    // between the cores: one fewer than there are cores

  std::size_t size() const { return in.rank(); }
  /// The rank before core k; 1 at both ends.
  std::size_t rank(std::size_t k) const { return k == 0 || k == size() ? 1 : ranks[k - 1]; }
  Shape core(std::size_t k) const { return {rank(k), out[k], in[k], rank(k + 1)}; }
  std::size_t count_parameters() const {
    std::size_t count = 0;
    for (std::size_t k = 0; k < size(); ++k) count += core(k).elements();
    return count;
  }

  friend bool operator==(const TensorTrainShape&, const TensorTrainShape&) = default;
};

/// Whether it is a product of two matrices and no more: modes {n, 1} to {1, m}.
inline bool is_product(const TensorTrainShape& s) { return s.size() == 2 && s.in[1] == 1 && s.out[0] == 1; }

/// The largest rank that a matrix of these modes can have between the cores before `k` and the others.
inline std::size_t largest_rank(const Shape& in, const Shape& out, std::size_t k) {
  const auto elements = [&](std::size_t begin, std::size_t end) {
    std::size_t product = 1;
    for (std::size_t i = begin; i < end; ++i) product = checked_product(product, checked_product(in[i], out[i]));
    return product;
  };
  return std::min(elements(0, k), elements(k, in.rank()));
}

/// The shape with ranks of at most `ranks`, no larger than they can be.
inline TensorTrainShape clipped_shape(const Shape& in, const Shape& out, const Shape& ranks) {
  if (in.rank() == 0 || in.rank() != out.rank() || ranks.rank() + 1 != in.rank())
    raise<ShapeError>("clipped_shape: modes ", in, " and ", out, " need to be as many as each other, and ", ranks,
                      " one rank fewer");
  for (const std::size_t r : ranks)
    if (r == 0) raise<UsageError>("clipped_shape: the ranks ", ranks, " have to be 1 or more each");
  std::array<std::size_t, Shape::max_rank> clipped{};
  for (std::size_t k = 0; k < ranks.rank(); ++k) clipped[k] = std::min(ranks[k], largest_rank(in, out, k + 1));
  // Nor than a neighbour allows: the ranks of a core differ by no more than the factor of its modes.
  for (std::size_t k = 0; k < ranks.rank(); ++k)
    clipped[k] = std::min(clipped[k], checked_product(k == 0 ? 1 : clipped[k - 1], in[k] * out[k]));
  for (std::size_t k = ranks.rank(); k-- > 0;)
    clipped[k] =
        std::min(clipped[k], checked_product(k + 1 == ranks.rank() ? 1 : clipped[k + 1], in[k + 1] * out[k + 1]));
  return {in, out, Shape(std::span<const std::size_t>(clipped.data(), ranks.rank()))};
}

}  // namespace tesla::inline TESLA_TARGET::network
