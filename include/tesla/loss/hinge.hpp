#pragma once

#include <tesla/loss/loss.hpp>

#include <cstddef>

namespace tesla::inline TESLA_TARGET::loss {

/// max(0, 1 - t y) for targets t of -1 and 1; targets of 0 and 1 are taken for these. The mean over samples and
/// features.
struct Hinge {
  static constexpr std::string_view kind = "Hinge";
  static constexpr bool from_logits = true;  // 0 is between yes and no

  Targets targets() const { return Targets::values; }
  bool binary() const { return true; }
  [[gnu::cold]] void check_targets(const ArrayView& y, std::string_view what) const {
    bool zeros = false, negatives = false;
    for (std::size_t s = 0; s < y.samples(); ++s)
      for (std::size_t f = 0; f < y.features(); ++f) {
        const double value = y.value(s, f);
        zeros = zeros || value == 0, negatives = negatives || value == -1;
        if ((value != 0 && value != 1 && value != -1) || (zeros && negatives))
          raise<DataError>(
              what, ": sample ", s, ", output ", f, " is ", value, zeros && negatives ? ", and others are " : "",
              zeros && negatives ? (value == 0 ? "-1" : "0") : "", "; targets of Hinge are all -1 or 1, or all 0 or 1");
      }
  }
  template <class T, class B>
  double operator()(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights,
                    Panels<T> gradient) const {
    return mean_over_features(
        backend, [](auto a, auto t) { return max(1 - select(t > 0.5, a, -a), decltype(a)(0)); }, y, target, weights,
        gradient);
  }
  void fields(auto&&) {}
};

}  // namespace tesla::inline TESLA_TARGET::loss
