// Attention (Vaswani et al., "Attention is all you need", 2017): each token of a sequence reads others, by patterns.
#pragma once

#include <tesla/layer/attention_projection.hpp>
#include <tesla/layer/connections.hpp>
#include <tesla/layer/dense.hpp>
#include <tesla/layer/masking.hpp>
#include <tesla/network/on_host.hpp>

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
  double dropout = 0;  // the share of weights that become 0 in training
  bool use_bias = true;
  init::Initializer initializer = init::glorot_uniform;
  init::Initializer bias_initializer = init::zeros;
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept

  /// The weights from so many features to so many others, as a layer.
  [[gnu::cold]] Dense projection(std::size_t, std::size_t to) const {
    return Dense({.units = to, .use_bias = use_bias, .initializer = initializer, .bias_initializer = bias_initializer});
  }
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

namespace detail {

/// Attention with options that say what its projections are; Cross: keys and values are of a second input. No matrix of
/// all pairs of tokens is ever there.
template <class Options, bool Cross>
struct Attending : Options {
  using Projection = decltype(Options().projection(1, 1));

  Attending() = default;
  Attending(Options options) : Options(std::move(options)) {}

  [[gnu::cold]] Shape setup(const Shape& in, Setup& setup) requires(!Cross) { return prepare(in, in, setup); }
  [[gnu::cold]] Shape setup(std::span<const Shape> in, Setup& setup) requires Cross {
    if (in.size() != 2)
      raise<UsageError>("joins two branches, that of the queries and that of what they read, not ", in.size());
    return prepare(in[0], in[1], setup);
  }

  template <class T, class B>
  MemoryNeed memory(std::size_t batch, bool training) const {
    const Room<T> room = lay_out<T, B>(batch, training, nullptr, nullptr);
    return {room.kept_size, room.scratch_size};
  }

  template <class T, class B>
  void forward(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const requires(!Cross) {
    if (steps_ != 0)
      step(pass, x, y);
    else
      attend(pass, x, x, y);
  }
  template <class T, class B>
  void forward(Pass<T, B>& pass, std::span<const Panels<const T>> xs, Panels<T> y) const requires Cross {
    attend(pass, xs[0], xs[1], y);
  }

  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> x, Panels<T>, Panels<T> dy, Panels<T> dx) const requires(!Cross) {
    const Room<T> room = gradients(pass, x.batch, Panels<const T>(dy));
    gradient_of_input(pass, room, query, value, {dx});
  }
  template <class T, class B>
  void backward(Pass<T, B>& pass, Panels<const T> dy, std::span<const JoinedGradient<T>> to) const requires Cross {
    const Room<T> room = gradients(pass, dy.batch, dy);
    gradient_of_input(pass, room, query, query, to[0]);
    gradient_of_input(pass, room, key, value, to[1]);
  }

  /// What is computed of the square of all tokens.
  template <class T, class B>
  AttentionPlan plan(std::size_t, bool) const {
    const std::size_t lanes = this->lanes<T, B>();
    const backend::AttentionTiles tiles(this->pattern, this->causal, a_.queries, a_.keys, lanes);
    return {tiles.count(), tiles.queries() * tiles.keys(), lanes,
            static_cast<double>(tiles.pairs()) / (static_cast<double>(a_.queries) * static_cast<double>(a_.keys))};
  }

  void fields(auto&& field) {
    if constexpr (requires { Options::fields_of_projection(field); }) Options::fields_of_projection(field);
    field("heads", this->heads);
    field("key_heads", this->key_heads);
    field("width", this->width);
    field("pattern", this->pattern);
    field("causal", this->causal);
    field("rotary", this->rotary);
    field("rotary_base", this->rotary_base);
    field("masking", this->masking);
    field("mask_value", this->mask_value);
    field("dropout", this->dropout);
    field("use_bias", this->use_bias);
    field("initializer", this->initializer);
    field("bias_initializer", this->bias_initializer);
  }

  std::shared_ptr<const Values> initial = {};  // of all parameters, instead of initialisers

