// The accuracy of predictions that are there already.
#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cstdint>
#include <vector>

namespace test_metric_accuracy {

using tesla::utils::accuracy;

TEST_CASE("accuracy compares classes with labels, and with rows", "[metric]") {
  const tesla::Tensor<float> predictions({4, 3}, {1, 2, 0, 5, 4, 3, 0, 0, 1, -1, -2, -3});  // 1 0 2 0
  CHECK(accuracy(predictions, std::vector<int>{1, 0, 2, 0}) == 1);
  CHECK(accuracy(predictions, std::vector<std::uint8_t>{1, 0, 1, 2}) == 0.5);
  CHECK(accuracy(predictions, tesla::Tensor<double>({4, 3}, {0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1})) == 0.5);
  REQUIRE_THROWS_WITH(accuracy(predictions, std::vector<int>{1, 0, 2}), Catch::Contains("4 labels"));
  REQUIRE_THROWS_WITH(accuracy(predictions, std::vector<int>{1, 0, 2, 3}), Catch::Contains("sample 3 is 3"));
  REQUIRE_THROWS_WITH(accuracy(predictions, std::vector<float>{1, 0, 2, 0.5F}), Catch::Contains("is 0.5"));
  REQUIRE_THROWS_AS(accuracy(predictions, tesla::Tensor<float>({4, 2})), tesla::ShapeError);
  REQUIRE_THROWS_AS(accuracy(tesla::Tensor<float>(), std::vector<int>()), tesla::DataError);
}

TEST_CASE("accuracy of a single output says yes above 0, or above a half", "[metric]") {
  const tesla::Tensor<float> predictions({4, 1}, {0.3F, 0.7F, -0.1F, 0.9F});
  CHECK(accuracy(predictions, std::vector<int>{1, 1, 0, 1}) == 1);
  CHECK(accuracy(predictions, std::vector<int>{0, 1, 0, 0}, {.from_logits = false}) == 0.75);
}

}  // namespace test_metric_accuracy
