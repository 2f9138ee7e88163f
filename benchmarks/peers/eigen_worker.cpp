// Eigen: single-precision products, and a training step written by hand around them. Samples are columns.
#define EIGEN_NO_DEBUG
#include <Eigen/Dense>

#include "worker.hpp"

using Eigen::Map;
using Eigen::MatrixXf;
using Eigen::VectorXf;

class Network {
 public:
  explicit Network(const peers::Case& c) : data_(c), batch_(c.batch) {
    std::size_t count = 0;
    for (std::size_t i = 1; i < c.sizes.size(); ++i) count += static_cast<std::size_t>(c.sizes[i - 1] + 1) * c.sizes[i];
    parameters_ = VectorXf::Zero(count);
    gradient_.resize(count);
    optimizer_ = peers::Optimizer(c.adam, count);
    std::size_t offset = 0;
    for (std::size_t i = 1; i < c.sizes.size(); ++i) {
      const int in = c.sizes[i - 1], out = c.sizes[i];
      const float bound = std::sqrt(6.0f / in);
      const auto values = peers::uniform(static_cast<std::size_t>(in) * out, -bound, bound, 3);
      std::copy(values.begin(), values.end(), parameters_.data() + offset);
      float* gradient = gradient_.data() + offset;
      layers_.push_back({Map<MatrixXf>(parameters_.data() + offset, out, in), Map<MatrixXf>(gradient, out, in),
                         Map<VectorXf>(parameters_.data() + offset + values.size(), out),
                         Map<VectorXf>(gradient + values.size(), out), MatrixXf(out, batch_), MatrixXf(out, batch_)});
      offset += values.size() + out;
    }
  }

  double predict() {
    forward(next());
    return layers_.back().output(0, 0);
  }

  double step() {
    const int index = next();
    forward(index);
    const int* labels = &data_.labels[static_cast<std::size_t>(index) * batch_];
    auto& last = layers_.back();
    last.delta = last.output.rowwise() - last.output.colwise().maxCoeff();
    const float scale = 1.0f / batch_;
    float loss = 0;
    for (int i = 0; i < batch_; ++i) loss -= last.delta(labels[i], i);
    last.delta = last.delta.array().exp();
    const Eigen::RowVectorXf sums = last.delta.colwise().sum();
    loss += sums.array().log().sum();
    last.delta.array().rowwise() *= scale / sums.array();
    for (int i = 0; i < batch_; ++i) last.delta(labels[i], i) -= scale;
    for (std::size_t i = layers_.size(); i-- > 0;) {
      auto& layer = layers_[i];
      layer.bias_gradient = layer.delta.rowwise().sum();
      if (i == 0) {
        times_transposed(layer, inputs(index));
      } else {
        auto& below = layers_[i - 1];
        times_transposed(layer, below.output);
        below.delta.noalias() = layer.weight.transpose() * layer.delta;
        below.delta = (below.output.array() > 0).select(below.delta, 0.0f);
      }
    }
    optimizer_(parameters_.data(), gradient_.data());
    return loss * scale;
  }

 private:
  struct Layer {
    Map<MatrixXf> weight, weight_gradient;
    Map<VectorXf> bias, bias_gradient;
    MatrixXf output, delta;
  };

  int next() { return turn_ = (turn_ + 1) % data_.batches; }

  Map<const MatrixXf> inputs(int index) const {
    const Eigen::Index rows = layers_[0].weight.cols();
    return {&data_.inputs[static_cast<std::size_t>(index) * batch_ * rows], rows, batch_};
  }

  template <class Matrix>
  static void times_transposed(Layer& layer, const Matrix& input) {
    if (input.cols() == 1) {
      layer.weight_gradient.noalias() = layer.delta.col(0) * input.col(0).transpose();
    } else {
      layer.weight_gradient.noalias() = layer.delta * input.transpose();
    }
  }

  void forward(int index) {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      auto& layer = layers_[i];
      if (i == 0) {
        layer.output.noalias() = layer.weight * inputs(index);
      } else {
        layer.output.noalias() = layer.weight * layers_[i - 1].output;
      }
      layer.output.colwise() += layer.bias;
      if (i + 1 < layers_.size()) layer.output = layer.output.cwiseMax(0.0f);
    }
  }

  peers::Data data_;
  int batch_, turn_ = -1;
  VectorXf parameters_, gradient_;
  peers::Optimizer optimizer_{false, 0};
  std::vector<Layer> layers_;
};

static peers::Run setup(const peers::Case& c) {
  if (c.kind == "product") {
    const MatrixXf a = MatrixXf::Random(c.sizes[0], c.sizes[1]), b = MatrixXf::Random(c.sizes[1], c.sizes[2]);
    return [a, b, result = MatrixXf(a.rows(), b.cols())](int steps) mutable {
      for (int i = 0; i < steps; ++i) result.noalias() = a * b;
      return result(0, 0);
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
  Eigen::setNbThreads(threads);
#ifdef _OPENMP
  omp_set_num_threads(threads);
#endif
  std::ostringstream version;
  version << EIGEN_WORLD_VERSION << '.' << EIGEN_MAJOR_VERSION << '.' << EIGEN_MINOR_VERSION;
  return peers::serve("Eigen", version.str(), setup);
}
