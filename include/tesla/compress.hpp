// Compression of a trained model: dense layers become tensor-train layers where that makes them smaller and faster.
#pragma once

#include <tesla/layer/tensor_train.hpp>
#include <tesla/network/tensor_train/ranks.hpp>
#include <tesla/sequential.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET {

struct CompressOptions {
  std::size_t budget = 0;          // bytes that all parameters of the model shall take at most, or
  double microseconds = 0;         // that its dense and tensor-train layers shall take for a prediction of one batch
  std::size_t batch_size = 128;    // the batch at which layers have to be faster
  data::Samples calibration = {};  // samples on which it is seen what each choice does to the loss
  std::size_t samples = 4096;      // of them, at most
  std::size_t most_cores = 4;      // modes are tried from 2 to this many
  std::size_t most_rank = 128;     // larger ranks are not looked for
};

/// What became of each dense layer.
struct CompressReport {
  struct Layer {
    std::string name;
    std::size_t parameters = 0, parameters_before = 0;
    double microseconds = 0, microseconds_before = 0;  // of a prediction, measured
    double error = 0;                                  // of the matrix, relative
    std::string what;                                  // the modes and ranks, or why it stays dense
  };
  std::vector<Layer> layers;
  std::size_t bytes = 0, bytes_before = 0;  // of all parameters of the model
  double loss = 0, loss_before = 0;         // on the calibration samples, before any training on

  [[gnu::cold]] std::string to_string() const {
    std::string result;
    char line[256];
    for (const Layer& l : layers) {
      std::snprintf(line, sizeof line, "%s: %zu -> %zu parameters, %.1f -> %.1f us, error %.3f: ", l.name.c_str(),
                    l.parameters_before, l.parameters, l.microseconds_before, l.microseconds, l.error);
      result += line + l.what + "\n";
    }
    std::snprintf(line, sizeof line, "%zu -> %zu bytes, loss %.4f -> %.4f\n", bytes_before, bytes, loss_before, loss);
    return result + line;
  }
};

