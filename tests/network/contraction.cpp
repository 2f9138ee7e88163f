// Contractions: plans against every way there is, and their execution against dense matrices in double.
#include <tesla/backend/cpu/cpu.hpp>
#include <tesla/backend/reference/reference.hpp>
#include <tesla/core/memory.hpp>
#include <tesla/network/contraction/execute.hpp>
#include <tesla/network/tensor_train/matrix.hpp>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>
#include <vector>

namespace test_network_contraction {

using namespace tesla;
using namespace tesla::network;
using namespace tesla::network::contraction;

namespace {

/// The reference backend, as if its memory were out of the host's reach.
struct Far : backend::Reference {
  static constexpr const char* name = "far";
  static constexpr bool host_memory = false;
};

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  std::size_t between(std::size_t low, std::size_t high) { return low + engine_() % (high - low + 1); }
  double number() { return 2 * (static_cast<double>(engine_()) * 0x1p-32) - 1; }

  TensorTrainShape shape(std::size_t most_cores, std::size_t most_elements) {
    for (;;) {
      const std::size_t cores = between(1, most_cores);
      std::array<std::size_t, Shape::max_rank> in{}, out{}, ranks{};
      for (std::size_t k = 0; k < cores; ++k) in[k] = between(1, 7), out[k] = between(1, 7), ranks[k] = between(1, 6);
      const Shape i(std::span<const std::size_t>(in.data(), cores)), o(std::span<const std::size_t>(out.data(), cores));
      if (i.elements() * o.elements() > most_elements) continue;
      return clipped_shape(i, o, Shape(std::span<const std::size_t>(ranks.data(), cores - 1)));
    }
  }

 private:
  std::mt19937 engine_;
};

TensorTrainMatrix<double> random_train(const TensorTrainShape& shape, Random& random) {
  std::vector<Tensor<double>> cores;
  for (std::size_t k = 0; k < shape.size(); ++k) {
    cores.emplace_back(shape.core(k));
    for (double& v : cores.back()) v = random.number();
  }
  return TensorTrainMatrix<double>(std::move(cores));
}

/// One contraction with its operands, in memory of a backend, and what should come out, in double.
template <class T, class B>
class Problem {
 public:
  Problem(const TensorTrainShape& shape, std::size_t batch, unsigned seed) : shape_(shape), batch_(batch) {
    Random random(seed);
    train_ = random_train(shape, random);
    const std::size_t in = shape.in.elements(), out = shape.out.elements();
    x_.resize(batch * in), dy_.resize(batch * out), bias_.resize(out);
    for (auto* values : {&x_, &dy_, &bias_})
      for (double& v : *values) v = static_cast<double>(static_cast<float>(random.number()));
    const Tensor<double> w = train_.to_dense();
    y_.assign(batch * out, 0), dx_.assign(batch * in, 0);
    dw_ = Tensor<double>({out, in});
    for (std::size_t s = 0; s < batch; ++s)
      for (std::size_t o = 0; o < out; ++o) {
        y_[s * out + o] = bias_[o];
        for (std::size_t i = 0; i < in; ++i) {
          y_[s * out + o] += w[o * in + i] * x_[s * in + i];
          dx_[s * in + i] += w[o * in + i] * dy_[s * out + o];
          dw_[o * in + i] += dy_[s * out + o] * x_[s * in + i];
        }
      }
  }

  struct Result {
    std::vector<T> y, dx;
    std::vector<std::vector<T>> gradients;
    friend bool operator==(const Result&, const Result&) = default;
  };

