// Models by their dimensions: what they compute, their plans, files and errors.
#include <tesla/tesla.hpp>

#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <io/temporary_folder.hpp>
#include <model/support.hpp>
#include <string>
#include <utility>
#include <vector>

using tesla::Dense;
using tesla::Sequential;
using tesla::Shape;
using tesla::TensorNetwork;
namespace loss = tesla::loss;
namespace optim = tesla::optim;

namespace {

/// f(W x + b) of each row by plain loops, W being the product of the two cores.
template <class F>
std::vector<double> through_cores(const std::vector<double>& x, const tesla::Tensor<float>& first,
                                  const tesla::Tensor<float>& second, const tesla::Tensor<float>& bias, const F& f) {
  const std::size_t in = first.shape()[2], bond = first.shape()[3], out = second.shape()[1];
  CHECK(first.shape() == Shape{1, 1, in, bond});
  CHECK(second.shape() == Shape{bond, out, 1, 1});
  std::vector<double> result;
  for (std::size_t s = 0; s < x.size() / in; ++s)
    for (std::size_t o = 0; o < out; ++o) {
      double y = bias[o];
      for (std::size_t i = 0; i < in; ++i)
        for (std::size_t r = 0; r < bond; ++r) y += first[i * bond + r] * second[r * out + o] * x[s * in + i];
      result.push_back(f(y));
    }
  return result;
}

double leaky(double v) { return v > 0 ? v : 0.01 * v; }

}  // namespace

TEST_CASE("a tensor network is the products of its cores", "[tensor_network]") {
  // Bonds below, at and above the smaller dimension; with the last ones, predictions may merge the cores.
  for (const auto& [in, bond, out] :
       std::vector<std::array<std::size_t, 3>>{{13, 3, 7}, {40, 16, 33}, {5, 9, 8}, {8, 1, 70}, {64, 60, 64}})
    for (const std::size_t batch : std::vector<std::size_t>{1, 6, 70}) {
      INFO(in << " " << bond << " " << out << ", batch " << batch);
      TensorNetwork model({.input_dim = in, .hidden_dim = bond, .output_dim = out, .activation = tesla::leaky_relu});
      model.add_layer({.input_dim = out, .hidden_dim = 2, .output_dim = 3});
      for (auto& p : model.parameters())
        if (p.name().find("bias") != std::string::npos) p.assign(normal_numbers(p.shape(), 9));
      const auto x = normal_numbers({batch, in}, 4);
      const auto value = [&](const char* name) { return model.parameter(name).value(); };
      auto expected = through_cores(std::vector<double>(x.begin(), x.end()), value("tensor_train.core.0"),
                                    value("tensor_train.core.1"), value("tensor_train.bias"), leaky);
      expected = through_cores(expected, value("tensor_train_1.core.0"), value("tensor_train_1.core.1"),
                               value("tensor_train_1.bias"), [](double v) { return v; });
      const auto y = model.predict(x);
      REQUIRE(y.size() == expected.size());
      for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(y[i] == Approx(expected[i]).margin(1e-4));
    }
}

TEST_CASE("a tensor network learns as two dense layers do", "[tensor_network]") {
  const auto check = [](std::size_t in, std::size_t bond, std::size_t out, std::size_t batch, std::size_t steps) {
    INFO(in << " " << bond << " " << out << ", batch " << batch);
    TensorNetwork network({.input_dim = in, .hidden_dim = bond, .output_dim = out, .activation = tesla::tanh});
    network.add_layer({.input_dim = out, .hidden_dim = 3, .output_dim = 4});
    Sequential dense{Dense({.units = bond, .use_bias = false}), Dense({.units = out, .activation = tesla::tanh}),
                     Dense({.units = 3, .use_bias = false}), Dense({.units = 4})};
    dense.build({in});
    auto from = network.parameters(), to = dense.parameters();
    for (const std::size_t k :
         std::vector<std::size_t>{0, 1, 3, 4}) {  // cores are {inputs, outputs}, weights {outputs, inputs}
      const auto core = from[k].value();
      const Shape turned = to[k].shape();
      tesla::Tensor<float> w(turned);
      for (std::size_t o = 0; o < turned[0]; ++o)
        for (std::size_t i = 0; i < turned[1]; ++i) w(o, i) = core[i * turned[0] + o];
      to[k].assign(w);
    }
    const auto x = normal_numbers({batch, in}, 5), y = normal_numbers({batch, 4}, 6);
    for (auto* model : {static_cast<Sequential*>(&network), &dense})
      model->compile(optim::SGD({.learning_rate = 0.1, .momentum = 0.9}), loss::MeanSquaredError());
    for (std::size_t i = 0; i < steps; ++i)
      CHECK(network.train_step(x, y) == Approx(dense.train_step(x, y)).margin(1e-6));
    const auto a = network.predict(x), b = dense.predict(x);
    for (std::size_t i = 0; i < a.size(); ++i) REQUIRE(a[i] == Approx(b[i]).margin(1e-4));
  };
  check(13, 5, 7, 1, 5);
  check(13, 5, 7, 6, 5);
  check(20, 16, 40, 70, 5);
  check(16, 16, 16, 2000, 5);  // merged in training too
}

