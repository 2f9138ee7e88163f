// Bytes of grey images as numbers from 0 to 1.
#pragma once

#include <tesla/core/target.hpp>

#include <array>
#include <cstddef>

namespace tesla::inline TESLA_TARGET::data::detail {

/// byte / 255, from the compiler and not from the machine: options like -ffast-math would turn the division into a
/// multiplication, with other bits.
inline constexpr auto grey_values = [] {
  std::array<float, 256> values{};
  for (std::size_t i = 0; i < 256; ++i) values[i] = static_cast<float>(i) / 255.0F;
  return values;
}();

}  // namespace tesla::inline TESLA_TARGET::data::detail