  Result run(const Plan& plan) {
    const std::size_t in = shape_.in.elements(), out = shape_.out.elements(), lanes = plan.job.lanes;
    const bool training = plan.job.purpose == Purpose::train;
    const Execution<T, B> execution(plan);
    const MemoryNeed need = execution.memory();
    // Memory that is dirty, between canaries: nothing may lean on what stands there, nor write beside it.
    Guarded kept(b_, need.kept), scratch(b_, need.scratch);
    std::vector<Guarded> cores, gradients;
    std::vector<backend::Matrix<T>> core_matrices, gradient_matrices;
    for (std::size_t k = 0; k < shape_.size(); ++k) {
      const Shape core = shape_.core(k);
      const std::size_t columns = core[1] * core[2] * core[3], stride = backend::row_stride<T>(columns);
      std::vector<T> values(core[0] * stride);
      for (std::size_t r = 0; r < core[0]; ++r)
        for (std::size_t c = 0; c < columns; ++c)
          values[r * stride + c] = static_cast<T>(train_.core(k)[r * columns + c]);
      cores.emplace_back(b_, values);
      gradients.emplace_back(b_, core[0] * stride);
      core_matrices.push_back({cores.back().data(), core[0], columns, stride});
      gradient_matrices.push_back({gradients.back().data(), core[0], columns, stride});
    }
    Guarded x(b_, panels(x_, in, lanes)), dy(b_, panels(dy_, out, lanes)), y(b_, panels_size(out, lanes)),
        dx(b_, panels_size(in, lanes));
    std::vector<T> bias_values(bias_.begin(), bias_.end());
    Guarded bias(b_, bias_values);

    const Panels<const T> xs{x.data(), in, batch_, lanes};
    const Panels<T> ys{y.data(), out, batch_, lanes};
    execution.forward(b_, core_matrices, xs, ys, bias.data(), {}, kept.span(), scratch.span());
    Result result;
    result.y = rows(y.read(), out, lanes);
    if (training) {
      const Panels<const T> dys{dy.data(), out, batch_, lanes};
      const Panels<T> dxs{dx.data(), in, batch_, lanes};
      execution.backward(b_, core_matrices, gradient_matrices, xs, dys, dxs, kept.span(), scratch.span());
      result.dx = rows(dx.read(), in, lanes);
      for (std::size_t k = 0; k < gradients.size(); ++k) {
        const std::vector<T> all = gradients[k].read();
        const backend::Matrix<T>& m = core_matrices[k];
        auto& own = result.gradients.emplace_back();
        for (std::size_t r = 0; r < m.rows; ++r)
          own.insert(own.end(), all.begin() + static_cast<std::ptrdiff_t>(r * m.stride),
                     all.begin() + static_cast<std::ptrdiff_t>(r * m.stride + m.columns));
      }
    }
    kept.read(), scratch.read(), x.read(), dy.read(), bias.read();
    return result;
  }

  void check(const Result& result) const {
    close(result.y, y_);
    if (result.gradients.empty()) return;
    close(result.dx, dx_);
    // The gradient of each core in a few directions: W is linear in it.
    for (std::size_t k = 0; k < shape_.size(); ++k) {
      REQUIRE(result.gradients[k].size() == shape_.core(k).elements());
      double largest = 0;
      for (const T v : result.gradients[k]) largest = std::max(largest, std::abs(static_cast<double>(v)));
      for (unsigned direction = 0; direction < 3; ++direction) {
        Random random(100 + direction);
        std::vector<Tensor<double>> cores = train_.cores();
        double along = 0;
        for (std::size_t i = 0; i < cores[k].size(); ++i) {
          cores[k][i] = random.number();
          along += cores[k][i] * static_cast<double>(result.gradients[k][i]);
        }
        const Tensor<double> moved = TensorTrainMatrix<double>(std::move(cores)).to_dense();
        double expected = 0, size = 0;
        for (std::size_t i = 0; i < moved.size(); ++i)
          expected += moved[i] * dw_[i], size += std::abs(moved[i] * dw_[i]);
        CAPTURE(k, direction);
        REQUIRE(std::abs(along - expected) <= tolerance * (size + largest));
      }
    }
  }

 private:
  static constexpr double tolerance = 256 * static_cast<double>(std::numeric_limits<T>::epsilon());

