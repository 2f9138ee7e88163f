// The model that users hold: layers in a row, compiled with an optimizer, a loss and metrics, and trained.
#pragma once

#include <tesla/backend/cpu/cpu.hpp>
#include <tesla/model/file.hpp>
#include <tesla/model/network.hpp>
#include <tesla/model/summary.hpp>
#include <tesla/train/callback.hpp>
#include <tesla/train/interrupt.hpp>
#include <tesla/train/loader.hpp>
#include <tesla/train/progress.hpp>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET {

struct SequentialOptions {
  std::uint64_t seed = 0;  // of the initial parameters
};

struct EvaluateOptions {
  std::size_t batch_size = 256;
};

struct PredictOptions {
  std::size_t batch_size = 256;
};

template <class Model>
struct FitOptions {
  std::size_t epochs = 1;
  std::size_t batch_size = 32;
  bool shuffle = true;
  std::uint64_t seed = 0;         // of the shuffling
  data::Samples validation = {};  // a dataset, or {x, y}: evaluated after each epoch
  ArrayView sample_weight = {};   // one weight a sample, multiplied onto its loss
  std::vector<train::AnyCallback<Model>> callbacks = {};
  int verbose = 1;                 // 0 silent, 1 a bar on a terminal and else a line an epoch, 2 a line an epoch
  bool stop_on_interrupt = false;  // Ctrl-C ends training after the batch, with the history so far
};

template <class T, class B>
class BasicSequential {
 public:
  using Scalar = T;
  using Options = FitOptions<BasicSequential>;

  explicit BasicSequential(const SequentialOptions& options = {})
      : network_(std::make_unique<model::Network<T, B>>(options.seed)) {}
  template <class... L>
  requires(sizeof...(L) > 0 && (!std::same_as<L, BasicSequential> && ...)) &&
      (layer::Layer<L> && ...) explicit BasicSequential(L... layers) : BasicSequential() {
    (add_layer(std::move(layers)), ...);
  }

  /// Adds a layer at the end.
  template <layer::Layer L>
  BasicSequential& add_layer(L layer) {
    network_->add(std::move(layer));
    return *this;
  }

  /// Fixes the shape of one sample and makes the parameters. fit() and predict() do it by themselves.
  void build(const Shape& input) { network_->build(input); }

  template <optim::Optimizer O, loss::Loss L>
  void compile(O optimizer, L loss, std::vector<model::AnyMetric<T>> metrics = {}) {
    training_.set_optimizer(std::move(optimizer));
    training_.set_loss(std::move(loss), std::move(metrics));
    network_->store().allocate_slots(training_.optimizer->slots());  // build() makes as many again
  }

  /// Trains on samples; the history has one entry an epoch. On an error the parameters are as the last good step left
  /// them, and as they were when no step was made.
  History fit(const data::Samples& samples, const Options& options = {});
  History fit(const ArrayView& x, const ArrayView& y, const Options& options = {}) {
    return fit(data::Samples(x, y), options);
  }

  /// The loss and the metrics over samples.
  Scores evaluate(const data::Samples& samples, const EvaluateOptions& options = {}) {
    need_compiled("evaluate");
    BuiltFor built = build_for(samples.x);
    Loader loader(samples, *network_, training_.loss->targets(), "evaluate: ");
    built.keep();
    Scorer scorer(training_.metrics);
    evaluate(loader, checked_batch(options.batch_size, "evaluate"), scorer);
    Scores scores;
    scorer.write(scores);
    return scores;
  }
  Scores evaluate(const ArrayView& x, const ArrayView& y, const EvaluateOptions& options = {}) {
    return evaluate(data::Samples(x, y), options);
  }

  /// One row of outputs for each sample.
  Tensor<T> predict(const ArrayView& x, const PredictOptions& options = {}) {
    BuiltFor built = build_for(x);
    Tensor<T> result(network_->output_shape().with_front(x.samples()));
    predict_into(x, std::span<T>(result.data(), result.size()), options);
    built.keep();
    return result;
  }
  /// The same into memory that is already there; from the second call of a size on it allocates nothing.
  void predict_into(const ArrayView& x, std::span<T> out, const PredictOptions& options = {});

  /// One step of the optimizer on one batch; returns the loss before it.
  double train_step(const data::Samples& batch);
  double train_step(const ArrayView& x, const ArrayView& y) { return train_step(data::Samples(x, y)); }

  /// All parameters, in the order of the layers. They refer to the model.
  std::vector<model::Parameter<T, B>> parameters() {
    need_built("parameters");
    std::vector<model::Parameter<T, B>> result;
    for (std::size_t i = 0; i < network_->store().places().size(); ++i) result.emplace_back(network_->store(), i);
    return result;
  }
  model::Parameter<T, B> parameter(std::string_view name) {
    std::string known;
    for (const auto& p : parameters()) {
      if (p.name() == name) return p;
      known += (known.empty() ? "" : ", ") + p.name();
    }
    raise<UsageError>("parameter: there is no \"", name, "\", only ", known);
  }
  /// The number of learned values.
  std::size_t count_parameters() {
    need_built("count_parameters");
    return model::count_parameters(*network_);
  }

