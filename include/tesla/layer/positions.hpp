// The place of a token in its sequence, learned.
#pragma once

#include <tesla/layer/layer.hpp>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct PositionsOptions {
  init::Initializer initializer = init::normal(0.02);
  std::string name = {};
};

/// Sequences {length, features} plus a vector for each place.
struct Positions : PositionsOptions {
  static constexpr std::string_view kind = "Positions";
  static constexpr bool step_by_step = true;

  Positions() = default;
  Positions(PositionsOptions options) : PositionsOptions(std::move(options)) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    if (in.rank() != 2 || in.elements() == 0)
      raise<ShapeError>("expects sequences of shape {length, features}, both 1 or more, its input has shape ", in);
    const Shape shape{setup.steps() != 0 ? setup.steps() : in[0], in[1]};
    if (initial && !(initial->at(0).shape() == shape))
      raise<ShapeError>("was made with vectors of shape ", initial->at(0).shape(), ", but needs ", shape);
    // One row: the vectors as they lie in a sample.
    setup.parameter("weight", shape, initializer, shape, initial ? &initial->at(0) : nullptr).rows = 1;
    return in;
  }
  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    const backend::Features<const T> all = pass.parameter(0), own{all.data + pass.place * x.features, x.features};
    pass.map([](auto a, auto p) { return a + p; }, y, x, own);
  }
  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T>, Panels<T>, Panels<T> dy, Panels<T> dx) const {
    pass.reduce(math::Identity(), pass.gradient(0), Panels<const T>(dy));
    if (dx) pass.map([](auto d) { return d; }, dx, Panels<const T>(dy));
  }
  void fields(auto&& field) { field("initializer", initializer); }

  std::shared_ptr<const Values> initial = {};  // the vectors, instead of an initialiser
};

}  // namespace layer

using layer::Positions;

}  // namespace tesla::inline TESLA_TARGET
