// A table of vectors, looked up by whole numbers: words, items, anything that is counted.
#pragma once

#include <tesla/layer/layer.hpp>
#include <tesla/network/on_host.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct EmbeddingOptions {
  std::size_t tokens = 0;                         // numbers are 0 to tokens - 1
  std::size_t units = 0;                          // values of each
  std::optional<std::size_t> padding_index = {};  // its vector begins at zero and is never changed
  init::Initializer initializer = init::normal(1);
  std::string name = {};
};

/// Samples of {length} whole numbers become {length, units}. A step of training costs what the rows cost that its batch
/// uses: gradient, norms and update look at no others, and what an optimizer keeps of these stays as it is.
struct Embedding : EmbeddingOptions {
  static constexpr std::string_view kind = "Embedding";

  Embedding() = default;
  Embedding(EmbeddingOptions options) : EmbeddingOptions(std::move(options)) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    if (tokens == 0 || tokens > most_tokens)
      raise<UsageError>("needs .tokens from 1 to ", most_tokens, ", which is as far as single precision counts, not ",
                        tokens);
    if (units == 0) raise<UsageError>("needs .units, the length of a vector, to be 1 or more");
    if (padding_index && *padding_index >= tokens)
      raise<UsageError>("has .padding_index = ", *padding_index, ", but tokens are 0 to ", tokens - 1);
    if (in.rank() != 1 || in[0] == 0)
      raise<ShapeError>("expects samples of {length} whole numbers, 1 or more, its input has shape ", in);
    const Shape shape{tokens, units};
    if (initial && !(initial->at(0).shape() == shape))
      raise<ShapeError>("was made with weights of shape ", initial->at(0).shape(), ", but needs ", shape);
    Setup::Parameter& table = setup.parameter("weight", shape, initializer, shape, initial ? &initial->at(0) : nullptr);
    table.by_rows = true;
    if (padding_index)
      table.draw = [*this](std::uint64_t seed, std::uint64_t stream) {
        Tensor<double> values = initializer.values({tokens, units}, seed, stream);
        std::fill_n(values.data() + *padding_index * units, units, 0.0);
        return values;
      };
    length_ = in[0];
    return {length_, units};
  }

  template <class T, class B>
  MemoryNeed memory(std::size_t batch, bool training) const {
    const std::size_t samples = round_up(batch, B::template lanes<T>(batch));
    return {0, training ? samples * length_ * backend::row_stride<T>(units) : 0};
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

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    const backend::Matrix<T> table = pass.weight(0);
    std::vector<std::uint32_t>& at = pass.slots[0].used.looked_up;
    look_up(pass.backend, x, at);
    network::OnHost<T, B> values(pass.backend, table.data, table.rows * table.stride, true);
    const ArrayView rows(values.data(), {tokens, units}, {static_cast<std::ptrdiff_t>(table.stride), 1});
    if (x.lanes > 1)
      return pass.backend.gather({&rows, at.data(), 0, at.size()}, Panels<T>{y.data, units, at.size(), y.lanes}, {});
    for (std::size_t t = 0; t < length_; ++t)
      pass.backend.gather({&rows, at.data(), t, 1}, Panels<T>{y.data + t * units, units, 1, 1}, {});
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T>, Panels<T> dy, Panels<T> dx) const {
    auto& slot = pass.slots[0];
    std::vector<std::uint32_t>& to = slot.used.looked_up;
    for (std::size_t panel = 0; panel < x.panels(); ++panel)
      for (std::size_t t = 0; t < length_; ++t)
        for (std::size_t lane = 0; lane < x.lanes; ++lane) {
          std::uint32_t& row = to[(panel * length_ + t) * x.lanes + lane];
          row = lane < x.live(panel) && row != padding_index ? slot.used.place_of(row, tokens) : UsedRows::none;
        }
    const backend::Matrix<T> rows{pass.scratch.data(), to.size(), units, backend::row_stride<T>(units)};
    if (x.lanes > 1)
      pass.backend.transpose(Panels<const T>{dy.data, units, to.size(), dy.lanes}, rows);
    else
      for (std::size_t t = 0; t < length_; ++t)
        pass.map([](auto v) { return v; }, Panels<T>{rows.row(t), units, 1, 1},
                 Panels<const T>{dy.data + t * units, units, 1, 1});
    pass.backend.fill(slot.gradient.data, slot.used.rows.size() * slot.gradient.stride, T(0));
    pass.backend.add_rows(rows, std::span<const std::uint32_t>(to), slot.gradient);
    if (dx) pass.backend.fill(dx.data, dx.size(), T(0));
  }

  void fields(auto&& field) {
    field("tokens", tokens);
    field("units", units);
    field("padding_index", padding_index);
    field("initializer", initializer);
  }

  std::shared_ptr<const Values> initial = {};  // the table, instead of an initialiser

 private:
  static constexpr std::size_t most_tokens = std::size_t{1} << 24;

  template <class V>
  bool is_token(V value) const {
    return value >= 0 && value < static_cast<V>(tokens) && value == std::floor(value);
  }
  [[gnu::cold, noreturn]] void refuse(double value, std::size_t sample, std::size_t step,
                                      std::string_view where) const {
    raise<DataError>(where, "sample ", sample, ", step ", step, " is ", value,
                     "; an Embedding looks up whole numbers from 0 to ", tokens - 1);
  }

  /// The row of each value, in the order of panels; lanes without a sample have one as well.
  template <class T, class B>
  void look_up(B& backend, Panels<const T> x, std::vector<std::uint32_t>& rows) const {
    network::OnHost<T, B> host(backend, const_cast<T*>(x.data), x.size(), true);
    const T* const values = host.data();
    rows.resize(x.size());
    for (std::size_t panel = 0; panel < x.panels(); ++panel)
      for (std::size_t t = 0; t < length_; ++t) {
        const std::size_t first = (panel * length_ + t) * x.lanes;
        for (std::size_t lane = 0; lane < x.live(panel); ++lane) {
          const T value = values[first + lane];
          if (!is_token(value)) refuse(static_cast<double>(value), panel * x.lanes + lane, t, "");
          rows[first + lane] = static_cast<std::uint32_t>(value);
        }
        std::fill(rows.begin() + static_cast<std::ptrdiff_t>(first + x.live(panel)),
                  rows.begin() + static_cast<std::ptrdiff_t>(first + x.lanes), rows[first]);
      }
  }

  std::size_t length_ = 0;
};

}  // namespace layer

using layer::Embedding;

}  // namespace tesla::inline TESLA_TARGET