  /// The layers, their shapes and parameters, and the memory that training takes at a batch size, as text.
  std::string summary_text(std::size_t batch_size = 32) {
    if (!network_->built() && network_->wanted_input().rank() != 0) build(network_->wanted_input());
    return train::machine_line() + "\n" + model::summary(*network_, training_, batch_size);
  }
  void summary(std::size_t batch_size = 32) { std::fputs(summary_text(batch_size).c_str(), stdout); }
  /// Bytes that training takes at a batch size: parameters, gradients, optimizer state, activations and scratch.
  std::size_t training_bytes(std::size_t batch_size) {
    need_built("training_bytes");
    return model::training_bytes(*network_, training_, batch_size).total();
  }

  /// Writes parameters, optimizer state and the model's description into one safetensors file, whole or not at all.
  void save(const std::string& path) const { model::save(*network_, training_, path); }
  /// Rebuilds a model of TESLA's own layers from a file; fit() goes on from there with the same bits.
  static BasicSequential load(const std::string& path) {
    BasicSequential result;
    model::load(*result.network_, result.training_, path);
    return result;
  }
  /// Reads parameters and optimizer state of a file into this model, which has the same layers: the way back for models
  /// with layers, losses or optimizers of one's own.
  void restore(const std::string& path) { model::restore(*network_, training_, path); }

  /// The shape of what predict() returns for one sample.
  const Shape& output_shape() {
    need_built("output_shape");
    return network_->output_shape();
  }

  /// The parts, for those who build on them.
  model::Network<T, B>& network() { return *network_; }

 private:
  using Loader = train::Loader<T, B>;
  using Scorer = train::Scorer<T, B>;
  using Event = typename train::AnyCallback<BasicSequential>::Event;

  void need_compiled(std::string_view who) const {
    if (!training_.loss) raise<UsageError>(who, ": call compile(optimizer, loss, metrics) first");
  }
  void need_built(std::string_view who) {
    if (!network_->built() && network_->wanted_input().rank() != 0) network_->build(network_->wanted_input());
    if (!network_->built())
      raise<UsageError>(who, ": the model does not know its input's shape yet; call build(shape) or fit first");
  }
  /// Takes back a build that the data of a call asked for, if the call then refuses the data.
  struct BuiltFor {
    model::Network<T, B>* network;  // null: it was built before, or the data is fine
    BuiltFor(model::Network<T, B>* n) : network(n) {}
    BuiltFor(const BuiltFor&) = delete;
    BuiltFor& operator=(const BuiltFor&) = delete;
    ~BuiltFor() {
      if (network != nullptr) network->unbuild();
    }
    void keep() { network = nullptr; }
  };
  BuiltFor build_for(const ArrayView& x) {
    if (network_->built()) return {nullptr};
    if (x.shape().rank() < 2 || x.empty())
      raise<ShapeError>("x: samples come as rows of an array with at least two extents, not of shape ", x.shape());
    network_->build(network_->wanted_input().rank() != 0 ? network_->wanted_input() : x.shape().tail());
    return {network_.get()};
  }
  void need_slots() {
    auto& store = network_->store();
    if (store.slots() != training_.optimizer->slots()) store.allocate_slots(training_.optimizer->slots());
    training_.slot_pointers.resize(store.slots());
  }
  static std::size_t checked_batch(std::size_t size, std::string_view who) {
    if (size == 0) raise<UsageError>(who, ": .batch_size has to be 1 or more");
    return size;
  }

  /// Which step an error happened in.
  struct StepName {
    std::string_view who;
    std::size_t epoch = 0, batch = 0;
    std::string to_string() const {
      return epoch == 0 ? text(who, ": ") : text(who, ": epoch ", epoch, ", batch ", batch, ": ");
    }
  };

  double step(Loader& loader, const std::uint32_t* order, std::size_t first, std::size_t count, Scorer* scorer,
              const StepName& name);
  void update(model::Workspace<T>& w, const StepName& name);
  void evaluate(Loader& loader, std::size_t batch_size, Scorer& scorer);

  /// Of the samples' values, not of lanes without a sample.
  double squared_norm(Panels<const T> p) const {
    B& backend = network_->backend();
    T* const data = const_cast<T*>(p.data);
    const std::size_t whole = p.batch / p.lanes * p.stride();
    double squares = backend.squared_norm(backend::Matrix<T>{data, 1, whole, whole});
    if (const std::size_t rest = p.batch % p.lanes; rest != 0)
      squares += backend.squared_norm(backend::Matrix<T>{data + whole, p.features, rest, p.lanes});
    return squares;
  }

