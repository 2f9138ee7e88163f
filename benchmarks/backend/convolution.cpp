// The three passes of convolutions beside the peak of multiply-adds, in one run. The counter `peak` is the share of the
// peak of one thread, measured just before; on two threads up to 2 is to be had. Taps that lie in the padding are no
// work and do not count. Images are padded so that only the stride makes them smaller.
#include <tesla/backend/cpu/cpu.hpp>

#include <benchmark/benchmark.h>
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <measure.hpp>
#include <vector>

namespace {

using tesla::backend::Cpu;

enum Kind { forward, input_gradient, filters_gradient };
constexpr const char* names[] = {"forward", "input gradient", "filters' gradient"};

tesla::backend::ConvolutionAxis axis(std::size_t in, std::size_t kernel, std::size_t stride) {
  const std::size_t out = (in + stride - 1) / stride, read = (out - 1) * stride + kernel;
  return {in, out, kernel, stride, 1, read > in ? (read - in) / 2 : 0};
}

/// Inputs that the outputs of an axis read, all together.
double taps_inside(const tesla::backend::ConvolutionAxis& a) {
  const tesla::backend::Reading outputs = tesla::backend::outputs_of(a);
  std::size_t sum = 0;
  for (std::size_t j = 0; j < outputs.count; ++j) sum += outputs.taps_at(j).size();
  return static_cast<double>(sum);
}

/// channels, filters, rows and columns of the images, those of the kernel, stride, samples, threads, kind
void convolve(benchmark::State& state) {
  const auto argument = [&](std::size_t i) { return static_cast<std::size_t>(state.range(i)); };
  tesla::backend::Convolution c;
  c.channels = argument(0), c.filters = argument(1);
  c.rows = c.columns = axis(argument(2), argument(3), argument(4));
  const std::size_t batch = argument(5), lanes = Cpu::lanes<float>(batch),
                    stride = tesla::backend::row_stride<float>(c.depth());
  tesla::set_threads(static_cast<int>(state.range(6)));
  const auto kind = static_cast<Kind>(state.range(7));

  const std::size_t samples = tesla::round_up(batch, lanes);
  tesla::Buffer<float> x(c.in_features() * samples), y(c.out_features() * samples), w(c.filters * stride), dw(w.size()),
      bias(c.filters);
  for (auto* buffer : {&x, &y, &w, &bias}) std::fill(buffer->begin(), buffer->end(), 0.5F);
  const tesla::Panels<float> inputs{x.data(), c.in_features(), batch, lanes},
      outputs{y.data(), c.out_features(), batch, lanes};
  const tesla::Panels<const float> read_inputs = inputs, read_outputs = outputs;
  const tesla::backend::Matrix<float> filters{w.data(), c.filters, c.depth(), stride},
      gradient{dw.data(), c.filters, c.depth(), stride};
  Cpu backend;
  const auto need = Cpu::convolution_memory<float>(c, batch, true);
  tesla::Buffer<float> kept(need.kept), scratch(need.scratch);
  if (need.kept != 0) backend.prepare_filters(c, filters, batch, kept.data());

  const double before = peak();
  for (auto _ : state) {
    if (kind == forward)
      backend.convolve(c, filters, static_cast<const float*>(kept.data()), read_inputs, outputs,
                       static_cast<const float*>(bias.data()));
    else if (kind == input_gradient)
      backend.convolve_input(c, filters, read_outputs, inputs, scratch.data());
    else
      backend.convolve_filters(c, read_outputs, read_inputs, gradient, bias.data(), scratch.data());
    benchmark::ClobberMemory();
  }
  const double work = taps_inside(c.rows) * taps_inside(c.columns) *
                      static_cast<double>(c.channels * c.filters * batch) * static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * work, benchmark::Counter::kIsRate);
  state.counters["peak"] = benchmark::Counter(work / before, benchmark::Counter::kIsRate);
  state.SetLabel(names[kind]);
}

void shapes(benchmark::internal::Benchmark* benchmark) {
  constexpr std::int64_t all[][6] = {{32, 64, 28, 3, 1, 64},  {64, 64, 14, 3, 1, 64},  {128, 128, 14, 3, 1, 64},
                                     {64, 128, 28, 1, 1, 64}, {64, 128, 28, 3, 2, 64}, {1, 32, 28, 3, 1, 64},
                                     {64, 64, 28, 3, 1, 1}};
  benchmark->ArgNames({"channels", "filters", "side", "kernel", "stride", "samples", "threads", "kind"});
  for (const auto& shape : all)
    for (const int threads : {1, 2})
      for (const Kind kind : {forward, input_gradient, filters_gradient}) {
        std::vector<std::int64_t> arguments(std::begin(shape), std::end(shape));
        arguments.insert(arguments.end(), {threads, kind});
        benchmark->Args(arguments);
      }
}

BENCHMARK(convolve)->Apply(shapes)->UseRealTime();

}  // namespace
