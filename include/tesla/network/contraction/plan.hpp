// A plan: how a tensor-train meets a batch, what that costs, and what the alternatives would have cost.
#pragma once

#include <tesla/core/error.hpp>
#include <tesla/core/memory.hpp>
#include <tesla/network/contraction/cost.hpp>

#include <cstdio>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::network::contraction {

struct Candidate {
  Contraction contraction;
  double cycles = 0;
};

struct Plan {
  Job job;
  Throughput throughput;
  Candidate chosen;
  double dense_cycles = 0;            // of a dense layer of the same size
  std::vector<Candidate> runners_up;  // the next best, in order

  const Contraction& contraction() const { return chosen.contraction; }
};

namespace detail {

/// "12.3 us", at the clock rate that is taken for granted.
[[gnu::cold]] inline std::string time_text(const Throughput& t, double cycles) {
  const double microseconds = cycles / t.gigahertz * 1e-3;
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, microseconds < 1e4 ? "%.4g us" : "%.4g ms",
                microseconds < 1e4 ? microseconds : microseconds * 1e-3);
  return buffer;
}

[[gnu::cold]] inline std::string number_text(double value) {
  char buffer[32];
  const char* const units[] = {"", "k", "M", "G", "T"};
  std::size_t unit = 0;
  while (value >= 1000 && unit < 4) value /= 1000, ++unit;
  std::snprintf(buffer, sizeof buffer, "%.3g %s", value, units[unit]);
  return buffer;
}

/// "(3 4) (1 2)": the cores in the order in which the samples meet them, merged ones together.
[[gnu::cold]] inline std::string order_text(const Contraction& c) {
  std::string result;
  for (std::size_t s = 0; s < c.steps; ++s) {
    result += s == 0 ? "(" : " (";
    for (std::size_t k = c.step[s].first; k < c.step[s].last; ++k)
      result += (k == c.step[s].first ? "" : " ") + std::to_string(k + 1);
    result += ")";
  }
  return result;
}

/// FLOPs of the forward pass, merging left out.
inline double flops(const Job& job, const Contraction& c) { return 2 * c.multiply_adds() * number(job.batch); }

[[gnu::cold]] inline std::string why_not(const Plan& plan, const Candidate& other) {
  const double more = other.cycles / plan.chosen.cycles - 1;
  if (more < 0.005) return "as good";
  const double products = flops(plan.job, other.contraction) / flops(plan.job, plan.contraction()) - 1;
  char buffer[96];
  const auto percent = [&](double part, const char* what) {
    std::snprintf(buffer, sizeof buffer, "%.0f %% %s", 100 * std::abs(part), what);
    return std::string(buffer);
  };
  if (products > 0.5 * more) return percent(products, "more FLOPs");
  if (other.contraction.steps == 1) return "builds the whole matrix first";
  if (!other.contraction.depth_first && plan.contraction().depth_first) return "its state does not stay in the cache";
  return products < -0.005 ? percent(products, "fewer FLOPs, but in smaller products") : "smaller products";
}

}  // namespace detail

/// The plan for people. `memory`: what it takes beside the outputs, in elements.
[[gnu::cold]] inline std::string plan_text(const Plan& plan, const MemoryNeed& memory) {
  using namespace detail;
  const Contraction& c = plan.contraction();
  const Job& job = plan.job;
  const bool training = job.purpose == Purpose::train;
  std::string result = text("  ", training ? "training" : "predicting", " at batch ", job.batch, ": ", order_text(c));
  if (c.steps == 1)
    result += ", one matrix";
  else if (c.depth_first)
    result +=
        text(", depth-first",
             job.lanes == 1 ? "" : text(", ", c.strip, " samples and ", c.chunk, " outputs of the first at a time"));
  else
    result += ", step by step";
  result += '\n';
  for (std::size_t s = 0; s < c.steps; ++s) {
    const ContractionStep& step = c.step[s];
    result +=
        text("    ", step.last - step.first > 1 ? "cores " : "core ", step.first + 1,
             step.last - step.first > 1 ? text(" to ", step.last, " merged") : "", ": ", step.rows, " x ", step.depth,
             " matrix times ", step.outer, " blocks of ", step.columns, " a sample, ",
             number_text(2 * step.multiply_adds() * number(job.batch)), "FLOP, ",
             number_text(number(step.outer * step.rows * step.columns * job.batch * job.value_bytes)), "B out",
             training && s + 1 < c.steps ? (c.stored[s] || !c.depth_first ? ", kept" : ", made again") : "", "\n");
  }
  const double products = flops(job, c);
  const double dense = 2 * number(job.shape.in.elements()) * number(job.shape.out.elements()) * number(job.batch);
  result += text("    forward ", number_text(products), "FLOP, dense ", number_text(dense), "FLOP");
  if (memory.kept != 0) result += text("; kept ", number_text(number(memory.kept * job.value_bytes)), "B");
  result += text("; scratch ", number_text(number(memory.scratch * job.value_bytes)), "B");
  char ratio[64];
  std::snprintf(ratio, sizeof ratio, "%.2f", plan.dense_cycles / plan.chosen.cycles);
  result += text("; expected ", time_text(plan.throughput, plan.chosen.cycles), " on one thread, ", ratio,
                 " times as fast as dense\n");
  for (const Candidate& other : plan.runners_up) {
    std::snprintf(ratio, sizeof ratio, "+%.0f %%", 100 * (other.cycles / plan.chosen.cycles - 1));
    result += text("    rejected: ", order_text(other.contraction), ", ", time_text(plan.throughput, other.cycles),
                   " (", ratio, "): ", why_not(plan, other), "\n");
  }
  return result;
}

}  // namespace tesla::inline TESLA_TARGET::network::contraction
