// Numbers of 16 bits: each of them, and what lies between two.
#include <tesla/core/half.hpp>
#include <tesla/core/random.hpp>

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace test_core_half {

using namespace tesla;

namespace {

/// What the bits mean, by powers of two; nothing for NaN and infinity.
template <class H>
double meaning(std::uint16_t bits) {
  const int digits = std::is_same_v<H, BFloat16> ? 7 : 10, bias = std::is_same_v<H, BFloat16> ? 127 : 15;
  const int exponent = (bits & 0x7fff) >> digits, fraction = bits & ((1 << digits) - 1);
  const double size = exponent == 0 ? std::ldexp(fraction, 1 - bias - digits)
                                    : std::ldexp(fraction + (1 << digits), exponent - bias - digits);
  return (bits & 0x8000) != 0 ? -size : size;
}
template <class H>
constexpr std::uint16_t infinity = std::is_same_v<H, BFloat16> ? 0x7f80 : 0x7c00;

}  // namespace

TEMPLATE_TEST_CASE("every number of 16 bits is what its bits mean, and comes back", "[core]", BFloat16, Float16) {
  for (std::uint32_t b = 0; b < 65536; ++b) {
    TestType h;
    h.bits = static_cast<std::uint16_t>(b);
    const float wide = static_cast<float>(h);
    const auto size = static_cast<std::uint16_t>(b & 0x7fff);
    if (size > infinity<TestType>) {
      const auto all = std::bit_cast<std::uint32_t>(wide);
      REQUIRE((all & 0x7fffffff) > 0x7f800000);
      const TestType back(wide);
      REQUIRE((back.bits & 0x7fff) > infinity<TestType>);  // perhaps another one, with its quiet bit set
      REQUIRE((back.bits & 0x8000) == (b & 0x8000));
      continue;
    }
    if (size == infinity<TestType>)
      REQUIRE(wide == ((b & 0x8000) != 0 ? -1 : 1) * std::numeric_limits<float>::infinity());
    else
      REQUIRE(static_cast<double>(wide) == meaning<TestType>(h.bits));
    REQUIRE(static_cast<double>(h) == static_cast<double>(wide));
    REQUIRE(TestType(wide).bits == h.bits);
  }
}

TEMPLATE_TEST_CASE("rounding goes to the nearest, of two as near to the even one", "[core]", BFloat16, Float16) {
  std::vector<double> numbers;  // of 0 and more, ascending as their bits
  for (std::uint16_t b = 0; b < infinity<TestType>; ++b) numbers.push_back(meaning<TestType>(b));
  const double largest = numbers.back(), step = largest - numbers[numbers.size() - 2];
  const auto check = [&](float value) {
    const double size = std::abs(static_cast<double>(value));
    std::uint16_t expected;
    if (size >= largest + step / 2) {
      expected = infinity<TestType>;
    } else if (size >= largest) {
      expected = static_cast<std::uint16_t>(numbers.size() - 1);
    } else {
      const auto above = std::upper_bound(numbers.begin(), numbers.end(), size);
      const auto below = static_cast<std::uint16_t>(above - numbers.begin() - 1);
      const double down = size - numbers[below], up = *above - size;
      expected = static_cast<std::uint16_t>(down < up || (down == up && below % 2 == 0) ? below : below + 1);
    }
    const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    CAPTURE(value);
    REQUIRE(TestType(value).bits == (expected | sign));
  };
  const random::Stream random(1, 1);
  for (std::uint64_t i = 0; i < 100000; ++i) {  // of all sizes
    const float value = std::bit_cast<float>(static_cast<std::uint32_t>(random.bits(i)));
    if (std::isfinite(value)) check(value);
  }
  for (std::uint64_t i = 0; i + 1 < numbers.size(); ++i) {  // and just in the middle, and beside it
    const auto middle = static_cast<float>((numbers[i] + numbers[i + 1]) / 2);
    for (const float value : {middle, std::nextafter(middle, 0.0F), std::nextafter(middle, 1e38F), -middle})
      check(value);
  }
  for (const float value : {0.0F, -0.0F, 65504.0F, 65519.0F, 65520.0F, 65536.0F, 1e-45F, -1e-45F, 0x1p-25F,
                            0x1.000002p-25F, std::numeric_limits<float>::max(), std::numeric_limits<float>::min()})
    check(value);
  CHECK(TestType(std::numeric_limits<float>::infinity()).bits == infinity<TestType>);
  CHECK((TestType(std::numeric_limits<float>::quiet_NaN()).bits & 0x7fff) > infinity<TestType>);
  CHECK((TestType(std::bit_cast<float>(0x7f800001U)).bits & 0x7fff) > infinity<TestType>);
}

}  // namespace test_core_half
