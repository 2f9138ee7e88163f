// A layer at every step of a sequence.
#pragma once

#include <tesla/layer/layer.hpp>
#include <tesla/layer/products.hpp>
#include <tesla/network/on_host.hpp>

#include <array>

namespace tesla::inline TESLA_TARGET {

namespace layer {

namespace detail {

/// "TimeDistributed" with the kind of the layer behind it.
template <class L>
struct DistributedKind {
  static constexpr std::string_view first = "TimeDistributed", second = L::kind;
  static constexpr auto text = [] {
    std::array<char, first.size() + second.size()> result{};
    std::copy(first.begin(), first.end(), result.begin());
    std::copy(second.begin(), second.end(), result.begin() + first.size());
    return result;
  }();
  static constexpr std::string_view value{text.data(), text.size()};
};

}  // namespace detail

/// Samples {length, ...} become {length, ...}: the layer sees each step as a sample of its own, and has one set of
/// parameters for all of them.
template <Layer L>
struct TimeDistributed {
  static constexpr std::string_view kind = detail::DistributedKind<L>::value;
  static constexpr bool passthrough = Passthrough<L>;
  static constexpr bool step_by_step = true;

  L layer = {};
  std::string name = {};

  TimeDistributed() = default;
  explicit TimeDistributed(L at_each_step, std::string own_name = {})
      : layer(std::move(at_each_step)), name(std::move(own_name)) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    if (in.rank() < 2 || in.elements() == 0)
      raise<ShapeError>("expects sequences of shape {length, ...}, all 1 or more, its input has shape ", in);
    Setup own(setup.seed());
    steps_ = in[0], in_ = in.tail(), out_ = layer.setup(in_, own);
    kept_ = own.kept();
    if (kept_.size() > most_kept) raise<UsageError>("is for layers that keep ", most_kept, " things at most");
    inputs_ = 0;
    for (const Setup::Parameter& p : own.parameters()) {
      if (p.by_rows || !p.learned)
        raise<UsageError>("is for layers whose steps do not matter, ", L::kind, " takes sequences itself");
      setup.parameter(p.name, p.shape, p.initializer) = p;
      if (own.sums_products()) inputs_ = std::max(inputs_, in_.elements());
    }
    return out_.with_front(steps_);
  }

  template <class T, class B>
  MemoryNeed memory(std::size_t batch, bool training) const {
    const Room<T> room = lay_out<T, B>(batch, B::template lanes<T>(batch), training, nullptr, nullptr);
    return {room.kept_size, room.scratch_size};
  }

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    const Room<T> room = room_of(pass, x);
    if (direct<T, B>(x.batch, x.lanes))
      return with_inner(pass, room, [&](auto& inner) { layer.forward(inner, as_samples(x), as_samples(y)); });
    network::copy_rows(pass.backend, x, room.x, room.rows);
    with_inner(pass, room, [&](auto& inner) { layer.forward(inner, Panels<const T>(room.x), room.y); });
    network::copy_rows(pass.backend, Panels<const T>(room.y), y, room.rows);
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const {
    const Room<T> room = room_of(pass, x);
    if (direct<T, B>(x.batch, x.lanes))
      return back(pass, room, as_samples(x), as_samples(y), as_samples(dy), dx ? as_samples(dx) : dx);
    network::copy_rows(pass.backend, Panels<const T>(dy), room.dy, room.rows);
    back(pass, room, Panels<const T>(room.x), room.y, room.dy, dx ? room.dx : dx);
    if (dx) network::copy_rows(pass.backend, Panels<const T>(room.dx), dx, room.rows);
  }

  void fields(auto&& field) requires requires { layer.fields(field); }
  { layer.fields(field); }

 private:
  static constexpr std::size_t most_kept = 8;

  template <class T>
  struct Room {
    std::array<Panels<T>, most_kept> kept = {};
    Panels<T> x, y, dy, dx;
    T *rows = nullptr, *x_rows = nullptr;
    std::span<T> inner_kept = {}, inner_scratch = {};
    std::size_t kept_size = 0, scratch_size = 0;
  };

  /// Whether the steps of whole panels are panels of steps; otherwise they are copied into some.
  template <class T, class B>
  bool direct(std::size_t batch, std::size_t lanes) const {
    return batch % lanes == 0 && B::template lanes<T>(batch * steps_) == lanes;
  }
  template <class T, class B>
  Room<T> lay_out(std::size_t batch, std::size_t lanes, bool training, T* kept, T* scratch) const {
    Room<T> room;
    const std::size_t samples = batch * steps_, own = B::template lanes<T>(samples), in = in_.elements(),
                      out = out_.elements();
    const auto take = [](T* base, std::size_t& used, std::size_t n) {
      T* const at = base == nullptr ? nullptr : base + used;
      used += round_up(n, cache_line / sizeof(T));
      return at;
    };
    const auto lasting = [&](std::size_t n) { return take(kept, room.kept_size, n); };
    const auto passing = [&](std::size_t n) { return take(scratch, room.scratch_size, n); };
    const auto panels = [&](std::size_t features, bool lasts) {
      Panels<T> p{nullptr, features, samples, own};
      p.data = lasts ? lasting(p.size()) : passing(p.size());
      return p;
    };
    if (!direct<T, B>(batch, lanes)) {
      room.x = panels(in, training), room.y = panels(out, training);
      if (training) room.dy = panels(out, false), room.dx = panels(in, false);
      room.rows = passing(samples * std::max(in, out));
    }
    for (std::size_t k = 0; k < kept_.size() && training; ++k) room.kept[k] = panels(kept_[k], true);
    if (training && inputs_ != 0) room.x_rows = passing(samples * backend::row_stride<T>(inputs_));
    MemoryNeed need;
    if constexpr (requires { layer.template memory<T, B>(samples, training); })
      need = layer.template memory<T, B>(samples, training);
    room.inner_kept = {lasting(need.kept), need.kept}, room.inner_scratch = {passing(need.scratch), need.scratch};
    return room;
  }
  template <class T, class B>
  Room<T> room_of(const Pass<T, B>& pass, Panels<const T> x) const {
    return lay_out<T, B>(x.batch, x.lanes, pass.training, pass.kept_memory.data(), pass.scratch.data());
  }

  template <class T>
  Panels<T> as_samples(Panels<T> p) const {
    return {p.data, p.features / steps_, p.batch * steps_, p.lanes};
  }
  template <class T, class B, class F>
  void with_inner(Pass<T, B>& pass, const Room<T>& room, const F& f) const {
    std::array<Panels<T>, most_kept> kept = room.kept;
    Pass<T, B> inner{pass.backend,    pass.training,      in_,         pass.slots,  std::span(kept).first(kept_.size()),
                     room.inner_kept, room.inner_scratch, pass.stamps, pass.number, false,
                     nullptr};
    f(inner);
  }
  template <class T, class B>
  void back(Pass<T, B>& pass, const Room<T>& room, Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const {
    with_inner(pass, room, [&](auto& inner) { layer.backward(inner, x, y, dy, dx); });
    make_sums(pass, backend::Matrix<T>{room.x_rows, x.batch, inputs_, backend::row_stride<T>(inputs_)});
  }

  std::size_t steps_ = 1, inputs_ = 0;
  Shape in_, out_;
  std::vector<std::size_t> kept_;
};

}  // namespace layer

using layer::TimeDistributed;

}  // namespace tesla::inline TESLA_TARGET
