// JSON (RFC 8259): a value, its writer, and access whose errors say which key, what was wanted and what is there.
//
// Integers of up to 64 bits are kept exactly and apart from doubles; objects keep their order; a key occurs once. The
// parser and the writer are in io/json_parser.hpp and io/json_writer.hpp, which this header includes at its end.
#pragma once

#include <tesla/io/json_text.hpp>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tesla::inline TESLA_TARGET::io {

class Json {
 public:
  struct Member;

  /// How deep arrays and objects may nest, read and written.
  static constexpr int max_depth = 64;

  Json() {}
  Json(std::nullptr_t) {}
  template <std::same_as<bool> T>
  Json(T value) : kind_(Kind::boolean) {
    value_.boolean = value;
  }
  template <std::integral T>
  requires(!std::same_as<T, bool> && !std::same_as<T, char> && sizeof(T) <= 8) Json(T value)
      : kind_(std::in_range<std::uint64_t>(value) ? Kind::natural : Kind::negative) {
    if (kind_ == Kind::natural)
      value_.natural = static_cast<std::uint64_t>(value);
    else
      value_.negative = static_cast<std::int64_t>(value);
  }
  template <std::floating_point T>
  Json(T value) : kind_(Kind::real) {
    value_.real = static_cast<double>(value);
  }
  Json(std::string value) {
    value_.string = new std::string(std::move(value));
    kind_ = Kind::string;
  }
  Json(std::string_view value) : Json(std::string(value)) {}
  Json(const char* value) : Json(std::string(value)) {}

  Json(const Json& other);
  Json(Json&& other) noexcept { swap(other); }
  Json& operator=(Json other) noexcept {
    swap(other);
    return *this;
  }
  ~Json() {
    if (kind_ >= Kind::string) release();
  }

  /// Json::array({1, "two", 3.0}), or of the elements of a range.
  static Json array(std::initializer_list<Json> elements = {});
  template <class Range>
  requires requires(const Range& range) { Json(*range.begin()); }
  static Json array(const Range& range) {
    Json result = array();
    for (const auto& element : range) result.value_.array->push_back(Json(element));
    return result;
  }
  /// Json::object({{"one", 1}, {"two", Json::array({1, 2})}})
  static Json object(std::initializer_list<Member> members = {});

  /// Parses a whole document; `where` names it in errors, which give line and column.
  static Json parse(std::string_view text, std::string_view where = "JSON");

  /// The value as compact text. A NaN, an infinity or a string that is not UTF-8 is a DataError.
  std::string write() const {
    std::string out;
    write(out, {}, 0);
    return out;
  }

  bool is_null() const { return kind_ == Kind::null; }
  bool is_bool() const { return kind_ == Kind::boolean; }
  bool is_number() const { return kind_ == Kind::natural || kind_ == Kind::negative || kind_ == Kind::real; }
  bool is_string() const { return kind_ == Kind::string; }
  bool is_array() const { return kind_ == Kind::array; }
  bool is_object() const { return kind_ == Kind::object; }

  /// The value as bool, number, std::string, or std::vector of these. A whole number must fit its type exactly.
  template <class T>
  T as() const {
    return convert<T>({});
  }
  std::size_t as_size() const { return as<std::size_t>(); }

  /// The value of a key of this object, as T; with a fallback for a key that is not there.
  template <class T>
  T get(std::string_view key) const {
    const detail::JsonPath root;
    return at(key).template convert<T>({&root, true, key});
  }
  template <class T>
  T get(std::string_view key, T fallback) const {
    const Json* value = find(key);
    const detail::JsonPath root;
    return value == nullptr ? fallback : value->template convert<T>({&root, true, key});
  }

  /// The value of a key, or nullptr; takes as long as the object has members. Throws if this is not an object.
  const Json* find(std::string_view key) const;
  bool contains(std::string_view key) const { return find(key) != nullptr; }
  const Json& at(std::string_view key) const;
  const Json& at(std::size_t index) const;

