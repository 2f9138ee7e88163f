// Attention: against plain loops, differences of the loss, both backends and PyTorch's numbers.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <complex>
#include <io/temporary_folder.hpp>
#include <layer/training_checks.hpp>

namespace test_layer_attention {

using namespace layer_test;
using layer::MultiHeadAttentionOptions;

namespace {

const std::vector<MultiHeadAttentionOptions> kinds = {
    {.heads = 2},
    {.heads = 4, .key_heads = 2, .width = 3, .causal = true},
    {.heads = 1, .pattern = attention::sliding_window(3, 1), .use_bias = false},
    {.heads = 2, .width = 5, .pattern = attention::strided(4, 1), .causal = true, .masking = true, .mask_value = 0},
    {.heads = 2, .pattern = attention::big_bird(4, 0, 1, 1)},
    {.heads = 3, .key_heads = 1, .width = 4, .rotary = true, .rotary_base = 50},
    {.heads = 2, .pattern = attention::blocks(5, {{0, 0}, {1, 0}})},  // tokens from 10 on read nothing
    {.heads = 2, .key_heads = 1, .causal = true, .dropout = 0.3},
};

/// Sequences of which some steps, and all of sample 1, are zero.
template <class T>
Tensor<T> sequences(std::size_t batch, std::size_t length, std::size_t features) {
  Tensor<T> x({batch, length, features});
  random::fill_normal(x, {.seed = 1});
  for (std::size_t s = 0; s < batch; ++s)
    for (std::size_t t = 0; t < length; ++t)
      for (std::size_t f = 0; f < features; ++f)
        if (s == 1 || (s * 5 + t * 3) % 7 < 2) x[(s * length + t) * features + f] = T(0);
  return x;
}

/// The layer by plain loops over the numbers of its parameters; tokens of x read those of `read`.
template <class L>
std::vector<double> by_loops(const L& layer, const Tensor<double>& x, const Tensor<double>& read) {
  const std::size_t batch = x.shape()[0], length = x.shape()[1], features = x.shape()[2];
  const std::size_t keys = read.shape()[1], read_features = read.shape()[2];
  const std::size_t readers = layer.key_heads == 0 ? layer.heads : layer.key_heads;
  const std::size_t width = layer.width == 0 ? features / layer.heads : layer.width;
  const layer::Values& p = *layer.initial;
  const auto project = [&](std::size_t i, const double* from) {
    const Tensor<double>& w = p[layer.use_bias ? 2 * i : i];
    std::vector<double> out(w.shape()[0]);
    for (std::size_t r = 0; r < out.size(); ++r) {
      out[r] = layer.use_bias ? p[2 * i + 1][r] : 0;
      for (std::size_t c = 0; c < w.shape()[1]; ++c) out[r] += w[r * w.shape()[1] + c] * from[c];
    }
    return out;
  };
  std::vector<double> y;
  for (std::size_t s = 0; s < batch; ++s) {
    std::array<std::vector<std::vector<double>>, 3> qkv;
    std::vector<bool> counts;
    for (std::size_t t = 0; t < length; ++t) qkv[0].push_back(project(0, x.data() + (s * length + t) * features));
    for (std::size_t t = 0; t < keys; ++t) {
      const double* const at = read.data() + (s * keys + t) * read_features;
      for (const std::size_t i : {1U, 2U}) qkv[i].push_back(project(i, at));
      counts.push_back(!layer.masking ||
                       std::any_of(at, at + read_features, [&](double v) { return v != layer.mask_value; }));
    }
    for (std::size_t i = 0; i < 2 && layer.rotary; ++i)  // as complex numbers
      for (std::size_t t = 0; t < qkv[i].size(); ++t)
        for (std::size_t f = 0; f < qkv[i][t].size(); f += 2) {
          const double power = -static_cast<double>(f % width) / static_cast<double>(width);
          const auto turned = std::complex(qkv[i][t][f], qkv[i][t][f + 1]) *
                              std::polar(1.0, static_cast<double>(t) * std::pow(layer.rotary_base, power));
          qkv[i][t][f] = turned.real(), qkv[i][t][f + 1] = turned.imag();
        }
    for (std::size_t q = 0; q < length; ++q) {
      std::vector<double> heads(layer.heads * width, 0.0);
      for (std::size_t h = 0; h < layer.heads; ++h) {
        const std::size_t first = h / (layer.heads / readers) * width;
        std::vector<double> weights(keys, 0.0);
        double total = 0;
        for (std::size_t k = 0; k < keys; ++k) {
          if (!counts[k] || (layer.causal && k > q) || !layer.pattern.live(q, k)) continue;
          double score = 0;
          for (std::size_t d = 0; d < width; ++d) score += qkv[0][q][h * width + d] * qkv[1][k][first + d];
          total += weights[k] = std::exp(score / std::sqrt(static_cast<double>(width)));
        }
        for (std::size_t k = 0; k < keys && total > 0; ++k)
          for (std::size_t d = 0; d < width; ++d) heads[h * width + d] += weights[k] / total * qkv[2][k][first + d];
      }
      const std::vector<double> out = project(3, heads.data());
      y.insert(y.end(), out.begin(), out.end());
    }
  }
  return y;
}

}  // namespace

TEMPLATE_TEST_CASE("attention: what plain loops give", "[layer][attention]", (BasicSequential<float, backend::Cpu>),
                   (BasicSequential<double, backend::Cpu>), (BasicSequential<double, backend::Reference>)) {
  using T = typename TestType::Scalar;
  for (std::size_t i = 0; i < kinds.size(); ++i)
    for (const std::size_t length : {1, 2, 9, 64, 70, 131})
      for (const std::size_t batch : {1, 3, 17}) {
        if (length > 70 && batch > 3) continue;
        MultiHeadAttentionOptions options = kinds[i];
        if (options.pattern.kind == attention::Pattern::Kind::blocks && length < 10) continue;
        options.name = "a";
        options.bias_initializer = init::normal(0.3);
        CAPTURE(i, length, batch);
        TestType model({.seed = 7});
        model.add_layer(MultiHeadAttention(options));
        model.build({length, 6});
        const Tensor<T> x = sequences<T>(batch, length, 6);
        Tensor<double> wide(x.shape());
        std::copy(x.begin(), x.end(), wide.begin());
        const std::vector<double> expected = by_loops(model.template layer<MultiHeadAttention>("a"), wide, wide);
        const Tensor<T> y = model.predict(x);
        double worst = 0;
        for (std::size_t k = 0; k < expected.size(); ++k)
          worst = std::max(worst, std::abs(static_cast<double>(y[k]) - expected[k]));
        CHECK(worst < (std::is_same_v<T, float> ? 1e-5 : 1e-13));
      }
}

TEMPLATE_TEST_CASE("gradients: attention", "[layer][gradients][attention]", backend::Cpu, backend::Reference) {
  for (std::size_t i = 0; i < kinds.size(); ++i)
    for (const std::size_t batch : {1, 5}) {
      CAPTURE(i, batch);
      MultiHeadAttentionOptions options = kinds[i];
      options.use_bias = false;  // that of keys has no gradient
      check_training_gradients<TestType>({11, 6}, batch, [&](auto& m) { m.add_layer(MultiHeadAttention(options)); });
    }
}

TEST_CASE("attention: both backends train alike, over several squares", "[layer][attention]") {
  for (std::size_t i = 0; i < kinds.size(); ++i)
    for (const std::size_t batch : {1, 3, 18}) {
      CAPTURE(i, batch);
      check_backends_agree({67, 6}, batch, [&](auto& model) { model.add_layer(MultiHeadAttention(kinds[i])); });
    }
}

TEMPLATE_TEST_CASE("attention to another sequence: what plain loops give", "[layer][attention]",
                   (BasicSequential<float, backend::Cpu>), (BasicSequential<double, backend::Reference>)) {
  using T = typename TestType::Scalar;
  for (std::size_t i = 0; i < kinds.size(); ++i)
    for (const std::size_t length : {3, 10, 70, 130})
      for (const bool shorter : {false, true}) {
        if (kinds[i].pattern.kind == attention::Pattern::Kind::blocks && length < 10) continue;
        CAPTURE(i, length, shorter);
        MultiHeadAttentionOptions options = kinds[i];
        options.name = "a", options.bias_initializer = init::normal(0.3);
        // A branch of another length and other features.
        const Conv1D other({.filters = 5, .kernel = 2, .stride = 2});
        TestType model({.seed = 7});
        if (shorter)
          model.add_layer(Parallel(CrossAttention(options), Chain(), other));
        else
          model.add_layer(Parallel(CrossAttention(options), TimeDistributed(Dense({.units = 6}), "d"), Chain()));
        model.build({length, 6});
        const Tensor<T> x = sequences<T>(3, length, 6);
        TestType branch({.seed = 7});
        if (shorter)
          branch.add_layer(other);
        else
          branch.add_layer(TimeDistributed(Dense({.units = 6}), "d"));
        branch.build({length, 6});
        for (auto& p : branch.parameters()) p.assign(model.parameter(p.name()).value());
        const Tensor<T> through = branch.predict(x);
        Tensor<double> wide(x.shape()), wide_through(through.shape());
        std::copy(x.begin(), x.end(), wide.begin()), std::copy(through.begin(), through.end(), wide_through.begin());
        const CrossAttention layer = model.template layer<CrossAttention>("a");
        const std::vector<double> expected =
            shorter ? by_loops(layer, wide, wide_through) : by_loops(layer, wide_through, wide);
        const Tensor<T> y = model.predict(x);
        double worst = 0;
        for (std::size_t k = 0; k < expected.size(); ++k)
          worst = std::max(worst, std::abs(static_cast<double>(y[k]) - expected[k]));
        CHECK(worst < (std::is_same_v<T, float> ? 1e-5 : 1e-13));
      }
}

TEMPLATE_TEST_CASE("gradients: attention to another sequence", "[layer][gradients][attention]", backend::Cpu,
                   backend::Reference) {
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    CAPTURE(i);
    MultiHeadAttentionOptions options = kinds[i];
    options.use_bias = false;
    check_training_gradients<TestType>({11, 6}, 3, [&](auto& m) {
      m.add_layer(Parallel(CrossAttention(options), Chain(), Conv1D({.filters = 4, .kernel = 2, .stride = 2})));
    });
    check_training_gradients<TestType>(
        {11, 6}, 2, [&](auto& m) { m.add_layer(Parallel(CrossAttention(options), Chain(), Chain())); });
  }
}

