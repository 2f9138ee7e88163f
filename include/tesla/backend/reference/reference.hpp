// The reference backend: plain loops over any scalar, in the order in which the mathematics is written down. It is the
// oracle that faster backends are tested against, and the template to start a port from.
#pragma once

#include <tesla/backend/backend.hpp>
#include <tesla/backend/reference/attention.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace tesla::inline TESLA_TARGET::backend {

class Reference {
 public:
  static constexpr const char* name = "reference";
  static constexpr bool host_memory = true;

  /// One panel holds the whole batch.
  template <class T>
  static std::size_t lanes(std::size_t batch) {
    return batch == 0 ? 1 : batch;
  }

  template <class T>
  T* allocate(std::size_t n) {
    return new T[n]();
  }
  template <class T>
  void deallocate(T* p) {
    delete[] p;
  }
  template <class T>
  void write(T* to, const T* from, std::size_t n) {
    std::copy(from, from + n, to);
  }
  template <class T>
  void read(T* to, const T* from, std::size_t n) {
    std::copy(from, from + n, to);
  }
  template <class T>
  void fill(T* p, std::size_t n, T value) {
    std::fill(p, p + n, value);
  }

  template <class T>
  void gather(const Rows& rows, Panels<T> out, Matrix<T> copy) {
    for (std::size_t s = 0; s < rows.count; ++s)
      for (std::size_t f = 0; f < out.features; ++f) {
        rows.array->read(rows[s], f, 1, &out.at(s, f));
        if (copy) copy.row(s)[f] = out.at(s, f);
      }
  }
  template <class T>
  void scatter(Panels<const T> in, T* rows) {
    for (std::size_t s = 0; s < in.batch; ++s)
      for (std::size_t f = 0; f < in.features; ++f) rows[s * in.features + f] = in.at(s, f);
  }
  template <class T>
  void transpose(Panels<const T> in, Matrix<T> out) {
    for (std::size_t s = 0; s < in.batch; ++s)
      for (std::size_t f = 0; f < in.features; ++f) out.row(s)[f] = in.at(s, f);
  }

  template <class T, class F = math::Identity>
  void multiply(const Product<T>& p, const F& f = {}) {
    const auto i = [](std::size_t n) { return static_cast<std::ptrdiff_t>(n); };
    for (std::size_t item = 0; item < p.count; ++item)
      for (std::size_t r = 0; r < p.rows; ++r) {
        const std::size_t columns = item + 1 == p.count && p.last_columns != 0 ? p.last_columns : p.columns;
        for (std::size_t c = 0; c < columns; ++c) {
          T& result = p.c[i(item) * p.c_item + i(r) * p.c_row + i(c)];
          T total = p.accumulate ? result : T(0);
          if (p.bias != nullptr) total += p.bias[r];
          for (std::size_t s = 0; s < p.segments; ++s) {
            const std::size_t depth = s + 1 == p.segments && p.last_depth != 0 ? p.last_depth : p.depth;
            for (std::size_t k = 0; k < depth; ++k)
              total += p.a[i(item) * p.a_item + i(s) * p.a_segment + i(r) * p.a_row + i(k) * p.a_depth] *
                       p.b[i(item) * p.b_item + i(s) * p.b_segment + i(k) * p.b_depth + i(c)];
          }
          result = f(total);
        }
      }
  }

