// Sequences step by step: what predictions of whole sequences give, without an allocation.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <model/support.hpp>
#include <vector>

namespace test_train_decoder {

using namespace tesla;

namespace {

/// Whole numbers below `tokens`, of which some sequences end with zeros.
template <class T>
Tensor<T> words(std::size_t sequences, std::size_t length, std::size_t tokens) {
  Tensor<T> x({sequences, length});
  const random::Stream random(4, 1);
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = i % length > length / 2 && i / length % 2 == 1 ? T(0) : static_cast<T>(random.below(i, tokens));
  return x;
}

/// Each step of a decoder gives what predict() gives for that step.
template <class Model, class Add>
void check_steps(const Add& add, std::size_t sequences, std::size_t length) {
  using T = typename Model::Scalar;
  Model model({.seed = 3});
  add(model);
  model.build({length});
  const Tensor<T> x = words<T>(sequences, length, 9), y = model.predict(x);
  auto decoder = model.decoder(sequences);
  const std::size_t outputs = y.shape()[2];
  for (int round = 0; round < 2; ++round, decoder.restart()) {
    double worst = 0;
    for (std::size_t t = 0; t < length; ++t) {
      Tensor<T> step({sequences, 1});
      for (std::size_t s = 0; s < sequences; ++s) step[s] = x[s * length + t];
      const Tensor<T> out = decoder.decode(step);
      REQUIRE(out.shape() == Shape{sequences, outputs});
      for (std::size_t s = 0; s < sequences; ++s)
        for (std::size_t o = 0; o < outputs; ++o)
          worst = std::max(worst, std::abs(static_cast<double>(out[s * outputs + o]) -
                                           static_cast<double>(y[(s * length + t) * outputs + o])));
    }
    CHECK(worst < (std::is_same_v<T, float> ? 2e-5 : 1e-12));
    CHECK(decoder.place() == length);
  }
}

const auto transformer = [](auto& m) {
  m.add_layer(Embedding({.tokens = 9, .units = 8})).add_layer(Positions({.initializer = init::normal(1)}));
  m.add_layer(TransformerBlock({.features = 8, .heads = 2, .causal = true, .rotary = true}));
  m.add_layer(TransformerBlock(
      {.features = 8, .heads = 4, .key_heads = 2, .pattern = attention::sliding_window(5, 1), .causal = true}));
  m.add_layer(LayerNorm()).add_layer(Dropout()).add_layer(TimeDistributed(Dense({.units = 9}), "logits"));
};
const auto others = [](auto& m) {
  m.add_layer(Input({20})).add_layer(Embedding({.tokens = 9, .units = 16}));
  m.add_layer(Residual(RMSNorm(), TensorTrainMultiHeadAttention({.heads = 2, .rank = 3, .causal = true}), GELU()));
  m.add_layer(SparseMultiHeadAttention({.heads = 4, .density = 0.4, .causal = true, .rotary = true}));
  m.add_layer(MultiHeadAttention({.heads = 2, .causal = true, .masking = true, .mask_value = 0}));
  m.add_layer(TimeDistributed(Dense({.units = 5}))).add_layer(BatchNorm()).add_layer(Softmax());
};

}  // namespace

TEMPLATE_TEST_CASE("decoding gives what predictions of whole sequences give", "[train][decoder]",
                   (BasicSequential<float, backend::Cpu>), (BasicSequential<double, backend::Reference>)) {
  for (const std::size_t sequences : {1, 3, 20}) {
    CAPTURE(sequences);
    check_steps<TestType>(transformer, sequences, 70);
    check_steps<TestType>(others, sequences, 20);
  }
}

TEST_CASE("a decoder follows the parameters, and not a model that is built anew", "[train][decoder]") {
  Sequential model({.seed = 3});
  transformer(model);
  model.build({10});
  auto decoder = model.decoder();
  const Tensor<float> word({1, 1});
  const Tensor<float> before = decoder.decode(word);
  model.parameter("logits.bias").assign(std::vector<float>(9, 1.0F));
  decoder.restart();
  const Tensor<float> after = decoder.decode(word);
  for (std::size_t i = 0; i < 9; ++i) CHECK(after[i] == Approx(before[i] + 1));
  model.add_layer(GELU());
  model.build({10});
  check_raises<UsageError>([&] { decoder.decode(word); }, {"built anew", "another decoder"});
}

TEST_CASE("decoding: what cannot be is said", "[train][decoder]") {
  Sequential model;
  model.add_layer(Embedding({.tokens = 9, .units = 8})).add_layer(MultiHeadAttention({.heads = 2, .causal = true}));
  check_raises<UsageError>([&] { model.decoder(); }, {"decoder", "build"});
  model.build({2});
  check_raises<UsageError>([&] { model.decoder(0); }, {"decoder", "0"});
  auto decoder = model.decoder(2);
  check_raises<ShapeError>([&] { decoder.decode(Tensor<float>({3, 1})); }, {"2 sequences", "{3, 1}"});
  check_raises<ShapeError>([&] { decoder.decode(Tensor<float>({2, 2})); }, {"decode: x"});
  Tensor<float> wrong({2, 1});
  wrong[1] = 9;
  check_raises<DataError>([&] { decoder.decode(wrong); }, {"decode: x", "9"});
  wrong[1] = NAN;
  check_raises<DataError>([&] { decoder.decode(wrong); }, {"decode: x"});
  CHECK(decoder.place() == 0);
  for (int i = 0; i < 2; ++i) decoder.decode(Tensor<float>({2, 1}));
  check_raises<UsageError>([&] { decoder.decode(Tensor<float>({2, 1})); }, {"2 steps", "restart()"});

  const auto refused = [](auto layer, const std::vector<std::string>& words) {
    Sequential m;
    m.add_layer(Embedding({.tokens = 9, .units = 8})).add_layer(std::move(layer));
    m.build({6});
    check_raises<UsageError>([&] { m.decoder(); }, words);
  };
  refused(LSTM({.units = 3}), {"layer 2", "LSTM", "step by step"});
  refused(Flatten(), {"Flatten", "step by step"});
  refused(MultiHeadAttention({.heads = 2}), {"MultiHeadAttention", ".causal = true"});
}

}  // namespace test_train_decoder
