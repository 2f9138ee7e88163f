// The description of a contraction: samples times a tensor-train, as a sequence of matrix products.
//
// A train W[(o_1 .. o_d), (i_1 .. i_d)] = G_1[o_1, i_1] ... G_d[o_d, i_d] is absorbed into the samples from its ends,
// some cores merged into one beforehand. With the state as [outer][depth][columns], every step is one small matrix
// times many blocks, and what it writes is what the next step reads: nothing is ever permuted.
#pragma once

#include <tesla/backend/product.hpp>

#include <array>
#include <cstddef>

namespace tesla::inline TESLA_TARGET::backend {

inline constexpr std::size_t max_cores = 8;

/// One step. The merged core is C[left][out][in][right]; `before` is its rank towards cores that were absorbed before
/// it, `after` towards those still to come.
struct ContractionStep {
  std::size_t first = 0, last = 0;  // the cores first, ..., last - 1
  bool from_right = true;
  std::size_t left = 1, out = 1, in = 1, right = 1;
  std::size_t in_stride = 1, out_stride = 1;  // of its indices among the features of a sample

  // Y[outer][rows][columns] = W[rows][depth] X[outer][depth][columns], for one sample.
  std::size_t outer = 1, rows = 1, depth = 1, columns = 1;

  std::size_t before() const { return from_right ? right : left; }
  std::size_t after() const { return from_right ? left : right; }
  double multiply_adds() const {
    return static_cast<double>(outer * columns) * static_cast<double>(rows) * static_cast<double>(depth);
  }
};

/// How a contraction runs.
struct Contraction {
  std::size_t steps = 0;
  std::array<ContractionStep, max_cores> step;
  std::size_t features_in = 0, features_out = 0;

  /// Depth-first: the state is never there as a whole, but made in pieces that stay in the cache. All steps then come
  /// from the same end. The pieces are `strip` samples wide and take `chunk` values of the first step's output index.
  bool depth_first = false;
  std::size_t strip = 0, chunk = 0;
  std::array<bool, max_cores> stored{};  // the step's output is kept for the backward pass, not made again

  /// For one sample.
  double multiply_adds() const {
    double sum = 0;
    for (std::size_t s = 0; s < steps; ++s) sum += step[s].multiply_adds();
    return sum;
  }
};

/// What a planner has to know of a backend: how fast its products are.
struct Throughput {
  std::size_t width = 1;                           // values in a vector
  std::array<std::size_t, 5> rows{1, 1, 1, 1, 1};  // of the tallest tile, by its width in vectors
  std::size_t vectors = 1;                         // in the widest tile
  double multiply_adds = 1, loads = 2;             // vectors a cycle
  double tile = 4;                                 // cycles to begin and end a tile
  double call = 4;                                 // cycles to begin a product
  double bytes = 8;                                // a cycle, to or from beyond the near caches,
  double cache = 1 << 20;                          // and how many bytes those hold
  double gigahertz = 3;
};

/// An elementwise function over n values in place, whichever it is.
template <class T>
struct InPlace {
  void (*apply)(const void* function, T* values, std::size_t n) = nullptr;  // null: none
  const void* function = nullptr;
};

/// Where the entries of a merged core C[left][out][in][right] stand in a matrix.
struct CoreLayout {
  std::size_t left = 0, chunk = 1, chunk_stride = 0, out = 0, in = 0, right = 0;  // strides, but for chunk

  std::size_t at(std::size_t l, std::size_t o, std::size_t i, std::size_t r) const {
    return l * left + o / chunk * chunk_stride + o % chunk * out + i * in + r * right;
  }
};

}  // namespace tesla::inline TESLA_TARGET::backend