  template <class T>
  static MemoryNeed convolution_memory(const Convolution&, std::size_t, bool) {
    return {};
  }
  template <class T>
  void prepare_filters(const Convolution&, Matrix<T>, std::size_t, T*) {}
  template <class T, class F = math::Identity>
  void convolve(const Convolution& c, Matrix<T> filters, const T*, Panels<const T> x, Panels<T> y, const T* bias,
                const F& f = {}) {
    for (std::size_t s = 0; s < y.batch; ++s) {
      for (std::size_t i = 0; i < y.features; ++i) y.at(s, i) = bias != nullptr ? bias[i % c.filters] : T(0);
      each_weight(c, [&](std::size_t out, std::size_t in, std::size_t filter, std::size_t k) {
        y.at(s, out) += filters.row(filter)[k] * x.at(s, in);
      });
      for (std::size_t i = 0; i < y.features; ++i) y.at(s, i) = f(y.at(s, i));
    }
  }
  template <class T>
  void convolve_input(const Convolution& c, Matrix<T> filters, Panels<const T> dy, Panels<T> dx, T*) {
    for (std::size_t s = 0; s < dx.batch; ++s) {
      for (std::size_t i = 0; i < dx.features; ++i) dx.at(s, i) = T(0);
      each_weight(c, [&](std::size_t out, std::size_t in, std::size_t filter, std::size_t k) {
        dx.at(s, in) += filters.row(filter)[k] * dy.at(s, out);
      });
    }
  }
  template <class T>
  void convolve_filters(const Convolution& c, Panels<const T> dy, Panels<const T> x, Matrix<T> gradient, T* bias, T*) {
    if (bias != nullptr) reduce([](auto d) { return d; }, Features<T>{bias, c.filters}, dy);
    for (std::size_t f = 0; f < gradient.rows; ++f) std::fill_n(gradient.row(f), gradient.columns, T(0));
    for (std::size_t s = 0; s < x.batch; ++s)
      each_weight(c, [&](std::size_t out, std::size_t in, std::size_t filter, std::size_t k) {
        gradient.row(filter)[k] += dy.at(s, out) * x.at(s, in);
      });
  }

  template <class T>
  void max_pool(const Convolution& c, Panels<const T> x, Panels<T> y, Panels<T> which) {
    for (std::size_t s = 0; s < y.batch; ++s)
      each_window(c, [&](std::size_t out, const std::vector<std::size_t>& in) {
        std::size_t best = 0;
        for (std::size_t i = 1; i < in.size(); ++i)
          if (x.at(s, in[i]) > x.at(s, in[best])) best = i;
        y.at(s, out) = x.at(s, in[best]);
        if (which) which.at(s, out) = static_cast<T>(best);
      });
  }
  template <class T>
  void max_pool_gradient(const Convolution& c, Panels<const T> which, Panels<const T> dy, Panels<T> dx) {
    for (std::size_t s = 0; s < dx.batch; ++s) {
      for (std::size_t i = 0; i < dx.features; ++i) dx.at(s, i) = T(0);
      each_window(c, [&](std::size_t out, const std::vector<std::size_t>& in) {
        dx.at(s, in[static_cast<std::size_t>(which.at(s, out))]) += dy.at(s, out);
      });
    }
  }
  template <class T>
  void mean_pool(const Convolution& c, Panels<const T> x, Panels<T> y) {
    for (std::size_t s = 0; s < y.batch; ++s)
      each_window(c, [&](std::size_t out, const std::vector<std::size_t>& in) {
        T total(0);
        for (const std::size_t i : in) total += x.at(s, i);
        y.at(s, out) = total / static_cast<T>(in.size());
      });
  }
  template <class T>
  void mean_pool_gradient(const Convolution& c, Panels<const T> dy, Panels<T> dx) {
    for (std::size_t s = 0; s < dx.batch; ++s) {
      for (std::size_t i = 0; i < dx.features; ++i) dx.at(s, i) = T(0);
      each_window(c, [&](std::size_t out, const std::vector<std::size_t>& in) {
        for (const std::size_t i : in) dx.at(s, i) += dy.at(s, out) / static_cast<T>(in.size());
      });
    }
  }

