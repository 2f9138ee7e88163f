// How a depth-first contraction is laid out: the sizes of its pieces, and where its matrices, their gradients and what
// is kept for the backward pass stand.
#pragma once

#include <tesla/backend/contraction.hpp>
#include <tesla/backend/cpu/tile.hpp>
#include <tesla/core/parallel.hpp>

#include <algorithm>
#include <array>

namespace tesla::inline TESLA_TARGET::backend::cpu {

template <class T>
class DepthFirstLayout {
 public:
  DepthFirstLayout(const Contraction& plan, std::size_t batch, std::size_t lanes)
      : plan_(plan), batch_(batch), lanes_(lanes), steps_(plan.steps), single_(lanes == 1) {
    strip_ = single_ ? 1 : lanes % std::max<std::size_t>(plan.strip, 1) == 0 ? plan.strip : lanes;
    chunk_ = single_ ? plan.step[0].out : plan.chunk;
    chunks_ = plan.step[0].out / chunk_;
    const std::size_t panels = (batch + lanes - 1) / lanes, last = batch - (panels - 1) * lanes;
    strips_per_panel_ = lanes / strip_;
    strips_ = (panels - 1) * strips_per_panel_ + (last + strip_ - 1) / strip_;
    whole_ = shape(strip_);
    std::size_t prefixes = 1;  // values of the modes after the one that joins the state
    for (std::size_t g = steps_ - 1; g-- > 0;) {
      piece_[g] = whole_.in[g + 1] * whole_.after[g] * whole_.stride[g];
      if (plan.stored[g]) stored_at_[g] = stored_, stored_ += prefixes * piece_[g];
      prefixes *= whole_.in[g + 1];
    }
    for (std::size_t g = 0; g < steps_; ++g) place_gradient(g);
    const std::size_t wanted = 8;  // units of work in the backward pass: enough for some threads, few to add up
    ranges_ = std::clamp<std::size_t>(wanted / strips_, 1, whole_.in[steps_ - 1]);
    groups_ = std::min(strips_ * ranges_, wanted);
  }

  /// The matrix of a step, rows (after, out), columns (in, before).
  std::size_t matrix_size(std::size_t g) const {
    const ContractionStep& s = plan_.step[g];
    return single_ && g == 0 ? s.after() * s.in * padded_out() : s.after() * s.out * matrix_stride(g);
  }
  CoreLayout matrix_layout(std::size_t g) const {
    const ContractionStep& s = plan_.step[g];
    const std::size_t stride = matrix_stride(g);
    if (single_ && g == 0) return layout(s, s.in * padded_out(), {s.out, 0, 1}, padded_out(), 0);
    if (g == 0) return layout(s, chunk_ * stride, {chunk_, s.after() * chunk_ * stride, stride}, 1, 0);
    return layout(s, s.out * stride, {s.out, 0, stride}, s.before(), 1);
  }
  /// Whether what lies between the entries of a matrix is read as well.
  bool padded(std::size_t g) const { return single_ && g == 0; }
  std::size_t gradient_size(std::size_t g) const { return gradient_[g].size; }
  CoreLayout gradient_layout(std::size_t g) const { return gradient_[g].layout; }

  /// Elements that live from the forward to the backward pass.
  std::size_t kept_size() const { return strips_ * chunks_ * stored_; }
  std::size_t scratch_size(bool training) const {
    const std::size_t forward = single_ ? whole_.in[steps_ - 1] : strips_ * chunks_,
                      most = training ? std::max(forward, groups_) : forward;
    return fixed_size(training) +
           std::min<std::size_t>(static_cast<std::size_t>(threads()), most) * slot_size(training);
  }

 protected:
  static constexpr std::size_t w = width<T>;
  static constexpr std::size_t transposed_columns = 512;  // at a time

  /// The sizes of all steps for one width of strip.
  struct Sizes {
    std::size_t strip;
    std::array<std::size_t, max_cores> in, out, before, after, in_stride, out_stride;
    std::array<std::size_t, max_cores> columns;  // of the state, for one value of the step's own output index
    std::array<std::size_t, max_cores> stride;   // of the rows of the state after the step
  };
  struct Gradient {
    bool transposed;  // [in][before] as rows, not [after][out]
    std::size_t stride, size;
    CoreLayout layout;
  };
  struct OutStrides {
    std::size_t chunk, chunk_stride, out;
  };

