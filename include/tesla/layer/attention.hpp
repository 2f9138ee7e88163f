// Attention (Vaswani et al., "Attention is all you need", 2017): each token of a sequence reads others, by patterns.
#pragma once

#include <tesla/layer/masking.hpp>
#include <tesla/layer/products.hpp>

#include <array>
#include <cmath>
#include <cstdio>
#include <memory>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct MultiHeadAttentionOptions {
  std::size_t heads = 1;
  std::size_t key_heads = 0;  // heads of keys and values, each read by several of the queries; 0: as many as heads
  std::size_t width = 0;      // of a head; 0: the features, divided by the heads
  attention::Pattern pattern = {};  // which tokens each reads; made by attention::dense(), sliding_window(), ...
  bool causal = false;              // of these, none behind it
  bool rotary = false;              // queries and keys are turned by their places, so that scores tell distances
  double rotary_base = 10000;
  bool masking = false;  // tokens whose inputs are all .mask_value are read by none
  double mask_value = 0;
  bool use_bias = true;
  init::Initializer initializer = init::glorot_uniform;
  init::Initializer bias_initializer = init::zeros;
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

/// How many pairs of tokens are computed, for people.
struct AttentionPlan {
  std::size_t tiles = 0, all = 0, lanes = 0;
  double live = 1;
};
[[gnu::cold]] inline std::string plan_text(const AttentionPlan& p, const MemoryNeed&) {
  char line[192];
  std::snprintf(line, sizeof line, "%zu of %zu squares of %zu x %zu tokens are computed; %.3g of all pairs are live\n",
                p.tiles, p.all, p.lanes, p.lanes, p.live);
  return line;
}

/// Sequences {length, features} stay what they are. No matrix of length x length is ever there.
struct MultiHeadAttention : MultiHeadAttentionOptions {
  static constexpr std::string_view kind = "MultiHeadAttention";

