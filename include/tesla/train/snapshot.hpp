// A copy of a model's parameters in memory of the host, to be put back later.
#pragma once

#include <tesla/model/network.hpp>

#include <cstdint>
#include <type_traits>
#include <vector>

namespace tesla::inline TESLA_TARGET::training {

class Snapshot {
 public:
  bool empty() const { return blocks_ == 0; }

  /// Copies the values, their running averages where they are kept, and the optimizer's state where that is wanted.
  template <class Network>
  [[gnu::cold]] void take(Network& network, bool with_optimizer = false) {
    structure_ = network.structure();
    with_optimizer_ = with_optimizer;
    blocks_ = 0;
    each_block(network, [&](auto* block, std::size_t size) {
      const std::size_t bytes = size * sizeof(*block), begin = blocks_++ * bytes;
      bytes_.resize(begin + bytes);
      network.backend().read(reinterpret_cast<decltype(block)>(bytes_.data() + begin), block, size);
    });
  }
  /// Puts the copy back; false, and nothing done, where the parameters have other places by now, or are another
  /// model's.
  template <class Network>
  [[gnu::cold]] bool put(Network& network) const {
    std::size_t blocks = 0;
    each_block(network, [&](auto*, std::size_t) { ++blocks; });
    if (structure_ != network.structure() || blocks != blocks_) return false;
    blocks = 0;
    each_block(network, [&](auto* block, std::size_t size) {
      const auto* from = reinterpret_cast<const std::remove_pointer_t<decltype(block)>*>(
          bytes_.data() + blocks++ * size * sizeof(*block));
      network.backend().write(block, from, size);
    });
    network.store().touch();
    return true;
  }

 private:
  template <class Network, class F>
  void each_block(Network& network, const F& f) const {
    auto& store = network.store();
    f(store.values(), store.block_size());
    for (std::size_t s = 0; s < store.slots(); ++s)
      if (with_optimizer_ || (store.averaged() && s + 1 == store.slots())) f(store.slot(s), store.block_size());
  }

  std::vector<std::uint8_t> bytes_;
  std::size_t blocks_ = 0;
  std::uint64_t structure_ = 0;
  bool with_optimizer_ = false;
};

}  // namespace tesla::inline TESLA_TARGET::training