TEST_CASE("attention to another sequence: both backends train alike", "[layer][attention]") {
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    CAPTURE(i);
    check_backends_agree({70, 6}, 3, [&](auto& m) {
      m.add_layer(Parallel(CrossAttention(kinds[i]), Conv1D({.filters = 6, .kernel = 2, .stride = 2}), Chain()));
    });
  }
}

TEST_CASE("attention: dropout leaves the mean of the outputs, and predictions, as they are", "[layer][attention]") {
  // Keys are all alike, so that a weight is 1 / 64, values are 1 and go out as they are: outputs are 1 in the mean.
  double mean = 0, squares = 0;
  constexpr int rounds = 200;
  std::vector<std::vector<float>> seen;
  BasicSequential<float, backend::Cpu> model({.seed = 3});
  model.add_layer(MultiHeadAttention({.heads = 1, .dropout = 0.25, .name = "a"}));
  model.build({64, 2});
  model.parameter("a.key.weight").assign(std::vector<float>{0, 0, 0, 0});
  model.parameter("a.value.weight").assign(std::vector<float>{1, 0, 0, 1});
  model.parameter("a.output.weight").assign(std::vector<float>{1, 0, 0, 1});
  Tensor<float> x({1, 64, 2}), zero({1, 64, 2});
  std::fill(x.begin(), x.end(), 1.0F);
  for (const float v : model.predict(x)) REQUIRE(v == Approx(1));
  model.compile(optim::SGD({.learning_rate = 0}), loss::MeanSquaredError());
  for (int round = 0; round < rounds; ++round) {
    // The mean of squares of the outputs: 1 + the variance of a mean of 64 factors of 0 or 4 / 3.
    const double loss = model.train_step(x, zero);
    mean += loss / rounds, squares += loss * loss / rounds;
  }
  const double variance = 0.25 / 0.75 / 64;
  CHECK(mean == Approx(1 + variance).margin(0.002));
  CHECK(squares - mean * mean > 0);
}

