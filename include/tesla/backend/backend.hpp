// The backend trait: what a port to other hardware has to provide. This is the one page to read.
//
// A backend is a template parameter and an instance, never a global switch: several live in one program. It owns memory
// and offers the primitives below on plain pointers, panels and matrices of its memory. Everything else in the library,
// layers, losses, optimizers, is written on these, so a port that has them runs every model. Whole-layer kernels may be
// added as further members, found with `requires`, where composing primitives is not fast enough.
//
//   memory     allocate, deallocate, write (host to backend), read (backend to host), fill;
//              host_memory: whether the host can use its pointers
//   layout     lanes: samples in a panel; gather: samples of any array to panels; scatter: panels to rows;
//              transpose: panels to one row a sample
//   products   multiply: every product of matrices, with bias and an elementwise function on the result
//   images     convolve, with bias and an elementwise function; convolve_input, convolve_filters: its gradients;
//              convolution_memory: what they need, prepare_filters: what forward keeps of the filters;
//              max_pool, mean_pool and their gradients: of each window, channel by channel
//   features   normalise, normalise_gradient: groups of a sample's features; moments, moment_sums: of a batch's
//              channels; pick: features in other places, repeated or added; draw: random numbers
//   sequences  to_tokens, from_tokens: samples as lanes to tokens as lanes and back; rotate: by a token's place;
//              attend, attend_gradient: attention
//   functions  map, map_sum, reduce: n-ary elementwise, with sums over the batch;
//              apply, apply_gradient: a user's function
//   softmax    softmax, softmax_gradient
//   losses     cross_entropy, elementwise_loss; loss_of_sums: of sums over the features of each sample; where samples
//              are steps, a batch has other lanes than lanes(batch)
//   updates    update, update_product: optimizers, one pass over the parameters; update_rows: over some of their rows;
//              add_rows: rows to those of another matrix; squared_norm
//
// Operands of map, map_sum and reduce are Panels, or a Features<const T>: one value a feature, the same for all
// samples; where values, or sums, are fewer than features, they repeat: one a channel of an image. Functors are small
// structs or generic lambdas called on scalars, SIMD batches or a device's numbers alike. Sums run in an order that
// depends on shapes alone. Calls may return before the work is done; read() waits for it.
#pragma once

#include <tesla/backend/attention.hpp>
#include <tesla/backend/convolution.hpp>
#include <tesla/backend/features.hpp>
#include <tesla/backend/functions.hpp>
#include <tesla/backend/product.hpp>
#include <tesla/tensor/panels.hpp>
#include <tesla/tensor/view.hpp>

#include <array>
#include <concepts>
#include <cstdint>
#include <span>
#include <utility>

namespace tesla::inline TESLA_TARGET::backend {

/// One value a feature.
template <class T>
struct Features {
  T* data = nullptr;
  std::size_t size = 0;
};

/// The samples of one batch: rows of a borrowed array, by index.
struct Rows {
  const ArrayView* array;
  const std::uint32_t* index;  // null: rows first, first + 1, ...
  std::size_t first, count;

