// The description of a convolution: two axes, channels in groups. Pooling and transposed convolutions use it as well.
//
// Images are [row][column][channel] with samples as lanes, filters {filters, kernel rows, kernel columns, channels of a
// group}, so what one output reads of one row of the image is contiguous, and so are the weights that meet it.
#pragma once

#include <tesla/core/memory.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>

namespace tesla::inline TESLA_TARGET::backend {

/// One axis: tap t of output o reads input o * stride + t * dilation - before, which is zero outside the image.
struct ConvolutionAxis {
  std::size_t in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, before = 0;
};

struct Convolution {
  ConvolutionAxis rows, columns;
  std::size_t channels = 1, filters = 1, groups = 1;

  std::size_t group_channels() const { return channels / groups; }
  std::size_t group_filters() const { return filters / groups; }
  std::size_t taps() const { return rows.kernel * columns.kernel; }
  /// Weights of one filter.
  std::size_t depth() const { return taps() * group_channels(); }
  std::size_t in_features() const { return rows.in * columns.in * channels; }
  std::size_t out_features() const { return rows.out * columns.out * filters; }
  /// Each channel has a filter of its own.
  bool depthwise() const { return groups == channels && groups == filters; }
};

/// A range of numbers, from `begin` to before `end`.
struct Range {
  std::size_t begin, end;
  std::size_t size() const { return end - begin; }
};

/// How the outputs of one axis read the inputs, for the products of a convolution and of its adjoint alike: output
/// `first + j * every`, j < count, reads at tap t the input j * step + offset + t * dilation, where there is one.
struct Reading {
  std::size_t count, first, every, extent, step, dilation, taps;
  std::ptrdiff_t offset;

  /// The taps of output j whose inputs lie inside.
  Range taps_at(std::size_t j) const {
    const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(j * step) + offset;
    return {std::min(taps, above(-at)), std::min(taps, above(static_cast<std::ptrdiff_t>(extent) - at))};
  }
  std::size_t input(std::size_t j, std::size_t tap) const {
    return static_cast<std::size_t>(static_cast<std::ptrdiff_t>(j * step + tap * dilation) + offset);
  }

 private:
  /// The first tap that is `distance` inputs on, or further.
  std::size_t above(std::ptrdiff_t distance) const {
    return distance <= 0 ? 0 : (static_cast<std::size_t>(distance) + dilation - 1) / dilation;
  }
};

/// The outputs of a convolution.
inline Reading outputs_of(const ConvolutionAxis& a) {
  return {a.out, 0, 1, a.in, a.stride, a.dilation, a.kernel, -static_cast<std::ptrdiff_t>(a.before)};
}

/// The outputs that tap `t` of an axis reaches with an input inside.
inline Range outputs_at(const ConvolutionAxis& a, std::size_t t) {
  const auto above = [&](std::size_t limit) {  // outputs before the first whose input is `limit` or more
    const std::size_t at = t * a.dilation;
    return limit + a.before <= at ? 0 : std::min(a.out, (limit + a.before - at + a.stride - 1) / a.stride);
  };
  return {above(0), std::max(above(0), above(a.in))};
}

/// The adjoint, for the inputs `phase`, `phase` + stride, ...: they read outputs, through some of the taps, in reverse.
struct AdjointReading {
  Reading reading;
  std::size_t first_tap, tap_step;  // of the filter: reading's tap t is first_tap + (taps - 1 - t) * tap_step

  std::size_t tap(std::size_t t) const { return first_tap + (reading.taps - 1 - t) * tap_step; }
};
inline AdjointReading inputs_of(const ConvolutionAxis& a, std::size_t phase) {
  AdjointReading r{};
  const std::size_t position = phase + a.before;
  const std::size_t common = std::gcd(a.stride, a.dilation);
  r.tap_step = a.stride / common;
  while (r.first_tap < a.kernel && (r.first_tap * a.dilation) % a.stride != position % a.stride) ++r.first_tap;
  const std::size_t taps = r.first_tap < a.kernel ? (a.kernel - r.first_tap + r.tap_step - 1) / r.tap_step : 0;
  const std::size_t spread = a.dilation / common;
  // The last tap's output for input `phase`; the first tap's is (taps - 1) * spread before it... in reverse.
  const std::ptrdiff_t nearest =
      taps == 0 ? 0
                : (static_cast<std::ptrdiff_t>(position) - static_cast<std::ptrdiff_t>(r.first_tap * a.dilation)) /
                      static_cast<std::ptrdiff_t>(a.stride);
  const std::size_t count = phase < a.in ? (a.in - phase + a.stride - 1) / a.stride : 0;
  r.reading = {count, phase,  a.stride, a.out,
               1,     spread, taps,     nearest - static_cast<std::ptrdiff_t>(taps == 0 ? 0 : (taps - 1) * spread)};
  return r;
}

}  // namespace tesla::inline TESLA_TARGET::backend
