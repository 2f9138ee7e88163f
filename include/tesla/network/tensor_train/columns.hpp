// Some columns of a tensor-train matrix, made from its cores on a backend, and the gradients of the cores from theirs.
//
// A state is what the cores before core k make of a prefix of a column's index: {product of their out modes, rank}.
// Each is made once, whatever the number of columns that begin with it, and all that meet the same slice of a core in
// one product.
#pragma once

#include <tesla/backend/features.hpp>
#include <tesla/backend/product.hpp>
#include <tesla/network/tensor_train/prefixes.hpp>
#include <tesla/network/tensor_train/shape.hpp>
#include <tesla/tensor/panels.hpp>

#include <array>
#include <cstdint>
#include <span>

namespace tesla::inline TESLA_TARGET::network {

class ColumnMaker {
 public:
  /// In how many rows core k is kept: all but the last so that their slices at one index of `in` are the items of a
  /// product, the last one so that it is transposed as a whole.
  static std::size_t core_rows(const TensorTrainShape& shape, std::size_t k) {
    const Shape core = shape.core(k);
    return k + 1 == shape.size() ? core[0] : core[0] * core[1] * core[2];
  }

  /// Of at most `wanted` columns, repeated ones included.
  ColumnMaker(const TensorTrainShape& shape, std::size_t wanted) : shape_(shape), prefixes_(shape.in, wanted) {}

  const Prefixes& prefixes() const { return prefixes_; }

  /// Elements that all states take, and what make() and gradients() need besides.
  template <class T>
  std::size_t states() const {
    std::size_t size = line<T>();
    for (std::size_t k = 1; k < shape_.size(); ++k) size += prefixes_.most(k - 1) * state<T>(k);
    return size;
  }
  template <class T>
  std::size_t making() const {
    const std::size_t last = shape_.size() - 1, wide = round_up(at_once<T>(last) * rows(last), line<T>());
    return gathered<T>() + (shape_.rank(last) + shape_.out[last]) * wide;
  }
  template <class T>
  std::size_t gradients() const {
    std::size_t largest = 0;
    for (std::size_t k = 0; k < shape_.size(); ++k) largest = std::max(largest, transposed<T>(k));
    return states<T>() + 2 * gathered<T>() + largest + transposed<T>(shape_.size() - 1);
  }

  /// The columns of the last level of prefixes one behind the other.
  template <class T, class B>
  void make(B& backend, std::span<const backend::Matrix<T>> cores, std::span<const std::uint32_t> found, T* states,
            T* columns, T* scratch) const {
    const std::size_t d = shape_.size();
    T* const turned = scratch + gathered<T>();
    backend.fill(states, line<T>(), T(0));
    backend.fill(states, 1, T(1));
    for (std::size_t k = 0; k < d; ++k) {
      const std::size_t rank = shape_.rank(k), out = shape_.out[k], in = shape_.in[k], stride = cores[k].stride;
      T* const next = states + (k == 0 ? line<T>() : prefixes_.most(k - 1) * state<T>(k));
      each_slice<T>(backend, k, found, states, scratch, [&](const Slice<T>& s) {
        const std::size_t n = s.count * rows(k);
        backend::Product<T> p;
        if (k + 1 < d) {
          const std::size_t after = padded<T>(k + 1);
          p.count = out, p.rows = n, p.depth = rank, p.columns = after;
          p.a = s.states, p.a_row = signed_size(padded<T>(k)), p.a_depth = 1;
          p.b = cores[k].data + s.index * stride;
          p.b_depth = signed_size(out * in * stride), p.b_item = signed_size(in * stride);
          p.c = next + s.first * state<T>(k + 1), p.c_row = signed_size(out * after), p.c_item = signed_size(after);
          return backend.multiply(p);
        }
        // Few columns are left: the product is wide the other way round.
        const std::size_t wide = round_up(n, line<T>());
        T* const made = turned + rank * wide;
        backend.transpose(Panels<const T>{s.states, n, rank, padded<T>(k)}, backend::Matrix<T>{turned, rank, n, wide});
        p.rows = out, p.depth = rank, p.columns = wide;
        p.a = cores[k].data + s.index, p.a_row = signed_size(in), p.a_depth = signed_size(stride);
        p.b = turned, p.b_depth = signed_size(wide);
        p.c = made, p.c_row = signed_size(wide);
        backend.multiply(p);
        backend.transpose(Panels<const T>{made, out, n, wide},
                          backend::Matrix<T>{columns + s.first * rows(d), n, out, out});
      });
      states = next;
    }
  }

