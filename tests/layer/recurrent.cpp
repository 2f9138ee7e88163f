// Recurrent layers: gradients, PyTorch's numbers, both backends, masks, files, and what they complain about.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <layer/checks.hpp>
#include <layer/sequences.hpp>
#include <reference/recurrent.hpp>
#include <string>
#include <vector>

namespace test_layer_recurrent {

using namespace tesla;

namespace {

using layer::RecurrentOptions;
using sequence_test::random_sequences;
using sequence_test::Seen;

template <class T, class B>
using Model = BasicSequential<T, B>;
using FloatOnCpu = Model<float, backend::Cpu>;
using DoubleOnCpu = Model<double, backend::Cpu>;
using DoubleOnReference = Model<double, backend::Reference>;

/// Calls f with a layer of each kind.
template <class F>
void each_kind(const RecurrentOptions& options, const F& f) {
  f(SimpleRNN(options));
  f(LSTM(options));
  f(GRU(options));
}

template <class F>
void with_kind(std::string_view kind, const RecurrentOptions& options, const F& f) {
  each_kind(options, [&](const auto& layer) {
    if (std::remove_cvref_t<decltype(layer)>::kind == kind) f(layer);
  });
}

std::size_t outputs_of(const RecurrentOptions& o, std::size_t length) {
  return o.units * (o.bidirectional ? 2 : 1) * (o.return_sequences ? length : 1);
}

}  // namespace

TEMPLATE_TEST_CASE("recurrent layers: gradients", "[layer][recurrent][gradients]", backend::Reference, backend::Cpu) {
  constexpr std::size_t features = 2;
  for (const std::size_t batch : {1, 5, 64, 70})
    for (const std::size_t length : {1, 2, 4})
      for (const int variant : {0, 1, 2, 3, 4}) {
        RecurrentOptions options{.units = 3};
        options.return_sequences = variant == 1 || variant == 3, options.bidirectional = variant >= 2;
        options.masking = variant >= 3, options.use_bias = variant != 2;
        options.bias_initializer = init::normal(0.3);
        if (variant == 4) options.mask_value = -0.5;
        if (batch >= 64 && length != 2) continue;
        each_kind(options, [&](const auto& layer) {
          INFO(layer.kind << ", batch " << batch << ", length " << length << ", variant " << variant);
          Model<double, TestType> model(SequentialOptions{.seed = 5});
          // One below, so that the gradient by the input is seen; there are no masks above it.
          auto below = layer, above = layer;
          below.units = 2, below.return_sequences = true, above.masking = false;
          model.add_layer(below).add_layer(above);
          model.build({length, features});
          Tensor<double> x = random_sequences<double>(batch, length, features, options.masking, options.mask_value);
          layer_test::check_gradients(std::move(model), x, outputs_of(options, length));
        });
      }
}

TEST_CASE("recurrent layers: gradients that are summed in several parts", "[layer][recurrent][gradients]") {
  for (const bool both : {false, true}) {
    const RecurrentOptions options{.units = 24, .return_sequences = both, .bidirectional = both};
    each_kind(options, [&](const auto& layer) {
      INFO(layer.kind << ", both ways " << both);
      DoubleOnCpu model(SequentialOptions{.seed = 5});
      model.add_layer(layer);
      model.build({30, 2});
      const auto x = random_sequences<double>(70, 30, 2, false, 0);
      layer_test::check_gradients(std::move(model), x, outputs_of(options, 30));
    });
  }
}

TEMPLATE_TEST_CASE("recurrent layers: outputs, gradients and ten steps are PyTorch's", "[layer][recurrent][pytorch]",
                   FloatOnCpu, DoubleOnCpu, DoubleOnReference) {
  using T = typename TestType::Scalar;
  using namespace reference::recurrent;
  constexpr double tolerance = sizeof(T) == sizeof(float) ? 2e-6 : 1e-12;
  constexpr std::size_t samples = batch, inputs = length * features;
  const auto copied = [](const double* from, std::size_t n) { return std::vector<T>(from, from + n); };
  const auto distance = [](const auto& have, const double* wanted) {
    double worst = 0;
    for (const T value : have) worst = std::max(worst, std::abs(static_cast<double>(value) - *wanted++));
    return worst;
  };
  for (const Case& c : cases) {
    INFO(c.kind << ", sequences " << c.sequences << ", both ways " << c.bidirectional << ", masks " << c.masks);
    const RecurrentOptions options{
        .units = units, .return_sequences = c.sequences, .bidirectional = c.bidirectional, .masking = c.masks};
    with_kind(c.kind, options, [&](const auto& layer) {
      const auto seen = std::make_shared<std::vector<double>>();
      TestType model;
      model.add_layer(Seen{seen}).add_layer(layer);
      model.build({length, features});
      const double* initial = c.initial;
      auto parameters = model.parameters();
      parameters.erase(parameters.begin());  // that of Seen
      for (auto& p : parameters) p.assign(copied(initial, p.size())), initial += p.size();
      REQUIRE(initial == c.initial + c.parameters);
      const auto x = copied(c.inputs, samples * inputs), y = copied(c.targets, static_cast<std::size_t>(c.values));
      const ArrayView rows = view(x, {samples, length, features}), targets = view(y, {samples, y.size() / samples});
      CHECK(distance(model.predict(rows), c.outputs) < tolerance);

      model.compile(optim::SGD({.learning_rate = 0.5}), loss::MeanSquaredError());
      for (int step = 0; step < steps; ++step) {
        CHECK(model.train_step(rows, targets) == Approx(c.losses[step]).margin(tolerance).epsilon(0));
        if (step > 0) continue;
        CHECK(distance(*seen, c.input_gradient) < tolerance);
        const double *gradient = c.gradient, *before = c.initial;
        double worst = 0;
        for (const auto& p : parameters)
          for (const T value : p.value())
            worst = std::max(worst, std::abs((*before++ - static_cast<double>(value)) / 0.5 - *gradient++));
        CHECK(worst < 10 * tolerance);
      }
      const double* trained = c.trained;
      for (const auto& p : parameters) {
        CHECK(distance(p.value(), trained) < 10 * tolerance);
        trained += p.size();
      }
    });
  }
}

TEST_CASE("recurrent layers: the same on both backends, at sizes beyond a tile", "[layer][recurrent]") {
  for (const std::size_t batch : {1, 2, 17, 64, 70, 130})
    for (const bool both : {false, true}) {
      const RecurrentOptions options{.units = 29, .return_sequences = both, .bidirectional = both, .masking = true};
      each_kind(options, [&](const auto& layer) {
        const std::size_t length = 6, features = 19, outputs = outputs_of(options, length);
        INFO(layer.kind << ", batch " << batch << ", both ways " << both);
        const auto x = random_sequences<float>(batch, length, features, true, 0);
        Tensor<float> y({batch, outputs});
        random::fill_normal(y, {.seed = 2});
        const auto trained = [&](auto model) {
          model.add_layer(layer);
          model.build({length, features});
          model.compile(optim::SGD({.learning_rate = 0.3}), loss::MeanSquaredError());
          for (int i = 0; i < 3; ++i) model.train_step(x, y);
          return model.predict(x, {.batch_size = batch});
        };
        const auto fast = trained(Sequential());
        const auto exact = trained(DoubleOnReference());
        double worst = 0;
        for (std::size_t i = 0; i < fast.size(); ++i)
          worst = std::max(worst, std::abs(static_cast<double>(fast[i]) - static_cast<double>(exact[i])));
        CHECK(worst < 2e-5);
      });
    }
}

TEST_CASE("recurrent layers: a masked step changes nothing", "[layer][recurrent]") {
  each_kind({.units = 5, .bidirectional = true, .masking = true}, [&](const auto& layer) {
    INFO(layer.kind);
    Sequential model;
    model.add_layer(layer);
    model.build({4, 2});
    // The same two steps, with gaps elsewhere; and no step at all.
    const std::vector<float> x = {1, -2, 3, 0.5F, 0, 0, 0, 0, 0, 0, 1, -2, 0, 0, 3, 0.5F, 0, 0, 0, 0, 0, 0, 0, 0};
    const auto y = model.predict(view(x, {3, 4, 2}));
    for (std::size_t i = 0; i < 10; ++i) {
      CHECK(y[i] == y[10 + i]);
      CHECK(y[20 + i] == 0);
    }
    CHECK(y[0] != 0);
  });
}

TEST_CASE("recurrent layers: the same bits at any number of threads", "[layer][recurrent]") {
  const RecurrentOptions options{.units = 48, .return_sequences = true, .bidirectional = true, .masking = true};
  each_kind(options, [&](const auto& layer) {
    const std::size_t length = 7, features = 40;
    const auto x = random_sequences<float>(100, length, features, true, 0);
    Tensor<float> y({100, 1});
    random::fill_normal(y, {.seed = 2});
    const auto trained = [&](int count) {
      set_threads(count);
      Sequential model;
      model.add_layer(layer).add_layer(GRU({.units = 16})).add_layer(Dense({.units = 1}));
      model.compile(optim::Adam(), loss::MeanSquaredError());
      model.build({length, features});
      model.fit(x, y, {.epochs = 2, .batch_size = 30, .verbose = 0});
      set_threads(0);
      return model.predict(x);
    };
    const auto one = trained(1);
    for (const int count : {2, 3, 8}) {
      const auto more = trained(count);
      CHECK(std::memcmp(one.data(), more.data(), one.size() * sizeof(float)) == 0);
    }
  });
}

TEST_CASE("recurrent layers: how they begin", "[layer][recurrent]") {
  DoubleOnCpu model;
  model.add_layer(LSTM({.units = 4, .return_sequences = true, .bidirectional = true, .name = "first"}))
      .add_layer(GRU({.units = 3}));
  model.build({2, 5});
  CHECK(model.output_shape() == Shape{3});
  std::string names;
  for (const auto& p : model.parameters()) names += p.name() + " ";
  CHECK(names ==
        "first.weight first.recurrent_weight first.bias first.reverse.weight first.reverse.recurrent_weight "
        "first.reverse.bias gru.weight gru.recurrent_weight gru.bias gru.recurrent_bias ");
  const auto bias = model.parameter("first.bias").value();
  for (std::size_t i = 0; i < bias.size(); ++i) CHECK(bias[i] == (i >= 4 && i < 8 ? 1 : 0));
  // Each gate's matrix is orthogonal, and no two are the same.
  const auto u = model.parameter("first.recurrent_weight").value();
  for (std::size_t gate = 0; gate < 4; ++gate)
    for (std::size_t a = 0; a < 4; ++a)
      for (std::size_t b = 0; b < 4; ++b) {
        double dot = 0;
        for (std::size_t k = 0; k < 4; ++k) dot += u[(gate * 4 + a) * 4 + k] * u[(gate * 4 + b) * 4 + k];
        CHECK(dot == Approx(a == b ? 1 : 0).margin(1e-12));
      }
  CHECK(u[0] != u[16]);
  // A layer that is taken out has its values.
  DoubleOnCpu copy;
  copy.add_layer(model.layer<LSTM>("first"));
  copy.build({2, 5});
  const auto same = copy.parameter("first.recurrent_weight").value();
  CHECK(std::equal(u.begin(), u.end(), same.begin()));
}

TEST_CASE("recurrent layers: saved, loaded, and trained on with the same bits", "[layer][recurrent]") {
  const std::string path = (std::filesystem::temp_directory_path() / "tesla_recurrent.safetensors").string();
  const auto x = random_sequences<float>(20, 5, 3, true, -1);
  Tensor<float> y({20, 2});
  random::fill_normal(y, {.seed = 2});
  Sequential model;
  model.add_layer(SimpleRNN({.units = 4, .return_sequences = true, .masking = true, .mask_value = -1}))
      .add_layer(LSTM({.units = 6, .return_sequences = true, .bidirectional = true}))
      .add_layer(GRU({.units = 2, .use_bias = false}));
  model.compile(optim::Adam(), loss::MeanSquaredError());
  model.fit(x, y, {.epochs = 2, .batch_size = 8, .verbose = 0});
  model.save(path);
  auto loaded = Sequential::load(path);
  for (auto* m : {&model, &loaded}) m->fit(x, y, {.epochs = 1, .batch_size = 8, .verbose = 0});
  const auto a = model.predict(x), b = loaded.predict(x);
  CHECK(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
  std::filesystem::remove(path);
}

TEST_CASE("recurrent layers: complaints", "[layer][recurrent]") {
  using Catch::Matchers::Contains;
  using layer_test::complaint;
  each_kind({.units = 2}, [](const auto& layer) {
    CHECK_THAT(complaint(layer, {7}), Contains("expects sequences of shape {length, features}") && Contains("{7}"));
    CHECK_THAT(complaint(layer, {2, 3, 4}), Contains("{2, 3, 4}"));
    auto none = layer;
    none.units = 0;
    CHECK_THAT(complaint(none, {7, 2}), Contains(".units"));
    auto odd = layer;
    odd.mask_value = std::numeric_limits<double>::infinity();
    CHECK_THAT(complaint(odd, {7, 2}), Contains(".mask_value"));
    layer::Setup setup;
    auto empty = layer;
    CHECK_THROWS_AS(empty.setup({0, 3}, setup), ShapeError);
    CHECK_THAT(complaint(layer, {0, 3}), Contains("{0, 3}"));
  });
}

}  // namespace test_layer_recurrent
