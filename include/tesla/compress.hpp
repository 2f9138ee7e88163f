// Compression of a trained model: layers become tensor-train layers where that makes them smaller, and not slower.
#pragma once

#include <tesla/layer/tensor_train.hpp>
#include <tesla/layer/tensor_train_convolution.hpp>
#include <tesla/layer/tensor_train_embedding.hpp>
#include <tesla/layer/tensor_train_recurrent.hpp>
#include <tesla/network/tensor_train/ranks.hpp>
#include <tesla/sequential.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace tesla::inline TESLA_TARGET {

struct CompressOptions {
  std::size_t budget = 0;          // bytes that all parameters of the model shall take at most, or
  double microseconds = 0;         // that the layers looked at shall take for a prediction of one batch
  std::size_t batch_size = 128;    // the batch at which layers are timed
  data::Samples calibration = {};  // samples on which it is seen what each choice does to the loss
  std::size_t samples = 4096;      // of them, at most
  std::size_t most_cores = 4;      // modes are tried from 2 to this many
  std::size_t most_rank = 128;     // larger ranks are not looked for
};

/// What became of each layer that was looked at.
struct CompressReport {
  struct Layer {
    std::string name;
    std::size_t parameters = 0, parameters_before = 0;
    double microseconds = 0, microseconds_before = 0;  // of a prediction, measured
    double error = 0;                                  // of the weights, relative
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

/// What each kind becomes.
layer::TensorTrain compressed(const layer::Dense&);
layer::TensorTrainConv2D compressed(const layer::Conv2D&);
layer::TensorTrainEmbedding compressed(const layer::Embedding&);
layer::TensorTrainSimpleRNN compressed(const layer::SimpleRNN&);
layer::TensorTrainLSTM compressed(const layer::LSTM&);
layer::TensorTrainGRU compressed(const layer::GRU&);

/// One way to hold a layer.
template <class T, class B>
struct CompressChoice {
  std::function<std::unique_ptr<model::LayerNode<T, B>>()> make = {};  // none: the layer as it is
  std::size_t parameters = 0;
  double error = 0, microseconds = 0;
  double loss = 0;  // more than the dense layer's
  std::string what = {};
  bool dense() const { return !make; }
};

/// A layer of the model with all ways worth a thought to hold it, itself first; `why` says what speaks against others.
template <class T, class B>
struct CompressLayer {
  std::size_t place = 0, tokens = 0;  // numbers that it looks up, if it does
  double slowest = 1;                 // time that others may take, as a multiple of its own
  std::vector<CompressChoice<T, B>> choices = std::vector<CompressChoice<T, B>>(1);
  std::string why = {};
};

/// The trains of a layer at their largest ranks, one for each direction of a recurrent one, and cuts to smaller ranks,
/// which are the same for all of them.
class CompressTrains {
 public:
  /// `values` of the layer: for each direction the cores, then the rest.
  [[gnu::cold]] CompressTrains(std::shared_ptr<const layer::Values> values, std::size_t cores, std::size_t directions)
      : values_(std::move(values)), cores_(cores), each_(values_->size() / directions) {
    std::array<std::size_t, Shape::max_rank> in{}, out{}, ranks{};
    for (std::size_t k = 0; k < cores; ++k) {
      const Shape& core = (*values_)[k].shape();
      out[k] = core[1], in[k] = core[2], ranks[k] = core[3];
    }
    const auto shape = [](const auto& extents, std::size_t n) {
      return Shape(std::span<const std::size_t>(extents.data(), n));
    };
    shape_ = {shape(in, cores), shape(out, cores), shape(ranks, cores - 1)};
    for (std::size_t d = 0; d < directions; ++d) balances_.emplace_back(cores_of(d));
  }

