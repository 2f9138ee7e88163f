// The tensor-train layer: train it, see its plan, get it from a dense layer, round it.
#include <tesla/tesla.hpp>

#include <iostream>

int main() {
  auto [train, test] = tesla::data::digits();
  tesla::Sequential model;
  model.add_layer(tesla::TensorTrain({.in = {4, 7, 4, 7}, .out = {4, 8, 4, 8}, .rank = 8, .activation = tesla::relu}))
      .add_layer(tesla::TensorTrain({.in = {32, 32}, .out = {16, 16}, .ranks = {5}, .name = "second"}))
      .add_layer(tesla::Dense({.units = 10}));
  model.compile(tesla::optim::Adam({.learning_rate = 2e-3f}), tesla::loss::SparseCategoricalCrossEntropy(),
                {tesla::metric::Accuracy()});
  model.fit(train, {.epochs = 3, .batch_size = 128, .validation = test});
  std::cout << model.plan() << '\n';  // per layer: the bracketing, FLOPs, bytes, what was rejected and why
  // parameters: tensor_train.core.0 {1, 4, 4, 8} ... : core k is {rank before, out_k, in_k, rank after}, and
  // W[(o_1..o_d), (i_1..i_d)] = G_1[o_1, i_1] G_2[o_2, i_2] ... G_d[o_d, i_d]

  // From a dense matrix, to a rank or to a tolerance (relative, Frobenius); back to dense; rounding.
  tesla::Tensor<float> w({625, 784});
  tesla::random::fill_normal(w, {.seed = 5});
  auto tt = tesla::network::tt_svd(w, {.in = {7, 4, 7, 4}, .out = {5, 5, 5, 5}, .max_rank = 16});
  auto exact = tesla::network::tt_svd(w, {.in = {7, 4, 7, 4}, .out = {5, 5, 5, 5}, .tolerance = 1e-6f});
  std::cout << tt.ranks() << ' ' << tt.count_parameters() << ' ' << tesla::relative_error(w, exact.to_dense()) << '\n';
  auto smaller =
      tesla::network::round(exact, {.max_rank = 8});   // never worse than sqrt(d-1) times the best of that rank
  model.add_layer(tesla::TensorTrain::from(smaller));  // also TensorTrain::from(dense layer, options)
}
