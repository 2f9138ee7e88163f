#!/usr/bin/env python3
"""Computes ten steps of PyTorch's Embedding under SparseAdam and SGD, in double precision: embedding.hpp beside this.

    embedding.py [OUTPUT]
"""

import sys
from pathlib import Path

import torch
from pytorch import Random, array

TOKENS, UNITS, LENGTH, BATCH, STEPS, PADDING = 12, 3, 4, 6, 10, 2

HEAD = """\
// Made by embedding.py: what PyTorch computes in double precision. Do not edit.
#pragma once

// clang-format off
namespace reference::embedding {

// A table of 12 vectors of 3 values, of which number 2 is padding, trained on the mean squared error of what is looked
// up, by gradient descent at rate 0.5 and by lazy Adam (SparseAdam) at rate 0.1 and epsilon 1e-20; step s takes batch s % 2. Token 11 is
// in no batch, tokens 9 and 10 in one of them.
"""


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("embedding.hpp")
    torch.set_default_dtype(torch.float64)
    random, out = Random(), [HEAD]
    table = random.tensor(TOKENS, UNITS, scale=1.0)
    table[PADDING] = 0
    tokens = torch.tensor([random.below(TOKENS - 3) for _ in range(2 * BATCH * LENGTH)]).reshape(2, BATCH, LENGTH)
    tokens[0, 1, 2], tokens[0, 3, 0], tokens[1, 0, 0] = 9, PADDING, 10
    targets = random.tensor(2, BATCH, LENGTH, UNITS, scale=1.0)
    sizes = {"tokens": TOKENS, "units": UNITS, "length": LENGTH, "batch": BATCH, "steps": STEPS, "padding": PADDING}
    out.append("inline constexpr int " + ", ".join(f"{name} = {value}" for name, value in sizes.items()) + ";\n")
    out += [array("numbers", tokens, "int"), array("targets", targets), array("initial", table)]
    for name in ("sgd", "adam"):
        layer = torch.nn.Embedding(TOKENS, UNITS, padding_idx=PADDING, sparse=True)
        with torch.no_grad():
            layer.weight.copy_(table)
        rule = (
            torch.optim.SGD(layer.parameters(), lr=0.5)
            if name == "sgd"
            else torch.optim.SparseAdam(layer.parameters(), lr=0.1, eps=1e-20)
        )
        losses = []
        for step in range(STEPS):
            loss = torch.nn.functional.mse_loss(layer(tokens[step % 2]), targets[step % 2])
            rule.zero_grad()
            loss.backward()
            rule.step()
            losses.append(loss.item())
        print(f"{name}: loss {losses[0]:.4f} to {losses[-1]:.4f}")
        out += [array(f"{name}_losses", losses), array(f"{name}_trained", layer.weight)]
    out.append("}  // namespace reference::embedding\n// clang-format on\n")
    path.write_text("\n".join(out))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
