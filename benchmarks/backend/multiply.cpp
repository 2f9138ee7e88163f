// The three products of a dense layer beside the peak of multiply-adds, in one run. The counter `peak` is the share of
// the peak of one thread, measured just before; on two threads up to 2 is to be had.
#include <tesla/backend/cpu/cpu.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>

namespace {

using tesla::backend::Cpu;
using tesla::backend::cpu::Vector;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Twelve independent chains of multiply-adds, all in registers.
[[gnu::noinline]] Vector<float> chains(std::size_t rounds, Vector<float> s) {
  Vector<float> a0 = s + 1.0F, a1 = s + 1.1F, a2 = s + 1.2F, a3 = s + 1.3F, a4 = s + 1.4F, a5 = s + 1.5F, a6 = s + 1.6F,
                a7 = s + 1.7F, a8 = s + 1.8F, a9 = s + 1.9F, b0 = s + 2.0F, b1 = s + 2.1F;
  const Vector<float> w(0.999F), u(1e-3F);
  for (std::size_t i = 0; i < rounds; ++i) {
    a0 = xsimd::fma(w, a0, u), a1 = xsimd::fma(w, a1, u), a2 = xsimd::fma(w, a2, u), a3 = xsimd::fma(w, a3, u);
    a4 = xsimd::fma(w, a4, u), a5 = xsimd::fma(w, a5, u), a6 = xsimd::fma(w, a6, u), a7 = xsimd::fma(w, a7, u);
    a8 = xsimd::fma(w, a8, u), a9 = xsimd::fma(w, a9, u), b0 = xsimd::fma(w, b0, u), b1 = xsimd::fma(w, b1, u);
  }
  return a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + b0 + b1;
}

/// Multiply-adds a second of one thread: the median, since a processor may run faster for its first millisecond.
double peak() {
  constexpr std::size_t rounds = 1000000;
  std::array<double, 15> rates{};
  for (double& rate : rates) {
    const double start = seconds();
    benchmark::DoNotOptimize(chains(rounds, Vector<float>(0.0F)));
    rate = 12.0 * rounds * static_cast<double>(tesla::backend::cpu::width<float>) / (seconds() - start);
  }
  std::nth_element(rates.begin(), rates.begin() + rates.size() / 2, rates.end());
  return rates[rates.size() / 2];
}

enum Kind { forward, input_gradient, weight_gradient };

/// in, out, samples, kind, threads
void multiply(benchmark::State& state) {
  const auto in = static_cast<std::size_t>(state.range(0)), out = static_cast<std::size_t>(state.range(1));
  const auto batch = static_cast<std::size_t>(state.range(2));
  const auto kind = static_cast<Kind>(state.range(3));
  tesla::set_threads(static_cast<int>(state.range(4)));
  const std::size_t lanes = Cpu::lanes<float>(batch), panels = batch / lanes,
                    stride = tesla::backend::row_stride<float>(in);
  const auto d = [](std::size_t n) { return static_cast<std::ptrdiff_t>(n); };
  tesla::Buffer<float> w(out * stride), x(in * batch), y(out * batch), rows(batch * stride);
  for (auto* buffer : {&w, &x, &y, &rows}) std::fill(buffer->begin(), buffer->end(), 0.5F);

  tesla::backend::Product<float> p;
  if (kind == weight_gradient) {
    p.rows = out, p.columns = stride, p.segments = panels, p.depth = lanes;
    p.a = y.data(), p.a_row = d(lanes), p.a_depth = 1, p.a_segment = d(out * lanes);
    p.b = rows.data(), p.b_depth = d(stride), p.b_segment = d(lanes * stride);
    p.c = w.data(), p.c_row = d(stride);
  } else {
    const bool up = kind == forward;
    const std::size_t from = up ? in : out, to = up ? out : in;
    p.count = panels, p.rows = to, p.depth = from, p.columns = lanes;
    p.a = w.data(), p.a_row = up ? d(stride) : 1, p.a_depth = up ? 1 : d(stride);
    p.b = (up ? x : y).data(), p.b_depth = d(lanes), p.b_item = d(from * lanes);
    p.c = (up ? y : x).data(), p.c_row = d(lanes), p.c_item = d(to * lanes);
  }
  Cpu backend;
  const double before = peak();
  for (auto _ : state) {
    backend.multiply(p);
    benchmark::ClobberMemory();
  }
  const double work = static_cast<double>(in * out * batch) * static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * work, benchmark::Counter::kIsRate);
  state.counters["peak"] = benchmark::Counter(work / before, benchmark::Counter::kIsRate);
}

BENCHMARK(multiply)
    ->ArgNames({"in", "out", "samples", "kind", "threads"})
    ->ArgsProduct({{1024}, {1024}, {128}, {forward, input_gradient, weight_gradient}, {1, 2}})
    ->ArgsProduct({{784}, {300}, {128}, {forward, input_gradient, weight_gradient}, {1, 2}})
    ->ArgsProduct({{300}, {100}, {128}, {forward, input_gradient, weight_gradient}, {1}})
    ->ArgsProduct({{784}, {300}, {32}, {forward, input_gradient, weight_gradient}, {1}})
    ->UseRealTime();

/// Many small products that share one matrix: count, rows = depth, columns.
void multiply_many(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0)), size = static_cast<std::size_t>(state.range(1));
  const auto columns = static_cast<std::size_t>(state.range(2));
  tesla::set_threads(1);
  const auto d = [](std::size_t n) { return static_cast<std::ptrdiff_t>(n); };
  tesla::Buffer<float> w(size * size), x(count * size * columns), y(count * size * columns);
  tesla::backend::Product<float> p;
  p.count = count, p.rows = size, p.depth = size, p.columns = columns;
  p.a = w.data(), p.a_row = d(size), p.a_depth = 1;
  p.b = x.data(), p.b_depth = d(columns), p.b_item = d(size * columns);
  p.c = y.data(), p.c_row = d(columns), p.c_item = d(size * columns);
  Cpu backend;
  const double before = peak();
  for (auto _ : state) {
    backend.multiply(p);
    benchmark::ClobberMemory();
  }
  const double work = p.multiply_adds() * static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * work, benchmark::Counter::kIsRate);
  state.counters["peak"] = benchmark::Counter(work / before, benchmark::Counter::kIsRate);
}

BENCHMARK(multiply_many)->ArgNames({"count", "size", "columns"})->Args({256, 32, 64})->UseRealTime();

}  // namespace
