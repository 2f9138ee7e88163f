// What can go wrong, as exception types, and how messages are put together.
//
// A message says what was asked, what was found, where, and what to do about it.
#pragma once

#include <tesla/core/target.hpp>

#include <concepts>
#include <cstddef>
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

/// Memory that is not there.
class MemoryError : public Error {
 public:
  using Error::Error;
};

/// A piece of a message: text, a number, or anything with a to_string(). Pieces are put together out of line, so that
/// the many places that may raise an error stay small.
class TextPart {
 public:
  TextPart(std::string_view part) : kind_(Kind::text), text_(part) {}
  TextPart(const char* part) : TextPart(std::string_view(part)) {}
  TextPart(const std::string& part) : TextPart(std::string_view(part)) {}
  TextPart(char part) : kind_(Kind::letter), whole_(static_cast<unsigned char>(part)) {}
  template <std::integral T>
  TextPart(T part)
      : kind_(part < T(0) ? Kind::negative : Kind::whole),
        whole_(part < T(0) ? 0 - static_cast<unsigned long long>(part) : static_cast<unsigned long long>(part)) {}
  template <std::floating_point T>
  TextPart(T part) : kind_(Kind::real), real_(static_cast<double>(part)) {}
  template <class T>
  requires requires(const T& part) { part.to_string(); }
  TextPart(const T& part)
      : kind_(Kind::object), object_{&part, [](const void* p) -> std::string {
                                       return static_cast<const T*>(p)->to_string();
                                     }} {}

  void append_to(std::string& text) const;

 private:
  enum class Kind : unsigned char { text, letter, whole, negative, real, object };
  struct Object {
    const void* data;
    std::string (*to_string)(const void*);
  };

  Kind kind_;
  union {
    std::string_view text_;
    unsigned long long whole_;
    double real_;
    Object object_;
  };
};

[[gnu::cold, gnu::noinline]] inline void TextPart::append_to(std::string& text) const {
  char buffer[32];
  switch (kind_) {
    case Kind::text:
      text += text_;
      break;
    case Kind::letter:
      text += static_cast<char>(whole_);
      break;
    case Kind::object:
      text += object_.to_string(object_.data);
      break;
    case Kind::real:
      std::snprintf(buffer, sizeof buffer, "%.6g", real_);
      text += buffer;
      break;
    default:
      std::snprintf(buffer, sizeof buffer, "%s%llu", kind_ == Kind::negative ? "-" : "", whole_);
      text += buffer;
  }
}

[[gnu::cold, gnu::noinline]] inline std::string joined(const TextPart* parts, std::size_t count) {
  std::string result;
  for (std::size_t i = 0; i < count; ++i) parts[i].append_to(result);
  return result;
}

/// One string from parts: text, numbers, and anything with a to_string().
template <class... Parts>
std::string text(const Parts&... parts) {
  const TextPart list[] = {TextPart(parts)...};
  return joined(list, sizeof...(parts));
}

template <std::derived_from<Error> E>
[[noreturn, gnu::cold, gnu::noinline]] void raise_joined(const TextPart* parts, std::size_t count) {
  throw E(joined(parts, count));
}

/// Throws E with a message put together from parts.
template <std::derived_from<Error> E, class... Parts>
[[noreturn]] void raise(const Parts&... parts) {
  const TextPart list[] = {TextPart(parts)...};
  raise_joined<E>(list, sizeof...(parts));
}

}  // namespace tesla::inline TESLA_TARGET