  /// The elements of this array, the members of this object, in order.
  const std::vector<Json>& elements() const {
    if (!is_array()) mismatch("an array", {});
    return *value_.array;
  }
  const std::vector<Member>& members() const {
    if (!is_object()) mismatch("an object", {});
    return *value_.object;
  }
  /// The number of elements or members.
  std::size_t size() const;

  /// Sets a key of this object, new or not.
  void set(std::string_view key, Json value);
  /// Adds an element to the end of this array.
  void push_back(Json value) {
    if (!is_array()) mismatch("an array", {});
    value_.array->push_back(std::move(value));
  }

  /// The kind of value and, where it is short, the value: "the number 3", "an array of 2".
  std::string describe() const;

  /// The same values in the same order; 1 and 1.0 differ, as they do in text.
  friend bool operator==(const Json& a, const Json& b);

 private:
  class Parser;
  enum class Kind : std::uint8_t { null, boolean, natural, negative, real, string, array, object };

  void swap(Json& other) noexcept {
    std::swap(kind_, other.kind_);
    std::swap(value_, other.value_);
  }
  void release();
  template <class T>
  T convert(const detail::JsonPath& path) const;
  void write(std::string& out, const detail::JsonPath& path, int depth) const;
  static void write_string(std::string& out, std::string_view value, const detail::JsonPath& path);
  static void write_real(std::string& out, double value);
  [[noreturn]] void mismatch(std::string_view wanted, const detail::JsonPath& path) const {
    raise<FormatError>("JSON value", path, ": ", wanted, " is wanted, found ", describe());
  }

  union Value {
    std::uint64_t natural = 0;
    std::int64_t negative;  // below zero only, so that equal numbers are the same member
    double real;
    bool boolean;
    std::string* string;
    std::vector<Json>* array;
    std::vector<Member>* object;
  };

  Kind kind_ = Kind::null;
  Value value_;
};

struct Json::Member {
  std::string key;
  Json value;

  friend bool operator==(const Member& a, const Member& b) { return a.key == b.key && a.value == b.value; }
};

inline Json::Json(const Json& other) {
  switch (other.kind_) {
    case Kind::string:
      value_.string = new std::string(*other.value_.string);
      break;
    case Kind::array:
      value_.array = new std::vector<Json>(*other.value_.array);
      break;
    case Kind::object:
      value_.object = new std::vector<Member>(*other.value_.object);
      break;
    default:
      value_ = other.value_;
  }
  kind_ = other.kind_;
}

inline void Json::release() {
  switch (kind_) {
    case Kind::string:
      delete value_.string;
      break;
    case Kind::array:
      delete value_.array;
      break;
    case Kind::object:
      delete value_.object;
      break;
    default:
      break;
  }
}

inline Json Json::array(std::initializer_list<Json> elements) {
  Json result;
  result.value_.array = new std::vector<Json>(elements);
  result.kind_ = Kind::array;
  return result;
}

inline Json Json::object(std::initializer_list<Member> members) {
  Json result;
  result.value_.object = new std::vector<Member>();
  result.kind_ = Kind::object;
  for (const Member& member : members) {
    if (result.contains(member.key))
      raise<UsageError>("Json::object: the key ", detail::quoted(member.key), " is twice");
    result.value_.object->push_back(member);
  }
  return result;
}

inline const Json* Json::find(std::string_view key) const {
  if (!is_object()) mismatch(text("an object with the key ", detail::quoted(key)), {});
  for (const Member& member : *value_.object)
    if (member.key == key) return &member.value;
  return nullptr;
}

inline const Json& Json::at(std::string_view key) const {
  if (const Json* value = find(key)) return *value;
  std::string keys;
  for (std::size_t i = 0; i < size() && i < 8; ++i)
    keys += text(i == 0 ? "" : ", ", detail::quoted((*value_.object)[i].key));
  raise<FormatError>("JSON object: no key ", detail::quoted(key), "; it has ", size() == 0 ? "none" : keys,
                     size() > 8 ? ", ..." : "");
}

