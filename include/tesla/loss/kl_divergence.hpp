#pragma once

#include <tesla/loss/cross_entropy.hpp>

#include <cstddef>

namespace tesla::inline TESLA_TARGET::loss {

/// The sum of t log(t / p): how far the predicted distribution p is from the wanted one (Kullback and Leibler 1951).
/// The gradient is that of the categorical cross-entropy; the value is 0 where the two are the same.
struct KLDivergence : CrossEntropyOptions {
  static constexpr std::string_view kind = "KLDivergence";

  KLDivergence() = default;
  explicit KLDivergence(const CrossEntropyOptions& options) : CrossEntropyOptions(options) {}

  Targets targets() const { return Targets::values; }
  [[gnu::cold]] void check_targets(const ArrayView& y, std::string_view what) const {
    for (std::size_t s = 0; s < y.samples(); ++s) {
      double sum = 0;
      for (std::size_t f = 0; f < y.features(); ++f) {
        const double value = y.value(s, f);
        if (value < 0)
          raise<DataError>(what, ": sample ", s, ", output ", f, " is ", value,
                           "; targets of KLDivergence are distributions, of probabilities from 0 to 1");
        sum += value;
      }
      if (!(sum > 0.999 && sum < 1.001))
        raise<DataError>(what, ": the targets of sample ", s, " add up to ", sum,
                         "; targets of KLDivergence are distributions, which add up to 1");
    }
  }
  template <class T, class B>
  double operator()(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights,
                    Panels<T> gradient) const {
    if (!from_logits)
      return backend.elementwise_loss(
          [](auto p, auto t) { return t * (detail::log_probability(t) - detail::log_probability(p)); }, y,
          target.values, weights, gradient);
    const double entropy = backend.elementwise_loss([](auto t, auto) { return t * detail::log_probability(t); },
                                                    target.values, target.values, weights, Panels<T>());
    return backend.cross_entropy(y, target, weights, gradient) + entropy;
  }
  void fields(auto&& field) { field("from_logits", from_logits); }
};

}  // namespace tesla::inline TESLA_TARGET::loss
