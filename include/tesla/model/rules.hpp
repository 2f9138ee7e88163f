// Which parameters are frozen, and which have a learning rate or a weight decay of their own: by name, or by pattern.
#pragma once

#include <tesla/io/json.hpp>

#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

/// Options of a group of parameters.
struct GroupOptions {
  double rate = 1;                          // times the optimizer's learning rate
  std::optional<double> weight_decay = {};  // instead of the optimizer's
  double l1 = 0, l2 = 0;                    // of a penalty l1 |w| + l2 w^2, whose gradient is added
};

/// Whether a name is of the form of a pattern, in which * stands for any characters and ? for one.
[[gnu::cold]] inline bool matches(std::string_view pattern, std::string_view name) {
  std::size_t p = 0, n = 0, star = pattern.npos, from = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++, from = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p, ++n;
    } else if (star != pattern.npos) {
      p = star + 1, n = ++from;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

/// One call of freeze, unfreeze or group.
struct ParameterRule {
  std::string pattern;
  std::optional<bool> frozen = {};
  std::optional<GroupOptions> group = {};
  bool unchecked = false;  // whether it names anything; said before the model was built
};

/// What the rules say of one parameter.
struct ParameterSetting {
  bool frozen = false;
  GroupOptions group = {};
};

/// All rules of a model. Where several speak of a parameter, the last one does.
class ParameterRules {
 public:
  [[gnu::cold]] void add(ParameterRule rule) {
    if (rule.group) {
      const double rate = rule.group->rate, decay = rule.group->weight_decay.value_or(0);
      if (!(rate >= 0 && rate <= 1e6)) raise<UsageError>("group: .rate has to lie in [0, 1e6], not ", rate);
      if (!(decay >= 0 && decay <= 1e6)) raise<UsageError>("group: .weight_decay has to lie in [0, 1e6], not ", decay);
      for (const double penalty : {rule.group->l1, rule.group->l2})
        if (!(penalty >= 0 && penalty <= 1e6))
          raise<UsageError>("group: .l1 and .l2 have to lie in [0, 1e6], not ", penalty);
    }
    std::erase_if(rules_, [&](const ParameterRule& old) {
      return old.pattern == rule.pattern && old.group.has_value() == rule.group.has_value();
    });
    rules_.push_back(std::move(rule));
    known_ = 0;
  }
  bool empty() const { return rules_.empty(); }
  /// Groups need an optimizer that has what they are about.
  template <class Facts>
  void check_options(const Facts& optimizer) const {
    for (const ParameterRule& rule : rules_) {
      if (rule.group && !optimizer.has_rate)
        raise<UsageError>("group: \"", rule.pattern, "\": the optimizer ", optimizer.kind, " has no .learning_rate");
      if (rule.group && rule.group->weight_decay && !optimizer.has_weight_decay)
        raise<UsageError>("group: \"", rule.pattern, "\": the optimizer ", optimizer.kind, " has no .weight_decay");
    }
  }

  /// The settings of all parameters of a network; made again when rules or parameters have changed.
  template <class Network>
  const std::vector<ParameterSetting>& settings(Network& network) {
    if (known_ != network.structure()) resolve(network);
    return settings_;
  }

  /// A pattern has to name something in a network that is built.
  template <class Network>
  [[gnu::cold]] static void check(std::string_view who, std::string_view pattern, const Network& network) {
    std::string known;
    for (const auto& p : network.store().places()) {
      if (speaks_of(pattern, p, network)) return;
      known += (known.empty() ? "" : ", ") + p.name;
    }
    raise<UsageError>(who, ": no layer or parameter is named \"", pattern, "\", only ", known,
                      " and the layers they belong to");
  }

  [[gnu::cold]] io::Json write() const {
    io::Json result = io::Json::array();
    for (const ParameterRule& rule : rules_) {
      io::Json one = io::Json::object({{"pattern", rule.pattern}});
      if (rule.frozen) one.set("frozen", *rule.frozen);
      if (rule.group) one.set("rate", rule.group->rate);
      if (rule.group && rule.group->weight_decay) one.set("weight_decay", *rule.group->weight_decay);
      if (rule.group) one.set("l1", rule.group->l1), one.set("l2", rule.group->l2);
      result.push_back(std::move(one));
    }
    return result;
  }
  [[gnu::cold]] static ParameterRules read(const io::Json& rules) {
    ParameterRules result;
    for (const io::Json& one : rules.elements()) {
      ParameterRule rule{one.get<std::string>("pattern")};
      if (one.contains("frozen"))
        rule.frozen = one.get<bool>("frozen");
      else
        rule.group = GroupOptions{one.get<double>("rate")};
      if (rule.group && one.contains("weight_decay")) rule.group->weight_decay = one.get<double>("weight_decay");
      if (rule.group) rule.group->l1 = one.get<double>("l1", 0), rule.group->l2 = one.get<double>("l2", 0);
      result.add(std::move(rule));
    }
    return result;
  }

 private:
  template <class Place, class Network>
  static bool speaks_of(std::string_view pattern, const Place& place, const Network& network) {
    return matches(pattern, place.name) || matches(pattern, network.entries()[place.layer].name);
  }

  template <class Network>
  [[gnu::cold]] void resolve(Network& network) {
    for (std::size_t r = 0; r < rules_.size(); ++r) {
      if (!rules_[r].unchecked) continue;
      const ParameterRule rule = std::move(rules_[r]);
      rules_.erase(rules_.begin() + static_cast<std::ptrdiff_t>(r));  // not to be complained about again
      check(rule.frozen ? "freeze" : "group", rule.pattern, network);
      rules_.insert(rules_.begin() + static_cast<std::ptrdiff_t>(r), {rule.pattern, rule.frozen, rule.group});
    }
    settings_.assign(network.store().places().size(), {});
    std::size_t i = 0;
    for (const auto& place : network.store().places()) {
      for (const ParameterRule& rule : rules_) {
        if (!speaks_of(rule.pattern, place, network)) continue;
        if (rule.frozen) settings_[i].frozen = *rule.frozen;
        if (rule.group) settings_[i].group = *rule.group;
      }
      ++i;
    }
    // What only frozen parameters come before needs no gradient.
    std::size_t first = 0;
    while (first < settings_.size() && settings_[first].frozen) ++first;
    network.train_from(first < settings_.size() ? network.store().places()[first].layer : network.entries().size());
    for (std::size_t k = 0; k < settings_.size(); ++k) network.gradient_slots()[k].frozen = settings_[k].frozen;
    for (std::size_t k = 0; k < settings_.size(); ++k)
      if (!network.store().places()[k].learned) settings_[k].frozen = true;  // its layer sets it
    known_ = network.structure();
  }

  std::vector<ParameterRule> rules_;
  std::vector<ParameterSetting> settings_;
  std::uint64_t known_ = 0;  // the structure that the settings are of
};

}  // namespace tesla::inline TESLA_TARGET::model