  struct Row {
    Shape ranks;
    std::size_t parameters;
    double error;
  };
  /// Smaller and smaller trains for weights of so many numbers and this squared norm.
  [[gnu::cold]] std::vector<Row> rows(std::size_t weights, double squared_norm) const {
    std::vector<Row> result;
    for (double share = 0.8; share > 1e-4; share *= 0.8) {
      const network::TensorTrainShape s = within(static_cast<std::size_t>(share * static_cast<double>(weights)));
      const std::size_t count = balances_.size() * s.count_parameters();
      if (count >= weights || (!result.empty() && result.back().ranks == s.ranks)) continue;
      double kept = 0;
      for (const network::Balance& balance : balances_) {
        kept += balance.squared_norm();
        for (std::size_t k = 0; k < s.ranks.rank(); ++k)
          for (std::size_t r = s.ranks[k]; r < balance.singular_values(k).size(); ++r)
            kept -= balance.singular_values(k)[r] * balance.singular_values(k)[r];
      }
      const double left_out = squared_norm > 0 ? 1 - kept / squared_norm : 0;
      result.push_back({s.ranks, count, std::sqrt(std::clamp(left_out, 0.0, 1.0))});
    }
    return result;
  }

  /// All values of the layer at these ranks.
  [[gnu::cold]] layer::Values cut(const Shape& ranks) const {
    layer::Values result;
    for (std::size_t d = 0; d < balances_.size(); ++d) {
      const std::vector<Tensor<double>> cores = cores_of(d);
      for (Tensor<double>& core :
           balances_[d].cut(cores, ranks, network::Balance::Kind::value, balances_[d].factors(cores, ranks)))
        result.push_back(std::move(core));
      const auto first = values_->begin() + static_cast<std::ptrdiff_t>(d * each_);
      result.insert(result.end(), first + static_cast<std::ptrdiff_t>(cores_),
                    first + static_cast<std::ptrdiff_t>(each_));
    }
    return result;
  }

 private:
  std::vector<Tensor<double>> cores_of(std::size_t direction) const {
    const auto first = values_->begin() + static_cast<std::ptrdiff_t>(direction * each_);
    return {first, first + static_cast<std::ptrdiff_t>(cores_)};
  }
  [[gnu::cold]] network::TensorTrainShape within(std::size_t parameters) const {
    const std::vector<network::TensorTrainShape> all =
        network::shapes_within(std::vector(balances_.size(), shape_), balances_, parameters);
    Shape ranks = all[0].ranks;
    for (std::size_t k = 0; k < ranks.rank(); ++k) ranks = ranks.with(k, std::max(ranks[k], all.back().ranks[k]));
    return network::clipped_shape(shape_.in, shape_.out, ranks);
  }

