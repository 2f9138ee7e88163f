// Trains a tiny model.
#include <tesla/tesla.hpp>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string_view>

const char* version_in_second_unit();

int main() {
  tesla::Tensor<float> x({16, 3});
  tesla::Tensor<std::int32_t> y({16});
  tesla::Sequential model;
  model.add_layer(tesla::Dense({.units = 4, .activation = tesla::relu})).add_layer(tesla::Dense({.units = 2}));
  model.compile(tesla::optim::SGD({.learning_rate = 0.1f}), tesla::loss::SparseCategoricalCrossEntropy(),
                {tesla::metric::Accuracy()});
  auto history = model.fit(x, y, {.epochs = 2, .batch_size = 8, .verbose = 0});
  std::printf("version %s, loss %f\n", tesla::version, static_cast<double>(history["loss"].back()));
  return std::isfinite(history["loss"].back()) && tesla::version == std::string_view(version_in_second_unit()) ? 0 : 1;
}