TEST_CASE("the plan of a product of two matrices says whether they are merged", "[tensor_network]") {
  TensorNetwork thin({.input_dim = 512, .hidden_dim = 8, .output_dim = 256});
  CHECK_THAT(thin.plan(64), Catch::Contains("training at batch 64: (1) (2)") &&
                                Catch::Contains("core 1: 8 x 512 matrix") &&
                                Catch::Contains("core 2: 256 x 8 matrix") && Catch::Contains("rejected: (1 2)"));
  TensorNetwork thick({.input_dim = 256, .hidden_dim = 256, .output_dim = 256});
  CHECK_THAT(thick.plan(32), Catch::Contains("training at batch 32: (1) (2)") &&
                                 Catch::Contains("predicting at batch 32: (1 2), one matrix"));
  TensorNetwork many({.input_dim = 16, .hidden_dim = 16, .output_dim = 16});
  CHECK_THAT(many.plan(2000), Catch::Contains("training at batch 2000: (1 2), one matrix"));
}

TEST_CASE("a tensor network keeps the mean square of what it is given at first", "[tensor_network]") {
  for (const auto& [in, bond, out] :
       std::vector<std::array<std::size_t, 3>>{{784, 16, 128}, {128, 8, 64}, {300, 200, 100}}) {
    TensorNetwork model({.input_dim = in, .hidden_dim = bond, .output_dim = out});
    const auto x = normal_numbers({500, in}, 7);
    double squares = 0;
    for (const float v : model.predict(x)) squares += v * v;
    CHECK(squares / static_cast<double>(500 * out) == Approx(1).epsilon(0.1));
  }
}

TEST_CASE("a tensor network is a Sequential of tensor-train layers, bit for bit", "[tensor_network]") {
  const auto x = normal_numbers({50, 4, 3, 1}, 1);
  const auto y = labels_below(5, 50, 2);
  TensorNetwork network({.input_dim = 12, .hidden_dim = 4, .output_dim = 6, .activation = tesla::relu, .seed = 3});
  network.add_layer({.input_dim = 6, .hidden_dim = 2, .output_dim = 5, .use_bias = false, .name = "last"});
  Sequential model({.seed = 3});
  model.add_layer(tesla::Input({12}))
      .add_layer(tesla::TensorTrain({.in = {12, 1}, .out = {1, 6}, .rank = 4, .activation = tesla::relu}))
      .add_layer(tesla::TensorTrain({.in = {6, 1}, .out = {1, 5}, .rank = 2, .use_bias = false}));
  for (auto* m : {static_cast<Sequential*>(&network), &model}) {
    m->compile(optim::Adam(), loss::SparseCategoricalCrossEntropy(), {tesla::metric::Accuracy()});
    m->fit(x, y, {.epochs = 2, .batch_size = 16, .verbose = 0});
  }
  CHECK(parameter_bits(network) == parameter_bits(model));
  CHECK(network.evaluate(x, y)["accuracy"] == model.evaluate(x, y)["accuracy"]);
  // Images or rows of numbers: the first layer says what it takes.
  CHECK(bits(network.predict(x)) == bits(network.predict(x.reshaped({50, 12}))));

  TensorNetwork modes(
      {.input_dim = 12, .hidden_dim = 3, .output_dim = 6, .input_modes = {4, 3}, .output_modes = {2, 3}});
  CHECK(modes.parameter("tensor_train.core.1").shape() == Shape{3, 3, 3, 1});
}