TEST_CASE("attention: the same bits at any number of threads", "[layer][attention]") {
  const auto trained = [] {
    Sequential model({.seed = 2});
    model.add_layer(MultiHeadAttention({.heads = 4, .key_heads = 2, .causal = true})).add_layer(Flatten());
    model.add_layer(Dense({.units = 2}));
    model.build({150, 16});
    model.compile(optim::SGD({.learning_rate = 0.1}), loss::MeanSquaredError());
    const Tensor<float> x = sequences<float>(5, 150, 16);
    Tensor<float> y({5, 2});
    random::fill_normal(y, {.seed = 3});
    for (int step = 0; step < 3; ++step) model.train_step(x, y);
    const Tensor<float> out = model.predict(x);
    return std::vector<float>(out.begin(), out.end());
  };
  set_threads(1);
  const auto expected = trained();
  for (const int threads : {2, 3, 4}) {
    set_threads(threads);
    CHECK(trained() == expected);
  }
  set_threads(0);
}

TEST_CASE("attention: large scores, and no scores at all", "[layer][attention]") {
  Sequential model;
  model.add_layer(MultiHeadAttention({.heads = 1, .masking = true, .name = "a"}));
  model.build({4, 3});
  Tensor<float> x({2, 4, 3});
  for (std::size_t i = 0; i < 12; ++i) x[i] = 300.0F * static_cast<float>(i % 5);  // the second sample is all masked
  const Tensor<float> y = model.predict(x);
  for (const float v : y) REQUIRE(std::isfinite(v));
  const Tensor<float> bias = model.parameter("a.output.bias").value();
  for (std::size_t i = 12; i < 24; ++i) REQUIRE(y[i] == bias[i % 3]);
}

