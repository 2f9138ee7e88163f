// Layers that bring values to a mean of 0 and a deviation of 1, and then to what they learn: batch norm (Ioffe and
// Szegedy 2015), layer norm (Ba et al. 2016), RMS norm (Zhang and Sennrich 2019) and group norm (Wu and He 2018).
#pragma once

#include <tesla/layer/activation.hpp>
#include <tesla/network/on_host.hpp>

#include <cmath>
#include <optional>
#include <span>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct BatchNormOptions {
  double momentum = 0.9;  // what the running statistics keep of themselves in each step
  double epsilon = 1e-5;  // added to the variance
  bool use_scale = true;
  bool use_shift = true;
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

struct NormOptions {
  double epsilon = 1e-5;
  bool use_scale = true;
  bool use_shift = true;
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

struct RMSNormOptions {
  double epsilon = 1e-5;
  bool use_scale = true;
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

struct GroupNormOptions {
  std::size_t groups = 32;
  double epsilon = 1e-5;
  bool use_scale = true;
  bool use_shift = true;
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

namespace detail {

[[gnu::cold]] inline void check_norm(const Shape& in, double epsilon) {
  if (in.rank() == 0 || in.elements() == 0)
    raise<ShapeError>("needs at least one input feature, its input has shape ", in);
  if (!(epsilon >= 1e-30 && epsilon <= 1e6)) raise<UsageError>("needs an .epsilon from 1e-30 to 1e6, not ", epsilon);
}

/// Vectors of one value a channel, beside each other in memory; each is one sample, too.
template <class T>
struct ChannelVectors {
  T* data;
  std::size_t channels;

  static std::size_t size(std::size_t count, std::size_t channels) {
    return count * round_up(channels, cache_line / sizeof(T));
  }
  Panels<T> operator[](std::size_t i) const { return {data + size(i, channels), channels, 1, 1}; }
};

template <class T>
backend::Features<const T> per_channel(Panels<T> p) {
  return {p.data, p.features};
}
template <class T>
backend::Features<T> sums_of(Panels<T> p) {
  return {p.data, p.features};
}

}  // namespace detail

/// Each channel, the last extent, over all samples of a batch and all pixels; in predictions with the running mean and
/// variance of training, two parameters that are not learned and are saved with the others.
struct BatchNorm : BatchNormOptions {
  static constexpr std::string_view kind = "BatchNorm";
  static constexpr bool step_by_step = true;
  static constexpr bool affine_in_prediction = true;

  BatchNorm() = default;
  BatchNorm(BatchNormOptions options) : BatchNormOptions(std::move(options)) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    detail::check_norm(in, epsilon);
    if (!(momentum >= 0 && momentum < 1)) raise<UsageError>("needs a .momentum in [0, 1), not ", momentum);
    channels_ = in.back();
    setup.parameter("running_mean", {channels_}, init::zeros).learned = false;
    setup.parameter("running_variance", {channels_}, init::ones).learned = false;
    if (use_scale) setup.parameter("scale", {channels_}, init::ones);
    if (use_shift) setup.parameter("shift", {channels_}, init::zeros);
    return in;
  }