  class Guarded {
   public:
    Guarded(B& backend, std::size_t size)
        : Guarded(backend, std::vector<T>(size, std::numeric_limits<T>::quiet_NaN())) {}
    Guarded(B& backend, const std::vector<T>& values)
        : backend_(&backend), size_(values.size()), memory_(backend, round_up(size_, 16) + 2 * guard) {
      std::vector<T> all(memory_.size(), canary);
      std::copy(values.begin(), values.end(), all.begin() + guard);
      // A layout may fill its last cache line.
      for (std::size_t i = size_; i < round_up(size_, 16); ++i) all[guard + i] = T(3e7);
      backend.write(memory_.data(), all.data(), all.size());
    }
    T* data() const { return memory_.data() + guard; }
    std::span<T> span() const { return {data(), size_}; }
    std::vector<T> read() const {
      std::vector<T> all(memory_.size());
      backend_->read(all.data(), memory_.data(), all.size());
      for (std::size_t i = 0; i < guard; ++i) {
        REQUIRE(all[i] == canary);
        REQUIRE(all[all.size() - 1 - i] == canary);
      }
      return {all.begin() + guard, all.begin() + static_cast<std::ptrdiff_t>(guard + size_)};
    }

   private:
    static constexpr std::size_t guard = 64;
    static constexpr T canary = T(-12345);
    B* backend_;
    std::size_t size_;
    backend::Memory<T, B> memory_;
  };

  std::size_t panels_size(std::size_t features, std::size_t lanes) const {
    return (batch_ + lanes - 1) / lanes * lanes * features;
  }
  /// Lanes without a sample hold something, as they do in a model.
  std::vector<T> panels(const std::vector<double>& values, std::size_t features, std::size_t lanes) const {
    std::vector<T> result(panels_size(features, lanes), T(7));
    const Panels<T> p{result.data(), features, batch_, lanes};
    for (std::size_t s = 0; s < batch_; ++s)
      for (std::size_t f = 0; f < features; ++f) p.at(s, f) = static_cast<T>(values[s * features + f]);
    return result;
  }
  std::vector<T> rows(std::vector<T> values, std::size_t features, std::size_t lanes) const {
    std::vector<T> result(batch_ * features);
    const Panels<T> p{values.data(), features, batch_, lanes};
    for (std::size_t s = 0; s < batch_; ++s)
      for (std::size_t f = 0; f < features; ++f) result[s * features + f] = p.at(s, f);
    return result;
  }
  static void close(const std::vector<T>& found, const std::vector<double>& expected) {
    REQUIRE(found.size() == expected.size());
    double largest = 1e-30;
    for (const double v : expected) largest = std::max(largest, std::abs(v));
    for (std::size_t i = 0; i < found.size(); ++i)
      if (!(std::abs(static_cast<double>(found[i]) - expected[i]) <= tolerance * largest))
        FAIL("value " << i << " of " << found.size() << ": " << found[i] << ", not " << expected[i]);
  }

