// TESLA under the protocol of worker.hpp, as a user would call it: training steps through fit, with shuffling,
// gathering of batches and accuracy, those of embeddings and transformers through train_step; predictions through
// predict_into; products through the backend; the passes of one layer through predict_into and through the network that
// a model holds.
#include <tesla/tesla.hpp>

#include "worker.hpp"

namespace {

class Network {
 public:
  explicit Network(const peers::Case& c)
      : data_(c), batch_(static_cast<std::size_t>(c.batch)), features_(static_cast<std::size_t>(c.sizes.front())) {
    if (c.kind == "cnn") add_convolutions(c.norm);
    if (c.kind == "embedding") {
      model_.add_layer(
          tesla::Embedding({.tokens = static_cast<std::size_t>(c.tokens), .units = static_cast<std::size_t>(c.units)}));
      model_.add_layer(tesla::GlobalAveragePool());
    }
    for (int i = 0; i < c.blocks; ++i)
      model_.add_layer(tesla::TransformerBlock({.features = features_ / static_cast<std::size_t>(c.steps),
                                                .heads = static_cast<std::size_t>(c.heads),
                                                .causal = c.causal}));
    if (c.blocks > 0) model_.add_layer(tesla::GlobalAveragePool());
    for (std::size_t i = 1; i < c.sizes.size() && c.kind != "cnn"; ++i) {
      const bool last = i + 1 == c.sizes.size();
      if (c.live < 100) {
        model_.add_layer(tesla::SparseDense({.units = static_cast<std::size_t>(c.sizes[i]),
                                             .density = c.live / 100.0,
                                             .activation = last ? tesla::linear : tesla::relu,
                                             .initializer = tesla::init::he_uniform}));
        continue;
      }
      model_.add_layer(tesla::Dense({.units = static_cast<std::size_t>(c.sizes[i]),
                                     .activation = last ? tesla::linear : tesla::relu,
                                     .initializer = tesla::init::he_uniform}));
    }
    const tesla::loss::SparseCategoricalCrossEntropy loss;
    if (c.adam)
      model_.compile(tesla::optim::Adam({.learning_rate = peers::adam_rate}), loss, {tesla::metric::Accuracy()});
    else
      model_.compile(tesla::optim::SGD({.learning_rate = peers::sgd_rate, .momentum = peers::momentum}), loss,
                     {tesla::metric::Accuracy()});
    if (c.kind == "cnn")
      model_.build({28, 28, 1});
    else if (c.blocks > 0)
      model_.build({static_cast<std::size_t>(c.steps), features_ / static_cast<std::size_t>(c.steps)});
    else
      model_.build({features_});
    if (c.live < 100) callbacks_.emplace_back(tesla::sparse::RigL({.until = std::size_t{1} << 40}));
  }

  double step(int steps) {
    const int epochs = steps / data_.batches, rest = steps % data_.batches;
    if (epochs > 0) fit(static_cast<std::size_t>(data_.batches) * batch_, static_cast<std::size_t>(epochs));
    if (rest > 0) fit(static_cast<std::size_t>(rest) * batch_, 1);
    return loss_;
  }

  /// Without the check of all weights at the end of an epoch, which epochs as short as these would make a large part
  /// of.
  double single_steps(int steps) {
    for (int i = 0; i < steps; ++i, turn_ = (turn_ + 1) % static_cast<std::size_t>(data_.batches)) {
      const tesla::ArrayView x(&data_.inputs[turn_ * batch_ * features_], {batch_, features_}),
          y(&data_.labels[turn_ * batch_], {batch_});
      loss_ = model_.train_step(x, y);
    }
    return loss_;
  }

  double predict(int steps) {
    std::vector<float> out(batch_ * model_.network().output_shape().elements());
    for (int i = 0; i < steps; ++i) {
      const float* x = &data_.inputs[static_cast<std::size_t>(i % data_.batches) * batch_ * features_];
      model_.predict_into(tesla::ArrayView(x, {batch_, features_}), out, {.batch_size = batch_});
    }
    return static_cast<double>(out[0]);
  }

 private:
  void add_convolutions(bool norm) {
    for (const std::size_t filters : {std::size_t{32}, std::size_t{64}}) {
      model_.add_layer(tesla::Conv2D({.filters = filters,
                                      .padding = norm ? tesla::same : tesla::valid,
                                      .use_bias = !norm,
                                      .activation = norm ? tesla::linear : tesla::relu,
                                      .initializer = tesla::init::he_uniform}));
      if (norm) model_.add_layer(tesla::BatchNorm()).add_layer(tesla::LeakyReLU({.slope = 0.01}));
      model_.add_layer(tesla::MaxPool2D());
    }
    model_.add_layer(tesla::Flatten());
    model_.add_layer(tesla::Dense({.units = 128, .activation = tesla::relu, .initializer = tesla::init::he_uniform}));
    model_.add_layer(tesla::Dense({.units = 10, .initializer = tesla::init::he_uniform}));
  }

