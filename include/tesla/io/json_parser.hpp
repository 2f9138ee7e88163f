// The JSON parser: strict RFC 8259 in UTF-8, with a limit of depth. Included by io/json.hpp.
#pragma once

#include <tesla/io/json.hpp>

#include <algorithm>
#include <charconv>
#include <system_error>

namespace tesla::inline TESLA_TARGET::io {

class Json::Parser {
 public:
  Parser(std::string_view text, std::string_view where) : text_(text), where_(where) {}

  Json document() {
    if (text_.starts_with("\xEF\xBB\xBF")) fail(0, "the text begins with a byte order mark; remove these three bytes");
    Json result = value(0);
    skip_space();
    if (at_ != text_.size()) fail(at_, "the document ends here, found ", found());
    return result;
  }

 private:
  /// Throws a FormatError that names the document, the line and the column, in characters.
  template <class... Parts>
  [[noreturn]] void fail(std::size_t at, const Parts&... parts) const {
    std::size_t line = 1, column = 1;
    for (const char c : text_.substr(0, at)) {
      if (c == '\n') {
        ++line;
        column = 1;
      } else if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) {
        ++column;
      }
    }
    raise<FormatError>(where_, ", line ", line, ", column ", column, ": ", parts...);
  }

  /// What stands at the current position, for messages.
  std::string found() const {
    if (at_ >= text_.size()) return "the end of the text";
    const std::size_t length = detail::utf8_length(text_, at_);
    return detail::quoted(text_.substr(at_, std::max<std::size_t>(length, 1)));
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
      ++at_;
  }

  /// Passes over c, after white space, if it is there.
  bool take(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool digit() const { return at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; }

  Json value(int depth) {
    skip_space();
    switch (at_ < text_.size() ? text_[at_] : '\0') {
      case '{':
        return object(deeper(depth));
      case '[':
        return array(deeper(depth));
      case '"':
        return Json(string());
      case 't':
        return literal("true", Json(true));
      case 'f':
        return literal("false", Json(false));
      case 'n':
        return literal("null", Json());
      case '-':
        return number();
      default:
        if (digit()) return number();
        fail(at_, "a value is wanted, found ", found());
    }
  }

  int deeper(int depth) const {
    if (depth == max_depth) fail(at_, "arrays and objects nest more than ", max_depth, " deep");
    return depth + 1;
  }

  Json literal(std::string_view word, Json value) {
    if (text_.substr(at_, word.size()) != word) fail(at_, "\"", word, "\" is wanted here");
    at_ += word.size();
    return value;
  }

  Json array(int depth) {
    ++at_;
    Json result = Json::array();
    if (take(']')) return result;
    do {
      result.value_.array->push_back(value(depth));
    } while (take(','));
    if (!take(']')) fail(at_, "\",\" or \"]\" is wanted in an array, found ", found());
    return result;
  }

  Json object(int depth) {
    ++at_;
    Json result = Json::object();
    if (take('}')) return result;
    std::vector<std::size_t> starts;
    do {
      skip_space();
      if (at_ >= text_.size() || text_[at_] != '"') fail(at_, "a key in quotes is wanted, found ", found());
      starts.push_back(at_);
      std::string key = string();
      if (!take(':')) fail(at_, "\":\" is wanted after the key ", detail::quoted(key), ", found ", found());
      result.value_.object->push_back({std::move(key), value(depth)});
    } while (take(','));
    if (!take('}')) fail(at_, "\",\" or \"}\" is wanted in an object, found ", found());
    if (starts.size() > 1) {
      std::vector<std::string_view> keys;
      for (const Member& member : result.members()) keys.push_back(member.key);
      if (const std::size_t twin = detail::first_twin(keys); twin != keys.size())
        fail(starts[twin], "the object has the key ", detail::quoted(keys[twin]), " twice");
    }
    return result;
  }

  Json number() {
    const std::size_t start = at_;
    const bool negative = text_[at_] == '-';
    if (negative) ++at_;
    if (!digit()) fail(at_, "a digit is wanted after \"-\", found ", found());
    if (text_[at_] == '0') {
      ++at_;
      if (digit()) fail(at_ - 1, "a number has no leading zeros");
    }
    while (digit()) ++at_;
    bool whole = true;
    if (at_ < text_.size() && text_[at_] == '.') {
      whole = false;
      ++at_;
      digits("\".\"");
    }
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      whole = false;
      ++at_;
      if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
      digits("the exponent sign");
    }
    const char *first = text_.data() + start, *last = text_.data() + at_;
    if (whole) {
      std::uint64_t natural = 0;
      std::int64_t signed_value = 0;
      if (!negative && std::from_chars(first, last, natural).ec == std::errc()) return Json(natural);
      if (negative && std::from_chars(first, last, signed_value).ec == std::errc() && signed_value != 0)
        return Json(signed_value);
    }
    // Also whole numbers of more than 64 bits, and -0, whose sign only a double keeps.
    double real = 0;
    if (std::from_chars(first, last, real).ec != std::errc())
      fail(start, "the number ", detail::quoted(text_.substr(start, at_ - start)), " is out of the range of a double");
    return Json(real);
  }

