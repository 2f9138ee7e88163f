// A table of vectors, looked up by whole numbers: words, items, anything that is counted.
#pragma once

#include <tesla/layer/tokens.hpp>

#include <algorithm>
#include <optional>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct EmbeddingOptions {
  std::size_t tokens = 0;                         // numbers are 0 to tokens - 1
  std::size_t units = 0;                          // values of each
  std::optional<std::size_t> padding_index = {};  // its vector begins at zero and is never changed
  init::Initializer initializer = init::normal(1);
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

/// Samples of {length} whole numbers become {length, units}. A step of training costs what the rows cost that its batch
/// uses: gradient, norms and update look at no others, and what an optimizer keeps of these stays as it is.
struct Embedding : EmbeddingOptions {
  static constexpr std::string_view kind = "Embedding";
  static constexpr bool step_by_step = true;

  Embedding() = default;
  Embedding(EmbeddingOptions options) : EmbeddingOptions(std::move(options)) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    tokens_ = detail::Tokens::checked(kind, tokens, units, padding_index, in);
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
    return {in[0], units};
  }

  template <class T, class B>
  MemoryNeed memory(std::size_t batch, bool training) const {
    return {0, training ? tokens_.gradient_rows<T>(tokens_.places<T, B>(batch)) : 0};
  }

  [[gnu::cold]] void check_samples(const ArrayView& x, std::string_view what) const { tokens_.check_samples(x, what); }

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    std::vector<std::uint32_t>& at = pass.slots[0].used.looked_up;
    tokens_.read(pass.backend, x, at);
    tokens_.fill(pass.backend, pass.weight(0), at, y);
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T>, Panels<T> dy, Panels<T> dx) const {
    auto& slot = pass.slots[0];
    UsedRows& used = slot.used;
    tokens_.renumber(x, used.looked_up, [&](std::uint32_t row) {
      return row != padding_index ? used.place_of(row, tokens) : UsedRows::none;
    });
    tokens_.sum_rows(pass.backend, Panels<const T>(dy), std::span<const std::uint32_t>(used.looked_up), slot.stored(),
                     pass.scratch.data());
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
  detail::Tokens tokens_;
};

}  // namespace layer

using layer::Embedding;

}  // namespace tesla::inline TESLA_TARGET
