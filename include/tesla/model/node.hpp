// Layers, losses and metrics behind virtual interfaces, so that a model can hold any of them.
#pragma once

#include <tesla/layer/connections.hpp>
#include <tesla/layer/layer.hpp>
#include <tesla/loss/loss.hpp>
#include <tesla/metric/metric.hpp>
#include <tesla/model/fields.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

/// "SparseDense" becomes "sparse_dense", "RMSNorm" "rms_norm" and "Conv2D" "conv2d": the names that layers get when
/// they have none.
inline std::string snake_case(std::string_view kind) {
  const auto upper = [&](std::size_t i) { return i < kind.size() && kind[i] >= 'A' && kind[i] <= 'Z'; };
  const auto lower = [&](std::size_t i) { return i < kind.size() && kind[i] >= 'a' && kind[i] <= 'z'; };
  std::string result;
  for (std::size_t i = 0; i < kind.size(); ++i) {
    if (upper(i) && i > 0 && (lower(i - 1) || (upper(i - 1) && lower(i + 1)))) result += '_';
    result += upper(i) ? static_cast<char>(kind[i] - 'A' + 'a') : kind[i];
  }
  return result;
}

/// What does not depend on a type's functions is plain data, set when the node is made.
template <class T, class B>
class LayerNode {
 public:
  struct Facts {
    std::string_view kind;
    std::string name;          // the user's, or empty
    std::string default_name;  // for those without
    bool passthrough = false, activation = false, takes_activation = false, joins = false;
    // In predictions: the layer is times * x + plus for each channel; the layer, its weights being rows of a matrix,
    // one a channel, can do that of the next one, too.
    bool affine = false, takes_affine = false;
    bool step_by_step = false;  // what it gives for a step of a sequence, it can give when that step is there
    Shape input;                // where the layer itself knows its input's shape (Input), else no extents
    io::Json options;
  };

  explicit LayerNode(Facts facts) : facts_(std::move(facts)) {}
  virtual ~LayerNode() = default;
  const Facts& facts() const { return facts_; }
  std::string_view kind() const { return facts_.kind; }
  bool passthrough() const { return facts_.passthrough; }

  virtual std::unique_ptr<LayerNode> copy() const = 0;
  virtual Shape setup(std::span<const Shape> in, layer::Setup& setup) = 0;
  /// What setup() has changed in the layer is good.
  virtual void keep_setup() = 0;
  virtual MemoryNeed memory(std::size_t batch, bool training) const = 0;
  /// How the layer computes a batch, for people; empty where there is nothing to choose.
  virtual std::string plan(std::size_t batch, bool training) const = 0;
  /// What the remark in summaries says, once the layer's options are known to be right.
  virtual std::string note() const = 0;
  /// The activation that the layer ends with, if it can run without it; the layer may be nothing else.
  virtual const layer::Activation* movable_activation() const = 0;
  /// The windows of which the layer takes the largest, if it does that.
  virtual const backend::Convolution* max_pool() const = 0;
  /// What the layer needs if such pooling behind it runs inside it; nothing if that cannot be.
  virtual std::optional<layer::PoolingNeed> pooling_need(const backend::Convolution& pool, std::size_t batch,
                                                         bool training) const = 0;
  /// What an affine layer does in predictions.
  virtual void affine(layer::Pass<T, B>& pass, std::span<T> times, std::span<T> plus) const = 0;
  /// Raises an error about samples that the layer has no use for; `what` names the array.
  virtual void check_samples(const ArrayView& x, std::string_view what) const = 0;
  virtual void forward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const = 0;
  virtual void backward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const = 0;
  /// The same for a layer where branches meet.
  virtual void join(layer::Pass<T, B>& pass, std::span<const Panels<const T>> xs, Panels<T> y) const = 0;
  virtual void part(layer::Pass<T, B>& pass, Panels<const T> dy,
                    std::span<const layer::JoinedGradient<T>> to) const = 0;

 private:
  Facts facts_;
};

template <class L, class T, class B>
class LayerNodeOf final : public LayerNode<T, B> {
 public:
  explicit LayerNodeOf(L layer) : LayerNode<T, B>(facts_of(layer)), layer_(std::move(layer)), next_(layer_) {}

