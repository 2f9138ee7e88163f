// What can go wrong, as exception types, and how messages are put together.
//
// A message says what was asked, what was found, where, and what to do about it.
#pragma once

#include <tesla/core/target.hpp>

#include <concepts>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>

namespace tesla::inline TESLA_TARGET {

/// The base of everything that TESLA throws.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Shapes that do not fit together.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// Values of arrays and labels: NaN, infinity, a label out of range.
class DataError : public Error {
 public:
  using Error::Error;
};

/// Bytes of a file that are not what its format says.
class FormatError : public Error {
 public:
  using Error::Error;
};

/// Opening, reading or writing a file failed.
class FileError : public Error {
 public:
  using Error::Error;
};

/// Calls in the wrong order, options out of range.
class UsageError : public Error {
 public:
  using Error::Error;
};

namespace detail {

inline void append(std::string& text, std::string_view part) { text += part; }
inline void append(std::string& text, char part) { text += part; }
template <std::integral T>
  requires(!std::same_as<T, char>)
void append(std::string& text, T part) {
  text += std::to_string(part);
}
inline void append(std::string& text, std::floating_point auto part) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.6g", static_cast<double>(part));
  text += buffer;
}
template <class T>
  requires requires(const T& part) { part.to_string(); }
void append(std::string& text, const T& part) {
  text += part.to_string();
}

}  // namespace detail

/// One string from parts: text, numbers, and anything with a to_string().
template <class... Parts>
std::string text(const Parts&... parts) {
  std::string result;
  (detail::append(result, parts), ...);
  return result;
}

/// Throws E with a message put together from parts.
template <std::derived_from<Error> E, class... Parts>
[[noreturn]] void raise(const Parts&... parts) {
  throw E(text(parts...));
}

}  // namespace tesla::inline TESLA_TARGET