 private:
  static constexpr std::size_t query = 0, key = 1, value = 2, output = 3;

  [[gnu::cold]] Shape prepare(const Shape& in, const Shape& read, Setup& setup) {
    for (const Shape* shape : {&in, &read})
      if (shape->rank() != 2 || shape->elements() == 0)
        raise<ShapeError>("expects sequences of shape {length, features}, both 1 or more, its input has shape ",
                          *shape);
    const std::size_t heads = this->heads, features = in[1];
    if (heads == 0) raise<UsageError>("needs .heads to be 1 or more");
    const std::size_t readers = this->key_heads == 0 ? heads : this->key_heads;
    if (heads % readers != 0)
      raise<UsageError>("has .key_heads = ", readers, ", which has to divide its ", heads, " heads");
    if (this->width == 0 && features % heads != 0)
      raise<ShapeError>("has ", heads, " heads, which have to divide its ", features,
                        " input features, unless .width says how wide a head is");
    if (!(this->rotary_base > 1 && this->rotary_base <= 1e12))
      raise<UsageError>("needs a .rotary_base above 1 and up to 1e12, not ", this->rotary_base);
    if (!is_finite(this->mask_value)) raise<UsageError>("needs a finite .mask_value, not ", this->mask_value);
    if (!(this->dropout >= 0 && this->dropout < 1))
      raise<UsageError>("needs a .dropout in [0, 1), not ", this->dropout);
    steps_ = setup.steps();
    if (steps_ != 0 && !this->causal)
      raise<UsageError>("reads tokens that are yet to come; sequences step by step need .causal = true");
    a_.heads = heads, a_.key_heads = readers, a_.width = this->width == 0 ? features / heads : this->width;
    a_.queries = in[0], a_.keys = steps_ != 0 ? steps_ : read[0];
    this->pattern.check(std::max(a_.queries, a_.keys));
    a_.scale = 1 / std::sqrt(static_cast<double>(a_.width)), a_.causal = this->causal;
    a_.seed = setup.seed();
    if (this->rotary && a_.width % 2 != 0)
      raise<ShapeError>("turns pairs of features with .rotary, so the width of a head, ", a_.width, ", has to be even");
    const std::size_t queries = checked_product(heads, a_.width), keys = readers * a_.width;
    constexpr std::array<std::string_view, 4> names{"query", "key", "value", "output"};
    const std::array<std::array<std::size_t, 2>, 4> sizes{
        {{features, queries}, {read[1], keys}, {read[1], keys}, {queries, features}}};
    for (std::size_t i = 0; i < 4; ++i)
      projections_[i].setup(std::string(names[i]), this->projection(sizes[i][0], sizes[i][1]), {sizes[i][0]},
                            setup.seed() + i + 1, setup, initial.get());
    tiles_ = std::make_shared<Tiles>();
    const auto rotation = [&](std::size_t length) {
      return this->rotary ? std::make_shared<backend::Rotation>(a_.width, length, this->rotary_base) : nullptr;
    };
    rotations_[key] = rotation(a_.keys);
    rotations_[query] = steps_ != 0 || a_.queries == a_.keys ? rotations_[key] : rotation(a_.queries);
    return in;
  }

  /// Made when a number of lanes is met for the first time.
  struct Tiles {
    std::size_t lanes = 0;
    backend::AttentionTiles tiles;
    backend::Rotation at_place;  // of one place, for all lanes
  };

  template <class T, class B>
  std::size_t lanes() const {
    return B::template lanes<T>(std::max({a_.queries, a_.keys, std::size_t{2}}));
  }
  template <class T, class B>
  backend::Attention attention(std::size_t samples, const Pass<T, B>* pass) const {
    backend::Attention result = a_;
    result.samples = samples, result.pattern = &this->pattern;
    if (pass != nullptr && pass->training) result.dropout = this->dropout, result.number = pass->number;
    if constexpr (requires { typename B::template Attend<T>; }) {
      const std::size_t lanes = this->lanes<T, B>();
      if (tiles_->lanes != lanes)
        tiles_->tiles = backend::AttentionTiles(this->pattern, this->causal, a_.queries, a_.keys, lanes),
        tiles_->lanes = lanes;
      result.tiles = &tiles_->tiles;
    }
    return result;
  }

