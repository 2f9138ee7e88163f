// The parameters of a model: one block of memory for all values, one for all gradients, one for each optimizer slot,
// laid out alike, so that an optimizer's step is a single pass.
#pragma once

#include <tesla/backend/backend.hpp>
#include <tesla/layer/layer.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

/// Where one parameter lies in the blocks.
struct ParameterPlace {
  std::string name;
  Shape shape;
  std::size_t layer, offset, rows, columns, stride;
  double rate = 1;  // times the optimizer's learning rate
  std::shared_ptr<const layer::StoredOrder> form = {};
  bool learned = true, by_rows = false;
  std::size_t prefix = 0;  // so many characters of the name are the layer's

  std::size_t size() const { return rows * stride; }
};

template <class T, class B>
class ParameterStore {
 public:
  ParameterStore() = default;
  ParameterStore(B& backend, std::uint64_t owner) : backend_(&backend), owner_(owner) {}

  [[gnu::cold]] std::size_t add(std::string name, const layer::Setup::Parameter& p, std::size_t layer) {
    const std::size_t prefix = name.size() - std::min(name.size(), p.name.size() + 1);
    for (const ParameterPlace& other : places_)
      if (other.name == name) refuse_twice(other, name, prefix, layer);
    const Shape& shape = p.shape;
    const std::size_t elements = p.form ? p.form->stored() : shape.elements();
    const std::size_t rows = p.rows != 0 ? p.rows : p.form || shape.rank() < 2 ? 1 : shape[0];
    const std::size_t columns = rows == 0 ? 0 : elements / rows;
    const std::size_t stride = rows == 1 ? round_up(columns, cache_line / sizeof(T)) : backend::row_stride<T>(columns);
    places_.push_back(
        {std::move(name), shape, layer, size_, rows, columns, stride, p.rate, p.form, p.learned, p.by_rows, prefix});
    size_ += rows * stride;
    return places_.size() - 1;
  }
  void allocate_values() {
    value_ = {*backend_, size_};
    structure_ = next_stamp();
    touch();
  }
  /// Says that values have changed, or will in a moment.
  void touch() { stamp_ = next_stamp(); }
  std::uint64_t stamp() const { return stamp_; }
  /// Another one whenever parameters have other places.
  std::uint64_t structure() const { return structure_; }
  void allocate_gradients() { gradient_ = {*backend_, size_}; }
  /// The optimizer's memory, all zero. Where averages of the values are kept, they are in one slot more, the last.
  [[gnu::cold]] void allocate_slots(std::size_t count, bool averaged = false) {
    slots_.clear();
    averaged_ = averaged;
    for (std::size_t i = 0; i < count; ++i) slots_.emplace_back(*backend_, size_);
    slot_pointers_.clear();
    for (const auto& slot : slots_) slot_pointers_.push_back(slot.data());
  }

  const std::vector<ParameterPlace>& places() const { return places_; }
  /// A number of the network's own, never 0.
  std::uint64_t owner() const { return owner_; }
  /// The place of the same name and shape, or nullptr.
  const ParameterPlace* find(const ParameterPlace& other) const {
    for (const ParameterPlace& p : places_)
      if (p.name == other.name && p.shape == other.shape) return &p;
    return nullptr;
  }
  std::size_t slots() const { return slots_.size(); }
  std::size_t block_size() const { return size_; }
  T* values() const { return value_.data(); }
  T* gradients() const { return gradient_.data(); }
  T* slot(std::size_t i) const { return slots_[i].data(); }
  bool averaged() const { return averaged_; }
  T* average() const { return slots_.back().data(); }
  /// Begins to keep averages, which are the values as they are now, or forgets them.
  [[gnu::cold]] void keep_average(bool wanted) {
    if (wanted == averaged_) return;
    averaged_ = wanted;
    if (wanted) {
      slots_.emplace_back(*backend_, size_);
      std::vector<T> all(size_);
      backend_->read(all.data(), values(), size_);
      backend_->write(average(), all.data(), size_);
    } else {
      slots_.pop_back();
    }
    slot_pointers_.clear();
    for (const auto& slot : slots_) slot_pointers_.push_back(slot.data());
  }
  std::span<T* const> slot_pointers() const { return slot_pointers_; }

  backend::Matrix<T> matrix(T* block, const ParameterPlace& p) const {
    return {block + p.offset, p.rows, p.columns, p.stride};
  }

  /// Whether all values of a parameter are.
  bool finite(const ParameterPlace& p) const {
    if (is_finite(backend_->squared_norm(matrix(values(), p)))) return true;
    const Tensor<T> all = read(values(), p);  // the square may be too large where the value is not
    return std::all_of(all.begin(), all.end(), [](T value) { return is_finite(value); });
  }

