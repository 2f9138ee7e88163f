// Which layer reads whose output: layers in a row, but where branches leave and meet.
#pragma once

#include <algorithm>
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
      : roots_(sources.size()), readers_(sources.size()), last_reader_(sources.size()), sources_(sources.size()) {
    for (std::size_t i = 0; i < sources.size(); ++i) {
      for (const std::size_t s : sources[i]) sources_[i].push_back(root(s));
      roots_[i] = passthrough[i] ? sources_[i][0] : i;
      last_reader_[i] = i;
      if (passthrough[i]) continue;
      for (const std::size_t s : sources_[i])
        if (s != model_input) ++readers_[s], last_reader_[s] = i;
    }
  }

  std::size_t root(std::size_t layer) const { return layer == model_input ? model_input : roots_[layer]; }
  /// The roots of what a layer reads.
  const std::vector<std::size_t>& sources(std::size_t layer) const { return sources_[layer]; }
  std::size_t readers(std::size_t layer) const { return readers_[layer]; }
  /// Of an output; the layer itself where none reads it.
  std::size_t last_reader(std::size_t layer) const { return last_reader_[layer]; }
  /// The layers of whose outputs later ones read the last alone: where a chain of stages can be cut.
  [[gnu::cold]] std::vector<std::size_t> ends_of_stages() const {
    std::vector<std::size_t> ends;
    std::size_t reach = 0;  // the last reader of all outputs so far
    for (std::size_t i = 0; i < roots_.size(); ++i) {
      if (roots_[i] != i) continue;
      if (reach <= i) ends.push_back(i);
      reach = std::max(reach, last_reader_[i]);
    }
    return ends;
  }

 private:
  std::vector<std::size_t> roots_, readers_, last_reader_;
  std::vector<std::vector<std::size_t>> sources_;
};

}  // namespace tesla::inline TESLA_TARGET::model
