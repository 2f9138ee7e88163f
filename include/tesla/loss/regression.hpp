// Losses between numbers: squared, absolute and Huber errors, means over samples and features.
#pragma once

#include <tesla/loss/loss.hpp>

namespace tesla::inline TESLA_TARGET::loss {

struct MeanSquaredError {
  static constexpr std::string_view kind = "MeanSquaredError";
  Targets targets() const { return Targets::values; }
  template <class T, class B>
  double operator()(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights,
                    Panels<T> gradient) const {
    return mean_over_features(
        backend, [](auto a, auto b) { return (a - b) * (a - b); }, y, target, weights, gradient);
  }
  void fields(auto&&) {}
};

/// The derivative at 0 is 0.
struct MeanAbsoluteError {
  static constexpr std::string_view kind = "MeanAbsoluteError";
  Targets targets() const { return Targets::values; }
  template <class T, class B>
  double operator()(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights,
                    Panels<T> gradient) const {
    return mean_over_features(
        backend, [](auto a, auto b) { return abs(a - b); }, y, target, weights, gradient);
  }
  void fields(auto&&) {}
};

struct HuberOptions {
  double delta = 1;
};

/// Half the square up to an error of delta, a straight line beyond (Huber 1964).
struct Huber : HuberOptions {
  static constexpr std::string_view kind = "Huber";

  Huber() = default;
  explicit Huber(const HuberOptions& options) : HuberOptions(options) { check(); }
  void check() const {
    if (!(delta > 0)) raise<UsageError>("Huber: .delta has to be above 0, not ", delta);
  }

  Targets targets() const { return Targets::values; }
  template <class T, class B>
  double operator()(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights,
                    Panels<T> gradient) const {
    return mean_over_features(
        backend,
        [this](auto a, auto b) {
          const auto error = abs(a - b);
          return select(error.value <= decltype(error.value)(static_cast<T>(delta)), error * error * 0.5,
                        (error - delta * 0.5) * delta);
        },
        y, target, weights, gradient);
  }
  void fields(auto&& field) { field("delta", delta); }
};

}  // namespace tesla::inline TESLA_TARGET::loss
