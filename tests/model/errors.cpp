// Misuse: the right error, with words that help, and a model that is as it was.
#include <sys/resource.h>
#include <tesla/tesla.hpp>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <functional>
#include <io/temporary_folder.hpp>
#include <limits>
#include <model/support.hpp>
#include <string>
#include <vector>

namespace test_model_errors {

using tesla::DataError;
using tesla::Dense;
using tesla::FileError;
using tesla::FormatError;
using tesla::Sequential;
using tesla::ShapeError;
using tesla::UsageError;

namespace {

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();

/// A model of 4 features and 3 outputs that has been trained for a step, and six samples for it.
struct Fixture {
  Sequential model{tesla::SequentialOptions{.seed = 3}};
  tesla::Tensor<float> x = normal_numbers({6, 4}, 1), targets = normal_numbers({6, 3}, 2);
  std::vector<std::int32_t> labels{0, 1, 2, 2, 1, 0};
  std::vector<float> weight = std::vector<float>(6, 1.0F);

  Fixture() {
    model.add_layer(Dense({.units = 5, .activation = tesla::relu, .name = "hidden"})).add_layer(Dense({.units = 3}));
    compile(tesla::loss::SparseCategoricalCrossEntropy());
    model.train_step(x, labels);
  }
  template <class Loss>
  void compile(const Loss& loss) {
    model.compile(tesla::optim::SGD({.learning_rate = 0.1}), loss);
  }
};

using Check = void (*)(const std::function<void()>&, const std::vector<std::string>&);
template <class E>
constexpr Check raises =
    [](const std::function<void()>& call, const std::vector<std::string>& words) { check_raises<E>(call, words); };

struct Misuse {
  const char* what;
  Check check;
  std::vector<std::string> words;
  std::function<void(Fixture&)> call;
};

void check_table(const std::vector<Misuse>& table) {
  for (const Misuse& misuse : table) {
    INFO(misuse.what);
    Fixture f;
    const std::string before = parameter_bits(f.model);
    misuse.check([&] { misuse.call(f); }, misuse.words);
    CHECK(parameter_bits(f.model) == before);
    f.compile(tesla::loss::SparseCategoricalCrossEntropy());
    CHECK_NOTHROW(f.model.train_step(f.x, f.labels));
  }
}

/// A file of bytes.
void write(const std::string& path, const std::vector<std::uint8_t>& bytes) {
  tesla::io::write_file_atomically(path, {tesla::io::Bytes(bytes)});
}

/// Forbids files of more than so many bytes, as a full disk would.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    std::fflush(nullptr);
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  void (*handler_)(int);
  rlimit old_{};
};

}  // namespace

TEST_CASE("arrays of a wrong shape are refused", "[errors]") {
  const tesla::Tensor<float> wide({6, 5});
  const std::vector<std::int32_t> short_labels(5);
  check_table({
      {"fit: features",
       raises<ShapeError>,
       {"fit: x", "expects 4 features", "{6, 5}"},
       [&](Fixture& f) { f.model.fit(wide, f.labels, {.verbose = 0}); }},
      {"evaluate: features",
       raises<ShapeError>,
       {"evaluate: x", "expects 4 features", "{6, 5}"},
       [&](Fixture& f) { f.model.evaluate(wide, f.labels); }},
      {"predict: features",
       raises<ShapeError>,
       {"predict: x", "expects 4 features", "{6, 5}"},
       [&](Fixture& f) { f.model.predict(wide); }},
      {"train_step: features",
       raises<ShapeError>,
       {"train_step: x", "expects 4 features", "{6, 5}"},
       [&](Fixture& f) { f.model.train_step(wide, f.labels); }},
      {"fit: one extent",
       raises<ShapeError>,
       {"fit: x", "4 features", "{6}"},
       [&](Fixture& f) { f.model.fit(f.weight, f.labels, {.verbose = 0}); }},
      {"fit: targets",
       raises<ShapeError>,
       {"fit: y", "6 samples", "{5}"},
       [&](Fixture& f) { f.model.fit(f.x, short_labels, {.verbose = 0}); }},
      {"evaluate: targets",
       raises<ShapeError>,
       {"evaluate: y", "6 samples", "{5}"},
       [&](Fixture& f) { f.model.evaluate(f.x, short_labels); }},
      {"train_step: targets",
       raises<ShapeError>,
       {"train_step: y", "6 samples", "{5}"},
       [&](Fixture& f) { f.model.train_step(f.x, short_labels); }},
      {"no targets",
       raises<ShapeError>,
       {"fit: y", "6 samples", "{0}"},
       [&](Fixture& f) { f.model.fit(f.x, {}, {.verbose = 0}); }},
      {"validation: features",
       raises<ShapeError>,
       {"validation x", "4 features", "{6, 5}"},
       [&](Fixture& f) {
         f.model.fit(f.x, f.labels, {.validation = {wide, f.labels}, .verbose = 0});
       }},
      {"validation: targets",
       raises<ShapeError>,
       {"validation y", "6 samples", "{5}"},
       [&](Fixture& f) {
         f.model.fit(f.x, f.labels, {.validation = {f.x, short_labels}, .verbose = 0});
       }},
      {"rows where labels are wanted",
       raises<ShapeError>,
       {"label", "{6, 3}", "CategoricalCrossEntropy"},
       [&](Fixture& f) { f.model.fit(f.x, f.targets, {.verbose = 0}); }},
      {"labels where rows are wanted",
       raises<ShapeError>,
       {"fit: y", "3 outputs", "{6}"},
       [&](Fixture& f) {
         f.compile(tesla::loss::CategoricalCrossEntropy());
         f.model.fit(f.x, f.labels, {.verbose = 0});
       }},
      {"targets of another width",
       raises<ShapeError>,
       {"fit: y", "3 outputs", "{6, 4}"},
       [&](Fixture& f) {
         f.compile(tesla::loss::MeanSquaredError());
         f.model.fit(f.x, f.x, {.verbose = 0});
       }},
      {"sample weights",
       raises<ShapeError>,
       {"fit: sample_weight", "6 samples", "{5}"},
       [&](Fixture& f) {
         const std::vector<float> weight(5);
         f.model.fit(f.x, f.labels, {.sample_weight = weight, .verbose = 0});
       }},
      {"memory for predictions",
       raises<ShapeError>,
       {"predict", "18 values", "not 17"},
       [&](Fixture& f) {
         std::vector<float> out(17);
         f.model.predict_into(f.x, out);
       }},
      {"a view",
       raises<ShapeError>,
       {"view", "{2, 4}", "8 values", "6"},
       [&](Fixture& f) {
         tesla::view(f.labels, {2, 4});
       }},
  });
}

