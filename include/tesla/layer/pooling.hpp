// The largest or the mean of what lies in a window of an image or a signal, or of all of it.
#pragma once

#include <tesla/layer/activation.hpp>
#include <tesla/layer/window.hpp>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct Pool2DOptions {
  Extents pool = {2, 2};
  Extents stride = {0, 0};  // 0: as large as the pool
  Padding padding = {};     // what it adds is neither the largest, nor counted in a mean
  std::string name = {};
};

struct Pool1DOptions {
  std::size_t pool = 2;
  std::size_t stride = 0;
  Padding padding = {};
  std::string name = {};
};

namespace detail {

/// Shared by all kinds; `geometry` is filled by their setup().
template <bool Largest>
struct Pooled {
  static constexpr bool is_max_pool = Largest;
  static constexpr bool takes_activation = Largest;  // the largest of some f(x) is f of the largest, if f grows

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    if constexpr (Largest)
      pass.backend.max_pool(geometry, x, y, pass.training ? pass.kept[0] : Panels<T>());
    else
      pass.backend.mean_pool(geometry, x, y);
    if (pass.moved_activation != nullptr)
      pass.moved_activation->visit([&](const auto& f) { pass.map(f, y, Panels<const T>(y)); });
  }
  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T>, Panels<T> y, Panels<T> dy, Panels<T> dx) const {
    const Panels<const T> up = dy;
    if (pass.moved_activation != nullptr)
      pass.moved_activation->visit([&](const auto& f) { pass.map(math::GradientOf(f), dy, up, Panels<const T>(y)); });
    if (!dx) return;
    if constexpr (Largest)
      pass.backend.max_pool_gradient(geometry, Panels<const T>(pass.kept[0]), up, dx);
    else
      pass.backend.mean_pool_gradient(geometry, up, dx);
  }

  backend::Convolution geometry;  // once set up

 protected:
  Shape ask(Setup& setup, const Shape& out) {
    geometry.channels = geometry.filters = geometry.groups = out.back();
    if (Largest) setup.keep(geometry.out_features());
    return out;
  }
};

/// A window of padding alone would have nothing to take.
[[gnu::cold]] inline backend::ConvolutionAxis pool_axis(std::size_t in, std::size_t pool, std::size_t stride,
                                                        const Padding& padding, std::size_t side, const char* what) {
  const backend::ConvolutionAxis a = window_axis(in, pool, stride == 0 ? pool : stride, 1, padding, side, what, "pool");
  const std::size_t last = (a.out - 1) * a.stride;
  if (a.before >= a.kernel || (last >= a.before && last - a.before >= in))
    raise<ShapeError>("has a window of ", what,
                      " in which there is only padding; .padding has to be smaller than .pool");
  return a;
}

template <bool Largest>
struct Pool2D : Pool2DOptions, Pooled<Largest> {
  Pool2D() = default;
  Pool2D(Pool2DOptions options) : Pool2DOptions(std::move(options)) {}
  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    const auto [rows, columns, channels] = image_extents(in, 3);
    this->geometry.rows = pool_axis(rows, pool[0], stride[0], padding, 0, "rows");
    this->geometry.columns = pool_axis(columns, pool[1], stride[1], padding, 2, "columns");
    return this->ask(setup, {this->geometry.rows.out, this->geometry.columns.out, channels});
  }
  void fields(auto&& field) {
    field("pool", pool);
    field("stride", stride);
    field("padding", padding);
  }
};

template <bool Largest>
struct Pool1D : Pool1DOptions, Pooled<Largest> {
  Pool1D() = default;
  Pool1D(Pool1DOptions options) : Pool1DOptions(std::move(options)) {}
  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    const auto [rows, columns, channels] = image_extents(in, 2);
    this->geometry.rows = {};
    this->geometry.columns = pool_axis(columns, pool, stride, signal_padding(padding), 0, "steps");
    return this->ask(setup, {this->geometry.columns.out, channels});
  }
  void fields(auto&& field) {
    field("pool", pool);
    field("stride", stride);
    field("padding", padding);
  }
};

template <bool Largest>
struct GlobalPool : Pooled<Largest> {
  std::string name;

  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    if ((in.rank() != 2 && in.rank() != 3) || in.elements() == 0)
      raise<ShapeError>(
          "expects images of {height, width, channels} or signals of {length, channels}, its input has "
          "shape ",
          in, in.rank() == 1 ? channels_hint(in, 3) : "");
    const std::size_t pixels = in.elements() / in.back();
    this->geometry.rows = {};
    this->geometry.columns = {pixels, 1, pixels, pixels};
    return this->ask(setup, {in.back()});
  }
  void fields(auto&&) {}
};

}  // namespace detail

struct MaxPool2D : detail::Pool2D<true> {
  static constexpr std::string_view kind = "MaxPool2D";
  using Pool2D::Pool2D;
};
struct AveragePool2D : detail::Pool2D<false> {
  static constexpr std::string_view kind = "AveragePool2D";
  using Pool2D::Pool2D;
};
struct MaxPool1D : detail::Pool1D<true> {
  static constexpr std::string_view kind = "MaxPool1D";
  using Pool1D::Pool1D;
};
struct AveragePool1D : detail::Pool1D<false> {
  static constexpr std::string_view kind = "AveragePool1D";
  using Pool1D::Pool1D;
};
/// The mean of each channel: {height, width, channels} becomes {channels}.
struct GlobalAveragePool : detail::GlobalPool<false> {
  static constexpr std::string_view kind = "GlobalAveragePool";
  GlobalAveragePool(const NameOptions& o = {}) { name = o.name; }
};
struct GlobalMaxPool : detail::GlobalPool<true> {
  static constexpr std::string_view kind = "GlobalMaxPool";
  GlobalMaxPool(const NameOptions& o = {}) { name = o.name; }
};

}  // namespace layer

using layer::AveragePool1D;
using layer::AveragePool2D;
using layer::GlobalAveragePool;
using layer::GlobalMaxPool;
using layer::MaxPool1D;
using layer::MaxPool2D;

}  // namespace tesla::inline TESLA_TARGET
