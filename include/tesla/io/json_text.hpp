// Text of JSON: UTF-8, escapes, and how values and places are named in messages.
#pragma once

#include <tesla/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tesla::inline TESLA_TARGET::io::detail {

/// The length of the UTF-8 sequence that text[at] begins; 0 if that is not a well-formed one.
inline std::size_t utf8_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  if (lead < 0x80) return 1;
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (lead < 0xC2 || lead > 0xF4 || text.size() - at < length) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(at + i) & 0xC0) != 0x80) return 0;
  const unsigned char second = byte(at + 1);
  const bool overlong = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
  const bool surrogate = lead == 0xED && second >= 0xA0;
  const bool beyond = lead == 0xF4 && second >= 0x90;
  return overlong || surrogate || beyond ? 0 : length;
}

inline void append_hex(std::string& out, unsigned char byte) {
  constexpr std::string_view digits = "0123456789abcdef";
  out += digits[byte >> 4];
  out += digits[byte & 15];
}

/// Appends text as the inside of a JSON string. Returns the position of the first byte that is not UTF-8; that byte
/// and those behind it are left out.
inline std::size_t append_escaped(std::string& out, std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text, i);
    if (length == 0) return i;
    const char c = text[i];
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (length == 1 && static_cast<unsigned char>(c) < 0x20) {
      constexpr std::string_view named = "\b\f\n\r\t", letters = "bfnrt";
      out += '\\';
      if (const std::size_t index = named.find(c); index != named.npos) {
        out += letters[index];
      } else {
        out += "u00";
        append_hex(out, static_cast<unsigned char>(c));
      }
    } else {
      out.append(text, i, length);
    }
    i += length;
  }
  return text.size();
}

/// Text of unknown origin for a message: in quotes, escaped, not much longer than 60 characters.
inline std::string quoted(std::string_view text) {
  std::string result = "\"";
  std::size_t i = 0;
  while (i < text.size() && result.size() < 60) {
    const std::size_t length = utf8_length(text, i);
    if (length == 0) {
      result += "\\x";
      append_hex(result, static_cast<unsigned char>(text[i++]));
    } else {
      append_escaped(result, text.substr(i, length));
      i += length;
    }
  }
  return result + (i < text.size() ? "...\"" : "\"");
}

/// The indices of keys in the order of the keys; equal ones stay in order. One sort for everything that looks for twins
/// or keeps an index, because each costs every user a tenth of a second of compiling.
inline std::vector<std::size_t> sorted_order(const std::vector<std::string_view>& keys) {
  std::vector<std::size_t> order(keys.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const int sign = keys[a].compare(keys[b]);
    return sign != 0 ? sign < 0 : a < b;
  });
  return order;
}

/// The index of the first key that has occurred before; the number of keys if there is none. Not by comparing all with
/// all: the time for a hostile million of keys must not grow with their square.
inline std::size_t first_twin(const std::vector<std::string_view>& keys) {
  const std::vector<std::size_t> order = sorted_order(keys);
  std::size_t first = keys.size();
  for (std::size_t i = 1; i < order.size(); ++i)
    if (keys[order[i]] == keys[order[i - 1]]) first = std::min(first, order[i]);
  return first;
}

/// Where a value lies in a document, for messages: the keys and indices from the root, kept on the stack.
struct JsonPath {
  const JsonPath* parent = nullptr;
  bool is_key = false;
  std::string_view key{};
  std::size_t index = 0;

  /// " at \"layers\"[2].\"size\""; nothing for the root.
  std::string to_string() const {
    if (parent == nullptr) return {};
    const std::string front = parent->to_string();
    if (is_key) return text(front, front.empty() ? " at " : ".", quoted(key));
    return text(front, front.empty() ? " at " : "", "[", index, "]");
  }
};

}  // namespace tesla::inline TESLA_TARGET::io::detail
