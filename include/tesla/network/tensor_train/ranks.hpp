// Ranks that change while a train is in use: which directions matter at each place between two cores, and how the
// cores, and what an optimizer knows of them, look when the others are left out.
//
// A place cuts the matrix into a left part L and a right part R, W = L R. With L'L = A A' and RR' = B B' the singular
// values of W there are those of A'B = U S V', and X = B V S^-1/2, Y = S^-1/2 U'A' take the state between the cores to
// the leading directions and back (balanced truncation; Moore 1981). Left out at all places at once, the error is at
// most the root of the sum of the squares of what was left out (Oseledets 2011, theorem 2.2).
#pragma once

#include <tesla/network/tensor_train/linear_algebra.hpp>
#include <tesla/network/tensor_train/shape.hpp>
#include <tesla/tensor/tensor.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace tesla::inline TESLA_TARGET::network {

class Balance {
 public:
  explicit Balance(const std::vector<Tensor<double>>& cores) : places_(cores.size() - 1) {
    const std::size_t count = cores.size();
    std::vector<detail::Dense> left(count + 1), right(count + 1);
    left[0] = right[count] = detail::identity(1);
    for (std::size_t k = 0; k + 1 < count; ++k) left[k + 1] = gram(cores[k], left[k], true);
    for (std::size_t k = count; k-- > 1;) right[k] = gram(cores[k], right[k + 1], false);
    for (std::size_t k = 0; k + 1 < count; ++k) places_[k] = place(left[k + 1], right[k + 1]);
  }

  /// Of the matrix at place k, between cores k and k + 1, the largest first.
  const std::vector<double>& singular_values(std::size_t k) const { return places_[k].values; }

  /// The fewest ranks for an error of `tolerance` of the matrix's norm.
  Shape ranks_for(double tolerance) const {
    std::array<std::size_t, Shape::max_rank> ranks{};
    for (std::size_t k = 0; k < places_.size(); ++k) {
      const std::vector<double>& values = places_[k].values;
      double norm = 0, tail = 0;
      for (const double v : values) norm += v * v;
      const double most = tolerance * tolerance * norm / static_cast<double>(places_.size());
      ranks[k] = values.size();
      while (ranks[k] > 1 && tail + values[ranks[k] - 1] * values[ranks[k] - 1] <= most) {
        tail += values[ranks[k] - 1] * values[ranks[k] - 1];
        --ranks[k];
      }
      ranks[k] = std::min(ranks[k], places_[k].known);
    }
    return Shape(std::span<const std::size_t>(ranks.data(), places_.size()));
  }

  /// The square of the matrix's norm, and the number of singular values at place k that are not noise.
  double squared_norm() const {
    double norm = 0;
    for (const double v : places_.empty() ? std::vector<double>{1} : places_[0].values) norm += v * v;
    return norm;
  }
  std::size_t known(std::size_t k) const { return places_[k].known; }

  enum class Kind { value, gradient, squared_gradient };

  /// What each core is multiplied by after a cut, so that the sizes of the cores stay in the proportion in which they
  /// were: training is as stable as before.
  std::vector<double> factors(const std::vector<Tensor<double>>& cores, const Shape& ranks) const {
    const std::vector<Tensor<double>> raw = cut(cores, ranks, Kind::value, std::vector<double>(cores.size(), 1.0));
    const auto size = [](const Tensor<double>& core) {
      return std::sqrt(detail::dot(core.data(), core.data(), core.size()) / static_cast<double>(core.size()));
    };
    std::vector<double> result(cores.size(), 1.0);
    double product = 1;
    for (std::size_t k = 0; k < cores.size(); ++k) {
      const double before = size(cores[k]), after = size(raw[k]);
      if (!(before > 0 && after > 0)) return std::vector<double>(cores.size(), 1.0);  // the matrix is zero
      result[k] = before / after;
      product *= result[k];
    }
    for (double& factor : result) factor /= std::pow(product, 1 / static_cast<double>(cores.size()));
    return result;
  }

  /// Cores cut to ranks no larger than theirs; or a gradient by the cores turned into one by the cut cores, or squares
  /// of its entries.
  std::vector<Tensor<double>> cut(const std::vector<Tensor<double>>& cores, const Shape& ranks, Kind kind,
                                  const std::vector<double>& factors) const {
    std::vector<Tensor<double>> result;
    for (std::size_t k = 0; k < cores.size(); ++k) {
      const Shape& s = cores[k].shape();
      const std::size_t before = k == 0 ? 1 : ranks[k - 1], after = k + 1 == cores.size() ? 1 : ranks[k],
                        modes = s[1] * s[2];
      // The maps are applied to one side, then to the other.
      Tensor<double> half({s[0], s[1], s[2], after}), core({before, s[1], s[2], after});
      for (std::size_t i = 0; i < s[0] * modes; ++i)
        for (std::size_t q = 0; q < s[3]; ++q)
          for (std::size_t r = 0; r < after; ++r)
            half[i * after + r] += cores[k][i * s[3] + q] * entry(k + 1 == cores.size(), k, kind, false, r, q);
      for (std::size_t r = 0; r < before; ++r)
        for (std::size_t q = 0; q < s[0]; ++q) {
          const double factor = entry(k == 0, k - 1, kind, true, r, q);
          for (std::size_t i = 0; i < modes * after; ++i)
            core[r * modes * after + i] += factor * half[q * modes * after + i];
        }
      const double c = factors[k];
      for (double& v : core) v *= kind == Kind::value ? c : kind == Kind::gradient ? 1 / c : 1 / (c * c);
      result.push_back(std::move(core));
    }
    return result;
  }