  template <class T, class B>
  MemoryNeed memory(std::size_t, bool) const {
    return {detail::ChannelVectors<T>::size(vectors, channels_), 0};
  }

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    using detail::per_channel, detail::sums_of;
    const detail::ChannelVectors<T> v{pass.kept_memory.data(), channels_};
    const Panels<T> mean = v[0], variance = v[1], spread = v[2], factor = v[3];  // spread: 1 / the deviation
    const Panels<const T> now_spread = spread;
    Panels<const T> now_mean = mean, now_variance = variance;
    if (pass.training && !fixed(pass)) {
      pass.backend.moments(x, sums_of(mean), sums_of(variance));
    } else {
      now_mean = pass.vector(0), now_variance = pass.vector(1);
    }
    const auto root = [least = epsilon](auto squares) {
      using math::sqrt;
      using V = decltype(squares);
      return math::number<V>(1) / V(sqrt(squares + math::number<V>(least)));
    };
    pass.map(root, spread, now_variance);
    if (use_scale)
      pass.map([](auto a, auto b) { return a * b; }, factor, now_spread, Panels<const T>(pass.vector(2)));
    else
      pass.map([](auto a) { return a; }, factor, now_spread);
    if constexpr (has_pooling<T, B>)
      if (pass.pool != nullptr) {
        const auto run = [&](const auto& f) {
          pooling(pass, now_mean.data, factor.data)
              .forward(x, y, pass.training ? pass.kept[0] : Panels<T>(), pass.training ? pass.kept[1] : Panels<T>(),
                       B::template in_place<T>(f));
        };
        (pass.moved_activation != nullptr ? *pass.moved_activation : Activation()).visit(run);
        return;
      }
    const backend::Features<const T> from{now_mean.data, channels_};
    if (use_shift)
      pass.map([](auto a, auto m, auto f, auto shift) { return (a - m) * f + shift; }, y, x, from, per_channel(factor),
               pass.parameter(shift()));
    else
      pass.map([](auto a, auto m, auto f) { return (a - m) * f; }, y, x, from, per_channel(factor));
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const {
    using detail::per_channel, detail::sums_of;
    const detail::ChannelVectors<T> v{pass.kept_memory.data(), channels_};
    const bool own_statistics = !fixed(pass);
    const Panels<T> mean = own_statistics ? v[0] : pass.vector(0);
    const Panels<T> variance = v[1], spread = v[2], factor = v[3], sums = v[4], along = v[5];
    const Panels<const T> up = dy, each_sum = sums, each_along = along, each_spread = spread;
    const double n = static_cast<double>(samples(x));
    // The running statistics follow here, where the batch is known to have a finite loss.
    const auto follow = [&](std::size_t running, Panels<const T> now, double times) {
      pass.map(
          [fresh = 1 - momentum, times](auto old, auto own) {
            using V = decltype(own);
            return old + math::number<V>(fresh) * (own * math::number<V>(times) - old);
          },
          pass.vector(running), Panels<const T>(pass.vector(running)), now);
    };
    if (own_statistics && n > 1) follow(0, mean, 1), follow(1, variance, n / (n - 1));
    if (pass.pool != nullptr && pass.moved_activation != nullptr)
      pass.moved_activation->gradient(pass.backend, Panels<const T>(y), up, dy, channels_);
    const Panels<const T> read = pass.pool != nullptr ? Panels<const T>(pass.kept[1]) : x;
    pass.backend.moment_sums(up, read, per_channel(mean), sums_of(sums), sums_of(along));
    if (use_scale) pass.map([](auto a, auto s) { return a * s; }, pass.vector_gradient(2), each_along, each_spread);
    if (use_shift) pass.map([](auto s) { return s; }, pass.vector_gradient(shift()), each_sum);
    if (!dx) return;
    const double share = own_statistics ? 1 / n : 0;  // fixed statistics do not depend on x
    pass.map([share](auto s) { return s * math::number<decltype(s)>(share); }, sums, each_sum);
    pass.map([share](auto a, auto s) { return a * s * s * math::number<decltype(a)>(share); }, along, each_along,
             each_spread);
    if constexpr (has_pooling<T, B>)
      if (pass.pool != nullptr) {
        const Panels<const T> which = pass.kept[0];
        return pooling(pass, mean.data, factor.data).backward(x, which, up, sums.data, along.data, dx);
      }
    pass.map([](auto d, auto a, auto m, auto f, auto s, auto g) { return f * (d - s - (a - m) * g); }, dx, up, x,
             per_channel(mean), per_channel(factor), per_channel(sums), per_channel(along));
  }

  /// What the layer does to each channel in predictions.
  template <class T, class B>
  [[gnu::cold]] void affine(Pass<T, B>& pass, std::span<T> times, std::span<T> plus) const {
    const auto read = [&](std::size_t i) {
      return network::OnHost<T, B>(pass.backend, pass.slots[i].value.data, channels_, true);
    };
    auto mean = read(0), variance = read(1), scale = read(use_scale ? 2 : 0), by = read(use_shift ? shift() : 0);
    for (std::size_t c = 0; c < channels_; ++c) {
      const double deviation = std::sqrt(static_cast<double>(variance.data()[c]) + epsilon);
      times[c] = static_cast<T>((use_scale ? static_cast<double>(scale.data()[c]) : 1) / deviation);
      plus[c] = (use_shift ? by.data()[c] : T(0)) - mean.data()[c] * times[c];
    }
  }

  template <class T, class B>
  std::optional<PoolingNeed> pooling_need(const backend::Convolution& pool, std::size_t, bool) const {
    if constexpr (has_pooling<T, B>)
      if (B::template PooledNorm<T>::applies(pool)) return PoolingNeed{.kept = 2};
    return {};
  }

  void fields(auto&& field) {
    field("momentum", momentum);
    field("epsilon", epsilon);
    field("use_scale", use_scale);
    field("use_shift", use_shift);
  }

 private:
  static constexpr std::size_t vectors = 6;
  template <class T, class B>
  static constexpr bool has_pooling = requires {
    typename B::template PooledNorm<T>;
  };
  /// Max pooling that runs inside the layer.
  template <class T, class B>
  auto pooling(const Pass<T, B>& pass, const T* mean, const T* factor) const {
    const T* const by = use_shift ? pass.parameter(shift()).data : nullptr;
    return typename B::template PooledNorm<T>{*pass.pool, mean, factor, by};
  }
  /// Whether the statistics are those of predictions, in training as well.
  template <class T, class B>
  static bool fixed(const Pass<T, B>& pass) {
    return pass.slots[0].frozen;
  }
  /// How many values of each channel there are.
  template <class T>
  std::size_t samples(Panels<const T> x) const {
    return x.batch * (x.features / channels_);
  }
  std::size_t shift() const { return use_scale ? 3 : 2; }
  std::size_t channels_ = 0;
};

namespace detail {

/// What layer, RMS and group norm share: groups of a sample's own features, then scale and shift by channel.
template <class Options, bool Centred>
struct Normalising : Options {
  Normalising() = default;
  Normalising(Options options) : Options(std::move(options)) {}

