// Brings batches of samples into a model's workspace.
#pragma once

#include <tesla/model/network.hpp>
#include <tesla/train/check.hpp>
#include <tesla/train/history.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::training {

/// Checks a set of samples against a model and a loss once, then loads batch after batch.
template <class T, class B>
class Loader {
 public:
  Loader() = default;
  Loader(const data::Samples& samples, const model::Network<T, B>& network, const model::LossNode<T, B>& loss,
         std::string_view what) {
    take(samples, network, loss, what);
  }

  /// Begins with other samples. Where they are no more than others before, that allocates nothing.
  [[gnu::cold]] void take(const data::Samples& samples, const model::Network<T, B>& network,
                          const model::LossNode<T, B>& loss, std::string_view what) {
    samples_ = samples;
    targets_ = loss.targets();
    steps_ = loss::steps_of(network.output_shape(), targets_);
    outputs_ = network.output_shape().elements() / steps_;
    from_logits_ = loss.from_logits();
    binary_ = loss.facts().binary;
    class_weight_.clear();
    some_ignored_ = false;
    const std::size_t outputs = outputs_;
    const auto named = [&](std::string_view array) { return std::string_view(name_.assign(what).append(array)); };
    check_input(samples.x, network.input_shape(), named("x"));
    if (samples.y.samples() != samples.x.samples())
      raise<ShapeError>(what, "y: ", samples.x.samples(), " samples in x need as many targets, y has shape ",
                        samples.y.shape());
    if (!samples.weight.empty() && samples.weight.size() != samples.x.samples())
      raise<ShapeError>(what, "sample_weight: ", samples.x.samples(),
                        " samples need as many weights, not an array of shape ", samples.weight.shape());
    largest_ = check_finite<T>(samples.x, named("x"));
    network.check_samples(samples.x, named("x"));
    check_finite<T>(samples.weight, named("sample_weight"));
    check_weights(what);
    if (targets_ == loss::Targets::values) {
      if (samples.y.features() != outputs)
        raise<ShapeError>(what, "y: the model gives ", outputs, " outputs a sample, targets of shape ",
                          samples.y.shape(), " have ", samples.y.features());
      check_finite<T>(samples.y, named("y"));
      if (loss.facts().probabilities) check_probabilities(samples.y, named("y"));
      loss.check_targets(samples.y, named("y"));
    } else {
      some_ignored_ = check_labels(samples.y, network.output_shape(), targets_, named("y"), labels_);
    }
  }

  /// Multiplies the weight of each sample, or step, by that of its class.
  [[gnu::cold]] void weigh_classes(const std::vector<double>& weights, const model::LossNode<T, B>& loss) {
    if (weights.empty()) return;
    const std::size_t features = samples_.y.features();
    if (!has_labels() && (binary_ ? features > 1 : !loss.facts().probabilities))
      raise<UsageError>("fit: .class_weight needs samples of one class each, which ", loss.facts().kind,
                        " does not tell; use .sample_weight");
    const std::size_t classes = std::max<std::size_t>(outputs_, 2);
    if (weights.size() != classes)
      raise<UsageError>("fit: .class_weight has ", weights.size(), " weights, not one for each of ", classes,
                        " classes");
    for (std::size_t c = 0; c < classes; ++c)
      if (!(weights[c] >= 0 && is_finite(static_cast<T>(weights[c]))))
        raise<UsageError>("fit: .class_weight: the weight of class ", c, " is ", weights[c],
                          "; weights are finite and 0 or more");
    class_weight_ = weights;
    if (has_labels()) return;
    class_weight_.resize(size());
    for (std::size_t i = 0; i < size(); ++i) {
      std::size_t c = 0;
      if (features == 1)
        c = samples_.y.value(i) >= 0.5 ? 1 : 0;
      else
        for (std::size_t f = 1; f < features; ++f) c = samples_.y.value(i, f) > samples_.y.value(i, c) ? f : c;
      class_weight_[i] = weights[c];
    }
  }

