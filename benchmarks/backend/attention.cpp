// Attention of 8 heads of 64 beside the peak of multiply-adds, in one run. The counter `peak` is the share of the peak
// of one thread, measured just before, that live pairs of tokens make up; on two threads up to 2 is to be had. What is
// computed of squares that are live in part is no work and does not count.
#include <tesla/backend/cpu/cpu.hpp>

#include <benchmark/benchmark.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <measure.hpp>
#include <vector>

namespace {

using tesla::backend::Cpu;

enum Kind { dense, causal, window, big_bird };
constexpr const char* names[] = {"dense", "causal", "window of 128 on both sides", "BigBird"};

/// tokens, pattern, whether backward as well, threads
void attend(benchmark::State& state) {
  constexpr std::size_t heads = 8, width = 64, features = heads * width;
  const auto tokens = static_cast<std::size_t>(state.range(0));
  const auto kind = static_cast<Kind>(state.range(1));
  const bool both = state.range(2) != 0;
  tesla::set_threads(static_cast<int>(state.range(3)));
  const tesla::attention::Pattern pattern = kind == window     ? tesla::attention::sliding_window(128)
                                            : kind == big_bird ? tesla::attention::big_bird()
                                                               : tesla::attention::dense();
  const std::size_t lanes = Cpu::lanes<float>(tokens), room = tesla::round_up(tokens, lanes);
  const tesla::backend::AttentionTiles tiles(pattern, kind == causal, tokens, tokens, lanes);
  const tesla::backend::Attention attention{.heads = heads,
                                            .key_heads = heads,
                                            .width = width,
                                            .samples = 1,
                                            .queries = tokens,
                                            .keys = tokens,
                                            .scale = 1 / std::sqrt(static_cast<double>(width)),
                                            .pattern = &pattern,
                                            .causal = kind == causal,
                                            .tiles = &tiles};

  std::vector<tesla::Buffer<float>> buffers;
  for (int i = 0; i < 8; ++i) {
    buffers.emplace_back(features * room);
    for (std::size_t k = 0; k < buffers.back().size(); ++k)
      buffers.back().data()[k] = static_cast<float>((k * 7919 + 31 * static_cast<std::size_t>(i)) % 2000) / 1000 - 1;
  }
  const auto panels = [&](std::size_t i) { return tesla::Panels<float>{buffers[i].data(), features, room, lanes}; };
  const auto read = [&](std::size_t i) { return tesla::Panels<const float>(panels(i)); };
  tesla::Buffer<float> log_sums(heads * room), scratch(Cpu::attention_scratch<float>(attention, lanes));
  const float* const every_key = nullptr;
  Cpu backend;

  const double before = peak();
  for (auto _ : state) {
    backend.attend(attention, read(0), read(1), read(2), every_key, panels(3), log_sums.data());
    if (both)
      backend.attend_gradient(attention, read(0), read(1), read(2), every_key, read(3),
                              static_cast<const float*>(log_sums.data()), read(4), panels(5), panels(6), panels(7),
                              scratch.data());
    benchmark::ClobberMemory();
  }
  const double work =
      (both ? 7.0 : 2.0) * static_cast<double>(tiles.pairs() * features) * static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * work, benchmark::Counter::kIsRate);
  state.counters["peak"] = benchmark::Counter(work / before, benchmark::Counter::kIsRate);
  state.SetLabel(std::string(names[kind]) + (both ? ", forward and backward" : ", forward"));
}

void cases(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"tokens", "pattern", "both", "threads"});
  for (const std::int64_t tokens : {512, 1024, 2048})
    for (const Kind kind : {dense, causal, window, big_bird})
      for (const std::int64_t both : {0, 1})
        for (const std::int64_t threads : {1, 2}) benchmark->Args({tokens, kind, both, threads});
}

BENCHMARK(attend)->Apply(cases)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
