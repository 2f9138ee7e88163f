// Models in files: one safetensors file with the parameters in their natural layout ({out, in} for weights; of sparse
// weights the values of compressed rows, with `.pointers` and `.indices` beside them), the optimizer's state, and the
// model's description as JSON in the metadata under "tesla".
#pragma once

#include <tesla/io/safetensors.hpp>
#include <tesla/layer/dense.hpp>
#include <tesla/layer/input.hpp>
#include <tesla/layer/sparse_dense.hpp>
#include <tesla/layer/tensor_train.hpp>
#include <tesla/loss/cosine_similarity.hpp>
#include <tesla/loss/cross_entropy.hpp>
#include <tesla/loss/focal.hpp>
#include <tesla/loss/hinge.hpp>
#include <tesla/loss/kl_divergence.hpp>
#include <tesla/loss/regression.hpp>
#include <tesla/metric/accuracy.hpp>
#include <tesla/metric/confusion_matrix.hpp>
#include <tesla/metric/mean_absolute_error.hpp>
#include <tesla/metric/perplexity.hpp>
#include <tesla/metric/precision_recall.hpp>
#include <tesla/metric/regression.hpp>
#include <tesla/metric/roc_auc.hpp>
#include <tesla/metric/top_k.hpp>
#include <tesla/model/training.hpp>
#include <tesla/optimizer/adagrad.hpp>
#include <tesla/optimizer/adam.hpp>
#include <tesla/optimizer/lamb.hpp>
#include <tesla/optimizer/lion.hpp>
#include <tesla/optimizer/rmsprop.hpp>
#include <tesla/optimizer/sgd.hpp>

#include <optional>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

namespace detail {

inline constexpr std::size_t file_format = 1;

inline io::Json described(std::string_view kind, io::Json options) {
  return io::Json::object({{"kind", std::string(kind)}, {"options", std::move(options)}});
}

template <class T, class B>
[[gnu::cold]] io::Json description(const Network<T, B>& network, const Training<T, B>& training) {
  io::Json layers = io::Json::array(), metrics = io::Json::array();
  for (const auto& e : network.entries()) {
    io::Json layer = described(e.node->kind(), e.node->facts().options);
    layer.set("name", e.name);
    layer.set("inputs", e.in.elements());
    if (e.checkpoint != 0) layer.set("checkpoint", e.checkpoint);
    const std::size_t number = static_cast<std::size_t>(&e - network.entries().data());
    if (e.from.size() != 1 || e.from[0] != number - 1) {  // 0 is the model's input, 1 the first layer
      std::vector<std::size_t> from;
      for (const std::size_t source : e.from) from.push_back(source + 1);
      layer.set("from", io::Json::array(from));
    }
    layers.push_back(std::move(layer));
  }
  for (const auto& m : training.metrics)
    if (m->facts().options.size() == 0)
      metrics.push_back(std::string(m->facts().name));
    else
      metrics.push_back(described(m->facts().name, m->facts().options));
  const Shape& input = network.input_shape();
  io::Json result = io::Json::object({{"format", file_format},
                                      {"version", version},
                                      {"seed", network.seed()},
                                      {"input", io::Json::array(std::vector<std::size_t>(input.begin(), input.end()))},
                                      {"layers", std::move(layers)},
                                      {"step", training.step},
                                      {"epochs", training.epochs}});
  if (training.loss) {
    result.set("loss", described(training.loss->facts().kind, training.loss->facts().options));
    result.set("optimizer", described(training.optimizer->facts().kind, training.optimizer->facts().options));
    result.set("metrics", std::move(metrics));
    if (training.rate_factor != 1) result.set("rate_factor", training.rate_factor);
    if (network.memory() != 0) result.set("memory", network.memory());
  }
  if (!training.rules.empty()) result.set("rules", training.rules.write());
  if (network.store().averaged())
    result.set("averages",
               io::Json::object({{"steps", training.averaged_steps}, {"in_place", training.averages_in_place}}));
  return result;
}

/// Where a file has the state of a parameter: the optimizer's slots, and after them the running average.
inline std::string slot_name(const std::string& parameter, std::size_t slot, std::size_t optimizer_slots) {
  return slot == optimizer_slots ? parameter + ".average" : text(parameter, ".optimizer.", slot);
}

/// A file opened as a model: its tensors, and its description.
struct ModelFile {
  std::string path;
  io::SafeTensors tensors;
  io::Json description;

