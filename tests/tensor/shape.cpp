#include <tesla/tensor/shape.hpp>

#include <catch2/catch.hpp>
#include <sstream>
#include <vector>

using namespace tesla;
using Catch::Contains;

TEST_CASE("Shape: extents and their product", "[tensor][shape]") {
  const Shape shape{4, 3, 5};
  CHECK(shape.rank() == 3);
  CHECK(shape[1] == 3);
  CHECK(shape.back() == 5);
  CHECK(shape.elements() == 60);
  CHECK(std::vector<std::size_t>(shape.begin(), shape.end()) == std::vector<std::size_t>{4, 3, 5});
  CHECK(Shape{}.rank() == 0);
  CHECK(Shape{}.elements() == 1);
  CHECK(Shape{3, 0, 2}.elements() == 0);
}

TEST_CASE("Shape: derived ones", "[tensor][shape]") {
  const Shape shape{4, 3, 5};
  CHECK(shape.tail() == Shape{3, 5});
  CHECK(Shape{4}.tail() == Shape{});
  CHECK(Shape{}.tail() == Shape{});
  CHECK(shape.with_front(7) == Shape{7, 4, 3, 5});
  CHECK(Shape{}.with_front(7) == Shape{7});
  CHECK(shape.with_back(9) == Shape{4, 3, 9});
}

TEST_CASE("Shape: equality looks at rank and extents", "[tensor][shape]") {
  CHECK(Shape{2, 3} == Shape{2, 3});
  CHECK(Shape{2, 3} != Shape{3, 2});
  CHECK(Shape{2, 3} != Shape{2, 3, 1});
  CHECK(Shape{2, 3, 4}.tail() == Shape{3, 4});
}

TEST_CASE("Shape: as text", "[tensor][shape]") {
  CHECK(Shape{4, 3}.to_string() == "{4, 3}");
  CHECK(Shape{}.to_string() == "{}");
  CHECK(Shape{28, 28, 1}.extents() == "28 x 28 x 1");
  std::ostringstream out;
  out << Shape{7};
  CHECK(out.str() == "{7}");
}

TEST_CASE("Shape: at most eight extents, whose product has to fit", "[tensor][shape]") {
  CHECK(Shape{1, 1, 1, 1, 1, 1, 1, 2}.elements() == 2);
  CHECK_THROWS_AS((Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}), ShapeError);
  CHECK_THROWS_WITH((Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}), Contains("8") && Contains("9"));
  CHECK_THROWS_AS((Shape{1, 1, 1, 1, 1, 1, 1, 1}.with_front(1)), ShapeError);
  constexpr std::size_t large = std::size_t{1} << 32;
  CHECK_THROWS_AS((Shape{large, large}), ShapeError);
  CHECK_THROWS_WITH((Shape{large, large}), Contains("overflows"));
  CHECK_THROWS_AS((Shape{large}.with_front(large)), ShapeError);
  CHECK_THROWS_AS((Shape{large, 1}.with_back(large)), ShapeError);
}