 private:
  struct Place {
    std::vector<double> values;
    std::size_t known = 0;   // singular values that are not noise
    detail::Dense to, back;  // X' and Y: a row for each direction
  };

  /// L'L from that of the cores before (left), or RR' from that of the cores behind.
  static detail::Dense gram(const Tensor<double>& core, const detail::Dense& other, bool left) {
    const Shape& s = core.shape();
    const std::size_t modes = s[1] * s[2], inner = left ? s[0] : s[3], size = left ? s[3] : s[0];
    const auto at = [&](std::size_t i, std::size_t m, std::size_t r) {  // i of the inner rank, r of the outer
      return left ? core[(i * modes + m) * s[3] + r] : core[(r * modes + m) * s[3] + i];
    };
    detail::Dense result(size, size), moved(inner, size);
    for (std::size_t m = 0; m < modes; ++m) {
      for (std::size_t i = 0; i < inner; ++i)
        for (std::size_t r = 0; r < size; ++r) {
          double sum = 0;
          for (std::size_t j = 0; j < inner; ++j) sum += other(i, j) * at(j, m, r);
          moved(i, r) = sum;
        }
      for (std::size_t i = 0; i < inner; ++i)
        for (std::size_t p = 0; p < size; ++p) {
          const double factor = at(i, m, p);
          for (std::size_t r = 0; r < size; ++r) result(p, r) += factor * moved(i, r);
        }
    }
    return result;
  }

  /// A with A A' = g, by columns: eigenvectors times roots of eigenvalues. As rows.
  static detail::Dense root(const detail::Dense& g) {
    detail::Spectrum s = detail::spectrum_of(g);
    for (std::size_t r = 0; r < g.rows; ++r) {
      const double length = std::sqrt(std::max(s.values[r], 0.0));
      for (std::size_t c = 0; c < g.rows; ++c) s.vectors(r, c) *= length;
    }
    return s.vectors;
  }

  static Place place(const detail::Dense& left, const detail::Dense& right) {
    const std::size_t rank = left.rows;
    const detail::Dense a = root(left), b = root(right);  // A' and B'
    detail::Dense m(rank, rank);                          // A'B
    for (std::size_t i = 0; i < rank; ++i)
      for (std::size_t j = 0; j < rank; ++j) m(i, j) = detail::dot(a.row(i), b.row(j), rank);
    detail::Dense square(rank, rank);  // (A'B)'(A'B), whose eigenvectors are V
    for (std::size_t k = 0; k < rank; ++k)
      for (std::size_t i = 0; i < rank; ++i)
        for (std::size_t j = 0; j < rank; ++j) square(i, j) += m(k, i) * m(k, j);
    const detail::Spectrum s = detail::spectrum_of(square);

    Place result;
    result.to = result.back = detail::Dense(rank, rank);
    for (std::size_t r = 0; r < rank; ++r) {
      const double value = std::sqrt(std::max(s.values[r], 0.0));
      result.values.push_back(value);
      if (!(value > 1e-7 * result.values[0])) continue;
      ++result.known;
      std::vector<double> u(rank);  // U's column: A'B v / value
      for (std::size_t i = 0; i < rank; ++i) u[i] = detail::dot(m.row(i), s.vectors.row(r), rank) / value;
      for (std::size_t j = 0; j < rank; ++j)
        for (std::size_t c = 0; c < rank; ++c) {
          result.to(r, c) += b(j, c) * s.vectors(r, j) / std::sqrt(value);
          result.back(r, c) += a(j, c) * u[j] / std::sqrt(value);
        }
    }
    result.known = std::max<std::size_t>(result.known, 1);
    return result;
  }

  /// Of the map of place k on a core's rank before it or after it; `end`: there is no place.
  double entry(bool end, std::size_t k, Kind kind, bool before, std::size_t r, std::size_t q) const {
    if (end) return 1;
    // A value goes by X behind the core and by Y before it, a gradient the other way round.
    const double v = (kind == Kind::value) == before ? places_[k].back(r, q) : places_[k].to(r, q);
    return kind == Kind::squared_gradient ? v * v : v;
  }