  B b_;
  TensorTrainShape shape_;
  std::size_t batch_;
  TensorTrainMatrix<double> train_;
  std::vector<double> x_, dy_, bias_, y_, dx_;
  Tensor<double> dw_;
};

template <class T, class B>
std::vector<Plan> all_plans(const TensorTrainShape& shape, std::size_t batch, Purpose purpose, std::size_t most) {
  const Job job{shape, batch, B::template lanes<T>(batch), sizeof(T), purpose};
  const Abilities can = abilities_of<T, B>();
  std::vector<Plan> plans;
  for (const Candidate& c : candidates(job, can, most)) {
    plans.push_back({job, can.throughput, c, 0, {}});
    // The same steps nested in another way.
    if (!c.contraction.depth_first || job.lanes == 1) continue;
    Candidate other = c;
    const std::size_t out = c.contraction.step[0].out;
    other.contraction.chunk = c.contraction.chunk == out ? 1 : out;
    other.contraction.strip = backend::cpu::width<T>;
    for (bool& stored : other.contraction.stored) stored = !stored;
    plans.push_back({job, can.throughput, other, 0, {}});
  }
  return plans;
}

template <class T, class B>
struct On {
  using Scalar = T;
  using Backend = B;
};

struct ThreadsAsBefore {
  ~ThreadsAsBefore() { set_threads(0); }
};

/// Every sequence of steps, by trying.
void every_sequence(const Job& job, const Throughput& t, std::size_t begin, std::size_t end, bool right, bool left,
                    double cycles, double& best, std::size_t& count) {
  const auto step = [&](std::size_t first, std::size_t last, bool from_right) {
    return step_cycles(t, job, contraction::detail::step_of(job.shape, {first, last, from_right}, begin, end));
  };
  best = std::min(best, cycles + step(begin, end, end == job.shape.size()));
  ++count;
  for (std::size_t m = begin + 1; m < end; ++m) {
    if (right) every_sequence(job, t, begin, m, right, left, cycles + step(m, end, true), best, count);
    if (left) every_sequence(job, t, m, end, right, left, cycles + step(begin, m, false), best, count);
  }
}

}  // namespace

TEST_CASE("planner: the best sum of steps, as found by trying all", "[network][contraction]") {
  Random random(1);
  const Throughput t = backend::Cpu::throughput<float>();
  for (int round = 0; round < 60; ++round) {
    const TensorTrainShape shape = random.shape(6, 1 << 20);
    for (const std::size_t batch : {1, 20, 128})
      for (const Purpose purpose : {Purpose::predict, Purpose::train})
        for (const contraction::detail::Ends ends :
             {contraction::detail::Ends{true, false, false}, contraction::detail::Ends{false, true, false},
              contraction::detail::Ends{true, true, true}}) {
          const Job job{shape, batch, backend::Cpu::lanes<float>(batch), 4, purpose};
          double best = std::numeric_limits<double>::infinity();
          std::size_t count = 0;
          every_sequence(job, t, 0, shape.size(), ends.right, ends.left, 0, best, count);
          const auto found = contraction::detail::Search(job, t, ends, 4).run();
          CAPTURE(shape.in, shape.out, shape.ranks, batch);
          REQUIRE(found.front().cycles == Approx(best).epsilon(1e-12));
          REQUIRE(found.size() == std::min<std::size_t>(count, 4));
          for (std::size_t k = 1; k < found.size(); ++k) REQUIRE(found[k - 1].cycles <= found[k].cycles);
        }
  }
}

TEST_CASE("planner: known shapes", "[network][contraction]") {
  const auto order = [](const Shape& in, const Shape& out, const Shape& ranks, std::size_t batch) {
    const TensorTrainShape shape = clipped_shape(in, out, ranks);
    const Plan& plan = plan_for<float, backend::Cpu>(shape, batch, Purpose::train);
    REQUIRE(&plan == &plan_for<float, backend::Cpu>(shape, batch, Purpose::train));
    return contraction::detail::order_text(plan.contraction());
  };
  // By FLOPs, and measured, the best of all: neighbours merged in pairs, from either end.
  const std::set<std::string> pairs{"(3 4) (1 2)", "(1 2) (3 4)"};
  REQUIRE(pairs.count(order({4, 8, 8, 4}, {4, 8, 8, 4}, {8, 8, 8}, 128)) == 1);
  REQUIRE(pairs.count(order({4, 7, 4, 7}, {4, 8, 4, 8}, {8, 8, 8}, 128)) == 1);
  REQUIRE(order({2, 7, 8, 8, 7, 4}, {4, 4, 4, 4, 4, 4}, {4, 4, 4, 4, 4}, 96) == "(5 6) (4) (3) (1 2)");
  const std::set<std::string> one_by_one{"(3) (2) (1)", "(1) (2) (3)"};
  REQUIRE(one_by_one.count(order({16, 16, 16}, {16, 16, 16}, {8, 8}, 128)) == 1);
  // With ranks as large as they can be nothing is saved, and the matrix itself is the best.
  REQUIRE(order({8, 8}, {8, 8}, {64}, 256) == "(1 2)");
}

