// TESLA: everything but CUDA. Eigen and xtensor come in by tensor/eigen.hpp and tensor/xtensor.hpp, where wanted.
#pragma once

#include <tesla/backend/cpu/cpu.hpp>
#include <tesla/backend/reference/reference.hpp>
#include <tesla/compress.hpp>
#include <tesla/data/digits.hpp>
#include <tesla/data/mnist.hpp>
#include <tesla/layer/activation.hpp>
#include <tesla/layer/dense.hpp>
#include <tesla/layer/input.hpp>
#include <tesla/layer/sparse_dense.hpp>
#include <tesla/layer/tensor_train.hpp>
#include <tesla/loss/cross_entropy.hpp>
#include <tesla/loss/regression.hpp>
#include <tesla/metric/accuracy.hpp>
#include <tesla/metric/mean_absolute_error.hpp>
#include <tesla/network/tensor_train/algebra.hpp>
#include <tesla/network/tensor_train/modes.hpp>
#include <tesla/optimizer/adam.hpp>
#include <tesla/optimizer/sgd.hpp>
#include <tesla/sequential.hpp>
#include <tesla/train/prune.hpp>
#include <tesla/train/ranks.hpp>
#include <tesla/train/rewire.hpp>
