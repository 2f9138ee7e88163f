#!/usr/bin/env python3
"""Computes what a small transformer does in PyTorch, in double precision, and writes it to transformer.hpp beside this
file.

    transformer.py [OUTPUT]

The first block is PyTorch's own layer. It has none that turns queries and keys or shares heads of keys, so the second
block is written out here. Inputs and initial weights are small binary fractions, so that single precision holds them
exactly; gradients are rounded to 13 places, to keep the file small.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from pytorch import Random, array
from torch import nn

LENGTH, FEATURES, HEADS, KEY_HEADS, HIDDEN, CLASSES = 10, 8, 2, 1, 16, 4
WIDTH, BASE, BATCH, STEPS, RATE = FEATURES // HEADS, 10000, 3, 10, 0.01
SAMPLES = 2 * BATCH

HEAD = """\
// Made by transformer.py: what PyTorch computes in double precision. Do not edit.
#pragma once

// clang-format off
namespace reference::transformer {

// Two blocks, norms first, causal, with GELU; the second turns queries and keys by their places, and its heads share
// keys and values. Then the mean of all tokens and a dense layer, with cross-entropy. Step s takes the samples of batch
// s % 2, `gradients` are those of the first one, and `losses` are those before each step of Adam. `outputs` are those
// before training, `predictions` those after it. Parameters lie in TESLA's order: of a block a norm, query, key, value
// and output, each with weights {out, in} and bias, a norm, and two dense layers.
"""


class RotaryBlock(nn.Module):
    """As the first block is, but that heads read fewer heads of keys, and that places turn queries and keys."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(FEATURES), nn.LayerNorm(FEATURES)
        self.query, self.output = nn.Linear(FEATURES, HEADS * WIDTH), nn.Linear(HEADS * WIDTH, FEATURES)
        self.key, self.value = nn.Linear(FEATURES, KEY_HEADS * WIDTH), nn.Linear(FEATURES, KEY_HEADS * WIDTH)
        self.linear1, self.linear2 = nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, FEATURES)

    @staticmethod
    def turned(x):
        """The pair of features 2 i and 2 i + 1 of token t by the angle t / BASE^(2 i / WIDTH)."""
        angles = torch.outer(torch.arange(LENGTH), float(BASE) ** (-torch.arange(0, WIDTH, 2) / WIDTH))
        a, b = x[..., 0::2], x[..., 1::2]
        turned = a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()
        return torch.stack(turned, -1).flatten(-2)

    def attention(self, x):
        split = lambda y: y.unflatten(-1, (-1, WIDTH)).transpose(1, 2)  # {batch, heads, tokens, width}
        q, k, v = (split(layer(x)) for layer in (self.query, self.key, self.value))
        k, v = (y.repeat_interleave(HEADS // KEY_HEADS, 1) for y in (self.turned(k), v))
        scores = self.turned(q) @ k.transpose(2, 3) / WIDTH**0.5
        later = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        return self.output((weights @ v).transpose(1, 2).flatten(2))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.TransformerEncoderLayer(
            FEATURES, HEADS, HIDDEN, dropout=0, activation=F.gelu, batch_first=True, norm_first=True
        )
        self.second = RotaryBlock()
        self.dense = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=x.dtype)
        return self.dense(self.second(self.first(x, mask, is_causal=True)).mean(1))

    def in_order(self, of=lambda p: p):
        """The parameters, or what belongs to them, as TESLA has them: {name: values}."""
        first, second = self.first, self.second
        attention, result = first.self_attn, {}

        def norm(name, layer):
            result[f"{name}.scale"], result[f"{name}.shift"] = of(layer.weight), of(layer.bias)

        def linear(name, layer):
            result[f"{name}.weight"], result[f"{name}.bias"] = of(layer.weight), of(layer.bias)

        norm("first.norm1", first.norm1)
        weights, biases = of(attention.in_proj_weight).chunk(3), of(attention.in_proj_bias).chunk(3)
        for name, weight, bias in zip(("query", "key", "value"), weights, biases):
            result[f"first.{name}.weight"], result[f"first.{name}.bias"] = weight, bias
        linear("first.output", attention.out_proj)
        norm("first.norm2", first.norm2)
        linear("first.linear1", first.linear1)
        linear("first.linear2", first.linear2)
        norm("second.norm1", second.norm1)
        for name in ("query", "key", "value", "output"):
            linear(f"second.{name}", getattr(second, name))
        norm("second.norm2", second.norm2)
        linear("second.linear1", second.linear1)
        linear("second.linear2", second.linear2)
        linear("dense", self.dense)
        return result


def flat(parameters):
    return torch.cat([p.detach().flatten() for p in parameters.values()])


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("transformer.hpp")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    random, net = Random(), Transformer()
    with torch.no_grad():
        for name, p in net.in_order().items():
            far = name.endswith(("query.weight", "key.weight"))  # so that tokens are told apart
            p.copy_(random.tensor(*p.shape, scale=1.0 if far else 0.5, grain=8) + name.endswith("scale"))
    inputs = random.tensor(SAMPLES, LENGTH, FEATURES, scale=2.0, grain=16)
    labels = torch.tensor([random.below(CLASSES) for _ in range(SAMPLES)])
    initial, outputs, losses = flat(net.in_order()), net(inputs), []
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    for step in range(STEPS):
        chosen = slice(step % 2 * BATCH, (step % 2 + 1) * BATCH)
        optimizer.zero_grad()
        loss = F.cross_entropy(net(inputs[chosen]), labels[chosen])
        loss.backward()
        if step == 0:
            gradients = net.in_order(lambda p: p.grad.clone())
        optimizer.step()
        losses.append(loss.item())
    for name, gradient in gradients.items():
        print(f"{name}: gradients up to {gradient.abs().max():.2g}")
    print(f"{len(initial)} parameters, loss {losses[0]:.4f} to {losses[-1]:.4f}")
    sizes = {"length": LENGTH, "features": FEATURES, "heads": HEADS, "key_heads": KEY_HEADS, "hidden": HIDDEN}
    counts = {"classes": CLASSES, "samples": SAMPLES, "batch": BATCH, "steps": STEPS, "parameters": len(initial)}
    constants = lambda numbers: ", ".join(f"{name} = {value}" for name, value in numbers.items())
    out = [
        HEAD,
        f"inline constexpr int {constants(sizes)};",
        f"inline constexpr int {constants(counts)};",
        f"inline constexpr double learning_rate = {RATE};\n",
        array("inputs", inputs),
        array("labels", labels, "int"),
        array("initial", initial),
        array("outputs", outputs),
        array("gradients", [round(value, 13) for value in flat(gradients).tolist()]),
        array("losses", losses),
        array("predictions", net(inputs)),
        "}  // namespace reference::transformer\n// clang-format on\n",
    ]
    path.write_text("\n".join(out))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