  /// Gives a parameter other entries of its matrix, `live` of them, as many as before or fewer; all blocks are zero
  /// there then.
  [[gnu::cold]] void reform(std::size_t index, std::shared_ptr<const layer::StoredOrder> form, std::size_t live) {
    ParameterPlace& p = places_[index];
    const std::size_t stored = form->stored();
    if (stored > p.stride) raise<ShapeError>(p.name, " has room for ", p.stride, " values, not for ", stored);
    p.shape = {live}, p.columns = stored, p.form = std::move(form);
    structure_ = next_stamp();
    backend_->fill(values() + p.offset, p.stride, T(0));
    backend_->fill(gradients() + p.offset, p.stride, T(0));
    for (T* slot : slot_pointers_) backend_->fill(slot + p.offset, p.stride, T(0));
    touch();
  }

  /// The values of one parameter within a block, in their natural layout.
  [[gnu::cold]] Tensor<T> read(const T* block, const ParameterPlace& p) const {
    Tensor<T> result(p.shape);
    if (p.form) {
      std::vector<T> stored(p.columns);
      backend_->read(stored.data(), block + p.offset, p.columns);
      const std::vector<std::uint32_t> order = p.form->order();
      for (std::size_t k = 0; k < order.size(); ++k)
        if (order[k] != layer::StoredOrder::none) result[order[k]] = stored[k];
      return result;
    }
    for (std::size_t r = 0; r < p.rows; ++r)
      backend_->read(result.data() + r * p.columns, block + p.offset + r * p.stride, p.columns);
    return result;
  }
  template <class From>
  [[gnu::cold]] void write(T* block, const ParameterPlace& p, const From* values) {
    touch();
    std::vector<T> row;
    if (p.form) {
      row.assign(p.columns, T(0));
      const std::vector<std::uint32_t> order = p.form->order();
      for (std::size_t k = 0; k < order.size(); ++k)
        if (order[k] != layer::StoredOrder::none) row[k] = static_cast<T>(values[order[k]]);
      backend_->write(block + p.offset, row.data(), p.columns);
      return;
    }
    for (std::size_t r = 0; r < p.rows; ++r) {
      row.assign(values + r * p.columns, values + (r + 1) * p.columns);
      backend_->write(block + p.offset + r * p.stride, row.data(), p.columns);
    }
  }

 private:
  [[gnu::cold, noreturn]] static void refuse_twice(const ParameterPlace& first, const std::string& name,
                                                   std::size_t prefix, std::size_t layer) {
    const auto of = [&](std::size_t i, std::size_t n) { return text("layer ", i + 1, " (", name.substr(0, n), ")"); };
    if (first.layer == layer)
      raise<UsageError>("build: ", of(layer, prefix), " asks for two parameters named \"", name, '"');
    raise<UsageError>("build: ", of(first.layer, first.prefix), " and ", of(layer, prefix),
                      " both have a parameter named \"", name, "\"; give one of these layers another .name");
  }

  B* backend_ = nullptr;
  std::vector<ParameterPlace> places_;
  std::size_t size_ = 0;
  backend::Memory<T, B> value_, gradient_;
  std::vector<backend::Memory<T, B>> slots_;
  std::vector<T*> slot_pointers_;
  bool averaged_ = false;
  std::uint64_t stamp_ = 0, structure_ = next_stamp();
  std::uint64_t owner_ = 0;
};

/// One parameter, to read and to set. It refers to its model, which must outlive it.
template <class T, class B>
class Parameter {
 public:
  Parameter(ParameterStore<T, B>& store, std::size_t index) : store_(&store), index_(index) {}

  const std::string& name() const { return place().name; }
  const Shape& shape() const { return place().shape; }
  std::size_t size() const { return shape().elements(); }
  /// A number that all parameters of the model share with no other model's, and how many they are.
  std::uint64_t owner() const { return store_->owner(); }
  std::size_t siblings() const { return store_->places().size(); }

  /// The values, row-major, in host memory.
  Tensor<T> value() const { return store_->read(store_->values(), place()); }

  /// Sets the values from any range of as many numbers.
  template <class Range>
  void assign(const Range& values) {
    Tensor<T> copy(shape());
    std::size_t n = 0;
    for (const auto& v : values) {
      if (n < copy.size()) copy[n] = static_cast<T>(v);
      ++n;
    }
    if (n != copy.size())
      raise<ShapeError>("parameter ", name(), " of shape ", shape(), " takes ", copy.size(), " values, not ", n);
    for (const T v : copy)
      if (!is_finite(v)) raise<DataError>("parameter ", name(), ": the values assigned hold a NaN or an infinity");
    store_->write(store_->values(), place(), copy.data());
  }

 private:
  const ParameterPlace& place() const { return store_->places()[index_]; }
  ParameterStore<T, B>* store_;
  std::size_t index_;
};

}  // namespace tesla::inline TESLA_TARGET::model
