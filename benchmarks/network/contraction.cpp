// Tensor-train products against the dense product of the same size, and plans against what they promise.
//
//   network_contraction                 the shapes of docs/performance.md: share of the peak, and times dense
//   network_contraction --sweep [N]     N random shapes (200): is the layer ever slower than dense, and is the plan's
//                                       choice the best of the candidates?
//
// Everything that is compared is timed in turns, and the median of the turns counts.
#include <tesla/backend/cpu/cpu.hpp>
#include <tesla/core/random.hpp>
#include <tesla/layer/dense.hpp>
#include <tesla/network/contraction/execute.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <measure.hpp>
#include <memory>
#include <one_layer.hpp>
#include <string>
#include <vector>

namespace {

using namespace tesla;
using namespace tesla::network;
using namespace tesla::network::contraction;
using backend::Cpu;

Buffer<float> numbers(std::size_t n, double scale, std::uint64_t seed) {
  Buffer<float> result(n);
  const random::Stream random(seed, 0);
  for (std::size_t i = 0; i < n; ++i) result[i] = static_cast<float>(scale * random.normal(i));
  return result;
}

/// One plan with its operands.
class Train {
 public:
  explicit Train(const Plan& plan) : plan_(plan), execution_(plan_) {
    const TensorTrainShape& shape = plan_.job.shape;
    for (std::size_t k = 0; k < shape.size(); ++k) {
      const Shape core = shape.core(k);
      const std::size_t columns = core[1] * core[2] * core[3], stride = backend::row_stride<float>(columns);
      values_.push_back(numbers(core[0] * stride, 0.1, k));
      gradients_.emplace_back(core[0] * stride);
      cores_.push_back({values_.back().data(), core[0], columns, stride});
      core_gradients_.push_back({gradients_.back().data(), core[0], columns, stride});
    }
    const std::size_t padded = round_up(plan_.job.batch, plan_.job.lanes);
    x_ = numbers(padded * shape.in.elements(), 1, 1), dy_ = numbers(padded * shape.out.elements(), 1, 2);
    y_ = Buffer<float>(dy_.size()), dx_ = Buffer<float>(x_.size());
    const MemoryNeed need = execution_.memory();
    kept_ = Buffer<float>(need.kept), scratch_ = Buffer<float>(need.scratch);
  }
  Train(const Train&) = delete;

  void run() {
    const TensorTrainShape& shape = plan_.job.shape;
    const std::size_t batch = plan_.job.batch, lanes = plan_.job.lanes;
    const Panels<const float> x{x_.data(), shape.in.elements(), batch, lanes},
        dy{dy_.data(), shape.out.elements(), batch, lanes};
    execution_.forward(cpu_, cores_, x, {y_.data(), dy.features, batch, lanes}, nullptr, {}, span(kept_),
                       span(scratch_), {1, plan_.job.purpose == Purpose::predict ? 1u : next_stamp()});
    if (plan_.job.purpose == Purpose::train)
      execution_.backward(cpu_, cores_, core_gradients_, x, dy, {dx_.data(), x.features, batch, lanes}, span(kept_),
                          span(scratch_));
  }

 private:
  static std::span<float> span(Buffer<float>& b) { return {b.data(), b.size()}; }