TEST_CASE("plans in words", "[network][contraction]") {
  const TensorTrainShape shape = clipped_shape({4, 8, 8, 4}, {4, 8, 8, 4}, {8, 8, 8});
  const std::string said = plan_text(plan_for<float, backend::Cpu>(shape, 128, Purpose::train), {1000, 250000});
  INFO(said);
  for (const char* part : {"training at batch 128", "merged", "134 MFLOP", "dense 268 MFLOP", "kept 4 kB",
                           "scratch 1 MB", "times as fast as dense", "rejected: "})
    REQUIRE(said.find(part) != std::string::npos);
}

TEMPLATE_TEST_CASE("contraction: every candidate agrees with the dense matrix", "[network][contraction]",
                   (On<double, backend::Reference>), (On<double, Far>), (On<double, backend::Cpu>),
                   (On<float, backend::Cpu>)) {
  using T = typename TestType::Scalar;
  using B = typename TestType::Backend;
  Random random(2);
  const bool fast = std::is_same_v<B, backend::Cpu>;
  for (int round = 0; round < (fast ? 60 : 15); ++round) {
    const TensorTrainShape shape = random.shape(6, 3000);
    const std::size_t batch = round % 4 == 0 ? 1 : round % 4 == 1 ? random.between(2, 20) : random.between(21, 200);
    Problem<T, B> problem(shape, batch, static_cast<unsigned>(round));
    for (const Purpose purpose : {Purpose::predict, Purpose::train})
      for (const Plan& plan : all_plans<T, B>(shape, batch, purpose, 12)) {
        INFO("round " << round << ", in " << shape.in << ", out " << shape.out << ", ranks " << shape.ranks
                      << ", batch " << batch << ": " << plan_text(plan, {}));
        problem.check(problem.run(plan));
      }
  }
}

TEMPLATE_TEST_CASE("contraction: the same bits at any number of threads", "[network][contraction]", float, double) {
  const ThreadsAsBefore threads;
  for (const std::size_t batch : {1, 7, 64, 100, 200})
    for (const TensorTrainShape& shape :
         {clipped_shape({4, 8, 8, 4}, {4, 8, 8, 4}, {8, 8, 8}), clipped_shape({7, 5, 6}, {6, 9, 4}, {5, 4}),
          clipped_shape({30, 20}, {20, 30}, {20}), clipped_shape({9, 9}, {9, 9}, {81})}) {
      Problem<TestType, backend::Cpu> problem(shape, batch, 5);
      for (const Plan& plan : all_plans<TestType, backend::Cpu>(shape, batch, Purpose::train, 2)) {
        set_threads(1);
        const auto first = problem.run(plan);
        for (const int count : {1, 2, 4}) {
          set_threads(count);
          CAPTURE(batch, count);
          REQUIRE(problem.run(plan) == first);
        }
      }
    }
}