TEST_CASE("arrays without samples are refused", "[errors]") {
  const tesla::Tensor<float> none({0, 4});
  const std::vector<std::int32_t> no_labels;
  check_table({
      {"fit",
       raises<DataError>,
       {"fit: x", "{0, 4}"},
       [&](Fixture& f) { f.model.fit(none, no_labels, {.verbose = 0}); }},
      {"fit without arrays",
       raises<DataError>,
       {"fit: x", "no samples"},
       [&](Fixture& f) { f.model.fit(tesla::data::Samples(), {.verbose = 0}); }},
      {"fit on an empty dataset",
       raises<DataError>,
       {"fit: x", "no samples"},
       [&](Fixture& f) { f.model.fit(tesla::data::Dataset<>(), {.verbose = 0}); }},
      {"evaluate",
       raises<DataError>,
       {"evaluate: x", "no samples", "{0, 4}"},
       [&](Fixture& f) { f.model.evaluate(none, no_labels); }},
      {"predict",
       raises<DataError>,
       {"predict: x", "no samples", "{0, 4}"},
       [&](Fixture& f) { f.model.predict(none); }},
      {"train_step",
       raises<DataError>,
       {"train_step: x", "no samples", "{0, 4}"},
       [&](Fixture& f) { f.model.train_step(none, no_labels); }},
  });
}

TEST_CASE("labels that are no classes are refused", "[errors]") {
  for (const double label : {3.0, 1e300, 2.5, -1.0, -0.5, std::nan(""), static_cast<double>(infinity)}) {
    const tesla::Tensor<double> y({6}, {0, 1, 2, 0, label, 2});
    const std::vector<std::string> words{"label of sample 4", tesla::text("is ", label), "0 to 2"};
    check_table({
        {"fit", raises<DataError>, words, [&](Fixture& f) { f.model.fit(f.x, y, {.verbose = 0}); }},
        {"evaluate", raises<DataError>, words, [&](Fixture& f) { f.model.evaluate(f.x, y); }},
        {"train_step", raises<DataError>, words, [&](Fixture& f) { f.model.train_step(f.x, y); }},
        {"from probabilities", raises<DataError>, words,
         [&](Fixture& f) {
           f.compile(tesla::loss::SparseCategoricalCrossEntropy({.from_logits = false}));
           f.model.train_step(f.x, y);
         }},
        {"validation", raises<DataError>, words,
         [&](Fixture& f) {
           f.model.fit(f.x, f.labels, {.validation = {f.x, y}, .verbose = 0});
         }},
    });
  }
}

TEST_CASE("values that are not finite are refused", "[errors]") {
  for (const float broken : {nan_value, infinity, -infinity}) {
    tesla::Tensor<float> x = normal_numbers({6, 4}, 1), y = normal_numbers({6, 3}, 2);
    tesla::Tensor<double> by_columns({4, 6});
    std::vector<float> weight(6, 1.0F);
    x(3, 2) = y(4, 1) = weight[5] = broken;
    by_columns(2, 3) = static_cast<double>(broken);
    const tesla::ArrayView strided(by_columns.data(), {6, 4}, {1, 6});
    const std::string is = tesla::text("is ", broken);
    check_table({
        {"fit: x",
         raises<DataError>,
         {"fit: x", "sample 3, feature 2", is},
         [&](Fixture& f) { f.model.fit(x, f.labels, {.verbose = 0}); }},
        {"fit: x with strides",
         raises<DataError>,
         {"fit: x", "sample 3, feature 2", is},
         [&](Fixture& f) { f.model.fit(strided, f.labels, {.verbose = 0}); }},
        {"evaluate: x",
         raises<DataError>,
         {"evaluate: x", "sample 3, feature 2", is},
         [&](Fixture& f) { f.model.evaluate(x, f.labels); }},
        {"predict: x",
         raises<DataError>,
         {"predict: x", "sample 3, feature 2", is},
         [&](Fixture& f) { f.model.predict(x); }},
        {"train_step: x",
         raises<DataError>,
         {"train_step: x", "sample 3, feature 2", is},
         [&](Fixture& f) { f.model.train_step(x, f.labels); }},
        {"fit: y",
         raises<DataError>,
         {"fit: y", "sample 4, feature 1", is},
         [&](Fixture& f) {
           f.compile(tesla::loss::MeanSquaredError());
           f.model.fit(f.x, y, {.verbose = 0});
         }},
        {"validation: x",
         raises<DataError>,
         {"validation x", "sample 3, feature 2", is},
         [&](Fixture& f) {
           f.model.fit(f.x, f.labels, {.validation = {x, f.labels}, .verbose = 0});
         }},
        {"sample weights",
         raises<DataError>,
         {"fit: sample_weight", "sample 5", is},
         [&](Fixture& f) { f.model.fit(f.x, f.labels, {.sample_weight = weight, .verbose = 0}); }},
    });
  }
  const std::vector<float> weight{1, 1, -0.5F, 1, 1, 1};
  check_table({{"a negative weight", raises<DataError>, {"sample_weight", "sample 2", "-0.5"}, [&](Fixture& f) {
                  f.model.fit(f.x, f.labels, {.sample_weight = weight, .verbose = 0});
                }}});
}