  std::shared_ptr<const layer::Values> values_;
  std::size_t cores_, each_;  // the cores, and all values, of a direction
  network::TensorTrainShape shape_;
  std::vector<network::Balance> balances_;
};

/// Modes to try. Those of tokens may make more than there are; filters have a core of taps beside these.
[[gnu::cold]] inline std::vector<std::array<Shape, 2>> compress_modes(std::size_t in, std::size_t out, std::size_t most,
                                                                      bool tokens, bool filters) {
  std::vector<std::array<Shape, 2>> modes{{Shape{in, 1}, Shape{1, out}}};  // a product of two matrices, to begin with
  if (filters) modes.push_back({Shape{in}, Shape{out}});
  for (std::size_t cores = 2; cores <= std::min(most, backend::max_cores - filters); ++cores) {
    const network::FactoredModes a = network::factor_modes(in, cores), b = network::factor_modes(out, cores);
    if ((!tokens && a.padding != 0) || b.padding != 0 || a.modes[0] == 1 || b.modes[0] == 1) continue;
    modes.push_back({a.modes, b.modes});
  }
  return modes;
}

/// The ways to hold a layer that are smaller, not yet measured.
template <class L, class T, class B>
[[gnu::cold]] void add_choices(const L& dense, const CompressOptions& options, CompressLayer<T, B>& own) {
  using Form = decltype(compressed(dense));
  constexpr bool table = std::same_as<L, layer::Embedding>, filters = std::same_as<L, layer::Conv2D>;
  const layer::Values& values = *dense.initial;
  const Shape& shape = values[0].shape();
  const std::size_t in = shape[table ? 0 : shape.rank() - 1], out = shape[table ? 1 : 0];
  std::size_t directions = 1;
  if constexpr (requires { dense.bidirectional; }) directions += dense.bidirectional;
  if constexpr (table) own.tokens = dense.tokens;
  // Filters are made once, and an embedding is there for its size.
  own.slowest = options.microseconds > 0 || std::same_as<L, layer::Dense> ? 0.95
                : table                                                   ? std::numeric_limits<double>::infinity()
                                                                          : 1.05;
  std::size_t all = 0, weights = 0;
  double squares = 0;
  for (std::size_t p = 0; p < values.size(); ++p) {
    all += values[p].size();
    if (p % (values.size() / directions) != 0) continue;
    weights += values[p].size();
    for (const double w : values[p]) squares += w * w;
  }
  own.choices[0].parameters = all;
  if constexpr (requires { dense.groups; })
    if (dense.groups != 1) {
      own.why = "it has groups";
      return;
    }
  for (const auto& [in_modes, out_modes] : compress_modes(in, out, options.most_cores, table, filters)) {
    Form form;
    form.in = in_modes, form.out = out_modes, form.rank = options.most_rank, form.name = dense.name;
    if (dense.initializer.kind != init::Initializer::Kind::constant) form.initializer = dense.initializer;
    form = Form::from(dense, form);
    const auto trains = std::make_shared<const CompressTrains>(form.initial, form.ranks.rank() + 1, directions);
    form.rank = 0, form.initial = nullptr;
    for (const CompressTrains::Row& row : trains->rows(weights, squares)) {
      CompressChoice<T, B>& choice = own.choices.emplace_back();
      choice.parameters = row.parameters + all - weights, choice.error = row.error;
      choice.what = text(in_modes, " to ", out_modes, ", ranks ", row.ranks);
      choice.make = [form, trains, ranks = row.ranks] {
        Form result = form;
        result.ranks = ranks, result.initial = std::make_shared<const layer::Values>(trains->cut(ranks));
        return std::unique_ptr<model::LayerNode<T, B>>(
            std::make_unique<model::LayerNodeOf<Form, T, B>>(std::move(result)));
      };
    }
  }
}

/// Looks at a layer of the model, if it is of this kind.
template <class L, class T, class B>
[[gnu::cold]] bool look_at(const model::Network<T, B>& net, const CompressOptions& options, CompressLayer<T, B>& own) {
  const auto& entry = net.entries()[own.place];
  if (entry.node->kind() != L::kind) return false;
  static_cast<void>(model::LayerKinds<T, B>::template has<decltype(compressed(std::declval<L>()))>);  // for load
  add_choices(net.template layer<L>(entry.name), options, own);
  return true;
}

/// A layer of another model, by itself.
template <class T, class B>
struct Borrowed {
  static constexpr std::string_view kind = "Borrowed";
  model::LayerNode<T, B>* node = nullptr;

