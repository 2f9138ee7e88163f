// Contractions step by step, over the whole batch: a product of matrices each, so every backend can do them. This is
// also the way of the plan that builds the whole matrix, which is then a dense layer's product.
#pragma once

#include <tesla/backend/backend.hpp>
#include <tesla/backend/contraction.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

namespace tesla::inline TESLA_TARGET::network::contraction {

using backend::CoreLayout;

template <class T, class B>
class BreadthFirst {
 public:
  BreadthFirst(const backend::Contraction& plan, std::size_t batch, std::size_t lanes)
      : plan_(plan), batch_(batch), lanes_(lanes), panels_((batch + lanes - 1) / lanes) {}

  /// Rows and columns are those of the step.
  std::size_t matrix_size(std::size_t g) const { return plan_.step[g].rows * stride(g); }
  CoreLayout matrix_layout(std::size_t g) const {
    const backend::ContractionStep& s = plan_.step[g];
    const std::size_t row = stride(g);
    if (g + 1 == plan_.steps) return {s.in * s.right, s.out, 0, row, s.right, 1};
    if (s.from_right) return {s.out * row, s.out, 0, row, s.right, 1};
    return {s.in, s.out, 0, s.right * row, 1, row};
  }
  /// Whether what lies between the entries of a matrix is read as well.
  bool padded(std::size_t) const { return false; }
  std::size_t gradient_size(std::size_t g) const { return matrix_size(g); }
  CoreLayout gradient_layout(std::size_t g) const { return matrix_layout(g); }

  std::size_t kept_size() const {
    std::size_t size = 0;
    for (std::size_t g = 0; g + 1 < plan_.steps; ++g) size += state_size(g);
    return size;
  }
  std::size_t scratch_size(bool training) const {
    std::size_t widest = 0, rows = 0;
    for (std::size_t g = 0; g < plan_.steps; ++g) {
      if (g + 1 < plan_.steps) widest = std::max(widest, state_size(g));
      if (!whole_rows(g)) rows = std::max(rows, blocks(g) * columns(g) * stride(g));
    }
    return 2 * widest + (training ? rows : 0);
  }

  /// y = W x + bias; bias and kept may be null.
  void forward(B& backend, std::span<const T* const> matrices, Panels<const T> x, Panels<T> y, const T* bias,
               backend::InPlace<T>, T* kept, std::span<T> scratch) const {
    const T* from = x.data;
    for (std::size_t g = 0; g < plan_.steps; ++g) {
      const bool last = g + 1 == plan_.steps;
      T* const to = last ? y.data : state(g, kept, scratch);
      backend::Product<T> p = product(g, from);
      p.rows = plan_.step[g].rows, p.depth = plan_.step[g].depth;
      p.a = matrices[g], p.a_row = i(stride(g)), p.a_depth = 1;
      p.b_item = i(p.depth * p.columns);
      p.c = to, p.c_item = i(p.rows * p.columns);
      if (plan_.steps == 1) p.bias = bias;
      backend.multiply(p);
      from = to;
    }
    if (bias != nullptr && plan_.steps > 1)
      backend.map([](auto v, auto b) { return v + b; }, y, Panels<const T>(y),
                  backend::Features<const T>{bias, plan_.features_out});
  }

  void backward(B& backend, std::span<const T* const> matrices, std::span<T* const> gradients, Panels<const T> x,
                Panels<const T> dy, Panels<T> dx, T* kept, std::span<T> scratch) const {
    const std::size_t widest = (scratch.size() - rows_size()) / 2;
    const T* dz = dy.data;
    for (std::size_t g = plan_.steps; g-- > 0;) {
      const T* const from = g == 0 ? x.data : state(g - 1, kept, scratch);
      add_products(backend, g, dz, from, gradients[g], scratch.data() + 2 * widest);
      T* const to = g == 0 ? dx.data : scratch.data() + g % 2 * widest;
      if (to == nullptr) return;
      backend::Product<T> p = product(g, dz);
      p.rows = plan_.step[g].depth, p.depth = plan_.step[g].rows;
      p.a = matrices[g], p.a_row = 1, p.a_depth = i(stride(g));
      p.b_item = i(p.depth * p.columns);
      p.c = to, p.c_item = i(p.rows * p.columns);
      backend.multiply(p);
      dz = to;
    }
  }

