// Which layer reads whose output: layers in a row, but where branches leave and meet.
#pragma once

#include <cstddef>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

/// The model's input, in the place of a layer's number.
inline constexpr std::size_t model_input = ~std::size_t{0};

/// What follows from the sources of all layers. A layer that costs nothing has no output of its own: its root, whose
/// output it is, is an earlier layer or the model's input.
class Wiring {
 public:
  Wiring() = default;
  /// sources[i] are the layers that layer i reads, all of them earlier ones; passthrough[i]: its output is its input.
  [[gnu::cold]] Wiring(const std::vector<std::vector<std::size_t>>& sources, const std::vector<bool>& passthrough)
      : roots_(sources.size()), readers_(sources.size()), lasting_(sources.size()), sources_(sources.size()) {
    std::size_t last = model_input;  // the layer before this one that has an output
    for (std::size_t i = 0; i < sources.size(); ++i) {
      for (const std::size_t s : sources[i]) sources_[i].push_back(root(s));
      roots_[i] = passthrough[i] ? sources_[i][0] : i;
      if (passthrough[i]) continue;
      for (const std::size_t s : sources_[i]) {
        if (s == model_input) continue;
        if (++readers_[s] > 1 || s != last) lasting_[s] = true;
      }
      last = i;
    }
  }

  std::size_t root(std::size_t layer) const { return layer == model_input ? model_input : roots_[layer]; }
  /// The roots of what a layer reads.
  const std::vector<std::size_t>& sources(std::size_t layer) const { return sources_[layer]; }
  std::size_t readers(std::size_t layer) const { return readers_[layer]; }
  /// Whether an output is read later than by the next layer.
  bool lasting(std::size_t layer) const { return lasting_[layer]; }

 private:
  std::vector<std::size_t> roots_, readers_;
  std::vector<bool> lasting_;
  std::vector<std::vector<std::size_t>> sources_;
};

}  // namespace tesla::inline TESLA_TARGET::model
