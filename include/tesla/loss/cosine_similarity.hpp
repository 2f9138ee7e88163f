#pragma once

#include <tesla/loss/loss.hpp>

#include <array>
#include <cstddef>

namespace tesla::inline TESLA_TARGET::loss {

namespace detail {

/// One less the cosine of the angle between prediction and target. A prediction of nearly no length has no direction:
/// it costs 1, and no step of it helps.
struct CosineDistance {
  static constexpr std::size_t sums = 3;
  static constexpr bool below_largest = false;
  static constexpr double least_square = 1e-16;

  template <class D>
  std::array<D, 3> terms(D y, D t) const {
    return {y * t, y * y, t * t};
  }
  template <class D>
  D cost(const std::array<D, 3>& sum) const {
    return 1 - select(min(sum[1], sum[2]) > least_square, sum[0] / (sqrt(sum[1]) * sqrt(sum[2])), D(0));
  }
};

}  // namespace detail

/// 1 less the cosine of the angle between prediction and target: 0 for the same direction, 2 for the opposite one,
/// whatever their lengths.
struct CosineSimilarity {
  static constexpr std::string_view kind = "CosineSimilarity";

  Targets targets() const { return Targets::values; }
  [[gnu::cold]] void check_targets(const ArrayView& y, std::string_view what) const {
    for (std::size_t s = 0; s < y.samples(); ++s) {
      double sum = 0;
      for (std::size_t f = 0; f < y.features(); ++f) sum += y.value(s, f) * y.value(s, f);
      if (!(sum > detail::CosineDistance::least_square))
        raise<DataError>(what, ": the targets of sample ", s,
                         " are all 0, or nearly; CosineSimilarity compares directions, so leave this sample out");
    }
  }
  template <class T, class B>
  double operator()(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights,
                    Panels<T> gradient) const {
    return backend.loss_of_sums(detail::CosineDistance(), y, target.values, weights, gradient);
  }
  void fields(auto&&) {}
};

}  // namespace tesla::inline TESLA_TARGET::loss