  template <class T, class B>
  MemoryNeed memory(std::size_t batch, bool) const {
    return {round_up(batch, B::template lanes<T>(batch)) * groups_.count, 0};
  }

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    const Panels<T> plain = pass.training ? pass.kept[0] : y;
    pass.backend.normalise(groups_, Centred, this->epsilon, x, plain, factors(pass, x));
    const Panels<const T> from = plain;
    if (this->use_scale && has_shift())
      pass.map([](auto a, auto s, auto b) { return a * s + b; }, y, from, pass.parameter(0), pass.parameter(1));
    else if (this->use_scale)
      pass.map([](auto a, auto s) { return a * s; }, y, from, pass.parameter(0));
    else if (has_shift())
      pass.map([](auto a, auto b) { return a + b; }, y, from, pass.parameter(0));
    else if (pass.training)
      pass.map([](auto a) { return a; }, y, from);
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T>, Panels<T>, Panels<T> dy, Panels<T> dx) const {
    const Panels<const T> up = dy, plain = pass.kept[0];
    if (this->use_scale) pass.reduce([](auto d, auto a) { return d * a; }, pass.gradient(0), up, plain);
    if (has_shift()) pass.reduce(math::Identity(), pass.gradient(this->use_scale ? 1 : 0), up);
    if (!dx) return;
    if (this->use_scale) pass.map([](auto d, auto s) { return d * s; }, dy, up, pass.parameter(0));
    pass.backend.normalise_gradient(groups_, Centred, plain, Panels<const T>(factors(pass, up)), up, dx);
  }

 protected:
  bool has_shift() const {
    if constexpr (Centred) return this->use_shift;
    return false;
  }
  [[gnu::cold]] Shape ask(const Shape& in, Setup& setup, const backend::Groups& normalised) {
    groups_ = normalised;
    if (this->use_scale) setup.parameter("scale", {in.back()}, init::ones);
    if (has_shift()) setup.parameter("shift", {in.back()}, init::zeros);
    setup.keep(in.elements());
    return in;
  }
  void norm_fields(auto&& field) {
    field("epsilon", this->epsilon);
    field("use_scale", this->use_scale);
    if constexpr (Centred) field("use_shift", this->use_shift);
  }

 private:
  /// Of each group, what it was multiplied by.
  template <class T, class B>
  Panels<T> factors(Pass<T, B>& pass, Panels<const T> shape) const {
    return {pass.kept_memory.data(), groups_.count, shape.batch, shape.lanes};
  }
  backend::Groups groups_;
};

}  // namespace detail

/// The channels, the last extent, of each sample and pixel by themselves.
struct LayerNorm : detail::Normalising<NormOptions, true> {
  static constexpr std::string_view kind = "LayerNorm";
  static constexpr bool step_by_step = true;
  using Normalising::Normalising;
  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    detail::check_norm(in, epsilon);
    return ask(in, setup, {in.elements() / in.back(), in.back(), 1, 0});
  }
  void fields(auto&& field) { norm_fields(field); }
};

/// The same without taking off the mean.
struct RMSNorm : detail::Normalising<RMSNormOptions, false> {
  static constexpr std::string_view kind = "RMSNorm";
  static constexpr bool step_by_step = true;
  using Normalising::Normalising;
  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    detail::check_norm(in, epsilon);
    return ask(in, setup, {in.elements() / in.back(), in.back(), 1, 0});
  }
  void fields(auto&& field) { norm_fields(field); }
};

/// Groups of channels of each sample, over all its pixels.
struct GroupNorm : detail::Normalising<GroupNormOptions, true> {
  static constexpr std::string_view kind = "GroupNorm";
  using Normalising::Normalising;
  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    detail::check_norm(in, epsilon);
    if (groups == 0 || in.back() % groups != 0)
      raise<UsageError>("has .groups = ", groups, ", which has to divide its ", in.back(), " channels");
    return ask(in, setup, {groups, in.back() / groups, in.elements() / in.back(), in.back()});
  }
  void fields(auto&& field) {
    field("groups", groups);
    norm_fields(field);
  }
};

}  // namespace layer

using layer::BatchNorm;
using layer::GroupNorm;
using layer::LayerNorm;
using layer::RMSNorm;

}  // namespace tesla::inline TESLA_TARGET