TEST_CASE("a tensor network takes other layers, and is one of another model", "[tensor_network]") {
  TensorNetwork network({.input_dim = 12, .hidden_dim = 4, .output_dim = 6});
  network.add_layer(tesla::BatchNorm())
      .add_layer({.input_dim = 6, .hidden_dim = 2, .output_dim = 5})
      .add_layer(Dense({.units = 3}));
  CHECK(network.output_shape() == Shape{3});
  CHECK_THAT(network.summary_text(), Catch::Contains("tensor_train_1"));
  network.add_layer({.input_dim = 4, .hidden_dim = 2, .output_dim = 2});  // only build() can tell
  check_raises<tesla::ShapeError>([&] { network.build({12}); }, {"tensor_train_2", "its input has 3"});

  TensorNetwork inner({.input_dim = 6, .hidden_dim = 2, .output_dim = 2});
  const auto x = normal_numbers({9, 6}, 1);
  const auto expected = inner.predict(x);
  Sequential outer;
  outer.add_layer(std::move(inner));
  CHECK(bits(outer.predict(x)) == bits(expected));

  TensorNetwork later;
  later.add_layer({.input_dim = 6, .hidden_dim = 2, .output_dim = 2});
  CHECK(bits(later.predict(x)) == bits(expected));
}

TEST_CASE("a tensor network comes back from a file", "[tensor_network]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("network.safetensors");
  const auto x = normal_numbers({50, 12}, 1);
  const auto y = labels_below(5, 50, 2);
  TensorNetwork network({.input_dim = 12, .hidden_dim = 4, .output_dim = 6, .activation = tesla::relu});
  network.add_layer({.input_dim = 6, .hidden_dim = 2, .output_dim = 5});
  network.compile(optim::Adam(), loss::SparseCategoricalCrossEntropy());
  network.fit(x, y, {.epochs = 2, .verbose = 0});
  network.save(path);
  TensorNetwork again = TensorNetwork::load(path);
  Sequential plain = Sequential::load(path);
  CHECK(bits(again.predict(x)) == bits(network.predict(x)));
  for (auto* m : {static_cast<Sequential*>(&network), static_cast<Sequential*>(&again), &plain})
    m->fit(x, y, {.verbose = 0});
  CHECK(parameter_bits(again) == parameter_bits(network));
  CHECK(parameter_bits(plain) == parameter_bits(network));
  check_raises<tesla::ShapeError>([&] { again.add_layer({.input_dim = 6, .hidden_dim = 2, .output_dim = 5}); },
                                  {"\"tensor_train_1\"", "gives 5"});
}

TEST_CASE("dimensions that do not fit are errors when a layer is added", "[tensor_network]") {
  TensorNetwork network({.input_dim = 12, .hidden_dim = 4, .output_dim = 6});
  check_raises<tesla::ShapeError>([&] { network.add_layer({.input_dim = 7, .hidden_dim = 2, .output_dim = 5}); },
                                  {".input_dim = 7", "\"tensor_train\"", "gives 6"});
  check_raises<tesla::UsageError>([&] { network.add_layer({.input_dim = 6, .output_dim = 5}); },
                                  {".hidden_dim", "not 6, 0 and 5"});
  check_raises<tesla::UsageError>([] { TensorNetwork({.hidden_dim = 1, .output_dim = 5}); }, {"not 0, 1 and 5"});
  check_raises<tesla::ShapeError>(
      [] {
        TensorNetwork({.input_dim = 12, .hidden_dim = 1, .output_dim = 6, .input_modes = {3, 4}});
      },
      {".input_modes and .output_modes", "{3, 4} and {}"});
  check_raises<tesla::ShapeError>(
      [&] {
        network.add_layer(
            {.input_dim = 6, .hidden_dim = 1, .output_dim = 6, .input_modes = {2, 2}, .output_modes = {2, 3}});
      },
      {"make 4 -> 6, not 6 -> 6"});
  network.add_layer({.input_dim = 6, .hidden_dim = 2, .output_dim = 5});  // nothing was added by those
  CHECK(network.predict(normal_numbers({2, 3, 4}, 1)).shape() == Shape{2, 5});
  check_raises<tesla::ShapeError>([&] { network.predict(normal_numbers({2, 13}, 1)); }, {"12 features", "gives 13"});
}