  Plan plan_;
  Execution<float, Cpu> execution_;
  Cpu cpu_;
  std::vector<Buffer<float>> values_, gradients_;
  std::vector<backend::Matrix<float>> cores_, core_gradients_;
  Buffer<float> x_, dy_, y_, dx_, kept_, scratch_;
};

Job job_of(const TensorTrainShape& shape, std::size_t batch, Purpose purpose) {
  return {shape, batch, Cpu::lanes<float>(batch), sizeof(float), purpose};
}

void known_shapes() {
  struct Row {
    Shape in, out;
    std::size_t rank, batch;
  };
  const Row rows[] = {{{4, 8, 8, 4}, {4, 8, 8, 4}, 8, 128},
                      {{4, 8, 8, 4}, {4, 8, 8, 4}, 4, 128},
                      {{4, 7, 4, 7}, {4, 8, 4, 8}, 8, 128},
                      {{8, 8, 8, 8}, {8, 8, 8, 8}, 8, 128},
                      {{2, 7, 8, 8, 7, 4}, {4, 4, 4, 4, 4, 4}, 4, 96},
                      {{2, 7, 8, 8, 7, 4}, {4, 4, 4, 4, 4, 4}, 4, 1},
                      {{16, 16, 16}, {16, 16, 16}, 8, 128}};
  std::printf("%-44s %-8s %-8s %-22s %10s %10s %8s %8s\n", "modes, rank, batch", "pass", "threads", "order", "us",
              "dense us", "times", "of peak");
  for (const Row& row : rows)
    for (const Purpose purpose : {Purpose::predict, Purpose::train})
      for (const int count : {1, 2}) {
        set_threads(count);
        std::array<std::size_t, Shape::max_rank> ranks;
        ranks.fill(row.rank);
        const TensorTrainShape shape =
            clipped_shape(row.in, row.out, Shape(std::span<const std::size_t>(ranks.data(), row.in.rank() - 1)));
        const Plan plan = make_plan(job_of(shape, row.batch, purpose), abilities_of<float, Cpu>());
        Train train(plan);
        const bool training = purpose == Purpose::train;
        OneLayer dense(layer::Dense({.units = shape.out.elements(), .use_bias = false}), shape.in.elements(), row.batch,
                       training ? OneLayer::both : OneLayer::forward);
        const double rate = peak();
        const std::vector<double> times = timed({[&] { train.run(); }, [&] { dense.run(); }}, 0.03, 7);
        const double products =
            plan.contraction().multiply_adds() * static_cast<double>(row.batch) * (training ? 3 : 1);
        const std::string name = text(row.in, " to ", row.out, ", ", row.rank, ", ", row.batch);
        std::printf("%-44s %-8s %-8d %-22s %10.1f %10.1f %8.2f %8.2f\n", name.c_str(), training ? "both" : "forward",
                    count, contraction::detail::order_text(plan.contraction()).c_str(), times[0] * 1e6, times[1] * 1e6,
                    times[1] / times[0], products / times[0] / rate / count);
        std::fflush(stdout);
      }
}

void sweep(std::size_t count) {
  const random::Stream random(11, 3);
  std::uint64_t drawn = 0;
  const auto between = [&](std::size_t low, std::size_t high) {
    return low + static_cast<std::size_t>(random.uniform(drawn++) * static_cast<double>(high - low + 1));
  };
  const std::size_t batches[] = {1, 4, 16, 32, 64, 100, 128, 256};
  std::vector<double> against_dense, against_best, against_promise;
  std::printf("%-56s %-8s %-24s %10s %8s %8s %8s\n", "modes, ranks, batch", "pass", "order", "us", "promised", "times",
              "of best");
  while (against_dense.size() < count) {
    const std::size_t cores = between(2, 5);
    std::array<std::size_t, Shape::max_rank> in{}, out{}, ranks{};
    for (std::size_t k = 0; k < cores; ++k)
      in[k] = between(2, 16), out[k] = between(2, 16), ranks[k] = std::size_t{1} << between(0, 5);
    const auto shape_of = [&](const auto& a, std::size_t n) {
      return Shape(std::span<const std::size_t>(a.data(), n));
    };
    const Shape i = shape_of(in, cores), o = shape_of(out, cores);
    const TensorTrainShape shape = clipped_shape(i, o, shape_of(ranks, cores - 1));
    const std::size_t dense_size = i.elements() * o.elements(), batch = batches[between(0, 7)];
    const bool wanted = i.elements() >= 256 && o.elements() >= 256 && dense_size <= std::size_t{1} << 23;
    if (!wanted || 4 * shape.count_parameters() > dense_size) continue;  // who takes a train wants to save something
    const Purpose purpose = between(0, 1) == 0 ? Purpose::predict : Purpose::train;
    const Job job = job_of(shape, batch, purpose);
    const Abilities can = abilities_of<float, Cpu>();
    const std::vector<Candidate> all = candidates(job, can, 5);
    std::vector<std::unique_ptr<Train>> trains;
    std::vector<std::function<void()>> calls;
    const double dense_cycles = contraction::dense_cycles(can.throughput, job);
    for (const Candidate& c : all) {
      if (c.cycles > 1.5 * all[0].cycles) break;  // far from a choice
      trains.push_back(std::make_unique<Train>(Plan{job, can.throughput, c, dense_cycles, {}}));
      calls.push_back([train = trains.back().get()] { train->run(); });
    }
    OneLayer dense(layer::Dense({.units = o.elements(), .use_bias = false}), i.elements(), batch,
                   purpose == Purpose::train ? OneLayer::both : OneLayer::forward);
    calls.push_back([&] { dense.run(); });
    const std::vector<double> times = timed(calls, 0.004, 7);
    const double best = *std::min_element(times.begin(), times.end() - 1);
    against_dense.push_back(times.back() / times[0]), against_best.push_back(best / times[0]);
    against_promise.push_back(dense_cycles / all[0].cycles / against_dense.back());
    const std::string name = text(i, " to ", o, ", ", shape.ranks, ", ", batch);
    std::printf(
        "%-56s %-8s %-24s %10.1f %8.2f %8.2f %8.2f%s", name.c_str(), purpose == Purpose::train ? "both" : "forward",
        contraction::detail::order_text(all[0].contraction).c_str(), times[0] * 1e6, dense_cycles / all[0].cycles,
        against_dense.back(), against_best.back(), against_dense.back() < 0.95 ? "  slower than dense" : "");
    if (against_best.back() < 0.9) {
      const std::size_t at = static_cast<std::size_t>(std::min_element(times.begin(), times.end() - 1) - times.begin());
      const Contraction& c = all[at].contraction;
      std::printf("  better: %s chunk %zu strip %zu, not chunk %zu strip %zu",
                  contraction::detail::order_text(c).c_str(), c.chunk, c.strip, all[0].contraction.chunk,
                  all[0].contraction.strip);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  const auto share = [&](const std::vector<double>& values, double least) {
    return static_cast<double>(std::count_if(values.begin(), values.end(), [&](double v) { return v >= least; })) /
           static_cast<double>(values.size());
  };
  std::printf("%zu shapes: times dense, least %.2f, median %.2f; at least 0.95 in %.3f of them\n", against_dense.size(),
              *std::min_element(against_dense.begin(), against_dense.end()), median(against_dense),
              share(against_dense, 0.95));
  std::printf(
      "the plan's choice is within 10 %% of the best candidate in %.3f of them; promised over measured, median %.2f\n",
      share(against_best, 0.9), median(against_promise));
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1 && std::strcmp(arguments[1], "--sweep") == 0)
    sweep(count > 2 ? std::strtoul(arguments[2], nullptr, 10) : 200);
  else
    known_shapes();
}