inline const Json& Json::at(std::size_t index) const {
  if (index >= elements().size()) raise<FormatError>("JSON array: no element ", index, "; it has ", size());
  return elements()[index];
}

inline std::size_t Json::size() const {
  if (!is_array() && !is_object()) mismatch("an array or an object", {});
  return is_array() ? value_.array->size() : value_.object->size();
}

inline void Json::set(std::string_view key, Json value) {
  if (const Json* found = find(key))
    *const_cast<Json*>(found) = std::move(value);
  else
    value_.object->push_back({std::string(key), std::move(value)});
}

inline std::string Json::describe() const {
  switch (kind_) {
    case Kind::null:
      return "null";
    case Kind::string:
      return text("the string ", detail::quoted(*value_.string));
    case Kind::array:
      return text("an array of ", size());
    case Kind::object:
      return text("an object of ", size());
    default:
      break;
  }
  std::string value;
  if (kind_ == Kind::real)
    write_real(value, value_.real);
  else
    write(value, {}, 0);
  return is_bool() ? value : text("the number ", value);
}

inline bool operator==(const Json& a, const Json& b) {
  if (a.kind_ != b.kind_) return false;
  switch (a.kind_) {
    case Json::Kind::null:
      return true;
    case Json::Kind::boolean:
      return a.value_.boolean == b.value_.boolean;
    case Json::Kind::natural:
      return a.value_.natural == b.value_.natural;
    case Json::Kind::negative:
      return a.value_.negative == b.value_.negative;
    case Json::Kind::real:
      return a.value_.real == b.value_.real;
    case Json::Kind::string:
      return *a.value_.string == *b.value_.string;
    case Json::Kind::array:
      return *a.value_.array == *b.value_.array;
    default:
      return *a.value_.object == *b.value_.object;
  }
}

template <class T>
T Json::convert(const detail::JsonPath& path) const {
  if constexpr (std::same_as<T, bool>) {
    if (kind_ != Kind::boolean) mismatch("true or false", path);
    return value_.boolean;
  } else if constexpr (std::integral<T>) {
    if (kind_ == Kind::natural && std::in_range<T>(value_.natural)) return static_cast<T>(value_.natural);
    if (kind_ == Kind::negative && std::in_range<T>(value_.negative)) return static_cast<T>(value_.negative);
    // Some writers make no difference between 3 and 3.0. Above 2^53 a double no longer says which number was meant.
    if (kind_ == Kind::real && std::fabs(value_.real) <= 0x1p53 && std::trunc(value_.real) == value_.real)
      if (const auto n = static_cast<std::int64_t>(value_.real); std::in_range<T>(n)) return static_cast<T>(n);
    using Limits = std::numeric_limits<T>;
    mismatch(text("a whole number from ", Limits::min(), " to ", Limits::max()), path);
  } else if constexpr (std::floating_point<T>) {
    if (!is_number()) mismatch("a number", path);
    const double value = kind_ == Kind::natural    ? static_cast<double>(value_.natural)
                         : kind_ == Kind::negative ? static_cast<double>(value_.negative)
                                                   : value_.real;
    if (std::isfinite(value) && std::fabs(value) > static_cast<double>(std::numeric_limits<T>::max()))
      mismatch(text("a number of a size up to ", std::numeric_limits<T>::max()), path);
    return static_cast<T>(value);
  } else if constexpr (std::same_as<T, std::string>) {
    if (!is_string()) mismatch("a string", path);
    return *value_.string;
  } else {
    static_assert(std::same_as<T, std::vector<typename T::value_type>>, "as<T>: bool, a number, string or vector");
    if (!is_array()) mismatch("an array", path);
    T result;
    result.reserve(size());
    for (std::size_t i = 0; i < size(); ++i)
      result.push_back((*value_.array)[i].template convert<typename T::value_type>({&path, false, {}, i}));
    return result;
  }
}

}  // namespace tesla::inline TESLA_TARGET::io

#include <tesla/io/json_parser.hpp>
#include <tesla/io/json_writer.hpp>
