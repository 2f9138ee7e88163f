// Training in less memory than all activations take: which of them are kept, and which are computed again.
//
// A chain of stages, each of which reads what the one before gives, is gone through by a plan. The fastest one for a
// number of bytes comes from a dynamic program over parts of the chain (Beaumont et al., "Optimal checkpointing for
// heterogeneous chains", 2019): either the first stage of a part keeps all that its gradient needs, or the part is run
// to some stage, whose output alone is kept, and what comes after that is done first.
#pragma once

#include <tesla/core/error.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

/// Layers first to last, which run together; sizes are numbers of elements.
struct Stage {
  std::size_t first = 0, last = 0;
  std::size_t out = 0;     // the output, which the next stage reads
  std::size_t inside = 0;  // what its gradient needs besides
  double forward = 1, backward = 2;
};

/// What is done with a stage, and where its numbers are then.
struct Move {
  enum class Kind { run, keep, back };  // forward for its output alone; forward for its gradient; backward

  Kind kind;
  std::size_t stage;
  std::size_t out = 0, inside = 0;

  bool operator==(const Move&) const = default;
};

/// The moves of a step of training, up to the first `back` forward.
struct CheckpointPlan {
  std::vector<Stage> stages;
  std::vector<Move> moves;
  std::size_t memory = 0;  // for the stages, in elements

  /// How often a stage is run forward.
  std::size_t runs(std::size_t stage) const {
    return static_cast<std::size_t>(std::count_if(
        moves.begin(), moves.end(), [&](const Move& m) { return m.stage == stage && m.kind != Move::Kind::back; }));
  }
  double time() const {
    return std::accumulate(moves.begin(), moves.end(), 0.0, [&](double sum, const Move& m) {
      return sum + (m.kind == Move::Kind::back ? stages[m.stage].backward : stages[m.stage].forward);
    });
  }
  /// The time of a step that keeps everything.
  double least_time() const {
    return std::accumulate(stages.begin(), stages.end(), 0.0,
                           [](double sum, const Stage& s) { return sum + s.forward + s.backward; });
  }
};

/// Finds plans for a chain. Parts of it are [s, t], both included.
class Checkpointing {
 public:
  [[gnu::cold]] explicit Checkpointing(std::vector<Stage> stages) : stages_(std::move(stages)) {
    const std::size_t n = stages_.size();
    least_.assign(pairs(n), 0);
    for (std::size_t length = 1; length <= n; ++length)
      for (std::size_t s = 0; s + length <= n; ++s) {
        const std::size_t t = s + length - 1;
        std::size_t best = full(s) + (s < t ? least(s + 1, t) : 0), run = 0;
        for (std::size_t k = s; k < t; ++k) {
          run = std::max(run, running(s, k));
          best = std::min(best, std::max({run, stages_[k].out + least(k + 1, t), least(s, k)}));
        }
        least_[at(s, t)] = best;
      }
  }

  /// The smallest memory that any plan takes.
  std::size_t least() const { return stages_.empty() ? 0 : least(0, stages_.size() - 1); }

  /// The fastest plan that takes no more than `memory`, which is least() or more. Memory is counted in units where
  /// stages have no common one; that may cost a little time, never memory.
  [[gnu::cold]] CheckpointPlan plan(std::size_t memory) const {
    CheckpointPlan result{stages_, {}};
    if (stages_.empty()) return result;
    const Table table(*this, memory);
    const std::size_t last = stages_.size() - 1;
    const bool timed = table.time(0, last, table.units) < never;
    place(result.moves, timed ? &table : nullptr, 0, last, table.units, 0, result.memory);
    for (Move& m : result.moves)
      if (m.out == top) m.out = result.memory - stages_[m.stage].out;
    return result;
  }

 private:
  static constexpr float never = std::numeric_limits<float>::infinity();
  static constexpr std::size_t top = ~std::size_t{0};  // an output that ends where the memory does

  static std::size_t pairs(std::size_t n) { return n * (n + 1) / 2; }
  std::size_t at(std::size_t s, std::size_t t) const { return pairs(t) + s; }
  std::size_t least(std::size_t s, std::size_t t) const { return least_[at(s, t)]; }
  std::size_t full(std::size_t s) const { return stages_[s].out + stages_[s].inside; }
  /// What stage k takes while a part that begins with s is run.
  std::size_t running(std::size_t s, std::size_t k) const { return full(k) + (k > s ? stages_[k - 1].out : 0); }

  /// The least time of each part of the chain in each number of units.
  struct Table {
    static constexpr std::size_t most_units = 512, most_entries = std::size_t{1} << 20;

    const Checkpointing& chain;
    std::size_t unit, units;
    std::vector<float> times;

