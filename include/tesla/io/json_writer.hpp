// The JSON writer: compact, in UTF-8, with numbers that read back as the same bits. Included by io/json.hpp.
#pragma once

#include <tesla/io/json.hpp>

#include <charconv>

namespace tesla::inline TESLA_TARGET::io {

inline void Json::write_string(std::string& out, std::string_view value, const detail::JsonPath& path) {
  out += '"';
  if (const std::size_t bad = detail::append_escaped(out, value); bad != value.size())
    raise<DataError>("cannot write JSON", path, ": byte ", bad, " of ", detail::quoted(value), " is not UTF-8");
  out += '"';
}

inline void Json::write_real(std::string& out, double value) {
  char buffer[32];
  const char* end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  const std::string_view digits(buffer, static_cast<std::size_t>(end - buffer));
  out += digits;
  if (digits.find_first_not_of("-0123456789") == digits.npos) out += ".0";  // so that it is read as a double again
}

inline void Json::write(std::string& out, const detail::JsonPath& path, int depth) const {
  if ((is_array() || is_object()) && depth == max_depth)
    raise<UsageError>("cannot write JSON: arrays and objects nest more than ", max_depth, " deep");
  const std::size_t start = out.size();
  switch (kind_) {
    case Kind::null:
      out += "null";
      break;
    case Kind::boolean:
      out += value_.boolean ? "true" : "false";
      break;
    case Kind::natural:
      out += std::to_string(value_.natural);
      break;
    case Kind::negative:
      out += std::to_string(value_.negative);
      break;
    case Kind::real:
      write_real(out, value_.real);
      // By its text ("nan", "-inf"): under -ffast-math std::isfinite says yes to everything.
      if (out.find('n', start) != out.npos) raise<DataError>("cannot write JSON", path, ": it knows no ", value_.real);
      break;
    case Kind::string:
      write_string(out, *value_.string, path);
      break;
    case Kind::array:
      out += '[';
      for (std::size_t i = 0; i < size(); ++i) {
        if (i != 0) out += ',';
        (*value_.array)[i].write(out, {&path, false, {}, i}, depth + 1);
      }
      out += ']';
      break;
    case Kind::object:
      out += '{';
      for (const Member& member : *value_.object) {
        if (&member != value_.object->data()) out += ',';
        const detail::JsonPath inside{&path, true, member.key};
        write_string(out, member.key, inside);
        out += ':';
        member.value.write(out, inside, depth + 1);
      }
      out += '}';
      break;
  }
}

}  // namespace tesla::inline TESLA_TARGET::io