  /// Everything that a batch needs beside inputs and outputs. Tokens are lanes, each sample's in whole panels.
  template <class T>
  struct Room {
    std::array<Panels<T>, 2> x;  // of the queries, and of what they read
    std::array<Panels<T>, 4> out, gradients;
    Panels<T> o, d_o, live, sum, more, turned;
    T *log_sums = nullptr, *differs = nullptr, *one = nullptr, *attend = nullptr;
    // Step by step: [sample][place][feature], and rows of one step.
    T *keys = nullptr, *values = nullptr, *lives = nullptr, *scores = nullptr;
    backend::Matrix<T> rows = {}, query = {};
    std::array<std::span<T>, 4> kept = {};
    std::span<T> scratch = {};
    std::size_t kept_size = 0, scratch_size = 0;
  };
  template <class T, class B>
  Room<T> lay_out(std::size_t batch, bool training, T* kept, T* scratch) const {
    const bool steps = steps_ != 0;
    const std::size_t lanes = steps ? B::template lanes<T>(batch) : this->lanes<T, B>();
    const std::size_t queries = steps ? batch : batch * round_up(a_.queries, lanes);
    const std::size_t keys = steps ? batch : batch * round_up(a_.keys, lanes);
    const std::size_t wide = a_.heads * a_.width, narrow = a_.key_heads * a_.width;
    Room<T> room;
    const auto take = [](T* base, std::size_t& used, std::size_t n) {
      T* const at = base == nullptr ? nullptr : base + used;
      used += round_up(n, cache_line / sizeof(T));
      return at;
    };
    const auto passing = [&](std::size_t n) { return take(scratch, room.scratch_size, n); };
    const auto stays = [&](std::size_t n) { return take(kept, room.kept_size, n); };
    const auto lasting = [&](std::size_t n) { return training ? stays(n) : passing(n); };
    const auto panels = [&](auto& place, std::size_t features, std::size_t tokens) {
      Panels<T> p{nullptr, features, tokens, lanes};
      p.data = place(p.size());
      return p;
    };
    MemoryNeed most;
    for (std::size_t i = 0; i < 4; ++i) {
      const MemoryNeed need =
          projections_[i].template memory<T, B>(i == query || i == output ? queries : keys, lanes, training);
      room.kept[i] = {stays(need.kept), need.kept};
      most.scratch = std::max(most.scratch, need.scratch);
    }
    room.scratch = {passing(most.scratch), most.scratch};
    const std::size_t features = projections_[query].in(), read = projections_[key].in();
    if (!steps) room.x[0] = panels(lasting, features, queries);
    if (!steps) room.x[1] = Cross ? panels(lasting, read, keys) : room.x[0];
    room.out[query] = panels(lasting, wide, queries);
    room.out[key] = panels(lasting, narrow, keys), room.out[value] = panels(lasting, narrow, keys);
    room.o = panels(lasting, wide, queries);
    if (this->masking) {
      room.live = panels(lasting, 1, keys);
      room.differs = panels(passing, read, keys).data, room.one = passing(1);
    }
    if (steps) {
      room.keys = stays(batch * steps_ * narrow), room.values = stays(batch * steps_ * narrow);
      if (this->masking) room.lives = stays(batch * steps_);
      room.scores = passing(batch * a_.heads * steps_);
      room.query = {passing(batch * wide), batch, wide, wide}, room.rows = {passing(batch * wide), batch, wide, wide};
      return room;
    }
    room.log_sums = lasting(queries * a_.heads);
    room.out[output] = panels(passing, features, queries);
    if (!training) return room;
    room.gradients = {panels(passing, wide, queries), panels(passing, narrow, keys), panels(passing, narrow, keys),
                      room.out[output]};
    room.d_o = panels(passing, wide, queries);
    room.sum = panels(passing, std::max(features, read), std::max(queries, keys));
    room.more = panels(passing, std::max(features, read), std::max(queries, keys));
    const std::size_t widest = std::max({features, read, wide}), stride = backend::row_stride<T>(widest);
    room.rows = {passing(std::max(queries, keys) * stride), std::max(queries, keys), widest, stride};
    if (Cross)
      room.turned.data =
          passing(round_up(batch, B::template lanes<T>(batch)) * std::max(features * a_.queries, read * a_.keys));
    room.attend = passing(B::template attention_scratch<T>(attention<T, B>(batch, nullptr), lanes));
    return room;
  }

