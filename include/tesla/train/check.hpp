// Data is checked before the first step, so that training never ends half-way because of it.
#pragma once

#include <tesla/core/math.hpp>
#include <tesla/core/parallel.hpp>
#include <tesla/data/dataset.hpp>
#include <tesla/loss/loss.hpp>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

namespace tesla::inline TESLA_TARGET::train {

namespace detail {

/// The first sample with a value that is not finite, or the number of samples.
template <std::floating_point S>
[[gnu::noinline]] std::size_t first_broken(const ArrayView& array) {
  const std::size_t samples = array.samples(), features = array.features();
  const bool direct = array.contiguous_samples();
  std::atomic<std::size_t> first{samples};
  parallel_for(samples, static_cast<double>(features), [&](std::size_t begin, std::size_t end) {
    for (std::size_t s = begin; s < end; ++s) {
      const S* row = static_cast<const S*>(array.data()) + static_cast<std::ptrdiff_t>(s) * array.stride(0);
      unsigned broken = 0;
      if (direct)
        for (std::size_t f = 0; f < features; ++f) broken |= is_finite(row[f]) ? 0U : 1U;
      else
        for (std::size_t f = 0; f < features; ++f) broken |= is_finite(row[array.offset_of_feature(f)]) ? 0U : 1U;
      if (broken == 0) continue;
      std::size_t known = first.load();
      while (s < known && !first.compare_exchange_weak(known, s)) {
      }
      return;
    }
  });
  return first.load();
}

}  // namespace detail

/// Every value has to be finite. `what` names the array in the message.
[[gnu::cold]] inline void check_finite(const ArrayView& array, std::string_view what) {
  if (array.empty()) return;
  std::size_t s = array.samples();
  if (array.type() == ElementType::float32) s = detail::first_broken<float>(array);
  if (array.type() == ElementType::float64) s = detail::first_broken<double>(array);
  if (s == array.samples()) return;
  for (std::size_t f = 0; f < array.features(); ++f) {
    const double value = array.value(s, f);
    if (!is_finite(value))
      raise<DataError>(what, ": sample ", s, ", feature ", f, " is ", value, "; values have to be finite");
  }
}

/// Class labels as integers: whole numbers from 0 to classes - 1.
[[gnu::cold]] inline std::vector<std::int32_t> checked_labels(const ArrayView& y, std::size_t classes) {
  if (y.features() != 1)
    raise<ShapeError>("y: a loss on class labels takes one label a sample, y has shape ", y.shape(),
                      "; for rows of targets use CategoricalCrossEntropy");
  std::vector<std::int32_t> labels(y.samples());
  for (std::size_t s = 0; s < labels.size(); ++s) {
    const double value = y.value(s);
    if (!(value >= 0 && value < static_cast<double>(classes)) || value != std::floor(value))
      raise<DataError>("y: the label of sample ", s, " is ", value, "; labels are whole numbers from 0 to ",
                       classes - 1, ", one for each output of the model");
    labels[s] = static_cast<std::int32_t>(value);
  }
  return labels;
}

/// x fits the model's input: as many features, in any shape.
[[gnu::cold]] inline void check_input(const ArrayView& x, std::size_t features, std::string_view what) {
  if (x.shape().rank() == 0 || x.samples() == 0)
    raise<DataError>(what, ": there are no samples in an array of shape ", x.shape());
  if (x.features() != features)
    raise<ShapeError>(what, ": the model expects ", features, " features a sample, an array of shape ", x.shape(),
                      " gives ", x.features());
}

}  // namespace tesla::inline TESLA_TARGET::train
