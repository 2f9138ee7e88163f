// The three products of a dense layer beside the peak of multiply-adds, in one run. The counter `peak` is the share of
// the peak of one thread, measured just before; on two threads up to 2 is to be had.
#include <tesla/backend/cpu/cpu.hpp>

#include <benchmark/benchmark.h>
#include <algorithm>
#include <measure.hpp>

namespace {

using tesla::backend::Cpu;

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