 private:
  static std::ptrdiff_t i(std::size_t n) { return static_cast<std::ptrdiff_t>(n); }
  std::size_t stride(std::size_t g) const { return backend::row_stride<T>(plan_.step[g].depth); }
  std::size_t columns(std::size_t g) const { return plan_.step[g].columns * lanes_; }
  std::size_t blocks(std::size_t g) const { return panels_ * plan_.step[g].outer; }
  std::size_t state_size(std::size_t g) const {
    return round_up(blocks(g) * plan_.step[g].rows * columns(g), cache_line / sizeof(T));
  }
  /// A single sample that the step takes as it is.
  bool whole_rows(std::size_t g) const { return blocks(g) * columns(g) == 1; }
  std::size_t rows_size() const {
    std::size_t rows = 0;
    for (std::size_t g = 0; g < plan_.steps; ++g)
      if (!whole_rows(g)) rows = std::max(rows, blocks(g) * columns(g) * stride(g));
    return rows;
  }

  T* state(std::size_t g, T* kept, std::span<T> scratch) const {
    if (kept == nullptr) return scratch.data() + g % 2 * (scratch_size(false) / 2);
    for (std::size_t k = 0; k < g; ++k) kept += state_size(k);
    return kept;
  }

  backend::Product<T> product(std::size_t g, const T* b) const {
    backend::Product<T> p;
    p.count = blocks(g), p.columns = columns(g);
    if (plan_.step[g].outer * plan_.step[g].columns == 1)  // of the last panel only the lanes with samples
      p.last_columns = std::min(lanes_, round_up(batch_ - (panels_ - 1) * lanes_, cache_line / sizeof(T)));
    p.b = b, p.b_depth = p.c_row = i(p.columns);
    return p;
  }

  /// The gradient of a step's matrix: the sum over blocks, columns and samples of dz x^T.
  void add_products(B& backend, std::size_t g, const T* dz, const T* x, T* to, T* rows) const {
    const backend::ContractionStep& s = plan_.step[g];
    backend::Product<T> p;
    p.rows = s.rows, p.columns = round_up(s.depth, cache_line / sizeof(T));
    p.c = to, p.c_row = i(stride(g));
    p.a = dz, p.a_row = i(columns(g)), p.a_depth = 1, p.a_segment = i(s.rows * columns(g));
    if (whole_rows(g)) {
      p.depth = 1, p.b = x;
      return backend.multiply(p);
    }
    // Blocks become rows, one for each column.
    const std::size_t count = blocks(g) * columns(g);
    backend.transpose(Panels<const T>{x, s.depth, count, columns(g)},
                      backend::Matrix<T>{rows, count, s.depth, stride(g)});
    p.b = rows, p.b_depth = i(stride(g)), p.b_segment = i(columns(g) * stride(g));
    p.depth = columns(g);
    const std::size_t live = batch_ - (panels_ - 1) * lanes_;
    p.segments = (live == lanes_ ? panels_ : panels_ - 1) * s.outer;
    if (p.segments > 0) {
      backend.multiply(p);
      p.accumulate = true;
    }
    if (live == lanes_) return;
    // In the last panel lanes without a sample stand between the others.
    const std::size_t done = p.segments;
    for (std::size_t block = done; block < blocks(g); ++block, p.accumulate = true) {
      p.a = dz + i(block) * i(s.rows * columns(g)), p.a_segment = i(lanes_);
      p.b = rows + block * columns(g) * stride(g), p.b_segment = i(lanes_ * stride(g));
      p.segments = s.columns, p.depth = live;
      backend.multiply(p);
    }
  }

  backend::Contraction plan_;
  std::size_t batch_, lanes_, panels_;
};

}  // namespace tesla::inline TESLA_TARGET::network::contraction
