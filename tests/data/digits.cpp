#include <tesla/data/digits.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <set>
#include <vector>

using tesla::Shape;
using tesla::data::Dataset;
using tesla::data::digits;

namespace {

constexpr std::size_t pixels = 784;

const tesla::data::Split<>& seed_one() {
  static const tesla::data::Split<> split = digits();
  return split;
}

const float* image(const Dataset<>& dataset, std::size_t i) { return dataset.x().data() + i * pixels; }

std::uint32_t bits_of(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

/// FNV-1a.
struct Checksum {
  std::uint64_t value = 14695981039346656037U;
  void add(std::uint64_t byte) { value = (value ^ byte) * 1099511628211U; }
};

std::uint64_t checksum_of_pixels(const Dataset<>& dataset) {
  Checksum sum;
  for (const float value : dataset.x()) sum.add(static_cast<std::uint64_t>(std::lround(value * 255)));
  return sum.value;
}

std::uint64_t checksum_of_bits(const Dataset<>& dataset) {
  Checksum sum;
  for (const float value : dataset.x())
    for (const int shift : {0, 8, 16, 24}) sum.add(bits_of(value) >> shift & 0xFF);
  return sum.value;
}

std::uint64_t checksum_of_labels(const Dataset<>& dataset) {
  Checksum sum;
  for (const std::int32_t label : dataset.y()) sum.add(static_cast<std::uint64_t>(label));
  return sum.value;
}

}  // namespace

// Every number reached on these digits rests on them: when a checksum changes, so do the digits of all users.
TEST_CASE("the digits of seed 1 are these, with every compiler on every machine", "[digits]") {
  const auto& [train, test] = seed_one();
  CHECK(train.x().shape() == Shape{10000, pixels});
  CHECK(train.y().shape() == Shape{10000});
  CHECK(test.x().shape() == Shape{2000, pixels});
  CHECK(test.y().shape() == Shape{2000});
  CHECK(checksum_of_pixels(train) == 0x64F1260A9FD25859);
  CHECK(checksum_of_pixels(test) == 0x3D90803A99766E77);
  CHECK(checksum_of_bits(train) == 0xFA2E4C805E56670C);
  CHECK(checksum_of_bits(test) == 0xF5456FAE13FA8B4F);
  CHECK(checksum_of_labels(train) == 0xA7A64E7765FD7923);
  CHECK(checksum_of_labels(test) == 0x5C893F36FA78D015);
}

TEST_CASE("ten digits in a row are the ten digits, shuffled", "[digits]") {
  for (const Dataset<>* dataset : {&seed_one().train, &seed_one().test}) {
    std::set<std::vector<std::int32_t>> orders;
    for (std::size_t i = 0; i < dataset->size(); i += 10) {
      const std::int32_t* labels = dataset->y().data() + i;
      CHECK(std::set<std::int32_t>(labels, labels + 10) == std::set<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
      orders.emplace(labels, labels + 10);
    }
    CHECK(orders.size() > dataset->size() / 10 - 5);  // of 10! orders, hardly any comes twice
  }
}

TEST_CASE("all places in ten see all digits", "[digits]") {
  std::vector<int> count(100);
  const auto& y = seed_one().train.y();
  for (std::size_t i = 0; i < y.size(); ++i) ++count[i % 10 * 10 + static_cast<std::size_t>(y[i])];
  for (const int times : count) {  // 100 expected, with a standard deviation of 9.5
    CHECK(times > 55);
    CHECK(times < 145);
  }
}

TEST_CASE("a digit is the same however many are drawn", "[digits]") {
  const auto [train, test] = digits({.train = 23, .test = 7});
  CHECK(train.size() == 23);
  CHECK(test.size() == 7);
  const auto& [more_train, more_test] = seed_one();
  CHECK(std::memcmp(train.x().data(), more_train.x().data(), 23 * pixels * sizeof(float)) == 0);
  CHECK(std::memcmp(test.x().data(), more_test.x().data(), 7 * pixels * sizeof(float)) == 0);
  CHECK(std::equal(train.y().begin(), train.y().end(), more_train.y().begin()));
  CHECK(std::equal(test.y().begin(), test.y().end(), more_test.y().begin()));
}

TEST_CASE("a digit is the same at any number of threads", "[digits]") {
  struct Restore {
    ~Restore() { tesla::set_threads(0); }
  } restore;
  for (const int threads : {1, 2, 3, 7}) {  // their ranges begin in the midst of ten digits
    tesla::set_threads(threads);
    const auto train = digits({.train = 1003, .test = 0}).train;
    CHECK(std::memcmp(train.x().data(), seed_one().train.x().data(), 1003 * pixels * sizeof(float)) == 0);
    CHECK(std::equal(train.y().begin(), train.y().end(), seed_one().train.y().begin()));
  }
}

TEST_CASE("no digits are digits too", "[digits]") {
  const auto [train, test] = digits({.train = 0, .test = 0});
  CHECK(train.size() == 0);
  CHECK(test.x().shape() == Shape{0, pixels});
}

TEST_CASE("seeds, parts and places give digits of their own", "[digits]") {
  const auto two = digits({.train = 300, .test = 300, .seed = 2});
  const auto far = digits({.train = 300, .test = 300, .seed = ~std::uint64_t{0}});
  const auto one = digits({.train = 300, .test = 300});
  std::set<std::vector<float>> images;
  std::set<std::uint64_t> labels;
  for (const auto* split : {&one, &two, &far})
    for (const Dataset<>* dataset : {&split->train, &split->test}) {
      labels.insert(checksum_of_labels(*dataset));
      for (std::size_t i = 0; i < 300; ++i) images.emplace(image(*dataset, i), image(*dataset, i) + pixels);
    }
  CHECK(images.size() == 6 * 300);
  CHECK(labels.size() == 6);
}

TEST_CASE("digits are ink in the middle of dark paper", "[digits]") {
  const Dataset<>& train = seed_one().train;
  double frame = 0, middle = 0;
  for (std::size_t i = 0; i < train.size(); ++i) {
    float lightest = 0;
    double sum = 0;
    for (std::size_t p = 0; p < pixels; ++p) {
      const float value = image(train, i)[p];
      if (!(value >= 0 && value <= 1)) FAIL("a value of " << value);
      lightest = std::max(lightest, value);
      sum += static_cast<double>(value);
      const std::size_t x = p % 28, y = p / 28;
      (x < 2 || x > 25 || y < 1 || y > 26 ? frame : middle) += static_cast<double>(value);
    }
    if (lightest < 0.5F || sum < 20 || sum > 400) FAIL("digit " << i << ": up to " << lightest << ", in all " << sum);
  }
  CHECK(frame < 0.03 * middle);
}

// Neither trivial nor hopeless: a bound on both sides that needs no model.
TEST_CASE("the nearest of the mean digits is right for most digits, and wrong for many", "[digits]") {
  const auto& [train, test] = seed_one();
  std::vector<double> means(10 * pixels);
  for (std::size_t i = 0; i < train.size(); ++i)
    for (std::size_t p = 0; p < pixels; ++p)
      means[static_cast<std::size_t>(train.y()[i]) * pixels + p] += static_cast<double>(image(train, i)[p]) / 1000;
  std::size_t right = 0;
  for (std::size_t i = 0; i < test.size(); ++i) {
    std::size_t nearest = 0;
    double least = 1e9;
    for (std::size_t digit = 0; digit < 10; ++digit) {
      double distance = 0;
      for (std::size_t p = 0; p < pixels; ++p)
        distance += std::pow(static_cast<double>(image(test, i)[p]) - means[digit * pixels + p], 2);
      if (distance < least) {
        least = distance;
        nearest = digit;
      }
    }
    if (static_cast<std::int32_t>(nearest) == test.y()[i]) ++right;
  }
  CHECK(right > 1200);
  CHECK(right < 1700);
}