  std::size_t operator[](std::size_t i) const { return index != nullptr ? index[first + i] : first + i; }
};

/// What a loss compares with, for one batch: class labels, or values in panels. Where samples have several labels, one
/// a step, labels and their weights lie as panels of so many features do. Primitives are given one step: to a loss
/// steps are samples, by loss::by_step().
template <class T>
struct Target {
  const std::int32_t* labels = nullptr;  // memory of the host
  Panels<const T> values = {};
  std::size_t steps = 1;
  const T* weights = nullptr;  // of several steps, instead of those of the samples; 0 in unused lanes
};

/// A parameter, its optimizer state and its gradient, as the arrays an update runs over.
template <class T, std::size_t Slots>
struct Updated {
  Matrix<T> value;
  std::array<T*, Slots> slots;
};

namespace detail {
struct AnyFunctor {
  template <class... V>
  auto operator()(V&&... v) const {
    return (v + ...);
  }
  template <class V>
  V gradient(V dy, V) const {
    return dy;
  }
  static constexpr bool from_output = true;
};
struct AnySums {
  static constexpr std::size_t sums = 1;
  static constexpr bool below_largest = false;
  template <class D>
  std::array<D, 1> terms(D y, D target) const {
    return {y * target};
  }
  template <class D>
  D cost(const std::array<D, 1>& sum) const {
    return sum[0];
  }
};
struct AnyUpdate {
  template <class V, class S>
  void operator()(V& weight, V gradient, S&) const {
    weight -= gradient;
  }
};
}  // namespace detail

// clang-format off
template <class B, class T = float>
concept Backend = std::movable<B> &&
    requires(B& b, std::size_t n, T* p, const T* q, Panels<T> panels, Panels<const T> in, Matrix<T> matrix,
             Features<T> vector, Features<const T> values, const Rows& rows, const Product<T>& product, Target<T> target,
             const Convolution& convolution, const Groups& groups, const Attention& attention, const Rotation& rotation, const Picks& picks, const Draw& draw, const ElementwiseFunction& function, std::span<const std::uint32_t> numbers, detail::AnyFunctor f, detail::AnySums sums, detail::AnyUpdate update,
             Updated<T, 1> updated) {
  { B::name } -> std::convertible_to<const char*>;
  { B::host_memory } -> std::convertible_to<bool>;
  { B::template lanes<T>(n) } -> std::same_as<std::size_t>;
  { b.template allocate<T>(n) } -> std::same_as<T*>;        // n elements, all zero
  b.deallocate(p);
  b.write(p, q, n);
  b.read(p, q, n);
  b.fill(p, n, T(0));
  b.gather(rows, panels, matrix);                            // matrix: the same samples as rows; may be null
  b.scatter(in, p);                                          // to row-major memory of the host
  b.transpose(in, matrix);
  b.multiply(product, f);
  { B::template convolution_memory<T>(convolution, n, true) } -> std::same_as<MemoryNeed>;  // n: the batch
  b.prepare_filters(convolution, matrix, n, p);              // p: what convolve keeps, good for these filters
  b.convolve(convolution, matrix, q, in, panels, q, f);      // filters, kept, x, y, bias or null
  b.convolve_input(convolution, matrix, in, panels, p);      // filters, dy, dx, scratch
  b.convolve_filters(convolution, in, in, matrix, p, p);     // dy, x, the gradients of filters and bias, scratch
  b.max_pool(convolution, in, panels, panels);               // x, y, which of a window's inputs it was, or null
  b.max_pool_gradient(convolution, in, in, panels);          // which, dy, dx
  b.mean_pool(convolution, in, panels);
  b.mean_pool_gradient(convolution, in, panels);
  b.normalise(groups, true, 1e-5, in, panels, panels);       // true: centred; x, y, the factor of each group
  b.normalise_gradient(groups, true, in, in, in, panels);    // y, the factors, dy, dx
  b.to_tokens(in, n, panels);                                // samples {n, features} to panels of tokens, and back
  b.from_tokens(in, n, panels);
  b.rotate(rotation, true, panels);                          // true: back
  { B::template attention_scratch<T>(attention, n) } -> std::same_as<std::size_t>;  // n: lanes of the tokens
  b.attend(attention, in, in, in, q, panels, p);             // queries, keys, values, which keys count or null; the
                                                             // result, logarithms of the softmax's denominators
  b.attend_gradient(attention, in, in, in, q, in, q, in, panels, panels, panels, p);  // ..., scratch
  b.moments(in, vector, vector);                             // the mean and the variance of each channel
  b.moment_sums(in, in, values, vector, vector);             // d, x, means; the sums of d and of d * (x - mean)
  b.pick(picks, in, panels, true);                           // true: onto what is there
  b.draw(draw, panels);
  b.map(f, panels, in, values);
  b.map_sum(f, panels, vector, in, in);                      // vector = sums of the result over the batch
  b.reduce(f, vector, in, values);                           // the sums alone
  b.apply(function, in, panels);
  b.apply_gradient(function, in, in, panels);                // x, dy, dx
  b.softmax(in, panels, n, true);                            // over groups of n features; true: its logarithm
  b.softmax_gradient(in, in, panels, n, true);               // y, dy, dx
  { b.cross_entropy(in, target, q, panels) } -> std::same_as<double>;         // from logits; q: weights of the samples
  { b.elementwise_loss(f, in, in, q, panels) } -> std::same_as<double>;
  // A sample costs sums.cost(its sums over the features of sums.terms(y, target)), both run on dual numbers. Where
  // below_largest, the terms are of y less the sample's largest, which must not change the cost.
  { b.loss_of_sums(sums, in, in, q, panels) } -> std::same_as<double>;
  b.update(update, updated, q);                              // q: the gradient, laid out as the parameter
  b.update_product(update, updated, product);                // the gradient is the product, its c is not used
  b.update_rows(update, updated, q, numbers);                // row k of the gradient is that of row numbers[k]; none twice
  b.add_rows(matrix, numbers, matrix);                       // row i is added to row numbers[i]; ~0: to none
  { b.squared_norm(matrix) } -> std::same_as<double>;
};
// clang-format on

/// Memory of a backend, owned.
template <class T, class B>
class Memory {
 public:
  Memory() = default;
  Memory(B& backend, std::size_t size) : backend_(&backend), data_(backend.template allocate<T>(size)), size_(size) {}
  Memory(Memory&& other) noexcept
      : backend_(other.backend_), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Memory& operator=(Memory other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Memory() {
    if (data_ != nullptr) backend_->deallocate(data_);
  }

  T* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  B* backend_ = nullptr;
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace tesla::inline TESLA_TARGET::backend