TEST_CASE("calls in the wrong order and options out of range are refused", "[errors]") {
  check_table({
      {"fit in batches of none",
       raises<UsageError>,
       {"fit", ".batch_size"},
       [](Fixture& f) { f.model.fit(f.x, f.labels, {.batch_size = 0, .verbose = 0}); }},
      {"evaluate in batches of none",
       raises<UsageError>,
       {"evaluate", ".batch_size"},
       [](Fixture& f) { f.model.evaluate(f.x, f.labels, {.batch_size = 0}); }},
      {"predict in batches of none",
       raises<UsageError>,
       {"predict", ".batch_size"},
       [](Fixture& f) { f.model.predict(f.x, {.batch_size = 0}); }},
      {"an unknown parameter",
       raises<UsageError>,
       {"\"hidden.weights\"", "hidden.weight, hidden.bias, dense.weight"},
       [](Fixture& f) { f.model.parameter("hidden.weights"); }},
      {"too few values",
       raises<ShapeError>,
       {"hidden.bias", "{5}", "5 values", "not 4"},
       [](Fixture& f) { f.model.parameter("hidden.bias").assign(std::vector<float>(4)); }},
      {"too many values",
       raises<ShapeError>,
       {"hidden.bias", "{5}", "5 values", "not 6"},
       [](Fixture& f) { f.model.parameter("hidden.bias").assign(std::vector<float>(6)); }},
      {"a NaN as parameter",
       raises<DataError>,
       {"hidden.bias", "NaN"},
       [](Fixture& f) {
         f.model.parameter("hidden.bias").assign(std::vector<float>{0, 1, 2, nan_value, 4});
       }},
      {"a double beyond float as parameter",
       raises<DataError>,
       {"hidden.bias", "infinity"},
       [](Fixture& f) {
         f.model.parameter("hidden.bias").assign(std::vector<double>{0, 1, 2, 1e300, 4});
       }},
      {"a second layer of the same name",
       raises<UsageError>,
       {"add_layer", "\"hidden\""},
       [](Fixture& f) { f.model.add_layer(Dense({.units = 2, .name = "hidden"})); }},
      {"a number of threads", raises<UsageError>, {"set_threads", "-1"}, [](Fixture&) { tesla::set_threads(-1); }},
      {"Huber",
       raises<UsageError>,
       {"Huber", ".delta", "above 0"},
       [](Fixture& f) { f.compile(tesla::loss::Huber({.delta = 0})); }},
      {"Huber, NaN",
       raises<UsageError>,
       {"Huber", ".delta"},
       [](Fixture& f) { f.compile(tesla::loss::Huber({.delta = std::nan("")})); }},
  });

  Sequential model;
  model.add_layer(Dense({.units = 3}));
  const auto x = normal_numbers({6, 4}, 1);
  const std::vector<std::int32_t> y(6);
  check_raises<UsageError>([&] { model.fit(x, y, {.verbose = 0}); }, {"fit", "compile"});
  check_raises<UsageError>([&] { model.evaluate(x, y); }, {"evaluate", "compile"});
  check_raises<UsageError>([&] { model.train_step(x, y); }, {"train_step", "compile"});
  check_raises<UsageError>([&] { model.parameters(); }, {"parameters", "build"});
  check_raises<UsageError>([&] { model.parameter("dense.weight"); }, {"build"});
  check_raises<UsageError>([&] { model.count_parameters(); }, {"count_parameters", "build"});
  check_raises<UsageError>([&] { model.training_bytes(32); }, {"training_bytes", "build"});
  const TemporaryFolder folder;
  check_raises<UsageError>([&] { model.save(folder.path("model")); }, {"save", "build"});
  CHECK(folder.names().empty());
  check_raises<ShapeError>([&] { model.predict(std::vector<float>(4)); }, {"build(shape)", "{4}"});
  CHECK(model.predict(x).shape() == tesla::Shape{6, 3});
}

