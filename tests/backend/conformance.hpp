// What every backend has to pass. The suite runs over the list Cases; a further backend takes part by a line there.
//
// Results are compared with plain loops over sample-major arrays in long double, written in the tests. Memory of the
// backend is only written and read through it, so it may lie on a device.
#pragma once

#include <tesla/backend/cpu/cpu.hpp>
#include <tesla/backend/reference/reference.hpp>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

namespace conformance {

using namespace tesla;
using Real = long double;
using Reals = std::vector<Real>;

template <class B, class T>
struct Case {
  static_assert(backend::Backend<B, T>);
  using Backend = B;
  using Scalar = T;
  static constexpr Real tolerance = 64 * Real(std::numeric_limits<T>::epsilon());
};

using Cases = std::tuple<Case<backend::Reference, float>, Case<backend::Reference, double>, Case<backend::Cpu, float>,
                         Case<backend::Cpu, double>>;

struct Size {
  std::size_t batch, features;
};

inline const std::vector<std::size_t> batches = {1, 2, 7, 16, 63, 64, 65, 100, 128, 200};

/// Every batch with few and odd numbers of features, and one size that is worth several threads.
inline std::vector<Size> sizes() {
  std::vector<Size> result;
  for (const std::size_t batch : batches)
    for (const std::size_t features : {1, 7, 33}) result.push_back({batch, features});
  result.push_back({1, 300});
  result.push_back({200, 700});
  return result;
}

/// Uniform numbers of [low, high).
template <class T>
std::vector<T> numbers(std::size_t n, unsigned seed, double low = -1, double high = 1) {
  std::mt19937 random(seed);
  std::vector<T> result(n);
  for (T& value : result) value = static_cast<T>(low + (high - low) * static_cast<double>(random()) * 0x1p-32);
  return result;
}

template <class C>
class Bench {
 public:
  using B = typename C::Backend;
  using T = typename C::Scalar;

  /// Memory of the backend between canaries.
  class Array {
   public:
    Array(B& backend, const std::vector<T>& values)
        : backend_(backend), size_(values.size()), memory_(backend, values.size() + 2 * guard) {
      std::vector<T> all(memory_.size(), canary);
      std::copy(values.begin(), values.end(), all.begin() + guard);
      backend_.write(memory_.data(), all.data(), all.size());
    }
    T* data() const { return memory_.data() + guard; }
    /// What stands there now; fails the test if anything was written beside it.
    std::vector<T> read() const {
      std::vector<T> all(memory_.size());
      backend_.read(all.data(), memory_.data(), all.size());
      const auto intact = [](T value) { return value == canary; };
      REQUIRE(std::all_of(all.begin(), all.begin() + guard, intact));
      REQUIRE(std::all_of(all.end() - guard, all.end(), intact));
      return {all.begin() + guard, all.end() - guard};
    }

   private:
    static constexpr std::ptrdiff_t guard = 4 * cache_line / sizeof(T);
    static constexpr T canary = T(-12345);
    B& backend_;
    std::size_t size_;
    backend::Memory<T, B> memory_;
  };

  /// Panels between canaries. Unused lanes hold a number that would show in any sum.
  class Batch {
   public:
    Batch(B& backend, Size size, const std::vector<T>& rows = {})
        : shape_{nullptr, size.features, size.batch, B::template lanes<T>(size.batch)},
          array_(backend, arranged(shape_, rows)) {}
    Panels<T> panels() const { return {array_.data(), shape_.features, shape_.batch, shape_.lanes}; }
    Panels<const T> in() const { return panels(); }
    T* data() const { return array_.data(); }
    /// All lanes, used and unused, are to be finite.
    std::vector<T> rows() const {
      std::vector<T> all = array_.read(), result(shape_.batch * shape_.features);
      REQUIRE(std::all_of(all.begin(), all.end(), [](T value) { return is_finite(value); }));
      const Panels<T> host{all.data(), shape_.features, shape_.batch, shape_.lanes};
      for (std::size_t s = 0; s < shape_.batch; ++s)
        for (std::size_t f = 0; f < shape_.features; ++f) result[s * shape_.features + f] = host.at(s, f);
      return result;
    }

   private:
    static std::vector<T> arranged(Panels<T> shape, const std::vector<T>& rows) {
      std::vector<T> all(shape.size(), T(50));
      shape.data = all.data();
      for (std::size_t i = 0; i < rows.size(); ++i) shape.at(i / shape.features, i % shape.features) = rows[i];
      return all;
    }
    Panels<T> shape_;
    Array array_;
  };

  /// A matrix with padded rows, zero in the padding.
  class Table {
   public:
    Table(B& backend, std::size_t rows, std::size_t columns, const std::vector<T>& values = {})
        : rows_(rows), columns_(columns), stride_(backend::row_stride<T>(columns)), array_(backend, padded(values)) {}
    backend::Matrix<T> matrix() const { return {array_.data(), rows_, columns_, stride_}; }
    T* data() const { return array_.data(); }
    std::ptrdiff_t stride() const { return static_cast<std::ptrdiff_t>(stride_); }
    std::vector<T> values() const {
      const std::vector<T> all = array_.read();
      std::vector<T> result;
      for (std::size_t r = 0; r < rows_; ++r)
        for (std::size_t c = 0; c < columns_; ++c) result.push_back(all[r * stride_ + c]);
      return result;
    }

   private:
    std::vector<T> padded(const std::vector<T>& values) const {
      std::vector<T> all(rows_ * stride_);
      for (std::size_t i = 0; i < values.size(); ++i) all[i / columns_ * stride_ + i % columns_] = values[i];
      return all;
    }
    std::size_t rows_, columns_, stride_;
    Array array_;
  };

  B backend;

  Array array(const std::vector<T>& values) { return {backend, values}; }
  Batch batch(Size size, const std::vector<T>& rows = {}) { return {backend, size, rows}; }
  Table table(std::size_t rows, std::size_t columns, const std::vector<T>& values = {}) {
    return {backend, rows, columns, values};
  }

  static std::vector<T> random(std::size_t n, unsigned seed, double low = -1, double high = 1) {
    return numbers<T>(n, seed, low, high);
  }

  /// The result of `run`, which has to be the same bits each time and with any number of threads.
  template <class Run>
  static std::vector<T> repeated(const Run& run) {
    set_threads(1);
    const std::vector<T> result = run();
    for (const int threads : {1, 2, 4}) {
      set_threads(threads);
      const std::vector<T> again = run();
      INFO("threads: " << threads);
      REQUIRE(again.size() == result.size());
      REQUIRE((result.empty() || std::memcmp(again.data(), result.data(), result.size() * sizeof(T)) == 0));
    }
    set_threads(0);
    return result;
  }

  /// Whether each value is the expected one, to the tolerance times scale plus the value's size.
  static void compare(const std::vector<T>& actual, const Reals& expected, Real scale = 1) {
    REQUIRE(actual.size() == expected.size());
    for (std::size_t i = 0; i < actual.size(); ++i) {
      const Real error = std::fabs(Real(actual[i]) - expected[i]);
      if (error <= C::tolerance * (scale + std::fabs(expected[i]))) continue;
      FAIL("element " << i << " of " << actual.size() << " is " << actual[i] << ", not " << expected[i]);
    }
  }
};

}  // namespace conformance
