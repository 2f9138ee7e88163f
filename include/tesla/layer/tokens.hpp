// What layers have in common whose samples are whole numbers.
#pragma once

#include <tesla/layer/layer.hpp>
#include <tesla/network/on_host.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

namespace tesla::inline TESLA_TARGET::layer::detail {

/// Samples of {length} whole numbers from 0 to count - 1, which become {length, units}.
struct Tokens {
  static constexpr std::size_t most = std::size_t{1} << 24;

  std::string_view kind;  // of the layer
  std::size_t count = 0, units = 0, length = 0;

  [[gnu::cold]] static Tokens checked(std::string_view kind, std::size_t tokens, std::size_t units,
                                      std::optional<std::size_t> padding_index, const Shape& in) {
    if (tokens == 0 || tokens > most)
      raise<UsageError>("needs .tokens from 1 to ", most, ", which is as far as single precision counts, not ", tokens);
    if (units == 0) raise<UsageError>("needs .units, the length of a vector, to be 1 or more");
    if (padding_index && *padding_index >= tokens)
      raise<UsageError>("has .padding_index = ", *padding_index, ", but tokens are 0 to ", tokens - 1);
    if (in.rank() != 1 || in[0] == 0)
      raise<ShapeError>("expects samples of {length} whole numbers, 1 or more, its input has shape ", in);
    return {kind, tokens, units, in[0]};
  }

  /// How many numbers the panels of a batch have room for.
  template <class T, class B>
  std::size_t places(std::size_t batch) const {
    return round_up(batch, B::template lanes<T>(batch)) * length;
  }

  /// Data is looked at before training begins with it.
  [[gnu::cold]] void check_samples(const ArrayView& x, std::string_view what) const {
    std::array<double, 256> values;
    for (std::size_t s = 0; s < x.samples(); ++s)
      for (std::size_t first = 0; first < x.features(); first += values.size()) {
        const std::size_t n = std::min(values.size(), x.features() - first);
        x.read(s, first, n, values.data());
        for (std::size_t k = 0; k < n; ++k)
          if (!is_token(values[k])) refuse(values[k], s, first + k, text(what, ": "));
      }
  }

  /// The numbers, in the order of panels; lanes without a sample have one as well.
  template <class T, class B>
  void read(B& backend, Panels<const T> x, std::vector<std::uint32_t>& numbers) const {
    network::OnHost<T, B> host(backend, const_cast<T*>(x.data), x.size(), true);
    const T* const values = host.data();
    numbers.resize(x.size());
    for (std::size_t panel = 0; panel < x.panels(); ++panel)
      for (std::size_t t = 0; t < length; ++t) {
        const std::size_t first = (panel * length + t) * x.lanes;
        for (std::size_t lane = 0; lane < x.live(panel); ++lane) {
          const T value = values[first + lane];
          if (!is_token(value))
            refuse(static_cast<double>(value), panel * x.lanes + lane, t,
                   text("the input of ", kind, ", from the layer before: "));
          numbers[first + lane] = static_cast<std::uint32_t>(value);
        }
        std::fill(numbers.begin() + static_cast<std::ptrdiff_t>(first + x.live(panel)),
                  numbers.begin() + static_cast<std::ptrdiff_t>(first + x.lanes), numbers[first]);
      }
  }

  /// Row at[i] of a table for number i.
  template <class T, class B>
  void fill(B& backend, const backend::Matrix<T>& table, const std::vector<std::uint32_t>& at, Panels<T> y) const {
    network::OnHost<T, B> values(backend, table.data, table.rows * table.stride, true);
    const ArrayView rows(values.data(), {table.rows, units}, {static_cast<std::ptrdiff_t>(table.stride), 1});
    if (y.lanes > 1)
      return backend.gather({&rows, at.data(), 0, at.size()}, Panels<T>{y.data, units, at.size(), y.lanes}, {});
    for (std::size_t t = 0; t < length; ++t)
      backend.gather({&rows, at.data(), t, 1}, Panels<T>{y.data + t * units, units, 1, 1}, {});
  }

  /// Makes each number what f makes of it, or none in lanes without a sample.
  template <class T, class F>
  void renumber(Panels<const T> x, std::vector<std::uint32_t>& numbers, const F& f) const {
    for (std::size_t panel = 0; panel < x.panels(); ++panel)
      for (std::size_t t = 0; t < length; ++t)
        for (std::size_t lane = 0; lane < x.lanes; ++lane) {
          std::uint32_t& number = numbers[(panel * length + t) * x.lanes + lane];
          number = lane < x.live(panel) ? f(number) : UsedRows::none;
        }
  }

  /// What sum_rows() needs.
  template <class T>
  std::size_t gradient_rows(std::size_t places) const {
    return places * backend::row_stride<T>(units);
  }
  /// Row to[i] of the sums gets the gradient by what number i has become; there are no others.
  template <class T, class B>
  void sum_rows(B& backend, Panels<const T> dy, std::span<const std::uint32_t> to, const backend::Matrix<T>& sums,
                T* scratch) const {
    const backend::Matrix<T> rows{scratch, to.size(), units, backend::row_stride<T>(units)};
    if (dy.lanes > 1)
      backend.transpose(Panels<const T>{dy.data, units, to.size(), dy.lanes}, rows);
    else
      for (std::size_t t = 0; t < length; ++t)
        backend.map([](auto v) { return v; }, Panels<T>{rows.row(t), units, 1, 1},
                    Panels<const T>{dy.data + t * units, units, 1, 1});
    backend.fill(sums.data, sums.rows * sums.stride, T(0));
    backend.add_rows(rows, to, sums);
  }

 private:
  template <class V>
  bool is_token(V value) const {
    return value >= 0 && value < static_cast<V>(count) && value == std::floor(value);
  }
  [[gnu::cold, noreturn]] void refuse(double value, std::size_t sample, std::size_t step,
                                      std::string_view where) const {
    raise<DataError>(where, "sample ", sample, ", step ", step, " is ", value, "; ", kind,
                     " looks up whole numbers from 0 to ", count - 1, "; it needs ",
                     value >= static_cast<double>(count) && value == std::floor(value) ? "a larger .tokens, or " : "",
                     "other numbers");
  }
};

}  // namespace tesla::inline TESLA_TARGET::layer::detail
