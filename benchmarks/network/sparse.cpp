// Layers with sparse weights against the dense layer of the same size.
//
//   network_sparse              1024 x 1024, the densities of docs/performance.md: times dense
//   network_sparse --sweep [N]  N random shapes, densities and batches (200): is the layer ever slower than dense, and
//                               does it do what its plan promises?
//   network_sparse --wide       a step of 784-30000-30000-30000-10 with ten million live weights
//
// Eight layers take turns, so that no weights are in a cache near by. Everything that is compared is timed in turns,
// and the median of the turns counts.
#include <tesla/layer/sparse_dense.hpp>
#include <tesla/tesla.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <measure.hpp>
#include <memory>
#include <one_layer.hpp>
#include <vector>

namespace {

using namespace tesla;

/// Some layers of the same kind, of which each call runs the next.
class Turns {
 public:
  template <class Make>
  Turns(std::size_t count, const Make& make, std::size_t in, std::size_t batch, OneLayer::Passes passes) {
    for (std::size_t k = 0; k < count; ++k) layers_.push_back(std::make_unique<OneLayer>(make(k), in, batch, passes));
  }
  void run() { layers_[turn_++ % layers_.size()]->run(); }

 private:
  std::vector<std::unique_ptr<OneLayer>> layers_;
  std::size_t turn_ = 0;
};

SparseDense sparse_layer(std::size_t units, std::size_t in, double density, std::size_t block, std::size_t seed) {
  return SparseDense(
      {.units = units,
       .live = sparse::Pattern::random(units, in, {.density = density, .block = {block, 1}, .seed = seed}),
       .block = {block, 1},
       .use_bias = false});
}

void known() {
  constexpr std::size_t size = 1024, count = 8;
  const auto dense_of = [](std::size_t) { return Dense({.units = size, .use_bias = false}); };
  struct Row {
    const char* what;
    std::size_t batch;
    OneLayer::Passes passes;
  };
  std::printf("%-34s %-7s %6s  %7s %9s %9s %7s\n", "1024 x 1024", "threads", "zeros", "block", "us", "dense us",
              "times");
  for (const Row& row : {Row{"forward, batch 128", 128, OneLayer::forward},
                         {"all passes and update, batch 128", 128, OneLayer::step},
                         {"forward, one sample", 1, OneLayer::forward}})
    for (const int threads : {1, 2}) {
      set_threads(threads);
      Turns dense(count, dense_of, size, row.batch, row.passes);
      for (const std::size_t block : {1, 4})
        for (const double density : {0.5, 0.2, 0.1, 0.05, 0.02}) {
          Turns sparse(
              count, [&](std::size_t k) { return sparse_layer(size, size, density, block, k); }, size, row.batch,
              row.passes);
          const std::vector<double> t = timed({[&] { sparse.run(); }, [&] { dense.run(); }}, 0.03, 9);
          std::printf("%-34s %-7d %4.0f %%  %4zu x 1 %9.1f %9.1f %7.2f\n", row.what, threads, 100 * (1 - density),
                      block, 1e6 * t[0], 1e6 * t[1], t[1] / t[0]);
        }
    }
}

void sweep(std::size_t count) {
  set_threads(1);
  const random::Stream random(7);
  std::vector<double> ratios, promised;
  std::size_t good = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto draw = [&](std::uint64_t k, double low, double high) {
      return low * std::pow(high / low, random.uniform(8 * i + k));
    };
    const auto in = static_cast<std::size_t>(draw(0, 32, 2048)), out = static_cast<std::size_t>(draw(1, 32, 2048));
    const auto batch = static_cast<std::size_t>(draw(2, 1, 257));
    const double density = std::min(draw(3, 0.005, 1.2), 1.0);
    const std::size_t block = random.below(8 * i + 4, 2) == 0 ? 1 : 4;
    const bool training = random.below(8 * i + 5, 2) == 0;
    const OneLayer::Passes passes = training ? OneLayer::step : OneLayer::forward;
    OneLayer sparse(sparse_layer(out, in, density, block, i), in, batch, passes);
    OneLayer dense(Dense({.units = out, .use_bias = false}), in, batch, passes);
    const auto plan = sparse.network().layer_at<SparseDense>(1)->plan<float, backend::Cpu>(batch, training);
    const std::vector<double> t = timed({[&] { sparse.run(); }, [&] { dense.run(); }}, 0.004, 7);
    const double times = t[1] / t[0], expected = plan.times_dense();
    ratios.push_back(times), promised.push_back(expected / times);
    good += times >= 0.95 ? 1 : 0;
    if (times < 0.95 || expected / times > 2 || expected / times < 0.5)
      std::printf("%zu x %zu, density %.3f, block %zu, batch %zu, %s, computed %s: %.2f times dense, promised %.2f\n",
                  out, in, density, block, batch, training ? "step" : "forward", plan.dense() ? "dense" : "sparse",
                  times, expected);
  }
  std::printf(
      "%zu shapes: times dense, least %.2f, median %.2f; at least 0.95 in %.3f of them; promised over measured, "
      "median %.2f\n",
      count, *std::min_element(ratios.begin(), ratios.end()), median(ratios),
      static_cast<double>(good) / static_cast<double>(count), median(promised));
}

/// Nobody would hold this dense: 1.8 billion weights.
void wide() {
  constexpr std::size_t width = 30000, batch = 100;
  const double density = 10e6 / (784.0 * width + 2.0 * width * width + 10.0 * width);
  const auto model_of = [&](std::size_t units, double share) {
    Sequential model;
    for (int k = 0; k < 3; ++k) model.add_layer(SparseDense({.units = units, .density = share, .activation = relu}));
    model.add_layer(SparseDense({.units = 10, .density = share}));
    model.compile(optim::Adam(), loss::SparseCategoricalCrossEntropy());
    model.build({784});
    return model;
  };
  Tensor<float> x({batch, 784});
  random::fill_uniform(x, {.seed = 1, .low = 0, .high = 1});
  Tensor<std::int32_t> y({batch});
  for (std::size_t i = 0; i < batch; ++i) y[i] = static_cast<std::int32_t>(i % 10);
  const double start = seconds();
  Sequential model = model_of(width, density);
  std::printf("784-30000-30000-30000-10, density %.4f: %zu live weights, built in %.1f s, %.0f MB for training\n",
              density, model.count_parameters(), seconds() - start,
              static_cast<double>(model.training_bytes(batch)) / 1e6);
  // A layer of 1024 at 2 % tells what a live weight costs where everything is near.
  Sequential small = model_of(1024, 0.02);
  const std::vector<double> t = timed({[&] { model.train_step(x, y); }, [&] { small.train_step(x, y); }}, 0.5, 5);
  const double each = t[0] / static_cast<double>(model.count_parameters()),
               near = t[1] / static_cast<double>(small.count_parameters());
  std::printf(
      "a step at batch %zu: %.3f s, %.1f ns a live weight; in 784-1024-1024-1024-10 at 2 %%: %.1f ns; %.2f times\n",
      batch, t[0], each * 1e9, near * 1e9, each / near);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--sweep") == 0)
    sweep(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 200);
  else if (argc > 1 && std::strcmp(argv[1], "--wide") == 0)
    wide();
  else if (argc > 1)
    return std::fprintf(stderr, "usage: network_sparse [--sweep [N] | --wide]\n"), 2;
  else
    known();
}
