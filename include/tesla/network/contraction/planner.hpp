// The planner: weighs every way to bracket a chain of cores and a batch.
//
// An exact dynamic program over intervals of cores that are still to come: the next step takes some of them, merged
// into one matrix, from the right end or from the left. Its cost is the sum over the steps. The few best sequences
// then compete with what only shows as a whole: whether the state stays in the cache, and what is stored for backward.
#pragma once

#include <tesla/network/contraction/plan.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

namespace tesla::inline TESLA_TARGET::network::contraction {

namespace detail {

/// Cores first, ..., last - 1, taken from the right end of those that are left, or from the left one.
struct Taken {
  std::size_t first, last;
  bool from_right;
};

struct Sequence {
  std::vector<Taken> steps;
  double cycles = 0;
};

inline std::size_t product_of(const Shape& modes, std::size_t begin, std::size_t end) {
  std::size_t product = 1;
  for (std::size_t k = begin; k < end; ++k) product *= modes[k];
  return product;
}

/// The step that takes `t` when the cores begin, ..., end - 1 are left.
[[gnu::cold]] inline ContractionStep step_of(const TensorTrainShape& shape, const Taken& t, std::size_t begin,
                                             std::size_t end) {
  const std::size_t cores = shape.size();
  ContractionStep s;
  s.first = t.first, s.last = t.last, s.from_right = t.from_right;
  s.left = shape.rank(t.first), s.right = shape.rank(t.last);
  s.in = product_of(shape.in, t.first, t.last), s.out = product_of(shape.out, t.first, t.last);
  s.in_stride = product_of(shape.in, t.last, cores), s.out_stride = product_of(shape.out, t.last, cores);
  const std::size_t outer = product_of(shape.out, 0, begin), columns = product_of(shape.out, end, cores);
  if (t.first == begin && t.last == end) {
    s.outer = outer, s.columns = columns;
    s.rows = s.out, s.depth = s.left * s.in * s.right;
  } else if (t.from_right) {
    s.outer = outer * shape.rank(begin) * product_of(shape.in, begin, t.first), s.columns = columns;
    s.rows = s.left * s.out, s.depth = s.in * s.right;
  } else {
    s.outer = outer, s.columns = product_of(shape.in, t.last, end) * shape.rank(end) * columns;
    s.rows = s.out * s.right, s.depth = s.left * s.in;
  }
  return s;
}

/// Sorts by cost, equals as they are, and drops all but `most`.
template <class X>
[[gnu::cold]] void keep_best(std::vector<X>& all, std::size_t most) {
  for (std::size_t n = 1; n < all.size(); ++n)
    for (std::size_t k = n; k > 0 && all[k].cycles < all[k - 1].cycles; --k) std::swap(all[k], all[k - 1]);
  if (all.size() > most) all.erase(all.begin() + static_cast<std::ptrdiff_t>(most), all.end());
}

/// Which ends steps may come from.
struct Ends {
  bool right, left, both;  // both: in any order
};

/// The best few sequences, by the sum of step_cycles.
class Search {
 public:
  Search(const Job& job, const Throughput& t, Ends ends, std::size_t most)
      : job_(job), throughput_(t), ends_(ends), most_(most), known_((job.shape.size() + 1) * (job.shape.size() + 1)) {}

  std::vector<Sequence> run() { return best(0, job_.shape.size()); }

