#include <tesla/core/random.hpp>
#include <tesla/io/json.hpp>

#include <bit>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <map>

using namespace tesla;
using Catch::Contains;
using io::Json;

namespace {

std::string repeat(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

}  // namespace

TEST_CASE("JSON: what is valid is read and written back in the compact form", "[io][json]") {
  struct Row {
    std::string text, compact;
  };
  const std::vector<Row> rows = {
      // Literals and space.
      {"null", "null"},
      {"true", "true"},
      {"false", "false"},
      {" \t\r\n null \n", "null"},
      // Whole numbers up to 64 bits are exact.
      {"0", "0"},
      {"7", "7"},
      {"-1", "-1"},
      {"9007199254740993", "9007199254740993"},
      {"9223372036854775808", "9223372036854775808"},
      {"18446744073709551615", "18446744073709551615"},
      {"-9223372036854775808", "-9223372036854775808"},
      // Beyond them, and with a fraction or an exponent, they are doubles.
      {"18446744073709551616", "18446744073709551616.0"},
      {"-9223372036854775809", "-9223372036854775808.0"},
      {"-0", "-0.0"},
      {"-0.0", "-0.0"},
      {"1.0", "1.0"},
      {"0.1", "0.1"},
      {"1e2", "100.0"},
      {"1E+2", "100.0"},
      {"25e-1", "2.5"},
      {"0e5", "0.0"},
      {"0.1e1", "1.0"},
      {"3.141592653589793238462643383279", "3.141592653589793"},
      {"1e300", "1e+300"},
      {"1.7976931348623157e308", "1.7976931348623157e+308"},
      {"2.2250738585072014e-308", "2.2250738585072014e-308"},
      {"5e-324", "5e-324"},
      {"0.30000000000000004", "0.30000000000000004"},
      {"0e999999999999", "0.0"},
      // Strings.
      {R"("")", R"("")"},
      {R"("a")", R"("a")"},
      {R"("\"\\\/\b\f\n\r\t")", R"("\"\\/\b\f\n\r\t")"},
      {R"("\u0041\u00e9\u20AC")", "\"A\xC3\xA9\xE2\x82\xAC\""},
      {R"("\ud834\udd1e")", "\"\xF0\x9D\x84\x9E\""},
      {R"("\uDBFF\uDFFF")", "\"\xF4\x8F\xBF\xBF\""},
      {R"("\u007f\u0080\u07ff\u0800\uffff\ud800\udc00")",
       "\"\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\""},
      {R"("\u0000\u001f")", R"("\u0000\u001f")"},
      {"\"\x7F\"", "\"\x7F\""},
      {"\"\xC2\x80 \xDF\xBF \xE0\xA0\x80 \xED\x9F\xBF \xEE\x80\x80 \xF0\x90\x80\x80 \xF4\x8F\xBF\xBF\"",
       "\"\xC2\x80 \xDF\xBF \xE0\xA0\x80 \xED\x9F\xBF \xEE\x80\x80 \xF0\x90\x80\x80 \xF4\x8F\xBF\xBF\""},
      // Arrays and objects.
      {"[]", "[]"},
      {"[ ]", "[]"},
      {"{}", "{}"},
      {"{ }", "{}"},
      {"[1 , [2] ,\n{}]", "[1,[2],{}]"},
      {R"({"b": 1, "a": {"c": [null, true]}, "": 0})", R"({"b":1,"a":{"c":[null,true]},"":0})"},
      {R"({"\u0061":1,"b":2})", R"({"a":1,"b":2})"},
      {repeat("[", 64) + repeat("]", 64), repeat("[", 64) + repeat("]", 64)},
  };
  for (const Row& row : rows) {
    CAPTURE(row.text);
    const Json value = Json::parse(row.text);
    CHECK(value.write() == row.compact);
    CHECK(Json::parse(value.write()) == value);
  }
}

TEST_CASE("JSON: what is not valid is an error with line and column", "[io][json]") {
  struct Row {
    std::string text, where, what;
  };
  const std::vector<Row> rows = {
      {"", "line 1, column 1", "a value is wanted, found the end of the text"},
      {"  ", "line 1, column 3", "the end of the text"},
      {"\xEF\xBB\xBF{}", "line 1, column 1", "byte order mark"},
      {"nul", "line 1, column 1", "\"null\" is wanted"},
      {"True", "line 1, column 1", "a value is wanted, found \"T\""},
      {"NaN", "line 1, column 1", "a value is wanted, found \"N\""},
      {"-Infinity", "line 1, column 2", "a digit is wanted after \"-\""},
      {"'a'", "line 1, column 1", "found \"'\""},
      {"1 2", "line 1, column 3", "the document ends here, found \"2\""},
      {"{}}", "line 1, column 3", "the document ends here, found \"}\""},
      {std::string("1\0", 2), "line 1, column 2", "found \"\\u0000\""},
      {"\v1", "line 1, column 1", "found \"\\u000b\""},
      {"// c\n1", "line 1, column 1", "found \"/\""},
      // Numbers.
      {"01", "line 1, column 1", "no leading zeros"},
      {"-01", "line 1, column 2", "no leading zeros"},
      {"+1", "line 1, column 1", "found \"+\""},
      {".5", "line 1, column 1", "found \".\""},
      {"-", "line 1, column 2", "found the end of the text"},
      {"-.5", "line 1, column 2", "a digit is wanted"},
      {"1.", "line 1, column 3", "a digit is wanted after \".\""},
      {"1.e5", "line 1, column 3", "a digit is wanted after \".\""},
      {"1e", "line 1, column 3", "a digit is wanted"},
      {"1e+", "line 1, column 4", "a digit is wanted"},
      {"1e5.5", "line 1, column 4", "the document ends here"},
      {"0x10", "line 1, column 2", "the document ends here, found \"x\""},
      {"1_000", "line 1, column 2", "the document ends here"},
      {"1e400", "line 1, column 1", "the number \"1e400\" is out of the range of a double"},
      {"-1e400", "line 1, column 1", "out of the range"},
      {"1e-400", "line 1, column 1", "out of the range"},
      {"[1e99999999999999999999]", "line 1, column 2", "out of the range"},
      {"1" + repeat("0", 400), "line 1, column 1", "out of the range"},
      // Strings.
      {"\"a", "line 1, column 1", "no closing quote"},
      {"\"a\\", "line 1, column 3", "a backslash is followed by"},
      {"\"\\x\"", "line 1, column 2", "a backslash is followed by one of \"\\/bfnrtu, not by \"x\""},
      {"\"a\nb\"", "line 1, column 3", "a control character"},
      {"\"\t\"", "line 1, column 2", "a control character"},
      {R"("\u12")", "line 1, column 6", "four hexadecimal digits"},
      {R"("\u12G4")", "line 1, column 6", "four hexadecimal digits, not by \"G\""},
      {R"("\u 123")", "line 1, column 4", "four hexadecimal digits"},
      {R"("\ud834")", "line 1, column 2", "the first half of a surrogate pair"},
      {R"("\ud834x")", "line 1, column 2", "the first half of a surrogate pair"},
      {R"("\ud834\n")", "line 1, column 2", "the first half of a surrogate pair"},
      {R"("\ud834\u0041")", "line 1, column 2", "the first half of a surrogate pair"},
      {R"("\ud834\ud834")", "line 1, column 2", "the first half of a surrogate pair"},
      {R"("\udd1e")", "line 1, column 2", "the second half of a surrogate pair"},
      // Not UTF-8: a lone continuation, cut short, overlong, a surrogate, beyond the last character, bytes that never
      // occur.
      {"\"\x80\"", "line 1, column 2", "not UTF-8: \"\\x80\""},
      {"\"\xC3\"", "line 1, column 2", "not UTF-8"},
      {"\"\xE2\x82\"", "line 1, column 2", "not UTF-8"},
      {"\"\xF0\x9D\x84\"", "line 1, column 2", "not UTF-8"},
      {"\"\xC3", "line 1, column 2", "not UTF-8"},
      {"\"\xC0\x80\"", "line 1, column 2", "not UTF-8"},
      {"\"\xC1\xBF\"", "line 1, column 2", "not UTF-8"},
      {"\"\xE0\x9F\xBF\"", "line 1, column 2", "not UTF-8"},
      {"\"\xF0\x8F\xBF\xBF\"", "line 1, column 2", "not UTF-8"},
      {"\"\xED\xA0\x80\"", "line 1, column 2", "not UTF-8"},
      {"\"\xF4\x90\x80\x80\"", "line 1, column 2", "not UTF-8"},
      {"\"\xF5\x80\x80\x80\"", "line 1, column 2", "not UTF-8"},
      {"\"\xFF\"", "line 1, column 2", "not UTF-8"},
      {"\x80", "line 1, column 1", "a value is wanted, found \"\\x80\""},
      // Arrays and objects.
      {"[1", "line 1, column 3", "\",\" or \"]\" is wanted in an array, found the end"},
      {"[1 2]", "line 1, column 4", "\",\" or \"]\" is wanted in an array, found \"2\""},
      {"[1,]", "line 1, column 4", "a value is wanted, found \"]\""},
      {"[,1]", "line 1, column 2", "a value is wanted, found \",\""},
      {"[1}", "line 1, column 3", "found \"}\""},
      {"{", "line 1, column 2", "a key in quotes is wanted"},
      {"{a:1}", "line 1, column 2", "a key in quotes is wanted, found \"a\""},
      {"{1:1}", "line 1, column 2", "a key in quotes is wanted"},
      {"{\"a\" 1}", "line 1, column 6", "\":\" is wanted after the key \"a\", found \"1\""},
      {"{\"a\":}", "line 1, column 6", "a value is wanted"},
      {"{\"a\":1,}", "line 1, column 8", "a key in quotes is wanted, found \"}\""},
      {"{\"a\":1", "line 1, column 7", "\",\" or \"}\" is wanted in an object"},
      {"{\"a\":1]", "line 1, column 7", "found \"]\""},
      {"{\"a\":1,\n \"b\":2,\n \"a\":3}", "line 3, column 2", "the key \"a\" twice"},
      {R"({"a":1,"\u0061":2})", "line 1, column 8", "the key \"a\" twice"},
      {"[\n\n  \"\xC3\xA9\xE2\x82\xAC\", x]", "line 3, column 9", "found \"x\""},
      {repeat("[", 65), "line 1, column 65", "more than 64 deep"},
      {repeat("{\"a\":", 65), "line 1, column 321", "more than 64 deep"},
      {repeat("[", 1'000'000), "line 1, column 65", "more than 64 deep"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.text.substr(0, 100));
    CHECK_THROWS_AS(Json::parse(row.text), FormatError);
    CHECK_THROWS_WITH(Json::parse(row.text, "a.json"), Contains("a.json, " + row.where + ": ") && Contains(row.what));
  }
}

TEST_CASE("JSON: numbers come back as the same bits", "[io][json]") {
  const random::Stream stream(1);
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const auto value = std::bit_cast<double>(stream.bits(i));
    if (!std::isfinite(value)) continue;
    const std::string text = Json(value).write();
    CAPTURE(text);
    REQUIRE(std::bit_cast<std::uint64_t>(Json::parse(text).as<double>()) == stream.bits(i));
    REQUIRE(std::bit_cast<std::uint64_t>(std::strtod(text.c_str(), nullptr)) == stream.bits(i));
    char digits[40];
    std::snprintf(digits, sizeof digits, "%.17g", value);
    REQUIRE(std::bit_cast<std::uint64_t>(Json::parse(digits).as<double>()) == stream.bits(i));
    const std::uint64_t natural = stream.bits(i) >> (i % 64);
    REQUIRE(Json::parse(Json(natural).write()).as<std::uint64_t>() == natural);
    const auto whole = static_cast<std::int64_t>(stream.bits(i)) >> (i % 64);
    REQUIRE(Json::parse(Json(whole).write()).as<std::int64_t>() == whole);
  }
  CHECK(Json(0.1F).as<float>() == 0.1F);
}

