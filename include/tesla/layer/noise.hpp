// Noise that makes training robust, and is not there in predictions. The numbers follow from the model's seed, the
// layer's place, the step, the sample's place in the batch and the feature, whatever the number of threads.
#pragma once

#include <tesla/layer/layer.hpp>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct DropoutOptions {
  double rate = 0.5;  // the share of features that become 0; the others grow, so that the mean stays
  std::string name = {};
};

struct GaussianNoiseOptions {
  double deviation = 0.1;
  std::string name = {};
};

/// Srivastava et al. (2014).
struct Dropout : DropoutOptions {
  static constexpr std::string_view kind = "Dropout";
  static constexpr bool step_by_step = true;

  Dropout() = default;
  Dropout(DropoutOptions options) : DropoutOptions(std::move(options)) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    if (!(rate >= 0 && rate < 1)) raise<UsageError>("needs a .rate in [0, 1), not ", rate);
    seed_ = setup.seed();
    setup.keep(in.elements());
    return in;
  }
  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    if (!pass.training) return pass.map([](auto a) { return a; }, y, x);
    const Panels<T> kept = pass.kept[0];
    const Panels<const T> random = kept;
    pass.backend.draw(backend::Draw{seed_, pass.number, backend::Draw::Kind::uniform}, kept);
    pass.map(
        [least = rate](auto u) {
          using math::select;
          using V = decltype(u);
          return V(select(u < math::number<V>(least), math::number<V>(0), math::number<V>(1 / (1 - least))));
        },
        kept, random);
    pass.map([](auto a, auto k) { return a * k; }, y, x, random);
  }
  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T>, Panels<T>, Panels<T> dy, Panels<T> dx) const {
    if (dx) pass.map([](auto d, auto k) { return d * k; }, dx, Panels<const T>(dy), Panels<const T>(pass.kept[0]));
  }
  void fields(auto&& field) { field("rate", rate); }

 private:
  std::uint64_t seed_ = 0;
};

/// Normal numbers, added.
struct GaussianNoise : GaussianNoiseOptions {
  static constexpr std::string_view kind = "GaussianNoise";
  static constexpr bool step_by_step = true;

  GaussianNoise() = default;
  GaussianNoise(GaussianNoiseOptions options) : GaussianNoiseOptions(std::move(options)) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    if (!(deviation >= 0 && deviation <= 1e6)) raise<UsageError>("needs a .deviation from 0 to 1e6, not ", deviation);
    seed_ = setup.seed();
    return in;
  }
  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    if (!pass.training) return pass.map([](auto a) { return a; }, y, x);
    pass.backend.draw(backend::Draw{seed_, pass.number, backend::Draw::Kind::normal}, y);
    pass.map([by = deviation](auto noise, auto a) { return a + math::number<decltype(a)>(by) * noise; }, y,
             Panels<const T>(y), x);
  }
  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T>, Panels<T>, Panels<T> dy, Panels<T> dx) const {
    if (dx) pass.map([](auto d) { return d; }, dx, Panels<const T>(dy));
  }
  void fields(auto&& field) { field("deviation", deviation); }

 private:
  std::uint64_t seed_ = 0;
};

}  // namespace layer

using layer::Dropout;
using layer::GaussianNoise;

}  // namespace tesla::inline TESLA_TARGET
