// All kinds of layers, for programs that load whatever model a file holds: Sequential::load<tesla::AllLayers>(path).
#pragma once

#include <tesla/layer/activation.hpp>
#include <tesla/layer/attention.hpp>
#include <tesla/layer/compressed_attention.hpp>
#include <tesla/layer/connections.hpp>
#include <tesla/layer/convolution.hpp>
#include <tesla/layer/dense.hpp>
#include <tesla/layer/embedding.hpp>
#include <tesla/layer/input.hpp>
#include <tesla/layer/noise.hpp>
#include <tesla/layer/normalisation.hpp>
#include <tesla/layer/pooling.hpp>
#include <tesla/layer/positions.hpp>
#include <tesla/layer/recurrent.hpp>
#include <tesla/layer/sparse_dense.hpp>
#include <tesla/layer/structure.hpp>
#include <tesla/layer/tensor_train.hpp>
#include <tesla/layer/tensor_train_convolution.hpp>
#include <tesla/layer/tensor_train_embedding.hpp>
#include <tesla/layer/tensor_train_recurrent.hpp>
#include <tesla/layer/time_distributed.hpp>
#include <tesla/layer/transposed_convolution.hpp>
#include <tesla/model/layers.hpp>

namespace tesla::inline TESLA_TARGET {

using AllLayers = model::LayerList<Activation, layer::Sum, layer::Concatenate, Conv1D, Conv2D, Dense, Embedding, Input,
                                   Flatten, Dropout, GaussianNoise, BatchNorm, LayerNorm, RMSNorm, GroupNorm, MaxPool1D,
                                   MaxPool2D, AveragePool1D, AveragePool2D, GlobalMaxPool, GlobalAveragePool, SimpleRNN,
                                   LSTM, GRU, TimeDistributed<Dense>, SparseDense, Reshape, Permute, ZeroPad2D,
                                   UpSample2D, TensorTrain, TensorTrainConv2D, TensorTrainEmbedding, TransposedConv2D,
                                   TensorTrainSimpleRNN, TensorTrainLSTM, TensorTrainGRU, MultiHeadAttention,
                                   CrossAttention, TensorTrainMultiHeadAttention, SparseMultiHeadAttention, Positions>;

}  // namespace tesla::inline TESLA_TARGET
