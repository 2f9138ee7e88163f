// Saving and loading: the same bits, training that goes on as if it had never stopped, and every option kept.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <functional>
#include <io/temporary_folder.hpp>
#include <model/support.hpp>
#include <string>
#include <vector>

namespace test_model_file {

using tesla::Dense;
using tesla::FormatError;
using tesla::Sequential;
using tesla::UsageError;
using tesla::io::Json;

namespace {

template <class Model>
void add_layers(Model& model) {
  model.add_layer(Dense({.units = 9, .activation = tesla::gelu}))
      .add_layer(Dense({.units = 7, .activation = tesla::tanh}))
      .add_layer(Dense({.units = 3}));
}

Json description_of(const std::string& path) {
  return Json::parse(tesla::io::SafeTensors::read(path).metadata().get<std::string>("tesla"));
}

/// Puts `to` in the place of `from` in the description that a file holds.
void change_description(const std::string& path, const std::string& from, const std::string& to) {
  const auto file = tesla::io::SafeTensors::read(path);
  std::string description = file.metadata().get<std::string>("tesla");
  const std::size_t at = description.find(from);
  INFO(description);
  REQUIRE(at != description.npos);
  description.replace(at, from.size(), to);
  tesla::io::write_safetensors(path, file.tensors(), Json::object({{"tesla", description}}));
}

/// Options as a file should describe them.
void check_options(const Json& described, const std::string& kind, const std::string& options) {
  CHECK(described.get<std::string>("kind") == kind);
  INFO(described.write());
  CHECK(described.at("options") == Json::parse(options));
}

/// y = scale * x, with one scale a feature.
struct Scale {
  static constexpr std::string_view kind = "Scale";

  tesla::Shape setup(const tesla::Shape& in, tesla::layer::Setup& setup) const {
    setup.parameter("scale", {in.elements()}, tesla::init::constant(0.5));
    return in;
  }
  template <class T, class B>
  void forward(tesla::layer::Pass<T, B>& pass, tesla::Panels<const T> x, tesla::Panels<T> y) const {
    pass.map([](auto a, auto s) { return a * s; }, y, x, pass.parameter(0));
  }
  template <class T, class B>
  void backward(tesla::layer::Pass<T, B>& pass, tesla::Panels<const T> x, tesla::Panels<T>, tesla::Panels<T> dy,
                tesla::Panels<T> dx) const {
    const tesla::Panels<const T> upstream = dy;
    pass.reduce([](auto d, auto a) { return d * a; }, pass.gradient(0), upstream, x);
    if (dx) pass.map([](auto d, auto s) { return d * s; }, dx, upstream, pass.parameter(0));
  }
};

/// Adagrad under a name of its own (Duchi, Hazan and Singer 2011).
struct OwnAdagrad {
  static constexpr std::string_view kind = "OwnAdagrad";
  static constexpr std::size_t slots = 1;