  template <class T, class B>
  void attend(Pass<T, B>& pass, Panels<const T> x, Panels<const T> read, Panels<T> y) const {
    const Room<T> room = lay_out<T, B>(x.batch, pass.training, pass.kept_memory.data(), pass.scratch.data());
    pass.backend.to_tokens(x, a_.queries, room.x[0]);
    if constexpr (Cross) pass.backend.to_tokens(read, a_.keys, room.x[1]);
    if (this->masking)
      mark_steps(pass, this->mask_value, Panels<const T>(room.x[1]), room.live, room.differs, room.one);
    for (std::size_t i = 0; i < 3; ++i) project(pass, room, i, room.x[i != query], room.out[i]);
    for (std::size_t i = 0; i < 2 && this->rotary; ++i) pass.backend.rotate(*rotations_[i], false, room.out[i]);
    pass.backend.attend(attention(x.batch, &pass), Panels<const T>(room.out[query]), Panels<const T>(room.out[key]),
                        Panels<const T>(room.out[value]), static_cast<const T*>(room.live.data), room.o, room.log_sums);
    project(pass, room, output, room.o, room.out[output]);
    pass.backend.from_tokens(Panels<const T>(room.out[output]), a_.queries, y);
  }

  /// Of all parameters, queries, keys and values.
  template <class T, class B>
  Room<T> gradients(Pass<T, B>& pass, std::size_t batch, Panels<const T> dy) const {
    const Room<T> room = lay_out<T, B>(batch, true, pass.kept_memory.data(), pass.scratch.data());
    pass.backend.to_tokens(dy, a_.queries, room.gradients[output]);
    project_back(pass, room, output, room.o, room.d_o);
    pass.backend.attend_gradient(attention(batch, &pass), Panels<const T>(room.out[query]),
                                 Panels<const T>(room.out[key]), Panels<const T>(room.out[value]),
                                 static_cast<const T*>(room.live.data), Panels<const T>(room.o),
                                 static_cast<const T*>(room.log_sums), Panels<const T>(room.d_o), room.gradients[query],
                                 room.gradients[key], room.gradients[value], room.attend);
    for (std::size_t i = 0; i < 2 && this->rotary; ++i) pass.backend.rotate(*rotations_[i], true, room.gradients[i]);
    return room;
  }
  /// Of projections first to last, and what they give together for their input.
  template <class T, class B>
  void gradient_of_input(Pass<T, B>& pass, const Room<T>& room, std::size_t first, std::size_t last,
                         const JoinedGradient<T>& to) const {
    const Panels<T> x = room.x[first != query];
    const std::size_t length = first == query ? a_.queries : a_.keys;
    const auto like_x = [&](Panels<T> p) { return Panels<T>{p.data, x.features, x.batch, x.lanes}; };
    const auto add = [&](Panels<T> sum, Panels<T> more) {
      pass.map([](auto a, auto b) { return a + b; }, sum, Panels<const T>(sum), Panels<const T>(more));
    };
    const Panels<T> sum = like_x(room.sum), more = like_x(room.more);
    for (std::size_t i = first; i <= last; ++i) {
      project_back(pass, room, i, x, !to.dx ? Panels<T>() : i == first ? sum : more);
      if (to.dx && i > first) add(sum, more);
    }
    if (!to.dx) return;
    const Panels<T> turned{room.turned.data, to.dx.features, to.dx.batch, to.dx.lanes};
    pass.backend.from_tokens(Panels<const T>(sum), length, to.add ? turned : to.dx);
    if (to.add) add(to.dx, turned);
  }

