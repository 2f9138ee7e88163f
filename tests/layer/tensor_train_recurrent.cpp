// Recurrent layers with a tensor-train for their input weights: gradients, the same as with the matrix, conversions,
// both backends, files, and what they complain about.
#include <tesla/tesla.hpp>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <io/temporary_folder.hpp>
#include <layer/checks.hpp>
#include <layer/sequences.hpp>
#include <string>
#include <vector>

namespace test_layer_tensor_train_recurrent {

using namespace tesla;

namespace {

using Options = layer::TensorTrainRecurrentOptions;
using layer_test::complaint;
using sequence_test::random_sequences;

template <class T, class B>
using Model = BasicSequential<T, B>;

/// The kinds, their twins with a matrix, and how many gates they have.
struct Simple {
  using Train = TensorTrainSimpleRNN;
  using Matrix = SimpleRNN;
  static constexpr std::size_t gates = 1;
};
struct Long {
  using Train = TensorTrainLSTM;
  using Matrix = LSTM;
  static constexpr std::size_t gates = 4;
};
struct Gated {
  using Train = TensorTrainGRU;
  using Matrix = GRU;
  static constexpr std::size_t gates = 3;
};
template <class F>
void each_kind(const F& f) {
  f(Simple());
  f(Long());
  f(Gated());
}

std::size_t outputs_of(const Options& o, std::size_t length) {
  return o.units * (o.bidirectional ? 2 : 1) * (o.return_sequences ? length : 1);
}

/// The layer with a matrix that has the values of one with a train.
template <class Kind>
typename Kind::Matrix whole(const typename Kind::Train& train) {
  typename Kind::Matrix result({.units = train.units,
                                .return_sequences = train.return_sequences,
                                .bidirectional = train.bidirectional,
                                .masking = train.masking,
                                .mask_value = train.mask_value,
                                .use_bias = train.use_bias});
  const std::size_t directions = train.bidirectional ? 2 : 1, each = train.initial->size() / directions;
  layer::Values values;
  for (std::size_t d = 0; d < directions; ++d) {
    const auto first = train.initial->begin() + static_cast<std::ptrdiff_t>(d * each);
    const auto rest = first + static_cast<std::ptrdiff_t>(train.in.rank());
    values.push_back(network::TensorTrainMatrix<double>(std::vector<Tensor<double>>(first, rest)).to_dense());
    values.insert(values.end(), rest, first + static_cast<std::ptrdiff_t>(each));
  }
  result.initial = std::make_shared<const layer::Values>(std::move(values));
  return result;
}

/// Passes everything on, and leaves numbers in lanes without a sample.
struct Spill {
  static constexpr std::string_view kind = "Spill";

  Shape setup(const Shape& in, layer::Setup&) const { return in; }
  template <class T, class B>
  void forward(layer::Pass<T, B>&, Panels<const T> x, Panels<T> y) const {
    move(x, y);
  }
  template <class T, class B>
  void backward(layer::Pass<T, B>&, Panels<const T>, Panels<T>, Panels<T> dy, Panels<T> dx) const {
    if (dx) move(Panels<const T>(dy), dx);
  }

