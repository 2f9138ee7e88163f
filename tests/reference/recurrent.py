#!/usr/bin/env python3
"""Computes what PyTorch's recurrent layers give, in double precision, and writes it to recurrent.hpp beside this file.

    recurrent.py [OUTPUT]

Of PyTorch's two biases only one is a parameter here, but for the candidate of GRU: the others stay 0. PyTorch has no
masks, so with masks its cells are called step by step, and a step without values keeps what was there.
"""

import sys
from pathlib import Path

import torch
from pytorch import Random, array
from torch import nn

LENGTH, FEATURES, UNITS, BATCH, STEPS, RATE = 5, 3, 4, 6, 10, 0.5
KINDS = {"SimpleRNN": (nn.RNN, 1), "LSTM": (nn.LSTM, 4), "GRU": (nn.GRU, 3)}
CASES = [  # kind, sequences, bidirectional, masks
    (kind, sequences, both, masks)
    for kind in KINDS
    for sequences, both, masks in ((False, False, False), (True, False, False), (True, True, False), (False, True, True))
]

HEAD = """\
// Made by recurrent.py: what PyTorch computes in double precision. Do not edit.
#pragma once

// clang-format off
namespace reference::recurrent {

// One layer, trained by gradient descent at rate 0.5 on the mean squared error of its outputs, always on the same batch.
// Parameters lie as TESLA has them: weights, recurrent weights, biases, of GRU the bias of the recurrent share of the
// candidate, and then those of the second direction. `gradient` is that of the first step, `input_gradient` too.
"""

STRUCT = """\
struct Case {
  const char* kind;
  bool sequences, bidirectional, masks;
  const double* inputs;   // {batch, length, features}
  const double* targets;  // as the outputs
  const double* initial;  // parameters
  const double* outputs;  // {batch, length or 1, outputs}
  const double* gradient;
  const double* input_gradient;
  const double* trained;  // after ten steps
  const double* losses;   // before each of them
  int parameters, values;  // how many
};
"""


def parameters_of(layer, kind, both):
    """The parameters in the order of TESLA, each a leaf or a part of one."""
    result = []
    for suffix in ("", "_reverse")[: 1 + both]:
        get = lambda name: getattr(layer, f"{name}_l0{suffix}")
        result += [get("weight_ih"), get("weight_hh"), get("bias_ih")]
        if kind == "GRU":
            result.append(get("bias_hh")[2 * UNITS :])
    return result


def gradients_of(layer, kind, both):
    result = []
    for suffix in ("", "_reverse")[: 1 + both]:
        get = lambda name: getattr(layer, f"{name}_l0{suffix}").grad
        result += [get("weight_ih"), get("weight_hh"), get("bias_ih")]
        if kind == "GRU":
            result.append(get("bias_hh")[2 * UNITS :])
    return result


def flat(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


def cell_step(kind, x, h, c, w, u, b, q):
    if kind == "SimpleRNN":
        return torch.tanh(x @ w.T + b + h @ u.T + q), c
    gates, recurrent = x @ w.T + b, h @ u.T + q
    if kind == "LSTM":
        i, f, g, o = (gates + recurrent).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    (a, b, n), (p, s, t) = gates.chunk(3, 1), recurrent.chunk(3, 1)
    r, z = torch.sigmoid(a + p), torch.sigmoid(b + s)
    return (1 - z) * torch.tanh(n + r * t) + z * h, c


def masked(layer, kind, both, x):
    """The last outputs, where steps of zeros keep the state."""
    ends = []
    for suffix in ("", "_reverse")[: 1 + both]:
        weights = [getattr(layer, f"{n}_l0{suffix}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        h = c = torch.zeros(BATCH, UNITS)
        for t in range(LENGTH)[:: -1 if suffix else 1]:
            live = (x[:, t] != 0).any(1, keepdim=True)
            h_new, c_new = cell_step(kind, x[:, t], h, c, *weights)
            h, c = torch.where(live, h_new, h), torch.where(live, c_new, c)
        ends.append(h)
    return torch.cat(ends, 1)


def forward(layer, case, x):
    kind, sequences, both, masks = case
    if masks:
        return masked(layer, kind, both, x)
    output, end = layer(x)
    if sequences:
        return output
    return (end[0] if kind == "LSTM" else end).transpose(0, 1).reshape(BATCH, -1)


def run(case, random, out):
    kind, sequences, both, masks = case
    make, gates = KINDS[kind]
    layer = make(FEATURES, UNITS, batch_first=True, bidirectional=both)
    for name, p in layer.named_parameters():
        with torch.no_grad():
            p.copy_(random.tensor(*p.shape, scale=1.0))
            if "bias_hh" in name:  # what would be there twice
                p[: 2 * UNITS if kind == "GRU" else None] = 0
    x = random.tensor(BATCH, LENGTH, FEATURES, scale=2.0)
    if masks:
        x[0, 3:], x[1, 1:4], x[2, :], x[3, 0] = 0, 0, 0, 0  # the third sample has nothing at all
    x.requires_grad_()
    outputs = forward(layer, case, x)
    targets = random.tensor(*outputs.shape, scale=1.0)
    name = f"{kind}_{int(sequences)}{int(both)}{int(masks)}".lower()
    initial, losses, gradient = flat(parameters_of(layer, kind, both)), [], None
    for step in range(STEPS):
        layer.zero_grad()
        x.grad = None
        loss = torch.nn.functional.mse_loss(forward(layer, case, x), targets)
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            gradient, input_gradient = flat(gradients_of(layer, kind, both)), x.grad.clone()
        with torch.no_grad():
            for key, p in layer.named_parameters():
                if "bias_hh" in key:
                    p.grad[: 2 * UNITS if kind == "GRU" else None] = 0
                p -= RATE * p.grad
    print(f"{name}: loss {losses[0]:.4f} to {losses[-1]:.4f}")
    out += [array(f"{name}_inputs", x), array(f"{name}_targets", targets), array(f"{name}_initial", initial)]
    out += [array(f"{name}_outputs", outputs), array(f"{name}_gradient", gradient)]
    out += [array(f"{name}_input_gradient", input_gradient), array(f"{name}_losses", losses)]
    out.append(array(f"{name}_trained", flat(parameters_of(layer, kind, both))))
    flags = ", ".join(str(flag).lower() for flag in (sequences, both, masks))
    parts = ("inputs", "targets", "initial", "outputs", "gradient", "input_gradient", "trained", "losses")
    pointers = ", ".join(f"{name}_{part}" for part in parts)
    return f'    {{"{kind}", {flags}, {pointers}, {initial.numel()}, {targets.numel()}}},'


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("recurrent.hpp")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    random, out = Random(), [HEAD]
    sizes = {"length": LENGTH, "features": FEATURES, "units": UNITS, "batch": BATCH, "steps": STEPS}
    out.append("inline constexpr int " + ", ".join(f"{name} = {value}" for name, value in sizes.items()) + ";\n")
    rows = [run(case, random, out) for case in CASES]
    out.append(STRUCT)
    out.append("inline constexpr Case cases[] = {\n" + "\n".join(rows) + "\n};\n")
    out.append("}  // namespace reference::recurrent\n// clang-format on\n")
    path.write_text("\n".join(out))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
