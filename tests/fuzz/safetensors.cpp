// libFuzzer: whatever the bytes, a file is read or refused with a FormatError, and what is read lies in the file.
#include <tesla/io/safetensors.hpp>

#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tesla;
  try {
    const io::SafeTensors file = io::SafeTensors::parse({data, data + size}, "fuzz");
    std::size_t total = 0;
    unsigned sum = 0;
    for (const io::TensorInfo& info : file.tensors()) {
      for (const std::uint8_t byte : info.bytes) sum += byte;
      total += info.bytes.size();
      if (file.find(info.name) != &info) std::abort();
      if (info.bytes.size() * 8 != info.shape.elements() * io::bits_of(info.dtype)) std::abort();
      try {
        sum += static_cast<unsigned>(file.tensor<double>(info.name).size());
        sum += static_cast<unsigned>(file.tensor<float>(info.name).size());
      } catch (const FormatError&) {  // another type, or a double that no float can be
      }
    }
    if (total > size) std::abort();
    for (const io::Json::Member& member : file.metadata().members()) sum += member.value.as<std::string>().size() > 3;
    const volatile unsigned sink = sum;  // so that the reading is not optimised away
    static_cast<void>(sink);
  } catch (const FormatError&) {
  }
  return 0;
}
