// How live weights are shared out among layers, and patterns as people see them.
#pragma once

#include <tesla/network/sparse/pattern.hpp>

#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::sparse {

/// Densities of layers whose weights have these shapes, {outputs, inputs} or {outputs, inputs, kernel height, kernel
/// width}, so that all together are as dense as asked for and each gets live weights in proportion to the sum of its
/// extents (Erdos and Renyi's random graphs: Mocanu et al. 2018; with kernels: Evci et al. 2020). A layer that would
/// get more than it has is dense, and the others share the rest.
[[gnu::cold]] inline std::vector<double> erdos_renyi(const std::vector<Shape>& layers, double density) {
  if (!(density > 0 && density <= 1)) raise<UsageError>("erdos_renyi: the density has to lie in (0, 1], not ", density);
  double live = 0;
  for (const Shape& s : layers) {
    if (s.rank() < 2 || s.elements() == 0)
      raise<ShapeError>("erdos_renyi: weights have a shape of {outputs, inputs, ...}, not ", s);
    live += density * static_cast<double>(s.elements());
  }
  std::vector<double> result(layers.size(), 0);
  std::vector<bool> full(layers.size());
  for (bool again = true; again;) {
    again = false;
    double sums = 0, left = live;
    const auto sum_of = [&](std::size_t i) {
      double sum = 0;
      for (const std::size_t extent : layers[i]) sum += static_cast<double>(extent);
      return sum;
    };
    for (std::size_t i = 0; i < layers.size(); ++i)
      full[i] ? left -= static_cast<double>(layers[i].elements()) : sums += sum_of(i);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      result[i] = full[i] ? 1 : left / sums * sum_of(i) / static_cast<double>(layers[i].elements());
      if (result[i] > 1) full[i] = again = true;
    }
  }
  return result;
}

/// A pattern in characters, as many columns of them as asked for: the darker, the denser.
[[gnu::cold]] inline std::string draw(const Pattern& p, std::size_t columns = 64) {
  if (p.empty()) return "";
  const std::size_t across = std::min(std::max<std::size_t>(columns, 1), p.columns());
  // A character is about twice as high as it is wide.
  const std::size_t down = std::max<std::size_t>(1, std::min(p.rows(), across * p.rows() / p.columns() / 2));
  std::vector<std::size_t> live(across * down), all(across * down), high(down), wide(across);
  for (std::size_t r = 0; r < p.rows(); ++r) ++high[r * down / p.rows()];
  for (std::size_t c = 0; c < p.columns(); ++c) ++wide[c * across / p.columns()];
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = high[i / across] * wide[i % across];
  for (std::size_t r = 0; r < p.rows(); ++r)
    for (const std::uint32_t c : p.row(r)) ++live[r * down / p.rows() * across + c * across / p.columns()];
  double densest = 0;
  for (std::size_t i = 0; i < all.size(); ++i)
    densest = std::max(densest, static_cast<double>(live[i]) / static_cast<double>(all[i]));
  constexpr std::string_view shades = " .:-=+*#%@";
  std::string result;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const double share = densest == 0 ? 0 : static_cast<double>(live[i]) / static_cast<double>(all[i]) / densest;
    result += shades[std::min(shades.size() - 1, static_cast<std::size_t>(std::ceil(share * 9)))];
    if ((i + 1) % across == 0) result += '\n';
  }
  return result;
}

}  // namespace tesla::inline TESLA_TARGET::sparse
