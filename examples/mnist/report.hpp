// What the MNIST example prints after the training.
#pragma once

#include <tesla/tesla.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

/// How often each digit was read as which.
inline void print_confusion(const tesla::Tensor<std::int32_t>& labels, const std::vector<std::size_t>& read) {
  constexpr std::size_t classes = 10;
  std::array<std::array<std::size_t, classes>, classes> counts{};
  for (std::size_t i = 0; i < read.size(); ++i) ++counts[static_cast<std::size_t>(labels[i])][read[i]];

  std::printf("\nread as  ");
  for (std::size_t digit = 0; digit < classes; ++digit) std::printf("%5zu", digit);
  std::printf("    right\n");
  for (std::size_t digit = 0; digit < classes; ++digit) {
    std::size_t total = 0;
    std::printf("digit %zu  ", digit);
    for (const std::size_t count : counts[digit]) {
      total += count;
      if (count == 0)
        std::printf("    .");
      else
        std::printf("%5zu", count);
    }
    std::printf("   %5.1f %%\n",
                total == 0 ? 0 : 100.0 * static_cast<double>(counts[digit][digit]) / static_cast<double>(total));
  }
}

/// Draws how many weights read each of 28 x 28 pixels.
inline void draw_inputs(const tesla::sparse::Pattern& pattern) {
  std::vector<std::size_t> reads(pattern.columns());
  for (const std::uint32_t column : pattern.indices()) ++reads[column];
  const std::size_t most = *std::max_element(reads.begin(), reads.end());
  for (std::size_t i = 0; i < reads.size(); ++i) {
    std::putchar(reads[i] == 0 ? '.' : static_cast<char>('0' + 9 * reads[i] / most));
    if ((i + 1) % 28 == 0) std::putchar('\n');
  }
}

/// Draws up to three digits that were misread, side by side, two rows of pixels a line.
inline void draw_misread(const tesla::data::Dataset<>& test, const std::vector<std::size_t>& read) {
  const std::size_t side = static_cast<std::size_t>(std::lround(std::sqrt(test.x().shape().back())));
  if (side * side != test.x().shape().back() || side > 40) return;
  std::vector<std::size_t> misread;
  for (std::size_t i = 0; i < read.size() && misread.size() < 3; ++i)
    if (read[i] != static_cast<std::size_t>(test.y()[i])) misread.push_back(i);
  if (misread.empty()) return;

  const auto ink = [&](std::size_t sample, std::size_t row, std::size_t column) {
    return row < side && test.x()(sample, row * side + column) > 0.4F;
  };
  std::printf("\n");
  for (const std::size_t i : misread) {
    const std::string caption = tesla::text("a ", test.y()[i], " read as ", read[i]);
    std::printf("%-*s  ", static_cast<int>(side), caption.c_str());
  }
  for (std::size_t row = 0; row < side; row += 2) {
    std::printf("\n");
    for (const std::size_t i : misread) {
      for (std::size_t column = 0; column < side; ++column) {
        const bool upper = ink(i, row, column), lower = ink(i, row + 1, column);
        std::fputs(upper && lower ? "█" : upper ? "▀" : lower ? "▄" : " ", stdout);
      }
      std::printf("  ");
    }
  }
  std::printf("\n");
}