TEST_CASE("JSON: values of C++ and their access", "[io][json]") {
  Json json = Json::object({{"name", "tesla"},
                            {"epochs", 3},
                            {"rate", 0.5},
                            {"whole", 4.0},
                            {"loss", -2},
                            {"on", true},
                            {"nothing", nullptr},
                            {"sizes", Json::array({1, 2, 3})},
                            {"names", Json::array(std::vector<std::string>{"a", "b"})}});
  CHECK(json.write() ==
        R"({"name":"tesla","epochs":3,"rate":0.5,"whole":4.0,"loss":-2,"on":true,"nothing":null,"sizes":[1,2,3],)"
        R"("names":["a","b"]})");
  CHECK(json.get<std::string>("name") == "tesla");
  CHECK(json.get<int>("epochs") == 3);
  CHECK(json.get<double>("epochs") == 3.0);
  CHECK(json.get<float>("rate") == 0.5F);
  CHECK(json.get<int>("whole") == 4);
  CHECK(json.get<std::int8_t>("loss") == -2);
  CHECK(json.get<double>("loss") == -2.0);
  CHECK(json.get<bool>("on"));
  CHECK(json.at("nothing").is_null());
  CHECK(json.get<std::vector<std::size_t>>("sizes") == std::vector<std::size_t>{1, 2, 3});
  CHECK(json.at("sizes").as<std::vector<double>>() == std::vector<double>{1, 2, 3});
  CHECK(json.get<std::vector<std::string>>("names") == std::vector<std::string>{"a", "b"});
  CHECK(json.at("sizes").at(2).as_size() == 3);
  CHECK(json.get<int>("missing", 8) == 8);
  CHECK(json.get<std::string>("missing", "x") == "x");
  CHECK(json.get<int>("epochs", 8) == 3);
  CHECK(json.contains("on"));
  CHECK_FALSE(json.contains("off"));
  CHECK(json.find("off") == nullptr);
  CHECK(json.size() == 9);
  CHECK(json.members()[1].key == "epochs");
  CHECK(json.at("sizes").elements()[1] == Json(2));

  json.set("epochs", Json::array());
  json.set("new", 1);
  CHECK(json.size() == 10);
  CHECK(json.at("epochs") == Json::array());
  CHECK(json.members().back().value == Json(1));
  Json list = Json::array();
  list.push_back(json);
  list.push_back(list);
  CHECK(list.size() == 2);
  CHECK(list.at(1).at(0) == json);

  Json moved = std::move(list);
  list = moved.at(1);  // copies what it is about to be
  CHECK(list.size() == 1);
  moved = moved.at(1).at(0);
  CHECK(moved == json);
  CHECK(json.at("whole") != Json(4));  // 4.0 and 4 differ
  CHECK(Json(-1) != Json(18446744073709551615U));
  CHECK(Json("1") != Json(1));
}

