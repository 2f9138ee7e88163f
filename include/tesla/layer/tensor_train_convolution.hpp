// A convolution whose filters are a tensor-train: one core for the taps, and one for each pair of modes of channels and
// filters (Garipov et al., "Ultimate tensorization", 2016).
//
// The filters are made of the cores once a step and used as those of any convolution. Going through the cores pixel by
// pixel takes fewer multiplications, but on wide images of few channels, in products a few ranks deep, which run at a
// fraction of the speed; plan() tells both numbers.
#pragma once

#include <tesla/layer/convolution.hpp>
#include <tesla/layer/tensor_train.hpp>
#include <tesla/network/tensor_train/whole.hpp>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct TensorTrainConv2DOptions {
  std::size_t filters = 0;
  Extents kernel = {3, 3};
  Shape in = {}, out = {};  // modes: their products are the channels and the filters
  std::size_t rank = 0;     // between all cores; larger than it can be is cut to what it can be,
  Shape ranks = {};         // or one for each place between two cores, of which the first holds the taps
  Padding padding = {};
  Extents stride = {1, 1};
  Extents dilation = {1, 1};
  bool use_bias = true;
  Activation activation = {};
  init::Initializer initializer = init::orthogonal;  // of the filters
  init::Initializer bias_initializer = init::zeros;
  double rate = 1;  // of the cores, times the optimizer's learning rate
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

/// How the filters are used, for people.
struct FiltersPlan {
  double direct = 0, cores = 0, making = 0;  // multiplications of a batch, either way, and of making the filters
};
[[gnu::cold]] inline std::string plan_text(const FiltersPlan& p, const MemoryNeed&) {
  char line[256];
  std::snprintf(line, sizeof line,
                "the filters are made of the cores in every step: %.3g million multiply-adds, beside %.3g million of "
                "the convolution (going through the cores pixel by pixel: %.3g million, few ranks deep)\n",
                p.making / 1e6, p.direct / 1e6, p.cores / 1e6);
  return line;
}

/// Core 0 is {1, 1, taps, rank}; the others {rank before, filters' mode, channels' mode, rank after}.
struct TensorTrainConv2D : TensorTrainConv2DOptions {
  static constexpr std::string_view kind = "TensorTrainConv2D";
  static constexpr bool activation_can_move = true;

  TensorTrainConv2D() = default;
  TensorTrainConv2D(TensorTrainConv2DOptions options) : TensorTrainConv2DOptions(std::move(options)) {}

  /// A layer that begins as the best of its kind near a convolution with values, as model.layer<Conv2D>(name) gives it.
  /// All but modes, and ranks or a tolerance, is that of the convolution.
  [[gnu::cold]] static TensorTrainConv2D from(const Conv2D& dense, TensorTrainConv2DOptions options,
                                              double tolerance = 0) {
    if (!dense.initial)
      raise<UsageError>("TensorTrainConv2D::from: this Conv2D layer has no values yet; take one from a built model, ",
                        "with model.layer<Conv2D>(name)");
    if (dense.groups != 1)
      raise<UsageError>("TensorTrainConv2D::from: the convolution has ", dense.groups,
                        " groups, and a TensorTrainConv2D has none; only a Conv2D of one group can become one");
    const Tensor<double>& w = dense.initial->at(0);
    try {
      check_modes(options.in, options.out, w.shape()[3], w.shape()[0]);
      if (options.ranks.rank() != 0 && options.ranks.rank() != options.in.rank())
        raise<ShapeError>("has .ranks ", options.ranks, ", which have to be as many as the modes of .in, ", options.in);
    } catch (const ShapeError& e) {
      raise<ShapeError>("TensorTrainConv2D::from: the new layer ", e.what());
    }
    const std::size_t taps = w.shape()[1] * w.shape()[2];
    Tensor<double> matrix({w.shape()[0], w.size() / w.shape()[0]});
    std::copy(w.begin(), w.end(), matrix.begin());
    const network::TensorTrainMatrix<double> cores = network::tt_svd(matrix, {.in = options.in.with_front(taps),
                                                                              .out = options.out.with_front(1),
                                                                              .max_rank = options.rank,
                                                                              .max_ranks = options.ranks,
                                                                              .tolerance = tolerance});
    options.filters = dense.filters, options.kernel = dense.kernel, options.padding = dense.padding;
    options.stride = dense.stride, options.dilation = dense.dilation, options.use_bias = dense.use_bias;
    options.activation = dense.activation, options.rank = 0, options.ranks = cores.ranks();
    TensorTrainConv2D result(std::move(options));
    Values values(cores.cores().begin(), cores.cores().end());
    if (dense.use_bias) values.push_back(dense.initial->at(1));
    result.initial = std::make_shared<const Values>(std::move(values));
    return result;
  }

  [[gnu::cold]] Shape setup(const Shape& given, Setup& setup) {
    const auto [rows, columns, channels] = detail::image_extents(given, 3);
    detail::check_filters(filters, 1, channels);
    check_modes(in, out, channels, filters);
    activation.check();
    geometry_.rows = detail::window_axis(rows, kernel[0], stride[0], dilation[0], padding, 0, "rows");
    geometry_.columns = detail::window_axis(columns, kernel[1], stride[1], dilation[1], padding, 2, "columns");
    geometry_.channels = channels, geometry_.filters = filters, geometry_.groups = 1;
    TensorTrain cores({.in = in.with_front(geometry_.taps()),
                       .out = out.with_front(1),
                       .rank = rank,
                       .ranks = ranks,
                       .use_bias = use_bias,
                       .initializer = initializer,
                       .bias_initializer = bias_initializer,
                       .rate = rate});
    cores.initial = initial;
    cores.ask_for_cores(setup, false);
    shape_ = cores.shape();
    whole_ = std::make_shared<const network::WholeMatrix>(shape_);
    if (!activation.from_output()) setup.keep(geometry_.out_features());
    return {geometry_.rows.out, geometry_.columns.out, filters};
  }