namespace detail {

/// One way to hold a layer.
struct CompressChoice {
  layer::TensorTrain layer;  // without modes: the dense layer, as it is
  std::size_t parameters = 0;
  double error = 0, microseconds = 0;
  double loss = 0;  // more than the dense layer's
  bool dense() const { return layer.in.rank() == 0; }
};

/// The time of a prediction of one layer, at its best.
template <class T, class B, class L>
[[gnu::cold]] double measured(L layer, std::size_t in, std::size_t batch) {
  BasicSequential<T, B> model;
  model.add_layer(std::move(layer));
  model.build({in});
  Tensor<T> x({batch, in}), y({batch, model.output_shape().elements()});
  random::fill_normal(x, {.seed = 1});
  double best = std::numeric_limits<double>::infinity();
  for (int turn = 0; turn < 9; ++turn) {
    const auto start = std::chrono::steady_clock::now();
    model.predict_into(x, std::span<T>(y.data(), y.size()), {.batch_size = batch});
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best * 1e6;
}

/// All ways worth a thought to hold a dense layer, itself first; `why` says what speaks against the others.
template <class T, class B>
[[gnu::cold]] std::vector<CompressChoice> compress_choices(const layer::Dense& dense, const CompressOptions& options,
                                                           std::string& why) {
  const Tensor<double>& weight = dense.initial->at(0);
  const std::size_t out = weight.shape()[0], in = weight.shape()[1], bias = dense.use_bias ? out : 0;
  std::vector<CompressChoice> choices(1);
  choices[0].parameters = in * out + bias;
  choices[0].microseconds = measured<T, B>(dense, in, options.batch_size);
  bool smaller = false;
  std::vector<std::array<Shape, 2>> modes{{Shape{in, 1}, Shape{1, out}}};  // a product of two matrices, to begin with
  for (std::size_t cores = 2; cores <= options.most_cores; ++cores) {
    const network::FactoredModes a = network::factor_modes(in, cores), b = network::factor_modes(out, cores);
    if (a.padding + b.padding == 0 && a.modes[0] != 1 && b.modes[0] != 1) modes.push_back({a.modes, b.modes});
  }
  for (const auto& [in_modes, out_modes] : modes) {
    const layer::TensorTrain whole = layer::TensorTrain::from(
        dense, {.in = in_modes, .out = out_modes, .rank = options.most_rank, .initializer = dense.initializer});
    const network::TensorTrainMatrix<double> matrix = whole.matrix();
    const double cut = relative_error(weight, matrix.to_dense());
    const network::Balance balance(matrix.cores());
    Shape last;
    for (double share = 0.8; share > 1e-4; share *= 0.8) {
      const auto wanted = static_cast<std::size_t>(share * static_cast<double>(in * out));
      const network::TensorTrainShape shape = network::shapes_within({whole.shape()}, {balance}, wanted)[0];
      const Shape ranks = shape.ranks;
      const std::size_t count = shape.count_parameters() + bias;
      if (ranks == last || count >= choices[0].parameters) continue;
      last = ranks;
      smaller = true;
      double left_out = 0;
      for (std::size_t k = 0; k < ranks.rank(); ++k)
        for (std::size_t r = ranks[k]; r < balance.singular_values(k).size(); ++r)
          left_out += balance.singular_values(k)[r] * balance.singular_values(k)[r];
      const double error = std::min(std::sqrt(cut * cut + left_out / balance.squared_norm()), 1.0);
      CompressChoice choice;
      layer::Values values =
          balance.cut(matrix.cores(), ranks, network::Balance::Kind::value, balance.factors(matrix.cores(), ranks));
      if (dense.use_bias) values.push_back(dense.initial->at(1));
      choice.layer = whole;
      choice.layer.rank = 0, choice.layer.ranks = ranks, choice.layer.name = dense.name;
      choice.layer.initial = std::make_shared<const layer::Values>(std::move(values));
      choice.parameters = count, choice.error = error;
      choice.microseconds = measured<T, B>(choice.layer, in, options.batch_size);
      if (choice.microseconds < 0.95 * choices[0].microseconds) choices.push_back(std::move(choice));
    }
  }
  if (!smaller)
    why = "no tensor-train of it is smaller";
  else if (choices.size() == 1)
    why = text("no smaller form is faster at batch ", options.batch_size);
  else
    why = "the budget leaves room for it";
  return choices;
}

}  // namespace detail

/// Replaces dense layers of a trained and compiled model by tensor-train layers, so that the model keeps to a budget of
/// bytes or of time at the least cost in loss. For each layer, modes and a row of sizes are tried, the ranks of each
/// chosen by the singular values; what each of them does to the loss of the calibration samples decides how the budget
/// is shared. fit() goes on from there; the replaced layers' optimizer state begins anew. A budget that cannot be kept
/// is an error, and leaves the model as it is.
template <class T, class B>
[[gnu::cold]] CompressReport compress(BasicSequential<T, B>& model, const CompressOptions& options) {
  if ((options.budget == 0) == (options.microseconds == 0))
    raise<UsageError>("compress: needs one of .budget, in bytes, and .microseconds");
  if (!(options.microseconds >= 0) || options.batch_size == 0 || options.most_cores < 2 || options.most_rank == 0 ||
      options.most_cores > backend::max_cores)
    raise<UsageError>("compress: .microseconds (", options.microseconds, "), .batch_size (", options.batch_size,
                      ") and .most_rank (", options.most_rank, ") have to be above 0, .most_cores (",
                      options.most_cores, ") from 2 to ", backend::max_cores);
  if (!model.network().built() || !model.training().loss)
    raise<UsageError>("compress: needs a model that was built and compiled, best one that was trained");
  if (!options.calibration.given()) raise<UsageError>("compress: needs .calibration, samples to see the loss on");
  data::Samples samples = options.calibration;
  for (ArrayView* view : {&samples.x, &samples.y, &samples.weight}) *view = view->first(options.samples);
  const auto loss = [&] { return model.evaluate(samples, {.batch_size = 256})["loss"]; };

  CompressReport report;
  report.loss_before = loss();
  auto& net = model.network();
  std::vector<std::size_t> places;
  std::vector<layer::Dense> dense;
  std::vector<std::string> why;
  std::vector<std::vector<detail::CompressChoice>> choices;
  for (std::size_t i = 0; i < net.entries().size(); ++i) {
    if (net.entries()[i].node->kind() != layer::Dense::kind) continue;
    places.push_back(i);
    dense.push_back(net.template layer<layer::Dense>(net.entries()[i].name));
    why.emplace_back();
    choices.push_back(detail::compress_choices<T, B>(dense.back(), options, why.back()));
  }
  const std::size_t all = model::count_parameters(net);
  report.bytes_before = all * sizeof(T);

  for (std::size_t l = 0; l < places.size(); ++l) {
    const std::vector<layer::Values> slots = net.slots_of(net.entries()[places[l]]);
    for (std::size_t c = 1; c < choices[l].size(); ++c) {
      net.replace(places[l], choices[l][c].layer);
      choices[l][c].loss = std::max(loss() - report.loss_before, 0.0);
    }
    if (choices[l].size() > 1) net.replace(places[l], dense[l], slots);
  }

  // For each price of what the budget counts, every layer takes what is cheapest for it; the lowest price that keeps to
  // the budget wins.
  const bool bytes = options.budget != 0;
  const auto cost_of = [&](const detail::CompressChoice& c) {
    return bytes ? static_cast<double>(c.parameters * sizeof(T)) : c.microseconds;
  };
  double fixed = 0;
  if (bytes) {
    std::size_t in_layers = 0;
    for (const auto& own : choices) in_layers += own[0].parameters;
    fixed = static_cast<double>((all - in_layers) * sizeof(T));
  }
  const double budget = bytes ? static_cast<double>(options.budget) : options.microseconds;
  const auto chosen_at = [&](double price) {
    std::vector<std::size_t> chosen;
    for (std::size_t l = 0; l < places.size(); ++l) {
      const auto total = [&](const detail::CompressChoice& c) { return c.loss + price * cost_of(c); };
      std::size_t best = 0;
      for (std::size_t c = 1; c < choices[l].size(); ++c)
        if (total(choices[l][c]) < total(choices[l][best])) best = c;
      chosen.push_back(best);
    }
    return chosen;
  };
  const auto total_of = [&](const std::vector<std::size_t>& chosen) {
    double total = fixed;
    for (std::size_t l = 0; l < chosen.size(); ++l) total += cost_of(choices[l][chosen[l]]);
    return total;
  };
  constexpr double highest = 1e12;
  std::vector<std::size_t> chosen = chosen_at(0);
  if (total_of(chosen) > budget) {
    const double least = total_of(chosen_at(highest));
    if (least > budget)
      raise<UsageError>("compress: the least that the model can take is ", least, bytes ? " bytes" : " us",
                        ", more than the budget of ", budget, "; the model is as it was");
    double low = 1e-15, high = highest;
    for (int round = 0; round < 200; ++round) {
      const double middle = std::sqrt(low * high);
      (total_of(chosen_at(middle)) > budget ? low : high) = middle;
    }
    chosen = chosen_at(high);
    // What is left of the budget goes where it helps most.
    for (bool better = true; better;) {
      better = false;
      double gain = 0;
      std::size_t at = 0, to = 0;
      for (std::size_t l = 0; l < places.size(); ++l)
        for (std::size_t c = 0; c < choices[l].size(); ++c) {
          const detail::CompressChoice &now = choices[l][chosen[l]], &then = choices[l][c];
          if (total_of(chosen) - cost_of(now) + cost_of(then) > budget || now.loss - then.loss <= gain) continue;
          gain = now.loss - then.loss, at = l, to = c, better = true;
        }
      if (better) chosen[at] = to;
    }
  }

  for (std::size_t l = 0; l < places.size(); ++l) {
    const detail::CompressChoice& c = choices[l][chosen[l]];
    const std::string name = net.entries()[places[l]].name;
    report.layers.push_back(
        {name, c.parameters, choices[l][0].parameters, c.microseconds, choices[l][0].microseconds, c.error,
         c.dense() ? "stays dense: " + why[l] : text(c.layer.in, " to ", c.layer.out, ", ranks ", c.layer.ranks)});
    if (!c.dense()) net.replace(places[l], c.layer);
  }
  report.bytes = model::count_parameters(net) * sizeof(T);
  report.loss = loss();
  return report;
}

}  // namespace tesla::inline TESLA_TARGET
