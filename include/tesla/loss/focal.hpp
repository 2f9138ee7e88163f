#pragma once

#include <tesla/core/math.hpp>
#include <tesla/loss/cross_entropy.hpp>

#include <array>
#include <cstddef>

namespace tesla::inline TESLA_TARGET::loss {

struct FocalOptions {
  double gamma = 2;     // how much less what is right already counts; 0: all alike
  double alpha = 0.25;  // the weight of the ones, 1 - alpha that of the zeros; not used with labels
  bool labels = false;  // whether targets are class labels, and not one 0 or 1 for each output
  bool from_logits = true;
};

namespace detail {

/// -(1 - p)^gamma log p of the right class, from logits less their largest and a target of one 1.
struct FocalOfClasses {
  static constexpr std::size_t sums = 2;
  static constexpr bool below_largest = true;
  double gamma;

  template <class D>
  std::array<D, 2> terms(D y, D t) const {
    return {exp(y), t * y};
  }
  template <class D>
  D cost(const std::array<D, 2>& sum) const {
    const D log_p = sum[1] - log(sum[0]);
    return -(exp(gamma * log_probability(-expm1(log_p))) * log_p);
  }
};

}  // namespace detail

/// Cross-entropy that looks away from what is right already: times (1 - p)^gamma, p being the probability of what was
/// wanted (Lin et al. 2017). Of outputs that are judged one by one, the mean over them; or of classes.
struct Focal : FocalOptions {
  static constexpr std::string_view kind = "Focal";

  Focal() = default;
  explicit Focal(const FocalOptions& options) : FocalOptions(options) { check(); }
  [[gnu::cold]] void check() const {
    if (!(gamma >= 0 && is_finite(gamma))) raise<UsageError>("Focal: .gamma has to be 0 or more, not ", gamma);
    if (!(alpha > 0 && alpha < 1)) raise<UsageError>("Focal: .alpha has to lie between 0 and 1, not ", alpha);
    if (labels && alpha != FocalOptions().alpha)
      raise<UsageError>("Focal: .alpha weighs ones against zeros and has no meaning with .labels; leave it out");
  }

  Targets targets() const { return {labels ? Targets::one_hot : Targets::values, labels}; }
  bool binary() const { return !labels; }
  [[gnu::cold]] void check_targets(const ArrayView& y, std::string_view what) const {
    for (std::size_t s = 0; s < y.samples(); ++s)
      for (std::size_t f = 0; f < y.features(); ++f)
        if (const double value = y.value(s, f); value != 0 && value != 1)
          raise<DataError>(what, ": sample ", s, ", output ", f, " is ", value,
                           "; targets of Focal are 0 or 1, or class labels with .labels = true");
  }
  template <class T, class B>
  double operator()(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights,
                    Panels<T> gradient) const {
    const double g = gamma, a = alpha;
    const Batch<T> b = by_step(y, target, weights, gradient);
    if (labels && from_logits)
      return backend.loss_of_sums(detail::FocalOfClasses{g}, b.y, b.target.values, b.weights, b.gradient);
    if (labels)
      return backend.elementwise_loss(
          [g](auto p, auto t) { return -(t * exp(g * detail::log_probability(1 - p)) * detail::log_probability(p)); },
          b.y, b.target.values, b.weights, b.gradient);
    if (from_logits)
      return mean_over_features(
          backend,
          [g, a](auto z, auto t) {
            const auto right = select(t > 0.5, z, -z);  // the logit of what was wanted
            return select(t > 0.5, decltype(t)(a), decltype(t)(1 - a)) * exp(-g * math::softplus(right)) *
                   math::softplus(-right);
          },
          y, target, weights, gradient);
    return mean_over_features(
        backend,
        [g, a](auto p, auto t) {
          const auto right = select(t > 0.5, p, 1 - p);
          return -(select(t > 0.5, decltype(t)(a), decltype(t)(1 - a)) * exp(g * detail::log_probability(1 - right)) *
                   detail::log_probability(right));
        },
        y, target, weights, gradient);
  }
  void fields(auto&& field) {
    field("gamma", gamma);
    field("alpha", alpha);
    field("labels", labels);
    field("from_logits", from_logits);
  }
};

}  // namespace tesla::inline TESLA_TARGET::loss
