// A table of 100000 x 64 as Embedding and in tensor-train form: lookups, and steps of training with their gradients.
//
//   layer_embedding             batches of 64 samples of 16 and 64 tokens, with 1 and 2 threads
//
// Tokens are drawn evenly, which shares the least between the rows of a batch, or as words come, the n-th of them with
// a frequency of 1 / n.
#include <tesla/tesla.hpp>

#include <cmath>
#include <cstdio>
#include <measure.hpp>
#include <string>
#include <vector>

namespace {

using namespace tesla;

constexpr std::size_t tokens = 100000, units = 64, batch = 64;

Tensor<float> numbers(std::size_t length, bool as_words) {
  Tensor<float> x({batch, length});
  const random::Stream random(1);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double u = random.uniform(i);
    x[i] = static_cast<float>(std::floor(as_words ? std::exp(u * std::log(double{tokens})) - 1 : u * double{tokens}));
  }
  return x;
}

template <class L>
void measure(const L& layer, const std::string& name) {
  for (const bool as_words : {false, true})
    for (const std::size_t length : {16, 64})
      for (const int threads : {1, 2}) {
        set_threads(threads);
        const Tensor<float> x = numbers(length, as_words);
        Tensor<float> y({batch, length * units}), out({batch, length * units});
        random::fill_normal(y, {.seed = 2});
        Sequential model;
        model.add_layer(layer);
        model.compile(optim::Adam({.learning_rate = 1e-6}), loss::MeanSquaredError());
        model.train_step(x, y);
        const std::vector<double> t =
            timed({[&] { model.predict_into(x, std::span(out.data(), out.size())); }, [&] { model.train_step(x, y); }},
                  0.05, 9);
        std::printf("%-22s %10zu %-6s %6zu %7d %12.1f %10.1f\n", name.c_str(), model.count_parameters(),
                    as_words ? "words" : "even", batch * length, threads, 1e6 * t[0], 1e6 * t[1]);
        std::fflush(stdout);
      }
}

}  // namespace

int main() {
  std::printf("%-22s %10s %-6s %6s %7s %12s %10s\n", "layer", "parameters", "tokens", "number", "threads", "predict us",
              "step us");
  measure(Embedding({.tokens = tokens, .units = units}), "Embedding");
  for (const std::size_t rank : {8, 16, 32})
    measure(TensorTrainEmbedding({.tokens = tokens, .units = units, .rank = rank}),
            "tensor-train, rank " + std::to_string(rank));
}
