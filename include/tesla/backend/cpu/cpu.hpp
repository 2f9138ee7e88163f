// The CPU backend: SIMD kernels over xsimd, threads of its own, for float and double.
#pragma once

#include <tesla/backend/backend.hpp>
#include <tesla/backend/cpu/attention.hpp>
#include <tesla/backend/cpu/batch_norm.hpp>
#include <tesla/backend/cpu/depth_first.hpp>
#include <tesla/backend/cpu/elementwise.hpp>
#include <tesla/backend/cpu/features.hpp>
#include <tesla/backend/cpu/layout.hpp>
#include <tesla/backend/cpu/loss.hpp>
#include <tesla/backend/cpu/multiply.hpp>
#include <tesla/backend/cpu/pooled_convolution.hpp>
#include <tesla/backend/cpu/pooling.hpp>
#include <tesla/backend/cpu/recurrent.hpp>
#include <tesla/backend/cpu/sparse.hpp>

#include <cstring>
#include <new>

namespace tesla::inline TESLA_TARGET::backend {

class Cpu {
 public:
  static constexpr const char* name = "cpu";
  static constexpr bool host_memory = true;

  template <class T>
  static std::size_t lanes(std::size_t batch) {
    return cpu::lanes_of<T>(batch);
  }

  /// The kernels of contractions.
  template <class T>
  using DepthFirst = cpu::DepthFirst<T>;
  /// Those of sparse weights.
  template <class T>
  using Sparse = cpu::Sparse<T>;
  /// Those of attention, which want tiles.
  template <class T>
  using Attend = cpu::Attend<T>;
  /// Those of recurrent layers.
  template <class T>
  using Recurrent = cpu::Recurrent<T>;
  /// Those of convolutions and of batch norm with max pooling behind them.
  template <class T>
  using PooledConvolve = cpu::PooledConvolve<T>;
  template <class T>
  using PooledNorm = cpu::PooledNorm<T>;
  template <class T, class F>
  static InPlace<T> in_place(const F& f) {
    if constexpr (std::same_as<F, math::Identity>) return {};
    return {[](const void* function, T* values, std::size_t n) {
              const cpu::Operand<T> in{values};
              cpu::map_kernel<T, F, 1>(function, values, &in, n);
            },
            &f};
  }
  template <class T>
  static Throughput throughput() {
    Throughput t;
    t.width = cpu::width<T>, t.vectors = cpu::max_vectors;
    for (std::size_t v = 1; v < t.rows.size(); ++v) t.rows[v] = cpu::max_rows(cpu::tile_vectors(v));
    t.multiply_adds = cpu::max_vectors == 4 ? 1.4 : 2;  // some processors do 512 bits in two halves
    t.tile = 60, t.call = 50;
    return t;
  }

  template <class T>
  T* allocate(std::size_t n) {
    return static_cast<T*>(allocate_zeroed(round_up(checked_product(n, sizeof(T)), cache_line)));
  }
  template <class T>
  void deallocate(T* p) {
    ::operator delete(p, std::align_val_t(cache_line));
  }
  template <class T>
  void write(T* to, const T* from, std::size_t n) {
    if (n != 0) std::memcpy(to, from, n * sizeof(T));
  }
  template <class T>
  void read(T* to, const T* from, std::size_t n) {
    if (n != 0) std::memcpy(to, from, n * sizeof(T));
  }
  template <class T>
  void fill(T* p, std::size_t n, T value) {
    std::fill(p, p + n, value);
  }

  template <class T>
  void gather(const Rows& rows, Panels<T> out, Matrix<T> copy) {
    if (rows.count != 0) cpu::gather(rows, out, copy);
  }
  template <class T>
  void scatter(Panels<const T> in, T* rows) {
    cpu::panels_to_rows(in, rows, in.features);
  }
  template <class T>
  void transpose(Panels<const T> in, Matrix<T> out) {
    cpu::panels_to_rows(in, out.data, out.stride);
  }

  template <class T, class F = math::Identity>
  void multiply(const Product<T>& p, const F& f = {}) {
    cpu::Epilogue<T> epilogue;
    if constexpr (!std::is_same_v<F, math::Identity>) epilogue.map = &cpu::map_kernel<T, F, 1>, epilogue.context = &f;
    cpu::multiply(p, epilogue);
  }