 private:
  [[gnu::cold]] const std::vector<Sequence>& best(std::size_t begin, std::size_t end) {
    std::vector<Sequence>& result = known_[begin * (job_.shape.size() + 1) + end];
    if (!result.empty()) return result;
    std::vector<Sequence> found;
    const auto take = [&](const Taken& t, const std::vector<Sequence>& rest) {
      const double cycles = step_cycles(throughput_, job_, step_of(job_.shape, t, begin, end));
      for (const Sequence& other : rest) {
        Sequence s{{t}, cycles + other.cycles};
        s.steps.insert(s.steps.end(), other.steps.begin(), other.steps.end());
        found.push_back(std::move(s));
      }
    };
    static const std::vector<Sequence> nothing_left(1);
    const std::size_t cores = job_.shape.size();
    take({begin, end, end == cores}, nothing_left);
    if (ends_.right && (ends_.both || begin == 0))
      for (std::size_t m = begin + 1; m < end; ++m) take({m, end, true}, best(begin, m));
    if (ends_.left && (ends_.both || end == cores))
      for (std::size_t m = begin + 1; m < end; ++m) take({begin, m, false}, best(m, end));
    keep_best(found, most_);
    result = std::move(found);
    return result;
  }

  const Job& job_;
  const Throughput& throughput_;
  Ends ends_;
  std::size_t most_;
  std::vector<std::vector<Sequence>> known_;  // by begin and end
};

[[gnu::cold]] inline Contraction contraction_of(const TensorTrainShape& shape, const Sequence& sequence) {
  Contraction c;
  c.features_in = shape.in.elements(), c.features_out = shape.out.elements();
  std::size_t begin = 0, end = shape.size();
  for (Taken t : sequence.steps) {
    if (sequence.steps.size() > 1 && t.first == begin && t.last == end) t.from_right = sequence.steps[0].from_right;
    c.step[c.steps++] = step_of(shape, t, begin, end);
    (t.from_right ? end : begin) = t.from_right ? t.first : t.last;
  }
  return c;
}

/// The best way to nest the steps.
[[gnu::cold]] inline Candidate nested(const Throughput& t, const Job& job, Contraction c) {
  c.depth_first = true;
  Candidate best{c, std::numeric_limits<double>::infinity()};
  const std::size_t widest = std::min(job.lanes, round_up(job.batch, t.width));
  const std::size_t masks = job.purpose == Purpose::train ? std::size_t{1} << (c.steps - 1) : 1;
  const auto consider = [&] {
    // Predictions are shared out by strips and chunks: two threads should find as much to do as each other. (The
    // backward pass, most of training, has its own parts.)
    const std::size_t samples = round_up(job.batch, t.width), chunks = c.step[0].out / c.chunk,
                      whole = samples / c.strip * chunks;
    double uneven = 1;
    if (job.purpose == Purpose::predict && job.lanes > 1 && whole < 64) {
      std::array<std::size_t, 2> load{(whole + 1) / 2 * c.strip, whole / 2 * c.strip};
      for (std::size_t k = 0; k < chunks; ++k) *std::min_element(load.begin(), load.end()) += samples % c.strip;
      uneven = 2 * number(std::max(load[0], load[1])) / number(load[0] + load[1]);
    }
    if (const double cycles = depth_first_cycles(t, job, c) * uneven; cycles < best.cycles) best = {c, cycles};
  };
  for (const std::size_t strip : {widest, widest / 2})
    for (std::size_t chunk = 1; chunk <= c.step[0].out; ++chunk) {
      if (job.lanes == 1 && (strip != widest || chunk != c.step[0].out)) continue;
      if (c.step[0].out % chunk != 0 || strip == 0 || (job.lanes > 1 && strip % t.width != 0)) continue;
      c.strip = strip, c.chunk = chunk;
      for (std::size_t mask = 0; mask < masks; ++mask) {
        for (std::size_t g = 0; g + 1 < c.steps; ++g) c.stored[g] = (mask >> g & 1) != 0;
        consider();
      }
    }
  return best;
}

}  // namespace detail

/// What a backend can do with a contraction.
struct Abilities {
  Throughput throughput = {};
  bool depth_first = false;
};

/// Every candidate worth a look, the best first.
[[gnu::cold]] inline std::vector<Candidate> candidates(const Job& job, const Abilities& can, std::size_t most = 6) {
  using namespace detail;
  const Throughput& t = can.throughput;
  std::vector<Candidate> found;
  const TensorTrainShape& shape = job.shape;
  if (is_product(shape)) {
    // Each matrix does what a dense layer does, and so does their product, once it is there: which predictions take for
    // granted, so that it has to be worth while.
    Job one = job, two = job;
    one.shape = {{shape.in[0]}, {shape.ranks[0]}, {}};
    two.shape = {{shape.ranks[0]}, {shape.out[1]}, {}};
    const double merged = dense_cycles(t, job) * 1.1 + merge_cycles(t, job, 0, 2, true);
    found.push_back(
        {contraction_of(shape, {{{0, 1, false}, {1, 2, false}}}), dense_cycles(t, one) + dense_cycles(t, two)});
    found.push_back({contraction_of(shape, {{{0, 2, true}}}), merged});
    keep_best(found, most);
    return found;
  }
  if (can.depth_first)
    for (const Ends ends : {Ends{true, false, false}, Ends{false, true, false}})
      for (const Sequence& s : Search(job, t, ends, most).run())
        if (s.steps.size() > 1) found.push_back(nested(t, job, contraction_of(job.shape, s)));
  // Step by step the state goes through memory.
  const bool single = can.depth_first && job.lanes == 1;
  for (const Sequence& s : Search(job, t, {!single, !single, !single}, most).run()) {
    // What the model does not see: whole states are transposed for gradients, and every step wakes the threads.
    Candidate c{contraction_of(job.shape, s),
                s.cycles * (job.purpose == Purpose::train ? 1.2 : 1) + 5000 * number(s.steps.size())};
    for (std::size_t k = 0; k + 1 < c.contraction.steps; ++k) {
      const ContractionStep& step = c.contraction.step[k];
      const double bytes = number(step.outer * step.rows * step.columns * job.batch * job.value_bytes);
      c.cycles += bytes > t.cache ? (job.purpose == Purpose::train ? 6 : 2) * bytes / t.bytes : 0;
    }
    if (c.contraction.steps == 1) {
      // One matrix is what a dense layer does, once it is there.
      c.cycles = dense_cycles(t, job) + merge_cycles(t, job, 0, job.shape.size(), true);
    } else if (can.depth_first) {
      bool mixed = false;
      for (std::size_t k = 1; k < c.contraction.steps; ++k)
        mixed = mixed || c.contraction.step[k].from_right != c.contraction.step[0].from_right;
      if (!mixed) continue;  // those were nested
    }
    found.push_back(std::move(c));
  }
  keep_best(found, most);
  return found;
}

[[gnu::cold]] inline Plan make_plan(const Job& job, const Abilities& can) {
  std::vector<Candidate> all = candidates(job, can);
  Plan plan{job, can.throughput, all.front(), dense_cycles(can.throughput, job), {}};
  plan.runners_up.assign(all.begin() + 1,
                         all.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(all.size(), 4)));
  return plan;
}

template <class T, class B>
[[gnu::cold]] Abilities abilities_of() {
  Abilities can;
  if constexpr (requires { B::template throughput<T>(); }) can.throughput = B::template throughput<T>();
  can.depth_first = requires { typename B::template DepthFirst<T>; };
  return can;
}

/// The plan of a job on a backend, made once; lanes: of the panels, where they are not those of such a batch.
template <class T, class B>
[[gnu::noinline]] const Plan& plan_for(const TensorTrainShape& shape, std::size_t batch, Purpose purpose,
                                       std::size_t lanes = 0) {
  static std::mutex mutex;
  static std::vector<std::unique_ptr<const Plan>> known;
  const Job job{shape, batch, lanes != 0 ? lanes : B::template lanes<T>(batch), sizeof(T), purpose};
  const std::lock_guard lock(mutex);
  for (const auto& plan : known)
    if (plan->job == job) return *plan;
  known.push_back(std::make_unique<const Plan>(make_plan(job, abilities_of<T, B>())));
  return *known.back();
}

}  // namespace tesla::inline TESLA_TARGET::network::contraction
