// Layers, losses, metrics and optimizers behind virtual interfaces, so that a model can hold any of them.
#pragma once

#include <tesla/layer/layer.hpp>
#include <tesla/loss/loss.hpp>
#include <tesla/metric/metric.hpp>
#include <tesla/model/fields.hpp>
#include <tesla/optimizer/optimizer.hpp>

#include <memory>
#include <string>
#include <type_traits>

namespace tesla::inline TESLA_TARGET::model {

/// "SparseDense" becomes "sparse_dense": the names that layers get when they have none.
inline std::string snake_case(std::string_view kind) {
  std::string result;
  for (const char c : kind) {
    const bool upper = c >= 'A' && c <= 'Z';
    if (upper && !result.empty() && result.back() != '_') result += '_';
    result += upper ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return result;
}

template <class T, class B>
class LayerNode {
 public:
  virtual ~LayerNode() = default;
  virtual std::string_view kind() const = 0;
  virtual std::string wanted_name() const = 0;  // the user's, or empty
  virtual std::string default_name() const = 0;
  virtual bool passthrough() const = 0;
  virtual Shape setup(const Shape& in, layer::Setup& setup) = 0;
  virtual void forward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const = 0;
  virtual void backward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const = 0;
  virtual io::Json options() const = 0;
  virtual Shape input_shape() const = 0;  // where the layer itself knows it (Input), else no extents
};

template <class L, class T, class B>
class LayerNodeOf final : public LayerNode<T, B> {
 public:
  explicit LayerNodeOf(L layer) : layer_(std::move(layer)) {}
  std::string_view kind() const override { return L::kind; }
  std::string wanted_name() const override {
    if constexpr (requires { layer_.name; }) return std::string(layer_.name);
    return {};
  }
  std::string default_name() const override {
    if constexpr (requires { layer_.function_name(); }) return std::string(layer_.function_name());
    return snake_case(L::kind);
  }
  bool passthrough() const override { return layer::Passthrough<L>; }
  Shape setup(const Shape& in, layer::Setup& setup) override { return layer_.setup(in, setup); }
  void forward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const override {
    if constexpr (!layer::Passthrough<L>) layer_.forward(pass, x, y);
  }
  void backward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const override {
    if constexpr (!layer::Passthrough<L>) layer_.backward(pass, x, y, dy, dx);
  }
  io::Json options() const override { return options_of(layer_); }
  Shape input_shape() const override {
    if constexpr (requires {
                    { layer_.shape } -> std::convertible_to<Shape>;
                    requires layer::Passthrough<L>;
                  })
      return layer_.shape;
    return {};
  }

 private:
  L layer_;
};

template <class T, class B>
class LossNode {
 public:
  virtual ~LossNode() = default;
  virtual std::string_view kind() const = 0;
  virtual loss::Targets targets() const = 0;
  virtual bool from_logits() const = 0;
  virtual bool binary() const = 0;
  virtual double evaluate(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights, Panels<T> gradient) const = 0;
  virtual io::Json options() const = 0;
};

template <class L, class T, class B>
class LossNodeOf final : public LossNode<T, B> {
 public:
  explicit LossNodeOf(L loss) : loss_(std::move(loss)) {}
  std::string_view kind() const override { return L::kind; }
  loss::Targets targets() const override { return loss_.targets(); }
  bool from_logits() const override {
    if constexpr (requires { loss_.from_logits; }) return loss_.from_logits;
    return false;
  }
  bool binary() const override { return L::kind == std::string_view("BinaryCrossEntropy"); }
  double evaluate(B& backend, Panels<const T> y, backend::Target<T> target, const T* weights, Panels<T> gradient) const override {
    return loss_(backend, y, target, weights, gradient);
  }
  io::Json options() const override { return options_of(loss_); }

 private:
  L loss_;
};

template <class T>
class MetricNode {
 public:
  virtual ~MetricNode() = default;
  virtual std::string_view name() const = 0;
  virtual double operator()(const metric::Outcome<T>& outcome) const = 0;
  virtual void set_binary() = 0;
};

template <class M, class T>
class MetricNodeOf final : public MetricNode<T> {
 public:
  explicit MetricNodeOf(M metric) : metric_(std::move(metric)) {}
  std::string_view name() const override { return M::name; }
  double operator()(const metric::Outcome<T>& outcome) const override { return static_cast<double>(metric_(outcome)); }
  void set_binary() override {
    if constexpr (requires { metric_.binary = true; }) metric_.binary = true;
  }

 private:
  M metric_;
};

/// Any metric, for the list that compile() takes.
template <class T>
class AnyMetric {
 public:
  template <class M>
    requires(!std::same_as<M, AnyMetric> && metric::Metric<M>)
  AnyMetric(M metric) : node_(std::make_shared<MetricNodeOf<M, T>>(std::move(metric))) {}
  MetricNode<T>& operator*() const { return *node_; }
  MetricNode<T>* operator->() const { return node_.get(); }

 private:
  std::shared_ptr<MetricNode<T>> node_;
};

template <class T, class B>
class OptimizerNode {
 public:
  virtual ~OptimizerNode() = default;
  virtual std::string_view kind() const = 0;
  virtual std::size_t slots() const = 0;
  virtual double clip_norm() const = 0;
  /// One step over all parameters whose gradients are stored, laid out as the parameters are.
  virtual void update(B& backend, std::size_t step, const backend::Matrix<T>& value, std::span<T* const> slots, const T* gradient) const = 0;
  /// One step of a parameter whose gradient is an outer product.
  virtual void update_outer(B& backend, std::size_t step, const backend::Matrix<T>& value, std::span<T* const> slots, const T* left,
                            const T* right) const = 0;
  virtual io::Json options() const = 0;
};

template <class O, class T, class B>
class OptimizerNodeOf final : public OptimizerNode<T, B> {
 public:
  explicit OptimizerNodeOf(O optimizer) : optimizer_(std::move(optimizer)) {}
  std::string_view kind() const override { return O::kind; }
  std::size_t slots() const override { return O::slots; }
  double clip_norm() const override {
    if constexpr (requires { optimizer_.clip_norm; }) return optimizer_.clip_norm;
    return 0;
  }
  void update(B& backend, std::size_t step, const backend::Matrix<T>& value, std::span<T* const> slots, const T* gradient) const override {
    backend.update(optimizer_.at(step), updated(value, slots), gradient);
  }
  void update_outer(B& backend, std::size_t step, const backend::Matrix<T>& value, std::span<T* const> slots, const T* left,
                    const T* right) const override {
    backend.update_outer(optimizer_.at(step), updated(value, slots), left, right);
  }
  io::Json options() const override { return options_of(optimizer_); }

 private:
  static backend::Updated<T, O::slots> updated(const backend::Matrix<T>& value, std::span<T* const> slots) {
    backend::Updated<T, O::slots> result{value, {}};
    for (std::size_t i = 0; i < O::slots; ++i) result.slots[i] = slots[i];
    return result;
  }
  O optimizer_;
};

}  // namespace tesla::inline TESLA_TARGET::model
