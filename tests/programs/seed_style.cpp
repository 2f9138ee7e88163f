// The three ways in which the documents that TESLA comes from write a program.
#include <tesla/tesla.hpp>

#include <iostream>

int main() {
  auto [train, test] = tesla::data::digits();

  // 1. A tensor network by its dimensions: every layer maps input_dim to output_dim through a bond of hidden_dim,
  //    two cores contracted over the bond, and may factor each core further into modes.
  tesla::TensorNetwork tn({.input_dim = 784, .hidden_dim = 16, .output_dim = 128, .activation = tesla::leaky_relu});
  tn.add_layer({.input_dim = 128, .hidden_dim = 8, .output_dim = 64, .activation = tesla::leaky_relu});
  tn.add_layer({.input_dim = 64, .hidden_dim = 8, .output_dim = 10});
  // later: .attention = tesla::attention::sparse, .checkpoint_gradients, .mixed_precision, .data_parallel,
  // .model_parallel
  tn.compile(tesla::optim::Adam(), tesla::loss::SparseCategoricalCrossEntropy(), {tesla::metric::Accuracy()});
  tn.fit(train.x(), train.y(), {.epochs = 1});

  // 2. A list of layers, as in torch.nn.Sequential, and an optimizer over its parameters.
  tesla::Sequential net{tesla::Flatten(), tesla::Dense({.units = 128, .activation = tesla::relu}),
                        tesla::Dense({.units = 10})};
  net.build({28, 28, 1});
  auto optimizer = tesla::optim::SGD(net.parameters(), {.learning_rate = 0.01f});
  auto loss = tesla::loss::SparseCategoricalCrossEntropy();
  tesla::train(net, train.x(), train.y(), optimizer, loss, {.epochs = 1, .batch_size = 32});
  std::cout << tesla::evaluate(net, test.x(), test.y(), loss) << '\n';
  std::cout << tesla::utils::accuracy(net.predict(test.x()), test.y()) << '\n';

  // 3. One step at a time, for those who write their own loop.
  for (auto batch : tesla::data::batches(train, {.size = 64, .shuffle = true, .seed = 1, .drop_last = true})) {
    double value = net.train_step(batch, loss, optimizer);
    if (value < 0.1) break;
  }
}
