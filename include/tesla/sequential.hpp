// The model that users hold: layers in a row, compiled with an optimizer, a loss and metrics, and trained.
#pragma once

#include <tesla/backend/cpu/cpu.hpp>
#include <tesla/model/file.hpp>
#include <tesla/model/network.hpp>
#include <tesla/model/summary.hpp>
#include <tesla/train/built_for.hpp>
#include <tesla/train/callback.hpp>
#include <tesla/train/controls.hpp>
#include <tesla/train/decoder.hpp>
#include <tesla/train/interrupt.hpp>
#include <tesla/train/loader.hpp>
#include <tesla/train/options.hpp>
#include <tesla/train/progress.hpp>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET {

template <class T, class B>
class BasicSequential : public training::Controls<BasicSequential<T, B>> {
 public:
  using Scalar = T;
  using Options = FitOptions<BasicSequential>;

  explicit BasicSequential(const SequentialOptions& options = {})
      : network_(std::make_unique<model::Network<T, B>>(options.seed)) {}
  template <class... L>
  requires(sizeof...(L) > 0 && (!std::same_as<L, BasicSequential> && ...)) &&
      (layer::Part<L> && ...) explicit BasicSequential(L... layers) : BasicSequential() {
    (add_layer(std::move(layers)), ...);
  }

  BasicSequential(BasicSequential&&) noexcept = default;
  /// Not while fit runs this model, in a callback.
  BasicSequential& operator=(BasicSequential&& other) {
    must_not_fit("assignment");
    network_ = std::move(other.network_);
    training_ = std::move(other.training_);
    step_loader_ = {};
    return *this;
  }

  /// Adds a layer at the end, or branches of layers: Residual or Parallel.
  template <layer::Part L>
  BasicSequential& add_layer(L layer) {
    must_not_fit("add_layer");
    net().add(std::move(layer));
    return *this;
  }

  /// Adds the layers of another model, with the values of their parameters if it was built: `dense` becomes
  /// `sequential.dense`. The other model is gone then.
  BasicSequential& add_layer(BasicSequential inner) {
    must_not_fit("add_layer");
    net().add(std::move(inner.net()));
    return *this;
  }

  /// Fixes the shape of one sample and makes the parameters. fit() and predict() do it by themselves.
  void build(const Shape& input) {
    must_not_fit("build");
    net().build(input);
  }

  template <optim::Optimizer O, loss::Loss L>
  void compile(O optimizer, L loss, std::vector<model::AnyMetric<T>> metrics = {}, const CompileOptions& options = {}) {
    must_not_fit("compile");
    check_owner("compile", optimizer);
    training_.set_loss(std::move(loss), std::move(metrics));
    training_.set_optimizer(std::move(optimizer));
    net().store().allocate_slots(training_.optimizer->slots());  // build() makes as many again
    net().set_memory(options.memory);
  }
  /// The same for steps that go on: an optimizer made for this model's parameters keeps its state, and the metrics
  /// stay.
  template <loss::Loss L, optim::Optimizer O>
  void train_with(const L& loss, const O& optimizer) {
    must_not_fit("train_with");
    check_owner("train_with", optimizer);
    if (!training_.has_loss(loss)) training_.set_loss(loss, training_.metrics);
    if (training_.begin_or_go_on(optimizer)) net().store().allocate_slots(training_.optimizer->slots());
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
    Scores scores = evaluate(samples, *training_.loss, training_.metrics, options);
    training_.scored = training_.metrics;
    return scores;
  }
  Scores evaluate(const ArrayView& x, const ArrayView& y, const EvaluateOptions& options = {}) {
    return evaluate(data::Samples(x, y), options);
  }
  /// Any loss over samples, alone: what the model was compiled with stays.
  template <loss::Loss L>
  Scores evaluate(const data::Samples& samples, const L& loss, const EvaluateOptions& options = {}) {
    return evaluate(samples, model::LossNodeOf<L, T, B>(loss), {}, options);
  }

  /// One row of outputs for each sample.
  Tensor<T> predict(const ArrayView& x, const PredictOptions& options = {}) {
    BuiltFor built(net(), x, false);
    Tensor<T> result(net().output_shape().with_front(x.samples()));
    predict_into(x, std::span<T>(result.data(), result.size()), options);
    built.keep();
    return result;
  }
  /// The same into memory that is already there; from the second call of a size on it allocates nothing.
  void predict_into(const ArrayView& x, std::span<T> out, const PredictOptions& options = {});