  [[gnu::cold]] explicit ModelFile(const std::string& p) : path(p), tensors(io::SafeTensors::read(p)) {
    const io::Json* found = tensors.metadata().find("tesla");
    if (found == nullptr)
      raise<FormatError>('"', path, "\": the metadata has no \"tesla\", so it is not a model that TESLA saved");
    description = io::Json::parse(found->template as<std::string>(), text('"', path, "\", metadata \"tesla\""));
    if (const auto format = description.get<std::size_t>("format"); format != file_format)
      raise<FormatError>('"', path, "\": written in format ", format, ", this version reads format ", file_format);
  }

  template <class T>
  Tensor<T> tensor(const std::string& name, const Shape& shape) const {
    check_shape(name, shape);
    Tensor<T> result = tensors.template tensor<T>(name);
    for (const T value : result)
      if (!is_finite(value)) raise<DataError>('"', path, "\": tensor \"", name, "\" holds a NaN or an infinity");
    return result;
  }
  /// The pattern of sparse weights.
  sparse::Pattern pattern(const std::string& weight, std::size_t columns, const layer::SparseDense& layer) const {
    const Tensor<std::int64_t> pointers = tensors.template tensor<std::int64_t>(weight + ".pointers");
    const Tensor<std::int32_t> indices = tensors.template tensor<std::int32_t>(weight + ".indices");
    try {
      if (pointers.shape().rank() != 1 || pointers.size() == 0 || indices.shape().rank() != 1)
        raise<ShapeError>("pointers and indices have one extent, and pointers are not empty");
      sparse::Pattern result{pointers.size() - 1, columns, std::vector<std::uint64_t>(pointers.begin(), pointers.end()),
                             std::vector<std::uint32_t>(indices.begin(), indices.end())};
      if (result.rows() != layer.units)
        raise<ShapeError>("has ", result.rows(), " rows, but the layer has ", layer.units, " units");
      if (!result.in_blocks(layer.block))
        raise<ShapeError>("does not come in the layer's blocks of ", layer.block.rows, " x ", layer.block.columns);
      return result;
    } catch (const Error& e) {
      raise<FormatError>('"', path, "\": tensor \"", weight, "\": ", e.what());
    }
  }
  void check_shape(const std::string& name, const Shape& shape) const {
    if (const Shape& found = tensors.at(name).shape; !(found == shape))
      raise<FormatError>('"', path, "\": tensor \"", name, "\" has shape ", found, ", the model needs ", shape);
  }
};

/// What a file says of all parameters: read before anything changes.
template <class T>
struct Contents {
  std::vector<Tensor<T>> values;  // of each parameter and, after it, of the optimizer's slots
  std::size_t slots = 0, step = 0, epochs = 0;
  double rate_factor = 1;
  std::optional<ParameterRules> rules = {};
  bool averaged = false, averages_in_place = false;  // the averages are in the last slot
  std::size_t averaged_steps = 0;
};

/// With the optimizer's state, where the file and the model have it.
template <class T, class B>
[[gnu::cold]] Contents<T> read_contents(const ModelFile& file, const std::vector<ParameterPlace>& places,
                                        const Training<T, B>& training) {
  for (const auto& p : places) file.check_shape(p.name, p.shape);  // all, before memory is taken for any
  const io::Json* optimizer = file.description.find("optimizer");
  const bool with_state = training.optimizer && optimizer != nullptr &&
                          optimizer->template get<std::string>("kind") == training.optimizer->facts().kind;
  Contents<T> contents;
  const std::size_t own_slots = with_state ? training.optimizer->slots() : 0;
  const io::Json* averages = with_state ? file.description.find("averages") : nullptr;
  if (averages != nullptr) {
    contents.averaged = true;
    contents.averages_in_place = averages->template get<bool>("in_place");
    contents.averaged_steps = averages->template get<std::size_t>("steps");
  }
  contents.slots = own_slots + contents.averaged;
  if (with_state) contents.rate_factor = file.description.template get<double>("rate_factor", 1.0);
  if (!(contents.rate_factor >= 0 && is_finite(contents.rate_factor)))
    raise<FormatError>('"', file.path, "\": a rate_factor of ", contents.rate_factor);
  try {
    if (const io::Json* rules = file.description.find("rules")) contents.rules = ParameterRules::read(*rules);
  } catch (const UsageError& e) {
    raise<FormatError>('"', file.path, "\": rules: ", e.what());
  }
  for (const auto& p : places) {
    contents.values.push_back(file.template tensor<T>(p.name, p.shape));
    for (std::size_t s = 0; s < contents.slots; ++s)
      contents.values.push_back(file.template tensor<T>(slot_name(p.name, s, own_slots), p.shape));
  }
  if (const auto step = file.description.template get<std::size_t>("step"); with_state) contents.step = step;
  contents.epochs = file.description.template get<std::size_t>("epochs");
  return contents;
}

template <class T, class B>
[[gnu::cold]] void write_contents(const Contents<T>& contents, Network<T, B>& network, Training<T, B>& training) {
  auto& store = network.store();
  if (training.optimizer) store.allocate_slots(training.optimizer->slots() + contents.averaged, contents.averaged);
  auto value = contents.values.begin();
  for (const auto& p : store.places()) {
    store.write(store.values(), p, (value++)->data());
    for (std::size_t s = 0; s < contents.slots; ++s) store.write(store.slot(s), p, (value++)->data());
  }
  training.step = contents.step;
  training.epochs = contents.epochs;
  training.rate_factor = contents.rate_factor;
  if (contents.rules) training.rules = *contents.rules;
  training.averaged_steps = contents.averaged_steps;
  training.averages_in_place = contents.averages_in_place;
  training.from_file = true;
}

template <class X>
[[gnu::cold]] X read_options(const io::Json& options) {
  X result;
  result.fields(FieldReader{options});
  return result;
}

/// The layer of a node, if it is a sparse one.
template <class T, class B>
layer::SparseDense* sparse_layer(LayerNode<T, B>* node) {
  auto* const known = dynamic_cast<LayerNodeOf<layer::SparseDense, T, B>*>(node);
  return known == nullptr ? nullptr : &known->layer();
}

template <class T, class B>
[[gnu::cold]] void add_layer(Network<T, B>& network, const io::Json& layer, const ModelFile& file) {
  const auto kind = layer.template get<std::string>("kind");
  const io::Json& options = layer.at("options");
  const std::size_t number = network.entries().size();
  std::vector<std::size_t> from{number - 1};
  if (layer.contains("from")) {
    from = layer.template get<std::vector<std::size_t>>("from");
    for (std::size_t& source : from)
      if (source-- > number)
        raise<FormatError>('"', file.path, "\": layer ", number + 1, " reads layer ", source + 1, ", a later one");
  }
  const auto name = layer.template get<std::string>("name");
  auto node = LayerKinds<T, B>::make(kind, options, name);
  if (node == nullptr)
    raise<UsageError>("this program names no layer of kind \"", kind,
                      "\"; if it is one of TESLA's, load with Sequential::load<tesla::AllLayers>(path), which compiles "
                      "all kinds; if not, build the model in code, then call restore(path)");
  if (auto* const sparse = sparse_layer<T, B>(node.get()))
    sparse->live = file.pattern(name + ".weight", layer.template get<std::size_t>("inputs"), *sparse);
  if (node->facts().joins ? from.size() < 2 : from.size() != 1)
    raise<FormatError>('"', file.path, "\": layer \"", name, "\" of kind ", kind, " reads ", from.size(), " layers");
  const auto checkpoint = layer.template get<std::size_t>("checkpoint", 0);
  if (checkpoint > number + 2)
    raise<FormatError>('"', file.path, "\": layer \"", name, "\" has a checkpoint numbered ", checkpoint);
  network.add(std::move(node), std::move(from), checkpoint);
}

/// Calls f with an object of the type in the list whose kind is asked for, its options read.
template <class... X, class F>
[[gnu::cold]] void with_kind(const io::Json& described, std::string_view what, const F& f) {
  const auto kind = described.template get<std::string>("kind");
  bool known = false;
  const auto consider = [&]<class Y>(std::type_identity<Y>) {
    if (known || kind != Y::kind) return;
    known = true;
    f(Y(static_cast<const Y&>(read_options<Y>(described.at("options")))));
  };
  (consider(std::type_identity<X>()), ...);
  if (!known)
    raise<UsageError>(what, " \"", kind,
                      "\" is not one of TESLA's: build and compile the model in code, then call restore(path)");
}

/// A metric without options is its name alone.
template <class T>
[[gnu::cold]] AnyMetric<T> read_metric(const io::Json& described) {
  const bool plain = described.is_string();
  const auto name = plain ? described.template as<std::string>() : described.template get<std::string>("kind");
  std::optional<AnyMetric<T>> result;
  const auto consider = [&]<class M>(std::type_identity<M>) {
    if (result || name != M::name) return;
    M made;
    if constexpr (requires { made.fields(FieldReader{described}); })
      if (!plain) made.fields(FieldReader{described.at("options")});
    if constexpr (requires { made.check(); }) made.check();
    result = std::move(made);
  };
  consider(std::type_identity<metric::Accuracy>());
  consider(std::type_identity<metric::TopK>());
  consider(std::type_identity<metric::Precision>());
  consider(std::type_identity<metric::Recall>());
  consider(std::type_identity<metric::F1>());
  consider(std::type_identity<metric::RocAuc>());
  consider(std::type_identity<metric::ConfusionMatrix>());
  consider(std::type_identity<metric::MeanAbsoluteError>());
  consider(std::type_identity<metric::MeanAbsolutePercentageError>());
  consider(std::type_identity<metric::RootMeanSquaredError>());
  consider(std::type_identity<metric::R2>());
  consider(std::type_identity<metric::Perplexity>());
  if (!result)
    raise<UsageError>("the metric \"", name,
                      "\" is not one of TESLA's: build and compile the model in code, then call restore(path)");
  return *result;
}

template <class T, class B>
[[gnu::cold]] void compile(const io::Json& description, Training<T, B>& training) {
  if (!description.contains("optimizer")) return;
  std::vector<AnyMetric<T>> metrics;
  for (const io::Json& m : description.at("metrics").elements()) metrics.push_back(read_metric<T>(m));
  with_kind<optim::SGD, optim::Adam, optim::AdamW, optim::RMSprop, optim::Adagrad, optim::Lion, optim::LAMB>(
      description.at("optimizer"), "the optimizer", [&](const auto& optimizer) {
        optimizer.check();
        training.set_optimizer(optimizer);
      });
  with_kind<loss::MeanSquaredError, loss::MeanAbsoluteError, loss::Huber, loss::BinaryCrossEntropy,
            loss::CategoricalCrossEntropy, loss::SparseCategoricalCrossEntropy, loss::Focal, loss::Hinge,
            loss::KLDivergence, loss::CosineSimilarity>(description.at("loss"), "the loss", [&](const auto& l) {
    if constexpr (requires { l.check(); }) l.check();
    training.set_loss(l, metrics);
  });
}

}  // namespace detail

