// Brings batches of samples into a model's workspace.
#pragma once

#include <tesla/model/network.hpp>
#include <tesla/train/check.hpp>
#include <tesla/train/history.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::train {

/// Checks a set of samples against a model and a loss once, then loads batch after batch.
template <class T, class B>
class Loader {
 public:
  [[gnu::cold]] Loader(const data::Samples& samples, const model::Network<T, B>& network,
                       const model::LossNode<T, B>& loss, std::string_view what)
      : samples_(samples), targets_(loss.targets()) {
    const std::size_t outputs = network.output_shape().elements();
    check_input(samples.x, network.input_shape().elements(), text(what, "x"));
    if (samples.y.samples() != samples.x.samples())
      raise<ShapeError>(what, "y: ", samples.x.samples(), " samples in x need as many targets, y has shape ",
                        samples.y.shape());
    if (!samples.weight.empty() && samples.weight.size() != samples.x.samples())
      raise<ShapeError>(what, "sample_weight: ", samples.x.samples(),
                        " samples need as many weights, not an array of shape ", samples.weight.shape());
    largest_ = check_finite<T>(samples.x, text(what, "x"));
    check_finite<T>(samples.weight, text(what, "sample_weight"));
    check_weights(what);
    if (targets_ == loss::Targets::values) {
      if (samples.y.features() != outputs)
        raise<ShapeError>(what, "y: the model gives ", outputs, " outputs a sample, targets of shape ",
                          samples.y.shape(), " have ", samples.y.features());
      check_finite<T>(samples.y, text(what, "y"));
      if (loss.facts().probabilities) check_probabilities(samples.y, text(what, "y"));
    } else {
      labels_ = checked_labels(samples.y, outputs, text(what, "y"));
    }
    if (targets_ == loss::Targets::one_hot) classes_ = outputs;
  }

  std::size_t size() const { return samples_.x.samples(); }
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

  std::int32_t batch_label(std::size_t i) const { return batch_labels_[i]; }
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
    for (std::size_t i = 0; i < w.batch(); ++i)
      weights_[i] = static_cast<T>(samples_.weight.empty() ? each : samples_.weight.value(rows[i]) * each);
    backend.write(w.weights(), weights_.data(), weights_.size());
  }

  data::Samples samples_;
  double largest_ = 0;  // of the inputs, without their signs
  loss::Targets targets_;
  std::size_t classes_ = 0;
  std::vector<std::int32_t> labels_, batch_labels_;
  std::vector<T> weights_, one_hot_;
};

/// Sums the loss and the metrics over the batches of an epoch.
template <class T, class B>
class Scorer {
 public:
  /// Each name gets the prefix.
  [[gnu::cold]] explicit Scorer(const std::vector<model::AnyMetric<T>>& metrics, const std::string& prefix = "")
      : metrics_(metrics), totals_(metrics.size()), names_{prefix + "loss"} {
    for (const auto& m : metrics) names_.push_back(prefix + std::string(m->name()));
  }

  void reset() {
    loss_ = 0, samples_ = 0;
    std::fill(totals_.begin(), totals_.end(), 0.0);
  }

  void add(B& backend, double loss, Panels<const T> prediction, Panels<const T> target, const Loader<T, B>& loader,
           bool from_logits) {
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
      metric::Outcome<T> outcome{std::span<const T>(predictions_).subspan(i * features, features), {}, 0, from_logits};
      if (loader.has_labels())
        outcome.label = loader.batch_label(i);
      else
        outcome.target = std::span<const T>(targets_).subspan(i * features, features);
      for (std::size_t m = 0; m < metrics_.size(); ++m) totals_[m] += (*metrics_[m])(outcome);
    }
  }

  /// Writes the means so far.
  [[gnu::cold]] void write(Scores& scores) const {
    const double n = std::max<double>(static_cast<double>(samples_), 1);
    scores.entry(names_[0]) = loss_ / n;
    for (std::size_t m = 0; m < totals_.size(); ++m) scores.entry(names_[m + 1]) = totals_[m] / n;
  }

 private:
  const std::vector<model::AnyMetric<T>>& metrics_;
  std::vector<double> totals_;
  std::vector<std::string> names_;
  double loss_ = 0;
  std::size_t samples_ = 0;
  std::vector<T> predictions_, targets_;
};

}  // namespace tesla::inline TESLA_TARGET::train
