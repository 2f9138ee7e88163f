// Layers that give features other places: another shape, another order, zeros around, pixels repeated; and one line of
// one's own.
#pragma once

#include <tesla/layer/activation.hpp>
#include <tesla/layer/window.hpp>

#include <numeric>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct ZeroPad2DOptions {
  Padding padding = {1, 1};  // {rows, columns} or {top, bottom, left, right}
  std::string name = {};
};

struct UpSample2DOptions {
  Extents size = {2, 2};  // how often each row and each column is repeated
  std::string name = {};
};

/// The same features in another shape, `Reshape({7, 7, 64})`; it costs nothing.
struct Reshape {
  static constexpr std::string_view kind = "Reshape";
  static constexpr bool passthrough = true;

  Shape shape;
  std::string name;

  Reshape() = default;
  Reshape(const Shape& s) : shape(s) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup&) const {
    if (shape.rank() == 0 || shape.elements() != in.elements())
      raise<ShapeError>("cannot bring ", in.elements(), " features of shape ", in, " into the shape ", shape, ", of ",
                        shape.elements());
    return shape;
  }
  void fields(auto&& field) { field("shape", shape); }
};

namespace detail {

/// Which input each output feature is, and, for gradients, which outputs each input has become.
class Places {
 public:
  static constexpr std::uint32_t none = ~std::uint32_t{0};

  Places() = default;
  /// `from` has a feature, or none, for each output.
  [[gnu::cold]] Places(const std::vector<std::uint32_t>& from, std::size_t inputs)
      : pointers_(from.size() + 1), back_pointers_(inputs + 1) {
    for (std::size_t f = 0; f < from.size(); ++f) {
      if (from[f] != none) from_.push_back(from[f]), ++back_pointers_[from[f] + 1];
      pointers_[f + 1] = static_cast<std::uint32_t>(from_.size());
    }
    std::partial_sum(back_pointers_.begin(), back_pointers_.end(), back_pointers_.begin());
    std::vector<std::uint32_t> next(back_pointers_.begin(), back_pointers_.end() - 1);
    back_from_.resize(from_.size());
    for (std::size_t f = 0; f < from.size(); ++f)
      if (from[f] != none) back_from_[next[from[f]]++] = static_cast<std::uint32_t>(f);
  }
  backend::Picks forward() const { return {pointers_, from_}; }
  backend::Picks backward() const { return {back_pointers_, back_from_}; }

 private:
  std::vector<std::uint32_t> pointers_, from_, back_pointers_, back_from_;
};

[[gnu::cold]] inline void check_places(std::size_t features) {
  if (features >= Places::none) raise<ShapeError>("moves at most 2^32 - 2 features, not ", features);
}

/// Layers whose outputs are inputs in other places.
struct Placing {
  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    pass.backend.pick(places_->forward(), x, y);
  }
  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T>, Panels<T>, Panels<T> dy, Panels<T> dx) const {
    if (dx) pass.backend.pick(places_->backward(), Panels<const T>(dy), dx);
  }

 protected:
  [[gnu::cold]] void place(const std::vector<std::uint32_t>& from, std::size_t inputs) {
    places_ = std::make_shared<const Places>(from, inputs);
  }

 private:
  std::shared_ptr<const Places> places_;
};

}  // namespace detail

/// Extents in another order: `Permute({2, 0, 1})` makes {channels, height, width} of {height, width, channels}.
struct Permute : detail::Placing {
  static constexpr std::string_view kind = "Permute";

  Shape order;  // which extent comes first, second, ...
  std::string name;