    [[gnu::cold]] Table(const Checkpointing& c, std::size_t memory) : chain(c) {
      const std::size_t n = c.stages_.size();
      std::size_t common = 0, all = 0;
      for (const Stage& s : c.stages_) common = std::gcd(common, std::gcd(s.out, s.inside)), all += s.out + s.inside;
      memory = std::min(memory, all);
      // No more numbers than the plan is for.
      const std::size_t most = std::clamp(std::min(most_entries, memory) / pairs(n), std::size_t{64}, most_units);
      unit = std::max<std::size_t>(common, 1);
      if (memory / unit > most) unit = (memory + most - 1) / most;
      units = memory / unit;
      times.assign(pairs(n) * (units + 1), never);
      for (std::size_t length = 1; length <= n; ++length)
        for (std::size_t s = 0; s + length <= n; ++s)
          for (std::size_t m = 0; m <= units; ++m) entry(s, s + length - 1, m) = best(s, s + length - 1, m).first;
    }

    float time(std::size_t s, std::size_t t, std::size_t m) const { return times[chain.at(s, t) * (units + 1) + m]; }
    /// The time, and after which stage the part is cut; s - 1: its first stage keeps everything.
    std::pair<float, std::size_t> best(std::size_t s, std::size_t t, std::size_t m) const {
      const auto in_units = [&](std::size_t size) { return (size + unit - 1) / unit; };
      const Stage* const stages = chain.stages_.data();
      const std::size_t all = in_units(chain.full(s));
      const float own = static_cast<float>(stages[s].forward + stages[s].backward);
      std::pair<float, std::size_t> result{never, s - 1};
      if (all <= m) result.first = s == t ? own : own + time(s + 1, t, m - all);
      float forward = 0;
      for (std::size_t k = s; k < t && in_units(chain.running(s, k)) <= m; ++k) {
        forward += static_cast<float>(stages[k].forward);
        const std::size_t out = in_units(stages[k].out);
        if (out > m) continue;
        const float whole = forward + time(k + 1, t, m - out) + time(s, k, m);
        if (whole < result.first) result = {whole, k};
      }
      return result;
    }

   private:
    float& entry(std::size_t s, std::size_t t, std::size_t m) { return times[chain.at(s, t) * (units + 1) + m]; }
  };

  /// The cut of a part in the plan of least memory.
  [[gnu::cold]] std::size_t smallest_cut(std::size_t s, std::size_t t) const {
    std::size_t run = 0;
    for (std::size_t k = s; k < t; ++k) {
      run = std::max(run, running(s, k));
      if (std::max({run, stages_[k].out + least(k + 1, t), least(s, k)}) == least(s, t)) return k;
    }
    return s - 1;
  }

  /// The moves of a part whose numbers lie from `base` on; a null table: those of least memory.
  [[gnu::cold]] void place(std::vector<Move>& moves, const Table* table, std::size_t s, std::size_t t, std::size_t m,
                           std::size_t base, std::size_t& peak) const {
    const std::size_t cut = table != nullptr ? table->best(s, t, m).second : smallest_cut(s, t);
    const auto left = [&](std::size_t size) {
      return table != nullptr ? m - (size + table->unit - 1) / table->unit : 0;
    };
    if (cut == s - 1) {
      moves.push_back({Move::Kind::keep, s, base, base + stages_[s].out});
      peak = std::max(peak, base + full(s));
      if (s < t) place(moves, table, s + 1, t, left(full(s)), base + full(s), peak);
      moves.push_back({Move::Kind::back, s});
      return;
    }
    // Outputs on the way lie at the base and at the end in turn, the one that is kept at the base.
    for (std::size_t k = s; k <= cut; ++k) {
      const bool at_base = (cut - k) % 2 == 0;
      const std::size_t before = k > s ? stages_[k - 1].out : 0;
      moves.push_back({Move::Kind::run, k, at_base ? base : top, base + (at_base ? stages_[k].out : before)});
      peak = std::max(peak, base + running(s, k));
    }
    place(moves, table, cut + 1, t, left(stages_[cut].out), base + stages_[cut].out, peak);
    place(moves, table, s, cut, m, base, peak);
  }

  std::vector<Stage> stages_;
  std::vector<std::size_t> least_;
};

/// The plan where users have said which stages keep nothing inside. All outputs are kept; what the marked stages need
/// inside is in one place, one after the other.
[[gnu::cold]] inline CheckpointPlan marked_plan(std::vector<Stage> stages, const std::vector<bool>& marked) {
  CheckpointPlan result{std::move(stages), {}};
  const auto& all = result.stages;
  std::vector<Move> places(all.size());
  std::size_t shared = 0;
  for (std::size_t s = 0; s < all.size(); ++s) {
    places[s] = {marked[s] ? Move::Kind::run : Move::Kind::keep, s, result.memory, result.memory + all[s].out};
    result.memory += all[s].out + (marked[s] ? 0 : all[s].inside);
    if (marked[s]) shared = std::max(shared, all[s].inside);
  }
  for (std::size_t s = 0; s < all.size(); ++s)
    if (marked[s]) places[s].inside = result.memory;
  result.memory += shared;
  result.moves = places;
  if (!all.empty() && marked.back()) result.moves.pop_back();  // its gradient comes next
  for (std::size_t s = all.size(); s-- > 0;) {
    if (marked[s]) {
      result.moves.push_back(places[s]);
      result.moves.back().kind = Move::Kind::keep;
    }
    result.moves.push_back({Move::Kind::back, s});
  }
  return result;
}

}  // namespace tesla::inline TESLA_TARGET::model
