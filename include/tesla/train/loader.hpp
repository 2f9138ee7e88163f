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
    outputs_ = network.output_shape().elements();
    from_logits_ = loss.from_logits();
    binary_ = loss.facts().binary;
    class_weight_.clear();
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
      check_labels(samples.y, outputs, named("y"), labels_);
    }
    classes_ = targets_ == loss::Targets::one_hot ? outputs : 0;
  }

  /// Multiplies the weight of each sample by that of its class.
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
    class_weight_.resize(size());
    for (std::size_t i = 0; i < size(); ++i) {
      std::size_t c = 0;
      if (has_labels())
        c = static_cast<std::size_t>(labels_[i]);
      else if (features == 1)
        c = samples_.y.value(i) >= 0.5 ? 1 : 0;
      else
        for (std::size_t f = 1; f < features; ++f) c = samples_.y.value(i, f) > samples_.y.value(i, c) ? f : c;
      class_weight_[i] = weights[c];
    }
  }

  std::size_t size() const { return samples_.x.samples(); }
  /// What metrics are going to see.
  metric::Scope scope() const { return {size(), outputs_, outputs_ > 1 && !binary_}; }
  /// Features of the target in panels; 0 where labels do.
  std::size_t target_features() const {
    return targets_ == loss::Targets::labels    ? 0
           : targets_ == loss::Targets::one_hot ? classes_
                                                : samples_.y.features();
  }

  /// Samples order[first ..] (or first ..., without an order) into w; returns what the loss compares with.
  backend::Target<T> load(B& backend, model::Workspace<T>& w, const std::uint32_t* order, std::size_t first) {
    const std::size_t count = w.batch();
    const backend::Rows rows{&samples_.x, order, first, count};
    backend.gather(rows, w.input(), w.gathered_rows());
    w.set_input_limit(largest_);
    load_weights(backend, w, rows);
    if (targets_ == loss::Targets::values) {
      backend.gather(backend::Rows{&samples_.y, order, first, count}, w.target(), backend::Matrix<T>());
      return {nullptr, w.target()};
    }
    batch_labels_.assign(w.weight_count(), 0);
    for (std::size_t i = 0; i < count; ++i) batch_labels_[i] = labels_[rows[i]];
    if (targets_ == loss::Targets::labels) return {batch_labels_.data(), {}};
    one_hot_.assign(count * classes_, T(0));
    for (std::size_t i = 0; i < count; ++i) one_hot_[i * classes_ + static_cast<std::size_t>(batch_labels_[i])] = T(1);
    const ArrayView expanded(one_hot_.data(), {count, classes_});
    backend.gather(backend::Rows{&expanded, nullptr, 0, count}, w.target(), backend::Matrix<T>());
    return {batch_labels_.data(), w.target()};
  }

  /// Sample i of the batch, for metrics; without its target where that is no label.
  metric::Outcome<T> outcome(std::size_t i, std::span<const T> prediction) const {
    return {prediction, {}, has_labels() ? batch_labels_[i] : 0, from_logits_, binary_};
  }
  bool has_labels() const { return targets_ != loss::Targets::values; }

 private:
  void check_weights(std::string_view what) const {
    if (samples_.weight.empty()) return;
    for (std::size_t i = 0; i < samples_.weight.samples(); ++i)
      if (const double value = samples_.weight.value(i); value < 0)
        raise<DataError>(what, "sample_weight: the weight of sample ", i, " is ", value, "; weights are 0 or more");
  }

  void load_weights(B& backend, model::Workspace<T>& w, const backend::Rows& rows) {
    const double each = 1 / static_cast<double>(w.batch());
    weights_.assign(w.weight_count(), T(0));
    for (std::size_t i = 0; i < w.batch(); ++i) {
      const double weight = class_weight_.empty() ? each : class_weight_[rows[i]] * each;
      weights_[i] = static_cast<T>(samples_.weight.empty() ? weight : samples_.weight.value(rows[i]) * weight);
    }
    backend.write(w.weights(), weights_.data(), weights_.size());
  }

  data::Samples samples_;
  double largest_ = 0;  // of the inputs, without their signs
  loss::Targets targets_ = loss::Targets::values;
  std::size_t outputs_ = 0, classes_ = 0;
  bool from_logits_ = false, binary_ = false;
  std::string name_;  // of an array, in messages
  std::vector<std::int32_t> labels_, batch_labels_;
  std::vector<double> class_weight_;  // of each sample; empty where there are none
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
    loss_ = 0, samples_ = 0;
    for (const auto& m : metrics_) m->reset(scope_);
  }

  void add(B& backend, double loss, Panels<const T> prediction, Panels<const T> target, const Loader<T, B>& loader) {
    loss_ += loss * static_cast<double>(prediction.batch);
    samples_ += prediction.batch;
    if (metrics_.empty()) return;
    const std::size_t features = prediction.features;
    predictions_.resize(prediction.batch * features);
    backend.scatter(prediction, predictions_.data());
    if (!loader.has_labels()) {
      targets_.resize(target.batch * target.features);
      backend.scatter(target, targets_.data());
    }
    for (std::size_t i = 0; i < prediction.batch; ++i) {
      metric::Outcome<T> outcome = loader.outcome(i, std::span<const T>(predictions_).subspan(i * features, features));
      if (!loader.has_labels()) outcome.target = std::span<const T>(targets_).subspan(i * features, features);
      for (const auto& m : metrics_) m->add(outcome);
    }
  }

  /// Writes the numbers so far.
  [[gnu::cold]] void write(Scores& scores) {
    values_[0] = loss_ / std::max<double>(static_cast<double>(samples_), 1);
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
  std::size_t samples_ = 0;
  std::vector<T> predictions_, targets_;
};

}  // namespace tesla::inline TESLA_TARGET::training