TEST_CASE("merging: products of cores, and gradients handed back", "[network][contraction]") {
  Random random(3);
  for (int round = 0; round < 40; ++round) {
    const TensorTrainShape shape = random.shape(5, 2000);
    const std::size_t first = random.between(0, shape.size() - 1), last = random.between(first + 1, shape.size());
    const TensorTrainMatrix<double> train = random_train(shape, random);
    std::vector<std::vector<double>> padded, gradients;
    std::vector<backend::Matrix<double>> cores, to;
    for (std::size_t k = 0; k < shape.size(); ++k) {
      const Shape core = shape.core(k);
      const std::size_t columns = core[1] * core[2] * core[3], stride = columns + 3;
      padded.emplace_back(core[0] * stride, -1e9), gradients.emplace_back(core[0] * stride, -1e9);
      for (std::size_t r = 0; r < core[0]; ++r)
        for (std::size_t c = 0; c < columns; ++c) padded.back()[r * stride + c] = train.core(k)[r * columns + c];
      cores.push_back({padded.back().data(), core[0], columns, stride});
      to.push_back({gradients.back().data(), core[0], columns, stride});
    }
    // The merged core by indices: a matrix product for each pair of modes.
    std::size_t out = 1, in = 1;
    for (std::size_t k = first; k < last; ++k) out *= shape.out[k], in *= shape.in[k];
    const std::size_t left = shape.rank(first), right = shape.rank(last);
    const auto merged = [&](const std::vector<Tensor<double>>& c, std::size_t l, std::size_t o, std::size_t i,
                            std::size_t r) {
      std::vector<double> row(left, 0.0);
      row[l] = 1;
      std::size_t os = out, is = in;
      for (std::size_t k = first; k < last; ++k) {
        os /= shape.out[k], is /= shape.in[k];
        const Shape s = shape.core(k);
        std::vector<double> next(s[3], 0.0);
        for (std::size_t a = 0; a < s[0]; ++a)
          for (std::size_t b = 0; b < s[3]; ++b)
            next[b] += row[a] * c[k][((a * s[1] + o / os % s[1]) * s[2] + i / is % s[2]) * s[3] + b];
        row = next;
      }
      return row[r];
    };
    // One of the layouts that kernels ask for: some order of the indices, outputs perhaps in chunks.
    std::array<std::size_t, 4> order{0, 1, 2, 3};
    for (std::size_t k = 3; k > 0; --k) std::swap(order[k], order[random.between(0, k)]);
    const std::array<std::size_t, 4> extents{left, out, in, right};
    std::array<std::size_t, 4> strides{};
    std::size_t size = 1;
    for (const std::size_t axis : order) strides[axis] = size, size *= extents[axis];
    const CoreLayout layout{strides[0], out, 0, strides[1], strides[2], strides[3]};

    const Merger<double> merger(shape, cores, [](const backend::Product<double>& p) { backend::Cpu().multiply(p); });
    std::vector<double> scratch(std::max(merger.merge_scratch(first, last), merger.unmerge_scratch(first, last)) + 1,
                                1e9);
    scratch.back() = 5;
    std::vector<double> result(size, 1e9);
    merger.merge(first, last, layout, result.data(), scratch.data());
    std::vector<double> gradient(size);
    for (double& v : gradient) v = random.number();
    for (std::size_t l = 0; l < left; ++l)
      for (std::size_t o = 0; o < out; ++o)
        for (std::size_t i = 0; i < in; ++i)
          for (std::size_t r = 0; r < right; ++r)
            REQUIRE(result[layout.at(l, o, i, r)] == Approx(merged(train.cores(), l, o, i, r)).margin(1e-12));
    merger.unmerge(first, last, layout, gradient.data(), to, scratch.data());
    REQUIRE(scratch.back() == 5);
    for (std::size_t k = first; k < last; ++k) {
      std::vector<Tensor<double>> moved = train.cores();
      double along = 0, expected = 0;
      const Shape core = shape.core(k);
      const std::size_t columns = core[1] * core[2] * core[3];
      for (std::size_t i = 0; i < moved[k].size(); ++i) {
        moved[k][i] = random.number();
        along += moved[k][i] * gradients[k][i / columns * to[k].stride + i % columns];
      }
      for (std::size_t l = 0; l < left; ++l)
        for (std::size_t o = 0; o < out; ++o)
          for (std::size_t i = 0; i < in; ++i)
            for (std::size_t r = 0; r < right; ++r)
              expected += gradient[layout.at(l, o, i, r)] * merged(moved, l, o, i, r);
      REQUIRE(along == Approx(expected).margin(1e-10));
    }
  }
}

}  // namespace test_network_contraction