TEST_CASE("layers that do not fit are refused, and their neighbours named", "[errors]") {
  const auto x = normal_numbers({2, 28, 28, 1}, 1);
  const auto flat = normal_numbers({2, 784}, 1);
  {
    Sequential model;
    check_raises<UsageError>([&] { model.predict(flat); }, {"no layers", "add_layer"});
    check_raises<UsageError>([&] { model.build({784}); }, {"no layers", "add_layer"});
  }
  {
    Sequential model;
    model.add_layer(Dense({.units = 4})).add_layer(Dense({.name = "nothing"}));
    check_raises<UsageError>([&] { model.build({784}); }, {"layer 2", "nothing", "Dense", ".units", "dense"});
  }
  {
    Sequential model;
    model.add_layer(Dense({.units = 4}));
    check_raises<ShapeError>([&] { model.predict(x); }, {"layer 1", "dense", "{28, 28, 1}", "Flatten"});
    check_raises<ShapeError>([&] { model.build({28, 28, 1}); }, {"layer 1", "dense", "{28, 28, 1}", "Flatten"});
    check_raises<ShapeError>([&] { model.build({}); }, {"build", "feature"});
    check_raises<ShapeError>([&] { model.build({0}); }, {"build", "feature"});
    CHECK(model.predict(flat).shape() == tesla::Shape{2, 4});
  }
  {
    Sequential model;
    model.add_layer(tesla::Input({28, 28, 1})).add_layer(Dense({.units = 4}));
    check_raises<ShapeError>([&] { model.predict(x); }, {"layer 2", "Flatten", "input"});
  }
  {
    Sequential model;
    model.add_layer(tesla::Input({28, 28, 1})).add_layer(tesla::Flatten()).add_layer(Dense({.units = 4}));
    check_raises<ShapeError>([&] { model.predict(normal_numbers({2, 10}, 1)); }, {"784 features", "{2, 10}", "10"});
    check_raises<ShapeError>([&] { model.build({10}); }, {"Input", "{28, 28, 1}", "784", "{10}"});
    CHECK(bits(model.predict(flat)) == bits(model.predict(x)));
  }
  {
    Sequential model, other;
    model.add_layer(Dense({.units = 4, .activation = {{tesla::leaky_relu.function, -1}}}));
    check_raises<UsageError>([&] { model.predict(flat); }, {"layer 1", "dense", "slope", "-1"});
    other.add_layer(tesla::ELU({.alpha = std::nan("")}));
    check_raises<UsageError>([&] { other.predict(flat); }, {"layer 1", "elu", "alpha", "nan"});
  }
}

TEST_CASE("layers of images and norms say what does not fit", "[errors]") {
  using namespace tesla;
  // Behind another layer, whose name the message has too.
  const auto check = [](Check check, const auto& layer, const Shape& in, std::vector<std::string> words) {
    words.insert(words.end(), {"layer 2", std::string(layer.kind), "layer 1 (first)"});
    Sequential model(Activation(ReLU({.name = "first"})), layer);
    check([&] { model.build(in); }, words);
    CHECK(!model.network().built());
  };
  const Check shape = raises<ShapeError>, usage = raises<UsageError>;
  // Ranks.
  check(shape, Conv2D({.filters = 4}), {28, 28}, {"{height, width, channels}", "{28, 28}", "Input({28, 28, 1})"});
  check(shape, Conv2D({.filters = 4}), {784}, {"{height, width, channels}", "{784}"});
  check(shape, Conv1D({.filters = 4}), {784}, {"{length, channels}", "{784}", "Input({784, 1})"});
  check(shape, Conv1D({.filters = 4}), {28, 28, 1}, {"{length, channels}", "{28, 28, 1}"});
  check(shape, MaxPool2D(), {28, 28}, {"{height, width, channels}", "{28, 28}"});
  check(shape, AveragePool1D(), {28}, {"{length, channels}", "{28}"});
  check(shape, GlobalAveragePool(), {28}, {"{height, width, channels}", "{length, channels}", "{28}"});
  check(shape, GlobalMaxPool(), {2, 2, 2, 2}, {"{2, 2, 2, 2}"});
  // Windows.
  check(shape, Conv2D({.filters = 4, .kernel = {5, 3}}), {4, 9, 1}, {"5 rows", "only 4", ".kernel", "tesla::same"});
  check(shape, Conv2D({.filters = 4, .kernel = {3, 5}, .padding = {1, 1}}), {9, 2, 1},
        {"5 columns", "only 2 and 2 of padding", ".kernel"});
  check(shape, Conv2D({.filters = 4, .dilation = {1, 4}}), {9, 8, 1}, {"9 columns", "only 8", ".dilation"});
  check(shape, Conv1D({.filters = 4, .kernel = 6}), {5, 2}, {"6 steps", "only 5"});
  check(shape, MaxPool2D({.pool = {3, 3}}), {5, 2, 1}, {"3 columns", "only 2"});
  check(shape, MaxPool2D({.padding = {2, 0}}), {6, 6, 1}, {"rows", "only padding", ".padding", ".pool"});
  check(shape, MaxPool2D({.padding = {2, 0, 0, 0}}), {6, 6, 1}, {"rows", "only padding"});
  check(shape, AveragePool2D({.stride = {2, 1}, .padding = {0, 0, 0, 3}}), {6, 6, 1}, {"columns", "only padding"});
  check(shape, MaxPool1D({.pool = 2, .stride = 1, .padding = {0, 2}}), {6, 1}, {"steps", "only padding"});
  check(usage, Conv2D({.filters = 4, .kernel = {0, 3}}), {9, 9, 1}, {".kernel", "1", "rows", "not 0"});
  check(usage, Conv2D({.filters = 4, .stride = {1, 0}}), {9, 9, 1}, {".stride", "columns", "not 0"});
  check(usage, Conv1D({.filters = 4, .dilation = 0}), {9, 1}, {".dilation", "steps", "not 0"});
  check(usage, Conv2D({.filters = 4, .kernel = {3, std::size_t{1} << 40}}), {9, 9, 1}, {".kernel", "columns"});
  check(usage, Conv2D({.filters = 4, .padding = {std::size_t{1} << 40, 0}}), {9, 9, 1}, {".padding", "more than"});
  check(usage, Conv1D({.filters = 4, .padding = {1, 2, 3, 4}}), {9, 1}, {".padding", "four sides", "{before, after}"});
  check(usage, MaxPool2D({.pool = {2, 0}}), {9, 9, 1}, {"columns", "not 0"});
  // Filters and groups.
  check(usage, Conv2D(), {9, 9, 1}, {".filters", "1 or more"});
  check(usage, Conv1D({.filters = 0}), {9, 1}, {".filters"});
  check(usage, Conv2D({.filters = 4, .groups = 0}), {9, 9, 2}, {".groups = 0"});
  check(usage, Conv2D({.filters = 4, .groups = 2}), {9, 9, 3}, {".groups = 2", "3 input channels", "4 filters"});
  check(usage, Conv2D({.filters = 5, .groups = 2}), {9, 9, 4}, {".groups = 2", "4 input channels", "5 filters"});
  check(usage, Conv2D({.filters = 5, .activation = {{leaky_relu.function, -1}}}), {9, 9, 4}, {"slope", "-1"});
  check(usage, GroupNorm({.groups = 4}), {9, 9, 6}, {".groups = 4", "6 channels"});
  check(usage, GroupNorm(), {9, 9, 6}, {".groups = 32", "6 channels"});
  check(usage, GroupNorm({.groups = 0}), {6}, {".groups = 0"});
  // Numbers.
  for (const double value : {-0.1, 1.0, std::nan("")}) {
    const std::string said = text(value);
    check(usage, Dropout({.rate = value}), {6}, {".rate in [0, 1)", said});
    check(usage, BatchNorm({.momentum = value}), {6}, {".momentum in [0, 1)", said});
  }
  for (const double value : {-1.0, 1e7, std::nan("")}) {
    const std::string said = text(value);
    check(usage, GaussianNoise({.deviation = value}), {6}, {".deviation", said});
    check(usage, BatchNorm({.epsilon = value}), {6}, {".epsilon", said});
    check(usage, LayerNorm({.epsilon = value}), {6}, {".epsilon", said});
    check(usage, RMSNorm({.epsilon = value}), {6}, {".epsilon", said});
    check(usage, GroupNorm({.groups = 2, .epsilon = value}), {6}, {".epsilon", said});
  }
  check(usage, LayerNorm({.epsilon = 0}), {6}, {".epsilon", "not 0"});

  // The first layer of all speaks of the data.
  Sequential first(Conv2D({.filters = 4}));
  check_raises<ShapeError>(
      [&] {
        first.predict(normal_numbers({2, 28, 28}, 1));
      },
      {"layer 1", "conv2d", "{height, width, channels}", "the data has samples of shape {28, 28}"});
  CHECK(first.predict(normal_numbers({2, 28, 28, 1}, 1)).shape() == Shape{2, 26, 26, 4});
}

