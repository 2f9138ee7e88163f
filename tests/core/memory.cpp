#include <tesla/core/memory.hpp>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>

using namespace tesla;

TEST_CASE("Buffer: aligned and zero at first", "[core][memory]") {
  for (const std::size_t n : {1, 3, 16, 1000}) {
    const Buffer<float> buffer(n);
    CHECK(buffer.size() == n);
    CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % cache_line == 0);
    CHECK(std::all_of(buffer.begin(), buffer.end(), [](float v) { return v == 0; }));
  }
  CHECK(Buffer<double>().size() == 0);
  CHECK(Buffer<double>(0).data() == nullptr);
}

TEST_CASE("Buffer: copies are apart, moves take the memory along", "[core][memory]") {
  Buffer<int> first(5);
  for (std::size_t i = 0; i < 5; ++i) first[i] = static_cast<int>(i);
  Buffer<int> copy = first;
  copy[2] = 9;
  CHECK(first[2] == 2);
  CHECK(std::equal(first.begin(), first.begin() + 2, copy.begin()));

  const int* const memory = first.data();
  Buffer<int> moved = std::move(first);
  CHECK(moved.data() == memory);
  CHECK(first.size() == 0);  // NOLINT: a moved-from buffer is empty
  CHECK(first.data() == nullptr);

  copy = moved;
  CHECK(copy[2] == 2);
  CHECK(copy.data() != memory);
  copy = std::move(moved);
  CHECK(copy.data() == memory);
  const Buffer<int>& self = copy;
  copy = self;
  CHECK(copy.size() == 5);
  CHECK(copy[4] == 4);
}

TEST_CASE("Buffer: sizes beyond memory are errors", "[core][memory]") {
  CHECK_THROWS_AS(Buffer<double>(~std::size_t{0}), ShapeError);
  CHECK_THROWS_AS(Buffer<double>(~std::size_t{0} / 8), MemoryError);
  CHECK_THROWS_AS(Buffer<char>(~std::size_t{0}), MemoryError);
}

TEST_CASE("checked_product and round_up", "[core][memory]") {
  CHECK(checked_product(0, ~std::size_t{0}) == 0);
  CHECK(checked_product(std::size_t{1} << 32, (std::size_t{1} << 32) - 1) == ((std::size_t{1} << 32) - 1) << 32);
  CHECK_THROWS_AS(checked_product(std::size_t{1} << 32, std::size_t{1} << 32), ShapeError);
  static_assert(round_up(0, 16) == 0 && round_up(1, 16) == 16 && round_up(16, 16) == 16 && round_up(17, 16) == 32);
}
