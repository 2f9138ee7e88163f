// What training and evaluation report: numbers by name.
#pragma once

#include <tesla/core/error.hpp>

#include <algorithm>
#include <cstddef>
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
    for (const Item& item : *this)
      if (item.first == name) return item.second;
    std::string known;
    for (const Item& item : *this) known += (known.empty() ? "" : ", ") + item.first;
    raise<UsageError>("there is no \"", name, "\" here, only ", known.empty() ? "nothing" : known);
  }
  /// The value of a name, made when it is not there.
  V& entry(std::string_view name) {
    for (std::size_t i = 0; i < size_; ++i)
      if (items_[i].first == name) return items_[i].second;
    if (size_ == items_.size() || items_[size_].first != name) {
      items_.resize(size_);
      items_.emplace_back(std::string(name), V());
    }
    return items_[size_++].second;
  }
  bool contains(std::string_view name) const {
    for (const Item& item : *this)
      if (item.first == name) return true;
    return false;
  }
  const Item* begin() const { return items_.data(); }
  const Item* end() const { return items_.data() + size_; }
  std::size_t size() const { return size_; }
  /// Keeps the first n values; the memory of the others waits for the same names to come back.
  void truncate(std::size_t n) { size_ = std::min(size_, n); }

 private:
  std::vector<Item> items_;
  std::size_t size_ = 0;
};

/// The loss and the metrics: scores["loss"], scores["accuracy"].
using Scores = Named<double>;

/// Scores by epoch: history["loss"].back(), history["val_accuracy"][3].
class History : public Named<std::vector<double>> {
 public:
  bool interrupted = false;                // by Ctrl-C or a callback, before the epochs asked for were over
  std::vector<std::string> warnings = {};  // what callbacks could not do
};

}  // namespace tesla::inline TESLA_TARGET