template <class T, class B>
[[gnu::cold]] void save(const Network<T, B>& network, const Training<T, B>& training, const std::string& path) {
  if (!network.built())
    raise<UsageError>("save: the model has no parameters yet; ", network.entries().empty() ? "add layers, then " : "",
                      "call build(shape) or fit first");
  const auto& store = network.store();
  for (const auto& p : store.places())
    if (!store.finite(p))
      raise<DataError>("save: ", p.name, " holds a NaN or an infinity, with which no model could be loaded; ", '"',
                       path, "\" is as it was");
  std::vector<io::TensorInfo> tensors;
  std::vector<sparse::Pattern> patterns;  // of each parameter, empty where there is none
  const std::size_t slots = training.optimizer ? store.slots() : 0;
  for (const auto& p : store.places()) {
    tensors.push_back({p.name, io::dtype_of<T>(), p.shape});
    const sparse::Pattern& pattern = patterns.emplace_back(p.form ? p.form->pattern() : sparse::Pattern());
    if (p.form) {
      tensors.push_back({p.name + ".pointers", io::dtype_of<std::int64_t>(), {pattern.pointers().size()}});
      tensors.push_back({p.name + ".indices", io::dtype_of<std::int32_t>(), {pattern.indices().size()}});
    }
    for (std::size_t s = 0; s < slots; ++s)
      tensors.push_back({detail::slot_name(p.name, s, slots - store.averaged()), io::dtype_of<T>(), p.shape});
  }
  const io::Json metadata = io::Json::object({{"tesla", detail::description(network, training).write()}});
  io::SafeTensorsWriter writer(path, tensors, metadata);
  for (std::size_t i = 0; i < patterns.size(); ++i) {
    const ParameterPlace& p = store.places()[i];
    writer.write(io::bytes_of(store.read(store.values(), p)));
    if (p.form) {
      const sparse::Pattern& pattern = patterns[i];
      Tensor<std::int64_t> pointers({pattern.pointers().size()});
      std::copy(pattern.pointers().begin(), pattern.pointers().end(), pointers.begin());
      Tensor<std::int32_t> indices({pattern.indices().size()});
      std::copy(pattern.indices().begin(), pattern.indices().end(), indices.begin());
      writer.write(io::bytes_of(pointers));
      writer.write(io::bytes_of(indices));
    }
    for (std::size_t s = 0; s < slots; ++s) writer.write(io::bytes_of(store.read(store.slot(s), p)));
  }
  writer.commit();
}

