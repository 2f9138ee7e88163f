// mlpack 4: its feed-forward network in single precision, with ensmallen's update rules called step by step.
#include <mlpack.hpp>

#include "worker.hpp"

using Matrix = arma::fmat;
using Network = mlpack::FFN<mlpack::NegativeLogLikelihoodType<Matrix>, mlpack::GlorotInitialization, Matrix>;

template <class Rule>
peers::Run prepare(const peers::Case& c, Rule rule, double rate) {
  struct State {
    Network net;
    Rule rule;  // the policy refers to it
    std::unique_ptr<typename Rule::template Policy<Matrix, Matrix>> policy;
    Matrix inputs, gradient, output;
    std::size_t turn = 0, batches = 0;
  };
  const auto state = std::make_shared<State>();
  state->rule = rule;
  for (std::size_t i = 1; i < c.sizes.size(); ++i) {
    state->net.template Add<mlpack::LinearType<Matrix>>(c.sizes[i]);
    if (i + 1 < c.sizes.size()) state->net.template Add<mlpack::ReLUType<Matrix>>();
  }
  state->net.template Add<mlpack::LogSoftMaxType<Matrix>>();
  const peers::Data data(c);
  state->batches = data.batches;
  state->inputs = Matrix(data.inputs.data(), c.sizes.front(), data.labels.size());
  Matrix labels(1, data.labels.size());
  for (std::size_t i = 0; i < data.labels.size(); ++i) labels[i] = static_cast<float>(data.labels[i]);
  state->net.ResetData(state->inputs, labels);
  state->net.Reset(c.sizes.front());
  state->net.SetNetworkMode(c.kind == "step");
  const auto& parameters = state->net.Parameters();
  state->gradient.set_size(parameters.n_rows, parameters.n_cols);
  state->policy = std::make_unique<typename Rule::template Policy<Matrix, Matrix>>(state->rule, parameters.n_rows,
                                                                                   parameters.n_cols);
  return [state, rate, batch = static_cast<std::size_t>(c.batch), training = c.kind == "step"](int steps) {
    double sum = 0;
    for (int i = 0; i < steps; ++i) {
      const std::size_t begin = state->turn * batch;
      if (training) {
        // The loss is summed over the batch, hence the smaller rate.
        auto& parameters = state->net.Parameters();
        sum += state->net.EvaluateWithGradient(parameters, begin, state->gradient, batch);
        state->policy->Update(parameters, rate / batch, state->gradient);
      } else {
        const Matrix input(state->inputs.colptr(begin), state->inputs.n_rows, batch, false, true);
        state->net.Forward(input, state->output);
        sum += state->output[0];
      }
      state->turn = (state->turn + 1) % state->batches;
    }
    return sum;
  };
}

static peers::Run setup(const peers::Case& c) {
  if (!c.network()) return {};
  if (c.adam) return prepare(c, ens::AdamUpdate(1e-8, 0.9, 0.999), peers::adam_rate * c.batch);
  return prepare(c, ens::MomentumUpdate(peers::momentum), peers::sgd_rate);
}

extern "C" void openblas_set_num_threads(int) __attribute__((weak));

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::stoi(argv[1]) : 1;
  if (openblas_set_num_threads) openblas_set_num_threads(threads);
#ifdef _OPENMP
  omp_set_num_threads(threads);
#endif
  std::ostringstream version;
  version << MLPACK_VERSION_MAJOR << '.' << MLPACK_VERSION_MINOR << '.' << MLPACK_VERSION_PATCH;
  return peers::serve("mlpack", version.str(), setup);
}