TEST_CASE("options of optimizers are checked", "[errors]") {
  const double none = std::nan("");
  using namespace tesla::optim;
  const auto check = [](const char* option, const std::function<void()>& make) {
    check_raises<UsageError>(make, {option});
  };
  for (const double value : {-0.1, none, HUGE_VAL}) {
    INFO(value);
    check("SGD: .learning_rate", [&] { SGD({.learning_rate = value}); });
    check("SGD: .weight_decay", [&] { SGD({.weight_decay = value}); });
    check("SGD: .clip_norm", [&] { SGD({.clip_norm = value}); });
    check("Adam: .learning_rate", [&] { Adam({.learning_rate = value}); });
    check("Adam: .epsilon", [&] { Adam({.epsilon = value}); });
    check("Adam: .weight_decay", [&] { Adam({.weight_decay = value}); });
    check("Adam: .clip_norm", [&] { Adam({.clip_norm = value}); });
    check("AdamW: .learning_rate", [&] { AdamW({.learning_rate = value}); });
    check("AdamW: .epsilon", [&] { AdamW({.epsilon = value}); });
    check("AdamW: .weight_decay", [&] { AdamW({.weight_decay = value}); });
    check("AdamW: .clip_norm", [&] { AdamW({.clip_norm = value}); });
  }
  for (const double value : {-0.1, 1.1, none}) {
    INFO(value);
    check("SGD: .momentum", [&] { SGD({.momentum = value}); });
    check("Adam: .beta_1", [&] { Adam({.beta_1 = value}); });
    check("Adam: .beta_2", [&] { Adam({.beta_2 = value}); });
    check("AdamW: .beta_1", [&] { AdamW({.beta_1 = value}); });
    check("AdamW: .beta_2", [&] { AdamW({.beta_2 = value}); });
  }
  // Their corrections divide by 1 - beta^step.
  check("Adam: .beta_1", [&] { Adam({.beta_1 = 1}); });
  check("Adam: .beta_2", [&] { Adam({.beta_2 = 1}); });
  check("AdamW: .beta_1", [&] { AdamW({.beta_1 = 1}); });
  check("AdamW: .beta_2", [&] { AdamW({.beta_2 = 1}); });
  check("Adam: .epsilon", [&] { Adam({.epsilon = 0}); });
  check("AdamW: .epsilon", [&] { AdamW({.epsilon = 0}); });
  check("SGD: .nesterov", [] { SGD({.nesterov = true}); });
}

