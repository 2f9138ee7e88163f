#include <tesla/io/safetensors.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>

#include "temporary_folder.hpp"

using namespace tesla;
using Catch::Contains;
using io::DType;
using io::Json;
using io::SafeTensors;

namespace {

// clang-format off
/// A file by the safetensors package of Python: the output of `safetensors.py print`.
constexpr char from_python[] =
    "H\x02\x00\x00\x00\x00\x00\x00{\"__metadata__\":{\"gr\xC3\xB6\xC3\x9F""e\":\"7 \xC2\xB5m\\n\"},\"long\":{\"dty"
    "pe\":\"I64\",\"shape\":[2,1,1],\"data_offsets\":[0,16]},\"bias\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offs"
    "ets\":[16,32]},\"empty\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[32,32]},\"scalar\":{\"dtype\":\""
    "F32\",\"shape\":[],\"data_offsets\":[32,36]},\"weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":["
    "36,60]},\"int\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[60,68]},\"half\":{\"dtype\":\"BF16\",\"sha"
    "pe\":[1],\"data_offsets\":[68,70]},\"byte\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[70,73]},\"n\xC3"
    "\xA4me \\\"quoted\\\"\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[73,75]}} \x01\x00\x00\x00\x00\x00"
    "\x00@\xFB\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x9A\x99\x99\x99\x99\x99\xB9?Y\xF3\xF8\xC2\x1Fn\xA5\x81\x00\x00\xE0@\x00"
    "\x00\xC0?\x00\x00\x10\xC0\xE6\xB1""a\x7F\x00\x00\x00\x00\x00\x00\x00\x80\x00\x00\x80\x7F\xFF\xFF\xFF\xFF\xFF\xFF"
    "\xFF\x7F\x80?\x00\x01\xFF\x01\x00";
// clang-format on

std::vector<std::uint8_t> python_bytes() { return {std::begin(from_python), std::end(from_python) - 1}; }

/// A file of a header and as many zeros as data.
std::vector<std::uint8_t> make(const std::string& header, std::size_t data) {
  std::vector<std::uint8_t> bytes(8 + header.size() + data);
  const std::uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  std::memcpy(bytes.data() + 8, header.data(), header.size());
  return bytes;
}

template <class T>
std::vector<T> values(const Tensor<T>& tensor) {
  return {tensor.begin(), tensor.end()};
}

/// The tensors and the metadata of safetensors.py, as TESLA says them.
const Tensor<float> weight({2, 3}, {1.5F, -2.25F, 3e38F, 0.0F, -0.0F, INFINITY});
const Tensor<double> bias({2}, {0.1, -1e-300});
const Tensor<std::int64_t> longs({2, 1, 1}, {(std::int64_t{1} << 62) + 1, -5});
const Tensor<std::int32_t> ints({2}, {-1, 2147483647});
const Tensor<std::uint8_t> bytes({3}, {0, 1, 255});
const Tensor<float> scalar(Shape{}, {7.0F});
const Tensor<float> empty({0, 3});
const std::vector<std::uint8_t> half{0x80, 0x3F}, flags{1, 0};
const std::string flags_name = "n\xC3\xA4me \"quoted\"";

std::vector<io::TensorInfo> entries() {
  return {
      io::tensor_info("weight", weight), io::tensor_info("byte", bytes),       io::tensor_info("bias", bias),
      io::tensor_info("long", longs),    io::tensor_info("int", ints),         {flags_name, DType::boolean, {2}, flags},
      io::tensor_info("scalar", scalar), {"half", DType::bfloat16, {1}, half}, io::tensor_info("empty", empty)};
}

Json metadata() {
  return Json::object(
      {{"gr\xC3\xB6\xC3\x9F"
        "e",
        "7 \xC2\xB5m\n"}});
}

void check_contents(const SafeTensors& file) {
  CHECK(file.tensors().size() == 9);
  CHECK(file.metadata() == metadata());
  CHECK(file.at("weight").shape == Shape{2, 3});
  CHECK(values(file.tensor<float>("weight")) == values(weight));
  CHECK(std::signbit(file.tensor<float>("weight")[4]));
  CHECK(file.tensor<double>("weight")(0, 1) == -2.25);
  CHECK(file.tensor<double>("weight")(1, 2) == INFINITY);
  CHECK(values(file.tensor<double>("bias")) == values(bias));
  CHECK(values(file.tensor<float>("bias")) == std::vector<float>{0.1F, -0.0F});
  CHECK(file.tensor<std::int64_t>("long").shape() == Shape{2, 1, 1});
  CHECK(values(file.tensor<std::int64_t>("long")) == values(longs));
  CHECK(values(file.tensor<std::int32_t>("int")) == values(ints));
  CHECK(values(file.tensor<std::uint8_t>("byte")) == values(bytes));
  CHECK(file.at("half").dtype == DType::bfloat16);
  CHECK(std::vector(file.at("half").bytes.begin(), file.at("half").bytes.end()) == half);
  CHECK(file.tensor<float>("scalar").shape().rank() == 0);
  CHECK(file.tensor<float>("scalar")[0] == 7);
  CHECK(file.at("empty").bytes.empty());
  CHECK(file.tensor<double>("empty").shape() == Shape{0, 3});
  CHECK(file.at(flags_name).dtype == DType::boolean);
  CHECK(std::vector(file.at(flags_name).bytes.begin(), file.at(flags_name).bytes.end()) == flags);
}

/// Reads everything there is: under a sanitizer this is what finds bytes that are not there.
std::size_t read_all(const SafeTensors& file) {
  std::size_t sum = 0;
  for (const io::TensorInfo& info : file.tensors()) {
    for (const std::uint8_t byte : info.bytes) sum += byte;
    try {
      sum += file.tensor<float>(info.name).size();
    } catch (const FormatError&) {  // another type, or a double that no float can be
    }
  }
  return sum;
}

}  // namespace

TEST_CASE("safetensors: a file of Python is read", "[io][safetensors]") {
  const SafeTensors file = SafeTensors::parse(python_bytes(), "python");
  check_contents(file);
  CHECK(file.tensors().front().name == "long");  // the order of the header
  CHECK(file.find("nothing") == nullptr);
  CHECK(file.contains("half"));
  CHECK_THROWS_AS(file.at("nothing"), FormatError);
  CHECK_THROWS_WITH(file.at("nothing"), Contains("python: no tensor \"nothing\"; there are 9: \"long\""));
  CHECK_THROWS_WITH(file.tensor<float>("int"),
                    Contains("python, tensor \"int\": elements of type F32 are wanted, the file has I32"));
  CHECK_THROWS_WITH(file.tensor<std::int32_t>("weight"), Contains("I32 are wanted, the file has F32"));
  CHECK_THROWS_WITH(file.tensor<std::uint32_t>("int"), Contains("U32 are wanted, the file has I32"));
  CHECK(file.tensor<float>("half")[0] == 1);
  CHECK_THROWS_WITH(file.tensor<std::int16_t>("half"), Contains("the file has BF16"));

  SafeTensors moved = SafeTensors::parse(make("{}", 0), "x");
  moved = SafeTensors::parse(python_bytes(), "python");
  const SafeTensors again = std::move(moved);
  check_contents(again);
}

TEST_CASE("safetensors: what is written is read back", "[io][safetensors]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("a.safetensors");
  io::write_safetensors(path, entries(), metadata());
  check_contents(SafeTensors::read(path));

  // The largest elements come first and the data at a cache line, so everything is aligned in the file.
  const std::vector<std::uint8_t> file = io::read_file(path);
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  CHECK((8 + length) % 64 == 0);
  CHECK(file.back() == flags.back());
  const SafeTensors parsed = SafeTensors::parse(file, "copy");
  for (const io::TensorInfo& info : parsed.tensors())
    CHECK(static_cast<std::size_t>(info.bytes.data() - parsed.tensors()[0].bytes.data()) % (bits_of(info.dtype) / 8) ==
          0);
  CHECK(parsed.tensors()[0].name == "bias");
  CHECK(parsed.tensors().back().name == flags_name);

  // What has been read can be written as it is, into the file it came from.
  const SafeTensors again = SafeTensors::read(path);
  io::write_safetensors(path, again.tensors(), again.metadata());
  CHECK(io::read_file(path) == file);
  CHECK(folder.names().size() == 1);

  io::write_safetensors(path, {});
  CHECK(SafeTensors::read(path).tensors().empty());
  CHECK(SafeTensors::read(path).metadata() == Json::object());
  CHECK(io::read_file(path).size() == 64);
}

TEST_CASE("safetensors: the bytes of a file, one by one", "[io][safetensors]") {
  const TemporaryFolder folder;
  const Tensor<float> one({1}, {1.0F});
  io::write_safetensors(folder.path("a"), {io::tensor_info("w", one)}, Json::object({{"k", "v"}}));
  std::string header = R"({"__metadata__":{"k":"v"},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  header.resize(120, ' ');
  CHECK(io::read_file(folder.path("a")) ==
        bytes_of_text(std::string("\x78\0\0\0\0\0\0\0", 8) + header + std::string("\0\0\x80\x3F", 4)));
}

TEST_CASE("safetensors: a file is written in chunks of any size", "[io][safetensors]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("a"), whole = folder.path("b");
  const std::vector<io::TensorInfo> infos{{"a", DType::float64, {3}}, {"b", DType::uint8, {5}}};
  std::vector<std::uint8_t> data(29);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::uint8_t>(i);
  {
    io::SafeTensorsWriter writer(path, infos);
    writer.write(io::Bytes(data).first(1));
    writer.write(io::Bytes(data).subspan(1));
    writer.commit();
  }
  io::write_safetensors(whole, {{"a", DType::float64, {3}, io::Bytes(data).first(24)},
                                {"b", DType::uint8, {5}, io::Bytes(data).last(5)}});
  CHECK(io::read_file(path) == io::read_file(whole));
  for (const std::size_t wrong : std::initializer_list<std::size_t>{0, 28, 30}) {
    data.resize(wrong);
    io::SafeTensorsWriter writer(path, infos);
    writer.write(data);
    CHECK_THROWS_AS(writer.commit(), UsageError);
    CHECK_THROWS_WITH(writer.commit(), Contains("take 29 bytes, " + std::to_string(wrong) + " have been written"));
  }
  CHECK(io::read_file(path) == io::read_file(whole));
  CHECK(folder.names().size() == 2);
}

TEST_CASE("safetensors: what cannot be written", "[io][safetensors]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("a");
  const Tensor<float> w({2}, {1, 2});
  const io::TensorInfo info = io::tensor_info("w", w);
  io::write_safetensors(path, {info});
  const auto old = io::read_file(path);
  const auto refused = [&](const std::vector<io::TensorInfo>& tensors, const Json& metadata, const std::string& what) {
    CHECK_THROWS_AS(io::write_safetensors(path, tensors, metadata), UsageError);
    CHECK_THROWS_WITH(io::write_safetensors(path, tensors, metadata), Contains(path) && Contains(what));
  };
  refused({info, info}, Json::object(), "the name \"w\"");
  refused({io::tensor_info("__metadata__", w)}, Json::object(), "\"__metadata__\"");
  refused({info}, Json::object({{"epoch", 1}}), "metadata must be strings, \"epoch\" is the number 1");
  refused({info}, Json::array(), "metadata must be an object");
  refused({{"w", DType::float32, {3}, info.bytes}}, Json::object(),
          "tensor \"w\" of shape {3} and dtype F32 comes with 8 bytes");
  refused({{"w", DType::float32, {1}, info.bytes}}, Json::object(), "of shape {1} and dtype F32 comes with 8 bytes");
  refused({{"w", DType::float4, {16}, info.bytes}, {"v", DType::float4, {3}}}, Json::object(), "tensor \"v\"");
  CHECK_THROWS_WITH(io::SafeTensorsWriter(path, std::vector<io::TensorInfo>{{"v", DType::float4, {3}}}),
                    Contains("tensor \"v\" does not fill whole bytes: 12 bits"));
  CHECK_THROWS_AS(io::write_safetensors(path, {io::tensor_info("\xFF", w)}), DataError);
  CHECK_THROWS_AS(io::write_safetensors(folder.path("missing/a"), {info}), FileError);
  CHECK(io::read_file(path) == old);
  CHECK(folder.names().size() == 1);
}

TEST_CASE("safetensors: every type is recognised", "[io][safetensors]") {
  // The bits of an element, as the package of Python has them.
  const std::vector<std::pair<std::string, unsigned>> types{
      {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
      {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
      {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
      {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};
  const std::string w = R"({"w":{"dtype":")", shape = R"(","shape":[8],"data_offsets":[0,)";
  for (const auto& [name, bits] : types) {
    CAPTURE(name);
    const SafeTensors file = SafeTensors::parse(make(w + name + shape + std::to_string(bits) + "]}}", bits), "x");
    CHECK(name_of(file.at("w").dtype) == name);
    CHECK(bits_of(file.at("w").dtype) == bits);
  }
  CHECK(types.size() == std::size(io::detail::dtype_facts));
  CHECK(io::dtype_of<float>() == DType::float32);
  CHECK(io::dtype_of<double>() == DType::float64);
  CHECK(io::dtype_of<std::int8_t>() == DType::int8);
  CHECK(io::dtype_of<std::int16_t>() == DType::int16);
  CHECK(io::dtype_of<std::int32_t>() == DType::int32);
  CHECK(io::dtype_of<std::int64_t>() == DType::int64);
  CHECK(io::dtype_of<std::uint8_t>() == DType::uint8);
  CHECK(io::dtype_of<std::uint16_t>() == DType::uint16);
  CHECK(io::dtype_of<std::uint32_t>() == DType::uint32);
  CHECK(io::dtype_of<std::uint64_t>() == DType::uint64);
  CHECK(io::dtype_of<BFloat16>() == DType::bfloat16);
  CHECK(io::dtype_of<Float16>() == DType::float16);
}

TEST_CASE("safetensors: numbers of 16 bits are stored, and widened where that is asked", "[io][safetensors]") {
  const TemporaryFolder folder;
  const std::vector<float> values{1, -2.5F, 65504, 0x1p-24F, 1e30F, 0, -0.0F};
  Tensor<BFloat16> brain({values.size()});
  Tensor<Float16> half({values.size()});
  for (std::size_t i = 0; i < values.size(); ++i) brain[i] = BFloat16(values[i]), half[i] = Float16(values[i]);
  io::write_safetensors(folder.path("a"), {io::tensor_info("b", brain), io::tensor_info("h", half)});
  const SafeTensors file = SafeTensors::read(folder.path("a"));
  CHECK(file.at("b").bytes.size() == 2 * values.size());
  const Tensor<BFloat16> same = file.tensor<BFloat16>("b");
  for (std::size_t i = 0; i < values.size(); ++i) {
    CHECK(same[i].bits == brain[i].bits);
    CHECK(file.tensor<Float16>("h")[i].bits == half[i].bits);
    CHECK(file.tensor<float>("b")[i] == static_cast<float>(brain[i]));
    CHECK(file.tensor<double>("h")[i] == static_cast<double>(half[i]));
  }
  CHECK(file.tensor<float>("h")[4] == INFINITY);
  CHECK_THROWS_WITH(file.tensor<Float16>("b"), Contains("F16 are wanted") && Contains("BF16"));
}

TEST_CASE("safetensors: conversion between float and double", "[io][safetensors]") {
  const TemporaryFolder folder;
  const Tensor<double> doubles({4}, {0.1, INFINITY, NAN, 1e-60}), large({2}, {0, -1e39});
  io::write_safetensors(folder.path("a"), {io::tensor_info("d", doubles), io::tensor_info("l", large)});
  const SafeTensors file = SafeTensors::read(folder.path("a"));
  const Tensor<float> floats = file.tensor<float>("d");
  CHECK(floats[0] == 0.1F);
  CHECK(floats[1] == INFINITY);
  CHECK(std::isnan(floats[2]));
  CHECK(floats[3] == 0);
  CHECK(file.tensor<double>("l")[1] == -1e39);
  CHECK_THROWS_WITH(file.tensor<float>("l"), Contains("tensor \"l\": element 1 is -1e+39"));
}

TEST_CASE("safetensors: files that are not what they say", "[io][safetensors]") {
  struct Row {
    std::string header;
    std::size_t data;
    std::string what;
  };
  const auto w = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return "\"w\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
  };
  const auto one = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return "{" + w(dtype, shape, offsets) + "}";
  };
  const auto v = [](const std::string& offsets) {
    return R"("v":{"dtype":"F32","shape":[2],"data_offsets":)" + offsets + "}";
  };
  const std::string F32 = "\"F32\"";
  const std::vector<Row> rows = {
      {"", 0, "the header must begin with \"{\"; it is empty"},
      {" {}", 0, "must begin with \"{\""},
      {"[]", 0, "must begin with \"{\""},
      {"{", 0, "header, line 1, column 2"},
      {"{} x", 0, "header, line 1, column 4"},
      {"{}", 1, "the tensors end at byte 0 of the data, which has 1"},
      {"{\"w\":1}", 0, "tensor \"w\": JSON value: an object with the key \"dtype\" is wanted, found the number 1"},
      {"{\"w\":{}}", 0, "tensor \"w\": JSON object: no key \"dtype\""},
      {"{\"w\":{\"dtype\":\"F32\"}}", 0, "tensor \"w\": JSON object: no key \"shape\""},
      {"{\"w\":{\"dtype\":\"F32\",\"shape\":[]}}", 4, "no key \"data_offsets\""},
      {one("32", "[2]", "[0,8]"), 8, "at \"dtype\": a string is wanted"},
      {one("\"F33\"", "[2]", "[0,8]"), 8, "tensor \"w\": unknown dtype \"F33\""},
      {one("\"f32\"", "[2]", "[0,8]"), 8, "unknown dtype \"f32\""},
      {one("\"\"", "[2]", "[0,8]"), 8, "unknown dtype \"\""},
      {one(F32, "2", "[0,8]"), 8, "at \"shape\": an array is wanted"},
      {one(F32, "[-2]", "[0,8]"), 8, "at \"shape\"[0]: a whole number from 0"},
      {one(F32, "[1.5]", "[0,8]"), 8, "at \"shape\"[0]"},
      {one(F32, "[\"2\"]", "[0,8]"), 8, "at \"shape\"[0]"},
      {one(F32, "[18446744073709551616]", "[0,8]"), 8, "at \"shape\"[0]"},
      {one(F32, "[1,1,1,1,1,1,1,1,2]", "[0,8]"), 8, "it has 9 dimensions"},
      {one(F32, "[4611686018427387904]", "[0,0]"), 0, "too large to be addressed"},
      {one(F32, "[4294967296,4294967296]", "[0,0]"), 0, "too large to be addressed"},
      {one(F32, "[4294967296,4294967296,0]", "[0,0]"), 0, "too large to be addressed"},
      {one(F32, "[0,4294967296,4294967296]", "[0,0]"), 0, "too large to be addressed"},
      {one(F32, "[1152921504606846976]", "[0,8]"), 8, "too large"},
      {one("\"U8\"", "[1152921504606846976]", "[0,1152921504606846976]"), 8, "\"data_offsets\" are 0 and 115292150460"},
      {one("\"F4\"", "[3]", "[0,1]"), 1, "does not fill whole bytes: its size is 12 bits"},
      {one(F32, "[2]", "8"), 8, "at \"data_offsets\": an array is wanted"},
      {one(F32, "[2]", "[8]"), 8, "two numbers, not 1"},
      {one(F32, "[2]", "[0,8,8]"), 8, "two numbers, not 3"},
      {one(F32, "[2]", "[-1,7]"), 8, "at \"data_offsets\"[0]"},
      {one(F32, "[2]", "[8,0]"), 8, "\"data_offsets\" are 8 and 0 in data of 8 bytes"},
      {one(F32, "[2]", "[0,9]"), 8, "\"data_offsets\" are 0 and 9"},
      {one(F32, "[2]", "[18446744073709551612,4]"), 8, "\"data_offsets\" are 18446744073709551612 and 4"},
      {one(F32, "[2]", "[0,7]"), 8, "leave 7 bytes for a tensor of shape {2} and dtype F32, which takes 8"},
      {one(F32, "[1]", "[0,8]"), 8, "leave 8 bytes for a tensor of shape {1} and dtype F32, which takes 4"},
      {one(F32, "[0]", "[0,8]"), 8, "which takes 0"},
      {one(F32, "[]", "[0,8]"), 8, "which takes 4"},
      {one(F32, "[2]", "[0,8]"), 9, "the tensors end at byte 8 of the data, which has 9"},
      {one(F32, "[2]", "[1,9]"), 9, "tensor \"w\": it begins at byte 1 of the data, the one before ends at 0"},
      {"{" + w(F32, "[2]", "[0,8]") + "," + v("[8,16]") + "}", 15, "tensor \"v\": \"data_offsets\" are 8 and 16"},
      {"{" + w(F32, "[2]", "[0,8]") + "," + v("[9,17]") + "}", 17, "tensor \"v\": it begins at byte 9"},
      {"{" + w(F32, "[2]", "[0,8]") + "," + v("[4,12]") + "}", 12, "tensor \"v\": it begins at byte 4"},
      {"{" + w(F32, "[2]", "[0,8]") + "," + v("[0,8]") + "}", 8,
       "it begins at byte 0 of the data, the one before ends"},
      {"{" + w(F32, "[2]", "[0,8]") + "," + w(F32, "[2]", "[8,16]") + "}", 16, "the key \"w\" twice"},
      {"{" + v("[0,8]") + "," + w(F32, "[0]", "[4,4]") + "}", 8, "tensor \"w\": it begins at byte 4"},
      {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "the key \"__metadata__\" twice"},
      {"{\"__metadata__\":[]}", 0, "\"__metadata__\" must be an object, it is an array of 0"},
      {"{\"__metadata__\":null}", 0, "\"__metadata__\" must be an object, it is null"},
      {"{\"__metadata__\":{\"a\":1}}", 0, "in \"__metadata__\", \"a\" must be a string, it is the number 1"},
      {"{\"__metadata__\":{\"a\":\"\xFF\"}}", 0, "not UTF-8"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.header, row.data);
    CHECK_THROWS_AS(SafeTensors::parse(make(row.header, row.data), "f"), FormatError);
    CHECK_THROWS_WITH(SafeTensors::parse(make(row.header, row.data), "f"), Contains("f") && Contains(row.what));
  }
  // The other side: the same table's parts where they are right, whatever the order and the unknown keys.
  CHECK_NOTHROW(SafeTensors::parse(make("{}   \n", 0), "f"));
  CHECK_NOTHROW(SafeTensors::parse(make("{" + v("[8,16]") + "," + w(F32, "[2]", "[0,8]") + "}", 16), "f"));
  CHECK_NOTHROW(SafeTensors::parse(make("{" + v("[0,8]") + "," + w(F32, "[0]", "[8,8]") + "}", 8), "f"));
  CHECK_NOTHROW(SafeTensors::parse(make("{" + w(F32, "[0]", "[0,0]") + "," + v("[0,8]") + "}", 8), "f"));
  CHECK_NOTHROW(SafeTensors::parse(make(one("\"F4\"", "[4]", "[0,2]"), 2), "f"));
  CHECK_NOTHROW(SafeTensors::parse(make(R"({"w":{"x":[1],"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1), "f"));
}

TEST_CASE("safetensors: a length that cannot be is refused before memory is taken", "[io][safetensors]") {
  for (const std::uint64_t length : {std::uint64_t{3}, std::uint64_t{100'000'000}, std::uint64_t{100'000'001},
                                     std::uint64_t{1} << 60, ~std::uint64_t{0}, ~std::uint64_t{0} - 7}) {
    CAPTURE(length);
    std::vector<std::uint8_t> file = make("{}", 0);
    std::memcpy(file.data(), &length, 8);
    CHECK_THROWS_AS(SafeTensors::parse(file, "f"), FormatError);
    CHECK_THROWS_WITH(SafeTensors::parse(file, "f"),
                      Contains("f: a header of " + std::to_string(length) + " bytes is announced, ") &&
                          Contains(length > 100'000'000 ? "at most 100000000" : "the file has 2"));
  }
  CHECK_THROWS_WITH(SafeTensors::parse({}, "f"), Contains("begins with 8 bytes, this one has 0"));
  CHECK_THROWS_WITH(SafeTensors::parse({1, 2, 3}, "f"), Contains("this one has 3"));

  const TemporaryFolder folder;
  io::write_file_atomically(folder.path("a"), {});
  CHECK_THROWS_WITH(SafeTensors::read(folder.path("a")), Contains("\"" + folder.path("a") + "\": a safetensors file"));
  CHECK_THROWS_AS(SafeTensors::read(folder.path("b")), FileError);
  io::write_safetensors(folder.path("a"), {});
  CHECK_THROWS_AS(SafeTensors::read(folder.path("a"), 63), FileError);
}

TEST_CASE("safetensors: no beginning of a file is a file, nor is a file with a tail", "[io][safetensors]") {
  const std::vector<std::uint8_t> file = python_bytes();
  for (std::size_t size = 0; size < file.size(); ++size) {
    CAPTURE(size);
    const auto end = file.begin() + static_cast<std::ptrdiff_t>(size);
    REQUIRE_THROWS_AS(SafeTensors::parse({file.begin(), end}, "f"), FormatError);
  }
  std::vector<std::uint8_t> longer = file;
  longer.push_back(0);
  CHECK_THROWS_AS(SafeTensors::parse(longer, "f"), FormatError);
}

TEST_CASE("safetensors: a changed byte is an error or another file, never a crash", "[io][safetensors]") {
  std::vector<std::uint8_t> file = python_bytes();
  std::size_t read = 0, refused = 0;
  for (std::uint8_t& byte : file) {
    const std::uint8_t old = byte;
    for (int bit = 0; bit < 8; ++bit) {
      byte = static_cast<std::uint8_t>(old ^ (1 << bit));
      try {
        read_all(SafeTensors::parse(file, "f"));
        ++read;
      } catch (const FormatError&) {
        ++refused;
      }
    }
    byte = old;
  }
  CHECK(read + refused == file.size() * 8);
  CHECK(read >= 75 * 8);  // the data may be anything
  CHECK(refused > 1000);
}

TEST_CASE("safetensors: writes the file that `safetensors.py check` reads", "[.python]") {
  const char* path = std::getenv("TESLA_SAFETENSORS_FILE");
  REQUIRE(path != nullptr);
  io::write_safetensors(path, entries(), metadata());
}
