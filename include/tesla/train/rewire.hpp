// Callbacks that rewire SparseDense layers while a model is trained: SET (Mocanu et al. 2018), RigL (Evci et al. 2020),
// and pruning little by little (Zhu and Gupta 2017). Steps are counted over all training, so that another fit, or one
// after a load, goes on with the schedule.
#pragma once

#include <tesla/layer/sparse_dense.hpp>
#include <tesla/model/network.hpp>
#include <tesla/network/sparse/rewire.hpp>
#include <tesla/train/callback.hpp>

#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::sparse {

/// What one rewiring did to one layer, in blocks; a weight is a block of 1 x 1.
struct Rewiring {
  std::size_t step = 0;  // of the optimizer, from 1
  std::string layer;
  std::size_t dropped = 0, grown = 0;
  std::size_t live = 0;  // weights, afterwards
};
using RewiringHistory = std::vector<Rewiring>;

namespace detail {

/// One sparse layer of a model, to be rewired.
template <class Network>
class Rewire {
 public:
  [[gnu::cold]] Rewire(Network& network, std::size_t place)
      : network_(network),
        entry_(network.entries()[place]),
        layer_(*network.template layer_at<layer::SparseDense>(place)),
        pattern_(layer_.pattern()) {
    const auto& store = network.store();
    const auto values = store.read(store.values(), store.places()[entry_.first_parameter]);
    blocks_ = network::sparse::live_blocks(pattern_, layer_.block, values);
  }

  const std::vector<network::sparse::Scored>& live() const { return blocks_; }
  std::uint64_t all() const {
    return network::sparse::blocks_across(pattern_, layer_.block) *
           network::sparse::blocks_down(pattern_, layer_.block);
  }

  /// Drops the `count` blocks of least magnitude and puts others in, which begin at zero with fresh state.
  [[gnu::cold]] void apply(std::size_t count, const std::vector<std::uint64_t>& grown, std::size_t step,
                           RewiringHistory& history, bool verbose) {
    const std::vector<std::uint64_t> dropped = network::sparse::weakest(blocks_, count);
    const auto [next, from] = network::sparse::rewired(pattern_, layer_.block, dropped, grown);
    auto weights = std::make_shared<layer::SparseWeights>(next, layer_.block);
    network_.reform(entry_.first_parameter, weights, from);
    layer_.rewire(std::move(weights));
    history.push_back({step, entry_.name, dropped.size(), grown.size(), next.live()});
    if (verbose)
      std::printf("step %zu: %s: %zu dropped, %zu grown, %zu live\n", step, entry_.name.c_str(), dropped.size(),
                  grown.size(), next.live());
  }

 private:
  Network& network_;
  const typename Network::Entry& entry_;
  layer::SparseDense& layer_;
  Pattern pattern_;
  std::vector<network::sparse::Scored> blocks_;
};

/// Calls f(place, layer) for each sparse layer of a model; there has to be one.
template <class Network, class F>
[[gnu::cold]] void each_sparse_layer(Network& network, const char* who, const F& f) {
  bool found = false;
  for (std::size_t i = 0; i < network.entries().size(); ++i)
    if (auto* const layer = network.template layer_at<layer::SparseDense>(i)) found = true, f(i, *layer);
  if (!found) raise<UsageError>(who, ": the model has no SparseDense layers; sparse::prune makes them from Dense ones");
}

/// What all three share.
class Rewirer {
 public:
  /// What was done so far, of this object and its copies: a callback that fit() was given is a copy.
  const RewiringHistory& history() const { return *history_; }

 protected:
  Rewirer(const char* who, std::size_t every, const char* option, double fraction) : who_(who) {
    if (every == 0) raise<UsageError>(who, ": .every has to be 1 or more");
    if (!(fraction > 0 && fraction < 1)) raise<UsageError>(who, ": .", option, " has to lie in (0, 1), not ", fraction);
  }

  template <class Model, class F>
  void each_layer(callback::Moment<Model>& m, const F& f) const {
    each_sparse_layer(m.model.network(), who_, f);
  }
  template <class Model>
  void need_layers(callback::Moment<Model>& m) const {
    each_layer(m, [](std::size_t, const auto&) {});
  }

  /// The step with which a schedule ends that may be given, by default after three quarters of a fit; something has to
  /// come before that.
  template <class Model>
  std::size_t end_of(callback::Moment<Model>& m, std::size_t until, std::size_t first_due, std::size_t every) const {
    if (until != 0) return until;
    const std::size_t end = m.model.training().step + m.epochs * m.batches * 3 / 4;
    if (first_due >= end)
      raise<UsageError>(who_, ": changes nothing in this fit, of which three quarters end with step ", end,
                        ", while the first change is due at step ", first_due, " with .every ", every,
                        "; choose a smaller one, or give .until");
    return end;
  }

  const char* who_;
  std::shared_ptr<RewiringHistory> history_ = std::make_shared<RewiringHistory>();
};

}  // namespace detail

struct RigLOptions {
  std::size_t every = 100;     // steps between rewirings
  double drop_fraction = 0.3;  // of the live blocks, at the beginning; it falls to 0 along a cosine
  std::size_t until = 0;       // the step after which nothing is rewired; 0: three quarters of the fit it is given to
  bool verbose = false;        // a line for each rewiring
};

