// Reads arbitrary bytes as an IDX file, packed or not: only tesla::Error may come out.
#include <tesla/data/idx.hpp>

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const std::span<const std::uint8_t> bytes(data, size);
    std::vector<std::uint8_t> unpacked;
    if (tesla::data::detail::is_gzip(bytes)) unpacked = tesla::data::gunzip(bytes, "fuzz", 1 << 20);
    const std::span<const std::uint8_t> file = unpacked.empty() ? bytes : std::span<const std::uint8_t>(unpacked);
    const tesla::data::Idx idx = tesla::data::parse_idx(file, "fuzz");
    if (idx.values.size() != idx.shape.elements() || idx.shape.rank() == 0) std::abort();
    unsigned sum = 0;  // touches every value, so that one outside of the file shows
    for (const std::uint8_t value : idx.values) sum += value;
    if (sum > 255 * file.size()) std::abort();
  } catch (const tesla::Error&) {
  }
  return 0;
}