  /// For so many sequences that grow a step at a time, of a model whose attention is causal.
  Decoder<T, B> decoder(std::size_t sequences = 1) {
    need_built("decoder");
    return {net(), checked_batch(sequences, "decoder")};
  }

  /// One step of the optimizer on one batch; returns the loss before it.
  double train_step(const data::Samples& batch);
  double train_step(const ArrayView& x, const ArrayView& y) { return train_step(data::Samples(x, y)); }
  /// The same with any loss, and an optimizer made for this model's parameters.
  template <loss::Loss L, optim::Optimizer O>
  requires requires(const O& o) { optim::Binding(o.binding); }
  double train_step(const data::Samples& batch, const L& loss, const O& optimizer) {
    if (optimizer.binding.model == 0)
      raise<UsageError>("train_step: this ", O::kind, " would begin anew with each step; make it with optim::", O::kind,
                        "(model.parameters(), {...}), and give it to all of them");
    train_with(loss, optimizer);
    return train_step(batch);
  }

  /// All parameters, in the order of the layers. They refer to the model.
  std::vector<model::Parameter<T, B>> parameters() {
    need_built("parameters");
    std::vector<model::Parameter<T, B>> result;
    for (std::size_t i = 0; i < net().store().places().size(); ++i) result.emplace_back(net().store(), i);
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
  /// A layer by its name, with the values that its parameters have now.
  template <class L>
  requires(layer::Layer<L> || layer::JoiningLayer<L>) L layer(std::string_view name) {
    need_built("layer");
    return net().template layer<L>(name);
  }
  /// Any layer by its name: its kind, and which of its weights are live.
  model::LayerView layer(std::string_view name) {
    need_built("layer");
    return net().view(name);
  }
  /// A metric by its type, and by its name or a key where there are several of the type, with what it has seen: in the
  /// last evaluate, or the last epoch of fit, there of the validation samples where it had any.
  template <metric::Metric M>
  M metric(std::string_view name = {}) const {
    need_compiled("metric");
    return training_.template metric<M>(name);
  }
  /// The number of learned values.
  std::size_t count_parameters() {
    need_built("count_parameters");
    return model::count_parameters(net());
  }

  /// The layers, their shapes and parameters, and the memory that training takes at a batch size, as text.
  std::string summary_text(std::size_t batch_size = 32) {
    checked_batch(batch_size, "summary");
    if (!net().built() && net().wanted_input().rank() != 0) build(net().wanted_input());
    return training::machine_line() + "\n" + model::summary(net(), training_, batch_size);
  }
  /// How layers that have a choice compute a batch, and what else was considered. 0: the batch size of the last fit.
  std::string plan(std::size_t batch_size = 0) {
    need_built("plan");
    return model::plan(net(), checked_batch(batch_size != 0 ? batch_size : training_.batch_size, "plan"));
  }
  void summary(std::size_t batch_size = 32) { std::fputs(summary_text(batch_size).c_str(), stdout); }
  /// Bytes that training takes at a batch size: parameters, gradients, optimizer state, activations and scratch.
  std::size_t training_bytes(std::size_t batch_size) {
    need_built("training_bytes");
    checked_batch(batch_size, "training_bytes");
    return model::training_bytes(net(), training_, batch_size).total();
  }

  /// Writes parameters, optimizer state and the model's description into one safetensors file, whole or not at all.
  void save(const std::string& path) const { model::save(net(), training_, path); }
  /// Rebuilds a model from a file; fit() goes on from there with the same bits. Known are fully connected layers, and
  /// whatever kinds of layers the program names elsewhere, or here: load<tesla::AllLayers>(path).
  template <class List = model::LayerList<>>
  static BasicSequential load(const std::string& path) {
    model::LayerKinds<T, B>::name(List());
    BasicSequential result;
    model::load(*result.network_, result.training_, path);
    return result;
  }
  /// Reads parameters and optimizer state of a file into this model, which has the same layers: the way back for models
  /// with layers, losses or optimizers of one's own.
  void restore(const std::string& path) {
    if (fitting_ && net().store().averaged())
      raise<UsageError>("restore: fit is running and keeps averages, which a file does not have; stop it first, with ",
                        ".stop of the moment");
    model::restore(net(), training_, path);
  }

  /// The shape of what predict() returns for one sample.
  const Shape& output_shape() {
    need_built("output_shape");
    return net().output_shape();
  }

  /// The parts, for those who build on them.
  model::Network<T, B>& network() { return net(); }
  const model::Training<T, B>& training() const { return training_; }
  model::Training<T, B>& training() { return training_; }

 private:
  using BuiltFor = training::BuiltFor<T, B>;
  using Loader = training::Loader<T, B>;
  using Scorer = training::Scorer<T, B>;
  using Event = typename callback::AnyCallback<BasicSequential>::Event;

  /// The network; a model that another was made from by moving has none.
  model::Network<T, B>& net() const {
    if (!network_) raise<UsageError>("this model was moved into another one; use that, or assign a new one");
    return *network_;
  }
  /// Layers stay as they are while fit runs them.
  void must_not_fit(std::string_view who) const {
    if (fitting_) raise<UsageError>(who, ": fit is running; stop it first, with .stop of the moment");
  }
  void need_compiled(std::string_view who) const {
    net();
    if (!training_.loss) raise<UsageError>(who, ": call compile(optimizer, loss, metrics) first");
  }
  template <class O>
  void check_owner(std::string_view who, const O& optimizer) const {
    const std::uint64_t owner = training_.binding_of(optimizer).model;
    if (owner != 0 && owner != net().store().owner())
      raise<UsageError>(who, ": this ", O::kind,
                        " was made with the parameters of another model; make one with optim::", O::kind,
                        "(model.parameters(), {...}) of this one");
  }
  void need_built(std::string_view who) {
    if (!net().built() && net().wanted_input().rank() != 0) net().build(net().wanted_input());
    if (!net().built())
      raise<UsageError>(who, ": the model does not know its input's shape yet; call build(shape) or fit first");
  }
  void need_slots() {
    auto& store = net().store();
    if (store.slots() != training_.optimizer->slots() + store.averaged())
      store.allocate_slots(training_.optimizer->slots());
    training_.rules.check_options(training_.optimizer->facts());
    training_.rules.settings(net());
  }
  static std::size_t checked_batch(std::size_t size, std::string_view who) {
    if (size == 0 || size > batch_size_limit)
      raise<UsageError>(who, ": .batch_size has to lie between 1 and ", batch_size_limit, ", not ", size);
    return size;
  }

  double step(Loader& loader, const std::uint32_t* order, std::size_t first, std::size_t count, Scorer* scorer,
              const training::Share& share, backend::Memory<T, B>& sums, const training::StepName& name);
  Scores evaluate(const data::Samples& samples, const model::LossNode<T, B>& loss,
                  const std::vector<model::AnyMetric<T>>& metrics, const EvaluateOptions& options);
  void evaluate(Loader& loader, const model::LossNode<T, B>& loss, std::size_t batch_size, Scorer& scorer);

  std::unique_ptr<model::Network<T, B>> network_;
  bool fitting_ = false;
  model::Training<T, B> training_;
  Loader step_loader_;  // of train_step, for its memory
};

template <class T, class B>
double BasicSequential<T, B>::step(Loader& loader, const std::uint32_t* order, std::size_t first, std::size_t count,
                                   Scorer* scorer, const training::Share& share, backend::Memory<T, B>& sums,
                                   const training::StepName& name) {
  const FlushSubnormals flush;
  B& backend = net().backend();
  model::Workspace<T>& w = net().workspace(count, true, loader.target_features());
  const backend::Target<T> target = loader.load(backend, w, order, first);
  if (training_.averages_in_place)
    training::exchange_averages(net(), training_);  // a step is of the parameters themselves
  net().begin_batch(training_.step, share.first);
  net().forward(w);
  const Panels<const T> y = w.output(net().entries().size() - 1);
  const double loss = training_.loss->evaluate(backend, y, target, w.weights(), w.gradient(net().entries().size() - 1));
  if (!is_finite(loss))
    raise<DataError>(name, "the loss is ", loss, "; the first values that are not finite come from ",
                     net().first_overflow(w),
                     ". The parameters are as the step before left them; try a smaller learning rate, or .clip_norm");
  if (scorer != nullptr) scorer->add(backend, loss, y, target.values, loader);  // while the outputs are there
  net().backward(w);
  training::Update<T, B>(net(), training_, w, sums).run(share, name);
  net().end_batch();
  return loss;
}

template <class T, class B>
[[gnu::cold]] History BasicSequential<T, B>::fit(const data::Samples& given, const Options& options) {
  need_compiled("fit");
  must_not_fit("fit");
  const std::size_t batch_size = checked_batch(options.batch_size, "fit");
  options.check();
  data::Samples samples = given;
  if (!options.sample_weight.empty()) samples.weight = options.sample_weight;
  if (samples.x.samples() == 0) raise<DataError>("fit: x, of shape ", samples.x.shape(), ", holds no samples");
  BuiltFor built(net(), samples.x);
  need_slots();
  training_.batch_size = batch_size;
  Loader loader(samples, net(), *training_.loss, "fit: ");
  loader.weigh_classes(options.class_weight, *training_.loss);
  std::optional<Loader> validation;
  if (options.validation.given()) validation.emplace(options.validation, net(), *training_.loss, "fit: validation ");
  built.keep();
  training::begin_averages(net(), training_, options.average > 0);

  const std::size_t size = loader.size(), batches = (size + batch_size - 1) / batch_size;
  std::vector<std::uint32_t> order(options.shuffle ? size : 0);
  History history;
  Scores scores;
  Scorer scorer(training_.own_metrics(), loader.scope());  // callbacks may call evaluate, which uses the model's
  std::optional<Scorer> validation_scorer;
  if (validation) validation_scorer.emplace(training_.own_metrics(), validation->scope(), "val_");
  callback::Moment<BasicSequential> moment{*this, 0, options.epochs, 0, batches, scores};
  moment.warnings = &history.warnings;
  const auto tell = [&](Event event) {
    for (const auto& callback : options.callbacks) callback(event, moment);
  };
  const bool batches_watched = std::any_of(options.callbacks.begin(), options.callbacks.end(),
                                           [](const auto& callback) { return callback.watches_batches(); });
  const training::Interrupt interrupt(options.stop_on_interrupt);
  training::Progress progress(options.verbose, options.epochs, size);
  const training::Grouping grouping{size, batch_size, options.accumulate};
  backend::Memory<T, B> sums;  // of gradients, where a step takes several batches

  struct Fitting {
    bool& flag;
    explicit Fitting(bool& f) : flag(f) { flag = true; }
    ~Fitting() { flag = false; }
  };
  const Fitting fitting(fitting_);
  const auto run_epoch = [&](std::size_t epoch) {
    moment.epoch = epoch, moment.batch = 0;
    scorer.reset();
    scores.truncate(scorer.size());  // those of the validation are of the epoch before
    progress.begin_epoch();
    tell(Event::epoch_begin);
    if (moment.stop) {
      history.interrupted = true;
      return;
    }
    // The order depends on how often the model was trained before, so that going on after a load is as if it never
    // stopped.
    if (options.shuffle) random::shuffle(order, options.seed, training_.epochs);
    for (std::size_t batch = 0; batch < batches && !moment.stop; ++batch) {
      const std::size_t first = batch * batch_size, count = std::min(batch_size, size - first);
      moment.batch = batch + 1;
      const training::Share share = grouping(batch);
      moment.loss = step(loader, options.shuffle ? order.data() : nullptr, first, count, &scorer, share, sums,
                         {"fit", epoch, batch + 1});
      moment.stepped = share.last;
      if (options.average > 0 && share.last) training::average_parameters(net(), training_, options.average);
      if (batches_watched) {
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
    // A step that is not finite is not made, but a finite one may lead beyond the range of the numbers.
    for (const auto& place : net().store().places())
      if (!net().store().finite(place))
        raise<DataError>("fit: epoch ", epoch, ": ", place.name,
                         " has left the range of finite numbers; try a smaller learning rate");
    training_.scored = scorer.metrics();
    if (validation) {
      const training::WithAverages<T, B> averaged(net(), training_);
      const std::size_t together = net().memory() != 0 ? batch_size : std::max<std::size_t>(batch_size, 64);
      evaluate(*validation, *training_.loss, together, *validation_scorer);
      training_.scored = validation_scorer->metrics();
      validation_scorer->write(scores);
    }
    for (const auto& [name, value] : scores) {
      history.entry(name).reserve(std::min<std::size_t>(options.epochs, 1024));
      history.entry(name).push_back(value);
    }
    progress.end_epoch(epoch, std::min(moment.batch * batch_size, size), scores);
    tell(Event::epoch_end);
  };
  try {
    tell(Event::fit_begin);
    for (std::size_t epoch = 1; epoch <= options.epochs && !moment.stop; ++epoch) run_epoch(epoch);
  } catch (...) {
    callback::tell_error(options.callbacks, moment);
    if (!moment.handled) throw;
    history.interrupted = true;
  }
  if (moment.stop && moment.epoch < options.epochs) history.interrupted = true;
  tell(Event::fit_end);
  if (interrupt.asked()) progress.note("stopped by Ctrl-C; the model keeps what it has learned");
  return history;
}

template <class T, class B>
double BasicSequential<T, B>::train_step(const data::Samples& batch) {
  must_not_fit("train_step");
  need_compiled("train_step");
  BuiltFor built(net(), batch.x);
  need_slots();
  step_loader_.take(batch, net(), *training_.loss, "train_step: ");
  built.keep();
  backend::Memory<T, B> none;
  return step(step_loader_, nullptr, 0, step_loader_.size(), nullptr, {}, none, {"train_step"});
}

template <class T, class B>
[[gnu::cold]] Scores BasicSequential<T, B>::evaluate(const data::Samples& samples, const model::LossNode<T, B>& loss,
                                                     const std::vector<model::AnyMetric<T>>& metrics,
                                                     const EvaluateOptions& options) {
  BuiltFor built(net(), samples.x);
  Loader loader(samples, net(), loss, "evaluate: ");
  built.keep();
  Scorer scorer(metrics, loader.scope());
  evaluate(loader, loss, checked_batch(options.batch_size, "evaluate"), scorer);
  Scores scores;
  scorer.write(scores);
  if (const double value = scores.entry("loss"); !is_finite(value))
    raise<DataError>("evaluate: the loss is ", value, "; parameters, data or targets are too large for it");
  return scores;
}

template <class T, class B>
void BasicSequential<T, B>::evaluate(Loader& loader, const model::LossNode<T, B>& loss, std::size_t batch_size,
                                     Scorer& scorer) {
  const FlushSubnormals flush;
  B& backend = net().backend();
  scorer.reset();
  for (std::size_t first = 0; first < loader.size(); first += batch_size) {
    model::Workspace<T>& w =
        net().workspace(std::min(batch_size, loader.size() - first), false, loader.target_features());
    const backend::Target<T> target = loader.load(backend, w, nullptr, first);
    net().forward(w);
    const Panels<const T> y = w.output(net().entries().size() - 1);
    const double value = loss.evaluate(backend, y, target, w.weights(), Panels<T>());
    scorer.add(backend, value, y, target.values, loader);
  }
}

template <class T, class B>
void BasicSequential<T, B>::predict_into(const ArrayView& x, std::span<T> out, const PredictOptions& options) {
  BuiltFor built(net(), x, false);
  const std::size_t batch_size = checked_batch(options.batch_size, "predict");
  const std::size_t features = net().output_shape().elements();
  training::check_input(x, net().input_shape(), "predict: x");
  if (out.size() != x.samples() * features)
    raise<ShapeError>("predict: ", x.samples(), " samples with ", features, " outputs need ", x.samples() * features,
                      " values of memory, not ", out.size());
  training::check_finite<T>(x, "predict: x");
  net().check_samples(x, "predict: x");
  built.keep();
  const FlushSubnormals flush;
  for (std::size_t first = 0; first < x.samples(); first += batch_size) {
    const std::size_t count = std::min(batch_size, x.samples() - first);
    training::predict_batch(net(), x, first, count, out.subspan(first * features, count * features), "predict");
  }
}

using Sequential = BasicSequential<float, backend::Cpu>;

}  // namespace tesla::inline TESLA_TARGET
