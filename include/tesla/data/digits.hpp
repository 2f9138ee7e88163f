// A data set that needs no files: handwritten-looking digits, drawn by the library itself. A linear model gets nine out
// of ten right, a small network ninety-eight of a hundred.
#pragma once

#include <tesla/core/parallel.hpp>
#include <tesla/data/dataset.hpp>
#include <tesla/data/digit_painter.hpp>
#include <tesla/data/grey.hpp>

namespace tesla::inline TESLA_TARGET::data {

struct DigitsOptions {
  std::size_t train = 10000, test = 2000;
  std::uint64_t seed = 1;
};

namespace detail {

/// Samples number 0 to count - 1 of part 0 or 1. Each is drawn from a stream of its own, so that it is the same sample
/// however many there are.
inline Dataset<> draw_digits(std::size_t count, std::uint64_t seed, std::uint64_t part) {
  constexpr double cost = 20e3;  // of one digit, in nanoseconds
  Tensor<float> x({count, DigitPainter::pixels});
  Tensor<std::int32_t> y({count});
  parallel_for(count, cost, [&](std::size_t begin, std::size_t end) {
    std::array<std::uint8_t, DigitPainter::pixels> image;
    std::array<std::int32_t, 10> labels{};
    for (std::size_t i = begin; i < end; ++i) {
      if (i == begin || i % 10 == 0) {  // ten samples in a row are the ten digits, shuffled
        const random::Stream random(seed, 4 * std::uint64_t{i / 10} + 2 + part);
        for (std::uint64_t k = 0; k < 10; ++k) {
          const std::uint64_t other = random.below(k, k + 1);
          labels[k] = labels[other];
          labels[other] = static_cast<std::int32_t>(k);
        }
      }
      y[i] = labels[i % 10];
      DigitPainter(random::Stream(seed, 4 * std::uint64_t{i} + part)).paint(y[i], image);
      std::transform(image.begin(), image.end(), x.data() + i * image.size(),
                     [](std::uint8_t value) { return grey_values[value]; });
    }
  });
  return {std::move(x), std::move(y)};
}

}  // namespace detail

/// Draws digits: x {n, 784}, images of 28 x 28 from 0 (paper) to 1 (ink), y {n} with labels 0 to 9. The same seed gives
/// the same bits on every machine, at any number of threads.
inline Split<> digits(const DigitsOptions& options = {}) {
  return {detail::draw_digits(options.train, options.seed, 0), detail::draw_digits(options.test, options.seed, 1)};
}

}  // namespace tesla::inline TESLA_TARGET::data