  template <class T>
  void moments(Panels<const T> x, Features<T> mean, Features<T> variance) {
    const double n = static_cast<double>(x.batch * (x.features / mean.size));
    const auto share = [n](Features<T> sums) {
      for (std::size_t c = 0; c < sums.size; ++c) sums.data[c] = static_cast<T>(static_cast<double>(sums.data[c]) / n);
    };
    reduce([](auto a) { return a; }, mean, x);
    share(mean);
    reduce([](auto a, auto m) { return (a - m) * (a - m); }, variance, x, Features<const T>{mean.data, mean.size});
    share(variance);
  }
  template <class T>
  void moment_sums(Panels<const T> d, Panels<const T> x, Features<const T> mean, Features<T> sums, Features<T> along) {
    reduce([](auto a) { return a; }, sums, d);
    reduce([](auto a, auto b, auto m) { return a * (b - m); }, along, d, x, mean);
  }
  template <class T>
  void normalise(const Groups& g, bool centred, double epsilon, Panels<const T> x, Panels<T> y, Panels<T> scale) {
    const T n = static_cast<T>(g.features());
    each_group(g, x.batch, [&](std::size_t s, std::size_t group, const std::vector<std::size_t>& members) {
      T mean(0), squares(0);
      for (const std::size_t i : members) mean += centred ? x.at(s, i) / n : T(0);
      for (const std::size_t i : members) squares += (x.at(s, i) - mean) * (x.at(s, i) - mean) / n;
      scale.at(s, group) = T(1) / std::sqrt(squares + static_cast<T>(epsilon));
      for (const std::size_t i : members) y.at(s, i) = (x.at(s, i) - mean) * scale.at(s, group);
    });
  }
  template <class T>
  void normalise_gradient(const Groups& g, bool centred, Panels<const T> y, Panels<const T> scale, Panels<const T> dy,
                          Panels<T> dx) {
    const T n = static_cast<T>(g.features());
    each_group(g, y.batch, [&](std::size_t s, std::size_t group, const std::vector<std::size_t>& members) {
      T mean(0), along(0);
      for (const std::size_t i : members) {
        if (centred) mean += dy.at(s, i) / n;
        along += dy.at(s, i) * y.at(s, i) / n;
      }
      for (const std::size_t i : members) dx.at(s, i) = (dy.at(s, i) - mean - along * y.at(s, i)) * scale.at(s, group);
    });
  }
  template <class T>
  void pick(const Picks& p, Panels<const T> x, Panels<T> y, bool add = false) {
    for (std::size_t s = 0; s < y.batch; ++s)
      for (std::size_t f = 0; f < y.features; ++f) {
        T total = add ? y.at(s, f) : T(0);
        for (std::uint32_t k = p.pointers[f]; k < p.pointers[f + 1]; ++k) total += x.at(s, p.from[k]);
        y.at(s, f) = total;
      }
  }
  template <class T>
  void draw(const Draw& d, Panels<T> out) {
    for (std::size_t s = 0; s < out.batch; ++s)
      for (std::size_t f = 0; f < out.features; ++f) out.at(s, f) = static_cast<T>(d.number(d.bits(s, f), f % 4));
  }

  template <class T>
  void to_tokens(Panels<const T> x, std::size_t length, Panels<T> tokens) {
    reference::to_tokens(x, length, tokens);
  }
  template <class T>
  void from_tokens(Panels<const T> tokens, std::size_t length, Panels<T> y) {
    reference::from_tokens(tokens, length, y);
  }
  template <class T>
  void rotate(const Rotation& r, bool back, Panels<T> tokens) {
    reference::rotate(r, back, tokens);
  }
  template <class T>
  static std::size_t attention_scratch(const Attention&, std::size_t) {
    return 0;
  }
  template <class T>
  void attend(const Attention& a, Panels<const T> q, Panels<const T> k, Panels<const T> v, const T* keys, Panels<T> o,
              T* log_sums) {
    reference::attend(a, q, k, v, keys, o, log_sums);
  }
  template <class T>
  void attend_gradient(const Attention& a, Panels<const T> q, Panels<const T> k, Panels<const T> v, const T* keys,
                       Panels<const T> o, const T*, Panels<const T> d_o, Panels<T> dq, Panels<T> dk, Panels<T> dv, T*) {
    reference::attend_gradient(a, q, k, v, keys, o, d_o, dq, dk, dv);
  }
  template <class T>
  void attend_step(const Attention& a, std::size_t count, const Matrix<T>& q, const T* keys, const T* values,
                   const T* live, const Matrix<T>& o, T*) {
    reference::attend_step(a, count, q, keys, values, live, o);
  }

