// The sparse layer: gradients, the dense layer of the same values, beginnings, misuse, files.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <io/temporary_folder.hpp>
#include <layer/checks.hpp>

namespace test_layer_sparse_dense {

using namespace tesla;
using layer_test::check_gradients;
using layer_test::complaint;
using layer_test::Model;

TEMPLATE_TEST_CASE("sparse dense: gradients", "[layer][gradients]", backend::Reference, backend::Cpu) {
  for (const std::size_t batch : {1, 5, 70})
    for (const double density : {0.2, 0.9})  // the second is computed dense
      for (const sparse::Block& block : {sparse::Block{1, 1}, {4, 1}, {2, 3}}) {
        Model<TestType> model;
        model.add_layer(SparseDense({.units = 13, .density = density, .block = block, .activation = tesla::tanh}))
            .add_layer(SparseDense({.units = 6, .density = density, .block = block, .activation = gelu}))
            .add_layer(SparseDense({.units = 3, .density = density, .use_bias = false}));
        check_gradients<TestType>(std::move(model), 9, 3, batch);
      }
}

TEST_CASE("sparse dense: as a dense layer with zeros", "[layer]") {
  for (const std::size_t batch : {1, 40, 128})
    for (const std::size_t rows : {1, 4}) {
      Sequential model(SparseDense({.units = 90, .density = 0.1, .block = {rows, 1}, .activation = relu, .name = "s"}));
      model.build({200});
      const sparse::Pattern pattern = model.layer<SparseDense>("s").pattern();
      REQUIRE(pattern.in_blocks({rows, 1}));
      const Tensor<float> values = model.parameter("s.weight").value();
      REQUIRE(values.size() == pattern.live());
      Tensor<float> w({90, 200}), x({batch, 200});
      for (std::size_t r = 0, k = 0; r < 90; ++r)
        for (const std::uint32_t c : pattern.row(r)) w(r, c) = values[k++];
      random::fill_normal(x, {.seed = 3});
      const Tensor<float> y = model.predict(x);
      for (std::size_t s = 0; s < batch; ++s)
        for (std::size_t r = 0; r < 90; ++r) {
          double sum = 0;
          for (std::size_t c = 0; c < 200; ++c) sum += static_cast<double>(w(r, c)) * static_cast<double>(x(s, c));
          REQUIRE(static_cast<double>(y(s, r)) == Approx(std::max(sum, 0.0)).margin(1e-5));
        }
    }
}

TEST_CASE("sparse dense: weights begin with the deviation that their live fan-in asks for", "[layer]") {
  const auto deviation = [](const SparseDense& layer) {
    Sequential model(layer);
    model.build({400});
    const Tensor<float> w = model.parameter("sparse_dense.weight").value();
    double squares = 0;
    for (const float v : w) squares += static_cast<double>(v) * static_cast<double>(v);
    return std::sqrt(squares / static_cast<double>(w.size()));
  };
  REQUIRE(deviation(SparseDense({.units = 200, .density = 0.1})) == Approx(std::sqrt(2.0 / 60)).epsilon(0.03));
  REQUIRE(deviation(SparseDense({.units = 200, .density = 0.1, .initializer = init::he_normal})) ==
          Approx(std::sqrt(2.0 / 40)).epsilon(0.03));
  REQUIRE(deviation(SparseDense({.units = 200, .density = 0.1, .initializer = init::normal(0.3)})) ==
          Approx(0.3).epsilon(0.03));
}

TEST_CASE("sparse dense: where the weights are", "[layer]") {
  const auto pattern_of = [](const SparseDense& layer, std::uint64_t seed) {
    Sequential model({.seed = seed});
    model.add_layer(layer);
    model.build({30});
    return model.layer<SparseDense>("sparse_dense").pattern();
  };
  const SparseDense layer({.units = 20, .density = 0.3});
  REQUIRE(pattern_of(layer, 1) == pattern_of(layer, 1));
  REQUIRE(!(pattern_of(layer, 1) == pattern_of(layer, 2)));
  const sparse::Pattern given = sparse::Pattern::random(20, 30, {.density = 0.4, .seed = 77});
  REQUIRE(pattern_of(SparseDense({.units = 20, .live = given}), 1) == given);

  // Two layers of one model are drawn apart from each other; building again for the same shape keeps them.
  Sequential model(SparseDense({.units = 30, .density = 0.3}), SparseDense({.units = 30, .density = 0.3}));
  model.build({30});
  const sparse::Pattern first = model.layer<SparseDense>("sparse_dense").pattern();
  REQUIRE(!(first == model.layer<SparseDense>("sparse_dense_1").pattern()));
  model.build({30});
  REQUIRE(first == model.layer<SparseDense>("sparse_dense").pattern());
  // A build that fails changes nothing.
  REQUIRE_THROWS_AS(model.network().build({40}, [](const auto&) { throw UsageError("no"); }), UsageError);
  REQUIRE(first == model.layer<SparseDense>("sparse_dense").pattern());
}

TEST_CASE("sparse dense: what is wrong is said", "[layer][errors]") {
  using Catch::Contains;
  const auto says = [](const SparseDense& layer, const Shape& input, const std::string& part) {
    const std::string said = complaint(layer, input);
    REQUIRE_THAT(said, Contains(part));
    REQUIRE_THAT(said, Contains("layer 1 (sparse_dense: SparseDense)"));
  };
  says(SparseDense(), {5}, ".units");
  says(SparseDense({.units = 3}), {5, 2}, "Flatten");
  for (const double density : {0.0, -1.0, 1.5, std::numeric_limits<double>::quiet_NaN()})
    says(SparseDense({.units = 3, .density = density}), {5}, ".density in (0, 1]");
  says(SparseDense({.units = 3, .block = {0, 1}}), {5}, ".block");
  says(SparseDense({.units = 3, .initializer = init::orthogonal}), {5}, "orthogonal");
  const sparse::Pattern p = sparse::Pattern::random(3, 5, {.density = 0.5});
  says(SparseDense({.units = 4, .live = p}), {5}, "3 x 5, but needs 4 x 5");
  says(SparseDense({.units = 3, .live = p}), {6}, "3 x 5, but needs 3 x 6");
  says(SparseDense({.units = 3, .live = p, .block = {2, 2}}), {5}, "blocks of 2 x 2");
  says(SparseDense({.units = 3, .live = sparse::Pattern(3, 5, {0, 0, 0, 0}, {})}), {5}, "without any live");
}

TEST_CASE("sparse dense: save, load and restore go on bit for bit", "[layer][io]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("sparse.safetensors");
  const auto digits = data::digits({.train = 400, .test = 50});
  const auto made = [](std::uint64_t seed) {
    Sequential model({.seed = seed});
    model.add_layer(SparseDense({.units = 70, .density = 0.1, .activation = relu}))
        .add_layer(SparseDense({.units = 30, .density = 0.3, .block = {4, 1}, .activation = relu}))
        .add_layer(Dense({.units = 10}));
    model.compile(optim::Adam(), loss::SparseCategoricalCrossEntropy());
    return model;
  };
  const auto fit = [&](Sequential& model) { model.fit(digits.train, {.epochs = 2, .verbose = 0}); };
  Sequential model = made(0);
  fit(model);
  model.save(path);
  Sequential loaded = Sequential::load(path), restored = made(5), built = made(6);
  restored.restore(path);
  built.build({784});
  built.restore(path);
  fit(model);
  const Tensor<float> expected = model.predict(digits.test.x());
  for (Sequential* other : {&loaded, &restored, &built}) {
    fit(*other);
    const Tensor<float> y = other->predict(digits.test.x());
    REQUIRE(std::equal(expected.begin(), expected.end(), y.begin()));
  }

  // Others can read the file: compressed rows.
  const auto file = io::SafeTensors::read(path);
  const sparse::Pattern pattern = loaded.layer<SparseDense>("sparse_dense").pattern();
  const auto pointers = file.tensor<std::int64_t>("sparse_dense.weight.pointers");
  const auto indices = file.tensor<std::int32_t>("sparse_dense.weight.indices");
  REQUIRE(std::equal(pointers.begin(), pointers.end(), pattern.pointers().begin(), pattern.pointers().end(),
                     [](std::int64_t a, std::uint64_t b) { return static_cast<std::uint64_t>(a) == b; }));
  REQUIRE(indices.size() == pattern.live());
  REQUIRE(file.at("sparse_dense.weight").shape == Shape{pattern.live()});

  // Another model's file leaves a model as it was.
  Sequential other(SparseDense({.units = 71, .density = 0.1}));
  other.build({784});
  const auto before = other.layer<SparseDense>("sparse_dense").pattern();
  REQUIRE_THROWS_AS(other.restore(path), Error);
  REQUIRE(before == other.layer<SparseDense>("sparse_dense").pattern());
  other.build({784});
  REQUIRE(before == other.layer<SparseDense>("sparse_dense").pattern());
}

TEST_CASE("sparse dense: a file with any byte changed is read or refused", "[layer][io]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("small.safetensors");
  Sequential model(SparseDense({.units = 5, .density = 0.4, .name = "s"}), Dense({.units = 2}));
  model.build({6});
  model.save(path);
  const std::vector<std::uint8_t> bytes = io::read_file(path);
  std::size_t refused = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    for (const std::uint8_t flip : {0x01, 0x80}) {
      std::vector<std::uint8_t> changed = bytes;
      changed[i] ^= flip;
      const std::string other = folder.write("changed.safetensors", changed);
      try {
        const sparse::Pattern pattern = Sequential::load(other).layer("s").pattern();
        for (std::size_t r = 0; r < pattern.rows(); ++r)
          for (const std::uint32_t c : pattern.row(r)) REQUIRE(c < pattern.columns());
      } catch (const Error&) {
        ++refused;
      }
      Sequential kept(SparseDense({.units = 5, .density = 0.4, .name = "s"}), Dense({.units = 2}));
      kept.build({6});
      const sparse::Pattern before = kept.layer("s").pattern();
      const Tensor<float> values = kept.parameter("s.weight").value();
      try {
        kept.restore(other);
      } catch (const Error&) {
        REQUIRE(kept.layer("s").pattern() == before);
        const Tensor<float> now = kept.parameter("s.weight").value();
        REQUIRE(std::equal(values.begin(), values.end(), now.begin()));
      }
    }
  REQUIRE(refused > bytes.size() / 4);
}

}  // namespace test_layer_sparse_dense
