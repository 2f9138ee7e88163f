// libFuzzer: what parses is written and parsed again to the same value; nothing but a tesla::Error comes out.
#include <tesla/io/json.hpp>

#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using tesla::io::Json;
  try {
    const Json value = Json::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
    // Whatever parses can be written and parsed again, so an error from here on is none that may come out.
    try {
      const std::string text = value.write();
      const Json again = Json::parse(text);
      if (again != value || again.write() != text) std::abort();
    } catch (const tesla::Error&) {
      std::abort();
    }
    static_cast<void>(value.as<std::vector<std::int8_t>>());
  } catch (const tesla::Error&) {
  }
  return 0;
}
