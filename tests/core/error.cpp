#include <tesla/core/error.hpp>

#include <catch2/catch.hpp>
#include <limits>

using namespace tesla;

namespace {

struct Named {
  std::string to_string() const { return "{named}"; }
};

}  // namespace

TEST_CASE("text: words, numbers and things with a to_string()", "[core][error]") {
  CHECK(text().empty());
  CHECK(text("one") == "one");
  CHECK(text("a", 'b', std::string("c"), std::string_view("d")) == "abcd");
  CHECK(text(0, ' ', -7, ' ', 42U) == "0 -7 42");
  CHECK(text(std::numeric_limits<long long>::min()) == "-9223372036854775808");
  CHECK(text(std::numeric_limits<unsigned long long>::max()) == "18446744073709551615");
  CHECK(text(std::int8_t(-128), ' ', std::uint8_t(200)) == "-128 200");
  CHECK(text(0.5, ' ', -1e30, ' ', 2.0F) == "0.5 -1e+30 2");
  CHECK(text("x ", Named(), '!') == "x {named}!");
}

TEST_CASE("raise: throws what was asked for, with the message", "[core][error]") {
  CHECK_THROWS_AS(raise<ShapeError>("a"), ShapeError);
  CHECK_THROWS_AS(raise<DataError>("a"), DataError);
  CHECK_THROWS_AS(raise<FormatError>("a"), FormatError);
  CHECK_THROWS_AS(raise<FileError>("a"), FileError);
  CHECK_THROWS_AS(raise<UsageError>("a"), UsageError);
  CHECK_THROWS_WITH(raise<ShapeError>("got ", 3, " of ", Named()), "got 3 of {named}");
  // All of them are Errors, and those are standard ones.
  CHECK_THROWS_AS(raise<DataError>("a"), Error);
  CHECK_THROWS_AS(raise<DataError>("a"), std::runtime_error);
}
