// Text as numbers: files, the characters that occur in them, and sequences to learn from.
#pragma once

#include <tesla/io/file.hpp>
#include <tesla/tensor/tensor.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

/// The licenses that Debian keeps, without versions that are all but the same: what is read where no file is given.
inline std::vector<std::string> licenses() {
  std::vector<std::string> result;
  for (const char* name :
       {"GPL-3", "GPL-2", "LGPL-2.1", "GFDL-1.3", "MPL-2.0", "MPL-1.1", "Apache-2.0", "CC0-1.0", "Artistic"}) {
    const std::string path = std::string("/usr/share/common-licenses/") + name;
    if (std::filesystem::exists(path)) result.push_back(path);
  }
  return result;
}

inline std::string read_text(const std::string& path) {
  const std::vector<std::uint8_t> bytes = tesla::io::read_file(path, std::uint64_t{1} << 28);
  return {bytes.begin(), bytes.end()};
}

/// The characters of texts: each has a number, its token.
class Alphabet {
 public:
  explicit Alphabet(const std::vector<std::string>& texts) {
    numbers_.fill(-1);
    for (const std::string& text : texts)
      for (const char c : text) number(c) = 0;
    for (std::size_t c = 0; c < numbers_.size(); ++c) {
      if (numbers_[c] < 0) continue;
      numbers_[c] = static_cast<std::int32_t>(characters_.size());
      characters_ += static_cast<char>(c);
    }
  }
  std::size_t size() const { return characters_.size(); }
  char character(std::size_t token) const { return characters_[token]; }
  /// -1 for a character that the texts do not have.
  std::int32_t token(char c) const { return numbers_[static_cast<unsigned char>(c)]; }

 private:
  std::int32_t& number(char c) { return numbers_[static_cast<unsigned char>(c)]; }
  std::array<std::int32_t, 256> numbers_{};
  std::string characters_;
};

/// Rows of characters, and for each character the one that follows.
struct Sequences {
  static constexpr std::int32_t nothing = -1;  // follows: the text was over

  std::size_t length = 0;
  std::vector<std::int32_t> tokens, next;

  std::size_t size() const { return tokens.size() / length; }
  tesla::Tensor<std::int32_t> x() const { return {{size(), length}, tokens}; }
  tesla::Tensor<std::int32_t> y() const { return {{size(), length}, next}; }

  /// Rows that begin every `stride` characters.
  void add(const Alphabet& alphabet, std::string_view text, std::size_t stride) {
    for (std::size_t first = 0; first + 1 < text.size(); first += stride) {
      for (std::size_t i = first; i < first + length; ++i) {
        tokens.push_back(i < text.size() ? alphabet.token(text[i]) : 0);
        next.push_back(i + 1 < text.size() ? alphabet.token(text[i + 1]) : nothing);
      }
      if (first + length + 1 >= text.size()) break;
    }
  }
};

/// All but the middle tenth of each text, and that.
struct Split {
  Sequences train, held_out;

  Split(const std::vector<std::string>& texts, const Alphabet& alphabet, std::size_t length)
      : train{length, {}, {}}, held_out{length, {}, {}} {
    for (const std::string& text : texts) {
      const std::string_view all = text;
      const std::size_t begin = all.size() * 9 / 20, end = all.size() * 11 / 20;
      train.add(alphabet, all.substr(0, begin), length / 2);
      train.add(alphabet, all.substr(end), length / 2);
      held_out.add(alphabet, all.substr(begin, end - begin), length);
    }
  }
};