TEST_CASE("a loss that becomes infinite ends training with the parameters of the step before", "[errors]") {
  struct Recorder {
    std::string* last;
    std::size_t* batches;
    void on_batch_end(tesla::callback::Moment<Sequential>& m) {
      *last = parameter_bits(m.model);
      ++*batches;
    }
  };
  const auto x = normal_numbers({40, 6}, 1), y = normal_numbers({40, 2}, 2);
  for (const double rate : {0.5, 10.0, 1e4, 1e6})
    for (const bool bias : {true, false})
      for (const auto& activation : {tesla::linear, tesla::relu, tesla::softplus})
        for (const std::size_t batch_size : {7, 1})
          for (const double clip : {0.0, 1e6})
            for (const std::uint64_t seed : {0, 1, 2, 3}) {
              INFO("learning rate " << rate << ", bias " << bias << ", batches of " << batch_size << ", function "
                                    << static_cast<int>(activation.function) << ", clip " << clip << ", seed " << seed);
              Sequential model;
              for (const std::size_t units : {16, 16, 2})
                model.add_layer(Dense({.units = units, .use_bias = bias, .activation = activation}));
              model.compile(tesla::optim::SGD({.learning_rate = rate, .momentum = 0.9, .clip_norm = clip}),
                            tesla::loss::MeanSquaredError());
              model.build({6});
              std::string last = parameter_bits(model);
              std::size_t batches = 0;
              try {
                model.fit(x, y,
                          {.epochs = 20,
                           .batch_size = batch_size,
                           .seed = seed,
                           .callbacks = {Recorder{&last, &batches}},
                           .verbose = 0});
              } catch (const DataError& error) {
                INFO(error.what());
                const std::size_t each = (40 + batch_size - 1) / batch_size;
                CHECK_THAT(error.what(), Catch::Contains(tesla::text("fit: epoch ", batches / each + 1, ", batch ",
                                                                     batches % each + 1, ": ")) &&
                                             Catch::Contains("learning rate"));
              }
              CHECK((parameter_bits(model) == last));
              CHECK(all_finite(model));
            }

  Sequential model;
  model.add_layer(Dense({.units = 2, .name = "only"}));
  model.build({6});
  model.parameter("only.weight").assign(std::vector<float>(12, 3e38F));
  model.compile(tesla::optim::SGD(), tesla::loss::MeanSquaredError());
  const std::string before = parameter_bits(model);
  check_raises<DataError>([&] { model.fit(x, y, {.verbose = 0}); },
                          {"fit: epoch 1, batch 1", "layer 1 (only: Dense 6 -> 2)", "learning rate", ".clip_norm"});
  check_raises<DataError>([&] { model.train_step(x, y); }, {"train_step: ", "layer 1 (only: Dense 6 -> 2)"});
  CHECK(parameter_bits(model) == before);
  model.parameter("only.weight").assign(std::vector<float>(12, 0.1F));
  CHECK(tesla::is_finite(model.train_step(x, y)));
}

TEST_CASE("a double beyond the range of float is not taken for a value", "[errors]") {
  Fixture f;
  tesla::Tensor<double> x({6, 4});
  x(3, 2) = 1e300;
  const std::string before = parameter_bits(f.model);
  CHECK_THROWS_AS(f.model.fit(x, f.labels, {.verbose = 0}), DataError);
  CHECK_THROWS_AS(f.model.train_step(x, f.labels), DataError);
  CHECK_THROWS_WITH(f.model.predict(x), Catch::Contains("sample 3, feature 2 is 1e+300, beyond the range of float"));
  CHECK_THROWS_AS(f.model.evaluate(x, f.labels), DataError);
  CHECK(parameter_bits(f.model) == before);
}

TEST_CASE("files that are no models are refused", "[errors]") {
  const TemporaryFolder folder;
  const std::string good = folder.path("good"), bad = folder.path("bad");
  Fixture f;
  f.model.save(good);
  const std::string before = parameter_bits(f.model);
  const auto both = [&](Check check, const std::string& path, const std::vector<std::string>& words) {
    check([&] { Sequential::load(path); }, words);
    check([&] { f.model.restore(path); }, words);
    CHECK(parameter_bits(f.model) == before);
  };

  both(raises<FileError>, folder.path("missing"), {"missing", "No such file"});
  both(raises<FileError>, folder.path(), {folder.path()});

  const std::vector<std::uint8_t> bytes = tesla::io::read_file(good);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{5}, std::size_t{8}, std::size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    INFO("cut off at " << size);
    write(bad, {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)});
    both(raises<FormatError>, bad, {bad});
  }
  // Any damage is either noticed or harmless.
  for (std::size_t i = 0; i < bytes.size(); i += i < 64 ? 1 : 7) {
    std::vector<std::uint8_t> damaged = bytes;
    damaged[i] ^= 0xFF;
    write(bad, damaged);
    try {
      Sequential loaded = Sequential::load(bad);
      CHECK(all_finite(loaded));
    } catch (const tesla::Error&) {
    }
  }

  const auto weight = normal_numbers({5, 4}, 1);
  tesla::io::write_safetensors(bad, {tesla::io::tensor_info("hidden.weight", weight)});
  both(raises<FormatError>, bad, {bad, "not a model"});
  const auto with_description = [&](const std::string& text) {
    tesla::io::write_safetensors(bad, {tesla::io::tensor_info("hidden.weight", weight)},
                                 tesla::io::Json::object({{"tesla", text}}));
  };
  with_description("what?");
  both(raises<FormatError>, bad, {bad});
  with_description("{}");
  both(raises<FormatError>, bad, {"format"});
  with_description("{\"format\": 1000}");
  both(raises<FormatError>, bad, {bad, "1000", "reads format 1"});
}

TEST_CASE("a file of another model is refused", "[errors]") {
  const TemporaryFolder folder;
  Fixture f;
  const std::string before = parameter_bits(f.model), path = folder.path("other");
  {
    Sequential other;
    other.add_layer(Dense({.units = 6, .name = "hidden"})).add_layer(Dense({.units = 3}));
    other.build({4});
    other.save(path);
    check_raises<FormatError>([&] { f.model.restore(path); }, {path, "hidden.weight", "{6, 4}", "{5, 4}"});
  }
  {
    Sequential other;
    other.add_layer(Dense({.units = 5, .name = "hidden"})).add_layer(Dense({.units = 3, .name = "last"}));
    other.build({4});
    other.save(path);
    check_raises<FormatError>([&] { f.model.restore(path); }, {path, "dense.weight", "hidden.weight"});
  }
  CHECK(parameter_bits(f.model) == before);
}

