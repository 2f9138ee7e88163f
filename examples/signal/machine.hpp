// A machine that wears out, and the vibration that is measured on it.
#pragma once

#include <tesla/tesla.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <span>
#include <utility>

inline constexpr std::size_t window = 256;  // values that are measured in a step
inline constexpr double horizon = 100;      // more steps left than this are not told apart

/// From its first step to the one in which it fails.
class Machine {
 public:
  Machine(std::uint64_t seed, std::uint64_t number)
      : random_(seed, number), life_(static_cast<std::size_t>(150 + 100 * random_.uniform(0))) {}

  std::size_t life() const { return life_; }
  double left(std::size_t step) const { return std::min(static_cast<double>(life_ - 1 - step), horizon); }

  /// What a sensor measures in a step. The load changes from step to step and moves the whole machine; the defect gives
  /// a short, ringing knock in each turn of a bearing, the louder the more it is worn.
  void measure(std::size_t step, std::span<float> values) const {
    const std::uint64_t first = 1 + step * (window + 5);  // of this step's random numbers
    const auto uniform = [&](std::uint64_t i, double low, double high) {
      return low + (high - low) * random_.uniform(first + window + i);
    };
    const double load = uniform(0, 0.6, 1.4), turn = uniform(1, 38, 42), phase = uniform(2, 0, 1);
    const double swing = uniform(3, 0, 2 * std::numbers::pi), second = uniform(4, 0, 2 * std::numbers::pi);
    const double age = static_cast<double>(step) / static_cast<double>(life_ - 1), wear = 0.1 + 2 * age * age * age;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double at = static_cast<double>(i), angle = 2 * std::numbers::pi * at / 23;
      const double since = (at / turn + phase - std::floor(at / turn + phase)) * turn;  // the last knock
      values[i] = static_cast<float>(0.5 * load * (std::sin(angle + swing) + 0.4 * std::sin(2 * angle + second)) +
                                     wear * std::exp(-since / 6) * std::sin(2 * std::numbers::pi * since / 5) +
                                     0.3 * random_.normal(first + i));
    }
  }

 private:
  tesla::random::Stream random_;
  std::size_t life_;
};

/// Steps of machines: what was measured, and how many were left.
struct Steps {
  tesla::Tensor<float> x, y;

  const float* values(std::size_t step) const { return x.data() + step * window; }
};

/// All steps of the machines from `first` on.
inline Steps simulate(std::uint64_t seed, std::uint64_t first, std::size_t machines) {
  std::size_t count = 0;
  for (std::size_t m = 0; m < machines; ++m) count += Machine(seed, first + m).life();
  Steps steps{tesla::Tensor<float>({count, window, 1}), tesla::Tensor<float>({count, 1})};
  std::size_t row = 0;
  for (std::size_t m = 0; m < machines; ++m) {
    const Machine machine(seed, first + m);
    for (std::size_t step = 0; step < machine.life(); ++step, ++row) {
      machine.measure(step, {steps.x.data() + row * window, window});
      steps.y[row] = static_cast<float>(machine.left(step));
    }
  }
  return steps;
}