TEST_CASE("a block of a transformer: both backends train alike, and it is the layers that it says",
          "[layer][attention]") {
  const auto block = [](auto& model) {
    model.add_layer(TransformerBlock({.features = 6, .heads = 2, .hidden = 9, .causal = true}));
  };
  check_backends_agree({5, 6}, 3, block);
  check_backends_agree({70, 6}, 18, block);
  const auto predicted = [](auto add) {
    Sequential model({.seed = 6});
    add(model);
    model.build({5, 6});
    Tensor<float> x({3, 5, 6});
    random::fill_normal(x, {.seed = 1});
    const Tensor<float> y = model.predict(x);
    return std::vector<float>(y.begin(), y.end());
  };
  REQUIRE(predicted(block) == predicted([](auto& model) {
            model.add_layer(Residual(LayerNorm(), MultiHeadAttention({.heads = 2, .causal = true})))
                .add_layer(Residual(LayerNorm(), TimeDistributed(Dense({.units = 9, .activation = gelu})),
                                    TimeDistributed(Dense({.units = 6}))));
          }));
  REQUIRE_THROWS_WITH(TransformerBlock({}), Catch::Matchers::Contains(".features"));
}

TEST_CASE("attention: saved, loaded, planned", "[layer][attention]") {
  const TemporaryFolder folder;
  for (const MultiHeadAttentionOptions& options : kinds) {
    Sequential model({.seed = 4});
    model.add_layer(Input({20, 6})).add_layer(MultiHeadAttention(options));
    const Tensor<float> x = sequences<float>(3, 20, 6), y = model.predict(x);
    model.save(folder.path("m"));
    Sequential again = Sequential::load<AllLayers>(folder.path("m"));
    const Tensor<float> same = again.predict(x);
    REQUIRE(std::equal(y.begin(), y.end(), same.begin()));
  }
  Sequential model;
  model.add_layer(MultiHeadAttention({.heads = 2, .pattern = attention::sliding_window(64), .causal = true}));
  model.build({1024, 8});
  REQUIRE_THAT(model.plan(1), Catch::Matchers::Contains("31 of 256 squares of 64 x 64 tokens"));
}

TEST_CASE("attention: what does not fit is said", "[layer][attention]") {
  using Catch::Matchers::Contains;
  const Shape in{10, 6};
  REQUIRE_THAT(complaint(MultiHeadAttention({.heads = 4}), in), Contains("4 heads") && Contains("6 input features"));
  REQUIRE_THAT(complaint(MultiHeadAttention({.heads = 0}), in), Contains(".heads"));
  REQUIRE_THAT(complaint(MultiHeadAttention({.heads = 3, .key_heads = 2}), in), Contains(".key_heads = 2"));
  REQUIRE_THAT(complaint(MultiHeadAttention({.heads = 2, .rotary = true}), in),
               Contains(".rotary") && Contains("even"));
  REQUIRE_THAT(complaint(MultiHeadAttention({.rotary = true, .rotary_base = 1}), in), Contains(".rotary_base"));
  REQUIRE_THAT(complaint(MultiHeadAttention(), {6}), Contains("{length, features}"));
  REQUIRE_THAT(complaint(MultiHeadAttention({.pattern = attention::blocks(4, {{0, 3}})}), in),
               Contains("number 3") && Contains("blocks 0 to 2"));
  REQUIRE_THAT(complaint(MultiHeadAttention({.dropout = 1}), in), Contains(".dropout"));
  Sequential cross;
  cross.add_layer(Parallel(CrossAttention(), Chain(), Flatten()));
  REQUIRE_THROWS_WITH(cross.build(in), Contains("{length, features}") && Contains("{60}"));
  Sequential three;
  three.add_layer(Parallel(CrossAttention(), Chain(), Chain(), Chain()));
  REQUIRE_THROWS_WITH(three.build(in), Contains("two branches"));
  REQUIRE_THROWS_AS(attention::strided(0, 1), UsageError);
  REQUIRE_THROWS_AS(attention::big_bird(0), UsageError);
}

}  // namespace test_layer_attention