  [[gnu::cold]] std::unique_ptr<LayerNode<T, B>> copy() const override { return std::make_unique<LayerNodeOf>(layer_); }
  [[gnu::cold]] Shape setup(std::span<const Shape> in, layer::Setup& setup) override {
    next_ = layer_;
    if constexpr (joins)
      return next_.setup(in, setup);
    else
      return next_.setup(in[0], setup);
  }
  [[gnu::cold]] void keep_setup() override { layer_ = std::move(next_); }
  MemoryNeed memory(std::size_t batch, bool training) const override {
    if constexpr (requires { layer_.template memory<T, B>(batch, training); })
      return layer_.template memory<T, B>(batch, training);
    return {};
  }
  [[gnu::cold]] std::string plan(std::size_t batch, bool training) const override {
    if constexpr (requires { layer_.template plan<T, B>(batch, training); })
      return plan_text(layer_.template plan<T, B>(batch, training), memory(batch, training));
    return {};
  }
  [[gnu::cold]] std::string note() const override {
    if constexpr (requires { layer_.note(); }) return layer_.note();
    return {};
  }
  const layer::Activation* movable_activation() const override {
    if constexpr (std::same_as<L, layer::Activation>)
      return layer_.grows() ? &layer_ : nullptr;
    else if constexpr (requires { L::activation_can_move; })
      return layer_.activation.grows() ? &layer_.activation : nullptr;
    return nullptr;
  }
  const backend::Convolution* max_pool() const override {
    if constexpr (requires { L::is_max_pool; })
      if constexpr (L::is_max_pool) return &layer_.geometry;
    return nullptr;
  }
  std::optional<layer::PoolingNeed> pooling_need(const backend::Convolution& pool, std::size_t batch,
                                                 bool training) const override {
    if constexpr (requires { layer_.template pooling_need<T, B>(pool, batch, training); })
      return layer_.template pooling_need<T, B>(pool, batch, training);
    return {};
  }
  [[gnu::cold]] void affine(layer::Pass<T, B>& pass, std::span<T> times, std::span<T> plus) const override {
    if constexpr (requires { layer_.affine(pass, times, plus); }) layer_.affine(pass, times, plus);
  }
  [[gnu::cold]] void check_samples(const ArrayView& x, std::string_view what) const override {
    if constexpr (requires { layer_.check_samples(x, what); }) layer_.check_samples(x, what);
  }
  const L& layer() const { return layer_; }
  L& layer() { return layer_; }

  void forward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const override {
    if constexpr (!layer::Passthrough<L> && !joins) layer_.forward(pass, x, y);
  }
  void backward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const override {
    if constexpr (!layer::Passthrough<L> && !joins) layer_.backward(pass, x, y, dy, dx);
  }
  void join(layer::Pass<T, B>& pass, std::span<const Panels<const T>> xs, Panels<T> y) const override {
    if constexpr (joins) layer_.forward(pass, xs, y);
  }
  void part(layer::Pass<T, B>& pass, Panels<const T> dy, std::span<const layer::JoinedGradient<T>> to) const override {
    if constexpr (joins) layer_.backward(pass, dy, to);
  }

 private:
  static constexpr bool joins = requires { L::joins; };

  [[gnu::cold]] static typename LayerNode<T, B>::Facts facts_of(const L& layer) {
    typename LayerNode<T, B>::Facts facts;
    facts.kind = L::kind, facts.options = options_of(layer);
    facts.passthrough = layer::Passthrough<L>, facts.joins = joins;
    facts.activation = std::same_as<L, layer::Activation>;
    if constexpr (requires { L::takes_activation; }) facts.takes_activation = L::takes_activation;
    if constexpr (requires { L::affine_in_prediction; }) facts.affine = L::affine_in_prediction;
    if constexpr (requires { L::takes_affine; })
      facts.takes_affine = layer.activation.function == layer::Activation::Function::linear;
    if constexpr (requires { L::step_by_step; }) facts.step_by_step = L::step_by_step;
    if constexpr (requires { layer.name; }) facts.name = layer.name;
    if constexpr (requires { layer.function_name(); })
      facts.default_name = layer.function_name();
    else
      facts.default_name = snake_case(L::kind);
    if constexpr (requires { L::says_input; }) facts.input = layer.shape;
    return facts;
  }
  L layer_, next_;
};

template <class T, class B>
class LossNode {
 public:
  struct Facts {
    std::string_view kind;
    loss::Targets targets;
    bool from_logits, binary, probabilities;
    io::Json options;
  };

  explicit LossNode(Facts facts) : facts_(std::move(facts)) {}
  virtual ~LossNode() = default;
  const Facts& facts() const { return facts_; }
  loss::Targets targets() const { return facts_.targets; }
  bool from_logits() const { return facts_.from_logits; }

