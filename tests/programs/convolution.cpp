// Images: height x width x channels outside, as in Keras and in image files.
#include <tesla/tesla.hpp>

int main() {
  auto [train, test] = tesla::data::digits();
  tesla::Sequential model;
  model.add_layer(tesla::Input({28, 28, 1}))
      .add_layer(tesla::Conv2D({.filters = 32, .kernel = {3, 3}, .padding = tesla::same}))
      .add_layer(tesla::BatchNorm())
      .add_layer(tesla::LeakyReLU({.slope = 0.01f}))
      .add_layer(tesla::MaxPool2D({.pool = {2, 2}}))
      .add_layer(tesla::TensorTrainConv2D({.filters = 64, .kernel = {3, 3}, .in = {4, 8}, .out = {8, 8}, .rank = 8}))
      .add_layer(tesla::ReLU())
      .add_layer(tesla::AveragePool2D({.pool = {2, 2}}))
      .add_layer(tesla::Flatten())
      .add_layer(tesla::Dropout({.rate = 0.25f}))
      .add_layer(tesla::Dense({.units = 10, .activation = tesla::softmax}));
  model.compile(tesla::optim::Adam({.learning_rate = tesla::schedule::Cosine({.from = 1e-3f, .steps = 1000})}),
                tesla::loss::SparseCategoricalCrossEntropy({.from_logits = false}),
                {tesla::metric::Accuracy(), tesla::metric::TopK({.k = 3})});
  model.fit(train, {.epochs = 3,
                    .batch_size = 128,
                    .validation = test,
                    .callbacks = {tesla::callback::EarlyStopping({.patience = 2}),
                                  tesla::callback::Checkpoint({.path = "best.safetensors"}),
                                  tesla::callback::CsvLog({.path = "log.csv"})}});
}