  /// From the gradients by the columns to those of the cores; those of slices that no column uses are zero.
  template <class T, class B>
  void gradients(B& backend, std::span<const backend::Matrix<T>> cores, std::span<const backend::Matrix<T>> gradients,
                 std::span<const std::uint32_t> found, const T* states, const T* columns, T* scratch) const {
    const std::size_t d = shape_.size();
    std::array<std::size_t, Shape::max_rank> begin{};
    for (std::size_t k = 1; k < d; ++k)
      begin[k] = begin[k - 1] + (k == 1 ? line<T>() : prefixes_.most(k - 2) * state<T>(k - 1));
    T *const ups = scratch, *const buffer = ups + this->states<T>(), *const down = buffer + gathered<T>();
    T *const last = down + gathered<T>(), *const turned = last + transposed<T>(d - 1);
    for (std::size_t k = d; k-- > 0;) {
      const bool ends = k + 1 == d;
      const std::size_t rank = shape_.rank(k), out = shape_.out[k], in = shape_.in[k], stride = cores[k].stride;
      const std::size_t before = padded<T>(k), after = ends ? 1 : padded<T>(k + 1), inner = ends ? 1 : stride;
      const T* const up = ends ? columns : ups + begin[k + 1];
      if (ends)
        backend.fill(last, out * in * before, T(0));
      else
        backend.fill(gradients[k].data, gradients[k].rows * stride, T(0));
      if (k > 0) {  // what the columns of a product read is contiguous, so the core is wanted the other way round
        const std::size_t whole = ends ? stride : out * in * stride;
        backend.fill(turned, out * in * inner * before, T(0));
        backend.transpose(Panels<const T>{cores[k].data, rank, out * in * inner, whole},
                          backend::Matrix<T>{turned, out * in * inner, rank, before});
        backend.fill(ups + begin[k], prefixes_.level(found, k - 1).size() * state<T>(k), T(0));
      }
      each_slice<T>(backend, k, found, states + begin[k], buffer, [&](const Slice<T>& s) {
        const std::size_t n = s.count * rows(k);
        const T* const dy = up + s.first * rows(k) * out * after;
        backend::Product<T> core;
        core.depth = n, core.accumulate = true;
        if (ends) {  // transposed, for the columns to be contiguous
          core.rows = out, core.columns = before;
          core.a = dy, core.a_row = 1, core.a_depth = signed_size(out);
          core.b = s.states, core.b_depth = signed_size(before);
          core.c = last + s.index * before, core.c_row = signed_size(in * before);
        } else {
          core.count = out, core.rows = rank, core.columns = after;
          core.a = s.states, core.a_row = 1, core.a_depth = signed_size(before);
          core.b = dy, core.b_depth = signed_size(out * after), core.b_item = signed_size(after);
          core.c = gradients[k].data + s.index * stride;
          core.c_row = signed_size(out * in * stride), core.c_item = signed_size(in * stride);
        }
        backend.multiply(core);
        if (k == 0) return;
        backend::Product<T> state;
        state.segments = ends ? 1 : out, state.rows = n, state.depth = ends ? out : shape_.rank(k + 1);
        state.columns = before, state.accumulate = s.direct;
        state.a = dy, state.a_row = signed_size(out * after), state.a_depth = 1, state.a_segment = signed_size(after);
        state.b = turned + s.index * inner * before;
        state.b_depth = signed_size(ends ? in * before : before), state.b_segment = signed_size(in * inner * before);
        T* const to = ups + begin[k];
        state.c = s.direct ? to + s.parents[0] * this->state<T>(k) : down, state.c_row = signed_size(before);
        backend.multiply(state);
        if (s.direct) return;
        const std::size_t each = this->state<T>(k);
        backend.add_rows(backend::Matrix<T>{down, s.count, each, each}, s.parents,
                         backend::Matrix<T>{to, prefixes_.level(found, k - 1).size(), each, each});
      });
      if (ends)
        backend.transpose(Panels<const T>{last, out * in, rank, before},
                          backend::Matrix<T>{gradients[k].data, rank, out * in, stride});
    }
  }