 private:
  template <class T>
  static void move(Panels<const T> from, Panels<T> to) {
    std::copy_n(from.data, from.size(), to.data);
    for (std::size_t s = to.batch; s < to.panels() * to.lanes; ++s)
      for (std::size_t f = 0; f < to.features; ++f) to.at(s, f) = T(3);
  }
};

template <class T>
double distance(const Tensor<T>& a, const Tensor<T>& b) {
  REQUIRE(a.shape() == b.shape());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return worst;
}

}  // namespace

TEMPLATE_TEST_CASE("tensor-train recurrent layers: gradients", "[layer][recurrent][gradients]", backend::Reference,
                   backend::Cpu) {
  each_kind([](auto kind) {
    using Kind = decltype(kind);
    for (const std::size_t batch : {1, 5, 70})
      for (const std::size_t length : {1, 3})
        for (const int variant : {0, 1, 2, 3, 4}) {
          if (length == 1 && (batch == 70 || (batch == 1 && variant >= 3))) continue;  // the only step is masked
          Options options{.units = 4, .in = {2, 3}, .out = {2, 2 * Kind::gates}, .rank = 2};
          if (variant == 2) options.in = {6, 1}, options.out = {1, 4 * Kind::gates};
          if (variant == 3) options.in = {3, 1, 2}, options.out = {2, Kind::gates, 2}, options.rank = 3;
          options.return_sequences = variant == 1 || variant == 3, options.bidirectional = variant >= 2;
          options.masking = variant >= 3, options.use_bias = variant != 2;
          options.bias_initializer = init::normal(0.3);
          INFO(Kind::Train::kind << ", batch " << batch << ", length " << length << ", variant " << variant);
          // One below, so that the gradient by the input is seen; masks are those of data.
          Model<double, TestType> model(SequentialOptions{.seed = 5});
          if (!options.masking) model.add_layer(GRU({.units = 6, .return_sequences = true}));
          model.add_layer(Spill()).add_layer(typename Kind::Train(options)).add_layer(Spill());
          model.build({length, 6});
          const auto x = random_sequences<double>(batch, length, 6, options.masking, options.mask_value);
          layer_test::check_gradients(std::move(model), x, outputs_of(options, length));
        }
  });
}

TEST_CASE("tensor-train recurrent layers: both ways, masks, and a gradient by the input", "[layer][recurrent]") {
  each_kind([](auto kind) {
    using Kind = decltype(kind);
    for (const std::size_t batch : {1, 5, 70}) {
      const Options options{.units = 4,
                            .in = {2, 3},
                            .out = {2, 2 * Kind::gates},
                            .rank = 2,
                            .return_sequences = true,
                            .bidirectional = true,
                            .masking = true,
                            .mask_value = 100};
      INFO(Kind::Train::kind << ", batch " << batch);
      Model<double, backend::Cpu> model(SequentialOptions{.seed = 5});
      model.add_layer(TimeDistributed(Dense({.units = 6}))).add_layer(typename Kind::Train(options));
      model.build({3, 2});
      const auto x = random_sequences<double>(batch, 3, 2, false, 0);
      layer_test::check_gradients(std::move(model), x, outputs_of(options, 3));
    }
  });
}

TEMPLATE_TEST_CASE("tensor-train recurrent layers: the same as with the matrix of the train", "[layer][recurrent]",
                   (Model<float, backend::Cpu>), (Model<double, backend::Cpu>), (Model<double, backend::Reference>),
                   (Model<float, backend::Reference>)) {
  using T = typename TestType::Scalar;
  const double tolerance = sizeof(T) == sizeof(float) ? 2e-5 : 1e-12;
  each_kind([&](auto kind) {
    using Kind = decltype(kind);
    // 130 steps of a single sample are more than a panel has lanes.
    const std::vector<std::pair<std::size_t, std::size_t>> sizes{{1, 1}, {1, 130}, {2, 3}, {5, 4}, {64, 3}, {70, 4}};
    for (const auto& size : sizes)
      for (const int variant : {0, 1, 2}) {
        const std::size_t batch = size.first, length = size.second;
        Options options{
            .units = 8, .in = {4, 5}, .out = {4, 2 * Kind::gates}, .rank = 3, .bias_initializer = init::normal(0.3)};
        options.return_sequences = options.bidirectional = variant == 1, options.masking = variant > 0;
        if (variant == 2) options.in = {20, 1}, options.out = {1, 8 * Kind::gates};
        INFO(Kind::Train::kind << ", batch " << batch << ", length " << length << ", variant " << variant);
        const auto made = [&](const auto& layer) {
          TestType model(SequentialOptions{.seed = 3});
          model.add_layer(TimeDistributed(Dense({.units = 20, .use_bias = false})));
          model.add_layer(Spill()).add_layer(layer).add_layer(Spill());
          model.build({length, 6});
          model.compile(optim::SGD({.learning_rate = 0.1}), loss::MeanSquaredError());
          return model;
        };
        typename Kind::Train first(options);
        first.name = "r";
        TestType train = made(first);
        typename Kind::Matrix twin = whole<Kind>(train.template layer<typename Kind::Train>("r"));
        twin.name = "r";
        TestType matrix = made(twin);
        const auto x = random_sequences<T>(batch, length, 6, options.masking, 0);
        CHECK(distance(train.predict(x), matrix.predict(x)) < tolerance);
        // A step changes all but the input weights by the same.
        Tensor<T> y({batch, outputs_of(options, length)});
        random::fill_normal(y, {.seed = 2});
        CHECK(train.train_step(x, y) == Approx(matrix.train_step(x, y)).epsilon(tolerance));
        for (const auto& p : matrix.parameters()) {
          if (p.name() == "r.weight" || p.name() == "r.reverse.weight") continue;
          INFO(p.name());
          CHECK(distance(p.value(), train.parameter(p.name()).value()) < tolerance);
        }
      }
  });
}

TEST_CASE("tensor-train recurrent layers: the same on both backends, at sizes beyond a tile", "[layer][recurrent]") {
  each_kind([](auto kind) {
    using Kind = decltype(kind);
    for (const std::size_t batch : {1, 2, 17, 64, 70, 130})
      for (const bool both : {false, true}) {
        const Options options{.units = 30,
                              .in = {3, 4, 5},
                              .out = {3, 5, 2 * Kind::gates},
                              .rank = 6,
                              .return_sequences = both,
                              .bidirectional = both,
                              .masking = true};
        const std::size_t length = 5, features = 60;
        INFO(Kind::Train::kind << ", batch " << batch << ", both ways " << both);
        const auto x = random_sequences<float>(batch, length, features, true, 0);
        Tensor<float> y({batch, outputs_of(options, length)});
        random::fill_normal(y, {.seed = 2});
        const auto trained = [&](auto model) {
          model.add_layer(typename Kind::Train(options));
          model.build({length, features});
          model.compile(optim::SGD({.learning_rate = 0.1}), loss::MeanSquaredError());
          for (int i = 0; i < 3; ++i) model.train_step(x, y);
          return model.predict(x, {.batch_size = batch});
        };
        const auto fast = trained(Sequential());
        const auto exact = trained(Model<double, backend::Reference>());
        double worst = 0;
        for (std::size_t i = 0; i < fast.size(); ++i)
          worst = std::max(worst, std::abs(static_cast<double>(fast[i]) - exact[i]));
        CHECK(worst < 3e-5);
      }
  });
}

TEST_CASE("tensor-train recurrent layers: the same bits at any number of threads", "[layer][recurrent]") {
  each_kind([](auto kind) {
    using Kind = decltype(kind);
    const Options options{.units = 48,
                          .in = {4, 4, 8},
                          .out = {4, 4, 3 * Kind::gates},
                          .rank = 8,
                          .return_sequences = true,
                          .bidirectional = true,
                          .masking = true};
    const auto x = random_sequences<float>(100, 7, 128, true, 0);
    Tensor<float> y({100, 1});
    random::fill_normal(y, {.seed = 2});
    const auto trained = [&](int count) {
      set_threads(count);
      Sequential model;
      model.add_layer(typename Kind::Train(options)).add_layer(GRU({.units = 8})).add_layer(Dense({.units = 1}));
      model.compile(optim::Adam(), loss::MeanSquaredError());
      model.build({7, 128});
      model.fit(x, y, {.epochs = 2, .batch_size = 30, .verbose = 0});
      set_threads(0);
      return model.predict(x);
    };
    const auto one = trained(1);
    for (const int count : {2, 3}) {
      const auto more = trained(count);
      CHECK(std::memcmp(one.data(), more.data(), one.size() * sizeof(float)) == 0);
    }
  });
}

TEST_CASE("tensor-train recurrent layers: how they begin", "[layer][recurrent]") {
  Sequential model;
  model
      .add_layer(TensorTrainLSTM({.units = 4,
                                  .in = {2, 3},
                                  .out = {4, 4},
                                  .rank = 50,
                                  .return_sequences = true,
                                  .bidirectional = true,
                                  .name = "first"}))
      .add_layer(TensorTrainGRU({.units = 3, .in = {2, 4}, .out = {3, 3}, .ranks = {2}}))
      .add_layer(TensorTrainSimpleRNN({.units = 3, .in = {3}, .out = {3}, .use_bias = false}));
  CHECK_THROWS_WITH(model.build({2, 6}), Catch::Contains("expects sequences") && Catch::Contains("{3}"));
  Sequential two;
  two.add_layer(TensorTrainLSTM({.units = 4,
                                 .in = {2, 3},
                                 .out = {4, 4},
                                 .rank = 50,
                                 .return_sequences = true,
                                 .bidirectional = true,
                                 .name = "first"}))
      .add_layer(TensorTrainGRU({.units = 3, .in = {2, 4}, .out = {3, 3}, .ranks = {2}}));
  two.build({2, 6});
  std::string names;
  for (const auto& p : two.parameters()) names += p.name() + " ";
  CHECK(names ==
        "first.core.0 first.core.1 first.recurrent_weight first.bias first.reverse.core.0 first.reverse.core.1 "
        "first.reverse.recurrent_weight first.reverse.bias tensor_train_gru.core.0 tensor_train_gru.core.1 "
        "tensor_train_gru.recurrent_weight tensor_train_gru.bias tensor_train_gru.recurrent_bias ");
  CHECK(two.parameter("first.core.0").shape() == Shape{1, 4, 2, 8});
  CHECK(two.parameter("first.reverse.core.1").shape() == Shape{8, 4, 3, 1});
  CHECK(two.parameter("first.bias").value()[4] == 1);
  const std::string said = two.summary_text();
  INFO(said);
  for (const char* part : {"320 input weights for 192, no fewer than LSTM has, ranks {8}, the most there are of 50",
                           "36 input weights for 72 (2 times fewer), ranks {2}"})
    CHECK(said.find(part) != std::string::npos);
  CHECK(two.plan(64).find("layer 2 (tensor_train_gru: TensorTrainGRU") != std::string::npos);
  CHECK(two.plan(64).find("predicting at batch 128") != std::string::npos);
  // A layer that is taken out has its values.
  Sequential copy;
  copy.add_layer(two.layer<TensorTrainLSTM>("first"));
  copy.build({2, 6});
  const auto a = two.parameter("first.reverse.core.1").value(), b = copy.parameter("first.reverse.core.1").value();
  CHECK(std::equal(a.begin(), a.end(), b.begin()));
  // The rate of the cores is their own.
  Sequential fast;
  fast.add_layer(TensorTrainGRU({.units = 4, .in = {2, 3}, .out = {4, 3}, .rank = 2, .rate = 1e-6}));
  fast.build({2, 6});
  fast.compile(optim::Adam({.learning_rate = 0.01}), loss::MeanSquaredError());
  Tensor<float> y({9, 4});
  random::fill_normal(y, {.seed = 2});
  const auto core = fast.parameter("tensor_train_gru.core.0").value();
  const auto weight = fast.parameter("tensor_train_gru.recurrent_weight").value();
  fast.train_step(random_sequences<float>(9, 2, 6, false, 0), y);
  CHECK(distance(core, fast.parameter("tensor_train_gru.core.0").value()) < 1e-6);
  CHECK(distance(weight, fast.parameter("tensor_train_gru.recurrent_weight").value()) > 1e-3);
}

TEST_CASE("tensor-train recurrent layers: from layers with a matrix", "[layer][recurrent]") {
  each_kind([](auto kind) {
    using Kind = decltype(kind);
    using Train = typename Kind::Train;
    INFO(Train::kind);
    for (const bool both : {false, true}) {
      Sequential dense(SequentialOptions{.seed = 7});
      dense.add_layer(typename Kind::Matrix({.units = 12,
                                             .return_sequences = both,
                                             .bidirectional = both,
                                             .masking = both,
                                             .bias_initializer = init::normal(0.3),
                                             .name = "r"}));
      dense.build({5, 24});
      const auto trained = dense.layer<typename Kind::Matrix>("r");
      const auto x = random_sequences<float>(40, 5, 24, both, 0);
      const Tensor<float> wanted = dense.predict(x);
      const auto error = [&](const Options& options, double tolerance = 0) {
        Sequential other;
        other.add_layer(Train::from(trained, options, tolerance));
        return relative_error(wanted, other.predict(x));
      };
      const Options modes{.in = {4, 6}, .out = {6, 2 * Kind::gates}};
      CHECK(error(modes) < 1e-5);
      CHECK(error(modes, 1e-6) < 1e-4);
      double last = 1e9;
      for (const std::size_t rank :
           {std::size_t{1}, std::size_t{4}, std::size_t{10}, std::min<std::size_t>(24, 12 * Kind::gates)}) {
        Options ranked = modes;
        ranked.rank = rank;
        const double now = error(ranked);
        CHECK(now < last);
        last = now;
      }
      CHECK(last < 1e-5);
      // All else is that of the other layer.
      Options named = modes;
      named.name = "t", named.ranks = {3}, named.rate = 2;
      const Train train = Train::from(trained, named);
      CHECK(train.units == 12);
      CHECK(train.bidirectional == both);
      CHECK(train.ranks == Shape{3});
      Sequential model;
      model.add_layer(train);
      model.build({5, 24});
      const auto own = model.parameter("t.recurrent_weight").value(),
                 theirs = dense.parameter("r.recurrent_weight").value();
      CHECK(std::equal(own.begin(), own.end(), theirs.begin()));
      CHECK(model.predict(x).shape() == wanted.shape());
    }
  });
}

TEST_CASE("tensor-train recurrent layers: directions of different ranks", "[layer][recurrent]") {
  // One matrix of rank 1, whose train needs no more, and one of full rank.
  Sequential dense;
  dense.add_layer(SimpleRNN({.units = 6, .bidirectional = true, .name = "r"}));
  dense.build({4, 12});
  Tensor<float> flat({6, 12});
  for (std::size_t i = 0; i < flat.size(); ++i) flat[i] = 0.1F;
  dense.parameter("r.weight").assign(flat);
  const auto x = random_sequences<float>(9, 4, 12, false, 0);
  for (const double tolerance : {0.0, 1e-3}) {
    const auto train =
        TensorTrainSimpleRNN::from(dense.layer<SimpleRNN>("r"), {.in = {3, 4}, .out = {2, 3}}, tolerance);
    CHECK(train.ranks[0] > 1);
    Sequential model;
    model.add_layer(train);
    CHECK(relative_error(dense.predict(x), model.predict(x)) < 1e-2);
  }
}

TEST_CASE("tensor-train recurrent layers: saved, loaded, and trained on with the same bits", "[layer][recurrent]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("model.safetensors");
  const auto x = random_sequences<float>(20, 5, 6, true, -1);
  Tensor<float> y({20, 2});
  random::fill_normal(y, {.seed = 2});
  Sequential model;
  model
      .add_layer(TensorTrainSimpleRNN({.units = 4,
                                       .in = {2, 3},
                                       .out = {2, 2},
                                       .rank = 2,
                                       .return_sequences = true,
                                       .masking = true,
                                       .mask_value = -1,
                                       .rate = 2}))
      .add_layer(TensorTrainLSTM(
          {.units = 3, .in = {2, 2}, .out = {4, 3}, .ranks = {3}, .return_sequences = true, .bidirectional = true}))
      .add_layer(TensorTrainGRU({.units = 2, .in = {6, 1}, .out = {1, 6}, .rank = 3, .use_bias = false}));
  model.compile(optim::Adam(), loss::MeanSquaredError());
  model.fit(x, y, {.epochs = 2, .batch_size = 8, .verbose = 0});
  model.save(path);
  auto loaded = Sequential::load<AllLayers>(path);
  for (auto* m : {&model, &loaded}) m->fit(x, y, {.epochs = 1, .batch_size = 8, .verbose = 0});
  const auto a = model.predict(x), b = loaded.predict(x);
  CHECK(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

TEST_CASE("tensor-train recurrent layers: complaints", "[layer][recurrent]") {
  using Catch::Matchers::Contains;
  const auto lstm = [](const Options& options) { return complaint(TensorTrainLSTM(options), {7, 12}); };
  const Options good{.units = 6, .in = {3, 4}, .out = {4, 6}, .rank = 2};
  CHECK(lstm(good) == "");
  CHECK_THAT(complaint(TensorTrainLSTM(good), {7, 15}),
             Contains("{3, 4} make 12 features, its input has 15") && Contains("modes that fit are {3, 5}"));
  CHECK_THAT(complaint(TensorTrainLSTM(good), {12}), Contains("expects sequences of shape {length, features}"));
  const auto changed = [&](const auto& change) {
    Options options = good;
    change(options);
    return lstm(options);
  };
  CHECK_THAT(changed([](Options& o) { o.units = 0; }), Contains(".units"));
  CHECK_THAT(changed([](Options& o) { o.units = 5; }),
             Contains("{4, 6} make 24 rows, its 5 units have 20, 4 for each") && Contains("modes that fit are {4, 5}"));
  CHECK_THAT(changed([](Options& o) { o.in = o.out = {}; }), Contains("as many modes in .in as in .out"));
  CHECK_THAT(changed([](Options& o) { o.out = {24}; }), Contains("as many modes in .in as in .out"));
  CHECK_THAT(changed([](Options& o) { o.rank = 0; }), Contains("needs .rank, or .ranks with 1 numbers"));
  CHECK_THAT(changed([](Options& o) { o.ranks = {2}; }), Contains(".rank or .ranks, not both"));
  CHECK_THAT(changed([](Options& o) { o.rate = 0; }), Contains(".rate"));
  CHECK_THAT(changed([](Options& o) { o.initializer = init::zeros; }), Contains("begin as a constant"));
  CHECK_THROWS_WITH(
      TensorTrainLSTM::from(LSTM({.units = 6}), good),
      Contains("TensorTrainLSTM::from: this LSTM layer has no values yet") && Contains("model.layer<LSTM>(name)"));
  Sequential dense;
  dense.add_layer(LSTM({.units = 6, .name = "r"}));
  dense.build({7, 12});
  CHECK_THROWS_WITH(TensorTrainLSTM::from(dense.layer<LSTM>("r"), {.in = {3, 5}, .out = {4, 6}, .rank = 2}),
                    Contains("12"));
  TensorTrainLSTM other = TensorTrainLSTM::from(dense.layer<LSTM>("r"), good);
  other.in = {4, 3};
  CHECK_THAT(complaint(other, {7, 12}), Contains("was made with a core 0 of shape {1, 4, 3, 2}"));
}

}  // namespace test_layer_tensor_train_recurrent
