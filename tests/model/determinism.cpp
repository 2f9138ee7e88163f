// The same bits at any number of threads, from any layout of the data; nearly the same in any batch.
#include <tesla/tensor/eigen.hpp>
#include <tesla/tensor/xtensor.hpp>
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <model/support.hpp>
#include <span>
#include <string>
#include <vector>
#include <xtensor/xarray.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>

namespace test_model_determinism {

using tesla::Dense;
using tesla::Sequential;

namespace {

/// A number of threads for a part of a test.
struct Threads {
  explicit Threads(int count) { tesla::set_threads(count); }
  ~Threads() { tesla::set_threads(0); }
};

template <class Model = Sequential>
Model made(const std::vector<std::size_t>& units, const tesla::Activation& activation = tesla::relu) {
  Model model({.seed = 11});
  for (std::size_t i = 0; i < units.size(); ++i)
    model.add_layer(Dense({.units = units[i], .activation = i + 1 < units.size() ? activation : tesla::linear}));
  return model;
}

/// All that training and prediction give, as bytes.
template <class Model>
std::string outcome(Model model, const auto& optimizer, std::size_t batch_size, const tesla::ArrayView& x,
                    const tesla::ArrayView& y) {
  model.compile(optimizer, tesla::loss::SparseCategoricalCrossEntropy(), {tesla::metric::Accuracy()});
  const auto history =
      model.fit(x, y, {.epochs = 2, .batch_size = batch_size, .seed = 3, .validation = {x, y}, .verbose = 0});
  std::string result = parameter_bits(model) + bits(model.predict(x));
  for (const auto& [name, values] : history) result += name + bits(values);
  for (const auto& [name, value] : model.evaluate(x, y)) result += name + bits(std::vector<double>{value});
  return result;
}

}  // namespace

TEST_CASE("training gives the same bits at any number of threads", "[determinism]") {
  const auto x = normal_numbers({150, 784}, 1);
  const auto y = labels_below(10, 150, 2);
  const auto check = [&](const auto& make, const auto& optimizer, std::size_t batch_size, std::size_t samples) {
    INFO("batches of " << batch_size << ", " << optimizer.kind);
    const tesla::ArrayView rows(x.data(), {samples, 784}), labels(y.data(), {samples});
    std::string wanted;
    for (const int count : {1, 2, 4}) {
      const Threads threads(count);
      const std::string found = outcome(make(), optimizer, batch_size, rows, labels);
      if (wanted.empty()) wanted = found;
      CHECK((found == wanted));  // not to be printed
    }
    CHECK((outcome(make(), optimizer, batch_size, rows, labels) == wanted));
  };
  const auto mnist = [] { return made({300, 100, 10}); };
  const tesla::optim::SGD sgd({.learning_rate = 0.05, .momentum = 0.9, .clip_norm = 1});
  check(mnist, sgd, 1, 20);
  for (const std::size_t batch_size : {10, 32, 100, 128}) check(mnist, sgd, batch_size, 150);
  const auto wide = [] { return made({700, 500, 10}, tesla::gelu); };
  check(wide, tesla::optim::Adam(), 1, 5);
  check(wide, tesla::optim::AdamW(), 128, 150);
  check(
      [] {
        return made<tesla::BasicSequential<double, tesla::backend::Cpu>>({300, 100, 10}, tesla::tanh);
      },
      sgd, 100, 150);
}

TEST_CASE("another seed gives other parameters and another order", "[determinism]") {
  const auto x = normal_numbers({50, 20}, 1);
  const auto y = labels_below(3, 50, 2);
  const auto trained = [&](std::uint64_t seed, std::uint64_t order, bool shuffle) {
    Sequential model({.seed = seed});
    model.add_layer(Dense({.units = 3}));
    model.compile(tesla::optim::SGD(), tesla::loss::SparseCategoricalCrossEntropy());
    model.fit(x, y, {.batch_size = 10, .shuffle = shuffle, .seed = order, .verbose = 0});
    return parameter_bits(model);
  };
  CHECK((trained(1, 1, true) == trained(1, 1, true)));
  CHECK((trained(1, 1, true) != trained(2, 1, true)));
  CHECK((trained(1, 1, true) != trained(1, 2, true)));
  CHECK((trained(1, 1, true) != trained(1, 1, false)));
  CHECK((trained(1, 1, false) == trained(1, 2, false)));
}

TEST_CASE("predictions are the same bits from any layout", "[determinism]") {
  constexpr std::size_t samples = 37, features = 19;
  Sequential model = made({40, 30, 5}, tesla::tanh);
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> by_rows(samples, features);
  const auto numbers = normal_numbers({samples, features}, 4);
  std::copy(numbers.begin(), numbers.end(), by_rows.data());
  const std::string wanted = bits(model.predict(numbers));

  CHECK((bits(model.predict(by_rows)) == wanted));
  const Eigen::MatrixXf by_columns = by_rows;
  CHECK((bits(model.predict(by_columns)) == wanted));
  const Eigen::MatrixXd doubles = by_rows.cast<double>();
  CHECK((bits(model.predict(doubles)) == wanted));
  Eigen::MatrixXf larger = Eigen::MatrixXf::Constant(samples + 6, features + 4, 99);
  larger.block(5, 3, samples, features) = by_rows;
  CHECK((bits(model.predict(larger.block(5, 3, samples, features))) == wanted));

  const xt::xarray<float> array = tesla::as_xtensor(numbers);
  CHECK((bits(model.predict(array)) == wanted));
  const xt::xtensor<float, 2, xt::layout_type::column_major> columns = array;
  CHECK((bits(model.predict(columns)) == wanted));
  xt::xarray<double> bigger = 99 * xt::ones<double>({samples + 6, features + 4});
  xt::view(bigger, xt::range(5, 5 + samples), xt::range(3, 3 + features)) = array;
  CHECK((bits(model.predict(xt::view(bigger, xt::range(5, 5 + samples), xt::range(3, 3 + features)))) == wanted));

  const std::vector<float> flat(numbers.begin(), numbers.end());
  CHECK((bits(model.predict(tesla::view(flat, {samples, features}))) == wanted));
  CHECK((bits(model.predict(tesla::view(std::span(flat), {samples, features}))) == wanted));
  std::vector<float> reversed(flat.rbegin(), flat.rend());
  const tesla::ArrayView backwards(reversed.data() + reversed.size() - 1, {samples, features},
                                   {-static_cast<std::ptrdiff_t>(features), -1});
  CHECK((bits(model.predict(backwards)) == wanted));
}

TEMPLATE_TEST_CASE("numbers of any type are the same as their values in float", "[determinism]", std::uint8_t,
                   std::int8_t, std::uint16_t, std::int16_t, std::int32_t, std::uint32_t, std::int64_t, std::uint64_t,
                   double) {
  Sequential model = made({40, 5});
  tesla::Tensor<TestType> numbers({45, 6, 3});
  tesla::Tensor<float> floats({45, 18});
  const tesla::random::Stream random(8);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = static_cast<TestType>(random.below(i, sizeof(TestType) == 1 ? 256 : 60000));
    floats[i] = static_cast<float>(numbers[i]);
  }
  const auto expected = bits(model.predict(floats));  // first: its shape is the model's
  CHECK((bits(model.predict(numbers)) == expected));
}

