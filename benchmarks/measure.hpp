// What benchmarks of kernels share: the clock, calls timed in turns, and the peak of multiply-adds that shares are
// taken of.
#pragma once

#include <tesla/backend/cpu/vector.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <vector>

inline double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

namespace detail {
using Floats = tesla::backend::cpu::Vector<float>;

/// Twelve independent chains of multiply-adds, all in registers.
[[gnu::noinline]] inline Floats chains(std::size_t rounds, Floats s) {
  Floats a0 = s + 1.0F, a1 = s + 1.1F, a2 = s + 1.2F, a3 = s + 1.3F, a4 = s + 1.4F, a5 = s + 1.5F, a6 = s + 1.6F,
         a7 = s + 1.7F, a8 = s + 1.8F, a9 = s + 1.9F, b0 = s + 2.0F, b1 = s + 2.1F;
  const Floats w(0.999F), u(1e-3F);
  for (std::size_t i = 0; i < rounds; ++i) {
    a0 = xsimd::fma(w, a0, u), a1 = xsimd::fma(w, a1, u), a2 = xsimd::fma(w, a2, u), a3 = xsimd::fma(w, a3, u);
    a4 = xsimd::fma(w, a4, u), a5 = xsimd::fma(w, a5, u), a6 = xsimd::fma(w, a6, u), a7 = xsimd::fma(w, a7, u);
    a8 = xsimd::fma(w, a8, u), a9 = xsimd::fma(w, a9, u), b0 = xsimd::fma(w, b0, u), b1 = xsimd::fma(w, b1, u);
  }
  return a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + b0 + b1;
}
}  // namespace detail

/// Multiply-adds a second of one thread: the median, since a processor may run faster for its first millisecond.
inline double peak() {
  constexpr std::size_t rounds = 1000000;
  std::array<double, 15> rates{};
  for (double& rate : rates) {
    const double start = seconds();
    benchmark::DoNotOptimize(detail::chains(rounds, detail::Floats(0.0F)));
    rate = 12.0 * rounds * static_cast<double>(tesla::backend::cpu::width<float>) / (seconds() - start);
  }
  std::nth_element(rates.begin(), rates.begin() + rates.size() / 2, rates.end());
  return rates[rates.size() / 2];
}

inline double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

/// Medians of seconds a call, the calls taking turns of `each` seconds.
inline std::vector<double> timed(const std::vector<std::function<void()>>& calls, double each, int turns) {
  std::vector<std::size_t> repeats;
  for (const auto& call : calls) {
    call();
    const double start = seconds();
    call();
    repeats.push_back(1 + static_cast<std::size_t>(each / std::max(seconds() - start, 1e-7)));
  }
  std::vector<std::vector<double>> times(calls.size());
  for (int turn = 0; turn < turns; ++turn)
    for (std::size_t c = 0; c < calls.size(); ++c) {
      const double start = seconds();
      for (std::size_t k = 0; k < repeats[c]; ++k) calls[c]();
      times[c].push_back((seconds() - start) / static_cast<double>(repeats[c]));
    }
  std::vector<double> result;
  for (auto& own : times) result.push_back(median(own));
  return result;
}