  Permute() = default;
  Permute(const Shape& o) : order(o) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup&) {
    detail::check_places(in.elements());
    std::array<std::size_t, Shape::max_rank> extents{}, strides{};
    std::vector<bool> seen(in.rank());
    bool right = order.rank() == in.rank() && in.rank() > 0;
    for (std::size_t i = 0; right && i < in.rank(); ++i) {
      right = order[i] < in.rank() && !seen[order[i]];
      if (right) seen[order[i]] = true, extents[i] = in[order[i]];
    }
    if (!right)
      raise<ShapeError>("needs an order that names each of 0 to ", in.rank() - 1, " once, for samples of shape ", in,
                        ", not ", order);
    for (std::size_t i = 0; i < in.rank(); ++i) {
      strides[i] = 1;
      for (std::size_t k = order[i] + 1; k < in.rank(); ++k) strides[i] *= in[k];
    }
    const Shape out(std::span<const std::size_t>(extents.data(), in.rank()));
    std::vector<std::uint32_t> from(out.elements());
    for (std::size_t f = 0; f < from.size(); ++f) {
      std::size_t rest = f, at = 0;
      for (std::size_t i = in.rank(); i-- > 0; rest /= out[i]) at += rest % out[i] * strides[i];
      from[f] = static_cast<std::uint32_t>(at);
    }
    place(from, in.elements());
    return out;
  }
  void fields(auto&& field) { field("order", order); }
};

/// Zeros around images of {height, width, channels}.
struct ZeroPad2D : ZeroPad2DOptions, detail::Placing {
  static constexpr std::string_view kind = "ZeroPad2D";

  ZeroPad2D() = default;
  ZeroPad2D(ZeroPad2DOptions options) : ZeroPad2DOptions(std::move(options)) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup&) {
    const auto [rows, columns, channels] = detail::image_extents(in, 3);
    if (padding.kind != Padding::Kind::sides)
      raise<UsageError>("needs a .padding of {rows, columns} or {top, bottom, left, right}");
    detail::check_padding(padding);
    detail::check_places(in.elements());
    const auto [top, bottom, left, right] = padding.sides;
    const Shape out{top + rows + bottom, left + columns + right, channels};
    detail::check_places(out.elements());
    std::vector<std::uint32_t> from(out.elements(), detail::Places::none);
    for (std::size_t i = 0; i < in.elements(); ++i) {
      const std::size_t row = i / channels / columns + top, column = i / channels % columns + left;
      from[(row * out[1] + column) * channels + i % channels] = static_cast<std::uint32_t>(i);
    }
    place(from, in.elements());
    return out;
  }
  void fields(auto&& field) { field("padding", padding); }
};

/// Every pixel several times: {height, width, channels} grows by `.size`.
struct UpSample2D : UpSample2DOptions, detail::Placing {
  static constexpr std::string_view kind = "UpSample2D";

  UpSample2D() = default;
  UpSample2D(UpSample2DOptions options) : UpSample2DOptions(std::move(options)) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup&) {
    const auto [rows, columns, channels] = detail::image_extents(in, 3);
    if (size[0] == 0 || size[1] == 0) raise<UsageError>("needs a .size of 1 or more for rows and for columns");
    const Shape out{checked_product(rows, size[0]), checked_product(columns, size[1]), channels};
    detail::check_places(out.elements());
    std::vector<std::uint32_t> from(out.elements());
    for (std::size_t f = 0; f < from.size(); ++f) {
      const std::size_t row = f / channels / out[1] / size[0], column = f / channels % out[1] / size[1];
      from[f] = static_cast<std::uint32_t>((row * columns + column) * channels + f % channels);
    }
    place(from, in.elements());
    return out;
  }
  void fields(auto&& field) { field("size", size); }
};

/// A function of one's own, elementwise, with its derivative from dual numbers:
/// `Lambda([](auto x) { return x * x; })`. It cannot be loaded from a file; restore() fills a model made in code.
template <class F>
Activation Lambda(F f, const NameOptions& o = {}) {
  Activation result(std::make_shared<const CustomFunction<F>>(std::move(f)));
  result.name = o.name;
  return result;
}

}  // namespace layer

using layer::Lambda;
using layer::Permute;
using layer::Reshape;
using layer::UpSample2D;
using layer::ZeroPad2D;

}  // namespace tesla::inline TESLA_TARGET
