// Ranks that learn: callbacks that lower the ranks of tensor-train layers while a model is trained, and raise them
// where that would help. The optimizer's state goes along.
#pragma once

#include <tesla/layer/tensor_train.hpp>
#include <tesla/model/network.hpp>
#include <tesla/network/tensor_train/ranks.hpp>
#include <tesla/train/callback.hpp>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::callback {

namespace detail {

/// The tensor-train layers of a model, by their places.
template <class Network>
[[gnu::cold]] std::vector<std::size_t> tensor_trains(const Network& network) {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < network.entries().size(); ++i)
    if (network.entries()[i].node->kind() == layer::TensorTrain::kind) found.push_back(i);
  return found;
}

/// The same, for a callback that is of no use without one.
template <class Network>
[[gnu::cold]] std::vector<std::size_t> need_tensor_trains(const Network& network, const char* who) {
  std::vector<std::size_t> found = tensor_trains(network);
  if (found.empty()) raise<UsageError>(who, ": the model has no TensorTrain layers");
  return found;
}

/// Which of the optimizer's state values follow squares of the gradient.
template <class Model>
[[gnu::cold]] std::vector<bool> optimizer_squares(const Model& model) {
  return model.training().optimizer->facts().squares;
}

/// A tensor-train layer with its values and what the optimizer knows of them, to be given other ranks.
template <class T, class B>
class Recast {
 public:
  using Cores = std::vector<Tensor<double>>;

  [[gnu::cold]] Recast(model::Network<T, B>& network, std::size_t place, const std::vector<bool>& squares)
      : network_(network),
        place_(place),
        squares_(squares),
        layer_(network.template layer<layer::TensorTrain>(network.entries()[place].name)),
        slots_(network.slots_of(network.entries()[place])) {}

  const layer::TensorTrain& layer() const { return layer_; }
  Cores cores() const { return cores_of(*layer_.initial); }

  /// Puts cores of other ranks in their place; `recast(values, kind)` does to values, or to an optimizer's slot, what
  /// was done to the cores.
  template <class F>
  [[gnu::cold]] void put(const Shape& ranks, const F& recast) {
    using Kind = network::Balance::Kind;
    const auto changed = [&](const layer::Values& all, Kind kind) {
      layer::Values result = recast(cores_of(all), kind);
      result.insert(result.end(), all.begin() + static_cast<std::ptrdiff_t>(result.size()), all.end());  // the bias
      return result;
    };
    layer::TensorTrain next = layer_;
    next.rank = 0, next.ranks = ranks;
    next.initial = std::make_shared<const layer::Values>(changed(*layer_.initial, Kind::value));
    std::vector<layer::Values> slots;
    for (std::size_t s = 0; s < slots_.size(); ++s) {
      const Kind slot = s == squares_.size() ? Kind::value  // averages of the parameters
                        : squares_[s]        ? Kind::squared_gradient
                                             : Kind::gradient;
      slots.push_back(changed(slots_[s], slot));
    }
    network_.replace(place_, std::move(next), slots);
  }

 private:
  Cores cores_of(const layer::Values& all) const {
    return {all.begin(), all.begin() + static_cast<std::ptrdiff_t>(layer_.in.rank())};
  }

  model::Network<T, B>& network_;
  std::size_t place_;
  const std::vector<bool>& squares_;
  layer::TensorTrain layer_;
  std::vector<layer::Values> slots_;
};

[[gnu::cold]] inline void tell(const std::string& name, const Shape& before, const Shape& after) {
  if (!(before == after))
    std::printf("ranks of %s: %s -> %s\n", name.c_str(), before.to_string().c_str(), after.to_string().c_str());
}

}  // namespace detail

struct LowerRanksOptions {
  std::size_t parameters = 0;  // what all cores of the model shall have together in the end; 0: no budget
  double tolerance = 0;        // of the relative error that a rounding may make in each layer; 0: none
  std::size_t by_epoch = 1;    // the epoch, of all training, at whose end the budget is kept; approached evenly before
  std::size_t every = 1;       // epochs between roundings
  bool verbose = false;        // a line for each layer whose ranks change
};