  template <class T>
  static MemoryNeed convolution_memory(const Convolution& c, std::size_t batch, bool training) {
    return cpu::Convolve<T>(c).memory(batch, training);
  }
  template <class T>
  void prepare_filters(const Convolution& c, Matrix<T> filters, std::size_t batch, T* kept) {
    cpu::Convolve<T>(c).prepare(filters, batch, kept);
  }
  template <class T, class F = math::Identity>
  void convolve(const Convolution& c, Matrix<T> filters, const T* kept, Panels<const T> x, Panels<T> y, const T* bias,
                const F& f = {}) {
    cpu::Epilogue<T> epilogue;
    if constexpr (!std::is_same_v<F, math::Identity>) epilogue.map = &cpu::map_kernel<T, F, 1>, epilogue.context = &f;
    cpu::Convolve<T>(c).forward(filters, kept, x, y, bias, epilogue);
  }
  template <class T>
  void convolve_input(const Convolution& c, Matrix<T> filters, Panels<const T> dy, Panels<T> dx, T* scratch) {
    cpu::Convolve<T>(c).input(filters, dy, dx, scratch);
  }
  template <class T>
  void convolve_filters(const Convolution& c, Panels<const T> dy, Panels<const T> x, Matrix<T> gradient, T* bias,
                        T* scratch) {
    cpu::Convolve<T>(c).filters(dy, x, gradient, bias, scratch);
  }

  template <class T>
  void max_pool(const Convolution& c, Panels<const T> x, Panels<T> y, Panels<T> which) {
    cpu::Pool<T>(c).largest(x, y, which);
  }
  template <class T>
  void max_pool_gradient(const Convolution& c, Panels<const T> which, Panels<const T> dy, Panels<T> dx) {
    cpu::Pool<T>(c).largest_gradient(which, dy, dx);
  }
  template <class T>
  void mean_pool(const Convolution& c, Panels<const T> x, Panels<T> y) {
    cpu::Pool<T>(c).mean(x, y);
  }
  template <class T>
  void mean_pool_gradient(const Convolution& c, Panels<const T> dy, Panels<T> dx) {
    cpu::Pool<T>(c).mean_gradient(dy, dx);
  }

  template <class T>
  void normalise(const Groups& g, bool centred, double epsilon, Panels<const T> x, Panels<T> y, Panels<T> scale) {
    cpu::normalise(g, centred, epsilon, x, y, scale);
  }
  template <class T>
  void normalise_gradient(const Groups& g, bool centred, Panels<const T> y, Panels<const T> scale, Panels<const T> dy,
                          Panels<T> dx) {
    cpu::normalise_gradient(g, centred, y, scale, dy, dx);
  }
  template <class T>
  void moments(Panels<const T> x, Features<T> mean, Features<T> variance) {
    cpu::moments(x, mean, variance);
  }
  template <class T>
  void moment_sums(Panels<const T> d, Panels<const T> x, Features<const T> mean, Features<T> sums, Features<T> along) {
    cpu::moment_sums(d, x, mean, sums, along);
  }
  template <class T>
  void pick(const Picks& p, Panels<const T> x, Panels<T> y, bool add = false) {
    cpu::pick(p, x, y, add);
  }
  template <class T>
  void draw(const Draw& d, Panels<T> out) {
    cpu::draw(d, out);
  }

  template <class T>
  void to_tokens(Panels<const T> x, std::size_t length, Panels<T> tokens) {
    cpu::turn_tokens<false>(Panels<T>{const_cast<T*>(x.data), x.features, x.batch, x.lanes}, length, tokens);
  }
  template <class T>
  void from_tokens(Panels<const T> tokens, std::size_t length, Panels<T> y) {
    const Panels<T> from{const_cast<T*>(tokens.data), tokens.features, tokens.batch, tokens.lanes};
    cpu::turn_tokens<true>(y, length, from);
  }
  template <class T>
  void rotate(const Rotation& r, bool back, Panels<T> tokens) {
    cpu::rotate(r, back, tokens);
  }
  template <class T>
  static std::size_t attention_scratch(const Attention& a, std::size_t lanes) {
    return cpu::Attend<T>(a, lanes).scratch();
  }
  template <class T>
  void attend(const Attention& a, Panels<const T> q, Panels<const T> k, Panels<const T> v, const T* keys, Panels<T> o,
              T* log_sums) {
    cpu::Attend<T>(a, q.lanes).forward(q, k, v, keys, o, log_sums);
  }
  template <class T>
  void attend_gradient(const Attention& a, Panels<const T> q, Panels<const T> k, Panels<const T> v, const T* keys,
                       Panels<const T> o, const T* log_sums, Panels<const T> d_o, Panels<T> dq, Panels<T> dk,
                       Panels<T> dv, T* scratch) {
    cpu::Attend<T>(a, q.lanes).backward(q, k, v, keys, o, log_sums, d_o, dq, dk, dv, scratch);
  }
  template <class T>
  void attend_step(const Attention& a, std::size_t count, const Matrix<T>& q, const T* keys, const T* values,
                   const T* live, const Matrix<T>& o, T* scores) {
    cpu::attend_step(a, count, q, keys, values, live, o, scores);
  }

