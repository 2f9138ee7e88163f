#include <tesla/tensor/tensor.hpp>

#include <catch2/catch.hpp>
#include <numeric>

using namespace tesla;
using Catch::Contains;

TEST_CASE("Tensor: zeros, or values in row-major order", "[tensor]") {
  const Tensor<float> zeros({2, 3});
  CHECK(zeros.size() == 6);
  for (const float v : zeros) CHECK(v == 0);

  Tensor<int> t({2, 3}, {1, 2, 3, 4, 5, 6});
  CHECK(t.shape() == Shape{2, 3});
  CHECK(t(0, 2) == 3);
  CHECK(t(1, 0) == 4);
  CHECK(t[4] == 5);
  t(1, 2) = 9;
  CHECK(t[5] == 9);
  CHECK(std::accumulate(t.begin(), t.end(), 0) == 24);

  Tensor<int> deep({2, 3, 4});
  deep(1, 2, 3) = 7;
  CHECK(deep[23] == 7);
}

TEST_CASE("Tensor: empty ones and ones without extents", "[tensor]") {
  CHECK(Tensor<float>().size() == 0);
  CHECK(Tensor<float>().shape() == Shape{0});
  CHECK(Tensor<float>({3, 0}).size() == 0);
  Tensor<float> scalar{Shape()};
  scalar() = 2;
  CHECK(scalar.size() == 1);
  CHECK(scalar[0] == 2);
}

TEST_CASE("Tensor: copies are apart, reshaped ones hold the same values", "[tensor]") {
  const Tensor<int> t({2, 3}, {1, 2, 3, 4, 5, 6});
  Tensor<int> copy = t;
  copy[0] = 9;
  CHECK(t[0] == 1);
  const Tensor<int> other = t.reshaped({3, 2});
  CHECK(other.shape() == Shape{3, 2});
  CHECK(other(2, 1) == 6);
  CHECK(t.reshaped({6}).shape() == Shape{6});
}

TEST_CASE("Tensor: shapes that do not fit are errors", "[tensor]") {
  CHECK_THROWS_AS((Tensor<int>({2, 3}, {1, 2})), ShapeError);
  CHECK_THROWS_WITH((Tensor<int>({2, 3}, {1, 2})), Contains("{2, 3}") && Contains("6") && Contains("not 2"));
  const Tensor<int> t({2, 3});
  CHECK_THROWS_AS(t.reshaped({7}), ShapeError);
  CHECK_THROWS_WITH(t.reshaped({7}), Contains("{2, 3}") && Contains("{7}"));
  CHECK_THROWS_AS(t(1), ShapeError);
  CHECK_THROWS_AS(t(1, 0, 0), ShapeError);
}

TEST_CASE("argmax: the first largest value of each row", "[tensor]") {
  CHECK(argmax(Tensor<float>({3, 3}, {1, 3, 2, 5, 5, 1, 0, -1, -2})) == std::vector<std::size_t>{1, 0, 0});
  CHECK(argmax(Tensor<float>({2, 1, 2}, {1, 3, 2, 0})) == std::vector<std::size_t>{1, 0});
  CHECK(argmax(Tensor<float>({3}, {1, 2, 3})) == std::vector<std::size_t>{0, 0, 0});
  CHECK(argmax(Tensor<float>(Shape())) == std::vector<std::size_t>{0});
  CHECK(argmax(Tensor<float>({0, 2})).empty());
  CHECK_THROWS_AS(argmax(Tensor<float>({2, 0})), ShapeError);
}

TEST_CASE("random: tensors of normal and uniform numbers", "[tensor][random]") {
  Tensor<double> normal({100, 200}), again({100, 200}), uniform({100, 200});
  random::fill_normal(normal, {.seed = 3, .mean = 2, .standard_deviation = 0.5});
  random::fill_normal(again, {.seed = 3, .mean = 2, .standard_deviation = 0.5});
  CHECK(std::equal(normal.begin(), normal.end(), again.begin()));
  random::fill_normal(again, {.seed = 4, .mean = 2, .standard_deviation = 0.5});
  CHECK_FALSE(std::equal(normal.begin(), normal.end(), again.begin()));
  double mean = 0, square = 0;
  for (const double v : normal) mean += v / 20000, square += (v - 2) * (v - 2) / 20000;
  CHECK(mean == Approx(2).margin(0.02));
  CHECK(square == Approx(0.25).margin(0.01));

  random::fill_uniform(uniform, {.seed = 3, .low = -3, .high = 5});
  mean = 0;
  for (const double v : uniform) {
    REQUIRE((v >= -3 && v < 5));
    mean += v / 20000;
  }
  CHECK(mean == Approx(1).margin(0.06));
}
