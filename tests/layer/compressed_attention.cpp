// Attention with tensor-trains and sparse weights, against attention with the dense matrices that these are.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <io/temporary_folder.hpp>
#include <layer/training_checks.hpp>

namespace test_layer_compressed_attention {

using namespace layer_test;

namespace {

/// The matrix of a layer, and its bias: what unit vectors and zeros give.
template <class L>
std::pair<std::vector<double>, std::vector<double>> dense_of(const L& layer, std::size_t inputs, std::size_t outputs) {
  BasicSequential<double, backend::Reference> model;
  model.add_layer(layer);
  model.build({inputs});
  Tensor<double> x({inputs + 1, inputs});
  for (std::size_t i = 0; i < inputs; ++i) x[i * inputs + i] = 1;
  const Tensor<double> y = model.predict(x);
  std::vector<double> matrix(outputs * inputs), bias(y.data() + inputs * outputs, y.data() + y.size());
  for (std::size_t i = 0; i < inputs; ++i)
    for (std::size_t o = 0; o < outputs; ++o) matrix[o * inputs + i] = y[i * outputs + o] - bias[o];
  return {matrix, bias};
}

/// Predicts as attention does whose weights are the matrices of the compressed one.
template <class L, class Inner>
void check_like_dense(L layer, const Inner& projection) {
  layer.name = "a", layer.bias_initializer = init::normal(0.2);
  const std::size_t features = 16;
  for (const std::size_t length : {5, 70})
    for (const std::size_t batch : {1, 3, 40}) {
      CAPTURE(length, batch);
      BasicSequential<double, backend::Cpu> model({.seed = 5}), dense;
      model.add_layer(layer);
      model.build({length, features});
      dense.add_layer(MultiHeadAttention(
          {.heads = layer.heads, .key_heads = layer.key_heads, .causal = layer.causal, .name = "a"}));
      dense.build({length, features});
      const L trained = model.template layer<L>("a");
      std::size_t at = 0;
      for (const std::string part : {"query", "key", "value", "output"}) {
        const bool narrow = part == "key" || part == "value";
        auto [matrix, bias] =
            projection(trained, part, narrow ? features / layer.heads * layer.key_heads : features, at);
        dense.parameter("a." + part + ".weight").assign(matrix);
        dense.parameter("a." + part + ".bias").assign(bias);
      }
      Tensor<double> x({batch, length, features});
      random::fill_normal(x, {.seed = 2});
      const Tensor<double> y = model.predict(x), expected = dense.predict(x);
      double worst = 0;
      for (std::size_t k = 0; k < y.size(); ++k) worst = std::max(worst, std::abs(y[k] - expected[k]));
      CHECK(worst < 1e-12);
    }
}

const TensorTrainMultiHeadAttention train({.heads = 4, .key_heads = 2, .cores = 2, .rank = 3, .causal = true});
const SparseMultiHeadAttention sparse_one({.heads = 4, .key_heads = 2, .density = 0.3, .causal = true});

}  // namespace

TEST_CASE("attention with tensor-trains is attention with their matrices", "[layer][attention]") {
  check_like_dense(train, [](const auto& layer, const std::string&, std::size_t outputs, std::size_t& at) {
    TensorTrain own = layer.projection(16, outputs);
    const std::size_t count = own.in.rank() + 1;
    own.initial =
        std::make_shared<const layer::Values>(layer.initial->begin() + static_cast<std::ptrdiff_t>(at),
                                              layer.initial->begin() + static_cast<std::ptrdiff_t>(at + count));
    at += count;
    return dense_of(own, 16, outputs);
  });
}

TEST_CASE("attention with sparse weights is attention with their matrices", "[layer][attention]") {
  check_like_dense(sparse_one, [](const auto& layer, const std::string&, std::size_t outputs, std::size_t& at) {
    // The weights of a projection are drawn by the network's seed, the layer's place and the projection's.
    const std::uint64_t seed = 5 + 0x9E3779B97F4A7C15 + at / 2 + 1;
    const auto live = sparse::Pattern::random(outputs, 16, {.density = 0.3, .seed = seed});
    SparseDense own({.units = outputs, .live = live});
    own.initial = std::make_shared<const layer::Values>(layer.initial->begin() + static_cast<std::ptrdiff_t>(at),
                                                        layer.initial->begin() + static_cast<std::ptrdiff_t>(at + 2));
    at += 2;
    return dense_of(own, 16, outputs);
  });
}

TEMPLATE_TEST_CASE("gradients: compressed attention", "[layer][gradients][attention]", backend::Cpu,
                   backend::Reference) {
  for (const std::size_t batch : {1, 5}) {
    TensorTrainMultiHeadAttention own_train = train;
    SparseMultiHeadAttention own_sparse = sparse_one;
    own_train.use_bias = own_sparse.use_bias = false;
    check_training_gradients<TestType>({7, 16}, batch, [&](auto& m) { m.add_layer(own_train); });
    check_training_gradients<TestType>({7, 16}, batch, [&](auto& m) { m.add_layer(own_sparse); });
  }
}

TEST_CASE("compressed attention: both backends train alike", "[layer][attention]") {
  for (const std::size_t length : {6, 70})
    for (const std::size_t batch : {1, 18}) {
      CAPTURE(length, batch);
      check_backends_agree({length, 16}, batch, [&](auto& m) { m.add_layer(train); });
      check_backends_agree({length, 16}, batch, [&](auto& m) { m.add_layer(sparse_one); });
    }
}

TEST_CASE("compressed attention: saved and loaded", "[layer][attention]") {
  const TemporaryFolder folder;
  const auto check = [&](const auto& layer) {
    Sequential model({.seed = 4});
    model.add_layer(Input({9, 16})).add_layer(layer);
    Tensor<float> x({3, 9, 16});
    random::fill_normal(x, {.seed = 2});
    const Tensor<float> y = model.predict(x);
    model.save(folder.path("m"));
    Sequential again = Sequential::load<AllLayers>(folder.path("m"));
    const Tensor<float> same = again.predict(x);
    CHECK(std::equal(y.begin(), y.end(), same.begin()));
  };
  check(train);
  check(sparse_one);
}

TEST_CASE("compressed attention: what does not fit is said", "[layer][attention]") {
  using Catch::Matchers::Contains;
  CHECK_THAT(complaint(TensorTrainMultiHeadAttention({.heads = 2}), {5, 16}), Contains(".rank"));
  CHECK_THAT(complaint(TensorTrainMultiHeadAttention({.heads = 1, .rank = 2}), {5, 1009}), Contains("1009 features"));
}

}  // namespace test_layer_compressed_attention