  template <class F, class T, class... In>
  void map(const F& f, Panels<T> out, const In&... in) {
    cpu::map(f, out, in...);
  }
  template <class F, class T, class... In>
  void map_sum(const F& f, Panels<T> out, Features<T> sums, const In&... in) {
    cpu::map_sum(f, out.data, sums, in...);
  }
  template <class F, class T, class... In>
  void reduce(const F& f, Features<T> sums, const In&... in) {
    cpu::map_sum<F, T>(f, nullptr, sums, in...);
  }
  template <class T>
  void apply(const ElementwiseFunction& f, Panels<const T> x, Panels<T> y) {
    f.apply(x.data, y.data, x.size(), true);
  }
  template <class T>
  void apply_gradient(const ElementwiseFunction& f, Panels<const T> x, Panels<const T> dy, Panels<T> dx) {
    f.gradient(x.data, dy.data, dx.data, x.size(), true);
  }

  template <class T>
  void softmax(Panels<const T> in, Panels<T> out, std::size_t group, bool logarithm) {
    cpu::softmax(in, out, group, logarithm);
  }
  template <class T>
  void softmax_gradient(Panels<const T> y, Panels<const T> dy, Panels<T> dx, std::size_t group, bool logarithm) {
    cpu::softmax_gradient(y, dy, dx, group, logarithm);
  }
  template <class T>
  double cross_entropy(Panels<const T> logits, Target<T> target, const T* weights, Panels<T> gradient) {
    return cpu::cross_entropy(logits, target, weights, gradient);
  }
  template <class F, class T>
  double elementwise_loss(const F& f, Panels<const T> y, Panels<const T> target, const T* weights, Panels<T> gradient) {
    return cpu::sum_loss<T>(&cpu::loss_kernel<T, F>, &f, y, target, weights, gradient);
  }
  template <class F, class T>
  double loss_of_sums(const F& f, Panels<const T> y, Panels<const T> target, const T* weights, Panels<T> gradient) {
    return cpu::loss_of_sums<T>(&cpu::sums_kernel<T, F>, &f, y, target, weights, gradient);
  }

  template <class F, class T, std::size_t Slots>
  void update(const F& f, Updated<T, Slots> parameter, const T* gradient) {
    cpu::update<T, Slots>(&cpu::update_kernel<T, F, Slots>, &f, parameter, gradient);
  }
  template <class F, class T, std::size_t Slots>
  void update_product(const F& f, Updated<T, Slots> parameter, const Product<T>& gradient) {
    static_assert(Slots <= cpu::Epilogue<T>::max_slots, "an optimizer keeps at most 8 values for each weight");
    cpu::Epilogue<T> epilogue;
    epilogue.update = &cpu::update_kernel<T, F, Slots>, epilogue.context = &f;
    epilogue.value = parameter.value, epilogue.slot_count = Slots;
    for (std::size_t s = 0; s < Slots; ++s) epilogue.slots[s] = parameter.slots[s];
    cpu::update_product(gradient, epilogue);
  }
  template <class F, class T, std::size_t Slots>
  void update_rows(const F& f, Updated<T, Slots> parameter, const T* gradient, std::span<const std::uint32_t> rows) {
    cpu::update_rows<T, Slots>(&cpu::update_kernel<T, F, Slots>, &f, parameter, gradient, rows);
  }
  template <class T>
  void add_rows(Matrix<T> in, std::span<const std::uint32_t> to, Matrix<T> out) {
    cpu::add_rows(in, to, out);
  }
  template <class T>
  double squared_norm(Matrix<T> m) {
    return cpu::squared_norm(m);
  }
};

}  // namespace tesla::inline TESLA_TARGET::backend