  template <class F, class T, class... In>
  void map(const F& f, Panels<T> out, const In&... in) {
    for (std::size_t s = 0; s < out.batch; ++s)
      for (std::size_t i = 0; i < out.features; ++i) out.at(s, i) = f(value(in, s, i)...);
  }
  template <class F, class T, class... In>
  void map_sum(const F& f, Panels<T> out, Features<T> sums, const In&... in) {
    std::fill_n(sums.data, sums.size, T(0));
    for (std::size_t i = 0; i < out.features; ++i)
      for (std::size_t s = 0; s < out.batch; ++s) sums.data[i % sums.size] += out.at(s, i) = f(value(in, s, i)...);
  }
  template <class F, class T, class First, class... In>
  void reduce(const F& f, Features<T> sums, const First& first, const In&... in) {
    std::fill_n(sums.data, sums.size, T(0));
    for (std::size_t i = 0; i < first.features; ++i)
      for (std::size_t s = 0; s < first.batch; ++s)
        sums.data[i % sums.size] += f(value(first, s, i), value(in, s, i)...);
  }
  template <class T>
  void apply(const ElementwiseFunction& f, Panels<const T> x, Panels<T> y) {
    f.apply(x.data, y.data, x.size(), false);
  }
  template <class T>
  void apply_gradient(const ElementwiseFunction& f, Panels<const T> x, Panels<const T> dy, Panels<T> dx) {
    f.gradient(x.data, dy.data, dx.data, x.size(), false);
  }

  template <class T>
  void softmax(Panels<const T> in, Panels<T> out, std::size_t group, bool logarithm) {
    for (std::size_t s = 0; s < in.batch; ++s)
      for (std::size_t first = 0; first < in.features; first += group) {
        T largest = in.at(s, first), total(0);
        for (std::size_t i = first; i < first + group; ++i) largest = std::max(largest, in.at(s, i));
        for (std::size_t i = first; i < first + group; ++i) total += std::exp(in.at(s, i) - largest);
        for (std::size_t i = first; i < first + group; ++i)
          out.at(s, i) = logarithm ? in.at(s, i) - largest - std::log(total) : std::exp(in.at(s, i) - largest) / total;
      }
  }
  template <class T>
  void softmax_gradient(Panels<const T> y, Panels<const T> dy, Panels<T> dx, std::size_t group, bool logarithm) {
    for (std::size_t s = 0; s < y.batch; ++s)
      for (std::size_t first = 0; first < y.features; first += group) {
        T total(0);
        for (std::size_t i = first; i < first + group; ++i) total += dy.at(s, i) * (logarithm ? T(1) : y.at(s, i));
        for (std::size_t i = first; i < first + group; ++i)
          dx.at(s, i) = logarithm ? dy.at(s, i) - std::exp(y.at(s, i)) * total : (dy.at(s, i) - total) * y.at(s, i);
      }
  }

