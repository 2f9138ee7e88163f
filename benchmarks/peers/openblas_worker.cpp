// OpenBLAS: single-precision products, and a training step written by hand around them. Samples are rows, weights are
// outputs x inputs.
#include <cblas.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <memory>

#include "worker.hpp"

class Network {
 public:
  explicit Network(const peers::Case& c) : data_(c), sizes_(c.sizes), batch_(c.batch) {
    std::size_t count = 0;
    for (std::size_t i = 1; i < sizes_.size(); ++i) {
      offsets_.push_back(count);
      count += static_cast<std::size_t>(sizes_[i - 1] + 1) * sizes_[i];
      outputs_.emplace_back(static_cast<std::size_t>(batch_) * sizes_[i]);
      deltas_.emplace_back(outputs_.back().size());
    }
    parameters_.resize(count);
    gradient_.resize(count);
    optimizer_ = peers::Optimizer(c.adam, count);
    for (std::size_t i = 0; i < offsets_.size(); ++i) {
      const float bound = std::sqrt(6.0f / sizes_[i]);
      const auto values = peers::uniform(static_cast<std::size_t>(sizes_[i]) * sizes_[i + 1], -bound, bound, 3);
      std::copy(values.begin(), values.end(), &parameters_[offsets_[i]]);
    }
  }

  double predict() { return forward(next())[0]; }

  double step() {
    const int index = next(), classes = sizes_.back();
    const float* logits = forward(index);
    const float scale = 1.0f / batch_;
    float loss = 0;
    for (int i = 0; i < batch_; ++i) {
      const float* row = logits + i * classes;
      float* delta = &deltas_.back()[i * classes];
      const int label = data_.labels[static_cast<std::size_t>(index) * batch_ + i];
      const float highest = *std::max_element(row, row + classes);
      float sum = 0;
      for (int j = 0; j < classes; ++j) sum += delta[j] = std::exp(row[j] - highest);
      for (int j = 0; j < classes; ++j) delta[j] *= scale / sum;
      delta[label] -= scale;
      loss += std::log(sum) - row[label] + highest;
    }
    for (std::size_t i = offsets_.size(); i-- > 0;) backward(i, index);
    optimizer_(parameters_.data(), gradient_.data());
    return loss * scale;
  }

 private:
  int next() { return turn_ = (turn_ + 1) % data_.batches; }

  const float* input(std::size_t layer, int index) const {
    return layer == 0 ? &data_.inputs[static_cast<std::size_t>(index) * batch_ * sizes_[0]]
                      : outputs_[layer - 1].data();
  }

  const float* forward(int index) {
    for (std::size_t i = 0; i < offsets_.size(); ++i) {
      const int in = sizes_[i], out = sizes_[i + 1];
      const float *weight = &parameters_[offsets_[i]], *bias = weight + static_cast<std::size_t>(in) * out;
      float* output = outputs_[i].data();
      for (int s = 0; s < batch_; ++s) std::copy(bias, bias + out, output + static_cast<std::size_t>(s) * out);
      if (batch_ == 1) {
        cblas_sgemv(CblasRowMajor, CblasNoTrans, out, in, 1, weight, in, input(i, index), 1, 1, output, 1);
      } else {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, batch_, out, in, 1, input(i, index), in, weight, in, 1,
                    output, out);
      }
      if (i + 1 < offsets_.size()) {
        for (auto& value : outputs_[i]) value = value > 0 ? value : 0;
      }
    }
    return outputs_.back().data();
  }

  void backward(std::size_t i, int index) {
    const int in = sizes_[i], out = sizes_[i + 1];
    const float *delta = deltas_[i].data(), *x = input(i, index), *weight = &parameters_[offsets_[i]];
    float *gradient = &gradient_[offsets_[i]], *bias = gradient + static_cast<std::size_t>(in) * out;
    std::copy(delta, delta + out, bias);
    for (int s = 1; s < batch_; ++s) {
      for (int j = 0; j < out; ++j) bias[j] += delta[static_cast<std::size_t>(s) * out + j];
    }
    if (batch_ == 1) {
      for (int j = 0; j < out; ++j) {
        for (int k = 0; k < in; ++k) gradient[static_cast<std::size_t>(j) * in + k] = delta[j] * x[k];
      }
    } else {
      cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, out, in, batch_, 1, delta, out, x, in, 0, gradient, in);
    }
    if (i == 0) return;
    auto& below = deltas_[i - 1];
    if (batch_ == 1) {
      cblas_sgemv(CblasRowMajor, CblasTrans, out, in, 1, weight, in, delta, 1, 0, below.data(), 1);
    } else {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, batch_, in, out, 1, delta, out, weight, in, 0,
                  below.data(), in);
    }
    for (std::size_t j = 0; j < below.size(); ++j) below[j] = x[j] > 0 ? below[j] : 0;
  }

  peers::Data data_;
  std::vector<int> sizes_;
  int batch_, turn_ = -1;
  std::vector<std::size_t> offsets_;
  std::vector<float> parameters_, gradient_;
  std::vector<std::vector<float>> outputs_, deltas_;
  peers::Optimizer optimizer_{false, 0};
};

static peers::Run setup(const peers::Case& c) {
  if (c.kind == "product") {
    const int m = c.sizes[0], k = c.sizes[1], n = c.sizes[2];
    const auto a = peers::uniform(static_cast<std::size_t>(m) * k, -1, 1, 4);
    const auto b = peers::uniform(static_cast<std::size_t>(k) * n, -1, 1, 5);
    return [=, result = std::vector<float>(static_cast<std::size_t>(m) * n)](int steps) mutable {
      for (int i = 0; i < steps; ++i) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1, a.data(), k, b.data(), n, 0, result.data(),
                    n);
      }
      return result[0];
    };
  }
  if (!c.network()) return {};
  const auto network = std::make_shared<Network>(c);
  return [network, training = c.kind == "step"](int steps) {
    double sum = 0;
    for (int i = 0; i < steps; ++i) sum += training ? network->step() : network->predict();
    return sum;
  };
}

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::stoi(argv[1]) : 1;
  openblas_set_num_threads(threads);
#ifdef _OPENMP
  omp_set_num_threads(threads);
#endif
  const auto words = peers::split(openblas_get_config(), ' ');  // "OpenBLAS 0.3.21 ..."
  return peers::serve("OpenBLAS", words.size() > 1 ? words[1] : "unknown", setup);
}
