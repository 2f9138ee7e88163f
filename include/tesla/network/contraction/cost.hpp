// What a contraction costs, from its sizes alone: a model of the kernels, in cycles of one thread.
#pragma once

#include <tesla/backend/contraction.hpp>
#include <tesla/network/tensor_train/shape.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace tesla::inline TESLA_TARGET::network::contraction {

using backend::Contraction;
using backend::ContractionStep;
using backend::Throughput;

enum class Purpose { predict, train };

/// What is being planned for.
struct Job {
  TensorTrainShape shape;
  std::size_t batch = 1, lanes = 1;  // lanes: of a panel; 1 for a single sample
  std::size_t value_bytes = 4;
  Purpose purpose = Purpose::predict;

  friend bool operator==(const Job&, const Job&) = default;
};

namespace detail {

constexpr double number(std::size_t n) { return static_cast<double>(n); }

/// A product of `rows` x `depth` with `columns` columns, which tiles cover.
[[gnu::cold]] inline double product_cycles(const Throughput& t, std::size_t rows, std::size_t depth,
                                           std::size_t columns) {
  const auto block = [&](std::size_t vectors) {
    const std::size_t tallest = t.rows[vectors], tiles = (rows + tallest - 1) / tallest;
    const double height = number(rows) / number(tiles), width = number(vectors);
    return number(tiles) *
           (std::max(height * width / t.multiply_adds, (height + width) / t.loads) * number(depth) + t.tile);
  };
  const std::size_t vectors = (columns + t.width - 1) / t.width;
  return t.call + number(vectors / t.vectors) * block(t.vectors) +
         (vectors % t.vectors != 0 ? block(vectors % t.vectors) : 0);
}

/// Both gradients of a step: of the state before it, and of its matrix, for which one operand is transposed.
[[gnu::cold]] inline double gradient_cycles(const Throughput& t, std::size_t rows, std::size_t depth,
                                            std::size_t columns) {
  constexpr double transposed = 5;  // cycles for a vector of values
  const auto with_turned = [&](std::size_t turned, std::size_t other) {
    return product_cycles(t, other, columns, turned) +
           transposed * number(turned) * std::ceil(number(columns) / number(t.width));
  };
  return product_cycles(t, depth, rows, columns) + std::min(with_turned(rows, depth), with_turned(depth, rows));
}

/// Merging cores first, ..., last - 1 in halves, and writing the result; in training also what the gradient takes on
/// its way back. Predictions find what they have merged once.
[[gnu::cold]] inline double merge_cycles(const Throughput& t, const Job& job, std::size_t first, std::size_t last,
                                         bool from_right) {
  if (job.purpose == Purpose::predict) return 0;
  constexpr double back = 2.5;  // times the way there
  const double element =
      from_right || last == job.shape.size() ? 3 : 6;  // cycles; turned round it is no longer in runs
  double left = 1, right = 1;
  const std::size_t mid = first + (last - first) / 2;
  for (std::size_t k = first; k < last; ++k) (k < mid ? left : right) *= number(job.shape.in[k] * job.shape.out[k]);
  const double size = number(job.shape.rank(first)) * left * right * number(job.shape.rank(last));
  if (last - first == 1) return (1 + back) * element * size;
  const double products = size * number(job.shape.rank(mid)) * 1.2 / (t.multiply_adds * number(t.width));
  return (1 + back) * (products + element * size) + merge_cycles(t, job, first, mid, true) +
         merge_cycles(t, job, mid, last, true);
}

}  // namespace detail

/// One step by itself, over the whole batch. The planner adds these up.
[[gnu::cold]] inline double step_cycles(const Throughput& t, const Job& job, const ContractionStep& s) {
  using detail::number;
  const bool single = job.lanes == 1, training = job.purpose == Purpose::train;
  const double merging = detail::merge_cycles(t, job, s.first, s.last, s.from_right);
  if (single) {
    // The lanes are the first step's outputs, or, where all cores are one matrix, its columns.
    const std::size_t columns = round_up(std::max<std::size_t>(s.columns, s.columns == 1 ? s.rows : 1), t.width);
    const std::size_t rows = s.columns == 1 ? s.outer : s.rows;
    const double each = detail::product_cycles(t, rows, s.depth, columns) * (s.columns == 1 ? 1 : number(s.outer));
    return merging + each * (training ? 3.5 : 1);
  }
  const std::size_t columns = std::min(job.lanes, round_up(job.batch, t.width)) * s.columns;
  const double panels = std::max(1.0, number(round_up(job.batch, t.width)) / number(job.lanes)) * number(s.outer);
  double cycles = panels * detail::product_cycles(t, s.rows, s.depth, columns);
  if (training) cycles += panels * detail::gradient_cycles(t, s.rows, s.depth, columns);
  return merging + cycles;
}