  template <class T, class B>
  void project(Pass<T, B>& pass, const Room<T>& room, std::size_t i, std::type_identity_t<Panels<const T>> from,
               Panels<T> to) const {
    projections_[i].forward(pass, room.kept[i], room.scratch, from, to);
  }
  template <class T, class B>
  void project_back(Pass<T, B>& pass, const Room<T>& room, std::size_t i, Panels<T> from, Panels<T> dx) const {
    const backend::Matrix<T> rows{room.rows.data, from.batch, from.features, backend::row_stride<T>(from.features)};
    projections_[i].backward(pass, room.kept[i], room.scratch, rows, Panels<const T>(from), room.out[i],
                             room.gradients[i], dx);
  }

  /// One token of each sample, which reads those before it.
  template <class T, class B>
  void step(Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    const Room<T> room = lay_out<T, B>(x.batch, false, pass.kept_memory.data(), pass.scratch.data());
    for (std::size_t i = 0; i < 3; ++i) project(pass, room, i, x, room.out[i]);
    if (this->rotary) turn_to(pass.place, x.lanes);
    for (std::size_t i = 0; i < 2 && this->rotary; ++i) pass.backend.rotate(tiles_->at_place, false, room.out[i]);
    const auto keep = [&](Panels<T> from, T* at) {
      pass.backend.transpose(Panels<const T>(from), backend::Matrix<T>{at + pass.place * from.features, x.batch,
                                                                       from.features, steps_ * from.features});
    };
    keep(room.out[key], room.keys), keep(room.out[value], room.values);
    if (this->masking) {
      mark_steps(pass, this->mask_value, x, room.live, room.differs, room.one);
      keep(room.live, room.lives);
    }
    pass.backend.transpose(Panels<const T>(room.out[query]), room.query);
    backend::Attention a = a_;
    a.samples = x.batch, a.pattern = &this->pattern;
    pass.backend.attend_step(a, pass.place + 1, room.query, static_cast<const T*>(room.keys),
                             static_cast<const T*>(room.values), static_cast<const T*>(room.lives), room.rows,
                             room.scores);
    network::rows_to_panels(pass.backend, room.rows.data, room.o);
    project(pass, room, output, room.o, y);
  }
  /// The rotation of one place, for so many lanes.
  void turn_to(std::size_t place, std::size_t lanes) const {
    const backend::Rotation& all = *rotations_[query];
    backend::Rotation& now = tiles_->at_place;
    now.width = all.width, now.length = lanes;
    now.cosines.resize(all.width / 2 * lanes), now.sines.resize(now.cosines.size());
    for (std::size_t i = 0; i < all.width / 2; ++i) {
      std::fill_n(now.cosines.data() + i * lanes, lanes, all.cosines[i * all.length + place]);
      std::fill_n(now.sines.data() + i * lanes, lanes, all.sines[i * all.length + place]);
    }
  }

  std::array<AttentionProjection<Projection>, 4> projections_;
  backend::Attention a_;
  std::size_t steps_ = 0;  // not 0: sequences of up to so many tokens come one token at a time
  std::shared_ptr<Tiles> tiles_;
  std::array<std::shared_ptr<backend::Rotation>, 2> rotations_;
};

}  // namespace detail

/// Sequences {length, features} stay what they are.
struct MultiHeadAttention : detail::Attending<MultiHeadAttentionOptions, false> {
  static constexpr std::string_view kind = "MultiHeadAttention";
  static constexpr bool step_by_step = true;
  using Attending::Attending;
};

/// Joins two branches: each token of the first reads those of the second.
/// `Parallel(CrossAttention({.heads = 2}), Chain(), Dense(...))`
struct CrossAttention : detail::Attending<MultiHeadAttentionOptions, true> {
  static constexpr std::string_view kind = "CrossAttention";
  static constexpr bool joins = true;
  using Attending::Attending;
};

}  // namespace layer

using layer::CrossAttention;
using layer::MultiHeadAttention;

}  // namespace tesla::inline TESLA_TARGET