  Shape setup(const Shape& in, layer::Setup& setup) const {
    const Shape out = node->setup(std::span(&in, 1), setup);
    node->keep_setup();
    return out;
  }
  template <class, class>
  MemoryNeed memory(std::size_t batch, bool training) const {
    return node->memory(batch, training);
  }
  void forward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const { node->forward(pass, x, y); }
  void backward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const {
    node->backward(pass, x, y, dy, dx);
  }
};

/// The time of a prediction of one layer, at its best; `tokens`: of whole numbers below that.
template <class T, class B>
[[gnu::cold]] double measured(model::LayerNode<T, B>& layer, const Shape& in, std::size_t tokens, std::size_t batch) {
  BasicSequential<T, B> model;
  model.add_layer(Borrowed<T, B>{&layer});
  model.build(in);
  Tensor<T> x(in.with_front(batch)), y(model.output_shape().with_front(batch));
  random::fill_normal(x, {.seed = 1});
  const random::Stream random(1);
  for (std::size_t i = 0; i < x.size() && tokens != 0; ++i) x[i] = static_cast<T>(random.bits(i) % tokens);
  double best = std::numeric_limits<double>::infinity();
  for (int turn = 0; turn < 9; ++turn) {
    const auto start = std::chrono::steady_clock::now();
    model.predict_into(x, std::span<T>(y.data(), y.size()), {.batch_size = batch});
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best * 1e6;
}

/// Measures all choices, and leaves out those that are too slow.
template <class T, class B>
[[gnu::cold]] void measure(const model::Network<T, B>& net, const CompressOptions& options, CompressLayer<T, B>& own) {
  const auto& entry = net.entries()[own.place];
  const bool smaller = own.choices.size() > 1;
  std::vector<CompressChoice<T, B>> kept;
  for (CompressChoice<T, B>& choice : own.choices) {
    const auto made = choice.dense() ? nullptr : choice.make();
    const auto time_of = [&](auto& node) { return measured(*node, entry.in, own.tokens, options.batch_size); };
    choice.microseconds = made ? time_of(made) : time_of(entry.node);
    if (!kept.empty()) {
      const double dense = kept[0].microseconds, most = own.slowest * dense;
      // The machine may be busier than it was: both again, one after the other.
      if (choice.microseconds >= most && choice.microseconds < 1.2 * most)
        choice.microseconds = dense / time_of(entry.node) * time_of(made);
      if (choice.microseconds >= most) continue;
    }
    kept.push_back(std::move(choice));
  }
  own.choices = std::move(kept);
  if (!own.why.empty()) return;
  if (!smaller)
    own.why = "no tensor-train of it is smaller";
  else if (own.choices.size() == 1)
    own.why = text("no smaller form is ", own.slowest < 1 ? "faster" : "as fast", " at batch ", options.batch_size);
  else
    own.why = "the budget leaves room for it";
}

/// Layers in the places of others, which come back with their values and optimizer state if they are asked to.
template <class T, class B>
class Substitutes {
 public:
  explicit Substitutes(model::Network<T, B>& net) : net_(net) {}

  [[gnu::cold]] void put(std::size_t place, const CompressChoice<T, B>& choice) {
    const auto known = std::find_if(before_.begin(), before_.end(), [&](const auto& b) { return b.place == place; });
    if (known != before_.end()) {
      net_.replace(place, choice.make());
      return;
    }
    const auto& entry = net_.entries()[place];
    Before before{place, net_.values_of(entry, net_.store().values()), net_.slots_of(entry), nullptr};
    before_.reserve(before_.size() + 1);
    before.node = net_.replace(place, choice.make());
    before_.push_back(std::move(before));
  }
  [[gnu::cold]] void take_back() {
    for (; !before_.empty(); before_.pop_back()) {
      Before& b = before_.back();
      net_.replace(b.place, std::move(b.node), b.slots);
      const auto& entry = net_.entries()[b.place];
      auto& store = net_.store();
      for (std::size_t p = 0; p < entry.parameters; ++p)
        store.write(store.values(), store.places()[entry.first_parameter + p], b.values[p].data());
    }
  }

 private:
  struct Before {
    std::size_t place;
    layer::Values values;
    std::vector<layer::Values> slots;
    std::unique_ptr<model::LayerNode<T, B>> node;
  };
  model::Network<T, B>& net_;
  std::vector<Before> before_;
};

/// compress(), layers being looked at by a function that tells whether it knows their kind. On an error, what was
/// replaced is among the substitutes.
template <class T, class B, class Look>
[[gnu::cold]] CompressReport compress(BasicSequential<T, B>& model, const CompressOptions& options, const Look& look,
                                      Substitutes<T, B>& substitutes) {
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
  std::vector<CompressLayer<T, B>> layers;
  for (std::size_t i = 0; i < net.entries().size(); ++i) {
    CompressLayer<T, B> own;
    own.place = i;
    if (!look(net, options, own)) continue;
    measure(net, options, own);
    layers.push_back(std::move(own));
  }
  const std::size_t all = model::count_parameters(net);
  report.bytes_before = all * sizeof(T);

  for (CompressLayer<T, B>& own : layers) {
    for (CompressChoice<T, B>& choice : own.choices) {
      if (choice.dense()) continue;
      substitutes.put(own.place, choice);
      choice.loss = std::max(loss() - report.loss_before, 0.0);
    }
    substitutes.take_back();
  }

  // For each price of what the budget counts, every layer takes what is cheapest for it; the lowest price that keeps to
  // the budget wins.
  const bool bytes = options.budget != 0;
  const auto cost_of = [&](const CompressChoice<T, B>& c) {
    return bytes ? static_cast<double>(c.parameters * sizeof(T)) : c.microseconds;
  };
  double fixed = 0;
  if (bytes) {
    std::size_t in_layers = 0;
    for (const auto& own : layers) in_layers += own.choices[0].parameters;
    fixed = static_cast<double>((all - in_layers) * sizeof(T));
  }
  const double budget = bytes ? static_cast<double>(options.budget) : options.microseconds;
  const auto chosen_at = [&](double price) {
    std::vector<std::size_t> chosen;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      const auto total = [&](const CompressChoice<T, B>& c) { return c.loss + price * cost_of(c); };
      std::size_t best = 0;
      for (std::size_t c = 1; c < layers[l].choices.size(); ++c)
        if (total(layers[l].choices[c]) < total(layers[l].choices[best])) best = c;
      chosen.push_back(best);
    }
    return chosen;
  };
  const auto total_of = [&](const std::vector<std::size_t>& chosen) {
    double total = fixed;
    for (std::size_t l = 0; l < chosen.size(); ++l) total += cost_of(layers[l].choices[chosen[l]]);
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
      for (std::size_t l = 0; l < layers.size(); ++l)
        for (std::size_t c = 0; c < layers[l].choices.size(); ++c) {
          const CompressChoice<T, B>&now = layers[l].choices[chosen[l]], &then = layers[l].choices[c];
          if (total_of(chosen) - cost_of(now) + cost_of(then) > budget || now.loss - then.loss <= gain) continue;
          gain = now.loss - then.loss, at = l, to = c, better = true;
        }
      if (better) chosen[at] = to;
    }
  }

