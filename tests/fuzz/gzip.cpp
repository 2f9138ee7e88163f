// Unpacks arbitrary bytes: only tesla::Error may come out, and no more bytes than allowed.
#include <tesla/data/gzip.hpp>

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t limit = 1 << 20;
  try {
    if (tesla::data::gunzip({data, size}, "fuzz", limit).size() > limit) std::abort();
  } catch (const tesla::Error&) {
  }
  // The stream alone, because hardly any input has the right checksum.
  try {
    tesla::data::detail::Inflater inflater({{data, size}, "fuzz"}, limit, 0);
    const std::size_t end = inflater.stream(0);
    if (end > size || inflater.release().size() > limit) std::abort();
  } catch (const tesla::Error&) {
  }
  return 0;
}