/// Rebuilds everything into a network without layers.
template <class T, class B>
[[gnu::cold]] void load(Network<T, B>& network, Training<T, B>& training, const std::string& path) {
  LayerKinds<T, B>::name(LayerList<layer::Input, layer::Flatten, layer::Dense, layer::Activation>());
  const detail::ModelFile file(path);
  Network<T, B> rebuilt(file.description.template get<std::uint64_t>("seed"));
  try {
    for (const io::Json& layer : file.description.at("layers").elements()) detail::add_layer(rebuilt, layer, file);
    detail::compile(file.description, training);
  } catch (const UsageError& e) {
    raise<UsageError>("load \"", path, "\": ", e.what());
  }
  const auto input = file.description.template get<std::vector<std::size_t>>("input");
  detail::Contents<T> contents;
  rebuilt.build(Shape(std::span<const std::size_t>(input)), [&](const auto& places) {
    // Before any memory is taken: a description may promise more than the file holds.
    contents = detail::read_contents(file, places, training);
  });
  detail::write_contents(contents, rebuilt, training);
  rebuilt.set_memory(file.description.template get<std::size_t>("memory", 0));
  network = std::move(rebuilt);
}

/// Reads parameters, patterns of sparse weights and optimizer state into a network of the same layers.
template <class T, class B>
[[gnu::cold]] void restore(Network<T, B>& network, Training<T, B>& training, const std::string& path) {
  const detail::ModelFile file(path);
  detail::Contents<T> contents;
  bool build = !network.built();
  std::vector<layer::SparseDense*> changed;
  try {
    const std::vector<io::Json>& layers = file.description.at("layers").elements();
    for (std::size_t i = 0; i < network.entries().size() && i < layers.size(); ++i) {
      auto* const layer = network.template layer_at<layer::SparseDense>(i);
      if (layer == nullptr || layers[i].template get<std::string>("kind") != layer::SparseDense::kind) continue;
      sparse::Pattern pattern =
          file.pattern(network.entries()[i].name + ".weight", layers[i].template get<std::size_t>("inputs"), *layer);
      if (network.built() && layer->pattern() == pattern) continue;
      layer->live = std::move(pattern);
      changed.push_back(layer);
      build = true;
    }
    const auto input = file.description.template get<std::vector<std::size_t>>("input");
    if (build)
      network.build(Shape(std::span<const std::size_t>(input)),
                    [&](const auto& places) { contents = detail::read_contents(file, places, training); });
    else
      contents = detail::read_contents(file, network.store().places(), training);
  } catch (...) {
    for (layer::SparseDense* layer : changed) layer->live = {};
    throw;
  }
  detail::write_contents(contents, network, training);
}

}  // namespace tesla::inline TESLA_TARGET::model
