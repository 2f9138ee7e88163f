// A step of training within a number of bytes, beside the step that keeps everything, and what its plan promised.
//
//   model_checkpointing         64 equal layers, and a convolutional network, on one thread
//
// Budgets are what the step takes beside its activations, and so many layers' activations, or a share of them.
#include <tesla/tesla.hpp>

#include <cstdio>
#include <functional>
#include <measure.hpp>
#include <numeric>
#include <string>
#include <vector>

namespace {

using namespace tesla;

template <class Add>
Sequential made(const Add& add, const Shape& sample, std::size_t memory) {
  Sequential model(SequentialOptions{1});
  add(model);
  model.compile(optim::SGD({.learning_rate = 1e-4}), loss::MeanSquaredError(), {}, {.memory = memory});
  model.build(sample);
  return model;
}

template <class Add>
void measure(const std::string& name, const Add& add, const Shape& sample, std::size_t batch, double activations) {
  Sequential plain = made(add, sample, 0);
  Tensor<float> x(sample.with_front(batch)), y(plain.output_shape().with_front(batch));
  random::fill_normal(x, {.seed = 1}), random::fill_normal(y, {.seed = 2});
  // With a byte less than all it takes, the plan shows what there is beside the activations.
  Sequential near = made(add, sample, plain.training_bytes(batch) - 64);
  const auto nearly = near.network().checkpoint_plan(batch, y.shape().tail().elements());
  std::size_t all = 0;
  for (const auto& s : nearly->stages) all += (s.out + s.inside) * sizeof(float);
  const std::size_t beside = near.training_bytes(batch) - nearly->memory * sizeof(float);
  const std::size_t budget = beside + static_cast<std::size_t>(activations * static_cast<double>(all));
  Sequential tight = made(add, sample, budget);
  for (int i = 0; i < 5; ++i) plain.train_step(x, y), tight.train_step(x, y);
  const auto plan = tight.network().checkpoint_plan(batch, y.shape().tail().elements());
  const std::vector<double> t = timed({[&] { plain.train_step(x, y); }, [&] { tight.train_step(x, y); }}, 0.2, 11);
  std::printf("%-24s %5zu %10.2f %10.2f %9.2f %9.2f %8.3f %9.3f\n", name.c_str(), batch, static_cast<double>(all) / 1e6,
              static_cast<double>(plan->memory * sizeof(float)) / 1e6, 1e3 * t[0], 1e3 * t[1], t[1] / t[0],
              1 + tight.network().extra_time(*plan));
  if (name == "64 dense, relu")
    std::fputs(model::checkpoint_text(tight.network(), batch, y.shape()[1]).c_str(), stdout);
  std::fflush(stdout);
}

}  // namespace

int main() {
  set_threads(1);
  std::printf("%-24s %5s %10s %10s %9s %9s %8s %9s\n", "network", "batch", "all MB", "within MB", "all ms", "within ms",
              "times", "promised");
  const auto dense = [](const Activation& f) {
    return [f](Sequential& m) {
      for (int i = 0; i < 64; ++i) m.add_layer(Dense({.units = 256, .activation = f}));
    };
  };
  measure("64 dense, relu", dense(relu), {256}, 128, 9.0 / 64);
  measure("64 dense, gelu", dense(gelu), {256}, 128, 9.0 / 64);
  const auto blocks = [](Sequential& m) {
    for (int i = 0; i < 64; ++i) m.add_layer(TransformerBlock({.features = 32, .heads = 2, .causal = true}));
  };
  measure("64 transformer blocks", blocks, {64, 32}, 16, 9.0 / 64);
  const auto images = [](Sequential& m) {
    for (const std::size_t filters : {16, 16, 32, 32, 64, 64}) {
      m.add_layer(Conv2D({.filters = filters, .kernel = {3, 3}, .padding = same}))
          .add_layer(BatchNorm())
          .add_layer(GELU());
      if (filters == 64) m.add_layer(Conv2D({.filters = filters, .kernel = {3, 3}, .padding = same, .stride = {2, 2}}));
    }
    m.add_layer(Flatten()).add_layer(Dense({.units = 128, .activation = relu})).add_layer(Dense({.units = 10}));
  };
  for (const double share : {0.6, 0.4, 0.25}) measure("convolutions", images, {28, 28, 1}, 32, share);
}