  virtual double evaluate(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights,
                          Panels<T> gradient) const = 0;
  /// Raises an error about targets that the loss has no use for; `what` names them.
  virtual void check_targets(const ArrayView& y, std::string_view what) const = 0;

 private:
  Facts facts_;
};

template <class L, class T, class B>
class LossNodeOf final : public LossNode<T, B> {
 public:
  explicit LossNodeOf(L loss) : LossNode<T, B>(facts_of(loss)), loss_(std::move(loss)), hash_(hash_of_options(loss_)) {}
  /// Whether it is known to be the same loss.
  bool is(const L& loss) const { return hash_ && hash_ == hash_of_options(loss); }
  double evaluate(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights,
                  Panels<T> gradient) const override {
    return loss_(backend, y, target, weights, gradient);
  }

  [[gnu::cold]] void check_targets(const ArrayView& y, std::string_view what) const override {
    if constexpr (requires { loss_.check_targets(y, what); }) loss_.check_targets(y, what);
  }

 private:
  [[gnu::cold]] static typename LossNode<T, B>::Facts facts_of(const L& loss) {
    typename LossNode<T, B>::Facts facts{L::kind, loss.targets(), false, false, false, options_of(loss)};
    if constexpr (requires { loss.from_logits; }) facts.from_logits = loss.from_logits;
    if constexpr (requires { loss.binary(); }) facts.binary = loss.binary();
    if constexpr (requires { L::probabilities; }) facts.probabilities = L::probabilities;
    return facts;
  }
  L loss_;
  std::optional<std::uint64_t> hash_;
};

template <class T>
class MetricNode {
 public:
  struct Facts {
    std::string_view name;
    std::vector<std::string> keys;  // of its numbers in History and Scores
    io::Json options;
  };

  explicit MetricNode(Facts facts) : facts_(std::move(facts)) {}
  virtual ~MetricNode() = default;
  const Facts& facts() const { return facts_; }

  virtual void reset(const metric::Scope& scope) = 0;
  virtual void add(const metric::Outcome<T>& outcome) = 0;
  /// Writes a number for each key.
  virtual void values(std::span<double> out) const = 0;
  virtual MetricNode* copy() const = 0;

 private:
  Facts facts_;
};

template <class M, class T>
class MetricNodeOf final : public MetricNode<T> {
 public:
  explicit MetricNodeOf(M metric) : MetricNode<T>(facts_of(metric)), state_(std::move(metric)) {}

  void reset(const metric::Scope& scope) override { state_.reset(scope); }
  void add(const metric::Outcome<T>& outcome) override { state_.add(outcome); }
  void values(std::span<double> out) const override {
    if constexpr (requires { state_.values(out); })
      state_.values(out);
    else
      out[0] = static_cast<double>(state_.value());
  }
  [[gnu::cold]] MetricNode<T>* copy() const override { return new MetricNodeOf(*this); }
  const M& metric() const {
    if constexpr (metric::StateMetric<M>)
      return state_;
    else
      return state_.metric();
  }

 private:
  [[gnu::cold]] static typename MetricNode<T>::Facts facts_of(const M& metric) {
    typename MetricNode<T>::Facts facts{M::name, {}, options_of(metric)};
    if constexpr (requires { metric.keys(); })
      facts.keys = metric.keys();
    else if constexpr (requires { metric.key(); })
      facts.keys.push_back(metric.key());
    else
      facts.keys.emplace_back(M::name);
    return facts;
  }
  std::conditional_t<metric::StateMetric<M>, M, metric::detail::Mean<M>> state_;
};

/// Any metric, for the list that compile() takes. Copies share it.
template <class T>
class AnyMetric {
 public:
  template <class M>
  requires(!std::same_as<M, AnyMetric> && metric::Metric<M>) AnyMetric(M metric)
      : AnyMetric(static_cast<MetricNode<T>*>(new MetricNodeOf<M, T>(std::move(metric)))) {}
  /// Another metric, with a state of its own.
  AnyMetric copy() const { return AnyMetric(node_->copy()); }
  MetricNode<T>& operator*() const { return *node_; }
  MetricNode<T>* operator->() const { return node_.get(); }

 private:
  explicit AnyMetric(MetricNode<T>* node) : node_(node) {}
  std::shared_ptr<MetricNode<T>> node_;
};

}  // namespace tesla::inline TESLA_TARGET::model
