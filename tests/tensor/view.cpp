#include <tesla/tensor/view.hpp>

#include <array>
#include <catch2/catch.hpp>

using namespace tesla;
using Catch::Contains;

namespace {

/// The values of one sample.
std::vector<double> sample(const ArrayView& view, std::size_t i) {
  std::vector<double> result(view.features());
  view.read(i, 0, result.size(), result.data());
  return result;
}

using Values = std::vector<double>;

}  // namespace

TEST_CASE("ArrayView: of vectors, arrays, spans and tensors", "[tensor][view]") {
  const std::vector<float> vector = {1, 2, 3};
  const ArrayView of_vector = vector;
  CHECK(of_vector.shape() == Shape{3});
  CHECK(of_vector.data() == vector.data());
  CHECK(of_vector.type() == ElementType::float32);
  CHECK(of_vector.samples() == 3);
  CHECK(of_vector.features() == 1);
  CHECK(of_vector.value(2) == 3);

  const std::array<std::int16_t, 2> array = {5, -6};
  CHECK(ArrayView(array).type() == ElementType::int16);
  CHECK(ArrayView(array).value(1) == -6);
  CHECK(ArrayView(std::span<const float>(vector).subspan(1)).value(0) == 2);

  const Tensor<double> tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  const ArrayView of_tensor = tensor;
  CHECK(of_tensor.shape() == Shape{2, 3});
  CHECK(of_tensor.data() == tensor.data());
  CHECK(of_tensor.type() == ElementType::float64);
  CHECK(sample(of_tensor, 1) == Values{4, 5, 6});
}

TEST_CASE("ArrayView: empty ones", "[tensor][view]") {
  CHECK(ArrayView().empty());
  CHECK(ArrayView().samples() == 0);
  CHECK(ArrayView(std::vector<float>()).empty());
  CHECK(ArrayView(Tensor<float>({0, 3})).empty());
  CHECK(ArrayView(Tensor<float>({3, 0})).features() == 0);
  CHECK_FALSE(ArrayView(Tensor<float>({1, 1})).empty());
}

TEST_CASE("ArrayView: all element types", "[tensor][view]") {
  const auto check = []<class T>(T value, ElementType type) {
    const std::vector<T> memory = {T(0), value};
    const ArrayView view = memory;
    CHECK(view.type() == type);
    CHECK(element_type<T>() == type);
    CHECK(view.value(1) == static_cast<double>(value));
    float single = 0;
    view.read(1, 0, 1, &single);
    CHECK(single == static_cast<float>(value));
    CHECK(view.visit([](const auto* data) { return sizeof(*data); }) == sizeof(T));
  };
  check(1.5F, ElementType::float32);
  check(-2.25, ElementType::float64);
  check(std::int8_t(-100), ElementType::int8);
  check(std::int16_t(-30000), ElementType::int16);
  check(std::int32_t(-2000000000), ElementType::int32);
  check(std::int64_t(-5000000000), ElementType::int64);
  check(std::uint8_t(200), ElementType::uint8);
  check(std::uint16_t(60000), ElementType::uint16);
  check(std::uint32_t(4000000000), ElementType::uint32);
  check(std::uint64_t(10000000000), ElementType::uint64);
  check(5LL, ElementType::int64);
  check('a', std::is_signed_v<char> ? ElementType::int8 : ElementType::uint8);
  static_assert(!Element<bool> && !Element<long double> && !Element<float*>);
}

TEST_CASE("ArrayView: strides of any kind", "[tensor][view]") {
  std::vector<int> memory(24);
  for (std::size_t i = 0; i < 24; ++i) memory[i] = static_cast<int>(i);
  const int* const data = memory.data();

  const ArrayView columns(data, {4, 6}, {1, 4});
  CHECK(sample(columns, 1) == Values{1, 5, 9, 13, 17, 21});
  CHECK_FALSE(columns.contiguous_samples());

  const ArrayView gaps(data, {3, 2}, {8, 1});
  CHECK(sample(gaps, 2) == Values{16, 17});
  CHECK(gaps.contiguous_samples());

  const ArrayView backwards(data + 23, {4, 6}, {-6, -1});
  CHECK(sample(backwards, 0) == Values{23, 22, 21, 20, 19, 18});
  CHECK(backwards.value(3, 5) == 0);

  const ArrayView repeated(data + 2, {5, 3}, {0, 1});
  CHECK(sample(repeated, 4) == Values{2, 3, 4});

  const ArrayView swapped(data, {2, 4, 3}, {12, 1, 4});
  CHECK(sample(swapped, 1) == Values{12, 16, 20, 13, 17, 21, 14, 18, 22, 15, 19, 23});
  CHECK(swapped.value(1, 4) == 17);
  CHECK(swapped.offset_of_feature(4) == 5);
  CHECK_FALSE(swapped.contiguous_samples());
  Values part(3);
  swapped.read(1, 2, 3, part.data());
  CHECK(part == Values{20, 13, 17});

  const ArrayView image(data, {2, 4, 3});
  CHECK(image.contiguous_samples());
  CHECK(image.stride(0) == 12);
  CHECK(sample(image, 1) == Values{12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23});
  // The stride of an extent of 1 does not matter.
  CHECK(ArrayView(data, {4, 1, 6}, {6, 99, 1}).contiguous_samples());
}

TEST_CASE("view: memory under a shape", "[tensor][view]") {
  const std::vector<float> memory = {1, 2, 3, 4, 5, 6};
  const ArrayView rows = view(memory, {3, 2});
  CHECK(rows.shape() == Shape{3, 2});
  CHECK(sample(rows, 2) == Values{5, 6});
  CHECK(view(std::span(memory).first(4), {2, 2}).size() == 4);
  CHECK_THROWS_AS(view(memory, {4, 2}), ShapeError);
  CHECK_THROWS_WITH(view(memory, {4, 2}), Contains("{4, 2}") && Contains("8") && Contains("6"));
}
