// Data is checked before the first step, so that training never ends half-way because of it.
#pragma once

#include <tesla/core/math.hpp>
#include <tesla/core/parallel.hpp>
#include <tesla/data/dataset.hpp>
#include <tesla/loss/loss.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

namespace tesla::inline TESLA_TARGET::training {

/// Which step an error happened in.
struct StepName {
  std::string_view who;
  std::size_t epoch = 0, batch = 0;
  std::string to_string() const {
    return epoch == 0 ? text(who, ": ") : text(who, ": epoch ", epoch, ", batch ", batch, ": ");
  }
};

namespace detail {

/// The largest magnitude in an array; NaN and infinity are above all finite values, as their bits are.
template <std::floating_point S>
[[gnu::noinline]] S largest_magnitude(const ArrayView& array) {
  using Bits = std::conditional_t<sizeof(S) == 4, std::uint32_t, std::uint64_t>;
  const std::size_t samples = array.samples(), features = array.features();
  const bool direct = array.contiguous_samples();
  std::atomic<Bits> result{0};
  parallel_for(samples, 0.1 * static_cast<double>(features), [&](std::size_t begin, std::size_t end) {
    constexpr Bits magnitude = ~Bits{0} >> 1;
    Bits largest = 0;
    for (std::size_t s = begin; s < end; ++s) {
      const S* row = static_cast<const S*>(array.data()) + static_cast<std::ptrdiff_t>(s) * array.stride(0);
      if (direct)
        for (std::size_t f = 0; f < features; ++f) largest = std::max(largest, std::bit_cast<Bits>(row[f]) & magnitude);
      else
        for (std::size_t f = 0; f < features; ++f)
          largest = std::max(largest, std::bit_cast<Bits>(row[array.offset_of_feature(f)]) & magnitude);
    }
    Bits known = result.load();
    while (largest > known && !result.compare_exchange_weak(known, largest)) {
    }
  });
  return std::bit_cast<S>(result.load());
}

}  // namespace detail

/// Every value has to be finite, also as a T; returns a magnitude that none exceeds. `what` names the array in the
/// message.
template <class T>
[[gnu::cold]] double check_finite(const ArrayView& array, std::string_view what) {
  constexpr auto limit = static_cast<double>(std::numeric_limits<T>::max());
  if (array.empty()) return 0;
  double largest = 0x1p64;  // of the whole numbers
  if (array.type() == ElementType::float32) largest = static_cast<double>(detail::largest_magnitude<float>(array));
  if (array.type() == ElementType::float64) largest = detail::largest_magnitude<double>(array);
  if (largest <= limit) return largest;
  for (std::size_t s = 0; s < array.samples(); ++s)
    for (std::size_t f = 0; f < array.features(); ++f)
      if (const double value = array.value(s, f); !(std::fabs(value) <= limit))
        raise<DataError>(what, ": sample ", s, ", feature ", f, " is ", value,
                         is_finite(value) ? ", beyond the range of float" : "", "; values have to be finite");
  return largest;
}

/// Targets of a cross-entropy: from 0 to 1.
[[gnu::cold]] inline void check_probabilities(const ArrayView& y, std::string_view what) {
  for (std::size_t s = 0; s < y.samples(); ++s)
    for (std::size_t f = 0; f < y.features(); ++f)
      if (const double value = y.value(s, f); !(value >= 0 && value <= 1))
        raise<DataError>(what, ": sample ", s, ", output ", f, " is ", value,
                         "; targets of a cross-entropy are probabilities, from 0 to 1");
}

/// Class labels have one extent for the samples, and those of the outputs before the classes.
[[gnu::cold]] inline void check_label_shape(const ArrayView& y, const Shape& output, const loss::Targets& targets,
                                            std::string_view what) {
  const std::size_t steps = loss::steps_of(output, targets), classes = output.elements() / steps;
  if (classes < 2)
    raise<ShapeError>(what, ": class labels need a model with an output for each class, this one has ", classes,
                      "; for yes and no with one output use BinaryCrossEntropy");
  if (steps == 1) {
    if (y.features() != 1)
      raise<ShapeError>(what, ": a loss on class labels takes one label a sample, y has shape ", y.shape(),
                        "; for rows of targets use CategoricalCrossEntropy",
                        targets.by_step && y.features() != classes
                            ? text("; for one label a step the model has to give {steps, classes}, not ", output)
                            : std::string());
    return;
  }
  const Shape wanted = Shape(std::span(output.begin(), output.rank() - 1)).with_front(y.samples());
  if (y.features() == steps && (y.shape().rank() != wanted.rank() || y.shape() == wanted)) return;
  raise<ShapeError>(what, ": the model gives outputs of shape ", output, " a sample, ", classes, " classes at each of ",
                    steps, " steps, so labels have shape ", wanted, ", one a step; y has shape ", y.shape(),
                    y.features() == 1 ? "; for one label a sample put a layer that leaves no steps at the model's end, "
                                        "such as GlobalAveragePool or Flatten"
                    : y.features() == output.elements() ? "; a label is the number of the class"
                                                        : "");
}

/// Class labels as integers: whole numbers from 0 to classes - 1, or -1 for those that are left out. Returns whether
/// there are such.
[[gnu::cold]] inline bool check_labels(const ArrayView& y, const Shape& output, const loss::Targets& targets,
                                       std::string_view what, std::vector<std::int32_t>& labels) {
  check_label_shape(y, output, targets, what);
  const std::size_t steps = loss::steps_of(output, targets), classes = output.elements() / steps;
  labels.resize(y.samples() * steps);
  bool some_ignored = false;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const double value = y.value(i / steps, i % steps);
    const bool ignored = targets.ignored && value == *targets.ignored;
    if (!ignored && (!(value >= 0 && value < static_cast<double>(classes)) || value != std::floor(value)))
      raise<DataError>(what, ": the label of sample ", i / steps,
                       steps > 1 ? text(", step ", i % steps) : std::string(), " is ", value,
                       "; labels are whole numbers from 0 to ", classes - 1, ", one for each output of the model",
                       steps > 1 ? " at a step" : "",
                       targets.ignored ? text(", or ", *targets.ignored, ", the .ignore_label") : std::string());
    labels[i] = ignored ? -1 : static_cast<std::int32_t>(value);
    some_ignored = some_ignored || ignored;
  }
  return some_ignored;
}

/// x fits the model's input: samples of that shape, or as many features in a shape of fewer or more extents.
[[gnu::cold]] inline void check_input(const ArrayView& x, const Shape& input, std::string_view what) {
  const std::size_t features = input.elements();
  if (x.shape().rank() == 0 || x.samples() == 0)
    raise<DataError>(what, ": there are no samples in an array of shape ", x.shape());
  if (x.features() != features)
    raise<ShapeError>(
        what, ": the model expects ", input.rank() == 1 ? std::string() : text("samples of shape ", input, ", "),
        features, " features a sample, an array of shape ", x.shape(), " gives ", x.features(),
        x.shape().elements() == features ? text("; for one sample use view(x, {1, ", features, "})") : "");
  if (x.shape().rank() == input.rank() + 1 && input.rank() > 1 && !(x.shape().tail() == input))
    raise<ShapeError>(what, ": the model expects samples of shape ", input, ", an array of shape ", x.shape(),
                      " has the same number of features in another order; permute it first, images to {height, width, ",
                      "channels}, or flatten it");
}

}  // namespace tesla::inline TESLA_TARGET::training
