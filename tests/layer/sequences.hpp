// What tests of layers over sequences share.
#pragma once

#include <tesla/sequential.hpp>

#include <memory>
#include <vector>

namespace sequence_test {

using namespace tesla;

/// Normal numbers; where there are masks, some steps of most samples and all of sample 1 are `mask`.
template <class T>
Tensor<T> random_sequences(std::size_t batch, std::size_t length, std::size_t features, bool masks, double mask) {
  Tensor<T> x({batch, length, features});
  random::fill_normal(x, {.seed = 1});
  for (std::size_t s = 0; s < batch && masks; ++s)
    for (std::size_t t = 0; t < length; ++t)
      for (std::size_t f = 0; f < features; ++f)
        if (s == 1 || (s * 7 + t * 3) % 5 < 2) x[(s * length + t) * features + f] = static_cast<T>(mask);
  return x;
}

/// Passes its input on, and remembers the gradient by it.
struct Seen {
  static constexpr std::string_view kind = "Seen";
  std::shared_ptr<std::vector<double>> gradient;

  Shape setup(const Shape& in, layer::Setup& setup) const {
    setup.parameter("unused", {1}, init::zeros);  // makes it a trained layer
    return in;
  }
  template <class T, class B>
  void forward(layer::Pass<T, B>& pass, Panels<const T> x, Panels<T> y) const {
    pass.map([](auto v) { return v; }, y, x);
  }
  template <class T, class B>
  void backward(layer::Pass<T, B>& pass, Panels<const T>, Panels<T>, Panels<T> dy, Panels<T>) const {
    std::vector<T> rows(dy.batch * dy.features);
    pass.backend.scatter(Panels<const T>(dy), rows.data());
    gradient->assign(rows.begin(), rows.end());
  }
};

}  // namespace sequence_test
