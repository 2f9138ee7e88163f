#include <tesla/data/dataset.hpp>

#include <catch2/catch.hpp>
#include <vector>

using tesla::Shape;
using tesla::Tensor;
using tesla::data::Dataset;
using tesla::data::Samples;
using tesla::data::Split;

TEST_CASE("a dataset owns samples and targets", "[dataset]") {
  const Dataset<> labelled(Tensor<float>({2, 3}, {1, 2, 3, 4, 5, 6}), Tensor<std::int32_t>({2}, {7, 8}));
  CHECK(labelled.size() == 2);
  CHECK(labelled.x()(1, 0) == 4);
  CHECK(labelled.y()[1] == 8);

  const Dataset<double, float> regression(Tensor<double>({4, 2, 2}), Tensor<float>({4, 3}));
  CHECK(regression.size() == 4);
  CHECK(regression.y().shape() == Shape{4, 3});
}

TEST_CASE("an empty dataset has no samples", "[dataset]") {
  CHECK(Dataset<>().size() == 0);
  CHECK(Dataset<>(Tensor<float>(Shape{0, 5}), Tensor<std::int32_t>(Shape{0})).size() == 0);
  CHECK(Dataset<>(Tensor<float>(Shape{}), Tensor<std::int32_t>(Shape{})).size() == 0);
}

TEST_CASE("a dataset wants a target for every sample", "[dataset]") {
  const Tensor<float> x({2, 3});
  CHECK_THROWS_AS(Dataset<>(x, Tensor<std::int32_t>(Shape{3})), tesla::ShapeError);
  CHECK_THROWS_AS(Dataset<>(x, Tensor<std::int32_t>(Shape{})), tesla::ShapeError);
  CHECK_THROWS_WITH(Dataset<>(x, Tensor<std::int32_t>(Shape{3})),
                    Catch::Contains("{2, 3}") && Catch::Contains("2 samples") && Catch::Contains("3 targets"));
}

TEST_CASE("a split comes apart by names", "[dataset]") {
  const Split<> split{{Tensor<float>({2, 3}), Tensor<std::int32_t>(Shape{2})},
                      {Tensor<float>({1, 3}), Tensor<std::int32_t>(Shape{1})}};
  const auto& [train, test] = split;
  CHECK(train.size() == 2);
  CHECK(test.size() == 1);
}

TEST_CASE("samples borrow a dataset's memory", "[dataset]") {
  const Dataset<> dataset(Tensor<float>({2, 3}), Tensor<std::int32_t>(Shape{2}));
  const Samples samples = dataset;
  CHECK(samples.x.data() == dataset.x().data());
  CHECK(samples.y.data() == dataset.y().data());
  CHECK(samples.x.shape() == Shape{2, 3});
  CHECK(samples.y.type() == tesla::ElementType::int32);
  CHECK(samples.weight.empty());
  CHECK(samples.given());
  CHECK_FALSE(Samples().given());
}

TEST_CASE("samples borrow other arrays, with weights", "[dataset]") {
  const std::vector<double> x(6), weight(2);
  const std::vector<std::int64_t> y(2);
  const Samples samples(tesla::view(x, {2, 3}), y, weight);
  CHECK(samples.x.data() == x.data());
  CHECK(samples.x.type() == tesla::ElementType::float64);
  CHECK(samples.y.data() == y.data());
  CHECK(samples.weight.data() == weight.data());
  CHECK(samples.weight.shape() == Shape{2});
}