/// Rounds tensor-train layers at the end of epochs: to a tolerance, or to a budget of parameters that all of them
/// share, each place keeping the directions that matter most for each number they cost.
struct LowerRanks : LowerRanksOptions {
  LowerRanks(LowerRanksOptions options) : LowerRanksOptions(options) {
    if (parameters == 0 && tolerance == 0)
      raise<UsageError>("LowerRanks: needs .parameters, the budget of all cores, or .tolerance");
    if (!(tolerance >= 0 && tolerance < 1))
      raise<UsageError>("LowerRanks: .tolerance has to lie in [0, 1), not ", tolerance);
    if (every == 0 || by_epoch == 0) raise<UsageError>("LowerRanks: .every and .by_epoch have to be 1 or more");
  }

  template <class Model>
  void on_fit_begin(Moment<Model>& m) {
    auto& net = m.model.network();
    std::size_t least = 0;
    for (const std::size_t place : detail::need_tensor_trains(net, "LowerRanks")) {
      const layer::TensorTrain layer = net.template layer<layer::TensorTrain>(net.entries()[place].name);
      for (std::size_t k = 0; k < layer.in.rank(); ++k) least += layer.in[k] * layer.out[k];
    }
    if (parameters != 0 && parameters < least)
      raise<UsageError>("LowerRanks: the cores of the model have ", least,
                        " numbers even at ranks of 1, more than the ", ".parameters of ", parameters);
  }

  template <class Model>
  void on_epoch_end(Moment<Model>& m) {
    const std::size_t epoch = m.model.training().epochs;  // of all training, so that another fit goes on
    if (epoch % every != 0 && epoch != by_epoch) return;
    auto& net = m.model.network();
    const std::vector<bool> squares = detail::optimizer_squares(m.model);
    std::vector<network::Balance> balances;
    std::vector<network::TensorTrainShape> shapes, wanted;
    const std::vector<std::size_t> places = detail::tensor_trains(net);
    std::size_t count = 0;
    for (const std::size_t place : places) {
      const detail::Recast now(net, place, squares);
      balances.emplace_back(now.cores());
      shapes.push_back(now.layer().shape());
      wanted.push_back(shapes.back());
      if (tolerance > 0)
        wanted.back() =
            network::clipped_shape(wanted.back().in, wanted.back().out, balances.back().ranks_for(tolerance));
      count += shapes.back().count_parameters();
    }
    if (parameters != 0) {
      std::size_t budget = parameters;
      if (epoch < by_epoch && count > parameters) budget = count - (count - parameters) / (by_epoch - epoch + 1);
      wanted = network::shapes_within(wanted, balances, budget);
    }
    for (std::size_t t = 0; t < places.size(); ++t) {
      if (wanted[t].ranks == shapes[t].ranks) continue;
      detail::Recast now(net, places[t], squares);
      const std::vector<double> factors = balances[t].factors(now.cores(), wanted[t].ranks);
      now.put(wanted[t].ranks, [&](const auto& cores, network::Balance::Kind kind) {
        return balances[t].cut(cores, wanted[t].ranks, kind, factors);
      });
      if (verbose) detail::tell(net.entries()[places[t]].name, shapes[t].ranks, wanted[t].ranks);
    }
  }
};

struct RaiseRanksOptions {
  std::size_t by = 1;        // directions that are tried at each place
  std::size_t at_most = 64;  // the largest rank
  std::size_t every = 1;     // epochs between trials
  std::size_t batches = 8;   // how long a trial lasts
  double threshold = 1;      // what the gradient of new directions has to be, of that of the old ones
  std::uint64_t seed = 0;    // of the directions
  bool verbose = false;      // a line for each layer whose ranks change
};

/// Tries new directions at each place between two cores, without changing what the model computes, and keeps them where
/// the gradient asks for them: where it is as large by the new directions as by those that are there.
struct RaiseRanks : RaiseRanksOptions {
  RaiseRanks(RaiseRanksOptions options = {}) : RaiseRanksOptions(options) {
    if (by == 0 || every == 0 || batches == 0 || at_most == 0)
      raise<UsageError>("RaiseRanks: .by, .at_most, .every and .batches have to be 1 or more");
    if (!(threshold >= 0)) raise<UsageError>("RaiseRanks: .threshold has to be 0 or more, not ", threshold);
  }