  template <class T>
  double cross_entropy(Panels<const T> logits, Target<T> target, const T* weights, Panels<T> gradient) {
    double loss = 0;
    for (std::size_t s = 0; s < logits.batch; ++s) {
      T largest = logits.at(s, 0), total(0), mass(0), dot(0);
      const auto wanted = [&](std::size_t i) {
        return target.labels != nullptr ? T(static_cast<std::size_t>(target.labels[s]) == i) : target.values.at(s, i);
      };
      for (std::size_t i = 0; i < logits.features; ++i) largest = std::max(largest, logits.at(s, i));
      for (std::size_t i = 0; i < logits.features; ++i) {
        total += std::exp(logits.at(s, i) - largest);
        mass += wanted(i);
        dot += wanted(i) * (logits.at(s, i) - largest);
      }
      loss += static_cast<double>(weights[s] * (std::log(total) * mass - dot));
      if (gradient)
        for (std::size_t i = 0; i < logits.features; ++i)
          gradient.at(s, i) = weights[s] * (std::exp(logits.at(s, i) - largest) / total * mass - wanted(i));
    }
    return loss;
  }
  template <class F, class T>
  double elementwise_loss(const F& f, Panels<const T> y, Panels<const T> target, const T* weights, Panels<T> gradient) {
    double loss = 0;
    for (std::size_t s = 0; s < y.batch; ++s)
      for (std::size_t i = 0; i < y.features; ++i) {
        const math::Dual<T> l = f(math::Dual<T>(y.at(s, i), T(1)), math::Dual<T>(target.at(s, i), T(0)));
        loss += static_cast<double>(weights[s] * l.value);
        if (gradient) gradient.at(s, i) = weights[s] * l.slope;
      }
    return loss;
  }
  template <class F, class T>
  double loss_of_sums(const F& f, Panels<const T> y, Panels<const T> target, const T* weights, Panels<T> gradient) {
    using D = math::Dual<T>;
    double loss = 0;
    for (std::size_t s = 0; s < y.batch; ++s) {
      if (weights[s] == T(0)) {  // nothing counts, finite or not
        for (std::size_t i = 0; gradient && i < y.features; ++i) gradient.at(s, i) = T(0);
        continue;
      }
      T largest(0);
      for (std::size_t i = 0; F::below_largest && i < y.features; ++i)
        largest = i == 0 ? y.at(s, i) : std::max(largest, y.at(s, i));
      const auto terms = [&](std::size_t i) {
        return f.terms(D(y.at(s, i) - largest, T(1)), D(target.at(s, i), T(0)));
      };
      std::array<T, F::sums> sums{}, slopes{};
      for (std::size_t i = 0; i < y.features; ++i) {
        const auto term = terms(i);
        for (std::size_t k = 0; k < F::sums; ++k) sums[k] += term[k].value;
      }
      T cost(0);
      for (std::size_t k = 0; k < F::sums; ++k) {
        const D result = [&]<std::size_t... I>(std::index_sequence<I...>) {
          return f.cost(std::array<D, F::sums>{D(sums[I], T(I == k))...});
        }
        (std::make_index_sequence<F::sums>());
        cost = result.value, slopes[k] = result.slope;
      }
      loss += static_cast<double>(weights[s] * cost);
      for (std::size_t i = 0; gradient && i < y.features; ++i) {
        const auto term = terms(i);
        T slope(0);
        for (std::size_t k = 0; k < F::sums; ++k) slope += slopes[k] * term[k].slope;
        gradient.at(s, i) = weights[s] * slope;
      }
    }
    return loss;
  }

  template <class F, class T, std::size_t Slots>
  void update(const F& f, Updated<T, Slots> parameter, const T* gradient) {
    for (std::size_t r = 0; r < parameter.value.rows; ++r)
      for (std::size_t c = 0; c < parameter.value.columns; ++c)
        step(f, parameter, r * parameter.value.stride + c, gradient[r * parameter.value.stride + c]);
  }
  template <class F, class T, std::size_t Slots>
  void update_product(const F& f, Updated<T, Slots> parameter, Product<T> gradient) {
    std::vector<T> stored(gradient.rows * parameter.value.stride);
    gradient.c = stored.data(), gradient.c_row = static_cast<std::ptrdiff_t>(parameter.value.stride);
    multiply(gradient);
    update(f, parameter, stored.data());
  }
  template <class F, class T, std::size_t Slots>
  void update_rows(const F& f, Updated<T, Slots> parameter, const T* gradient, std::span<const std::uint32_t> rows) {
    const std::size_t stride = parameter.value.stride;
    for (std::size_t k = 0; k < rows.size(); ++k)
      for (std::size_t c = 0; c < parameter.value.columns; ++c)
        step(f, parameter, rows[k] * stride + c, gradient[k * stride + c]);
  }
  template <class T>
  void add_rows(Matrix<T> in, std::span<const std::uint32_t> to, Matrix<T> out) {
    for (std::size_t i = 0; i < to.size(); ++i)
      for (std::size_t c = 0; c < out.columns && to[i] != ~std::uint32_t{0}; ++c) out.row(to[i])[c] += in.row(i)[c];
  }
  template <class T>
  double squared_norm(Matrix<T> m) {
    double total = 0;
    for (std::size_t r = 0; r < m.rows; ++r)
      for (std::size_t c = 0; c < m.columns; ++c)
        total += static_cast<double>(m.row(r)[c]) * static_cast<double>(m.row(r)[c]);
    return total;
  }