  std::unique_ptr<model::Network<T, B>> network_;
  model::Training<T, B> training_;
};

template <class T, class B>
double BasicSequential<T, B>::step(Loader& loader, const std::uint32_t* order, std::size_t first, std::size_t count,
                                   Scorer* scorer, const StepName& name) {
  const FlushSubnormals flush;
  B& backend = network_->backend();
  model::Workspace<T>& w = network_->workspace(count, true, loader.target_features());
  const backend::Target<T> target = loader.load(backend, w, order, first);
  network_->forward(w);
  const Panels<const T> y = w.output(network_->entries().size() - 1);
  const double loss =
      training_.loss->evaluate(backend, y, target, w.weights(), w.gradient(network_->entries().size() - 1));
  if (!is_finite(loss))
    raise<DataError>(name, "the loss is ", loss, "; the first values that are not finite come from ",
                     network_->first_overflow(w),
                     ". The parameters are as the step before left them; try a smaller learning rate, or .clip_norm");
  network_->backward(w);
  if (scorer != nullptr) scorer->add(backend, loss, y, target.values, loader, training_.loss->from_logits());
  update(w, name);
  return loss;
}

template <class T, class B>
void BasicSequential<T, B>::update(model::Workspace<T>& w, const StepName& name) {
  B& backend = network_->backend();
  auto& store = network_->store();
  const auto slots = network_->gradient_slots();
  const auto check = [&](double squares, std::string_view parameter) {
    if (!is_finite(squares))
      raise<DataError>(name, "the gradient of ", parameter,
                       " is not finite. The parameters are as the step before left them; try a "
                       "smaller learning rate, or .clip_norm");
  };
  // All are looked at before the first parameter changes. A sum of products dy x^T that is not stored is no longer than
  // |dy| |x|; it is made where that is not enough to know it finite.
  const auto length_of = [&](Panels<const T> p) {
    if (p.data == w.input().data) return w.input_limit() * std::sqrt(static_cast<double>(p.batch * p.features));
    return std::sqrt(squared_norm(p));
  };
  const double clip = training_.optimizer->facts().clip_norm;
  double squares = 0;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    auto& s = slots[i];
    if (s.dy && clip == 0 && length_of(s.dy) * length_of(s.x) <= static_cast<double>(std::numeric_limits<T>::max()))
      continue;
    if (s.dy) backend.multiply(network_->gradient_product(w, s));
    s.dy = {};
    const double own = backend.squared_norm(s.gradient);
    check(own, store.places()[i].name);
    squares += own;
  }
  if (clip > 0) {
    check(squares, "all parameters");
    const double norm = std::sqrt(squares);
    if (norm > clip)
      for (const auto& s : slots) {
        const Panels<T> all{s.gradient.data, s.gradient.rows * s.gradient.stride, 1, 1};
        backend.map([scale = clip / (norm + 1e-6)](auto g) { return g * math::number<decltype(g)>(scale); }, all,
                    Panels<const T>(all));
      }
  }
  const std::size_t number = ++training_.step;
  std::vector<T*>& state = training_.slot_pointers;
  for (std::size_t i = slots.size(); i-- > 0;) {
    for (std::size_t s = 0; s < state.size(); ++s) state[s] = store.slot(s) + store.places()[i].offset;
    if (slots[i].dy)
      training_.optimizer->update(backend, number, slots[i].value, state, nullptr,
                                  network_->gradient_product(w, slots[i]));
    else
      training_.optimizer->update(backend, number, slots[i].value, state, slots[i].gradient.data, {});
  }
}

