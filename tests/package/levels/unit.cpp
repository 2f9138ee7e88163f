// Compiled once for each level of x86-64, with -march=x86-64-LEVEL -DLEVEL=LEVEL.
#include <tesla/tesla.hpp>

#include <cstdint>

const char* TESLA_CONCAT(isa_, LEVEL)() { return TESLA_STRINGIFY(TESLA_VECTOR_ISA); }

float TESLA_CONCAT(loss_, LEVEL)() {
  tesla::Tensor<float> x({16, 3});
  tesla::Tensor<std::int32_t> y({16});
  tesla::Sequential model;
  model.add_layer(tesla::Dense({.units = 4, .activation = tesla::relu})).add_layer(tesla::Dense({.units = 2}));
  model.compile(tesla::optim::SGD({.learning_rate = 0.1f}), tesla::loss::SparseCategoricalCrossEntropy(),
                {tesla::metric::Accuracy()});
  auto history = model.fit(x, y, {.epochs = 2, .batch_size = 8, .verbose = 0});
  return static_cast<float>(history["loss"].back());
}