TEST_CASE("JSON: errors of access say which key, what was wanted and what is there", "[io][json]") {
  const Json json = Json::parse(R"({"a": {"b": 1}, "list": [1, "x"], "n": -1, "big": 300, "f": 1.5, "huge": 1e300,
                                    "s": "text", "deep": [[1], [2, true]]})");
  CHECK_THROWS_AS(json.at("c"), FormatError);
  CHECK_THROWS_WITH(json.at("c"), Contains("no key \"c\"; it has \"a\", \"list\", \"n\""));
  CHECK_THROWS_WITH(json.get<int>("c"), Contains("no key \"c\""));
  CHECK_THROWS_WITH(Json::object().at("c"), Contains("it has none"));
  CHECK_THROWS_WITH(Json(1).at("c"), Contains("an object with the key \"c\" is wanted, found the number 1"));
  CHECK_THROWS_WITH(json.get<int>("s"), Contains("at \"s\": a whole number from -2147483648 to 2147483647 is wanted, "
                                                 "found the string \"text\""));
  CHECK_THROWS_WITH(json.get<int>("s", 1), Contains("at \"s\""));
  CHECK_THROWS_WITH(json.get<std::size_t>("n"), Contains("at \"n\": a whole number from 0 to 18446744073709551615") &&
                                                    Contains("found the number -1"));
  CHECK_THROWS_WITH(json.get<std::int8_t>("big"), Contains("from -128 to 127") && Contains("found the number 300"));
  CHECK_THROWS_WITH(json.get<int>("f"), Contains("found the number 1.5"));
  CHECK_THROWS_WITH(json.get<std::uint64_t>("huge"), Contains("found the number 1e+300"));
  CHECK_THROWS_WITH(json.get<std::int64_t>("huge"), Contains("found the number 1e+300"));
  CHECK(Json(0x1p53).as<std::int64_t>() == std::int64_t{1} << 53);
  CHECK_THROWS_AS(Json(0x1p53 + 2).as<std::int64_t>(), FormatError);  // 2^53 + 1 would look the same
  CHECK_THROWS_WITH(json.get<float>("huge"), Contains("at \"huge\": a number of a size up to 3.40282e+38"));
  CHECK_THROWS_WITH(json.get<double>("a"), Contains("a number is wanted, found an object of 1"));
  CHECK_THROWS_WITH(json.get<bool>("n"), Contains("true or false is wanted"));
  CHECK_THROWS_WITH(json.get<std::string>("list"), Contains("a string is wanted, found an array of 2"));
  CHECK_THROWS_WITH(json.get<std::vector<int>>("list"), Contains("at \"list\"[1]: ") && Contains("the string \"x\""));
  CHECK_THROWS_WITH(json.get<std::vector<std::vector<int>>>("deep"),
                    Contains("at \"deep\"[1][1]: ") && Contains("true"));
  CHECK_THROWS_WITH(json.get<std::vector<int>>("s"), Contains("at \"s\": an array is wanted"));
  CHECK_THROWS_WITH(json.at("list").at(2), Contains("no element 2; it has 2"));
  CHECK_THROWS_WITH(json.at("s").at(0), Contains("an array is wanted"));
  CHECK_THROWS_WITH(json.at("s").members(), Contains("an object is wanted"));
  CHECK_THROWS_WITH(json.at("s").size(), Contains("an array or an object is wanted"));
  CHECK_THROWS_WITH(Json(1).push_back(1), Contains("an array is wanted"));
  CHECK_THROWS_WITH(Json(1).set("a", 1), Contains("an object with the key \"a\" is wanted"));
  CHECK_THROWS_AS(Json::object({{"a", 1}, {"a", 2}}), UsageError);
  // A message stays a line, whatever the text is.
  CHECK_THROWS_WITH(Json(std::string(100000, 'x') + "\n").as<int>(), Contains("xxx...\""));
  CHECK_THROWS_WITH(Json(std::string("\xC3\xA9\n\0", 4)).as<int>(), Contains("the string \"\xC3\xA9\\n\\u0000\""));
}

