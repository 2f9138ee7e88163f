// What compile() adds to a network: the loss, the optimizer, the metrics, and how far training has come.
#pragma once

#include <tesla/model/network.hpp>
#include <tesla/model/optimizer_node.hpp>
#include <tesla/model/rules.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

template <class T, class B>
struct Training {
  std::unique_ptr<LossNode<T, B>> loss;
  std::unique_ptr<OptimizerNode<T, B>> optimizer;
  std::vector<AnyMetric<T>> metrics;
  std::vector<AnyMetric<T>> scored;  // the same, as the last evaluation or epoch left them
  std::size_t step = 0, epochs = 0;  // made so far, over all calls of fit
  std::size_t batch_size = 32;       // of the last fit
  std::vector<T*> slot_pointers;     // scratch of an update
  double rate_factor = 1;            // of the optimizer's learning rate
  std::optional<double> rate = {};   // instead of it, for a while; in no file
  ParameterRules rules;              // what is frozen, and groups
  std::size_t averaged_steps = 0;    // that the averages of the parameters have seen
  bool averages_in_place = false;    // the averages are where the parameters were, and these where the averages were
  std::uint64_t bound = 0;           // Binding::optimizer of the optimizer; 0: it was not made for parameters
  bool from_file = false;            // the optimizer was read from a file, and goes on in the first one of its type

  template <class O>
  void set_optimizer(O new_optimizer) {
    bound = binding_of(new_optimizer).optimizer, from_file = false;
    optimizer = std::make_unique<OptimizerNodeOf<O, T, B>>(std::move(new_optimizer));
    step = averaged_steps = 0;
    rate_factor = 1, rate.reset();
    averages_in_place = false;
  }
  /// The same, but an optimizer that made the last steps goes on; options that it has changed count from now on.
  /// Returns whether it begins anew.
  template <class O>
  bool begin_or_go_on(const O& next) {
    const auto* const node = dynamic_cast<const OptimizerNodeOf<O, T, B>*>(optimizer.get());
    const std::uint64_t own = binding_of(next).optimizer;
    if (node == nullptr || own == 0 || (own != bound && !from_file)) {
      set_optimizer(next);
      return true;
    }
    bound = own, from_file = false;
    if (!node->is(next)) optimizer = std::make_unique<OptimizerNodeOf<O, T, B>>(next);
    return false;
  }
  template <class O>
  static optim::Binding binding_of(const O& optimizer) {
    if constexpr (requires { optim::Binding(optimizer.binding); }) return optimizer.binding;
    return {};
  }
  template <class L>
  bool has_loss(const L& wanted) const {
    const auto* const node = dynamic_cast<const LossNodeOf<L, T, B>*>(loss.get());
    return node != nullptr && node->is(wanted);
  }
  /// The learning rate of the next step.
  double learning_rate() const { return rate.value_or(optimizer->learning_rate(step + 1) * rate_factor); }
  template <class L>
  void set_loss(L new_loss, std::vector<AnyMetric<T>> new_metrics) {
    check_keys(new_metrics);
    loss = std::make_unique<LossNodeOf<L, T, B>>(std::move(new_loss));
    metrics = std::move(new_metrics);
    metrics = own_metrics();  // several models may share those in the list
    scored.clear();
  }
  /// The same metrics with states of their own.
  [[gnu::cold]] std::vector<AnyMetric<T>> own_metrics() const {
    std::vector<AnyMetric<T>> result;
    for (const auto& m : metrics) result.push_back(m.copy());
    return result;
  }
  /// No two numbers are reported under the same key.
  [[gnu::cold]] static void check_keys(const std::vector<AnyMetric<T>>& metrics) {
    std::vector<std::string> known{"loss"};
    for (const auto& m : metrics)
      for (const std::string& key : m->facts().keys) {
        if (std::find(known.begin(), known.end(), key) != known.end())
          raise<UsageError>("compile: the metric \"", m->facts().name, "\" reports a number as \"", key,
                            "\", and so does another one or the loss; leave one of them out");
        known.push_back(key);
      }
  }
  /// A metric by its type, and by its name or a key where there are several of the type.
  template <class M>
  [[gnu::cold]] const M& metric(std::string_view wanted) const {
    std::string known;
    for (const auto& m : scored.empty() ? metrics : scored) {
      const auto& facts = m->facts();
      const auto* found = dynamic_cast<const MetricNodeOf<M, T>*>(&*m);
      if (found != nullptr && (wanted.empty() || wanted == facts.name ||
                               std::find(facts.keys.begin(), facts.keys.end(), wanted) != facts.keys.end()))
        return found->metric();
      known += text(known.empty() ? "" : ", ", facts.name);
    }
    raise<UsageError>("metric: the model was not compiled with the metric \"", M::name, "\"",
                      wanted.empty() ? "" : " of this key", ", only with ", known.empty() ? "none" : known);
  }
};

}  // namespace tesla::inline TESLA_TARGET::model