  for (std::size_t l = 0; l < layers.size(); ++l) {
    const CompressChoice<T, B>& c = layers[l].choices[chosen[l]];
    const std::string name = net.entries()[layers[l].place].name;
    report.layers.push_back({name, c.parameters, layers[l].choices[0].parameters, c.microseconds,
                             layers[l].choices[0].microseconds, c.error,
                             c.dense() ? "stays dense: " + layers[l].why : c.what});
    if (!c.dense()) substitutes.put(layers[l].place, c);
  }
  report.bytes = model::count_parameters(net) * sizeof(T);
  report.loss = loss();
  return report;
}

}  // namespace detail

/// Replaces layers of a trained and compiled model by tensor-train layers, so that the model keeps to a budget of bytes
/// or of time at the least cost in loss. For each layer, modes and a row of sizes are tried, the ranks of each chosen
/// by the singular values; what each of them does to the loss of the calibration samples decides how the budget is
/// shared. fit() goes on from there; the replaced layers' optimizer state begins anew. A budget that cannot be kept is
/// an error, and leaves the model as it is.
///
/// compress<Dense>(...), with one kind or more, looks at these alone, and compiles faster than with all of them: Dense,
/// Conv2D, Embedding, SimpleRNN, LSTM and GRU.
template <class... Kinds, class T, class B>
[[gnu::cold]] CompressReport compress(BasicSequential<T, B>& model, const CompressOptions& options) {
  if constexpr (sizeof...(Kinds) == 0) {
    return compress<layer::Dense, layer::Conv2D, layer::Embedding, layer::SimpleRNN, layer::LSTM, layer::GRU>(model,
                                                                                                              options);
  } else {
    const auto look = [](const auto& net, const CompressOptions& o, detail::CompressLayer<T, B>& own) {
      return (detail::look_at<Kinds>(net, o, own) || ...);
    };
    detail::Substitutes<T, B> substitutes(model.network());
    try {
      return detail::compress(model, options, look, substitutes);
    } catch (...) {
      substitutes.take_back();
      throw;
    }
  }
}

}  // namespace tesla::inline TESLA_TARGET