  void fit(std::size_t samples, std::size_t epochs) {
    const tesla::ArrayView x(data_.inputs.data(), {samples, features_}), y(data_.labels.data(), {samples});
    loss_ = model_.fit(x, y, {.epochs = epochs, .batch_size = batch_, .callbacks = callbacks_, .verbose = 0})["loss"]
                .back();
  }

  peers::Data data_;
  std::size_t batch_, features_, turn_ = 0;
  tesla::Sequential model_;
  std::vector<tesla::callback::AnyCallback<tesla::Sequential>> callbacks_;
  double loss_ = 0;
};

/// Stands before the layer that is measured, because a network asks its first trained layer for no gradient of the
/// input. Its output is given from outside, which costs no copy.
struct Source {
  static constexpr std::string_view kind = "Source";

  tesla::Shape setup(const tesla::Shape& in, tesla::layer::Setup& setup) const {
    setup.parameter("unused", {1}, tesla::init::zeros);  // makes it a trained layer
    return in;
  }
  template <class T, class B>
  void forward(tesla::layer::Pass<T, B>&, tesla::Panels<const T>, tesla::Panels<T>) const {}
  template <class T, class B>
  void backward(tesla::layer::Pass<T, B>&, tesla::Panels<const T>, tesla::Panels<T>, tesla::Panels<T>,
                tesla::Panels<T>) const {}
};

/// One layer, without bias but for recurrent ones, from rows of x to rows of y, or from rows of x and of dy to rows of
/// dx and to gradients.
class OneLayer {
 public:
  explicit OneLayer(const peers::Case& c)
      : batch_(static_cast<std::size_t>(c.batch)),
        features_(static_cast<std::size_t>(c.sizes[0])),
        units_(static_cast<std::size_t>(c.sizes[1])),
        steps_(static_cast<std::size_t>(c.steps)),
        x_(peers::uniform(batch_ * features_, -0.5f, 0.5f, 6)),
        dy_(peers::uniform(batch_ * units_, -0.5f, 0.5f, 7)),
        y_(dy_.size()),
        dx_(x_.size()) {
    if (c.backward) model_.add_layer(Source());
    const std::size_t units = units_ / steps_;  // of each step
    if (c.kind == "lstm")
      model_.add_layer(tesla::LSTM({.units = units, .return_sequences = true, .name = "layer"}));
    else if (c.kind == "gru")
      model_.add_layer(tesla::GRU({.units = units, .return_sequences = true, .name = "layer"}));
    else if (c.kind == "attention")
      model_.add_layer(tesla::MultiHeadAttention(
          {.heads = static_cast<std::size_t>(c.heads), .causal = c.causal, .use_bias = false, .name = "layer"}));
    else if (c.kind == "tt")
      model_.add_layer(tesla::TensorTrain({.in = shape(c.in),
                                           .out = shape(c.out),
                                           .rank = static_cast<std::size_t>(c.rank),
                                           .use_bias = false,
                                           .name = "layer"}));
    else
      model_.add_layer(tesla::Dense({.units = units_, .use_bias = false, .name = "layer"}));
    model_.build(c.steps > 1 ? tesla::Shape{steps_, features_ / steps_} : tesla::Shape{features_});
  }

  double forward(int steps) {
    for (int i = 0; i < steps; ++i)
      model_.predict_into(tesla::ArrayView(x_.data(), {batch_, features_}), y_, {.batch_size = batch_});
    return static_cast<double>(y_[0]);
  }

  double both(int steps) {
    auto& net = model_.network();
    auto& backend = net.backend();
    auto& w = net.workspace(batch_, true, 0);
    const tesla::ArrayView x(x_.data(), {batch_, features_}), dy(dy_.data(), {batch_, units_});
    for (int i = 0; i < steps; ++i) {
      backend.gather(tesla::backend::Rows{&x, nullptr, 0, batch_}, w.output(0), tesla::backend::Matrix<float>());
      net.forward(w);
      backend.gather(tesla::backend::Rows{&dy, nullptr, 0, batch_}, w.gradient(1), tesla::backend::Matrix<float>());
      net.backward(w);
      for (auto& slot : net.gradient_slots())
        if (slot.dy) backend.multiply(net.gradient_product(w, slot));  // what the update would have done on its way
      backend.scatter(tesla::Panels<const float>(w.gradient(0)), dx_.data());
    }
    return static_cast<double>(dx_[0]);
  }

