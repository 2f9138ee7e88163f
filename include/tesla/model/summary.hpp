// A model described for people: layers, shapes, parameters, and the memory that training takes.
#pragma once

#include <tesla/model/training.hpp>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace tesla::inline TESLA_TARGET::model {

/// The learned values of `parameters` parameters from `first` on.
template <class T, class B>
std::size_t count_learned(const Network<T, B>& network, std::size_t first, std::size_t parameters) {
  std::size_t count = 0;
  for (std::size_t i = first; i < first + parameters; ++i) {
    const ParameterPlace& place = network.store().places()[i];
    if (place.learned) count += place.shape.elements();
  }
  return count;
}
template <class T, class B>
std::size_t count_parameters(const Network<T, B>& network) {
  return count_learned(network, 0, network.store().places().size());
}

/// Bytes by purpose.
struct MemoryUse {
  std::size_t parameters, gradients, optimizer, workspace;
  std::size_t indices = 0;  // of sparse weights
  std::size_t total() const { return parameters + gradients + optimizer + workspace + indices; }
};

/// How many values of a target a batch holds for each sample.
template <class T, class B>
std::size_t target_features(const Network<T, B>& network, const Training<T, B>& training) {
  const Shape& out = network.output_shape();
  if (!training.loss) return out.elements();
  const loss::Targets targets = training.loss->targets();
  const std::size_t own = targets == loss::Targets::labels ? 0 : out.elements(), steps = loss::steps_of(out, targets);
  return own + (steps > 1 ? steps : 0);  // labels of steps have weights of their own
}

template <class T, class B>
MemoryUse training_bytes(const Network<T, B>& network, const Training<T, B>& training, std::size_t batch_size) {
  const std::size_t block = network.store().block_size() * sizeof(T);
  const std::size_t target = target_features(network, training);
  std::size_t indices = 0;
  for (const auto& p : network.store().places()) indices += p.form ? p.form->bytes() : 0;
  const std::size_t averages = network.store().averaged() ? 1 : 0;
  return {block, block, training.optimizer ? block * (training.optimizer->slots() + averages) : 0,
          network.workspace_size(batch_size, true, target) * sizeof(T), indices};
}

/// How the layers that have a choice compute a batch.
template <class T, class B>
[[gnu::cold]] std::string plan(const Network<T, B>& network, std::size_t batch_size) {
  std::string result;
  for (std::size_t i = 0; i < network.entries().size(); ++i)
    for (const bool training : {true, false}) {
      const std::string own = network.entries()[i].node->plan(batch_size, training);
      if (!own.empty()) result += (training ? network.describe(i) + "\n" : "") + own;
    }
  return result.empty() ? "no layer of this model has a choice\n" : result;
}

/// "3.21 MB"
[[gnu::cold]] inline std::string bytes_text(std::size_t bytes) {
  char buffer[32];
  const auto value = static_cast<double>(bytes);
  if (value < 1e3)
    std::snprintf(buffer, sizeof buffer, "%zu B", bytes);
  else if (value < 1e6)
    std::snprintf(buffer, sizeof buffer, "%.2f kB", value / 1e3);
  else if (value < 1e9)
    std::snprintf(buffer, sizeof buffer, "%.2f MB", value / 1e6);
  else
    std::snprintf(buffer, sizeof buffer, "%.2f GB", value / 1e9);
  return buffer;
}

/// What is made again in training instead of kept, if anything is.
template <class T, class B>
[[gnu::cold]] std::string checkpoint_text(const Network<T, B>& network, std::size_t batch_size,
                                          std::size_t target_features) {
  const auto found = network.checkpoint_plan(batch_size, target_features);
  if (!found) return {};
  const CheckpointPlan& plan = *found;
  std::size_t all = 0;
  for (const Stage& s : plan.stages) all += s.out + s.inside;
  char share[32];
  std::snprintf(share, sizeof share, "%.3g %%", 100 * network.extra_time(plan));
  std::string result = text("activations of ", bytes_text(all * sizeof(T)), " are made within ",
                            bytes_text(plan.memory * sizeof(T)), ", some of them again; expected extra time ", share,
                            network.times_measured() ? "\n" : ", by sizes; the first steps of fit measure it\n");
  std::string line = " ";
  for (std::size_t s = 0, next = 0; s < plan.stages.size(); s = next) {
    const std::size_t runs = plan.runs(s);
    for (next = s + 1; next < plan.stages.size() && plan.runs(next) == runs;) ++next;
    const std::size_t first = plan.stages[s].first + 1, last = plan.stages[next - 1].last + 1;
    const std::string part =
        text(first == last ? " layer " : " layers ", first, first == last ? "" : text(" to ", last),
             runs == 1 ? " once" : text(" ", runs, " times"), next < plan.stages.size() ? "," : "");
    if (line.size() + part.size() > 100) result += line + "\n", line = " ";
    line += part;
  }
  return result + line + "\n";
}

template <class T, class B>
[[gnu::cold]] std::string summary(const Network<T, B>& network, const Training<T, B>& training,
                                  std::size_t batch_size) {
  std::vector<std::array<std::string, 4>> rows{{"layer", "kind", "output", "parameters"}};
  for (const auto& e : network.entries()) {
    const std::size_t count = count_learned(network, e.first_parameter, e.parameters);
    rows.push_back({e.name, std::string(e.node->kind()), network.built() ? e.out.extents() : "?",
                    network.built() ? std::to_string(count) : "?"});
  }
  std::array<std::size_t, 4> widths{};
  for (const auto& row : rows)
    for (std::size_t c = 0; c < 4; ++c) widths[c] = std::max(widths[c], row[c].size());
  std::string result;
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < 4; ++c) {
      const std::string padding(widths[c] - row[c].size(), ' ');
      result += c == 3 ? padding + row[c] : row[c] + padding + "  ";
    }
    const std::size_t number = static_cast<std::size_t>(&row - rows.data());
    if (const std::string note = network.built() && number > 0 ? network.entries()[number - 1].node->note() : "";
        !note.empty())
      result += "  " + note;
    result += '\n';
  }
  if (!network.built()) return result + "shapes are known after build(shape) or the first fit\n";
  const MemoryUse use = training_bytes(network, training, batch_size);
  result +=
      text(count_parameters(network), " parameters; training at batch ", batch_size, " takes ", bytes_text(use.total()),
           ": parameters ", bytes_text(use.parameters), ", gradients ", bytes_text(use.gradients), ", optimizer ",
           bytes_text(use.optimizer), use.indices != 0 ? ", indices " + bytes_text(use.indices) : "",
           ", activations and scratch ", bytes_text(use.workspace), "\n");
  return result + checkpoint_text(network, batch_size, target_features(network, training));
}

}  // namespace tesla::inline TESLA_TARGET::model