 private:
  /// Calls f(feature of the output, feature of the input, filter, number of the weight) for all that meet.
  template <class F>
  static void each_weight(const Convolution& c, const F& f) {
    const auto input = [](const ConvolutionAxis& a, std::size_t o, std::size_t tap, std::size_t& at) {
      at = o * a.stride + tap * a.dilation;
      if (at < a.before || at - a.before >= a.in) return false;
      at -= a.before;
      return true;
    };
    const std::size_t channels = c.group_channels();
    for (std::size_t y = 0; y < c.rows.out; ++y)
      for (std::size_t x = 0; x < c.columns.out; ++x)
        for (std::size_t filter = 0; filter < c.filters; ++filter)
          for (std::size_t ky = 0; ky < c.rows.kernel; ++ky)
            for (std::size_t kx = 0; kx < c.columns.kernel; ++kx)
              for (std::size_t channel = 0; channel < channels; ++channel) {
                std::size_t row, column;
                if (!input(c.rows, y, ky, row) || !input(c.columns, x, kx, column)) continue;
                const std::size_t from = filter / c.group_filters() * channels + channel;
                f((y * c.columns.out + x) * c.filters + filter, (row * c.columns.in + column) * c.channels + from,
                  filter, (ky * c.columns.kernel + kx) * channels + channel);
              }
  }

  /// Calls f(feature of the output, features of the input in its window) for pooling.
  template <class F>
  static void each_window(const Convolution& c, const F& f) {
    std::vector<std::vector<std::size_t>> windows(c.out_features());
    each_weight(c, [&](std::size_t out, std::size_t in, std::size_t, std::size_t) { windows[out].push_back(in); });
    for (std::size_t out = 0; out < windows.size(); ++out) f(out, windows[out]);
  }

  template <class F>
  static void each_group(const Groups& g, std::size_t batch, const F& f) {
    for (std::size_t group = 0; group < g.count; ++group) {
      std::vector<std::size_t> members;
      for (std::size_t r = 0; r < g.repeats; ++r)
        for (std::size_t i = 0; i < g.size; ++i) members.push_back(group * g.size + r * g.apart + i);
      for (std::size_t s = 0; s < batch; ++s) f(s, group, members);
    }
  }

  template <class T>
  static auto value(Panels<T> p, std::size_t sample, std::size_t feature) {
    return static_cast<std::remove_const_t<T>>(p.at(sample, feature));
  }
  template <class T>
  static auto value(Features<T> v, std::size_t, std::size_t feature) {
    return static_cast<std::remove_const_t<T>>(v.data[feature % v.size]);
  }
  template <class F, class T, std::size_t Slots>
  static void step(const F& f, Updated<T, Slots>& parameter, std::size_t at, T gradient) {
    std::array<T, Slots> state;
    for (std::size_t i = 0; i < Slots; ++i) state[i] = parameter.slots[i][at];
    f(parameter.value.data[at], gradient, state);
    for (std::size_t i = 0; i < Slots; ++i) parameter.slots[i][at] = state[i];
  }
};

}  // namespace tesla::inline TESLA_TARGET::backend