template <class T, class B>
[[gnu::cold]] History BasicSequential<T, B>::fit(const data::Samples& given, const Options& options) {
  need_compiled("fit");
  const std::size_t batch_size = checked_batch(options.batch_size, "fit");
  data::Samples samples = given;
  if (!options.sample_weight.empty()) samples.weight = options.sample_weight;
  if (samples.x.samples() == 0) raise<DataError>("fit: x, of shape ", samples.x.shape(), ", holds no samples");
  BuiltFor built = build_for(samples.x);
  need_slots();
  Loader loader(samples, *network_, training_.loss->targets(), "fit: ");
  std::optional<Loader> validation;
  if (!options.validation.empty())
    validation.emplace(options.validation, *network_, training_.loss->targets(), "fit: validation ");
  built.keep();

  const std::size_t size = loader.size(), batches = (size + batch_size - 1) / batch_size;
  std::vector<std::uint32_t> order(options.shuffle ? size : 0);
  History history;
  Scores scores;
  Scorer scorer(training_.metrics), validation_scorer(training_.metrics, "val_");
  train::Moment<BasicSequential> moment{*this, 0, options.epochs, 0, batches, scores};
  const auto tell = [&](Event event) {
    for (const auto& callback : options.callbacks) callback(event, moment);
  };
  const train::Interrupt interrupt(options.stop_on_interrupt);
  train::Progress progress(options.verbose, options.epochs, size);

  tell(Event::fit_begin);
  for (std::size_t epoch = 1; epoch <= options.epochs && !moment.stop; ++epoch) {
    moment.epoch = epoch, moment.batch = 0;
    scorer.reset();
    scores.truncate(training_.metrics.size() + 1);  // those of the validation are of the epoch before
    progress.begin_epoch();
    tell(Event::epoch_begin);
    if (moment.stop) {
      history.interrupted = true;
      break;
    }
    // The order depends on how often the model was trained before, so that going on after a load is as if it never
    // stopped.
    if (options.shuffle) random::shuffle(order, options.seed, training_.epochs);
    for (std::size_t batch = 0; batch < batches && !moment.stop; ++batch) {
      const std::size_t first = batch * batch_size, count = std::min(batch_size, size - first);
      moment.batch = batch + 1;
      step(loader, options.shuffle ? order.data() : nullptr, first, count, &scorer, {"fit", epoch, batch + 1});
      if (!options.callbacks.empty()) {
        scorer.write(scores);
        tell(Event::batch_end);
      }
      if (progress.due()) {
        scorer.write(scores);
        progress.draw(epoch, first + count, scores);
      }
      if (interrupt.asked()) moment.stop = true;
    }
    history.interrupted = moment.batch < batches;
    if (!history.interrupted) ++training_.epochs;
    scorer.write(scores);
    if (validation) {
      evaluate(*validation, std::max<std::size_t>(batch_size, 64), validation_scorer);
      validation_scorer.write(scores);
    }
    for (const auto& [name, value] : scores) {
      history.entry(name).reserve(std::min<std::size_t>(options.epochs, 1024));
      history.entry(name).push_back(value);
    }
    progress.end_epoch(epoch, std::min(moment.batch * batch_size, size), scores);
    tell(Event::epoch_end);
  }
  if (moment.stop && moment.epoch < options.epochs) history.interrupted = true;
  tell(Event::fit_end);
  if (interrupt.asked()) progress.note("stopped by Ctrl-C; the model keeps what it has learned");
  return history;
}

template <class T, class B>
double BasicSequential<T, B>::train_step(const data::Samples& batch) {
  need_compiled("train_step");
  BuiltFor built = build_for(batch.x);
  need_slots();
  Loader loader(batch, *network_, training_.loss->targets(), "train_step: ");
  built.keep();
  return step(loader, nullptr, 0, loader.size(), nullptr, {"train_step"});
}

template <class T, class B>
void BasicSequential<T, B>::evaluate(Loader& loader, std::size_t batch_size, Scorer& scorer) {
  const FlushSubnormals flush;
  B& backend = network_->backend();
  scorer.reset();
  for (std::size_t first = 0; first < loader.size(); first += batch_size) {
    model::Workspace<T>& w =
        network_->workspace(std::min(batch_size, loader.size() - first), false, loader.target_features());
    const backend::Target<T> target = loader.load(backend, w, nullptr, first);
    network_->forward(w);
    const Panels<const T> y = w.output(network_->entries().size() - 1);
    const double loss = training_.loss->evaluate(backend, y, target, w.weights(), Panels<T>());
    scorer.add(backend, loss, y, target.values, loader, training_.loss->from_logits());
  }
}

template <class T, class B>
void BasicSequential<T, B>::predict_into(const ArrayView& x, std::span<T> out, const PredictOptions& options) {
  BuiltFor built = build_for(x);
  const std::size_t batch_size = checked_batch(options.batch_size, "predict");
  const std::size_t features = network_->output_shape().elements();
  train::check_input(x, network_->input_shape().elements(), "predict: x");
  if (out.size() != x.samples() * features)
    raise<ShapeError>("predict: ", x.samples(), " samples with ", features, " outputs need ", x.samples() * features,
                      " values of memory, not ", out.size());
  train::check_finite<T>(x, "predict: x");
  built.keep();
  const FlushSubnormals flush;
  for (std::size_t first = 0; first < x.samples(); first += batch_size) {
    model::Workspace<T>& w = network_->workspace(std::min(batch_size, x.samples() - first), false, 0);
    network_->backend().gather(backend::Rows{&x, nullptr, first, w.batch()}, w.input(), backend::Matrix<T>());
    network_->forward(w);
    network_->backend().scatter(Panels<const T>(w.output(network_->entries().size() - 1)),
                                out.data() + first * features);
  }
}

using Sequential = BasicSequential<float, backend::Cpu>;

}  // namespace tesla::inline TESLA_TARGET
