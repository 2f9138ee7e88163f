// Recurrent layers by themselves, forward and with both gradients.
//
//   layer_recurrent             sequences of 64 steps with 64 inputs, 128 units, several batches and threads
//
// The peak is that of multiply-adds in registers; the share counts those of the products alone.
#include <tesla/layer/recurrent.hpp>
#include <tesla/tesla.hpp>

#include <cstdio>
#include <measure.hpp>
#include <one_layer.hpp>

namespace {

using namespace tesla;

constexpr std::size_t steps = 64, inputs = 64, units = 128;

template <class L>
void measure(const L& layer, std::size_t gates, double most) {
  for (const int threads : {1, 2})
    for (const std::size_t batch : {1, 16, 64, 128, 256}) {
      set_threads(threads);
      OneLayer forward(layer, {steps, inputs}, batch, OneLayer::forward),
          both(layer, {steps, inputs}, batch, OneLayer::both);
      const std::vector<double> t = timed({[&] { forward.run(); }, [&] { both.run(); }}, 0.05, 9);
      const double products = static_cast<double>(batch * steps * gates * units * (inputs + units));
      std::printf("%-10s %7d %6zu %10.1f %6.2f %12.1f %6.2f\n", std::string(L::kind).c_str(), threads, batch,
                  1e6 * t[0], products / t[0] / (most * threads), 1e6 * t[1], 3 * products / t[1] / (most * threads));
      std::fflush(stdout);
    }
}

}  // namespace

int main() {
  const double most = peak();
  std::printf("%zu steps of %zu inputs, %zu units; a thread can do %.0f billion multiply-adds a second\n", steps,
              inputs, units, most / 1e9);
  std::printf("%-10s %7s %6s %10s %6s %12s %6s\n", "layer", "threads", "batch", "forward us", "share", "both us",
              "share");
  measure(LSTM({.units = units, .return_sequences = true}), 4, most);
  measure(GRU({.units = units, .return_sequences = true}), 3, most);
  measure(SimpleRNN({.units = units, .return_sequences = true}), 1, most);
}
