// How the layers of a network run, in training or in predictions: which cost nothing because another layer does their
// work, and who reads whose output.
#pragma once

#include <tesla/model/layers.hpp>

#include <algorithm>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

template <class T, class B>
class Course {
 public:
  using Entry = typename Layers<T, B>::Entry;

  struct Step {
    bool passthrough = false;                             // its output is its input as it is
    bool activation_moved = false;                        // its activation runs in another layer
    const layer::Activation* moved_activation = nullptr;  // of another layer, which runs in this one
    const backend::Convolution* pool = nullptr;           // of another layer, whose max pooling runs in this one
    std::size_t folded = model_input;                     // the normalisation that is folded into this one's weights
    std::size_t normalised = model_input;                 // in training, the one that alone reads its outputs
  };

  Course() = default;
  [[gnu::cold]] Course(const std::vector<Entry>& entries, bool training) : entries_(&entries), steps_(entries.size()) {
    for (std::size_t i = 0; i < entries.size(); ++i) steps_[i].passthrough = entries[i].node->passthrough();
    for (std::size_t i = 0; i < entries.size(); ++i) fold(i, training);
    for (std::size_t i = 0; i < entries.size(); ++i) move_to_pooling(i);
    std::vector<std::vector<std::size_t>> sources;
    std::vector<bool> passthrough;
    for (std::size_t i = 0; i < entries.size(); ++i)
      sources.push_back(entries[i].from), passthrough.push_back(steps_[i].passthrough);
    wiring_ = Wiring(sources, passthrough);
    entries_ = nullptr;  // which may move
  }

  const Step& operator[](std::size_t layer) const { return steps_[layer]; }
  const Wiring& wiring() const { return wiring_; }

 private:
  const LayerNode<T, B>& node(std::size_t i) const { return *(*entries_)[i].node; }

  [[gnu::cold]] bool read_once(std::size_t layer) const {
    if (layer == model_input) return false;
    std::size_t readers = 0;
    for (const Entry& e : *entries_)
      readers += static_cast<std::size_t>(std::count(e.from.begin(), e.from.end(), layer));
    return readers == 1;
  }

  /// A normalisation with fixed statistics becomes part of the weights before it. In training, statistics being those
  /// of the batch, a bias before it has no effect.
  [[gnu::cold]] void fold(std::size_t i, bool training) {
    const std::size_t source = (*entries_)[i].from[0];
    if (!node(i).facts().affine || !read_once(source) || !node(source).facts().takes_affine) return;
    if (training)
      steps_[source].normalised = i;
    else
      steps_[source].folded = i, steps_[i].passthrough = true;
  }

  /// The largest of some f(x) is f of the largest x where f grows: so the activation before a layer that takes the
  /// largest runs behind it. And max pooling runs inside the layer that makes what it reads, where that can.
  [[gnu::cold]] void move_to_pooling(std::size_t i) {
    if (!node(i).facts().takes_activation) return;
    Step& own = steps_[i];
    std::size_t at = (*entries_)[i].from[0];
    for (; read_once(at); at = (*entries_)[at].from[0]) {
      const layer::Activation* const f = node(at).movable_activation();
      const bool only = node(at).facts().activation;
      if (own.moved_activation == nullptr && f != nullptr)
        own.moved_activation = f, steps_[at].activation_moved = true, steps_[at].passthrough |= only;
      else if (f != nullptr)
        return;                                                      // a second one
      if (!steps_[at].passthrough || node(at).passthrough()) break;  // images seen in another shape have other windows
    }
    const backend::Convolution* const pool = node(i).max_pool();
    if (pool == nullptr || !read_once(at) || steps_[at].passthrough || !node(at).pooling_need(*pool, 1, true)) return;
    steps_[at].pool = pool, steps_[at].moved_activation = own.moved_activation;
    own.passthrough = true;
  }

  const std::vector<Entry>* entries_ = nullptr;
  std::vector<Step> steps_;
  Wiring wiring_;
};

}  // namespace tesla::inline TESLA_TARGET::model
