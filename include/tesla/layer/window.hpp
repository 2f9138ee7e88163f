// Windows that move over an image or a signal: what convolutions and pooling have in common.
#pragma once

#include <tesla/backend/convolution.hpp>
#include <tesla/layer/layer.hpp>

#include <array>

namespace tesla::inline TESLA_TARGET {

namespace layer {

/// Zeros around an image: none; as many as give an output for every `stride` inputs; or so many at each side.
struct Padding {
  enum class Kind { valid, same, sides };
  Kind kind = Kind::valid;
  std::array<std::size_t, 4> sides = {};  // top, bottom, left, right

  constexpr Padding() = default;
  constexpr Padding(Kind k) : kind(k) {}
  /// At both sides of rows, and of columns.
  constexpr Padding(std::size_t rows, std::size_t columns) : Padding(rows, rows, columns, columns) {}
  constexpr Padding(std::size_t top, std::size_t bottom, std::size_t left, std::size_t right)
      : kind(Kind::sides), sides{top, bottom, left, right} {}
};

/// Rows and columns of a kernel, a stride, ...: `{3, 3}`.
using Extents = std::array<std::size_t, 2>;

namespace detail {

/// How much of a kernel, a stride, a padding, ... there may be.
inline constexpr std::size_t most_window = std::size_t{1} << 24;

[[gnu::cold]] inline void check_padding(const Padding& padding) {
  for (const std::size_t side : padding.sides)
    if (side > most_window) raise<UsageError>("has a .padding of more than ", most_window);
}

/// One axis of a window of `kernel` inputs, `dilation` apart, that moves by `stride`; or an error that says what does
/// not fit. Its padding is that of `side` and the next one; `what` names what there are several of along the axis,
/// `size` the option that `kernel` is.
[[gnu::cold]] inline backend::ConvolutionAxis window_axis(std::size_t in, std::size_t kernel, std::size_t stride,
                                                          std::size_t dilation, const Padding& padding,
                                                          std::size_t side, const char* what,
                                                          const char* size = "kernel") {
  const auto check = [&](const char* option, std::size_t value) {
    if (value == 0 || value > most_window)
      raise<UsageError>("needs a .", option, " from 1 to ", most_window, " for ", what, ", not ", value);
  };
  check(size, kernel), check("stride", stride), check("dilation", dilation);
  const std::size_t reach = (kernel - 1) * dilation + 1;
  std::size_t before = 0, after = 0;
  if (padding.kind == Padding::Kind::same) {
    const std::size_t spread = ((in + stride - 1) / stride - 1) * stride + reach, all = spread > in ? spread - in : 0;
    before = all / 2, after = all - before;
  } else if (padding.kind == Padding::Kind::sides) {
    check_padding(padding);
    before = padding.sides[side], after = padding.sides[side + 1];
  }
  if (in + before + after < reach)
    raise<ShapeError>("has windows of ", reach, ' ', what, ", its input only ", in,
                      before + after == 0 ? "" : text(" and ", before + after, " of padding"), "; a smaller .", size,
                      dilation > 1 ? " or .dilation" : "", ", or .padding = tesla::same, would fit");
  return {in, (in + before + after - reach) / stride + 1, kernel, stride, dilation, before};
}

/// Of a signal: {before, after}.
[[gnu::cold]] inline Padding signal_padding(const Padding& p) {
  if (p.sides[0] != p.sides[1] || p.sides[2] != p.sides[3])
    raise<UsageError>("has a .padding of four sides; a signal has two, {before, after}");
  Padding result = p;
  result.sides[1] = p.sides[2];
  return result;
}

/// What to do about an input that has no channels, for images (3) or signals (2).
[[gnu::cold]] inline std::string channels_hint(const Shape& in, std::size_t rank) {
  std::string extents;
  if (in.rank() + 1 == rank) {
    for (const std::size_t extent : in) extents += text(extent, ", ");
    return text("; begin the model with Input({", extents, "1}) to say that there is one channel");
  }
  if (in.rank() != 1) return "";
  // Rows of numbers that may be square pictures, grey or in colours.
  for (const std::size_t channels : {1u, 3u}) {
    std::size_t side = 1;
    while (side < 4096 && side * side * channels < in[0]) ++side;
    if (side > 1 && side * side * channels == in[0]) extents = text(side, ", ", side, ", ", channels);
  }
  return text("; begin the model with the shape of an image, as in Input({", extents.empty() ? "28, 28, 1" : extents,
              "}), or bring features into one with Reshape");
}

/// An image as {rows, columns, channels}, a signal of {length, channels} as one row.
[[gnu::cold]] inline std::array<std::size_t, 3> image_extents(const Shape& in, std::size_t rank) {
  if (in.rank() != rank || in.elements() == 0) {
    const char* const wanted = rank == 3 ? "{height, width, channels}" : "{length, channels}";
    raise<ShapeError>("expects samples of shape ", wanted, ", its input has shape ", in, channels_hint(in, rank));
  }
  return rank == 3 ? std::array{in[0], in[1], in[2]} : std::array{std::size_t{1}, in[0], in[1]};
}

}  // namespace detail
}  // namespace layer

inline constexpr layer::Padding valid{layer::Padding::Kind::valid};
inline constexpr layer::Padding same{layer::Padding::Kind::same};

}  // namespace tesla::inline TESLA_TARGET
