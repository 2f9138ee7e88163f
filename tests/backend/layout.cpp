#include "conformance.hpp"

namespace test_backend_layout {

using namespace conformance;

namespace {

/// Memory with the strides of an array of samples of shape {height, width}, and the values by (sample, feature).
template <class S>
struct Source {
  std::vector<S> memory;
  ArrayView view;
  std::vector<S> rows;

  Source(std::size_t samples, std::size_t height, std::size_t width, ArrayView::Strides strides, bool flat) {
    const auto s0 = static_cast<std::size_t>(strides[0]), s1 = static_cast<std::size_t>(strides[1]),
               s2 = static_cast<std::size_t>(strides[2]);
    memory.assign((samples - 1) * s0 + (height - 1) * s1 + (width - 1) * s2 + 1, S(99));
    std::mt19937 random(static_cast<unsigned>(samples + width));
    const double low = std::is_signed_v<S> ? -100 : 0, step = std::is_floating_point_v<S> ? 0.25 : 1;
    for (std::size_t s = 0; s < samples; ++s)
      for (std::size_t h = 0; h < height; ++h)
        for (std::size_t w = 0; w < width; ++w) {
          const S value = static_cast<S>(low + step * static_cast<double>(random() % 120));
          memory[s * s0 + h * s1 + w * s2] = value;
          rows.push_back(value);
        }
    view = flat ? ArrayView(memory.data(), {samples, width}, {strides[0], strides[2]})
                : ArrayView(memory.data(), {samples, height, width}, strides);
  }
};

/// Gathers with and without an order and a copy, and compares with the rows.
template <class C, class S>
void check_gather(Bench<C>& bench, const Source<S>& source, std::size_t first, std::size_t count) {
  using T = typename C::Scalar;
  const std::size_t samples = source.view.samples(), features = source.view.features();
  std::vector<std::uint32_t> order(samples);
  for (std::size_t i = 0; i < samples; ++i) order[i] = static_cast<std::uint32_t>((i * 7 + 3) % samples);
  for (const bool ordered : {false, true})
    for (const bool copied : {false, true}) {
      INFO("count " << count << " features " << features << " ordered " << ordered << " copied " << copied);
      const backend::Rows rows{&source.view, ordered ? order.data() : nullptr, first, count};
      std::vector<T> expected;
      for (std::size_t i = 0; i < count; ++i)
        for (std::size_t f = 0; f < features; ++f) {
          const std::size_t sample = ordered ? order[first + i] : first + i;
          expected.push_back(static_cast<T>(source.rows[sample * features + f]));
        }
      const auto result = bench.repeated([&] {
        const auto out = bench.batch({count, features});
        const auto copy = bench.table(count, features);
        bench.backend.gather(rows, out.panels(), copied ? copy.matrix() : backend::Matrix<T>());
        REQUIRE(copy.values() == (copied ? expected : std::vector<T>(expected.size())));
        return out.rows();
      });
      REQUIRE(result == expected);
    }
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("gather: all element types in all kinds of arrays", "[backend][conformance]", Cases) {
  Bench<TestType> bench;
  const auto check_type = [&]<class S>(S) {
    const std::ptrdiff_t samples = 90, h = 3, w = 5;
    const auto check = [&](ArrayView::Strides strides, std::size_t height, bool flat) {
      const Source<S> source(samples, height, w, strides, flat);
      for (const std::size_t count : {1, 7, 16, 65}) check_gather(bench, source, 11, count);
    };
    check({w, w, 1}, 1, true);             // row-major
    check({w + 4, w, 1}, 1, true);         // with gaps between rows
    check({1, 1, samples}, 1, true);       // column-major
    check({3 * w, w, 3}, 1, true);         // every third value
    check({h * w, w, 1}, h, false);        // samples with two extents
    check({w, samples * w, 1}, h, false);  // extents in another order
    check({1, samples * w, samples}, h, false);
  };
  check_type(float());
  check_type(double());
  check_type(std::int8_t());
  check_type(std::int16_t());
  check_type(std::int32_t());
  check_type(std::int64_t());
  check_type(std::uint8_t());
  check_type(std::uint16_t());
  check_type(std::uint32_t());
  check_type(std::uint64_t());
}

TEMPLATE_LIST_TEST_CASE("gather: all batches, features beyond the blocks of a port", "[backend][conformance]", Cases) {
  Bench<TestType> bench;
  const auto check_type = [&]<class S>(S) {
    for (const std::size_t count : batches)
      for (const std::size_t features : {1, 16, 63, 64, 65, 130}) {
        const auto n = static_cast<std::ptrdiff_t>(features);
        check_gather(bench, Source<S>(count, 1, features, {n, n, 1}, true), 0, count);
      }
    check_gather(bench, Source<S>(250, 1, 784, {784, 784, 1}, true), 20, 200);
  };
  check_type(float());
  check_type(double());
  check_type(std::uint8_t());
}

TEMPLATE_LIST_TEST_CASE("gather: an array of one extent has one feature", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  const std::vector<T> values = bench.random(20, 1);
  const ArrayView view(values);
  const auto out = bench.batch({17, 1});
  bench.backend.gather(backend::Rows{&view, nullptr, 2, 17}, out.panels(), backend::Matrix<T>());
  CHECK(out.rows() == std::vector<T>(values.begin() + 2, values.begin() + 19));
}

TEMPLATE_LIST_TEST_CASE("scatter and transpose: panels become rows", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  for (const Size& size : sizes()) {
    const std::size_t batch = size.batch, features = size.features;
    INFO("batch " << batch << " features " << features);
    const std::vector<T> values = bench.random(batch * features, 2);
    const auto in = bench.batch({batch, features}, values);
    const auto scattered = bench.repeated([&] {
      std::vector<T> rows(batch * features + 8, T(-5));
      bench.backend.scatter(in.in(), rows.data());
      return rows;
    });
    REQUIRE(std::equal(values.begin(), values.end(), scattered.begin()));
    REQUIRE(std::all_of(scattered.end() - 8, scattered.end(), [](T value) { return value == T(-5); }));
    const auto transposed = bench.repeated([&] {
      const auto out = bench.table(batch, features);
      bench.backend.transpose(in.in(), out.matrix());
      return out.values();
    });
    REQUIRE(transposed == values);
  }
}

TEMPLATE_LIST_TEST_CASE("memory: zero at first, written, read and filled", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  Bench<TestType> bench;
  for (const std::size_t n : {0, 1, 17, 1000}) {
    backend::Memory<T, typename TestType::Backend> memory(bench.backend, n);
    std::vector<T> host(n, T(3));
    bench.backend.read(host.data(), memory.data(), n);
    CHECK(host == std::vector<T>(n));
    const std::vector<T> values = bench.random(n, 3);
    bench.backend.write(memory.data(), values.data(), n);
    bench.backend.read(host.data(), memory.data(), n);
    CHECK(host == values);
    bench.backend.fill(memory.data(), n, T(2.5));
    bench.backend.read(host.data(), memory.data(), n);
    CHECK(host == std::vector<T>(n, T(2.5)));
  }
}

TEMPLATE_LIST_TEST_CASE("lanes: room for every sample", "[backend][conformance]", Cases) {
  using T = typename TestType::Scalar;
  for (std::size_t batch = 0; batch < 300; ++batch) {
    const std::size_t lanes = TestType::Backend::template lanes<T>(batch);
    REQUIRE(lanes >= 1);
    const Panels<T> panels{nullptr, 3, batch, lanes};
    REQUIRE(panels.panels() * lanes >= batch);
    if (batch != 0) REQUIRE(panels.live(panels.panels() - 1) >= 1);
  }
}

}  // namespace test_backend_layout