  template <class T, class B>
  MemoryNeed memory(std::size_t batch, bool training) const {
    const MemoryNeed own = B::template convolution_memory<T>(geometry_, batch, training);
    return {detail::filters_head<T> + matrix_size<T>() + line<T>(whole_->states<T>()) + own.kept,
            line<T>(own.scratch) + (training ? matrix_size<T>() + whole_->gradients<T>() : 0)};
  }

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    const Kept<T> kept = kept_in<T>(pass);
    if (!network::made_before<B>(pass.kept_memory.data(), pass.stamps)) {
      const detail::CoreMatrices<T> cores(pass.slots, shape_.size(), &Pass<T, B>::Slot::value);
      whole_->make<T>(pass.backend, cores.used(), kept.filters, kept.states);
      pass.backend.prepare_filters(geometry_, kept.filters, x.batch, kept.prepared);
    }
    const T* const bias = use_bias ? pass.parameter(shape_.size()).data : nullptr;
    detail::convolve(pass, geometry_, kept.filters, static_cast<const T*>(kept.prepared), x, y, bias, activation);
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const {
    const Kept<T> kept = kept_in<T>(pass);
    T* const scratch = pass.scratch.data();
    T* const after = scratch + line<T>(B::template convolution_memory<T>(geometry_, x.batch, true).scratch);
    const backend::Matrix<T> dw{after, filters, geometry_.depth(), kept.filters.stride};
    detail::convolution_gradients(pass, geometry_, kept.filters, x, Panels<const T>(y), dy, dx, dw,
                                  use_bias ? pass.slots[shape_.size()].gradient.data : nullptr, activation, scratch);
    const detail::CoreMatrices<T> cores(pass.slots, shape_.size(), &Pass<T, B>::Slot::value);
    const detail::CoreMatrices<T> gradients(pass.slots, shape_.size(), &Pass<T, B>::Slot::gradient);
    whole_->gradients<T>(pass.backend, cores.used(), gradients.used(), dw, kept.states, after + matrix_size<T>());
  }

  template <class T, class B>
  std::optional<PoolingNeed> pooling_need(const backend::Convolution& pool, std::size_t batch, bool training) const {
    return detail::pooling_need<T, B>(geometry_, activation, pool, batch, training);
  }

  /// What this layer does with its cores, and why so.
  template <class T, class B>
  FiltersPlan plan(std::size_t batch, bool) const {
    const double pixels = static_cast<double>(batch * geometry_.rows.out * geometry_.columns.out);
    const double all = static_cast<double>(shape_.rank(1) * geometry_.depth());
    // The taps first, for each channel and rank; then a tensor-train layer at each pixel.
    double through = all, left = static_cast<double>(geometry_.channels), right = 1;
    for (std::size_t k = 1; k < shape_.size(); ++k) {
      left /= static_cast<double>(shape_.in[k]);
      through += left * right * static_cast<double>(shape_.core(k).elements());
      right *= static_cast<double>(shape_.out[k]);
    }
    return {pixels * static_cast<double>(filters * geometry_.depth()), pixels * through, whole_->multiply_adds()};
  }

  [[gnu::cold]] std::string note() const {
    const std::size_t dense = filters * geometry_.depth(), own = shape_.count_parameters();
    char ratio[32];
    std::snprintf(ratio, sizeof ratio, "%.3g", static_cast<double>(dense) / static_cast<double>(own));
    return text(own, " weights for ", dense, own < dense ? text(" (", ratio, " times fewer)") : "", ", ranks ",
                shape_.ranks);
  }

  void fields(auto&& field) {
    field("filters", filters);
    field("kernel", kernel);
    field("in", in);
    field("out", out);
    field("rank", rank);
    field("ranks", ranks);
    field("padding", padding);
    field("stride", stride);
    field("dilation", dilation);
    field("use_bias", use_bias);
    field("activation", activation);
    field("initializer", initializer);
    field("bias_initializer", bias_initializer);
    field("rate", rate);
  }

  std::shared_ptr<const Values> initial = {};  // cores, and the bias where there is one

 private:
  [[gnu::cold]] static void check_modes(const Shape& in, const Shape& out, std::size_t channels, std::size_t filters) {
    if (in.rank() == 0 || in.elements() != channels)
      raise<ShapeError>("has .in modes ", in, ", whose product has to be its ", channels, " input channels");
    if (out.rank() != in.rank() || out.elements() != filters)
      raise<ShapeError>("has .out modes ", out, ", which have to be as many as those of .in, ", in,
                        ", and whose product has to be its ", filters, " filters");
  }
  template <class T>
  static std::size_t line(std::size_t n) {
    return round_up(n, cache_line / sizeof(T));
  }
  template <class T>
  std::size_t matrix_size() const {
    return filters * backend::row_stride<T>(geometry_.depth());
  }

  template <class T>
  struct Kept {
    backend::Matrix<T> filters;
    T *states, *prepared;
  };
  template <class T, class P>
  Kept<T> kept_in(const P& pass) const {
    T* const data = pass.kept_memory.data() + detail::filters_head<T>;
    T* const states = data + matrix_size<T>();
    return {{data, filters, geometry_.depth(), backend::row_stride<T>(geometry_.depth())},
            states,
            states + line<T>(whole_->states<T>())};
  }

  backend::Convolution geometry_;
  network::TensorTrainShape shape_;
  std::shared_ptr<const network::WholeMatrix> whole_;
};

}  // namespace layer

using layer::TensorTrainConv2D;

}  // namespace tesla::inline TESLA_TARGET