  std::vector<Place> places_;
};

/// Ranks for several trains with cores of at most `parameters` numbers in all, or 1 everywhere where that is still too
/// many. What is left out first is what matters least, of its matrix, for each number that it saves; what fits into the
/// rest of the budget comes back.
inline std::vector<TensorTrainShape> shapes_within(std::vector<TensorTrainShape> shapes,
                                                   const std::vector<Balance>& balances, std::size_t parameters) {
  const auto with_rank = [](const TensorTrainShape& s, std::size_t k, std::size_t rank) {
    return TensorTrainShape{s.in, s.out, s.ranks.with(k, rank)};
  };
  std::size_t now = 0;
  for (std::size_t t = 0; t < shapes.size(); ++t) {
    for (std::size_t k = 0; k < shapes[t].ranks.rank(); ++k)
      shapes[t] = with_rank(shapes[t], k, std::min(shapes[t].ranks[k], balances[t].known(k)));
    now += shapes[t].count_parameters();
  }
  const std::vector<TensorTrainShape> most = shapes;
  // The change of one rank by one, up or down, that is worth most; its shape in `next`.
  std::size_t chosen = 0;
  TensorTrainShape next;
  const auto best_change = [&](bool up) {
    double best = 0;
    chosen = shapes.size();
    for (std::size_t t = 0; t < shapes.size(); ++t)
      for (std::size_t k = 0; k < shapes[t].ranks.rank(); ++k) {
        const std::size_t rank = shapes[t].ranks[k];
        if (up ? rank == most[t].ranks[k] : rank == 1) continue;
        const TensorTrainShape other = with_rank(shapes[t], k, up ? rank + 1 : rank - 1);
        const double own = static_cast<double>(shapes[t].count_parameters());
        const double numbers = std::fabs(own - static_cast<double>(other.count_parameters()));
        if (up && now + static_cast<std::size_t>(numbers) > parameters) continue;
        const double value = balances[t].singular_values(k)[up ? rank : rank - 1];
        const double share = value * value / (balances[t].squared_norm() * numbers);
        if (chosen == shapes.size() || (up ? share > best : share < best)) best = share, chosen = t, next = other;
      }
    return chosen != shapes.size();
  };
  const auto change = [&] {
    now += next.count_parameters();
    now -= shapes[chosen].count_parameters();
    shapes[chosen] = next;
  };
  while (now > parameters && best_change(false)) change();
  while (now < parameters && best_change(true)) change();
  return shapes;
}

/// Cores, or what an optimizer knows of them, without the last directions at each place.
inline std::vector<Tensor<double>> sliced(const std::vector<Tensor<double>>& cores, const Shape& ranks) {
  std::vector<Tensor<double>> result;
  for (std::size_t k = 0; k < cores.size(); ++k) {
    const Shape& s = cores[k].shape();
    const std::size_t before = k == 0 ? 1 : ranks[k - 1], after = k + 1 == cores.size() ? 1 : ranks[k];
    Tensor<double> core({before, s[1], s[2], after});
    for (std::size_t i = 0; i < before * s[1] * s[2]; ++i)
      std::copy_n(cores[k].data() + i * s[3], after, core.data() + i * after);
    result.push_back(std::move(core));
  }
  return result;
}

/// Cores of higher ranks with the same matrix: before each place new directions of the size of the others, behind it
/// zeros, which learn from there. Without directions, zeros throughout: what an optimizer knows of new values.
inline std::vector<Tensor<double>> widened(const std::vector<Tensor<double>>& cores, const Shape& ranks,
                                           std::uint64_t seed, bool with_directions = true) {
  std::vector<Tensor<double>> result;
  for (std::size_t k = 0; k < cores.size(); ++k) {
    const Shape& s = cores[k].shape();
    const std::size_t before = k == 0 ? 1 : ranks[k - 1], after = k + 1 == cores.size() ? 1 : ranks[k];
    double squares = 0;
    for (const double v : cores[k]) squares += v * v;
    const double deviation = std::sqrt(squares / static_cast<double>(cores[k].size()));
    Tensor<double> core({before, s[1], s[2], after});
    const random::Stream random(seed, k);
    for (std::size_t r = 0; r < before; ++r)
      for (std::size_t m = 0; m < s[1] * s[2]; ++m)
        for (std::size_t q = 0; q < after; ++q) {
          const std::size_t to = (r * s[1] * s[2] + m) * after + q;
          if (r < s[0] && q < s[3])
            core[to] = cores[k][(r * s[1] * s[2] + m) * s[3] + q];
          else if (r < s[0] && with_directions)
            core[to] = deviation * random.normal(to);
        }
    result.push_back(std::move(core));
  }
  return result;
}

}  // namespace tesla::inline TESLA_TARGET::network