  MultiHeadAttention() = default;
  MultiHeadAttention(MultiHeadAttentionOptions options) : MultiHeadAttentionOptions(std::move(options)) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) {
    if (in.rank() != 2 || in.elements() == 0)
      raise<ShapeError>("expects sequences of shape {length, features}, both 1 or more, its input has shape ", in);
    if (heads == 0) raise<UsageError>("needs .heads to be 1 or more");
    const std::size_t readers = key_heads == 0 ? heads : key_heads;
    if (heads % readers != 0)
      raise<UsageError>("has .key_heads = ", key_heads, ", which has to divide its ", heads, " heads");
    if (width == 0 && in[1] % heads != 0)
      raise<ShapeError>("has ", heads, " heads, which have to divide its ", in[1],
                        " input features, unless .width says how wide a head is");
    if (!(rotary_base > 1 && rotary_base <= 1e12))
      raise<UsageError>("needs a .rotary_base above 1 and up to 1e12, not ", rotary_base);
    if (!is_finite(mask_value)) raise<UsageError>("needs a finite .mask_value, not ", mask_value);
    pattern.check(in[0]);
    features_ = in[1];
    a_.heads = heads, a_.key_heads = readers, a_.width = width == 0 ? in[1] / heads : width, a_.length = in[0];
    a_.scale = 1 / std::sqrt(static_cast<double>(a_.width)), a_.causal = causal;
    if (rotary && a_.width % 2 != 0)
      raise<ShapeError>("turns pairs of features with .rotary, so the width of a head, ", a_.width, ", has to be even");
    const std::size_t queries = checked_product(a_.heads, a_.width), keys = readers * a_.width;
    const auto ask = [&](const std::string& what, std::size_t out, std::size_t from) {
      const std::size_t i = setup.parameters().size();
      const auto given = [&](std::size_t number, const Shape& shape) -> const Tensor<double>* {
        if (!initial) return nullptr;
        const Tensor<double>& values = initial->at(number);
        if (!(values.shape() == shape))
          raise<ShapeError>("was made with ", what, " of shape ", values.shape(), ", but needs ", shape);
        return &values;
      };
      setup.parameter(what + ".weight", {out, from}, initializer, {out, from}, given(i, {out, from}));
      if (use_bias) setup.parameter(what + ".bias", {out}, bias_initializer, {out}, given(i + 1, {out}));
    };
    ask("query", queries, features_), ask("key", keys, features_), ask("value", keys, features_);
    ask("output", features_, queries);
    tiles_ = std::make_shared<Tiles>();
    rotation_ = rotary ? std::make_shared<const backend::Rotation>(a_.width, a_.length, rotary_base) : nullptr;
    return in;
  }

  template <class T, class B>
  MemoryNeed memory(std::size_t batch, bool training) const {
    const Room<T> room = lay_out<T, B>(batch, training, nullptr, nullptr);
    return {room.kept_size, room.scratch_size};
  }

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    const Room<T> room = lay_out<T, B>(x.batch, pass.training, pass.kept_memory.data(), pass.scratch.data());
    pass.backend.to_tokens(x, a_.length, room.x);
    if (masking) detail::mark_steps(pass, mask_value, Panels<const T>(room.x), room.keys, room.differs, room.one);
    const std::array<Panels<T>, 3> to{room.q, room.k, room.v};
    for (std::size_t i = 0; i < 3; ++i) project(pass, i, room.x, to[i]);
    for (std::size_t i = 0; i < 2 && rotary; ++i) pass.backend.rotate(*rotation_, false, to[i]);
    pass.backend.attend(attention<T, B>(x.batch), Panels<const T>(room.q), Panels<const T>(room.k),
                        Panels<const T>(room.v), static_cast<const T*>(room.keys.data), room.o, room.log_sums);
    project(pass, 3, room.o, room.y);
    pass.backend.from_tokens(Panels<const T>(room.y), a_.length, y);
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T>, Panels<T> dy, Panels<T> dx) const {
    const Room<T> room = lay_out<T, B>(x.batch, true, pass.kept_memory.data(), pass.scratch.data());
    pass.backend.to_tokens(Panels<const T>(dy), a_.length, room.y);
    gradients_of(pass, 3, room.y, room.o, room.rows);
    pass.backend.multiply(input_product(weight(pass, 3), Panels<const T>(room.y), room.d_o));
    pass.backend.attend_gradient(attention<T, B>(x.batch), Panels<const T>(room.q), Panels<const T>(room.k),
                                 Panels<const T>(room.v), static_cast<const T*>(room.keys.data),
                                 Panels<const T>(room.o), static_cast<const T*>(room.log_sums),
                                 Panels<const T>(room.d_o), room.dq, room.dk, room.dv, room.attend);
    const std::array<Panels<T>, 3> from{room.dq, room.dk, room.dv};
    for (std::size_t i = 0; i < 2 && rotary; ++i) pass.backend.rotate(*rotation_, true, from[i]);
    for (std::size_t i = 0; i < 3; ++i) gradients_of(pass, i, from[i], room.x, room.rows);
    if (!dx) return;
    for (std::size_t i = 0; i < 3; ++i) {
      backend::Product<T> p = input_product(weight(pass, i), Panels<const T>(from[i]), room.y);
      p.accumulate = i > 0;
      pass.backend.multiply(p);
    }
    pass.backend.from_tokens(Panels<const T>(room.y), a_.length, dx);
  }

  /// What is computed of the square of all tokens.
  template <class T, class B>
  AttentionPlan plan(std::size_t, bool) const {
    const backend::AttentionTiles tiles(pattern, causal, a_.length,
                                        B::template lanes<T>(std::max<std::size_t>(a_.length, 2)));
    const double all = static_cast<double>(a_.length) * static_cast<double>(a_.length);
    return {tiles.count(), tiles.side() * tiles.side(), B::template lanes<T>(std::max<std::size_t>(a_.length, 2)),
            static_cast<double>(tiles.pairs()) / all};
  }

  void fields(auto&& field) {
    field("heads", heads);
    field("key_heads", key_heads);
    field("width", width);
    field("pattern", pattern);
    field("causal", causal);
    field("rotary", rotary);
    field("rotary_base", rotary_base);
    field("masking", masking);
    field("mask_value", mask_value);
    field("use_bias", use_bias);
    field("initializer", initializer);
    field("bias_initializer", bias_initializer);
  }

  std::shared_ptr<const Values> initial = {};  // of all parameters, instead of initialisers

 private:
  /// Made when a number of lanes is met for the first time.
  struct Tiles {
    std::size_t lanes = 0;
    backend::AttentionTiles tiles;
  };

  template <class T, class B>
  static std::size_t lanes_of(std::size_t length) {
    return B::template lanes<T>(std::max<std::size_t>(length, 2));
  }
  template <class T, class B>
  backend::Attention attention(std::size_t samples) const {
    backend::Attention result = a_;
    result.samples = samples, result.pattern = &pattern;
    if constexpr (requires { typename B::template Attend<T>; }) {
      const std::size_t lanes = lanes_of<T, B>(a_.length);
      if (tiles_->lanes != lanes) *tiles_ = {lanes, backend::AttentionTiles(pattern, causal, a_.length, lanes)};
      result.tiles = &tiles_->tiles;
    }
    return result;
  }

  /// Everything that a batch needs beside inputs and outputs. Tokens are lanes, each sample's in whole panels.
  template <class T>
  struct Room {
    Panels<T> x, q, k, v, o, y, keys, d_o, dq, dk, dv;
    T *log_sums = nullptr, *differs = nullptr, *one = nullptr, *attend = nullptr;
    backend::Matrix<T> rows = {};
    std::size_t kept_size = 0, scratch_size = 0;
  };
  template <class T, class B>
  Room<T> lay_out(std::size_t batch, bool training, T* kept, T* scratch) const {
    const std::size_t lanes = lanes_of<T, B>(a_.length), tokens = batch * round_up(a_.length, lanes);
    const std::size_t queries = a_.heads * a_.width, readers = a_.key_heads * a_.width;
    Room<T> room;
    const auto take = [](T* base, std::size_t& used, std::size_t n) {
      T* const at = base == nullptr ? nullptr : base + used;
      used += round_up(n, cache_line / sizeof(T));
      return at;
    };
    const auto passing = [&](std::size_t n) { return take(scratch, room.scratch_size, n); };
    const auto lasting = [&](std::size_t n) { return training ? take(kept, room.kept_size, n) : passing(n); };
    const auto panels = [&](auto& place, std::size_t features) {
      Panels<T> p{nullptr, features, tokens, lanes};
      p.data = place(p.size());
      return p;
    };
    room.x = panels(lasting, features_), room.q = panels(lasting, queries);
    room.k = panels(lasting, readers), room.v = panels(lasting, readers), room.o = panels(lasting, queries);
    room.log_sums = lasting(tokens * a_.heads);
    if (masking) {
      room.keys = panels(lasting, 1);
      room.differs = passing(room.x.size()), room.one = passing(1);
    }
    room.y = panels(passing, features_);
    if (!training) return room;
    room.d_o = panels(passing, queries), room.dq = panels(passing, queries);
    room.dk = panels(passing, readers), room.dv = panels(passing, readers);
    const std::size_t widest = std::max(features_, queries), stride = backend::row_stride<T>(widest);
    room.rows = {passing(tokens * stride), tokens, widest, stride};
    room.attend = passing(B::template attention_scratch<T>(attention<T, B>(batch), lanes));
    return room;
  }

  std::size_t place(std::size_t i) const { return use_bias ? 2 * i : i; }
  template <class T, class B>
  backend::Matrix<T> weight(const Pass<T, B>& pass, std::size_t i) const {
    return pass.weight(place(i));
  }
  template <class T, class B>
  void project(Pass<T, B>& pass, std::size_t i, Panels<T> from, Panels<T> to) const {
    backend::Product<T> p = output_product(weight(pass, i), Panels<const T>(from), to);
    if (use_bias) p.bias = pass.weight(place(i) + 1).data;
    pass.backend.multiply(p);
  }
  /// Of the weights and the bias of a projection.
  template <class T, class B>
  void gradients_of(Pass<T, B>& pass, std::size_t i, Panels<T> dy, Panels<T> x, const backend::Matrix<T>& room) const {
    const backend::Matrix<T> rows{room.data, room.rows, x.features, backend::row_stride<T>(x.features)};
    pass.backend.transpose(Panels<const T>(x), rows);
    pass.backend.multiply(weight_product(pass.slots[place(i)].gradient, Panels<const T>(dy), Panels<const T>(x), rows));
    if (use_bias) pass.reduce(math::Identity(), pass.gradient(place(i) + 1), Panels<const T>(dy));
  }

  backend::Attention a_;
  std::size_t features_ = 0;
  std::shared_ptr<Tiles> tiles_;
  std::shared_ptr<const backend::Rotation> rotation_;
};

}  // namespace layer

using layer::MultiHeadAttention;

}  // namespace tesla::inline TESLA_TARGET