TEST_CASE("a save that fails leaves the old file", "[errors]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("model");
  Fixture f;
  check_raises<FileError>([&] { f.model.save(folder.path("missing/model")); }, {"missing", "No such file"});
  CHECK(folder.names().empty());
  f.model.save(path);
  const auto old = tesla::io::read_file(path);
  f.model.train_step(f.x, f.labels);
  {
    const FileSizeLimit full(64);
    check_raises<FileError>([&] { f.model.save(path); }, {path, "File too large"});
  }
  CHECK(tesla::io::read_file(path) == old);
  CHECK(folder.names() == std::vector<std::string>{"model"});
  f.model.save(path);
  CHECK(tesla::io::read_file(path) != old);
}

TEST_CASE("a first call that refuses its data leaves the model open for other data") {
  tesla::Sequential model;
  model.add_layer(tesla::Dense({.units = 2}));
  model.compile(tesla::optim::SGD(), tesla::loss::SparseCategoricalCrossEntropy());
  const tesla::Tensor<float> three({4, 3}), five({4, 5});
  const tesla::Tensor<std::int32_t> labels({4}), few({3});
  CHECK_THROWS_AS(model.fit(three, few, {.verbose = 0}), tesla::ShapeError);
  CHECK_THROWS_AS(model.evaluate(three, few), tesla::ShapeError);
  CHECK_THROWS_AS(model.train_step(three, few), tesla::ShapeError);
  model.fit(five, labels, {.verbose = 0});
  CHECK(model.predict(five).shape() == tesla::Shape{4, 2});
}

// A callback that changes the model which is being trained.
struct Meddler {
  tesla::Sequential* model;
  int what;

  void on_epoch_end(auto&) const {
    if (what == 0) model->add_layer(tesla::Dense({.units = 2}));
    if (what == 1) *model = tesla::Sequential();
    if (what == 2) model->build({9});
    if (what == 3) model->fit(std::vector<float>{1}, std::vector<float>{1}, {.verbose = 0});
    if (what == 4) model->compile(tesla::optim::RMSprop(), tesla::loss::MeanSquaredError());
    if (what == 5) model->train_step(std::vector<float>{1}, std::vector<float>{1});
  }
};

TEST_CASE("a model that fit runs cannot be changed, and trains on afterwards", "[errors]") {
  for (int what = 0; what < 6; ++what) {
    INFO("what " << what);
    Fixture f;
    CHECK_THROWS_AS(f.model.fit(f.x, f.labels, {.callbacks = {Meddler{&f.model, what}}, .verbose = 0}), UsageError);
    CHECK_THROWS_WITH(f.model.fit(f.x, f.labels, {.callbacks = {Meddler{&f.model, what}}, .verbose = 0}),
                      Catch::Contains("fit is running"));
    CHECK(f.model.fit(f.x, f.labels, {.verbose = 0})["loss"].size() == 1);
  }
}

TEST_CASE("images in another order of extents are refused", "[errors]") {
  tesla::Sequential model;
  model.add_layer(tesla::Flatten()).add_layer(tesla::Dense({.units = 2}));
  model.build({6, 8, 3});
  CHECK(model.predict(tesla::Tensor<float>({2, 6, 8, 3})).size() == 4);
  CHECK(model.predict(tesla::Tensor<float>({2, 144})).size() == 4);
  check_raises<ShapeError>(
      [&] {
        model.predict(tesla::Tensor<float>({2, 3, 6, 8}));
      },
      {"predict: x", "{6, 8, 3}", "{2, 3, 6, 8}", "{height, width, channels}"});
}

TEST_CASE("restore in a fit that keeps averages is refused", "[errors]") {
  Fixture f;
  const TemporaryFolder folder;
  f.model.save(folder.path("m"));
  const auto back = tesla::callback::on_batch_end([&](auto& moment) { moment.model.restore(folder.path("m")); });
  check_raises<UsageError>([&] { f.model.fit(f.x, f.labels, {.callbacks = {back}, .verbose = 0, .average = 0.9}); },
                           {"restore", "averages"});
  CHECK(f.model.fit(f.x, f.labels, {.verbose = 0, .average = 0.9})["loss"].size() == 1);
}

TEST_CASE("a model that was moved away says so", "[errors]") {
  Fixture f;
  tesla::Sequential other = std::move(f.model);
  CHECK(other.predict(f.x).size() > 0);
  for (const auto& call : std::vector<std::function<void()>>{
           [&] { f.model.predict(f.x); }, [&] { f.model.fit(f.x, f.labels); }, [&] { (void)f.model.summary_text(); },
           [&] { f.model.add_layer(tesla::Dense({.units = 1})); }, [&] { f.model.save("x"); },
           [&] { f.model.compile(tesla::optim::SGD(), tesla::loss::MeanSquaredError()); }}) {
    CHECK_THROWS_AS(call(), UsageError);
    CHECK_THROWS_WITH(call(), Catch::Contains("moved"));
  }
  f.model = std::move(other);
  CHECK(f.model.predict(f.x).size() > 0);
}

