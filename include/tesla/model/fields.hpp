// Options as JSON: what a type lists in its fields() is what files keep of it.
#pragma once

#include <tesla/backend/attention.hpp>
#include <tesla/io/json.hpp>
#include <tesla/layer/activation.hpp>
#include <tesla/layer/window.hpp>
#include <tesla/optimizer/schedule.hpp>

#include <bit>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

/// Collects fields into a JSON object.
struct FieldWriter {
  io::Json object = io::Json::object();

  void operator()(std::string_view name, bool value) { object.set(name, value); }
  void operator()(std::string_view name, std::size_t value) { object.set(name, value); }
  void operator()(std::string_view name, double value) { object.set(name, value); }
  void operator()(std::string_view name, const std::string& value) { object.set(name, value); }
  template <class N>
  void operator()(std::string_view name, const std::optional<N>& value) {
    if (value) object.set(name, *value);
  }
  template <class N>
  void operator()(std::string_view name, const std::vector<N>& value) {
    object.set(name, io::Json::array(value));
  }
  void operator()(std::string_view name, const Shape& value) {
    object.set(name, io::Json::array(std::vector<std::size_t>(value.begin(), value.end())));
  }
  void operator()(std::string_view name, const layer::Extents& value) {
    object.set(name, io::Json::array(std::vector<std::size_t>(value.begin(), value.end())));
  }
  /// "valid", "same" or the four sides.
  void operator()(std::string_view name, const layer::Padding& value) {
    using Kind = layer::Padding::Kind;
    if (value.kind == Kind::sides)
      object.set(name, io::Json::array(std::vector<std::size_t>(value.sides.begin(), value.sides.end())));
    else
      object.set(name, std::string(value.kind == Kind::same ? "same" : "valid"));
  }
  void operator()(std::string_view name, const attention::Pattern& value) {
    FieldWriter own;
    own.object.set("name", std::string(attention::Pattern::names[static_cast<std::size_t>(value.kind)]));
    attention::Pattern(value).fields(own);
    object.set(name, std::move(own.object));
  }
  void operator()(std::string_view name, const layer::Activation& value) {
    object.set(name, pair(value.function_name(), value.parameter));
  }
  void operator()(std::string_view name, const init::Initializer& value) {
    object.set(name, pair(init::Initializer::names[static_cast<std::size_t>(value.kind)], value.parameter));
  }
  /// A number is one in the file too.
  void operator()(std::string_view name, schedule::LearningRate value) {
    if (value.constant()) return object.set(name, value.at(1)), void();
    FieldWriter options;
    options.object.set("kind", std::string(value.kind()));
    value.fields(options);
    object.set(name, std::move(options.object));
  }

 private:
  static io::Json pair(std::string_view name, double parameter) {
    return io::Json::object({{"name", std::string(name)}, {"parameter", parameter}});
  }
};

/// Sets fields from a JSON object; a field that is not there keeps its default.
struct FieldReader {
  const io::Json& object;

