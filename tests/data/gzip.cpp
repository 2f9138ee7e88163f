// The oracle is Python's zlib: gzip_bytes.hpp holds what it packed and what it refuses to unpack.
#include "gzip_bytes.hpp"

#include "folder.hpp"

#include <tesla/data/gzip.hpp>

#include <catch2/catch.hpp>
#include <map>
#include <numeric>

using tesla::FormatError;
using tesla::data::gunzip;

namespace {

constexpr std::size_t enough = 1 << 24;

// The next three are in make_bytes.py too.
Bytes random_bytes(std::size_t count, std::uint32_t state = 1) {
  Bytes bytes(count);
  for (std::uint8_t& byte : bytes) {
    state = (state * 1103515245U + 12345U) & 0x7FFFFFFFU;
    byte = static_cast<std::uint8_t>(state >> 16);
  }
  return bytes;
}

Bytes skewed_bytes() {
  Bytes sorted, bytes;
  for (std::size_t value = 0, frequency = 1, next = 1; value < 16; ++value) {
    sorted.insert(sorted.end(), frequency, static_cast<std::uint8_t>(value));
    frequency = std::exchange(next, frequency + next);
  }
  for (std::size_t i = 0; i < sorted.size(); ++i) bytes.push_back(sorted[i * 1009 % sorted.size()]);
  return bytes;
}

Bytes periodic_bytes() {
  Bytes bytes;
  for (std::uint32_t period = 1; period <= 40; ++period) {
    const Bytes once = random_bytes(period, period);
    for (std::size_t i = 0; i < 300; ++i) bytes.push_back(once[i % period]);
  }
  return bytes;
}

Bytes far_bytes() {
  Bytes bytes{'T', 'E', 'S', 'L', 'A'};
  bytes.resize(6 + 127 * 258);
  bytes.push_back(1);
  bytes.push_back(2);
  for (int i = 0; i < 3; ++i) bytes.push_back(bytes[bytes.size() - 32768]);
  return bytes;
}

Bytes text(const std::string& text, int times = 1) {
  Bytes bytes;
  for (int i = 0; i < times; ++i) bytes.insert(bytes.end(), text.begin(), text.end());
  return bytes;
}

const std::string sentence = "The same bits for the same seed, on every machine: ";

/// What each of good_bytes unpacks to.
std::map<std::string, Bytes> unpacked() {
  std::map<std::string, Bytes> result;
  result["empty"] = result["one_code"] = result["no_distances"] = {};
  result["one_byte"] = text("T");
  result["stored"] = random_bytes(600);
  result["fixed"] = text(sentence, 3);
  result["dynamic"] = text(sentence, 40);
  const Bytes more = random_bytes(90);
  result["dynamic"].insert(result["dynamic"].end(), more.begin(), more.end());
  result["long_codes"] = skewed_bytes();
  result["periods"] = periodic_bytes();
  result["zeros"] = Bytes(1000000);
  result["far"] = far_bytes();
  result["members"] = text("one and two");
  result["fields"] = text("named");
  result["empty_blocks"] = text("ab");
  return result;
}

const Bytes& good(const std::string& name) {
  for (const GoodBytes& entry : good_bytes)
    if (entry.name == name) return entry.bytes;
  FAIL("no bytes named " << name);
  return good_bytes.front().bytes;
}

std::string message_of(const Bytes& bytes, std::size_t limit = enough) {
  try {
    gunzip(bytes, "some/file.gz", limit);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("gunzip unpacks what zlib packed", "[gzip]") {
  const auto wanted = unpacked();
  REQUIRE(wanted.size() == good_bytes.size());
  for (const GoodBytes& entry : good_bytes) {
    INFO(entry.name);
    CHECK((gunzip(entry.bytes, "file", enough) == wanted.at(entry.name)));
  }
}

TEST_CASE("gunzip refuses what zlib refuses, and names the file, the byte and the reason", "[gzip]") {
  for (const BadBytes& entry : bad_bytes) {
    INFO(entry.name);
    const std::string message = message_of(entry.bytes);
    CHECK_THAT(message, Catch::StartsWith("some/file.gz, byte " + std::to_string(entry.at) + ": "));
    CHECK_THAT(message, Catch::Contains(entry.message));
  }
}

TEST_CASE("gunzip finds every truncation", "[gzip]") {
  for (const GoodBytes& entry : good_bytes) {
    if (entry.name == "members") continue;  // what is left may be whole: it has a test of its own
    for (std::size_t size = 0; size < entry.bytes.size(); ++size) {
      INFO(entry.name << " cut to " << size);
      // In memory of its own, where reading too far shows.
      const std::string message = message_of(Bytes(entry.bytes.data(), entry.bytes.data() + size));
      CHECK_THAT(message, Catch::StartsWith("some/file.gz, byte " + std::to_string(size) + ": "));
      CHECK_THAT(message, Catch::Contains("cut off"));
    }
  }
}

TEST_CASE("gunzip takes files cut off between members, as gzip does, and no others", "[gzip]") {
  const Bytes& bytes = good("members");
  std::vector<std::string> whole;
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    try {
      const Bytes result = gunzip(Bytes(bytes.data(), bytes.data() + size), "file", enough);
      whole.emplace_back(result.begin(), result.end());
    } catch (const FormatError&) {
    }
  }
  CHECK(whole == std::vector<std::string>{"one ", "one ", "one and two"});
}

TEST_CASE("a flipped bit makes gunzip throw or changes nothing", "[gzip]") {
  const auto wanted = unpacked();
  std::size_t found = 0, harmless = 0;
  for (const GoodBytes& entry : good_bytes) {
    if (entry.name == "zeros") continue;  // other distances, the same zeros
    for (std::size_t bit = 0; bit < 8 * entry.bytes.size(); ++bit) {
      Bytes bytes = entry.bytes;
      bytes[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
      try {
        const Bytes result = gunzip(bytes, "file", enough);
        ++harmless;
        if (result != wanted.at(entry.name)) FAIL(entry.name << ": bit " << bit << " changes the result unnoticed");
      } catch (const FormatError&) {
        ++found;
      }
    }
  }
  CHECK(found > 20 * harmless);  // harmless: the time in a header, names, padding
  CHECK(harmless > 0);
}

TEST_CASE("gunzip stops at the limit", "[gzip]") {
  const std::string stopped = "the most that is taken";
  for (const char* name : {"stored", "fixed", "dynamic", "long_codes", "periods", "zeros", "far", "members"}) {
    INFO(name);
    const std::size_t size = unpacked().at(name).size();
    CHECK(gunzip(good(name), "file", size).size() == size);
    for (const std::size_t limit : {size - 1, size / 2, std::size_t{1}, std::size_t{0}}) {
      const std::string message = message_of(good(name), limit);
      CHECK_THAT(message, Catch::Contains("more than " + std::to_string(limit) + " bytes"));
      CHECK_THAT(message, Catch::StartsWith("some/file.gz, byte "));
    }
  }
  CHECK(gunzip(good("empty"), "file", 0).empty());
  CHECK(gunzip(good("one_byte"), "file", std::numeric_limits<std::size_t>::max()) == text("T"));
}

TEST_CASE("gunzip believes no size before the bytes have come out", "[gzip]") {
  Bytes bytes = good("one_byte");
  for (std::size_t i = 1; i <= 4; ++i) bytes[bytes.size() - i] = 0xFF;
  CHECK_THAT(message_of(bytes, std::numeric_limits<std::size_t>::max()),
             Catch::Contains("the size is given as 4294967295, but 1 bytes came out"));
}

TEST_CASE("gunzip joins many members and many blocks", "[gzip]") {
  const Bytes data = random_bytes(300000), packed = gzip_file(data);
  Bytes twice = packed;
  twice.insert(twice.end(), packed.begin(), packed.end());
  Bytes wanted = data;
  wanted.insert(wanted.end(), data.begin(), data.end());
  CHECK((gunzip(twice, "file", enough) == wanted));
  CHECK_THAT(message_of(twice, 300000), Catch::Contains("more than 300000 bytes"));
}

TEST_CASE("checksums of gzip", "[gzip]") {
  // From Python: zlib.crc32(bytes(range(count))). Around eight the tables take over from single bytes.
  const std::vector<std::pair<std::size_t, std::uint32_t>> wanted = {
      {0, 0}, {1, 0xD202EF8D}, {7, 0xAD5809F9}, {8, 0x88AA689F}, {9, 0xBCE14302}, {17, 0x2C183A19}, {256, 0x29058C73}};
  Bytes bytes(256);
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
  for (const auto& [count, crc] : wanted)
    CHECK(tesla::data::detail::crc32(std::span<const std::uint8_t>(bytes).first(count)) == crc);
}
