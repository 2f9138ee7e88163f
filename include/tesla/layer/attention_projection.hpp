// The weights of attention: queries, keys, values and the output are each a layer over the features of a token.
#pragma once

#include <tesla/layer/dense.hpp>
#include <tesla/layer/layer.hpp>
#include <tesla/layer/products.hpp>
#include <tesla/network/on_host.hpp>

#include <array>
#include <span>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::layer::detail {

/// A layer of which attention has several, with its share of their parameters. It sees tokens as samples.
template <Layer L>
class AttentionProjection {
 public:
  /// Asks for the parameters as `name`.weight and so on; `initial` are those of all projections.
  [[gnu::cold]] void setup(const std::string& name, const L& layer, const Shape& in, std::uint64_t seed, Setup& setup,
                           const Values* initial) {
    layer_ = layer, in_ = in;
    Setup own(seed);
    out_ = layer_.setup(in_, own).elements();
    first_ = setup.parameters().size(), count_ = own.parameters().size();
    kept_ = own.kept();
    if (kept_.size() > most_kept) raise<UsageError>("is for projections that keep ", most_kept, " things at most");
    for (const Setup::Parameter& p : own.parameters()) {
      const std::size_t number = setup.parameters().size();
      Setup::Parameter& mine = setup.parameter(name + "." + p.name, p.shape, p.initializer);
      const std::string known = mine.name;
      mine = p, mine.name = known;
      if (initial == nullptr) continue;
      mine.values = &initial->at(number);
      if (!(mine.values->shape() == p.shape))
        raise<ShapeError>("was made with ", known, " of shape ", mine.values->shape(), ", but needs ", p.shape);
    }
  }

  std::size_t in() const { return in_.elements(); }

  /// For tokens in panels of so many lanes.
  template <class T, class B>
  MemoryNeed memory(std::size_t tokens, std::size_t lanes, bool training) const {
    const Room<T> room = lay_out<T, B>(tokens, lanes, training, nullptr, nullptr);
    return {room.kept_size, room.scratch_size};
  }
  template <class T, class B>
  void forward(const Pass<T, B>& pass, std::span<T> kept, std::span<T> scratch, Panels<const T> x, Panels<T> y) const {
    const Room<T> room = lay_out<T, B>(x.batch, x.lanes, pass.training, kept.data(), scratch.data());
    with_pass(pass, room, [&](auto& own) {
      if (!room.x) return layer_.forward(own, x, y);
      network::copy_rows(pass.backend, x, room.x, room.rows);
      layer_.forward(own, Panels<const T>(room.x), room.y);
      network::copy_rows(pass.backend, Panels<const T>(room.y), y, room.rows);
    });
  }
  /// `rows` has room for x, one row a token.
  template <class T, class B>
  void backward(const Pass<T, B>& pass, std::span<T> kept, std::span<T> scratch, const backend::Matrix<T>& rows,
                Panels<const T> x, Panels<T> y, Panels<T> dy, Panels<T> dx) const {
    const Room<T> room = lay_out<T, B>(x.batch, x.lanes, true, kept.data(), scratch.data());
    with_pass(pass, room, [&](auto& own) {
      if (!room.x) {
        layer_.backward(own, x, y, dy, dx);
      } else {
        // Nothing but the sums is made of the outputs, which are linear: they need not be there again.
        network::copy_rows(pass.backend, x, room.x, room.rows);
        network::copy_rows(pass.backend, Panels<const T>(dy), room.dy, room.rows);
        layer_.backward(own, Panels<const T>(room.x), room.y, room.dy, dx ? room.dx : dx);
        if (dx) network::copy_rows(pass.backend, Panels<const T>(room.dx), dx, room.rows);
      }
      make_sums(own, rows);
    });
  }

 private:
  static constexpr std::size_t most_kept = 4;

  template <class T>
  struct Room {
    Panels<T> x, y, dy, dx;  // where the layer wants other panels than those of tokens
    T* rows = nullptr;
    std::array<Panels<T>, most_kept> kept = {};
    std::span<T> own_kept = {}, own_scratch = {};
    std::size_t kept_size = 0, scratch_size = 0;
  };
  template <class T, class B>
  Room<T> lay_out(std::size_t tokens, std::size_t lanes, bool training, T* kept, T* scratch) const {
    Room<T> room;
    const auto take = [](T* base, std::size_t& used, std::size_t n) {
      T* const at = base == nullptr ? nullptr : base + used;
      used += round_up(n, cache_line / sizeof(T));
      return at;
    };
    // Dense layers take panels of any kind.
    const std::size_t wanted = std::same_as<L, Dense> ? lanes : B::template lanes<T>(tokens);
    const auto panels = [&](T* base, std::size_t& used, std::size_t features) {
      Panels<T> p{nullptr, features, tokens, wanted};
      p.data = take(base, used, p.size());
      return p;
    };
    if (wanted != lanes) {
      const std::size_t in = in_.elements();
      room.x = panels(scratch, room.scratch_size, in), room.y = panels(scratch, room.scratch_size, out_);
      if (training)
        room.dy = panels(scratch, room.scratch_size, out_), room.dx = panels(scratch, room.scratch_size, in);
      room.rows = take(scratch, room.scratch_size, tokens * std::max(in, out_));
    }
    for (std::size_t k = 0; k < kept_.size() && training; ++k) room.kept.at(k) = panels(kept, room.kept_size, kept_[k]);
    MemoryNeed need;
    if constexpr (requires { layer_.template memory<T, B>(tokens, training); })
      need = layer_.template memory<T, B>(tokens, training);
    room.own_kept = {take(kept, room.kept_size, need.kept), need.kept};
    room.own_scratch = {take(scratch, room.scratch_size, need.scratch), need.scratch};
    return room;
  }
  template <class T, class B, class F>
  void with_pass(const Pass<T, B>& pass, const Room<T>& room, const F& f) const {
    std::array<Panels<T>, most_kept> kept = room.kept;
    Pass<T, B> own{pass.backend,     pass.training, in_,        pass.slots.subspan(first_, count_), kept, room.own_kept,
                   room.own_scratch, pass.stamps,   pass.number};
    f(own);
  }

  L layer_;
  std::vector<std::size_t> kept_;
  Shape in_;
  std::size_t out_ = 0, first_ = 0, count_ = 0;
};

}  // namespace tesla::inline TESLA_TARGET::layer::detail
