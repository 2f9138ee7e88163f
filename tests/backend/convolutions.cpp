// Convolutions and both gradients against plain loops over an image that is really padded with zeros.
#include "conformance.hpp"

namespace test_backend_convolutions {

using namespace conformance;

namespace {

/// Options of one axis, from which its outputs follow.
backend::ConvolutionAxis axis(std::size_t in, std::size_t kernel, std::size_t stride = 1, std::size_t dilation = 1,
                              std::size_t before = 0, std::size_t after = 0) {
  return {in, (in + before + after - ((kernel - 1) * dilation + 1)) / stride + 1, kernel, stride, dilation, before};
}

struct Sums {
  Reals y, dx, dw;
};

/// All three, by one walk over everything that meets, in an image with a wide border of zeros.
template <class T>
Sums expected_sums(const backend::Convolution& c, std::size_t batch, const std::vector<T>& w, const std::vector<T>& x,
                   const std::vector<T>& dy) {
  const auto padded = [](const backend::ConvolutionAxis& a) { return a.out * a.stride + a.kernel * a.dilation + a.in; };
  const std::size_t height = padded(c.rows), width = padded(c.columns), channels = c.channels / c.groups;
  Sums sums{Reals(batch * c.out_features()), Reals(batch * c.in_features()), Reals(w.size())};
  Reals image(height * width * c.channels), gradient(image.size());
  for (std::size_t s = 0; s < batch; ++s) {
    const auto at = [&](std::size_t i) {
      const std::size_t row = i / c.channels / c.columns.in, column = i / c.channels % c.columns.in;
      return ((row + c.rows.before) * width + column + c.columns.before) * c.channels + i % c.channels;
    };
    std::fill(image.begin(), image.end(), 0);
    std::fill(gradient.begin(), gradient.end(), 0);
    for (std::size_t i = 0; i < c.in_features(); ++i) image[at(i)] = x[s * c.in_features() + i];
    for (std::size_t o = 0; o < c.out_features(); ++o) {
      const std::size_t filter = o % c.filters, left = o / c.filters % c.columns.out * c.columns.stride;
      const std::size_t top = o / c.filters / c.columns.out * c.rows.stride;
      const std::size_t first = filter / (c.filters / c.groups) * channels;
      for (std::size_t k = 0; k < c.depth(); ++k) {
        const std::size_t row = top + k / channels / c.columns.kernel * c.rows.dilation;
        const std::size_t column = left + k / channels % c.columns.kernel * c.columns.dilation;
        const std::size_t place = (row * width + column) * c.channels + first + k % channels;
        const Real weight = w[filter * c.depth() + k], up = dy[s * c.out_features() + o];
        sums.y[s * c.out_features() + o] += weight * image[place];
        gradient[place] += weight * up;
        sums.dw[filter * c.depth() + k] += image[place] * up;
      }
    }
    for (std::size_t i = 0; i < c.in_features(); ++i) sums.dx[s * c.in_features() + i] = gradient[at(i)];
  }
  return sums;
}

struct Shift {
  template <class V>
  V operator()(V x) const {
    return x * x + math::number<V>(0.25);
  }
};

template <class C>
void check(const backend::Convolution& c, std::size_t batch) {
  using T = typename C::Scalar;
  using B = typename C::Backend;
  INFO("rows " << c.rows.in << " to " << c.rows.out << " kernel " << c.rows.kernel << " stride " << c.rows.stride
               << " dilation " << c.rows.dilation << " before " << c.rows.before << ", columns " << c.columns.in
               << " to " << c.columns.out << " kernel " << c.columns.kernel << " stride " << c.columns.stride
               << " dilation " << c.columns.dilation << " before " << c.columns.before << ", channels " << c.channels
               << " filters " << c.filters << " groups " << c.groups << " batch " << batch);
  Bench<C> bench;
  const std::vector<T> weights = bench.random(c.filters * c.depth(), 1), x = bench.random(batch * c.in_features(), 2),
                       dy = bench.random(batch * c.out_features(), 3), bias = bench.random(c.filters, 4);
  const Sums sums = expected_sums(c, batch, weights, x, dy);
  const auto filters = bench.table(c.filters, c.depth(), weights);
  const auto in = bench.batch({batch, c.in_features()}, x), up = bench.batch({batch, c.out_features()}, dy);
  const auto offsets = bench.array(bias);
  const MemoryNeed need = B::template convolution_memory<T>(c, batch, true);
  // What memory holds before does not count.
  const auto kept = bench.array(std::vector<T>(need.kept, std::numeric_limits<T>::quiet_NaN()));
  const auto scratch = [&] { return bench.array(std::vector<T>(need.scratch, std::numeric_limits<T>::quiet_NaN())); };
  bench.backend.prepare_filters(c, filters.matrix(), batch, kept.data());
  const Real depth = std::sqrt(Real(c.depth()));

  const auto plain = bench.repeated([&] {
    const auto y = bench.batch({batch, c.out_features()});
    bench.backend.convolve(c, filters.matrix(), static_cast<const T*>(kept.data()), in.in(), y.panels(),
                           static_cast<const T*>(nullptr));
    return y.rows();
  });
  bench.compare(plain, sums.y, depth);
  const auto shifted = bench.repeated([&] {
    const auto y = bench.batch({batch, c.out_features()});
    bench.backend.convolve(c, filters.matrix(), static_cast<const T*>(kept.data()), in.in(), y.panels(),
                           static_cast<const T*>(offsets.data()), Shift());
    return y.rows();
  });
  Reals y = sums.y;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const Real biased = y[i] + Real(bias[i % c.filters]);
    y[i] = biased * biased + Real(0.25);
  }
  bench.compare(shifted, y, 4 * depth);
  const auto dx = bench.repeated([&] {
    const auto result = bench.batch({batch, c.in_features()});
    const auto memory = scratch();
    bench.backend.convolve_input(c, filters.matrix(), up.in(), result.panels(), memory.data());
    memory.read();
    return result.rows();
  });
  bench.compare(dx, sums.dx, std::sqrt(Real(c.taps() * c.group_filters())));
  const auto dw = bench.repeated([&] {
    const auto result = bench.table(c.filters, c.depth(), bench.random(c.filters * c.depth(), 5));
    const auto memory = scratch();
    const auto total = bench.array(std::vector<T>(c.filters, T(9)));
    bench.backend.convolve_filters(c, up.in(), in.in(), result.matrix(), total.data(), memory.data());
    memory.read();
    std::vector<T> all = result.values();
    const std::vector<T> totals = total.read();
    all.insert(all.end(), totals.begin(), totals.end());
    return all;
  });
  Reals dw_and_bias = sums.dw;
  dw_and_bias.resize(sums.dw.size() + c.filters);
  for (std::size_t i = 0; i < dy.size(); ++i) dw_and_bias[sums.dw.size() + i % c.filters] += dy[i];
  bench.compare(dw, dw_and_bias, std::sqrt(Real(c.rows.out * c.columns.out * batch)) + 1);
  kept.read();
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("convolve: kernels, strides, dilations, borders", "[backend][conformance]", Cases) {
  for (const std::size_t batch : {1, 5, 16, 70, 130}) {
    check<TestType>({axis(6, 3), axis(7, 3), 3, 5, 1}, batch);
    check<TestType>({axis(5, 3, 1, 1, 1, 1), axis(6, 3, 1, 1, 1, 1), 17, 20, 1}, batch);
    check<TestType>({axis(4, 1), axis(5, 1), 33, 13, 1}, batch);
    check<TestType>({axis(9, 3, 2, 1, 1, 1), axis(8, 4, 3, 1, 1, 2), 2, 7, 1}, batch);
    check<TestType>({axis(9, 3, 2, 2, 1, 1), axis(11, 2, 2, 3, 2, 0), 4, 6, 1}, batch);
    check<TestType>({axis(1, 1), axis(12, 5, 2, 1, 2, 2), 6, 9, 1}, batch);
    check<TestType>({axis(6, 2, 4), axis(7, 3, 5), 3, 2, 1}, batch);                    // inputs that no output reads
    check<TestType>({axis(3, 5, 1, 1, 3, 4), axis(2, 4, 1, 2, 5, 5), 2, 3, 1}, batch);  // outputs that read none
    check<TestType>({axis(1, 1), axis(1, 1), 1, 1, 1}, batch);
  }
}

TEMPLATE_LIST_TEST_CASE("convolve: groups and single channels", "[backend][conformance]", Cases) {
  for (const std::size_t batch : {1, 3, 64, 70}) {
    check<TestType>({axis(5, 3, 1, 1, 1, 1), axis(6, 3, 1, 1, 1, 1), 6, 4, 2}, batch);
    check<TestType>({axis(5, 3, 2, 1, 1, 1), axis(6, 3, 2, 2, 1, 1), 48, 30, 3}, batch);
    check<TestType>({axis(6, 3, 1, 1, 1, 1), axis(5, 3, 1, 1, 1, 1), 19, 19, 19}, batch);
    check<TestType>({axis(7, 3, 2, 1, 1, 1), axis(6, 2, 3, 2, 0, 1), 5, 5, 5}, batch);
    check<TestType>({axis(7, 3, 2, 1, 1, 1), axis(6, 3), 5, 15, 5}, batch);
  }
}

TEMPLATE_LIST_TEST_CASE("convolve: sizes that are worth threads and several chunks", "[backend][conformance]", Cases) {
  check<TestType>({axis(30, 3, 1, 1, 1, 1), axis(31, 3, 1, 1, 1, 1), 18, 14, 1}, 5);
  check<TestType>({axis(30, 3, 2, 1, 1, 1), axis(31, 3, 2, 1, 1, 1), 40, 70, 1}, 2);
}

TEST_CASE("convolve: readings of random axes", "[backend]") {
  std::mt19937 random(3);
  const auto between = [&](std::size_t low, std::size_t high) { return low + random() % (high - low + 1); };
  for (int n = 0; n < 3000; ++n) {
    backend::ConvolutionAxis a{between(1, 9), between(1, 9), between(1, 5),
                               between(1, 5), between(1, 4), between(0, 6)};
    std::vector<std::vector<int>> meets(a.out, std::vector<int>(a.in * a.kernel));
    for (std::size_t o = 0; o < a.out; ++o)
      for (std::size_t t = 0; t < a.kernel; ++t)
        for (std::size_t i = 0; i < a.in; ++i)
          meets[o][i * a.kernel + t] = o * a.stride + t * a.dilation == i + a.before;
    const backend::Reading outputs = outputs_of(a);
    for (std::size_t o = 0; o < a.out; ++o)
      for (std::size_t t = 0; t < a.kernel; ++t) {
        const backend::Range taps = outputs.taps_at(o), at = outputs_at(a, t);
        const bool inside = t >= taps.begin && t < taps.end;
        REQUIRE(inside == (o >= at.begin && o < at.end));
        for (std::size_t i = 0; i < a.in; ++i)
          REQUIRE((inside && outputs.input(o, t) == i) == (meets[o][i * a.kernel + t] == 1));
      }
    for (std::size_t phase = 0; phase < std::min(a.stride, a.in); ++phase) {
      const backend::AdjointReading r = inputs_of(a, phase);
      for (std::size_t j = 0; j < r.reading.count; ++j) {
        const std::size_t i = r.reading.first + j * r.reading.every;
        std::vector<std::vector<int>> found(a.out, std::vector<int>(a.kernel));
        const backend::Range taps = r.reading.taps_at(j);
        for (std::size_t t = taps.begin; t < taps.end; ++t) found[r.reading.input(j, t)][r.tap(t)] = 1;
        for (std::size_t o = 0; o < a.out; ++o)
          for (std::size_t t = 0; t < a.kernel; ++t) REQUIRE(found[o][t] == meets[o][i * a.kernel + t]);
      }
    }
  }
}

namespace {

template <class C>
void check_pooling(backend::ConvolutionAxis rows, backend::ConvolutionAxis columns, std::size_t channels,
                   std::size_t batch, bool largest) {
  using T = typename C::Scalar;
  const backend::Convolution c{rows, columns, channels, channels, channels};
  INFO("rows " << rows.in << " to " << rows.out << " kernel " << rows.kernel << " stride " << rows.stride << " before "
               << rows.before << ", columns " << columns.in << " to " << columns.out << " kernel " << columns.kernel
               << " stride " << columns.stride << ", channels " << channels << " batch " << batch << " largest "
               << largest);
  Bench<C> bench;
  std::vector<T> x = bench.random(batch * c.in_features(), 1);
  for (T& v : x) v = std::round(v * 4) / 4;  // there are ties
  const std::vector<T> dy = bench.random(batch * c.out_features(), 2);
  Reals y(dy.size()), dx(x.size());
  for (std::size_t o = 0; o < y.size(); ++o) {
    const std::size_t s = o / c.out_features(), channel = o % channels, pixel = o % c.out_features() / channels;
    std::vector<std::size_t> window;
    for (std::size_t i = 0; i < rows.kernel; ++i)
      for (std::size_t j = 0; j < columns.kernel; ++j) {
        const auto row =
            static_cast<long>(pixel / columns.out * rows.stride + i * rows.dilation) - static_cast<long>(rows.before);
        const auto column = static_cast<long>(pixel % columns.out * columns.stride + j * columns.dilation) -
                            static_cast<long>(columns.before);
        if (row < 0 || column < 0 || row >= static_cast<long>(rows.in) || column >= static_cast<long>(columns.in))
          continue;
        window.push_back(s * c.in_features() +
                         (static_cast<std::size_t>(row) * columns.in + static_cast<std::size_t>(column)) * channels +
                         channel);
      }
    std::size_t best = window[0];
    for (const std::size_t i : window) {
      if (x[i] > x[best]) best = i;
      if (!largest) y[o] += Real(x[i]) / Real(window.size()), dx[i] += Real(dy[o]) / Real(window.size());
    }
    if (largest) y[o] = x[best], dx[best] += dy[o];
  }
  const auto in = bench.batch({batch, c.in_features()}, x), up = bench.batch({batch, c.out_features()}, dy);
  const auto out = bench.batch({batch, c.out_features()}), which = bench.batch({batch, c.out_features()});
  bench.compare(bench.repeated([&] {
    if (largest)
      bench.backend.max_pool(c, in.in(), out.panels(), which.panels());
    else
      bench.backend.mean_pool(c, in.in(), out.panels());
    return out.rows();
  }),
                y);
  bench.compare(bench.repeated([&] {
    const auto result = bench.batch({batch, c.in_features()});
    if (largest)
      bench.backend.max_pool_gradient(c, which.in(), up.in(), result.panels());
    else
      bench.backend.mean_pool_gradient(c, up.in(), result.panels());
    return result.rows();
  }),
                dx);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("pool: largest and mean, windows apart and shared", "[backend][conformance]", Cases) {
  for (const bool largest : {true, false})
    for (const std::size_t batch : {1, 5, 64, 70}) {
      check_pooling<TestType>(axis(6, 2, 2), axis(8, 2, 2), 3, batch, largest);
      check_pooling<TestType>(axis(7, 2, 2), axis(9, 3, 4), 18, batch, largest);
      check_pooling<TestType>(axis(7, 3, 2, 1, 1, 1), axis(9, 3, 1, 1, 1, 1), 5, batch, largest);
      check_pooling<TestType>(axis(7, 2, 3, 2), axis(9, 2, 1, 3), 2, batch, largest);
      check_pooling<TestType>(axis(5, 5), axis(4, 4), 35, batch, largest);
      check_pooling<TestType>(axis(5, 3, 3, 1, 1, 1), axis(4, 2, 2, 1, 1, 1), 4, batch, largest);
    }
  check_pooling<TestType>(axis(26, 2, 2), axis(26, 2, 2), 32, 70, true);
}

}  // namespace test_backend_convolutions
