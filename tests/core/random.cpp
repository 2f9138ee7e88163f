#include <tesla/core/random.hpp>

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

using namespace tesla;
using random::Block;
using random::Stream;

TEST_CASE("Philox: the known answers of Random123", "[core][random]") {
  static_assert(random::philox({0, 0, 0, 0}, 0) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr std::uint32_t ones = 0xffffffff;
  CHECK(random::philox({ones, ones, ones, ones}, ~std::uint64_t{0}) ==
        Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(random::philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822) ==
        Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("Stream: numbers go by index, in any order", "[core][random]") {
  const Stream stream(12, 3);
  // Two numbers of 64 bits from each block: the counter is the index and the stream, the key is the seed.
  const Block block = random::philox({5, 0, 3, 0}, 12);
  CHECK(stream.bits(10) == (block[0] | std::uint64_t{block[1]} << 32));
  CHECK(stream.bits(11) == (block[2] | std::uint64_t{block[3]} << 32));
  std::vector<std::uint64_t> forward, backward;
  for (std::uint64_t i = 0; i < 100; ++i) forward.push_back(stream.bits(i));
  for (std::uint64_t i = 100; i-- > 0;) backward.push_back(stream.bits(i));
  std::reverse(backward.begin(), backward.end());
  CHECK(forward == backward);
  CHECK(std::set<std::uint64_t>(forward.begin(), forward.end()).size() == 100);
  CHECK(Stream(12, 4).bits(10) != stream.bits(10));
  CHECK(Stream(13, 3).bits(10) != stream.bits(10));
  CHECK(Stream(12, std::uint64_t{3} << 32).bits(10) != stream.bits(10));
  CHECK(stream.bits((std::uint64_t{1} << 33) + 10) != stream.bits(10));
}

TEST_CASE("Stream: uniform numbers from 0 up to 1", "[core][random]") {
  const Stream stream(1);
  constexpr int n = 200000;
  double sum = 0, squares = 0, neighbours = 0;
  std::array<int, 20> bins{};
  for (std::uint64_t i = 0; i < n; ++i) {
    const double u = stream.uniform(i);
    REQUIRE((u >= 0 && u < 1));
    sum += u, squares += u * u, neighbours += (u - 0.5) * (stream.uniform(i + 1) - 0.5);
    ++bins[static_cast<std::size_t>(u * 20)];
  }
  CHECK(sum / n == Approx(0.5).margin(0.003));
  CHECK(squares / n == Approx(1.0 / 3).margin(0.003));
  CHECK(neighbours / n == Approx(0).margin(0.001));
  for (const int count : bins) CHECK(count == Approx(n / 20).margin(500));
}

TEST_CASE("Stream: normal numbers have the moments 0, 1, 0, 3", "[core][random]") {
  const Stream stream(2);
  constexpr int n = 200000;
  double first = 0, second = 0, third = 0, fourth = 0, neighbours = 0, largest = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    const double z = stream.normal(i);
    first += z, second += z * z, third += z * z * z, fourth += z * z * z * z;
    neighbours += z * stream.normal(i ^ 1);
    largest = std::max(largest, std::abs(z));
  }
  CHECK(first / n == Approx(0).margin(0.01));
  CHECK(second / n == Approx(1).margin(0.015));
  CHECK(third / n == Approx(0).margin(0.03));
  CHECK(fourth / n == Approx(3).margin(0.1));
  CHECK(neighbours / n == Approx(0).margin(0.01));
  CHECK(largest > 4);
  CHECK(largest < 9);
}

TEST_CASE("Stream: whole numbers below a bound", "[core][random]") {
  const Stream stream(3);
  std::array<int, 7> counts{};
  for (std::uint64_t i = 0; i < 70000; ++i) {
    const std::uint64_t value = stream.below(i, 7);
    REQUIRE(value < 7);
    ++counts[value];
  }
  for (const int count : counts) CHECK(count == Approx(10000).margin(500));
  CHECK(stream.below(0, 1) == 0);
  CHECK(stream.below(5, ~std::uint64_t{0}) < ~std::uint64_t{0});
}

TEST_CASE("shuffle: a permutation, which the seed and the stream decide", "[core][random]") {
  const auto shuffled = [](std::size_t n, std::uint64_t seed, std::uint64_t stream) {
    std::vector<std::uint32_t> order(n, 77);
    random::shuffle(order, seed, stream);
    return order;
  };
  for (const std::size_t n : {0, 1, 2, 3, 1000}) {
    auto order = shuffled(n, 5, 1);
    CHECK(order == shuffled(n, 5, 1));
    std::sort(order.begin(), order.end());
    for (std::size_t i = 0; i < n; ++i) REQUIRE(order[i] == i);
  }
  CHECK(shuffled(1000, 5, 1) != shuffled(1000, 6, 1));
  CHECK(shuffled(1000, 5, 1) != shuffled(1000, 5, 2));
}

TEST_CASE("shuffle: every order is as likely", "[core][random]") {
  std::array<std::array<int, 4>, 4> counts{};  // of value v at place p
  std::vector<std::uint32_t> order(4);
  for (std::uint64_t stream = 0; stream < 24000; ++stream) {
    random::shuffle(order, 9, stream);
    for (std::size_t place = 0; place < 4; ++place) ++counts[order[place]][place];
  }
  for (const auto& row : counts)
    for (const int count : row) CHECK(count == Approx(6000).margin(350));
}
