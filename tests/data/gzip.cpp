// The oracle is Python's zlib: gzip_bytes.hpp holds what it packed and what it refuses to unpack.
#include "gzip_bytes.hpp"

#include "files.hpp"

#include <tesla/data/gzip.hpp>

#include <catch2/catch.hpp>
#include <limits>
#include <numeric>

using tesla::FormatError;
using tesla::data::gunzip;

namespace {

constexpr std::size_t enough = 1 << 24;

std::uint64_t checksum(const Bytes& bytes) {
  std::uint64_t value = 14695981039346656037U;
  for (const std::uint8_t byte : bytes) value = (value ^ byte) * 1099511628211U;
  return value;
}

const GoodBytes& good(const std::string& name) {
  for (const GoodBytes& entry : good_bytes)
    if (entry.name == name) return entry;
  FAIL("no bytes named " << name);
  return good_bytes.front();
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
  for (const GoodBytes& entry : good_bytes) {
    INFO(entry.name);
    const Bytes bytes = gunzip(entry.bytes, "file", enough);
    CHECK(bytes.size() == entry.size);
    CHECK(checksum(bytes) == entry.checksum);
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
  const Bytes& bytes = good("members").bytes;
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
  std::size_t found = 0, harmless = 0;
  for (const GoodBytes& entry : good_bytes) {
    // Zeros are the same zeros at other distances, and what a field holds is of no interest.
    if (entry.name == "zeros" || entry.name == "long_field") continue;
    const Bytes wanted = gunzip(entry.bytes, "file", enough);
    for (std::size_t bit = 0; bit < 8 * entry.bytes.size(); ++bit) {
      Bytes bytes = entry.bytes;
      bytes[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
      try {
        const Bytes result = gunzip(bytes, "file", enough);
        ++harmless;
        if (result != wanted) FAIL(entry.name << ": bit " << bit << " changes the result unnoticed");
      } catch (const FormatError&) {
        ++found;
      }
    }
  }
  CHECK(found > 20 * harmless);  // harmless: the time of a file, names, padding
  CHECK(harmless > 0);
}

TEST_CASE("gunzip stops at the limit", "[gzip]") {
  for (const GoodBytes& entry : good_bytes) {
    INFO(entry.name);
    CHECK(gunzip(entry.bytes, "file", entry.size).size() == entry.size);
    if (entry.size == 0) continue;
    for (const std::size_t limit : {entry.size - 1, entry.size / 2, std::size_t{0}}) {
      const std::string message = message_of(entry.bytes, limit);
      CHECK_THAT(message, Catch::Contains("more than " + std::to_string(limit) + " bytes"));
      CHECK_THAT(message, Catch::StartsWith("some/file.gz, byte "));
    }
  }
  CHECK(gunzip(good("one_byte").bytes, "file", std::numeric_limits<std::size_t>::max()) == Bytes{'T'});
}

TEST_CASE("gunzip believes no size before the bytes have come out", "[gzip]") {
  Bytes bytes = good("one_byte").bytes;
  for (std::size_t i = 1; i <= 4; ++i) bytes[bytes.size() - i] = 0xFF;
  CHECK_THAT(message_of(bytes, std::numeric_limits<std::size_t>::max()),
             Catch::Contains("the size is given as 4294967295, but 1 bytes came out"));
}

TEST_CASE("gunzip joins many members and many blocks", "[gzip]") {
  Bytes data(300000);  // five stored blocks
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::uint8_t>(i * i >> 7);
  const Bytes packed = gzip_file(data);
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