  std::size_t size() const { return samples_.x.samples(); }
  /// Labels of a sample.
  std::size_t steps() const { return steps_; }
  /// What metrics are going to see.
  metric::Scope scope() const { return {size() * steps_, outputs_, outputs_ > 1 && !binary_}; }
  /// Features of the target in panels, and behind them the weights of steps; 0 where one label a sample does.
  std::size_t target_features() const {
    if (targets_ == loss::Targets::values) return samples_.y.features();
    return row_features() + (steps_ > 1 ? steps_ : 0);
  }

  /// Samples order[first ..] (or first ..., without an order) into w; returns what the loss compares with.
  backend::Target<T> load(B& backend, model::Workspace<T>& w, const std::uint32_t* order, std::size_t first) {
    const std::size_t count = w.batch();
    const backend::Rows rows{&samples_.x, order, first, count};
    backend.gather(rows, w.input(), w.gathered_rows());
    w.set_input_limit(largest_);
    order_ = order, first_ = first;
    if (targets_ == loss::Targets::values) {
      load_weights(backend, w, w.weights());
      backend.gather(backend::Rows{&samples_.y, order, first, count}, w.target(), backend::Matrix<T>());
      return {nullptr, w.target()};
    }
    batch_labels_.assign(w.weight_count() * steps_, 0);
    each_label(w, [&](std::size_t i, std::size_t at) { batch_labels_[at] = std::max(label(i), 0); });
    const Panels<T> wanted{w.target().data, row_features(), count, w.input().lanes};
    T* const weights = steps_ == 1 ? w.weights() : wanted.data + wanted.size();
    load_weights(backend, w, weights);
    if (row_features() == 0) return {batch_labels_.data(), {}, steps_, weights};
    one_hot_.assign(count * wanted.features, T(0));
    for (std::size_t i = 0; i < count * steps_; ++i)
      if (!ignored(i)) one_hot_[i * outputs_ + static_cast<std::size_t>(label(i))] = T(1);
    const ArrayView expanded(one_hot_.data(), {count, wanted.features});
    backend.gather(backend::Rows{&expanded, nullptr, 0, count}, wanted, backend::Matrix<T>());
    return {batch_labels_.data(), wanted, steps_, weights};
  }

  /// The number of labels of the batch that count, or of its samples.
  std::size_t counted(std::size_t batch) const {
    std::size_t count = batch * steps_;
    for (std::size_t i = 0; some_ignored_ && i < batch * steps_; ++i)
      if (ignored(i)) --count;
    return count;
  }
  /// Whether label i of the batch does not count.
  bool ignored(std::size_t i) const { return some_ignored_ && label(i) < 0; }
  /// Sample i of the batch, or step i over all of its samples, for metrics; without its target where that is no label.
  metric::Outcome<T> outcome(std::size_t i, std::span<const T> prediction) const {
    return {prediction, {}, has_labels() ? label(i) : 0, from_logits_, binary_};
  }
  bool has_labels() const { return targets_ != loss::Targets::values; }

 private:
  void check_weights(std::string_view what) const {
    if (samples_.weight.empty()) return;
    for (std::size_t i = 0; i < samples_.weight.samples(); ++i)
      if (const double value = samples_.weight.value(i); value < 0)
        raise<DataError>(what, "sample_weight: the weight of sample ", i, " is ", value, "; weights are 0 or more");
  }

  /// The row in the arrays of sample i of the batch.
  std::size_t row(std::size_t i) const { return order_ != nullptr ? order_[first_ + i] : first_ + i; }
  /// Label i of the batch, -1 for one that does not count.
  std::int32_t label(std::size_t i) const { return labels_[row(i / steps_) * steps_ + i % steps_]; }
  /// Features of labels as rows of 0 and 1.
  std::size_t row_features() const { return targets_ == loss::Targets::one_hot ? steps_ * outputs_ : 0; }
  /// Calls f(number in the batch, place in panels of the steps) for each label.
  template <class F>
  void each_label(const model::Workspace<T>& w, const F& f) const {
    const std::size_t lanes = w.input().lanes;
    for (std::size_t s = 0; s < w.batch(); ++s)
      for (std::size_t t = 0; t < steps_; ++t) f(s * steps_ + t, (s / lanes * steps_ + t) * lanes + s % lanes);
  }