 private:
  /// Prefixes of one level that end with the same index, and the states of their parents, one behind the other.
  template <class T>
  struct Slice {
    std::size_t index, first, count;
    std::span<const std::uint32_t> parents;
    const T* states;
    bool direct;  // where they are, as nothing had to be gathered
  };

  template <class T, class B, class F>
  void each_slice(B& backend, std::size_t k, std::span<const std::uint32_t> found, const T* states, T* buffer,
                  const F& f) const {
    const Prefixes::Level level = prefixes_.level(found, k);
    const std::size_t most = at_once<T>(k), each = state<T>(k);
    for (std::size_t first = 0, end = 0; first < level.size(); first = end) {
      bool direct = true;
      for (end = first + 1; end < level.size() && end < first + most && level.index[end] == level.index[first]; ++end)
        direct = direct && level.parent[end] == level.parent[end - 1] + 1;
      const std::size_t count = end - first;
      const std::span<const std::uint32_t> parents = level.parent.subspan(first, count);
      const T* at = buffer;
      if (direct)
        at = states + parents[0] * each;
      else
        backend.pick({prefixes_.counting(found).first(count + 1), parents},
                     Panels<const T>{states, k == 0 ? 1 : prefixes_.most(k - 1), each, each},
                     Panels<T>{buffer, count, each, each});
      f(Slice<T>{level.index[first], first, count, parents, at, direct});
    }
  }

  static std::ptrdiff_t signed_size(std::size_t n) { return static_cast<std::ptrdiff_t>(n); }
  template <class T>
  static constexpr std::size_t line() {
    return cache_line / sizeof(T);
  }
  /// Of a state: the product of the out modes before core k, and the rank there.
  std::size_t rows(std::size_t k) const {
    std::size_t product = 1;
    for (std::size_t i = 0; i < k; ++i) product *= shape_.out[i];
    return product;
  }
  template <class T>
  std::size_t padded(std::size_t k) const {
    return round_up(shape_.rank(k), line<T>());
  }
  template <class T>
  std::size_t state(std::size_t k) const {
    return rows(k) * padded<T>(k);
  }
  /// Prefixes of level k whose parents' states are worth keeping in the caches.
  template <class T>
  std::size_t at_once(std::size_t k) const {
    constexpr std::size_t size = (std::size_t{128} << 10) / sizeof(T);
    return std::min(std::max<std::size_t>(size / state<T>(k), 1), prefixes_.most(k));
  }
  template <class T>
  std::size_t gathered() const {
    std::size_t size = 0;
    for (std::size_t k = 0; k < shape_.size(); ++k) size = std::max(size, at_once<T>(k) * state<T>(k));
    return size;
  }
  /// Of core k the other way round.
  template <class T>
  std::size_t transposed(std::size_t k) const {
    const std::size_t inner = k + 1 == shape_.size() ? 1 : backend::row_stride<T>(shape_.rank(k + 1));
    return shape_.out[k] * shape_.in[k] * inner * padded<T>(k);
  }

  TensorTrainShape shape_;
  Prefixes prefixes_;
};

}  // namespace tesla::inline TESLA_TARGET::network