/// Drops the blocks of least magnitude and grows those, dead until then, whose gradients are largest.
struct RigL : RigLOptions, detail::Rewirer {
  RigL(RigLOptions options = {})
      : RigLOptions(options), Rewirer("RigL", options.every, "drop_fraction", options.drop_fraction) {}

  template <class Model>
  void on_fit_begin(callback::Moment<Model>& m) {
    need_layers(m);
    end_ = end_of(m, until, (m.model.training().step / every + 1) * every, every);
    look(m);
  }

  template <class Model>
  void on_batch_end(callback::Moment<Model>& m) {
    const std::size_t step = m.model.training().step;
    if (m.stepped && due(step)) {
      each_layer(m, [&](std::size_t place, layer::SparseDense& layer) {
        const std::vector<std::uint64_t> grown = layer.grown();
        if (grown.empty()) return;  // no dead block is left, or too few are live
        detail::Rewire(m.model.network(), place).apply(grown.size(), grown, step, *history_, verbose);
      });
    }
    look(m);
  }

  template <class Model>
  void on_fit_end(callback::Moment<Model>& m) {
    each_layer(m, [](std::size_t, layer::SparseDense& layer) { layer.look_for_growth(0); });
  }

 private:
  bool due(std::size_t step) const { return step % every == 0 && step < end_; }

  /// Before a step that rewires, its backward pass is told to look for what to grow.
  template <class Model>
  void look(callback::Moment<Model>& m) {
    const std::size_t next = m.model.training().step + 1;
    if (!due(next)) return;
    const double share =
        drop_fraction / 2 * (1 + std::cos(3.141592653589793 * static_cast<double>(next) / static_cast<double>(end_)));
    each_layer(m, [&](std::size_t, layer::SparseDense& layer) {
      layer.look_for_growth(static_cast<std::size_t>(share * static_cast<double>(layer.live_blocks())));
    });
  }

  std::size_t end_ = 0;
};

struct SETOptions {
  double fraction = 0.3;  // of the live blocks
  std::size_t every = 1;  // epochs between rewirings
  std::size_t until = 0;  // the epoch, of all training, after which nothing is rewired; 0: always
  std::uint64_t seed = 0;
  bool verbose = false;
};

/// Drops the blocks of least magnitude at the end of epochs and grows as many, dead until then, drawn at random.
struct SET : SETOptions, detail::Rewirer {
  SET(SETOptions options = {}) : SETOptions(options), Rewirer("SET", options.every, "fraction", options.fraction) {}

  template <class Model>
  void on_fit_begin(callback::Moment<Model>& m) {
    need_layers(m);
  }

  template <class Model>
  void on_epoch_end(callback::Moment<Model>& m) {
    const std::size_t epoch = m.model.training().epochs;
    if (epoch % every != 0 || (until != 0 && epoch > until)) return;
    each_layer(m, [&](std::size_t place, const auto&) {
      detail::Rewire rewire(m.model.network(), place);
      const auto count = static_cast<std::size_t>(fraction * static_cast<double>(rewire.live().size()));
      const std::vector<std::uint64_t> grown =
          network::sparse::draw_dead(rewire.live(), rewire.all(), count, random::Stream(seed, epoch << 16 | place));
      if (!grown.empty()) rewire.apply(grown.size(), grown, m.model.training().step, *history_, verbose);
    });
  }
};

struct GradualPruningOptions {
  double density = 0.1;              // in the end
  std::size_t begin = 0, until = 0;  // steps; 0 for the second: three quarters of the fit it is given to
  std::size_t every = 100;           // steps between prunings
  double initial_density = 1;
  bool verbose = false;
};

/// Drops the blocks of least magnitude, many at first and few in the end. Layers that have fewer already are left
/// alone; begin with `SparseDense({.density = 1})`, which is computed dense until that is no longer the faster way.
struct GradualPruning : GradualPruningOptions, detail::Rewirer {
  GradualPruning(GradualPruningOptions options = {})
      : GradualPruningOptions(options), Rewirer("GradualPruning", options.every, "density", options.density) {
    if (!(initial_density > density && initial_density <= 1))
      raise<UsageError>("GradualPruning: .initial_density has to lie above .density and up to 1, not ",
                        initial_density);
    if (until != 0 && until <= begin) raise<UsageError>("GradualPruning: .until has to be a later step than .begin");
  }

  template <class Model>
  void on_fit_begin(callback::Moment<Model>& m) {
    need_layers(m);
    end_ = end_of(m, until, begin + every, every);
  }

  template <class Model>
  void on_batch_end(callback::Moment<Model>& m) {
    const std::size_t step = m.model.training().step;
    if (!m.stepped || step < begin || step > end_ || ((step - begin) % every != 0 && step != end_)) return;
    const double left = 1 - static_cast<double>(step - begin) / static_cast<double>(end_ - begin);
    const double wanted = density + (initial_density - density) * left * left * left;
    each_layer(m, [&](std::size_t place, const auto&) {
      detail::Rewire rewire(m.model.network(), place);
      const auto kept =
          static_cast<std::size_t>(std::max(1.0, std::nearbyint(wanted * static_cast<double>(rewire.all()))));
      if (rewire.live().size() > kept) rewire.apply(rewire.live().size() - kept, {}, step, *history_, verbose);
    });
  }

 private:
  std::size_t end_ = 0;
};

}  // namespace tesla::inline TESLA_TARGET::sparse
