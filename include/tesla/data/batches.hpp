// Samples in batches, for loops of one's own: for (auto batch : data::batches(train, {.size = 64})) ...
#pragma once

#include <tesla/core/random.hpp>
#include <tesla/data/dataset.hpp>

#include <array>
#include <cstring>
#include <iterator>
#include <limits>
#include <vector>

namespace tesla::inline TESLA_TARGET::data {

struct BatchOptions {
  std::size_t size = 32;
  bool shuffle = true;
  std::uint64_t seed = 0;  // of the shuffling
  bool drop_last = false;  // leaves out a last batch of fewer samples
  std::size_t epoch = 0;   // of the first pass: each has an order of its own, the one that fit has in this epoch
};

/// A range of batches, each a Samples. Every begin() is the next pass. Without shuffling, a batch is a part of the
/// arrays themselves; otherwise its rows are copied to memory of the range, which is that of one batch, and good until
/// the next.
class Batches {
 public:
  Batches(const Samples& samples, const BatchOptions& options) : samples_(samples), options_(options) {
    const std::size_t count = samples_.x.samples();
    if (options_.size == 0) raise<UsageError>("batches: .size has to be 1 or more");
    if (count == 0) raise<DataError>("batches: x, of shape ", samples_.x.shape(), ", holds no samples");
    if (samples_.y.samples() != count)
      raise<ShapeError>("batches: y: ", count, " samples in x need as many targets, y has shape ", samples_.y.shape());
    if (!samples_.weight.empty() && samples_.weight.samples() != count)
      raise<ShapeError>("batches: sample_weight: ", count, " samples need as many weights, not an array of shape ",
                        samples_.weight.shape());
    if (options_.drop_last && options_.size > count)
      raise<UsageError>("batches: with .drop_last, a .size of ", options_.size, " leaves nothing of ", count,
                        " samples");
    if (options_.shuffle && count > std::numeric_limits<std::uint32_t>::max())
      raise<DataError>("batches: ", count, " samples are more than can be shuffled");
  }

  /// The number of batches of a pass.
  std::size_t size() const {
    const std::size_t count = samples_.x.samples(), whole = count / options_.size;
    return whole + (!options_.drop_last && count % options_.size != 0);
  }

  class Iterator {
   public:
    using value_type = Samples;
    using difference_type = std::ptrdiff_t;

    Iterator() = default;
    explicit Iterator(Batches& batches) : batches_(&batches) {}
    Samples operator*() const { return batches_->batch(number_); }
    Iterator& operator++() {
      ++number_;
      return *this;
    }
    void operator++(int) { ++number_; }
    friend bool operator==(const Iterator& i, std::default_sentinel_t) {
      return i.batches_ == nullptr || i.number_ >= i.batches_->size();
    }

   private:
    Batches* batches_ = nullptr;
    std::size_t number_ = 0;
  };
  /// Begins the next pass; iterators of the one before are of no use then.
  Iterator begin() {
    if (options_.shuffle) {
      order_.resize(samples_.x.samples());
      random::shuffle(order_, options_.seed, options_.epoch);
    }
    ++options_.epoch;
    return Iterator(*this);
  }
  std::default_sentinel_t end() const { return {}; }

 private:
  Samples batch(std::size_t number) {
    const std::size_t first = number * options_.size;
    const std::size_t count = std::min(options_.size, samples_.x.samples() - first);
    return {part(samples_.x, memory_[0], first, count), part(samples_.y, memory_[1], first, count),
            part(samples_.weight, memory_[2], first, count)};
  }

  ArrayView part(const ArrayView& all, std::vector<std::byte>& memory, std::size_t first, std::size_t count) const {
    if (all.empty()) return all;
    return all.visit([&](const auto* data) {
      using E = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
      const Shape shape = all.shape().tail().with_front(count);
      if (!options_.shuffle) {
        ArrayView::Strides strides{};
        for (std::size_t axis = 0; axis < shape.rank(); ++axis) strides[axis] = all.stride(axis);
        return ArrayView(data + static_cast<std::ptrdiff_t>(first) * all.stride(0), shape, strides);
      }
      const std::size_t features = all.features();
      memory.resize(options_.size * features * sizeof(E));
      E* const copy = reinterpret_cast<E*>(memory.data());  // memory of new fits all numbers
      const bool contiguous = all.contiguous_samples();
      for (std::size_t i = 0; i < count; ++i) {
        const E* const row = data + static_cast<std::ptrdiff_t>(order_[first + i]) * all.stride(0);
        if (contiguous)
          std::memcpy(copy + i * features, row, features * sizeof(E));
        else
          for (std::size_t f = 0; f < features; ++f) copy[i * features + f] = row[all.offset_of_feature(f)];
      }
      return ArrayView(copy, shape);
    });
  }

  Samples samples_;
  BatchOptions options_;
  std::vector<std::uint32_t> order_;
  std::array<std::vector<std::byte>, 3> memory_;  // of x, y and weights
};

inline Batches batches(const Samples& samples, const BatchOptions& options = {}) { return {samples, options}; }
inline Batches batches(const ArrayView& x, const ArrayView& y, const BatchOptions& options = {}) {
  return {Samples(x, y), options};
}
/// A dataset that nobody holds would be gone before the first batch.
template <class X, class Y>
Batches batches(Dataset<X, Y>&&, const BatchOptions& = {}) = delete;

}  // namespace tesla::inline TESLA_TARGET::data