  void operator()(std::string_view name, bool& value) const { value = object.get<bool>(name, value); }
  void operator()(std::string_view name, std::size_t& value) const { value = object.get<std::size_t>(name, value); }
  void operator()(std::string_view name, double& value) const { value = object.get<double>(name, value); }
  void operator()(std::string_view name, std::string& value) const { value = object.get<std::string>(name, value); }
  void operator()(std::string_view name, Shape& value) const {
    if (object.contains(name)) value = Shape(std::span<const std::size_t>(object.get<std::vector<std::size_t>>(name)));
  }
  void operator()(std::string_view name, layer::Extents& value) const {
    if (object.contains(name)) numbers(name, value);
  }
  void operator()(std::string_view name, layer::Padding& value) const {
    const io::Json* found = object.find(name);
    if (found == nullptr) return;
    if (!found->is_string()) {
      value.kind = layer::Padding::Kind::sides;
      return numbers(name, value.sides);
    }
    const auto kind = found->as<std::string>();
    if (kind != "same" && kind != "valid") raise<FormatError>("\"", kind, "\" is no padding that this version knows");
    value = kind == "same" ? same : valid;
  }
  void operator()(std::string_view name, attention::Pattern& value) const {
    const io::Json* const found = object.find(name);
    if (found == nullptr) return;
    value.kind = static_cast<attention::Pattern::Kind>(index_of(*found, attention::Pattern::names));
    value.fields(FieldReader{*found});
  }
  void operator()(std::string_view name, layer::Activation& value) const {
    if (const io::Json* found = object.find(name)) {
      value.function = static_cast<layer::NamedActivation::Function>(index_of(*found, layer::NamedActivation::names));
      value.parameter = found->get<double>("parameter");
      if (value.function == layer::NamedActivation::Function::custom)
        raise<UsageError>(
            "a custom activation cannot be rebuilt from a file; build the model in code, then call restore(path)");
    }
  }
  void operator()(std::string_view name, init::Initializer& value) const {
    if (const io::Json* found = object.find(name)) {
      value.kind = static_cast<init::Initializer::Kind>(index_of(*found, init::Initializer::names));
      value.parameter = found->get<double>("parameter");
    }
  }
  template <class N>
  void operator()(std::string_view name, std::optional<N>& value) const {
    if (object.contains(name)) value = object.get<N>(name);
  }
  template <class N>
  void operator()(std::string_view name, std::vector<N>& value) const {
    value = object.get<std::vector<N>>(name, value);
  }
  void operator()(std::string_view name, schedule::LearningRate& value) const {
    const io::Json* found = object.find(name);
    if (found == nullptr) return;
    if (found->is_number()) {
      value = found->as<double>();
      return;
    }
    const auto kind = found->get<std::string>("kind");
    if (!value.become(kind)) raise<FormatError>("\"", kind, "\" is not a schedule that this version knows");
    value.fields(FieldReader{*found});
  }

 private:
  template <std::size_t N>
  void numbers(std::string_view name, std::array<std::size_t, N>& value) const {
    const auto found = object.get<std::vector<std::size_t>>(name);
    if (found.size() != N) raise<FormatError>("\"", name, "\" takes ", N, " numbers, not ", found.size());
    std::copy(found.begin(), found.end(), value.begin());
  }
  template <std::size_t N>
  static std::size_t index_of(const io::Json& value, const std::array<std::string_view, N>& names) {
    const auto name = value.get<std::string>("name");
    for (std::size_t i = 0; i < N; ++i)
      if (names[i] == name) return i;
    raise<FormatError>("\"", name, "\" is not the name of a function, initialiser or pattern that this version knows");
  }
};

/// The options of a layer, loss or optimizer as JSON; nothing for a type without fields().
template <class X>
io::Json options_of(X x) {
  FieldWriter writer;
  if constexpr (requires { x.fields(writer); }) x.fields(writer);
  return std::move(writer.object);
}

/// Makes one number of options, without allocating.
struct FieldHash {
  std::uint64_t value = 0;
  bool complete = true;  // whether it knows all their types

  template <class V>
  void operator()(std::string_view, const V& field) {
    add(field);
  }
  void operator()(std::string_view, schedule::LearningRate& rate) {
    for (const char letter : rate.kind()) add(letter);
    rate.fields(*this);
  }

 private:
  template <class V>
  void add(const V& field) {
    if constexpr (std::floating_point<V>)
      mix(std::bit_cast<std::uint64_t>(static_cast<double>(field)));
    else if constexpr (std::integral<V> || std::is_enum_v<V>)
      mix(static_cast<std::uint64_t>(field));
    else if constexpr (requires { field.begin(), field.size(); }) {
      mix(field.size());
      for (const auto& one : field) add(one);
    } else
      complete = false;
  }
  void mix(std::uint64_t bits) {
    value = (value ^ bits) * 0x9E3779B97F4A7C15;
    value ^= value >> 29;
  }
};

/// Equal for equal options of a type; none where that cannot be told.
template <class X>
std::optional<std::uint64_t> hash_of_options(const X& x) {
  FieldHash hash;
  if constexpr (requires(X & y) { y.fields(hash); })
    const_cast<X&>(x).fields(hash);  // it lists them to be set too, which this does not
  else if constexpr (!std::is_empty_v<X>)
    hash.complete = false;
  return hash.complete ? std::optional(hash.value) : std::nullopt;
}

}  // namespace tesla::inline TESLA_TARGET::model