  void digits(std::string_view after) {
    if (!digit()) fail(at_, "a digit is wanted after ", after, ", found ", found());
    while (digit()) ++at_;
  }

  std::string string() {
    const std::size_t start = at_++;
    std::string result;
    for (;;) {
      const std::size_t run = at_;
      while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\') {
        if (static_cast<unsigned char>(text_[at_]) < 0x20)
          fail(at_, "a control character in a string: write it as \\u00XX");
        const std::size_t length = detail::utf8_length(text_, at_);
        if (length == 0) fail(at_, "a byte in a string that is not UTF-8: ", found());
        at_ += length;
      }
      if (at_ >= text_.size()) fail(start, "the string that begins here has no closing quote");
      result.append(text_, run, at_ - run);
      if (text_[at_++] == '"') return result;
      escape(result);
    }
  }

  /// What follows a backslash.
  void escape(std::string& result) {
    constexpr std::string_view letters = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
    const std::size_t start = at_ - 1;
    const char letter = at_ < text_.size() ? text_[at_] : '\0';
    if (const std::size_t index = letters.find(letter); index != letters.npos) {
      ++at_;
      result += meant[index];
      return;
    }
    if (letter != 'u') fail(start, "a backslash is followed by one of \"\\/bfnrtu, not by ", found());
    ++at_;
    std::uint32_t code = four_digits();
    if (code >= 0xDC00 && code < 0xE000) fail(start, "the second half of a surrogate pair without the first");
    if (code >= 0xD800 && code < 0xDC00) {
      if (text_.substr(at_, 2) != "\\u") fail(start, "the first half of a surrogate pair without the second");
      at_ += 2;
      const std::uint32_t low = four_digits();
      if (low < 0xDC00 || low >= 0xE000) fail(start, "the first half of a surrogate pair without the second");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    append_utf8(result, code);
  }

  std::uint32_t four_digits() {
    std::uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      if (!digit() && !(c >= 'a' && c <= 'f') && !(c >= 'A' && c <= 'F'))
        fail(at_, "\\u is followed by four hexadecimal digits, not by ", found());
      code = code << 4 | static_cast<std::uint32_t>(digit() ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return code;
  }

  static void append_utf8(std::string& result, std::uint32_t code) {
    const auto add = [&](std::uint32_t byte) { result += static_cast<char>(byte); };
    if (code < 0x80) {
      add(code);
    } else if (code < 0x800) {
      add(0xC0 | code >> 6);
      add(0x80 | (code & 63));
    } else if (code < 0x10000) {
      add(0xE0 | code >> 12);
      add(0x80 | (code >> 6 & 63));
      add(0x80 | (code & 63));
    } else {
      add(0xF0 | code >> 18);
      add(0x80 | (code >> 12 & 63));
      add(0x80 | (code >> 6 & 63));
      add(0x80 | (code & 63));
    }
  }

  std::string_view text_, where_;
  std::size_t at_ = 0;
};

inline Json Json::parse(std::string_view text, std::string_view where) { return Parser(text, where).document(); }

}  // namespace tesla::inline TESLA_TARGET::io
