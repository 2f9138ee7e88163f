// Batches as a range.
#include <tesla/tesla.hpp>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstdint>
#include <numeric>
#include <vector>

using tesla::ArrayView;
using tesla::data::batches;
using tesla::data::Samples;

namespace {

/// Sample i is {i, i + 0.5}, and so on, its label i.
const struct Data {
  tesla::Tensor<float> x{{11, 2, 1}};
  std::vector<std::uint8_t> y = std::vector<std::uint8_t>(11);
  Data() {
    for (std::size_t i = 0; i < 11; ++i) x[2 * i] = static_cast<float>(i), x[2 * i + 1] = static_cast<float>(i) + 0.5F;
    std::iota(y.begin(), y.end(), std::uint8_t{0});
  }
} all;

std::vector<std::uint32_t> order_of(std::uint64_t seed, std::uint64_t epoch) {
  std::vector<std::uint32_t> order(11);
  tesla::random::shuffle(order, seed, epoch);
  return order;
}

/// The samples of a pass, in order; checks that each has its own row and label.
std::vector<std::uint32_t> pass(tesla::data::Batches& range) {
  std::vector<std::uint32_t> seen;
  for (const Samples& batch : range)
    for (std::size_t i = 0; i < batch.x.samples(); ++i) {
      CHECK(batch.x.value(i, 1) == batch.x.value(i, 0) + 0.5);
      CHECK(batch.y.value(i) == batch.x.value(i, 0));
      if (!batch.weight.empty()) CHECK(batch.weight.value(i) == -batch.x.value(i, 0));
      seen.push_back(static_cast<std::uint32_t>(batch.y.value(i)));
    }
  return seen;
}

}  // namespace

TEST_CASE("batches come in the order of fit, another one in each pass", "[batches]") {
  auto range = batches(all.x, all.y, {.size = 4, .seed = 3});
  CHECK(range.size() == 3);
  CHECK(pass(range) == order_of(3, 0));
  CHECK(pass(range) == order_of(3, 1));
  auto later = batches(all.x, all.y, {.size = 4, .seed = 3, .epoch = 1});
  CHECK(pass(later) == order_of(3, 1));

  std::vector<std::size_t> sizes;
  for (const auto& batch : range) sizes.push_back(batch.x.samples());
  CHECK(sizes == std::vector<std::size_t>{4, 4, 3});
  auto whole = batches(all.x, all.y, {.size = 4, .seed = 3, .drop_last = true});
  CHECK(whole.size() == 2);
  CHECK(pass(whole).size() == 8);
}

TEST_CASE("without shuffling, batches are parts of the arrays themselves", "[batches]") {
  auto range = batches(all.x, all.y, {.size = 4, .shuffle = false});
  std::vector<const void*> places;
  for (const auto& batch : range) {
    places.push_back(batch.x.data());
    CHECK(batch.x.shape().tail() == tesla::Shape{2, 1});
  }
  CHECK(places == std::vector<const void*>{all.x.data(), all.x.data() + 8, all.x.data() + 16});
  std::vector<std::uint32_t> expected(11);
  std::iota(expected.begin(), expected.end(), 0U);
  CHECK(pass(range) == expected);
}

TEST_CASE("shuffled batches are in memory of the range, the same for all of them", "[batches]") {
  auto range = batches(all.x, all.y, {.size = 4});
  std::vector<const void*> places;
  for (int i = 0; i < 2; ++i)
    for (const auto& batch : range) places.push_back(batch.x.data());
  CHECK(std::count(places.begin(), places.end(), places[0]) == 6);
}

TEST_CASE("batches of arrays with strides, and with weights", "[batches]") {
  // By columns: the features of a sample stand 11 apart.
  std::vector<double> x(22);
  std::vector<float> weight(11);
  for (std::size_t i = 0; i < 11; ++i) {
    x[i] = static_cast<double>(i), x[11 + i] = static_cast<double>(i) + 0.5;
    weight[i] = -static_cast<float>(i);
  }
  const Samples samples(ArrayView(x.data(), {11, 2}, {1, 11}), all.y, weight);
  for (const bool shuffle : {true, false}) {
    auto range = batches(samples, {.size = 4, .shuffle = shuffle});
    CHECK(pass(range).size() == 11);
  }
}

TEST_CASE("batches check what they are given", "[batches]") {
  REQUIRE_THROWS_WITH(batches(all.x, all.y, {.size = 0}), Catch::Contains(".size"));
  REQUIRE_THROWS_WITH(batches(all.x, std::vector<int>(7)), Catch::Contains("11 samples in x"));
  REQUIRE_THROWS_WITH(batches(Samples(all.x, all.y, std::vector<float>(3))), Catch::Contains("sample_weight"));
  REQUIRE_THROWS_WITH(batches(all.x, all.y, {.size = 12, .drop_last = true}), Catch::Contains(".drop_last"));
  REQUIRE_THROWS_AS(batches(tesla::Tensor<float>({0, 2}), std::vector<int>()), tesla::DataError);
}
