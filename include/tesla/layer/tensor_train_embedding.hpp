// An embedding table in tensor-train form (Hrinchuk et al., "Tensorized Embedding Layers", 2019; Yin et al., "TT-Rec",
// 2021): the rows that a batch uses are made of the cores, and neither table nor gradient is there as a whole.
#pragma once

#include <tesla/layer/embedding.hpp>
#include <tesla/layer/tensor_train.hpp>
#include <tesla/layer/tokens.hpp>
#include <tesla/network/tensor_train/columns.hpp>

#include <optional>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct TensorTrainEmbeddingOptions {
  std::size_t tokens = 0;  // numbers are 0 to tokens - 1
  std::size_t units = 0;   // values of each
  Shape in = {},
        out = {};        // modes: of `in` the product is tokens or more, of `out` units; none: chosen, for three cores
  std::size_t rank = 0;  // between all cores; larger than it can be is cut to what it can be,
  Shape ranks = {};      // or one for each place between two cores
  std::optional<std::size_t> padding_index = {};    // its vector is zero and sends no gradient
  init::Initializer initializer = init::normal(1);  // of the table, whose entries get its deviation
  double rate = 1;                                  // of the cores, times the optimizer's learning rate
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

/// Samples of {length} whole numbers become {length, units}. Cores are {rank before, out_k, in_k, rank after}, those of
/// the table's transpose.
struct TensorTrainEmbedding : TensorTrainEmbeddingOptions {
  static constexpr std::string_view kind = "TensorTrainEmbedding";
  static constexpr bool step_by_step = true;

  TensorTrainEmbedding() = default;
  TensorTrainEmbedding(TensorTrainEmbeddingOptions options) : TensorTrainEmbeddingOptions(std::move(options)) {}

  /// A layer that begins as the best of its kind near an Embedding with values, as model.layer<Embedding>(name) gives
  /// it. Sizes and padding are those of the Embedding; modes, and ranks or a tolerance, come from the options.
  [[gnu::cold]] static TensorTrainEmbedding from(const Embedding& dense, TensorTrainEmbeddingOptions options,
                                                 double tolerance = 0) {
    need_values("from", dense);
    options.tokens = dense.tokens, options.units = dense.units, options.padding_index = dense.padding_index;
    TensorTrainEmbedding result(std::move(options));
    result.choose_modes();
    const Tensor<double>& table = dense.initial->at(0);
    Tensor<double> matrix({result.units, result.in.elements()});
    for (std::size_t t = 0; t < result.tokens; ++t)
      for (std::size_t u = 0; u < result.units; ++u) matrix[u * result.in.elements() + t] = table[t * result.units + u];
    const network::TensorTrainMatrix<double> cores = network::tt_svd(matrix, {.in = result.in,
                                                                              .out = result.out,
                                                                              .max_rank = result.rank,
                                                                              .max_ranks = result.ranks,
                                                                              .tolerance = tolerance});
    result.rank = 0, result.ranks = cores.ranks();
    result.initial = std::make_shared<const Values>(cores.cores().begin(), cores.cores().end());
    return result;
  }

  /// The Embedding of the same values.
  [[gnu::cold]] Embedding to_dense() const {
    need_values("to_dense", *this);
    const Tensor<double> matrix = network::TensorTrainMatrix<double>(*initial).to_dense();
    Tensor<double> table({tokens, units});
    for (std::size_t t = 0; t < tokens; ++t)
      for (std::size_t u = 0; u < units && t != padding_index; ++u)
        table[t * units + u] = matrix[u * matrix.shape()[1] + t];
    Embedding result({.tokens = tokens, .units = units, .padding_index = padding_index});
    result.initial = std::make_shared<const Values>(Values{std::move(table)});
    return result;
  }

  [[gnu::cold]] Shape setup(const Shape& given, Setup& setup) {
    tokens_ = detail::Tokens::checked(kind, tokens, units, padding_index, given);
    choose_modes();
    TensorTrain cores({.in = in,
                       .out = out,
                       .rank = rank,
                       .ranks = ranks,
                       .use_bias = false,
                       .initializer = initializer,
                       .rate = rate});
    cores.initial = initial;
    cores.ask_for_cores(setup, false, "", 0, &network::ColumnMaker::core_rows);
    shape_ = cores.shape();
    return {given[0], units};
  }

  template <class T, class B>
  MemoryNeed memory(std::size_t batch, bool training) const {
    const std::size_t places = tokens_.places<T, B>(batch);
    const network::ColumnMaker maker(shape_, places);
    const std::size_t states = line<T>(maker.states<T>()), rows = line<T>(rows_of(maker));
    const std::size_t forward = rows + maker.making<T>();
    if (!training) return {0, states + forward};
    return {states, std::max(forward, tokens_.gradient_rows<T>(places) + rows + maker.gradients<T>())};
  }

