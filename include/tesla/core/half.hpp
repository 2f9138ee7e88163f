// Numbers of 16 bits, to be stored: they are widened to be computed with.
#pragma once

#include <tesla/core/target.hpp>

#include <bit>
#include <cstdint>

namespace tesla::inline TESLA_TARGET {

/// A float without its lower 16 bits: its range, 8 bits of precision. Made by rounding to the nearest, of two as near
/// to the even one; NaN stays NaN.
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  explicit BFloat16(float value) {
    const auto all = std::bit_cast<std::uint32_t>(value);
    if ((all & 0x7fffffffU) > 0x7f800000U)
      bits = static_cast<std::uint16_t>(all >> 16 | 0x40U);
    else
      bits = static_cast<std::uint16_t>((all + 0x7fffU + (all >> 16 & 1U)) >> 16);
  }
  explicit BFloat16(double) = delete;  // would be rounded twice

  explicit operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
  explicit operator double() const { return static_cast<double>(static_cast<float>(*this)); }
};

/// IEEE 754's binary16: up to 65504 in 11 bits of precision, less below 2^-14; what is larger becomes infinite.
struct Float16 {
  std::uint16_t bits = 0;

  Float16() = default;
  explicit Float16(float value) {
    const auto all = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = all >> 16 & 0x8000U, size = all & 0x7fffffffU, exponent = size >> 23;
    std::uint32_t result;
    if (size > 0x7f800000U) {
      result = 0x7e00U | (size >> 13 & 0x3ffU);
    } else if (exponent >= 143) {  // from 2^16 on
      result = 0x7c00U;
    } else if (exponent >= 113) {  // a carry out of the largest number is infinity
      const std::uint32_t shifted = size - (112U << 23);
      result = (shifted + 0xfffU + (shifted >> 13 & 1U)) >> 13;
    } else if (exponent >= 102) {  // multiples of 2^-24
      const std::uint32_t digits = (size & 0x7fffffU) | 0x800000U, shift = 126 - exponent;
      const std::uint32_t rest = digits & ((1U << shift) - 1), half = 1U << (shift - 1);
      result = digits >> shift;
      if (rest > half || (rest == half && (result & 1U) != 0)) ++result;
    } else {
      result = 0;
    }
    bits = static_cast<std::uint16_t>(sign | result);
  }
  explicit Float16(double) = delete;

  explicit operator float() const {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16, exponent = bits >> 10 & 0x1fU;
    std::uint32_t digits = bits & 0x3ffU;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000U | digits << 13);
    if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112U) << 23 | digits << 13);
    if (digits == 0) return std::bit_cast<float>(sign);
    const auto zeros = static_cast<std::uint32_t>(std::countl_zero(digits)) - 21U;  // before its leading one, of 11
    digits = digits << zeros & 0x3ffU;
    return std::bit_cast<float>(sign | (113U - zeros) << 23 | digits << 13);
  }
  explicit operator double() const { return static_cast<double>(static_cast<float>(*this)); }
};

/// Whether a type is one of these.
template <class T>
inline constexpr bool is_half = false;
template <>
inline constexpr bool is_half<BFloat16> = true;
template <>
inline constexpr bool is_half<Float16> = true;

}  // namespace tesla::inline TESLA_TARGET