TEST_CASE("training gives the same bits from any layout", "[determinism]") {
  const auto x = normal_numbers({45, 33}, 4), y = normal_numbers({45, 2}, 5);
  const Eigen::MatrixXd x_columns = tesla::as_eigen(x).cast<double>(), y_columns = tesla::as_eigen(y).cast<double>();
  const auto trained = [&](const tesla::ArrayView& from, const tesla::ArrayView& to, std::size_t batch_size) {
    Sequential model = made({20, 2}, tesla::gelu);
    model.compile(tesla::optim::Adam(), tesla::loss::MeanSquaredError());
    model.fit(from, to, {.epochs = 2, .batch_size = batch_size, .verbose = 0});
    return parameter_bits(model);
  };
  for (const std::size_t batch_size : {1, 10, 32, 45})
    CHECK((trained(x, y, batch_size) == trained(x_columns, y_columns, batch_size)));
}

TEST_CASE("a prediction does not depend on the batch it is in", "[determinism]") {
  const auto x = normal_numbers({130, 300}, 4);
  for (const auto& activation : {tesla::relu, tesla::gelu, tesla::softmax, tesla::elu}) {
    Sequential model = made({200, 50, 10}, activation);
    const auto wanted = model.predict(x, {.batch_size = 130});
    for (const std::size_t batch_size : {1, 2, 7, 16, 17, 32, 64, 100, 1000}) {
      INFO("batches of " << batch_size << ", function " << static_cast<int>(activation.function));
      const auto found = model.predict(x, {.batch_size = batch_size});
      float worst = 0;
      for (std::size_t i = 0; i < found.size(); ++i) worst = std::max(worst, std::fabs(found[i] - wanted[i]));
      CHECK(worst < 1e-5F);
      CHECK(tesla::argmax(found) == tesla::argmax(wanted));
    }
  }
}

}  // namespace test_model_determinism