  [[gnu::cold]] void check_samples(const ArrayView& x, std::string_view what) const { tokens_.check_samples(x, what); }

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    std::vector<std::uint32_t>&at = pass.slots[0].used.looked_up, &notes = pass.slots[0].notes;
    tokens_.read(pass.backend, x, at);
    const network::ColumnMaker maker(shape_, at.size());
    notes.resize(maker.prefixes().numbers());
    maker.prefixes().find(notes, at, padding_index ? static_cast<std::uint32_t>(*padding_index) : UsedRows::none);
    const auto found = static_cast<std::uint32_t>(maker.prefixes().level(notes, shape_.size() - 1).size());
    const std::size_t states = line<T>(maker.states<T>());
    T* const rows = pass.scratch.data() + (pass.training ? 0 : states);
    const detail::CoreMatrices<T> cores(pass.slots, shape_.size(), &Pass<T, B>::Slot::value);
    maker.make<T>(pass.backend, cores.used(), notes, pass.training ? pass.kept_memory.data() : pass.scratch.data(),
                  rows, rows + line<T>(rows_of(maker)));
    pass.backend.fill(rows + found * units, units, T(0));  // what padding looks up
    for (std::uint32_t& row : at)
      if (row == UsedRows::none) row = found;
    tokens_.fill(pass.backend, backend::Matrix<T>{rows, found + std::size_t{1}, units, units}, at, y);
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T>, Panels<T> dy, Panels<T> dx) const {
    std::vector<std::uint32_t>& to = pass.slots[0].used.looked_up;
    const std::span<const std::uint32_t> notes = pass.slots[0].notes;
    const network::ColumnMaker maker(shape_, to.size());
    const std::size_t found = maker.prefixes().level(notes, shape_.size() - 1).size();
    tokens_.renumber(x, to, [&](std::uint32_t row) { return row != found ? row : UsedRows::none; });
    T* const rows = pass.scratch.data() + tokens_.gradient_rows<T>(to.size());
    tokens_.sum_rows(pass.backend, Panels<const T>(dy), std::span<const std::uint32_t>(to),
                     backend::Matrix<T>{rows, found, units, units}, pass.scratch.data());
    const detail::CoreMatrices<T> cores(pass.slots, shape_.size(), &Pass<T, B>::Slot::value);
    const detail::CoreMatrices<T> gradients(pass.slots, shape_.size(), &Pass<T, B>::Slot::gradient);
    maker.gradients<T>(pass.backend, cores.used(), gradients.used(), notes, pass.kept_memory.data(), rows,
                       rows + line<T>(rows_of(maker)));
    if (dx) pass.backend.fill(dx.data, dx.size(), T(0));
  }

  [[gnu::cold]] std::string note() const {
    const std::size_t dense = tokens * units, own = shape_.count_parameters();
    char ratio[32];
    std::snprintf(ratio, sizeof ratio, "%.3g", static_cast<double>(dense) / static_cast<double>(own));
    return text(own, " weights for ", dense,
                own < dense ? text(" (", ratio, " times fewer)") : ", no fewer than an Embedding has", ", ranks ",
                shape_.ranks);
  }

  void fields(auto&& field) {
    field("tokens", tokens);
    field("units", units);
    field("in", in);
    field("out", out);
    field("rank", rank);
    field("ranks", ranks);
    field("padding_index", padding_index);
    field("initializer", initializer);
    field("rate", rate);
  }

  std::shared_ptr<const Values> initial = {};  // cores

 private:
  template <class L>
  [[gnu::cold]] static void need_values(std::string_view who, const L& layer) {
    if (!layer.initial)
      raise<UsageError>("TensorTrainEmbedding::", who, ": this ", L::kind, " layer has no values yet; take one from a ",
                        "built model, with model.layer<", L::kind, ">(name)");
  }

  /// Those that were not given, and whether those that were fit.
  [[gnu::cold]] void choose_modes() {
    const std::size_t cores = in.rank() != 0 ? in.rank() : out.rank() != 0 ? out.rank() : 3;
    const auto refuse = [](std::string_view which, const Shape& modes, std::string_view wanted, std::size_t size,
                           const Shape& fit) {
      raise<ShapeError>("its .", which, " modes ", modes, " make ", modes.elements(), ", but have to make ", wanted,
                        size, "; modes that fit are ", fit);
    };
    if (in.rank() == 0) in = network::factor_modes(tokens, cores).modes;
    if (out.rank() == 0) out = network::exact_modes(units, cores);
    if (in.elements() < tokens || in.elements() >= UsedRows::none)
      refuse("in", in, in.elements() < tokens ? "at least .tokens = " : "little more than .tokens = ", tokens,
             network::factor_modes(tokens, cores).modes);
    if (out.elements() != units) refuse("out", out, ".units = ", units, network::exact_modes(units, cores));
  }

  /// Of each number once, and one of zeros.
  std::size_t rows_of(const network::ColumnMaker& maker) const {
    return (maker.prefixes().most(shape_.size() - 1) + 1) * units;
  }
  template <class T>
  static std::size_t line(std::size_t n) {
    return round_up(n, cache_line / sizeof(T));
  }

  detail::Tokens tokens_;
  network::TensorTrainShape shape_;
};

}  // namespace layer

using layer::TensorTrainEmbedding;

}  // namespace tesla::inline TESLA_TARGET
