// What the programs of the examples share: numbers on the command line, and a main() that turns errors into messages.
#pragma once

#include <tesla/core/error.hpp>

#include <algorithm>
#include <charconv>
#include <concepts>
#include <cstdio>
#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

/// What is wrong with the command line.
struct BadOption : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The whole of a value as a number between two others; throws BadOption, which says what is wanted.
template <class Number>
Number read_number(std::string_view option, std::string_view value, Number least, Number most,
                   std::string_view wanted) {
  Number result{};
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
  const bool whole = error == std::errc() && end == value.data() + value.size();
  if (!whole || !(result >= least && result <= most))  // nor NaN, which is not between any two
    throw BadOption(tesla::text(option, " takes ", wanted, ", not \"", value, "\""));
  return result;
}
template <std::integral Number>
Number read_number(std::string_view option, std::string_view value, Number least, Number most) {
  return read_number(option, value, least, most, tesla::text("a whole number from ", least, " to ", most));
}

/// The value behind argument i, which has to be one of the known options.
inline std::string read_value(std::initializer_list<std::string_view> known, int i, int count, char** arguments) {
  const std::string name = arguments[i];
  if (std::find(known.begin(), known.end(), name) == known.end())
    throw BadOption("there is no option \"" + name + "\"");
  if (i + 1 == count) throw BadOption(name + " needs a value");
  return arguments[i + 1];
}

struct Program {
  const char* name;
  const char* usage;      // what --help shows
  const char* less_room;  // what to try where there is not enough memory
};

/// Parses the options, whose member `help` asks for the usage, and runs; returns what main() does: 0, 1 after an error,
/// 2 after a bad option.
template <class Parse, class Run>
int run_program(const Program& program, int count, char** arguments, const Parse& parse, const Run& run) {
  try {
    const auto options = parse(count, arguments);
    if (options.help)
      std::fputs(program.usage, stdout);
    else
      run(options);
    return 0;
  } catch (const BadOption& problem) {
    std::fprintf(stderr, "%s: %s; --help lists all options\n", program.name, problem.what());
    return 2;
  } catch (const tesla::Error& error) {
    std::fprintf(stderr, "%s: %s\n", program.name, error.what());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "%s: there is not enough memory; try %s\n", program.name, program.less_room);
  }
  return 1;
}
