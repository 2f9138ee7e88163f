// Dense layers of a trained model become sparse ones, in one go.
#pragma once

#include <tesla/layer/dense.hpp>
#include <tesla/layer/sparse_dense.hpp>
#include <tesla/layer/tensor_train.hpp>
#include <tesla/network/sparse/rewire.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::sparse {

struct PruneOptions {
  double density = 0.1;                  // of all weights together, or
  bool each = false;                     // of each layer by itself
  Block block = {};                      // weights that go together
  std::vector<std::string> layers = {};  // names; none: all Dense layers
};

struct Pruned {
  std::string layer;
  std::size_t live = 0, weights = 0;
};

/// Keeps the weights, or blocks, of largest magnitude: Dense layers become SparseDense layers with the values and the
/// optimizer state of what stays, and fit() goes on. Every layer keeps one block at least.
template <class Model>
[[gnu::cold]] std::vector<Pruned> prune(Model& model, const PruneOptions& options) {
  using network::sparse::Scored;
  if (!(options.density > 0 && options.density <= 1))
    raise<UsageError>("prune: .density has to lie in (0, 1], not ", options.density);
  check_block(options.block);
  auto& net = model.network();
  if (!net.built()) raise<UsageError>("prune: the model has no weights yet; fit it, or build it, first");

  struct Place {
    std::size_t at;
    layer::Dense dense;
    Pattern all;
    std::vector<Scored> blocks;
  };
  std::vector<Place> places;
  for (const std::string& name : options.layers)
    if (std::none_of(net.entries().begin(), net.entries().end(), [&](const auto& e) { return e.name == name; }))
      raise<UsageError>("prune: there is no layer named \"", name, '"');
  for (std::size_t i = 0; i < net.entries().size(); ++i) {
    const auto& e = net.entries()[i];
    const bool named = std::find(options.layers.begin(), options.layers.end(), e.name) != options.layers.end();
    if (named && e.node->kind() == layer::TensorTrain::kind)
      raise<UsageError>("prune: the cores of \"", e.name,
                        "\" stay dense, tensor-trains cannot be sparse as well; lower their ranks instead");
    if (named && e.node->kind() != layer::Dense::kind)
      raise<UsageError>("prune: \"", e.name, "\" is of kind ", e.node->kind(), ", only Dense layers can be pruned");
    if (e.node->kind() != layer::Dense::kind || !(named || options.layers.empty())) continue;
    Place place{i, net.template layer<layer::Dense>(e.name), {}, {}};
    const Tensor<double>& w = place.dense.initial->at(0);
    place.all = Pattern::random(w.shape()[0], w.shape()[1], {.density = 1});
    place.blocks = network::sparse::live_blocks(place.all, options.block, w);
    places.push_back(std::move(place));
  }
  if (places.empty())
    raise<UsageError>("prune: the model has no Dense layers; SparseDense ones are pruned by GradualPruning");

  // What counts is the rank of a block among all, or among those of its layer.
  double threshold = 0;
  if (!options.each) {
    std::vector<double> scores;
    for (const Place& p : places)
      for (const Scored& s : p.blocks) scores.push_back(s.score);
    const auto kept = static_cast<std::size_t>(std::nearbyint(options.density * static_cast<double>(scores.size())));
    if (kept < scores.size()) {
      const auto cut = scores.end() - static_cast<std::ptrdiff_t>(std::max<std::size_t>(kept, 1));
      std::nth_element(scores.begin(), cut, scores.end());
      threshold = *cut;
    }
  }
  std::vector<Pruned> report;
  for (Place& p : places) {
    std::size_t kept;
    if (options.each)
      kept = static_cast<std::size_t>(std::nearbyint(options.density * static_cast<double>(p.blocks.size())));
    else
      kept = static_cast<std::size_t>(
          std::count_if(p.blocks.begin(), p.blocks.end(), [&](const Scored& s) { return s.score >= threshold; }));
    kept = std::max<std::size_t>(kept, 1);
    const auto dropped = network::sparse::weakest(p.blocks, p.blocks.size() - kept);
    const auto [pattern, from] = network::sparse::rewired(p.all, options.block, dropped, {});
    const auto chosen = [&, &from = from](const layer::Values& all) {
      layer::Values result{Tensor<double>({from.size()})};
      for (std::size_t k = 0; k < from.size(); ++k) result[0][k] = all[0][from[k]];
      if (p.dense.use_bias) result.push_back(all[1]);
      return result;
    };
    std::vector<layer::Values> slots;
    for (const layer::Values& slot : net.slots_of(net.entries()[p.at])) slots.push_back(chosen(slot));
    using Kind = init::Initializer::Kind;
    layer::SparseDense sparse(
        {.units = p.dense.units,
         .density = pattern.density(),
         .live = pattern,
         .block = options.block,
         .use_bias = p.dense.use_bias,
         .activation = p.dense.activation,
         .initializer = p.dense.initializer.kind == Kind::orthogonal ? init::glorot_uniform : p.dense.initializer,
         .bias_initializer = p.dense.bias_initializer,
         .name = net.entries()[p.at].name});
    sparse.initial = std::make_shared<const layer::Values>(chosen(*p.dense.initial));
    report.push_back({net.entries()[p.at].name, pattern.live(), p.all.live()});
    net.replace(p.at, std::move(sparse), slots);
  }
  return report;
}

}  // namespace tesla::inline TESLA_TARGET::sparse
