// dlib: its own dense layers, loss and solvers, called step by step on data that already lies in tensors. The depth of
// a network is part of its type, so networks of one to three dense layers can be asked for.
#include <dlib/dnn.h>
#include <dlib/revision.h>

#include "worker.hpp"

using Matrix = dlib::matrix<float>;

template <class Below>
using Hidden = dlib::relu<dlib::fc<1, Below>>;
template <class Below>
using Classifier = dlib::loss_multiclass_log<dlib::fc<1, Below>>;
using Input = dlib::input<Matrix>;

/// Sets the widths of the dense layers, the last one first; `index` counts dlib's layers from the loss down.
template <std::size_t index, class Net>
void set_widths(Net& net, const std::vector<int>& sizes, std::size_t layer) {
  dlib::layer<index>(net).layer_details().set_num_outputs(sizes[layer]);
  if constexpr (index + 2 < Net::num_layers) set_widths<index + 2>(net, sizes, layer - 1);
}

template <class Net, class Solver>
peers::Run prepare(const peers::Case& c, const Solver& solver, double rate) {
  struct State {
    Net net;
    std::vector<Solver> solvers;
    std::vector<dlib::resizable_tensor> inputs;
    std::vector<std::vector<unsigned long>> labels;
    std::size_t turn = 0;
  };
  const auto state = std::make_shared<State>();
  set_widths<1>(state->net, c.sizes, c.sizes.size() - 1);
  state->solvers.assign(Net::num_computational_layers, solver);
  const peers::Data data(c);
  const int features = c.sizes.front();
  for (int b = 0; b < data.batches; ++b) {
    std::vector<Matrix> samples;
    state->labels.emplace_back();
    for (int i = b * c.batch; i < (b + 1) * c.batch; ++i) {
      samples.push_back(dlib::mat(&data.inputs[static_cast<std::size_t>(i) * features], features, 1));
      state->labels.back().push_back(static_cast<unsigned long>(data.labels[i]));
    }
    state->inputs.emplace_back();
    state->net.to_tensor(samples.begin(), samples.end(), state->inputs.back());
  }
  return [state, rate, training = c.kind == "step"](int steps) {
    double sum = 0;
    for (int i = 0; i < steps; ++i) {
      const auto& x = state->inputs[state->turn];
      if (training) {
        sum += state->net.compute_parameter_gradients(x, state->labels[state->turn].begin());
        state->net.update_parameters(state->solvers, rate);
      } else {
        sum += *state->net.forward(x).host();
      }
      state->turn = (state->turn + 1) % state->inputs.size();
    }
    return sum;
  };
}

template <class Net>
peers::Run prepare(const peers::Case& c) {
  return c.adam ? prepare<Net>(c, dlib::adam(0, 0.9f, 0.999f), peers::adam_rate)
                : prepare<Net>(c, dlib::sgd(0, peers::momentum), peers::sgd_rate);
}

static peers::Run setup(const peers::Case& c) {
  if (!c.network()) return {};
  switch (c.sizes.size()) {
    case 2:
      return prepare<Classifier<Input>>(c);
    case 3:
      return prepare<Classifier<Hidden<Input>>>(c);
    case 4:
      return prepare<Classifier<Hidden<Hidden<Input>>>>(c);
    default:
      return {};
  }
}

extern "C" void openblas_set_num_threads(int) __attribute__((weak));

int main(int argc, char** argv) {
  const std::string threads = argc > 1 ? argv[1] : "1";
  setenv("DLIB_NUM_THREADS", threads.c_str(), 1);  // dlib's own pool, started on its first use
  if (openblas_set_num_threads) openblas_set_num_threads(std::stoi(threads));
  std::ostringstream version;
  version << DLIB_MAJOR_VERSION << '.' << DLIB_MINOR_VERSION;
  return peers::serve("dlib", version.str(), setup);
}
