// What tests of whole models share: small data, all parameter values, errors by type and words.
#pragma once

#include <tesla/tesla.hpp>

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <string>
#include <typeinfo>
#include <vector>

/// Numbers of a normal distribution, the same for the same seed.
template <class T = float>
tesla::Tensor<T> normal_numbers(const tesla::Shape& shape, std::uint64_t seed) {
  tesla::Tensor<T> result(shape);
  tesla::random::fill_normal(result, {.seed = seed});
  return result;
}

/// Labels below `classes`, the same for the same seed.
inline std::vector<std::int32_t> labels_below(std::size_t classes, std::size_t count, std::uint64_t seed) {
  const tesla::random::Stream random(seed, 1);
  std::vector<std::int32_t> result;
  for (std::size_t i = 0; i < count; ++i) result.push_back(static_cast<std::int32_t>(random.below(i, classes)));
  return result;
}

/// The bytes of an array, to compare bit for bit.
template <class Array>
std::string bits(const Array& array) {
  std::string result(array.size() * sizeof(*array.data()), '\0');
  if (!result.empty()) std::memcpy(result.data(), array.data(), result.size());
  return result;
}

/// The bytes of all parameters of a model.
template <class Model>
std::string parameter_bits(Model& model) {
  std::string result;
  for (const auto& p : model.parameters()) result += bits(p.value());
  return result;
}

template <class Model>
bool all_finite(Model& model) {
  for (const auto& p : model.parameters())
    for (const auto value : p.value())
      if (!tesla::is_finite(value)) return false;
  return true;
}

/// Calls something that must throw exactly E, with all of the words in the message.
template <class E, class F>
void check_raises(const F& call, const std::vector<std::string>& words) {
  try {
    call();
    FAIL_CHECK("no exception");
  } catch (const tesla::Error& error) {
    INFO(error.what());
    CHECK(typeid(error) == typeid(E));
    for (const std::string& word : words) CHECK_THAT(error.what(), Catch::Contains(word));
  } catch (const std::exception& error) {
    FAIL_CHECK("an exception that is no tesla::Error: " << error.what());
  }
}
