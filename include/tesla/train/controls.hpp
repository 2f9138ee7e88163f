// What models let be set between calls of fit, and within them by callbacks: what is frozen, groups of parameters, the
// learning rate, and averages.
#pragma once

#include <tesla/train/update.hpp>

#include <string>
#include <string_view>
#include <utility>

namespace tesla::inline TESLA_TARGET::training {

/// The members that a model of this type gets. It has network() and training().
template <class Model>
class Controls {
 public:
  /// No step changes these parameters, and their optimizer state stays: those of a layer, or one, by name or by a
  /// pattern, in which * stands for any characters and ? for one.
  Model& freeze(const std::string& name) { return add_rule("freeze", {name, true}); }
  Model& unfreeze(const std::string& name) { return add_rule("unfreeze", {name, false}); }
  /// Such parameters with a learning rate and a weight decay of their own. Where several groups speak of a parameter,
  /// the last one does.
  Model& group(const std::string& name, const model::GroupOptions& options) {
    return add_rule("group", {name, {}, options});
  }

  /// The learning rate of the next step.
  double learning_rate() { return compiled("learning_rate").learning_rate(); }
  /// Makes the learning rate, or what its schedule says, so many times as large from now on.
  [[gnu::cold]] void scale_learning_rate(double factor) {
    auto& training = compiled("scale_learning_rate");
    if (!(factor >= 0 && factor <= 1e6))
      raise<UsageError>("scale_learning_rate: the factor has to lie in [0, 1e6], not ", factor);
    training.rate_factor *= factor;
  }

  /// Puts the running averages of fit's .average where the parameters are, to predict with and to save, or takes them
  /// back. Another fit goes on from the parameters themselves.
  [[gnu::cold]] void use_average(bool wanted = true) {
    auto& net = self().network();
    if (!net.built() || !net.store().averaged())
      raise<UsageError>("use_average: no averages are kept; fit makes them, with .average = 0.999 or so");
    if (self().training().averages_in_place != wanted) exchange_averages(net, self().training());
  }

 private:
  Model& self() { return static_cast<Model&>(*this); }
  auto& compiled(std::string_view who) {
    if (!self().training().optimizer) raise<UsageError>(who, ": call compile(optimizer, loss, metrics) first");
    return self().training();
  }
  [[gnu::cold]] Model& add_rule(std::string_view who, model::ParameterRule rule) {
    auto& net = self().network();
    rule.unchecked = !net.built();
    if (net.built()) model::ParameterRules::check(who, rule.pattern, net);
    self().training().rules.add(std::move(rule));
    return self();
  }
};

}  // namespace tesla::inline TESLA_TARGET::training