  /// Each of what counts by the same share of 1, times the weights of its sample and its class.
  void load_weights(B& backend, model::Workspace<T>& w, T* to) {
    const double each = 1 / static_cast<double>(std::max<std::size_t>(counted(w.batch()), 1));
    weights_.assign(w.weight_count() * steps_, T(0));
    each_label(w, [&](std::size_t i, std::size_t at) {
      if (ignored(i)) return;
      const std::size_t sample = row(i / steps_);
      double weight = each;
      if (!class_weight_.empty()) weight *= class_weight_[has_labels() ? static_cast<std::size_t>(label(i)) : sample];
      weights_[at] = static_cast<T>(samples_.weight.empty() ? weight : samples_.weight.value(sample) * weight);
    });
    backend.write(to, weights_.data(), weights_.size());
  }

  data::Samples samples_;
  double largest_ = 0;  // of the inputs, without their signs
  loss::Targets targets_ = loss::Targets::values;
  std::size_t outputs_ = 0, steps_ = 1;  // outputs of a step, steps of a sample
  bool from_logits_ = false, binary_ = false, some_ignored_ = false;
  std::string name_;                        // of an array, in messages
  std::vector<std::int32_t> labels_;        // of all samples, -1 where it does not count
  const std::uint32_t* order_ = nullptr;    // of the batch
  std::size_t first_ = 0;                   // the same
  std::vector<std::int32_t> batch_labels_;  // as they lie in panels
  std::vector<double> class_weight_;        // of each class where there are labels, else of each sample; may be empty
  std::vector<T> weights_, one_hot_;
};

/// Sums the loss over the batches of an epoch, and shows them to the metrics.
template <class T, class B>
class Scorer {
 public:
  /// Uses the states of the metrics. Each name gets the prefix.
  [[gnu::cold]] Scorer(std::vector<model::AnyMetric<T>> metrics, const metric::Scope& scope,
                       const std::string& prefix = "")
      : metrics_(std::move(metrics)), scope_(scope), names_{prefix + "loss"} {
    for (const auto& m : metrics_)
      for (const std::string& key : m->facts().keys) names_.push_back(prefix + key);
    values_.resize(names_.size());
    reset();
  }

  const std::vector<model::AnyMetric<T>>& metrics() const { return metrics_; }
  /// How many numbers write() writes.
  std::size_t size() const { return names_.size(); }

  void reset() {
    loss_ = 0, counted_ = 0;
    for (const auto& m : metrics_) m->reset(scope_);
  }

  void add(B& backend, double loss, Panels<const T> prediction, Panels<const T> target, const Loader<T, B>& loader) {
    const std::size_t counted = loader.counted(prediction.batch);
    loss_ += loss * static_cast<double>(counted);
    counted_ += counted;
    if (metrics_.empty()) return;
    const std::size_t features = prediction.features / loader.steps();
    predictions_.resize(prediction.batch * prediction.features);
    backend.scatter(prediction, predictions_.data());
    if (!loader.has_labels()) {
      targets_.resize(target.batch * target.features);
      backend.scatter(target, targets_.data());
    }
    for (std::size_t i = 0; i < prediction.batch * loader.steps(); ++i) {
      if (loader.ignored(i)) continue;
      metric::Outcome<T> outcome = loader.outcome(i, std::span<const T>(predictions_).subspan(i * features, features));
      if (!loader.has_labels()) outcome.target = std::span<const T>(targets_).subspan(i * features, features);
      for (const auto& m : metrics_) m->add(outcome);
    }
  }

  /// Writes the numbers so far.
  [[gnu::cold]] void write(Scores& scores) {
    values_[0] = loss_ / std::max<double>(static_cast<double>(counted_), 1);
    std::span<double> rest = std::span(values_).subspan(1);
    for (const auto& m : metrics_) {
      const std::size_t count = m->facts().keys.size();
      m->values(rest.first(count));
      rest = rest.subspan(count);
    }
    for (std::size_t i = 0; i < names_.size(); ++i) scores.entry(names_[i]) = values_[i];
  }

 private:
  std::vector<model::AnyMetric<T>> metrics_;
  metric::Scope scope_;
  std::vector<std::string> names_;
  std::vector<double> values_;
  double loss_ = 0;
  std::size_t counted_ = 0;  // samples, or steps
  std::vector<T> predictions_, targets_;
};

}  // namespace tesla::inline TESLA_TARGET::training