TEST_CASE("results that are not finite are an error, and files are not overwritten with them", "[errors]") {
  tesla::Sequential model;
  model.add_layer(tesla::Dense({.units = 1, .use_bias = false, .initializer = tesla::init::constant(1e-33)}));
  model.compile(tesla::optim::SGD({.learning_rate = 1e6}), tesla::loss::MeanAbsoluteError());
  const std::vector<float> x{1e33F}, y{-1};
  const TemporaryFolder folder;
  model.build({1});
  model.save(folder.path("model"));
  CHECK_THROWS_WITH(model.fit(x, y, {.verbose = 0}), Catch::Contains("dense.weight has left the range"));
  CHECK_THROWS_WITH(model.save(folder.path("model")), Catch::Contains("dense.weight holds a NaN or an infinity"));
  CHECK_THROWS_AS(model.predict(x), DataError);
  CHECK(tesla::is_finite(tesla::Sequential::load(folder.path("model")).predict(x)[0]));
  Fixture f;
  f.compile(tesla::loss::MeanSquaredError());
  const tesla::Tensor<float> far({6, 3}, std::vector<float>(18, 1e30F));
  CHECK_THROWS_AS(f.model.evaluate(f.x, far), DataError);
}

TEST_CASE("targets of a cross-entropy are probabilities, and labels need classes", "[errors]") {
  Fixture f;
  tesla::Tensor<float> y({6, 3});
  y(4, 2) = 1.5F;
  f.compile(tesla::loss::CategoricalCrossEntropy());
  CHECK_THROWS_WITH(f.model.fit(f.x, y, {.verbose = 0}), Catch::Contains("fit: y: sample 4, output 2 is 1.5"));
  f.compile(tesla::loss::BinaryCrossEntropy());
  CHECK_THROWS_WITH(f.model.evaluate(f.x, y), Catch::Contains("evaluate: y: sample 4, output 2 is 1.5"));
  tesla::Sequential one;
  one.add_layer(tesla::Dense({.units = 1}));
  one.compile(tesla::optim::SGD(), tesla::loss::SparseCategoricalCrossEntropy());
  CHECK_THROWS_WITH(one.fit(f.x, f.labels, {.verbose = 0}), Catch::Contains("BinaryCrossEntropy"));
}

TEST_CASE("sizes beyond the machine and numbers beyond sense are refused", "[errors]") {
  Fixture f;
  CHECK_THROWS_AS(f.model.summary_text(0), UsageError);
  CHECK_THROWS_AS(f.model.training_bytes(std::numeric_limits<std::size_t>::max()), UsageError);
  CHECK_THROWS_AS(tesla::Tensor<float>({std::size_t{1} << 60}), tesla::MemoryError);
  CHECK_THROWS_AS(f.model.fit(f.x, f.labels, {.verbose = 7}), UsageError);
  CHECK_THROWS_AS(tesla::optim::SGD({.momentum = 1}), UsageError);
  CHECK_THROWS_WITH(tesla::Sequential::load("/dev/zero"), Catch::Contains("device"));
  for (const auto& broken : {tesla::init::constant(std::numeric_limits<double>::quiet_NaN()),
                             tesla::init::uniform(std::numeric_limits<double>::infinity()), tesla::init::normal(-1)}) {
    tesla::Sequential model{tesla::Dense({.units = 1, .initializer = broken})};
    CHECK_THROWS_AS(model.build({2}), UsageError);
  }
  tesla::Sequential slope{tesla::LeakyReLU({.slope = std::numeric_limits<double>::infinity()})};
  CHECK_THROWS_AS(slope.build({2}), UsageError);
  tesla::Sequential late{tesla::Dense({.units = 1}), tesla::Input({1})};
  CHECK_THROWS_WITH(late.build({2}), Catch::Contains("has to be the first layer"));
}

TEST_CASE("two parameters of one name are refused", "[errors]") {
  tesla::Sequential model{tesla::LSTM({.units = 2, .return_sequences = true, .bidirectional = true, .name = "g"}),
                          tesla::GRU({.units = 2, .name = "g.reverse"})};
  check_raises<UsageError>([&] { model.build({3, 2}); }, {"layer 1 (g)", "layer 2 (g.reverse)", "g.reverse.weight"});
}

TEST_CASE("a vector is samples of one value", "[errors]") {
  tesla::Sequential model{tesla::Dense({.units = 1})};
  model.compile(tesla::optim::SGD({.learning_rate = 0.02}), tesla::loss::MeanSquaredError());
  const std::vector<float> x{1, 2, 3, 4}, y{2, 4, 6, 8};
  model.fit(x, y, {.epochs = 200, .verbose = 0});
  CHECK(model.predict(x)[2] == Approx(6).margin(0.2));
}

// The hidden layer overflows, the sigmoid after it makes that 1 again: loss and bias gradients are finite, and only the
// gradient of the last weights, 0 times infinity, is not.
TEST_CASE("a gradient that is not finite is found behind a finite loss, at any batch size", "[errors]") {
  for (const std::size_t batch : {1, 3, 64, 70})
    for (const double clip_norm : {0.0, 1.0}) {
      INFO("batch " << batch << " clip_norm " << clip_norm);
      tesla::Sequential model;
      model.add_layer(tesla::Dense({.units = 2, .activation = tesla::relu}))
          .add_layer(tesla::Dense({.units = 1, .activation = tesla::sigmoid, .initializer = tesla::init::constant(1)}));
      model.compile(tesla::optim::SGD({.momentum = 0.9, .clip_norm = clip_norm}), tesla::loss::MeanSquaredError());
      model.build({4});
      model.parameter("dense.weight").assign(std::vector<float>(8, 1e30F));
      const auto before = model.parameter("dense_1.weight").value();
      tesla::Tensor<float> x({batch, 4}), y({batch, 1});
      for (float& value : x) value = 1e10F;
      CHECK_THROWS_AS(model.train_step(x, y), tesla::DataError);
      CHECK_THROWS_WITH(model.train_step(x, y), Catch::Contains("dense_1.weight is not finite"));
      const auto after = model.parameter("dense_1.weight").value();
      CHECK(std::equal(before.begin(), before.end(), after.begin()));
    }
}

}  // namespace test_model_errors
