// Cross-entropy, binary and categorical, from logits (fused with the sigmoid or softmax, stable for any logits) or from
// probabilities.
#pragma once

#include <tesla/loss/loss.hpp>

namespace tesla::inline TESLA_TARGET::loss {

struct CrossEntropyOptions {
  bool from_logits = true;
};

namespace detail {

/// Probabilities below this are taken for it, so that a certain and wrong prediction costs much but not infinity.
inline constexpr double least_probability = 1e-12;

template <class V>
V log_probability(V p) {
  return log_above(p, static_cast<typename V::Scalar>(least_probability));
}

/// Categorical cross-entropy against rows of target probabilities or against labels.
template <class T, class B>
double categorical(B& backend, bool from_logits, Panels<const T> y, backend::Target<T> target, const T* weights,
                   Panels<T> gradient) {
  if (from_logits) return backend.cross_entropy(y, target, weights, gradient);
  return backend.elementwise_loss([](auto p, auto t) { return -(t * log_probability(p)); }, y, target.values, weights,
                                  gradient);
}

}  // namespace detail

/// Targets of 0 and 1 (or between), one for every output; the mean over samples and features.
struct BinaryCrossEntropy : CrossEntropyOptions {
  static constexpr std::string_view kind = "BinaryCrossEntropy";
  static constexpr bool probabilities = true;  // targets from 0 to 1

  BinaryCrossEntropy() = default;
  explicit BinaryCrossEntropy(const CrossEntropyOptions& options) : CrossEntropyOptions(options) {}

  Targets targets() const { return Targets::values; }
  bool binary() const { return true; }
  template <class T, class B>
  double operator()(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights,
                    Panels<T> gradient) const {
    if (from_logits)
      return mean_over_features(
          backend, [](auto z, auto t) { return math::softplus(z) - t * z; }, y, target, weights, gradient);
    return mean_over_features(
        backend,
        [](auto p, auto t) { return -(t * detail::log_probability(p) + (1 - t) * detail::log_probability(1 - p)); }, y,
        target, weights, gradient);
  }
  void fields(auto&& field) { field("from_logits", from_logits); }
};

/// Targets are rows of probabilities, one-hot for instance.
struct CategoricalCrossEntropy : CrossEntropyOptions {
  static constexpr std::string_view kind = "CategoricalCrossEntropy";
  static constexpr bool probabilities = true;  // targets from 0 to 1

  CategoricalCrossEntropy() = default;
  explicit CategoricalCrossEntropy(const CrossEntropyOptions& options) : CrossEntropyOptions(options) {}

  Targets targets() const { return Targets::values; }
  template <class T, class B>
  double operator()(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights,
                    Panels<T> gradient) const {
    return detail::categorical(backend, from_logits, y, target, weights, gradient);
  }
  void fields(auto&& field) { field("from_logits", from_logits); }
};

struct SparseCrossEntropyOptions {
  bool from_logits = true;
  OptionalLabel ignore_label = {};  // samples, or steps, of this label do not count: -1, or a class
};

/// Targets are class labels 0, 1, ..., one a sample; or one a step, where the model gives {steps, classes}: the mean is
/// over both then.
struct SparseCategoricalCrossEntropy : SparseCrossEntropyOptions {
  static constexpr std::string_view kind = "SparseCategoricalCrossEntropy";

  SparseCategoricalCrossEntropy() = default;
  explicit SparseCategoricalCrossEntropy(const SparseCrossEntropyOptions& options)
      : SparseCrossEntropyOptions(options) {}

  Targets targets() const { return {from_logits ? Targets::labels : Targets::one_hot, true, ignore_label}; }
  template <class T, class B>
  double operator()(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights,
                    Panels<T> gradient) const {
    const Batch<T> b = by_step(y, target, weights, gradient);
    return detail::categorical(backend, from_logits, b.y, b.target, b.weights, b.gradient);
  }
  void fields(auto&& field) {
    field("from_logits", from_logits);
    field("ignore_label", ignore_label);
  }
};

}  // namespace tesla::inline TESLA_TARGET::loss