 private:
  static tesla::Shape shape(const std::vector<int>& modes) {
    const std::vector<std::size_t> extents(modes.begin(), modes.end());
    return tesla::Shape(std::span<const std::size_t>(extents));
  }

  std::size_t batch_, features_, units_, steps_;
  std::vector<float> x_, dy_, y_, dx_;
  tesla::Sequential model_;
};

/// W times X with the columns of X as samples, in panels, as layers have them.
peers::Run product(const peers::Case& c) {
  const auto size = [&](int i) { return static_cast<std::size_t>(c.sizes[static_cast<std::size_t>(i)]); };
  const std::size_t rows = size(0), depth = size(1), columns = size(2),
                    lanes = tesla::backend::Cpu::lanes<float>(columns);
  if (columns % lanes != 0) return {};
  const std::size_t stride = tesla::backend::row_stride<float>(depth);
  struct Operands {
    tesla::Buffer<float> w, x, y;
    tesla::backend::Cpu backend;
    tesla::backend::Product<float> p;
  };
  auto o = std::make_shared<Operands>();
  o->w = tesla::Buffer<float>(rows * stride), o->x = tesla::Buffer<float>(depth * columns);
  o->y = tesla::Buffer<float>(rows * columns);
  std::fill(o->w.begin(), o->w.end(), 0.5f), std::fill(o->x.begin(), o->x.end(), 0.25f);
  const auto signed_size = [](std::size_t n) { return static_cast<std::ptrdiff_t>(n); };
  o->p.count = columns / lanes, o->p.rows = rows, o->p.depth = depth, o->p.columns = lanes;
  o->p.a = o->w.data(), o->p.a_row = signed_size(stride), o->p.a_depth = 1;
  o->p.b = o->x.data(), o->p.b_depth = signed_size(lanes), o->p.b_item = signed_size(depth * lanes);
  o->p.c = o->y.data(), o->p.c_row = signed_size(lanes), o->p.c_item = signed_size(rows * lanes);
  return [o](int steps) {
    for (int i = 0; i < steps; ++i) o->backend.multiply(o->p);
    return static_cast<double>(o->y[0]);
  };
}

/// W times X, W sparse, with the columns of X as samples, in panels; PyTorch's gets its columns as it wants them too.
peers::Run sparse_product(const peers::Case& c) {
  using tesla::backend::Cpu;
  struct Operands {
    tesla::model::Network<float, Cpu> net{0};
    std::size_t batch;
  };
  auto o = std::make_shared<Operands>();
  o->batch = static_cast<std::size_t>(c.batch);
  o->net.add(tesla::SparseDense(
      {.units = static_cast<std::size_t>(c.sizes[1]), .density = c.live / 100.0, .use_bias = false}));
  o->net.build({static_cast<std::size_t>(c.sizes[0])});
  const tesla::Panels<float> x = o->net.workspace(o->batch, false, 0).input();
  const std::vector<float> values = peers::uniform(x.size(), -0.5f, 0.5f, 6);
  std::copy(values.begin(), values.end(), x.data);
  return [o](int steps) {
    auto& w = o->net.workspace(o->batch, false, 0);
    for (int i = 0; i < steps; ++i) o->net.forward(w);
    return static_cast<double>(w.output(0).data[0]);
  };
}

peers::Run setup(const peers::Case& c) {
  if (c.kind == "sparse") return sparse_product(c);
  if (c.kind == "product") return product(c);
  if (c.kind == "tt" || c.kind == "dense" || c.kind == "attention" || c.recurrent()) {
    auto layer = std::make_shared<OneLayer>(c);
    return [layer, both = c.backward](int steps) { return both ? layer->both(steps) : layer->forward(steps); };
  }
  const bool singly = c.kind == "embedding" || c.kind == "transformer";
  if (c.kind != "step" && c.kind != "predict" && c.kind != "cnn" && !singly) return {};
  auto network = std::make_shared<Network>(c);
  if (singly) return [network](int steps) { return network->single_steps(steps); };
  if (c.kind != "predict") return [network](int steps) { return network->step(steps); };
  return [network](int steps) { return network->predict(steps); };
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) tesla::set_threads(std::atoi(argv[1]));
  return peers::serve("tesla", tesla::version, setup);
}
