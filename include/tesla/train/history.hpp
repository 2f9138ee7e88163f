// What training and evaluation report: numbers by name.
#pragma once

#include <tesla/core/error.hpp>

#include <string>
#include <utility>
#include <vector>

namespace tesla::inline TESLA_TARGET {

/// Values by name, in the order in which they were added.
template <class V>
class Named {
 public:
  using Item = std::pair<std::string, V>;

  const V& operator[](std::string_view name) const {
    for (const Item& item : items_)
      if (item.first == name) return item.second;
    std::string known;
    for (const Item& item : items_) known += (known.empty() ? "" : ", ") + item.first;
    raise<UsageError>("there is no \"", name, "\" here, only ", known.empty() ? "nothing" : known);
  }
  /// The value of a name, made when it is not there.
  V& entry(std::string_view name) {
    for (Item& item : items_)
      if (item.first == name) return item.second;
    items_.emplace_back(std::string(name), V());
    return items_.back().second;
  }
  bool contains(std::string_view name) const {
    for (const Item& item : items_)
      if (item.first == name) return true;
    return false;
  }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }
  std::size_t size() const { return items_.size(); }
  /// Keeps the first n values.
  void truncate(std::size_t n) {
    if (n < items_.size()) items_.erase(items_.begin() + static_cast<std::ptrdiff_t>(n), items_.end());
  }

 private:
  std::vector<Item> items_;
};

/// The loss and the metrics: scores["loss"], scores["accuracy"].
using Scores = Named<double>;

/// Scores by epoch: history["loss"].back(), history["val_accuracy"][3].
class History : public Named<std::vector<double>> {
 public:
  bool interrupted = false;  // by Ctrl-C or a callback, before the epochs asked for were over
};

}  // namespace tesla::inline TESLA_TARGET