  static CoreLayout layout(const ContractionStep& s, std::size_t after, OutStrides out, std::size_t in,
                           std::size_t before) {
    CoreLayout l;
    (s.from_right ? l.left : l.right) = after;
    (s.from_right ? l.right : l.left) = before;
    l.chunk = out.chunk, l.chunk_stride = out.chunk_stride, l.out = out.out, l.in = in;
    return l;
  }

  std::size_t padded_out() const { return round_up(plan_.step[0].out, w); }
  std::size_t padded_in() const { return round_up(plan_.step[0].in, w); }
  std::size_t matrix_stride(std::size_t g) const { return row_stride<T>(plan_.step[g].in * plan_.step[g].before()); }

  Sizes shape(std::size_t strip) const {
    Sizes s;
    s.strip = strip;
    std::size_t columns = single_ ? padded_out() : chunk_ * strip;
    for (std::size_t g = 0; g < steps_; ++g) {
      const ContractionStep& step = plan_.step[g];
      s.in[g] = step.in, s.out[g] = g == 0 ? chunk_ : step.out;
      s.before[g] = step.before(), s.after[g] = step.after();
      s.in_stride[g] = step.in_stride, s.out_stride[g] = step.out_stride;
      if (g == 0) {
        s.columns[g] = single_ ? 1 : strip;
      } else {
        s.columns[g] = columns;
        columns *= step.out;
      }
      // Rows a power of two apart would share a few sets of the cache.
      s.stride[g] = columns <= max_vectors * w ? columns : row_stride<T>(columns);
    }
    return s;
  }

  void place_gradient(std::size_t g) {
    const ContractionStep& s = plan_.step[g];
    Gradient& result = gradient_[g];
    if (single_ && g == 0) {
      result = {false, padded_out(), s.after() * s.in * padded_out(), matrix_layout(0)};
      return;
    }
    const std::size_t out = g == 0 ? chunk_ : s.out, chunks = g == 0 ? chunks_ : 1;
    const std::size_t rows = s.after() * out, columns = s.in * s.before();
    result.transposed = transposing_cost(columns, rows) < transposing_cost(rows, columns);
    // Parts of the columns, each filled up to whole vectors, have room at the end.
    const std::size_t room = g + 1 == steps_ && !result.transposed ? w : 0;
    const std::size_t stride = round_up(result.transposed ? rows : columns, w) + room;
    const std::size_t block = (result.transposed ? columns : rows) * stride;
    result.stride = stride, result.size = chunks * block;
    if (result.transposed)
      result.layout = layout(s, out, {out, block, 1}, s.before() * stride, stride);
    else
      result.layout = layout(s, out * stride, {out, block, stride}, s.before(), 1);
  }

  /// About how long a gradient of `rows` x `columns` takes, the operand with `columns` rows being transposed: narrow
  /// tiles run at two thirds of the speed, and a square of values takes 70 cycles to turn.
  static double transposing_cost(std::size_t rows, std::size_t columns) {
    const std::size_t vectors = (columns + w - 1) / w;
    return static_cast<double>(vectors) * (static_cast<double>(rows * w) * (vectors == 1 ? 1.5 : 1) + 70);
  }

  std::size_t gradients_size() const {
    std::size_t size = 0;
    for (std::size_t g = 0; g < steps_; ++g) size += gradient_[g].size;
    return size;
  }
  std::size_t fixed_size(bool training) const {
    if (!training) return 0;
    return groups_ * gradients_size() + (single_ ? plan_.step[0].after() * plan_.step[0].out * padded_in() : 0);
  }
  std::size_t result_size() const { return whole_.out[steps_ - 1] * whole_.columns[steps_ - 1]; }
  std::size_t transposed_size() const {
    std::size_t rows = 0;
    for (std::size_t g = 0; g < steps_; ++g) rows = std::max(rows, gradient_[g].stride);
    return rows * transposed_columns;
  }
  std::size_t slot_size(bool training) const {
    std::size_t size = result_size();
    for (std::size_t g = 0; g + 1 < steps_; ++g) size += (training ? 2 : 1) * piece_[g];
    return round_up(size + (training ? transposed_size() + padded_in() * whole_.in[1] : 0), cache_line / sizeof(T));
  }

  Contraction plan_;
  std::size_t batch_, lanes_, steps_;
  bool single_;
  std::size_t strip_, chunk_, chunks_, strips_per_panel_, strips_, ranges_, groups_;
  Sizes whole_;
  std::array<std::size_t, max_cores> piece_{}, stored_at_{};
  std::size_t stored_ = 0;
  std::array<Gradient, max_cores> gradient_;
};

}  // namespace tesla::inline TESLA_TARGET::backend::cpu
