// The block that transformers are stacked of.
#pragma once

#include <tesla/layer/attention.hpp>
#include <tesla/layer/connections.hpp>
#include <tesla/layer/dense.hpp>
#include <tesla/layer/normalisation.hpp>
#include <tesla/layer/time_distributed.hpp>

namespace tesla::inline TESLA_TARGET {

namespace layer {

struct TransformerBlockOptions {
  std::size_t features = 0;  // of a token
  std::size_t heads = 1;
  std::size_t key_heads = 0;        // 0: as many as heads
  std::size_t hidden = 0;           // units between the two dense layers; 0: four times the features
  attention::Pattern pattern = {};  // which tokens each reads
  bool causal = false;
  bool rotary = false;  // places are told by turning queries and keys
  Activation activation = gelu;
  bool checkpoint_gradients = false;  // what it needs for gradients is made again, not kept
};

/// x + attention(norm(x)), and then y + dense(f(dense(norm(y)))), each token by itself: norms come first (Xiong et al.,
/// "On layer normalization in the transformer architecture", 2020).
[[gnu::cold]] inline auto TransformerBlock(const TransformerBlockOptions& o) {
  if (o.features == 0) raise<UsageError>("TransformerBlock: needs .features, the numbers of a token, to be 1 or more");
  const std::size_t hidden = o.hidden != 0 ? o.hidden : checked_product(4, o.features);
  const MultiHeadAttention attention(
      {.heads = o.heads, .key_heads = o.key_heads, .pattern = o.pattern, .causal = o.causal, .rotary = o.rotary});
  const TimeDistributed<Dense> wide(Dense({.units = hidden, .activation = o.activation}));
  const TimeDistributed<Dense> narrow(Dense({.units = o.features}));
  Chain block(Residual(LayerNorm(), attention), Residual(LayerNorm(), wide, narrow));
  block.checkpoint_gradients = o.checkpoint_gradients;
  return block;
}

}  // namespace layer

using layer::TransformerBlock;

}  // namespace tesla::inline TESLA_TARGET