/// The whole matrix times the batch, as a dense layer does it.
[[gnu::cold]] inline double dense_cycles(const Throughput& t, const Job& job) {
  using detail::number;
  const std::size_t rows = job.shape.out.elements(), columns = job.shape.in.elements();
  const double bytes = number(rows) * number(columns) * number(job.value_bytes);
  const bool training = job.purpose == Purpose::train;
  const std::size_t batch = job.lanes == 1 ? t.width : round_up(job.batch, t.width);
  const double product = job.lanes == 1 ? number(rows) * number(columns) / (number(t.width) * t.loads / 2)
                                        : detail::product_cycles(t, rows, columns, batch);
  const double far = bytes > t.cache ? bytes / t.bytes : 0;
  return (training ? 3 : 1) * std::max(product, far);
}

/// A contraction with nested steps, over the whole batch.
[[gnu::cold]] inline double depth_first_cycles(const Throughput& t, const Job& job, const Contraction& c) {
  using detail::number;
  const bool single = job.lanes == 1, training = job.purpose == Purpose::train;
  const std::size_t steps = c.steps, strip = single ? 1 : c.strip;
  const std::size_t chunk = single ? c.step[0].out : c.chunk;
  const double chunks = number(c.step[0].out / chunk);
  const double strips = single ? 1 : number(round_up(job.batch, t.width)) / number(strip);
  const double value = number(job.value_bytes);

  std::array<double, backend::max_cores> forward{}, gradient{}, times{}, bytes{}, pieces{};
  double merging = 0, prefixes = 1;
  std::size_t columns = single ? round_up(chunk, t.width) : chunk * strip;
  std::array<std::size_t, backend::max_cores> width{};
  for (std::size_t g = 0; g < steps; ++g) {
    width[g] = g == 0 ? strip : columns;
    if (g > 0) columns *= c.step[g].out;
    // The state behind this step, for one value of the modes that are not in it: the rows of the next one's product.
    if (g + 1 < steps) bytes[g] = number(c.step[g + 1].in * c.step[g].after() * columns) * value;
  }
  for (std::size_t g = steps; g-- > 0;) {
    const ContractionStep& s = c.step[g];
    const std::size_t out = g == 0 ? chunk : s.out, rows = s.after() * out, depth = s.in * s.before();
    double each;
    if (single && g == 0) {
      const std::size_t next = c.step[1].in;
      each = number(s.after()) * detail::product_cycles(t, next, depth, round_up(chunk, t.width)) / number(next);
      gradient[g] = prefixes * 2.2 * each;
    } else {
      each = detail::product_cycles(t, rows, depth, width[g]);
      gradient[g] = prefixes * detail::gradient_cycles(t, rows, depth, width[g]);
    }
    forward[g] = prefixes * each;
    pieces[g] = prefixes / number(g + 1 < steps ? c.step[g + 1].in : 1);
    if (g + 1 < steps && bytes[g] > t.cache) forward[g] += 2 * pieces[g] * bytes[g] / t.bytes;
    prefixes *= number(s.in);
    merging += detail::merge_cycles(t, job, s.first, s.last, s.from_right);
  }
  const double input = number(c.features_in * (single ? 1 : strip)) * value;
  double cycles = 0;
  if (input > t.cache) cycles += input / t.bytes;
  for (std::size_t g = 0; g < steps; ++g) cycles += forward[g];
  if (training) {
    for (std::size_t g = 0; g < steps; ++g) cycles += gradient[g];
    if (input > t.cache) cycles += 3 * input / t.bytes;
    for (std::size_t g = steps - 1; g-- > 0;) {
      if (c.stored[g])
        cycles += pieces[g] * bytes[g] * 2 / t.bytes;
      else
        times[g] = 1 + times[g + 1];
      cycles += times[g] * forward[g];
    }
  }
  return merging + strips * chunks * cycles;
}

}  // namespace tesla::inline TESLA_TARGET::network::contraction
