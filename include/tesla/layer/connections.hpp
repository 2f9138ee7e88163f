// Layers side by side: branches that read the same input, joined by their sum or beside each other.
//
// `Chain`, `Residual` and `Parallel` are only descriptions: a model that is given one takes its layers one by one, and
// puts a layer where branches meet, `Sum` or `Concatenate`.
#pragma once

#include <tesla/layer/structure.hpp>

#include <span>
#include <tuple>

namespace tesla::inline TESLA_TARGET {

namespace layer {

/// Where the gradient by one input of a join goes; add: onto what is there.
template <class T>
struct JoinedGradient {
  Panels<T> dx;  // null: it is not wanted
  bool add = false;
};

/// A layer where branches meet.
template <class L>
concept JoiningLayer = std::copyable<L> && requires(L layer, std::span<const Shape> in, Setup& setup) {
  { L::kind } -> std::convertible_to<std::string_view>;
  { layer.setup(in, setup) } -> std::same_as<Shape>;
};

/// y = the sum of its inputs, which have one shape.
struct Sum {
  static constexpr std::string_view kind = "Sum";
  static constexpr bool step_by_step = true;
  static constexpr bool joins = true;
  std::string name;

  [[gnu::cold]] Shape setup(std::span<const Shape> in, Setup&) const {
    for (const Shape& other : in)
      if (!(other == in[0]))
        raise<ShapeError>("adds branches of shapes ", in[0], " and ", other,
                          "; they have to be the same: give the branches as many units or filters, or put a layer that "
                          "changes the shape into the other branch, with Parallel");
    return in[0];
  }
  template <class T, class B>
  void forward(Pass<T, B>& pass, std::span<const Panels<const T>> xs, Panels<T> y) const {
    if (xs.size() == 1) return pass.map([](auto a) { return a; }, y, xs[0]);
    pass.map([](auto a, auto b) { return a + b; }, y, xs[0], xs[1]);
    for (std::size_t k = 2; k < xs.size(); ++k)
      pass.map([](auto a, auto b) { return a + b; }, y, Panels<const T>(y), xs[k]);
  }
  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> dy, std::span<const JoinedGradient<T>> to) const {
    for (const JoinedGradient<T>& g : to) {
      if (!g.dx) continue;
      if (g.add)
        pass.map([](auto a, auto b) { return a + b; }, g.dx, Panels<const T>(g.dx), dy);
      else
        pass.map([](auto d) { return d; }, g.dx, dy);
    }
  }
  void fields(auto&&) {}
};

/// The channels of its inputs, one after the other; all extents but the last are the same.
struct Concatenate {
  static constexpr std::string_view kind = "Concatenate";
  static constexpr bool step_by_step = true;
  static constexpr bool joins = true;
  std::string name;

  [[gnu::cold]] Shape setup(std::span<const Shape> in, Setup&) {
    const std::size_t pixels = in[0].elements() / std::max<std::size_t>(in[0].back(), 1);
    std::size_t channels = 0;
    for (const Shape& other : in) {
      if (other.rank() != in[0].rank() || !(other.with_back(1) == in[0].with_back(1)))
        raise<ShapeError>("puts branches of shapes ", in[0], " and ", other,
                          " beside each other; all extents but the last have to be the same");
      channels += other.back();
    }
    detail::check_places(checked_product(pixels, channels));
    places_.clear();
    std::size_t first = 0;
    for (const Shape& other : in) {
      std::vector<std::uint32_t> from(pixels * channels, detail::Places::none);
      for (std::size_t i = 0; i < other.elements(); ++i)
        from[i / other.back() * channels + first + i % other.back()] = static_cast<std::uint32_t>(i);
      places_.push_back(std::make_shared<const detail::Places>(from, other.elements()));
      first += other.back();
    }
    return in[0].with_back(channels);
  }
  template <class T, class B>
  void forward(Pass<T, B>& pass, std::span<const Panels<const T>> xs, Panels<T> y) const {
    for (std::size_t k = 0; k < xs.size(); ++k) pass.backend.pick(places_[k]->forward(), xs[k], y, k > 0);
  }
  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> dy, std::span<const JoinedGradient<T>> to) const {
    for (std::size_t k = 0; k < to.size(); ++k)
      if (to[k].dx) pass.backend.pick(places_[k]->backward(), dy, to[k].dx, to[k].add);
  }
  void fields(auto&&) {}

 private:
  std::vector<std::shared_ptr<const detail::Places>> places_;
};

enum class Join { sum, concatenate };

/// Layers in a row, as one branch.
template <class... L>
struct Chain {
  std::tuple<L...> layers;
  bool checkpoint_gradients = false;  // what they need for gradients is made again, not kept
  Chain(L... l) : layers(std::move(l)...) {}
  explicit Chain(std::tuple<L...> l) : layers(std::move(l)) {}
};

/// y = x + f(x), f being the layers given.
template <class... L>
struct Residual {
  std::tuple<L...> layers;
  Residual(L... l) : layers(std::move(l)...) {}
};
/// Of a Residual it is one around that, not a copy.
template <class... L>
Residual(Residual<L...>) -> Residual<Residual<L...>>;

/// Branches, each a layer or a Chain of them, that read the same input, and meet in a Join or in a layer that joins.
template <class J, class... L>
struct Parallel {
  J join;
  std::tuple<L...> branches;
  Parallel(J j, L... l) : join(std::move(j)), branches(std::move(l)...) {}
};

namespace detail {
template <class>
inline constexpr bool is_connection = false;
template <class... L>
inline constexpr bool is_connection<Chain<L...>> = true;
template <class... L>
inline constexpr bool is_connection<Residual<L...>> = true;
template <class J, class... L>
inline constexpr bool is_connection<Parallel<J, L...>> = true;
}  // namespace detail

/// What a model can be given as a part of it.
template <class L>
concept Part = Layer<L> || detail::is_connection<L>;

}  // namespace layer

using layer::Chain;
using layer::Parallel;
using layer::Residual;
inline constexpr layer::Join sum = layer::Join::sum;
inline constexpr layer::Join concatenate = layer::Join::concatenate;

}  // namespace tesla::inline TESLA_TARGET