TEST_CASE("JSON: what cannot be written is an error with its place", "[io][json]") {
  const double infinity = std::numeric_limits<double>::infinity();
  const Json nan = Json::object({{"loss", Json::array({1, std::nan("")})}});
  CHECK_THROWS_AS(nan.write(), DataError);
  CHECK_THROWS_WITH(nan.write(), Contains("at \"loss\"[1]: ") && Contains("nan"));
  CHECK_THROWS_WITH(Json::array({Json::object({{"a b", -infinity}})}).write(), Contains("at [0].\"a b\": "));
  CHECK_THROWS_AS(Json("\xFF").write(), DataError);
  CHECK_THROWS_WITH(Json::object({{"a", "ab\x80 c"}}).write(), Contains("at \"a\": byte 2 of \"ab\\x80 c\""));
  CHECK_THROWS_AS(Json::object({{"\xC3", 1}}).write(), DataError);
  Json deep = Json::array();
  for (int i = 1; i < Json::max_depth; ++i) deep = Json::array({deep});
  CHECK(Json::parse(deep.write()) == deep);
  CHECK_THROWS_AS(Json::array({deep}).write(), UsageError);
}

TEST_CASE("JSON: the object of many keys", "[io][json]") {
  Json json = Json::object();
  std::string text = "{";
  for (int i = 0; i < 20000; ++i) text += "\"key" + std::to_string(i) + "\":" + std::to_string(i) + ",";
  const Json read = Json::parse(text + "\"last\":0}");
  CHECK(read.size() == 20001);
  CHECK(read.get<int>("key19999") == 19999);
  CHECK_THROWS_WITH(Json::parse(text + "\n\"key777\":0}"),
                    Contains("line 2, column 1") && Contains("\"key777\" twice"));
}