  auto at(std::size_t) const {
    return [](auto& weight, auto gradient, auto& state) {
      using V = decltype(gradient);
      using tesla::math::number, tesla::math::sqrt;
      const V sum = state[0] + gradient * gradient;
      state[0] = sum;
      weight -= number<V>(0.1) * gradient / (V(sqrt(sum)) + number<V>(1e-8));
    };
  }
};

}  // namespace

TEMPLATE_TEST_CASE("training goes on after a load with the same bits", "[file]", tesla::optim::SGD, tesla::optim::Adam,
                   tesla::optim::AdamW) {
  const TemporaryFolder folder;
  const std::string path = folder.path("model");
  const auto x = normal_numbers({53, 6}, 1);
  const auto y = labels_below(3, 53, 2);
  TestType optimizer;
  if constexpr (requires { optimizer.momentum; }) optimizer.momentum = 0.9, optimizer.nesterov = true;
  optimizer.learning_rate = 0.02;
  const auto options = [](std::size_t epochs) {
    return Sequential::Options{.epochs = epochs, .batch_size = 10, .seed = 5, .verbose = 0};
  };

  Sequential straight({.seed = 9});
  add_layers(straight);
  straight.compile(optimizer, tesla::loss::SparseCategoricalCrossEntropy(), {tesla::metric::Accuracy()});
  const auto history = straight.fit(x, y, options(3));

  Sequential first({.seed = 9});
  add_layers(first);
  first.compile(optimizer, tesla::loss::SparseCategoricalCrossEntropy(), {tesla::metric::Accuracy()});
  first.fit(x, y, options(1));
  first.save(path);
  Sequential second = Sequential::load(path);
  CHECK(bits(second.predict(x)) == bits(first.predict(x)));
  const auto rest = second.fit(x, y, options(2));
  CHECK(rest["loss"] == std::vector<double>(history["loss"].begin() + 1, history["loss"].end()));
  CHECK(rest["accuracy"] == std::vector<double>(history["accuracy"].begin() + 1, history["accuracy"].end()));
  CHECK(parameter_bits(second) == parameter_bits(straight));

  // The way through restore, into a model that is compiled but not built, and into one that has learned other things.
  Sequential third;
  add_layers(third);
  third.compile(optimizer, tesla::loss::SparseCategoricalCrossEntropy());
  third.restore(path);
  third.fit(x, y, options(2));
  CHECK(parameter_bits(third) == parameter_bits(straight));
  third.restore(path);
  third.fit(x, y, options(2));
  CHECK(parameter_bits(third) == parameter_bits(straight));
}

TEST_CASE("a model without an optimizer is kept too", "[file]") {
  const TemporaryFolder folder;
  const auto x = normal_numbers({5, 6}, 1);
  Sequential model({.seed = 4});
  add_layers(model);
  model.build({6});
  model.save(folder.path("model"));
  Sequential loaded = Sequential::load(folder.path("model"));
  CHECK(bits(loaded.predict(x)) == bits(model.predict(x)));
  check_raises<UsageError>([&] { loaded.evaluate(x, std::vector<int>(5)); }, {"compile"});
  loaded.save(folder.path("again"));
  CHECK(tesla::io::read_file(folder.path("again")) == tesla::io::read_file(folder.path("model")));
}

TEST_CASE("the options of layers survive", "[file]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("model");
  const auto x = normal_numbers({5, 2, 3}, 1);
  Sequential model({.seed = 18446744073709551615U});
  tesla::Flatten flatten;
  flatten.name = "flat";
  model.add_layer(tesla::Input({2, 3})).add_layer(flatten);
  model.add_layer(Dense({.units = 4,
                         .use_bias = false,
                         .activation = {{tesla::elu.function, 0.7}},
                         .initializer = tesla::init::orthogonal,
                         .name = "first"}));
  model.add_layer(Dense({.units = 5,
                         .activation = tesla::softmax,
                         .initializer = tesla::init::normal(0.3),
                         .bias_initializer = tesla::init::constant(0.25)}));
  model.add_layer(tesla::LeakyReLU({.slope = 0.2, .name = "leak"})).add_layer(tesla::ELU({.alpha = 1.5}));
  model.add_layer(tesla::ReLU()).add_layer(tesla::GELU()).add_layer(tesla::Sigmoid()).add_layer(tesla::Tanh());
  model.add_layer(tesla::Softplus()).add_layer(tesla::Softmax()).add_layer(tesla::LogSoftmax());
  model.build({2, 3});
  model.save(path);

  const Json description = description_of(path);
  CHECK(description.get<std::uint64_t>("seed") == 18446744073709551615U);
  const auto& layers = description.at("layers").elements();
  REQUIRE(layers.size() == 13);
  check_options(layers[0], "Input", R"({"shape":[2,3]})");
  check_options(layers[1], "Flatten", "{}");
  check_options(layers[2], "Dense",
                R"({"units":4,"use_bias":false,"activation":{"name":"elu","parameter":0.7},)"
                R"("initializer":{"name":"orthogonal","parameter":1.0},)"
                R"("bias_initializer":{"name":"constant","parameter":0.0}})");
  check_options(layers[3], "Dense",
                R"({"units":5,"use_bias":true,"activation":{"name":"softmax","parameter":0.0},)"
                R"("initializer":{"name":"normal","parameter":0.3},)"
                R"("bias_initializer":{"name":"constant","parameter":0.25}})");
  check_options(layers[4], "Activation", R"({"activation":{"name":"leaky_relu","parameter":0.2}})");
  check_options(layers[5], "Activation", R"({"activation":{"name":"elu","parameter":1.5}})");
  const char* rest[] = {"relu", "gelu", "sigmoid", "tanh", "softplus", "softmax", "log_softmax"};
  for (std::size_t i = 0; i < std::size(rest); ++i)
    CHECK(layers[6 + i].at("options").at("activation").get<std::string>("name") == rest[i]);

  Sequential loaded = Sequential::load(path);
  CHECK(loaded.network().seed() == model.network().seed());
  for (std::size_t i = 0; i < layers.size(); ++i)
    CHECK(loaded.network().entries()[i].name == model.network().entries()[i].name);
  CHECK(bits(loaded.predict(x)) == bits(model.predict(x)));
  loaded.save(folder.path("again"));
  CHECK(tesla::io::read_file(folder.path("again")) == tesla::io::read_file(path));
}

TEST_CASE("layers of images, norms and noise survive, with their values and statistics", "[file]") {
  using namespace tesla;
  const TemporaryFolder folder;
  const std::string path = folder.path("model");
  const auto x = normal_numbers({40, 12, 11, 2}, 1), signals = normal_numbers({40, 21, 2}, 2);
  const auto y = labels_below(3, 40, 3);
  // What the file says of each layer, in turn.
  const auto check = [&](const auto& add, const ArrayView& rows,
                         const std::vector<std::pair<std::string, std::string>>& said) {
    const auto made = [&](std::uint64_t seed) {
      Sequential model({.seed = seed});
      add(model);
      model.compile(optim::Adam({.learning_rate = 0.01}), loss::SparseCategoricalCrossEntropy());
      return model;
    };
    const auto fit = [&](Sequential& model, std::size_t epochs) {
      model.fit(rows, y, {.epochs = epochs, .batch_size = 16, .verbose = 0});
    };
    Sequential straight = made(4), model = made(4);
    fit(straight, 3);
    fit(model, 1);
    model.save(path);
    const Json description = description_of(path);
    const auto& layers = description.at("layers").elements();
    REQUIRE(layers.size() == said.size());
    for (std::size_t i = 0; i < said.size(); ++i)
      if (!said[i].second.empty()) check_options(layers[i], said[i].first, said[i].second);

    Sequential loaded = Sequential::load(path), restored = made(5);
    restored.build(Shape(std::span<const std::size_t>(rows.shape().begin() + 1, rows.shape().end())));
    restored.restore(path);
    for (Sequential* other : {&loaded, &restored}) {
      CHECK(parameter_bits(*other) == parameter_bits(model));
      CHECK(bits(other->predict(rows)) == bits(model.predict(rows)));
      other->save(folder.path("again"));
      for (std::size_t i = 0; i < said.size(); ++i)
        CHECK(other->network().entries()[i].name == model.network().entries()[i].name);
    }
    loaded.save(folder.path("again"));
    CHECK(io::read_file(folder.path("again")) == io::read_file(path));
    fit(loaded, 2);
    CHECK(parameter_bits(loaded) == parameter_bits(straight));
  };
  const std::string rest = R"("initializer":{"name":"glorot_uniform","parameter":1.0},)"
                           R"("bias_initializer":{"name":"constant","parameter":0.0}})";
  check(
      [](Sequential& model) {
        model.add_layer(GaussianNoise({.deviation = 0.25, .name = "noise"}));
        model.add_layer(Conv2D({.filters = 6,
                                .kernel = {3, 2},
                                .padding = {1, 0, 2, 1},
                                .stride = {2, 1},
                                .dilation = {1, 2},
                                .groups = 2,
                                .use_bias = false,
                                .activation = {{elu.function, 0.5}}}));
        model.add_layer(BatchNorm({.momentum = 0.75, .epsilon = 0.5, .use_shift = false}));
        model.add_layer(MaxPool2D({.pool = {3, 2}, .stride = {1, 2}, .padding = same}));
        model.add_layer(Conv2D({.filters = 4, .padding = same, .name = "second"}));
        model.add_layer(LeakyReLU()).add_layer(AveragePool2D());
        model.add_layer(GroupNorm({.groups = 2, .use_scale = false})).add_layer(LayerNorm({.epsilon = 0.25}));
        model.add_layer(RMSNorm({.use_scale = false})).add_layer(Dropout({.rate = 0.125}));
        model.add_layer(GlobalAveragePool()).add_layer(Dense({.units = 3}));
      },
      x,
      {{"GaussianNoise", R"({"deviation":0.25})"},
       {"Conv2D", R"({"filters":6,"kernel":[3,2],"padding":[1,0,2,1],"stride":[2,1],"dilation":[1,2],"groups":2,)"
                  R"("use_bias":false,"activation":{"name":"elu","parameter":0.5},)" +
                      rest},
       {"BatchNorm", R"({"momentum":0.75,"epsilon":0.5,"use_scale":true,"use_shift":false})"},
       {"MaxPool2D", R"({"pool":[3,2],"stride":[1,2],"padding":"same"})"},
       {"Conv2D", R"({"filters":4,"kernel":[3,3],"padding":"same","stride":[1,1],"dilation":[1,1],"groups":1,)"
                  R"("use_bias":true,"activation":{"name":"linear","parameter":0.0},)" +
                      rest},
       {"Activation", ""},
       {"AveragePool2D", R"({"pool":[2,2],"stride":[0,0],"padding":"valid"})"},
       {"GroupNorm", R"({"groups":2,"epsilon":1e-05,"use_scale":false,"use_shift":true})"},
       {"LayerNorm", R"({"epsilon":0.25,"use_scale":true,"use_shift":true})"},
       {"RMSNorm", R"({"epsilon":1e-05,"use_scale":false})"},
       {"Dropout", R"({"rate":0.125})"},
       {"GlobalAveragePool", "{}"},
       {"Dense", ""}});
  check(
      [](Sequential& model) {
        model.add_layer(Conv1D({.filters = 6, .kernel = 4, .padding = {1, 2}, .stride = 2, .activation = gelu}));
        model.add_layer(MaxPool1D({.stride = 1})).add_layer(AveragePool1D({.pool = 3, .padding = same}));
        model.add_layer(GlobalMaxPool({.name = "last"})).add_layer(Dense({.units = 3}));
      },
      signals,
      {{"Conv1D", R"({"filters":6,"kernel":4,"padding":[1,1,2,2],"stride":2,"dilation":1,"groups":1,)"
                  R"("use_bias":true,"activation":{"name":"gelu","parameter":0.0},)" +
                      rest},
       {"MaxPool1D", R"({"pool":2,"stride":1,"padding":"valid"})"},
       {"AveragePool1D", R"({"pool":3,"stride":0,"padding":"same"})"},
       {"GlobalMaxPool", "{}"},
       {"Dense", ""}});
}

TEST_CASE("files whose layers of images have impossible options are refused", "[file]") {
  using namespace tesla;
  const TemporaryFolder folder;
  const std::string path = folder.path("model");
  const auto check = [&]<class E>(std::type_identity<E>, const std::string& from, const std::string& to,
                                  const std::vector<std::string>& words) {
    Sequential model(Conv2D({.filters = 2, .padding = {1, 1}}), Dropout(), Flatten(), Dense({.units = 1}));
    model.build({5, 5, 2});
    model.save(path);
    change_description(path, from, to);
    check_raises<E>([&] { Sequential::load(path); }, words);
  };
  check(std::type_identity<FormatError>(), "[1,1,1,1]", "[1,1]", {"\"padding\"", "4 numbers, not 2"});
  check(std::type_identity<FormatError>(), "[1,1,1,1]", "\"full\"", {"\"full\"", "padding"});
  check(std::type_identity<UsageError>(), "\"filters\":2", "\"filters\":0", {"layer 1", ".filters"});
  check(std::type_identity<UsageError>(), "\"stride\":[1,1]", "\"stride\":[0,1]", {"layer 1", ".stride"});
  check(std::type_identity<FormatError>(), "\"filters\":2", "\"filters\":3", {"conv2d.weight", "{3, 3, 3, 2}"});
  check(std::type_identity<UsageError>(), "\"rate\":0.5", "\"rate\":1.5", {"layer 2", ".rate"});
}

TEST_CASE("the options of optimizers, losses and metrics survive", "[file]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("model");
  const auto x = normal_numbers({12, 4}, 1), y = normal_numbers({12, 3}, 2);
  std::vector<float> shares(36);
  for (std::size_t i = 0; i < 12; ++i) shares[3 * i + i % 3] = 1;
  const auto one_hot = tesla::view(shares, {12, 3});
  const auto labels = labels_below(3, 12, 3);

  const auto check = [&](const auto& optimizer, const std::string& optimizer_options, const auto& loss,
                         const std::string& loss_options, const tesla::ArrayView& targets) {
    INFO(optimizer.kind << ", " << loss.kind << " " << loss_options);
    Sequential model;
    model.add_layer(Dense({.units = 6, .activation = tesla::tanh}))
        .add_layer(Dense({.units = 3, .activation = tesla::sigmoid}));
    model.compile(optimizer, loss, {tesla::metric::MeanAbsoluteError(), tesla::metric::Accuracy()});
    for (int i = 0; i < 3; ++i) model.train_step(x, targets);
    model.save(path);
    check_options(description_of(path).at("optimizer"), std::string(optimizer.kind), optimizer_options);
    check_options(description_of(path).at("loss"), std::string(loss.kind), loss_options);
    CHECK(description_of(path).at("metrics") == Json::parse(R"(["mean_absolute_error","accuracy"])"));

    Sequential loaded = Sequential::load(path);
    loaded.save(folder.path("again"));
    CHECK(tesla::io::read_file(folder.path("again")) == tesla::io::read_file(path));
    const auto wanted = model.evaluate(x, targets), found = loaded.evaluate(x, targets);
    for (const auto& [name, value] : wanted) CHECK(found[name] == value);
    for (int i = 0; i < 3; ++i) CHECK(loaded.train_step(x, targets) == model.train_step(x, targets));
    CHECK(parameter_bits(loaded) == parameter_bits(model));
  };

  const tesla::optim::SGD sgd(
      {.learning_rate = 0.125, .momentum = 0.5, .nesterov = true, .weight_decay = 0.0625, .clip_norm = 0.03125});
  const std::string sgd_options =
      R"({"learning_rate":0.125,"momentum":0.5,"nesterov":true,"weight_decay":0.0625,"clip_norm":0.03125})";
  const std::string adam_options =
      R"({"learning_rate":0.125,"beta_1":0.5,"beta_2":0.75,"epsilon":0.25,"weight_decay":0.0625,"clip_norm":0.03125})";
  check(sgd, sgd_options, tesla::loss::MeanSquaredError(), "{}", y);
  check(tesla::optim::Adam({.learning_rate = 0.125,
                            .beta_1 = 0.5,
                            .beta_2 = 0.75,
                            .epsilon = 0.25,
                            .weight_decay = 0.0625,
                            .clip_norm = 0.03125}),
        adam_options, tesla::loss::MeanAbsoluteError(), "{}", y);
  check(tesla::optim::AdamW({.learning_rate = 0.125,
                             .beta_1 = 0.5,
                             .beta_2 = 0.75,
                             .epsilon = 0.25,
                             .weight_decay = 0.0625,
                             .clip_norm = 0.03125}),
        adam_options, tesla::loss::Huber({.delta = 0.375}), R"({"delta":0.375})", y);
  const std::string plain =
      R"({"learning_rate":0.01,"momentum":0.0,"nesterov":false,"weight_decay":0.0,"clip_norm":0.0})";
  for (const bool logits : {true, false}) {
    const std::string options = logits ? R"({"from_logits":true})" : R"({"from_logits":false})";
    check(tesla::optim::SGD(), plain, tesla::loss::BinaryCrossEntropy({.from_logits = logits}), options, one_hot);
    check(tesla::optim::SGD(), plain, tesla::loss::CategoricalCrossEntropy({.from_logits = logits}), options, one_hot);
    check(tesla::optim::SGD(), plain, tesla::loss::SparseCategoricalCrossEntropy({.from_logits = logits}), options,
          labels);
  }
}

TEST_CASE("models with parts of one's own come back through restore", "[file]") {
  const TemporaryFolder folder;
  const auto x = normal_numbers({21, 4}, 1), y = normal_numbers({21, 2}, 2);
  const auto train = [&](Sequential& model, std::size_t epochs) {
    model.fit(x, y, {.epochs = epochs, .batch_size = 8, .verbose = 0});
  };
  const auto own = tesla::activation([](auto v) { return v / (1 + exp(-v)); });
  const auto quartic = tesla::loss::custom([](auto a, auto b) { return (a - b) * (a - b) * (a - b) * (a - b); });

  const auto check = [&](const std::string& word, const std::function<void(Sequential&)>& make) {
    INFO(word);
    const std::string path = folder.path("model");
    Sequential straight, model, other;
    make(straight);
    train(straight, 3);
    make(model);
    train(model, 1);
    model.save(path);
    check_raises<UsageError>([&] { Sequential::load(path); }, {path, word, "restore"});
    make(other);
    other.restore(path);
    CHECK(bits(other.predict(x)) == bits(model.predict(x)));
    train(other, 2);
    CHECK(parameter_bits(other) == parameter_bits(straight));
  };
  check("activation", [&](Sequential& m) {
    m.add_layer(Dense({.units = 5, .activation = own})).add_layer(Dense({.units = 2}));
    m.compile(tesla::optim::Adam(), tesla::loss::MeanSquaredError());
  });
  check("activation", [&](Sequential& m) {
    m.add_layer(Dense({.units = 5})).add_layer(own).add_layer(Dense({.units = 2}));
    m.compile(tesla::optim::Adam(), tesla::loss::MeanSquaredError());
  });
  check("Scale", [&](Sequential& m) {
    m.add_layer(Dense({.units = 2})).add_layer(Scale());
    m.compile(tesla::optim::Adam(), tesla::loss::MeanSquaredError());
  });
  check("Custom", [&](Sequential& m) {
    m.add_layer(Dense({.units = 2}));
    m.compile(tesla::optim::Adam(), quartic);
  });
  check("OwnAdagrad", [&](Sequential& m) {
    m.add_layer(Dense({.units = 2}));
    m.compile(OwnAdagrad(), tesla::loss::MeanSquaredError());
  });
}

TEST_CASE("the state of another optimizer is left out by restore", "[file]") {
  const TemporaryFolder folder;
  const auto x = normal_numbers({20, 4}, 1), y = normal_numbers({20, 3}, 2);
  Sequential saved;
  add_layers(saved);
  saved.compile(tesla::optim::SGD({.momentum = 0.9}), tesla::loss::MeanSquaredError());
  saved.train_step(x, y);
  saved.save(folder.path("model"));

  Sequential restored, fresh;
  for (Sequential* model : {&restored, &fresh}) {
    add_layers(*model);
    model->compile(tesla::optim::Adam(), tesla::loss::MeanSquaredError());
    model->build({4});
  }
  restored.train_step(x, y);
  restored.restore(folder.path("model"));
  CHECK(parameter_bits(restored) == parameter_bits(saved));
  for (auto& p : fresh.parameters()) p.assign(saved.parameter(p.name()).value());
  for (int i = 0; i < 3; ++i) CHECK(restored.train_step(x, y) == fresh.train_step(x, y));
  CHECK(parameter_bits(restored) == parameter_bits(fresh));
}

TEST_CASE("files go between float and double, and between backends", "[file]") {
  using Exact = tesla::BasicSequential<double, tesla::backend::Reference>;
  using Double = tesla::BasicSequential<double, tesla::backend::Cpu>;
  const TemporaryFolder folder;
  const std::string path = folder.path("model"), again = folder.path("again");
  const auto x = normal_numbers({20, 4}, 1), y = normal_numbers({20, 3}, 2);

  Double wide({.seed = 2});
  add_layers(wide);
  wide.compile(tesla::optim::Adam(), tesla::loss::MeanSquaredError());
  for (int i = 0; i < 3; ++i) wide.train_step(x, y);
  wide.save(path);
  CHECK(tesla::io::SafeTensors::read(path).at("dense.weight").dtype == tesla::io::DType::float64);
  Double same = Double::load(path);
  CHECK(parameter_bits(same) == parameter_bits(wide));
  CHECK(same.train_step(x, y) == wide.train_step(x, y));
  CHECK(parameter_bits(same) == parameter_bits(wide));

  Exact exact = Exact::load(path);
  exact.save(again);
  CHECK(tesla::io::read_file(again) == tesla::io::read_file(path));

  Sequential narrow = Sequential::load(path);
  const Double original = Double::load(path);
  for (const auto& p : narrow.parameters()) {
    const auto wanted = Double::load(path).parameter(p.name()).value();
    const auto found = p.value();
    for (std::size_t i = 0; i < found.size(); ++i) REQUIRE(found[i] == static_cast<float>(wanted[i]));
  }
  narrow.save(path);
  CHECK(tesla::io::SafeTensors::read(path).at("dense.weight").dtype == tesla::io::DType::float32);
  Double back = Double::load(path);
  back.save(again);
  CHECK(parameter_bits(narrow) == [&] {
    Sequential model = Sequential::load(again);
    return parameter_bits(model);
  }());
}

TEST_CASE("a hostile description fails before memory is taken for it", "[file]") {
  const TemporaryFolder folder;
  const std::string good = folder.path("good"), bad = folder.path("bad");
  Sequential model;
  model.add_layer(tesla::Input({4})).add_layer(Dense({.units = 5, .activation = tesla::elu, .name = "hidden"}));
  model.compile(tesla::optim::SGD({.momentum = 0.5}), tesla::loss::Huber({.delta = 0.5}), {tesla::metric::Accuracy()});
  model.build({4});
  model.save(good);
  struct Change {
    const char *from, *to;
    std::vector<std::string> words;
  };
  const std::vector<Change> changes = {
      {"\"units\":5", "\"units\":1000000000000", {"hidden.weight", "{1000000000000, 4}", "{5, 4}"}},
      {"\"units\":5", "\"units\":4611686018427387904", {"overflow"}},
      {"\"units\":5", "\"units\":18446744073709551615", {"overflow"}},
      {"\"units\":5", "\"units\":0", {".units"}},
      {"\"units\":5", "\"units\":-1", {"units"}},
      {"\"units\":5", "\"units\":5.5", {"units"}},
      {"\"units\":5", "\"units\":\"5\"", {"units"}},
      {"\"input\":[4]", "\"input\":[1000000000000]", {"1000000000000"}},
      {"\"input\":[4]", "\"input\":[4294967296,4294967296]", {"overflow"}},
      {"\"input\":[4]", "\"input\":[1,1,1,1,1,1,1,1,4]", {"8"}},
      {"\"input\":[4]", "\"input\":[]", {"feature"}},
      {"\"shape\":[4]", "\"shape\":[1000000000000]", {"1000000000000"}},
      {"\"kind\":\"Dense\"", "\"kind\":\"Dance\"", {"Dance", "restore"}},
      {"\"name\":\"elu\"", "\"name\":\"eel\"", {"eel"}},
      {"\"name\":\"elu\"", "\"name\":\"custom\"", {"custom", "restore"}},
      {"\"parameter\":1.0},\"init", "\"parameter\":-1.0},\"init", {"alpha", "-1"}},
      {"\"name\":\"hidden\"", "\"name\":\"input\"", {"\"input\""}},
      {"\"kind\":\"SGD\"", "\"kind\":\"SDG\"", {"SDG", "restore"}},
      {"\"momentum\":0.5", "\"momentum\":5", {".momentum", "5"}},
      {"\"kind\":\"Huber\"", "\"kind\":\"Hubert\"", {"Hubert", "restore"}},
      {"\"delta\":0.5", "\"delta\":-1", {".delta", "-1"}},
      {"\"accuracy\"", "\"luck\"", {"luck", "restore"}},
      {"\"layers\":[", "\"lawyers\":[", {"layers"}},
      {"\"step\":0", "\"step\":-1", {"step"}},
  };
  for (const Change& change : changes) {
    INFO(change.from << " becomes " << change.to);
    tesla::io::write_file_atomically(bad, {tesla::io::Bytes(tesla::io::read_file(good))});
    change_description(bad, change.from, change.to);
    // Neither std::bad_alloc nor anything else but the library's own errors.
    try {
      Sequential::load(bad);
      FAIL_CHECK("no exception");
    } catch (const tesla::Error& error) {
      INFO(error.what());
      for (const std::string& word : change.words) CHECK_THAT(error.what(), Catch::Contains(word));
    }
  }
}

TEST_CASE("a file with values that are not finite is refused", "[file]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("model");
  Sequential model;
  model.add_layer(Dense({.units = 5, .name = "hidden"}));
  model.compile(tesla::optim::SGD(), tesla::loss::MeanSquaredError());
  model.build({4});
  for (const std::string name : {"hidden.weight", "hidden.bias", "hidden.bias.optimizer.0"}) {
    model.save(path);
    const auto file = tesla::io::SafeTensors::read(path);
    auto tensors = file.tensors();
    for (auto& info : tensors) {
      if (info.name != name) continue;
      auto broken = file.tensor<float>(name);
      broken[3] = std::numeric_limits<float>::quiet_NaN();
      info.bytes = tesla::io::bytes_of(broken);
      tesla::io::write_safetensors(path, tensors, file.metadata());
    }
    check_raises<tesla::DataError>([&] { Sequential::load(path); }, {path, "\"" + name + "\"", "NaN"});
  }
}

}  // namespace test_model_file
