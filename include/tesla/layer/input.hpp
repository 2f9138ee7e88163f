// Layers that only say what a shape is.
#pragma once

#include <tesla/layer/layer.hpp>

namespace tesla::inline TESLA_TARGET {

namespace layer {

/// The shape of one sample, as a model's first layer: `Input({28, 28, 1})`.
struct Input {
  static constexpr std::string_view kind = "Input";
  static constexpr bool step_by_step = true;
  static constexpr bool passthrough = true;
  static constexpr bool says_input = true;
  Shape shape;
  std::string name;

  Input() = default;
  Input(const Shape& s) : shape(s) {}

  Shape setup(const Shape& in, Setup&) const {
    if (shape.rank() == 0 || shape.elements() == 0)
      raise<ShapeError>("Input: a shape of at least one feature is wanted, not ", shape);
    if (in.elements() != shape.elements())
      raise<ShapeError>("expects samples of shape ", shape, " (", shape.elements(), " features), the data has ", in,
                        " (", in.elements(), " features)");
    return shape;
  }
  void fields(auto&& field) { field("shape", shape); }
};

/// One extent from many: {28, 28, 1} becomes {784}.
struct Flatten {
  static constexpr std::string_view kind = "Flatten";
  static constexpr bool passthrough = true;
  std::string name;

  Shape setup(const Shape& in, Setup&) const { return {in.elements()}; }
  void fields(auto&&) {}
};

}  // namespace layer

using layer::Flatten;
using layer::Input;

}  // namespace tesla::inline TESLA_TARGET