  template <class Model>
  void on_fit_begin(Moment<Model>& m) {
    detail::need_tensor_trains(m.model.network(), "RaiseRanks");
  }

  template <class Model>
  void on_epoch_begin(Moment<Model>& m) {
    end_trial(m);
    const std::size_t epoch = m.model.training().epochs;
    if (epoch % every != 0) return;
    auto& net = m.model.network();
    const std::vector<bool> squares = detail::optimizer_squares(m.model);
    for (const std::size_t place : detail::tensor_trains(net)) {
      detail::Recast now(net, place, squares);
      const network::TensorTrainShape shape = now.layer().shape();
      Shape more = shape.ranks;
      for (std::size_t k = 0; k < more.rank(); ++k)
        if (more[k] < at_most) more = more.with(k, more[k] + std::min(by, at_most - more[k]));
      const network::TensorTrainShape wide = network::clipped_shape(shape.in, shape.out, more);
      if (wide.ranks == shape.ranks) continue;
      now.put(wide.ranks, [&](const auto& cores, network::Balance::Kind kind) {
        return network::widened(cores, wide.ranks, seed + epoch * 1000 + place, kind == network::Balance::Kind::value);
      });
      trials_.push_back({place, shape.ranks, wide.ranks, std::vector<double>(shape.ranks.rank()),
                         std::vector<double>(shape.ranks.rank())});
    }
    seen_ = 0;
  }

  template <class Model>
  void on_batch_end(Moment<Model>& m) {
    if (trials_.empty()) return;
    auto& net = m.model.network();
    for (Trial& trial : trials_) {
      const layer::Values gradients = net.values_of(net.entries()[trial.place], net.store().gradients());
      for (std::size_t k = 0; k < trial.before.rank(); ++k) {
        // By the rows of the core behind the place: a mean square for a direction, old or new.
        const Tensor<double>& g = gradients[k + 1];
        const std::size_t old = trial.before[k], row = g.size() / g.shape()[0];
        for (std::size_t r = 0; r < g.shape()[0]; ++r) {
          double squares = 0;
          for (std::size_t i = 0; i < row; ++i) squares += g[r * row + i] * g[r * row + i];
          if (r < old)
            trial.known[k] += squares / static_cast<double>(old);
          else
            trial.tried[k] += squares / static_cast<double>(g.shape()[0] - old);
        }
      }
    }
    if (++seen_ == batches) end_trial(m);
  }

  template <class Model>
  void on_fit_end(Moment<Model>& m) {
    end_trial(m);
  }

 private:
  struct Trial {
    std::size_t place;
    Shape before, wide;
    std::vector<double> known, tried;
  };

  template <class Model>
  void end_trial(Moment<Model>& m) {
    auto& net = m.model.network();
    const std::vector<bool> squares = detail::optimizer_squares(m.model);
    for (const Trial& trial : trials_) {
      Shape kept = trial.before;
      for (std::size_t k = 0; k < kept.rank(); ++k)
        if (seen_ > 0 && trial.tried[k] >= threshold * threshold * trial.known[k]) kept = kept.with(k, trial.wide[k]);
      const network::TensorTrainShape shape = detail::Recast(net, trial.place, squares).layer().shape();
      const Shape ranks = network::clipped_shape(shape.in, shape.out, kept).ranks;
      if (!(ranks == trial.wide))
        detail::Recast(net, trial.place, squares).put(ranks, [&](const auto& cores, network::Balance::Kind) {
          return network::sliced(cores, ranks);
        });
      if (verbose) detail::tell(net.entries()[trial.place].name, trial.before, ranks);
    }
    trials_.clear();
  }

  std::vector<Trial> trials_;
  std::size_t seen_ = 0;
};

}  // namespace tesla::inline TESLA_TARGET::callback
