// Attention whose projections are tensor-trains, or have sparse weights.
#pragma once

#include <tesla/layer/attention.hpp>
#include <tesla/layer/sparse_dense.hpp>
#include <tesla/layer/tensor_train.hpp>
#include <tesla/network/tensor_train/modes.hpp>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct TensorTrainMultiHeadAttentionOptions {
  std::size_t heads = 1;
  std::size_t key_heads = 0;
  std::size_t width = 0;
  std::size_t cores = 2;  // of each projection; its sizes are written as so many even factors
  std::size_t rank = 0;   // between all cores; larger than it can be is cut to what it can be
  attention::Pattern pattern = {};
  bool causal = false;
  bool rotary = false;
  double rotary_base = 10000;
  bool masking = false;
  double mask_value = 0;
  double dropout = 0;
  bool use_bias = true;
  init::Initializer initializer = init::orthogonal;
  init::Initializer bias_initializer = init::zeros;
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept

  [[gnu::cold]] TensorTrain projection(std::size_t from, std::size_t to) const {
    const auto modes = [&](std::size_t size) {
      const network::FactoredModes result = network::factor_modes(size, cores);
      if (result.padding != 0)
        raise<UsageError>("writes its ", size, " features as a product of ", cores,
                          " modes, which does not come out even; take other features, heads or .cores");
      return result.modes;
    };
    if (rank == 0) raise<UsageError>("needs a .rank of 1 or more");
    return TensorTrain({.in = modes(from),
                        .out = modes(to),
                        .rank = rank,
                        .use_bias = use_bias,
                        .initializer = initializer,
                        .bias_initializer = bias_initializer});
  }
  void fields_of_projection(auto&& field) {
    field("cores", cores);
    field("rank", rank);
  }
};

struct SparseMultiHeadAttentionOptions {
  std::size_t heads = 1;
  std::size_t key_heads = 0;
  std::size_t width = 0;
  double density = 0.1;      // live weights of each projection, of all
  sparse::Block block = {};  // weights that live together; {4, 1} is the fastest
  attention::Pattern pattern = {};
  bool causal = false;
  bool rotary = false;
  double rotary_base = 10000;
  bool masking = false;
  double mask_value = 0;
  double dropout = 0;
  bool use_bias = true;
  init::Initializer initializer = init::glorot_uniform;
  init::Initializer bias_initializer = init::zeros;
  std::string name = {};
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept

  [[gnu::cold]] SparseDense projection(std::size_t, std::size_t to) const {
    return SparseDense({.units = to,
                        .density = density,
                        .block = block,
                        .use_bias = use_bias,
                        .initializer = initializer,
                        .bias_initializer = bias_initializer});
  }
  void fields_of_projection(auto&& field) {
    field("density", density);
    field("block_rows", block.rows);
    field("block_columns", block.columns);
  }
};

/// MultiHeadAttention with tensor-trains for the four matrices.
struct TensorTrainMultiHeadAttention : detail::Attending<TensorTrainMultiHeadAttentionOptions, false> {
  static constexpr std::string_view kind = "TensorTrainMultiHeadAttention";
  static constexpr bool step_by_step = true;
  using Attending::Attending;
};

/// MultiHeadAttention with sparse weights in the four matrices, at places that stay.
struct SparseMultiHeadAttention : detail::Attending<SparseMultiHeadAttentionOptions, false> {
  static constexpr std::string_view kind = "SparseMultiHeadAttention";
  static constexpr bool step_by_step = true;
  using Attending::Attending;
};

}  // namespace layer

using layer::SparseMultiHeadAttention;
using layer::TensorTrainMultiHeadAttention;

}  // namespace tesla::inline TESLA_TARGET
