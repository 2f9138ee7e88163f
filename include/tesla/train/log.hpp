// Callbacks that write the scores of every epoch into a file, for spreadsheets and for programs.
#pragma once

#include <tesla/core/math.hpp>
#include <tesla/io/json.hpp>
#include <tesla/train/callback.hpp>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::callback {

namespace detail {

/// Lines on their way into a file. Each epoch opens it, writes and closes, so that what is there is complete at any
/// time; lines that could not be written wait for the next time.
class LineFile {
 public:
  LineFile(const char* who, std::string path, bool append) : who_(who), path_(std::move(path)), append_(append) {
    if (path_.empty()) raise<UsageError>(who, ": needs .path, the file to write");
  }

  void add(std::string line) { waiting_.push_back(std::move(line)); }
  /// Writes what waits; on an error what it was, else nothing.
  [[gnu::cold]] std::string flush() {
    std::FILE* const file = std::fopen(path_.c_str(), append_ ? "ab" : "wb");
    if (file == nullptr) return failure();
    std::string all;
    for (const std::string& line : waiting_) all += line + "\n";
    const bool written = std::fwrite(all.data(), 1, all.size(), file) == all.size() && std::fflush(file) == 0;
    const std::string problem = written ? "" : failure();
    if (std::fclose(file) != 0 && written) return failure();
    if (!written) return problem;
    append_ = true;
    waiting_.clear();
    return {};
  }
  /// The first line of the file that is added to; empty where there is none.
  [[gnu::cold]] std::string first_line() const {
    std::string line;
    if (std::FILE* const file = append_ ? std::fopen(path_.c_str(), "rb") : nullptr) {
      for (int c; (c = std::fgetc(file)) != EOF && c != '\n';) line += static_cast<char>(c);
      std::fclose(file);
    }
    return line;
  }
  std::string told(const std::string& problem) const { return text(who_, ": ", problem); }

 private:
  std::string failure() const {
    const int number = errno;
    return text("cannot write \"", path_, "\": ", std::strerror(number), "; the lines wait for the next epoch");
  }

  const char* who_;
  std::string path_;
  bool append_;
  std::vector<std::string> waiting_;
};

/// The shortest text that is read back as the same number.
[[gnu::cold]] inline std::string number_text(double value) {
  char buffer[32];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr};
}

/// A cell of a table, in quotes where commas and the like would be mistaken.
[[gnu::cold]] inline std::string cell(const std::string& value) {
  if (value.find_first_of(",\"\r\n") == value.npos) return value;
  std::string result = "\"";
  for (const char c : value) result += c == '"' ? std::string("\"\"") : std::string(1, c);
  return result + "\"";
}

}  // namespace detail

struct CsvLogOptions {
  std::string path = {};
  bool append = false;  // to what is in the file, else a new one is begun
};

/// A table with one row an epoch: its number, counted over all training, and the scores. Several fits with one object
/// go into one table.
struct CsvLog : CsvLogOptions {
  CsvLog(CsvLogOptions options = {.path = "log.csv"})
      : CsvLogOptions(options), file_(std::make_shared<detail::LineFile>("CsvLog", options.path, options.append)) {}

  template <class Model>
  void on_fit_begin(Moment<Model>& m) {
    epochs_ = m.model.training().epochs;
  }
  template <class Model>
  void on_epoch_end(Moment<Model>& m) {
    add(epochs_ + m.epoch, m.scores);
    if (const std::string problem = file_->flush(); !problem.empty()) m.warn(file_->told(problem));
  }

 private:
  [[gnu::cold]] void add(std::size_t epoch, const Scores& scores) {
    std::string head = "epoch", row = std::to_string(epoch);
    for (const auto& [name, value] : scores) {
      head += "," + detail::cell(name);
      row += "," + detail::number_text(value);
    }
    if (head_->empty()) *head_ = file_->first_line();
    if (*head_ != head) file_->add(head);  // other columns than before: a table of its own
    *head_ = std::move(head);
    file_->add(std::move(row));
  }

  std::shared_ptr<detail::LineFile> file_;
  std::shared_ptr<std::string> head_ = std::make_shared<std::string>();
  std::size_t epochs_ = 0;
};

struct JsonLinesOptions {
  std::string path = {};
  bool append = false;  // to what is in the file, else a new one is begun
};

/// One JSON object an epoch and line: {"epoch":1,"loss":0.5,...}. A score that is not finite is null.
struct JsonLines : JsonLinesOptions {
  JsonLines(JsonLinesOptions options = {.path = "log.jsonl"})
      : JsonLinesOptions(options),
        file_(std::make_shared<detail::LineFile>("JsonLines", options.path, options.append)) {}

  template <class Model>
  void on_fit_begin(Moment<Model>& m) {
    epochs_ = m.model.training().epochs;
  }
  template <class Model>
  void on_epoch_end(Moment<Model>& m) {
    add(epochs_ + m.epoch, m.scores);
    if (const std::string problem = file_->flush(); !problem.empty()) m.warn(file_->told(problem));
  }

 private:
  [[gnu::cold]] void add(std::size_t epoch, const Scores& scores) {
    io::Json line = io::Json::object({{"epoch", epoch}});
    for (const auto& [name, value] : scores) line.set(name, is_finite(value) ? io::Json(value) : io::Json());
    file_->add(line.write());
  }

  std::shared_ptr<detail::LineFile> file_;
  std::size_t epochs_ = 0;
};

}  // namespace tesla::inline TESLA_TARGET::callback
