// How numbers of several classes become one.
#pragma once

#include <tesla/metric/metric.hpp>

namespace tesla::inline TESLA_TARGET::metric {

/// How numbers of several classes, or of several outputs that say yes or no, become one.
enum class Average {
  macro,     // the mean over the classes; those of which nothing can be said are left out
  micro,     // of all decisions counted together
  weighted,  // the mean over the classes, each as often as it occurs
};
using enum Average;

namespace detail {

constexpr std::string_view name_of(Average average) {
  return average == micro ? "micro" : average == weighted ? "weighted" : "macro";
}
/// What a metric is called: "micro_f1"; the macro average is the usual one and has no name.
[[gnu::cold]] inline std::string key_of(Average average, std::string_view name) {
  return average == macro ? std::string(name) : text(name_of(average), "_", name);
}
/// Writes or reads the option .average.
[[gnu::cold]] void average_field(auto&& field, Average& average) {
  std::string name(name_of(average));
  field("average", name);
  for (const Average known : {macro, micro, weighted})
    if (name == name_of(known)) return void(average = known);
  raise<FormatError>("\"", name, "\" is no average that this version knows: macro, micro or weighted");
}

}  // namespace detail

}  // namespace tesla::inline TESLA_TARGET::metric
