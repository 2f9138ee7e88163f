#!/usr/bin/env python3
"""Computes what networks of convolutions, pooling and norms do in PyTorch, in double precision, and writes it to
layers.hpp beside this file.

    layers.py [OUTPUT]

Inputs, targets and initial weights are small binary fractions, so that single precision holds them exactly. All arrays
are in TESLA's order: images of {height, width, channels}, filters of {filters, rows, columns, channels}.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from pytorch import Random, array

BATCH, STEPS = 6, 10
SAMPLES = 2 * BATCH

HEAD = """\
// Made by layers.py: what PyTorch computes in double precision. Do not edit.
#pragma once

// clang-format off
namespace reference {

// Networks of layers. `outputs` are those of eval() before training, `gradients` those of the first step; step s takes
// the samples of batch s % 2, and `losses` are those before each update. Parameters lie in the order of the layers, and
// of the parameters of each; running statistics have gradients of 0. `predictions` are those of eval() after training.
struct LayerCase {
  const char* name;
  int samples, batch, steps, classes;  // classes: of labels, or the values of a target
  int parameter_count;
  const double* inputs;
  const int* labels;      // null where there are targets
  const double* targets;  // null where there are labels
  const double* initial_parameters;
  const double* outputs;
  const double* gradients;
  const double* losses;
  const double* parameters;
  const double* predictions;
};
"""


class Layers:
    """A network under construction: functions of (x, training), and the parameters that they take from the front."""

    def __init__(self, random):
        self.random, self.steps, self.parameters = random, [], []

    def parameter(self, *shape, scale=0.5, around=0.0, learned=True):
        value = self.random.tensor(*shape, scale=scale, grain=32) + around if scale else torch.full(shape, around)
        self.parameters.append(value.requires_grad_(learned))
        return value

    def convolution(self, channels, filters, kernel, groups=1, bias=True, pad=(0, 0, 0, 0), **options):
        """pad: top, bottom, left, right; of a signal left, right."""
        function = F.conv2d if len(kernel) == 2 else F.conv1d
        weight = self.parameter(filters, *kernel, channels // groups)
        offset = self.parameter(filters, scale=0.25) if bias else None
        order = (0, len(kernel) + 1, *range(1, len(kernel) + 1))
        sides = (*pad[2:], *pad[:2]) if len(kernel) == 2 else pad[:2]

        def run(x, training):
            return function(F.pad(x, sides), weight.permute(order), offset, groups=groups, **options)

        self.steps.append(run)

    def batch_norm(self, channels, momentum):
        mean = self.parameter(channels, scale=0, learned=False)
        variance = self.parameter(channels, scale=0, around=1.0, learned=False)
        scale, shift = self.parameter(channels, around=1.0), self.parameter(channels)

        def run(x, training):
            return F.batch_norm(x, mean, variance, scale, shift, training, 1 - momentum, 1e-5)

        self.steps.append(run)

    def norm(self, kind, channels, groups=1, shift=True):
        scale = self.parameter(channels, around=1.0)
        offset = self.parameter(channels) if shift else None

        def run(x, training):
            if kind == "group":
                return F.group_norm(x, groups, scale, offset, 1e-5)
            x = x.movedim(1, -1)
            if kind == "layer":
                x = F.layer_norm(x, (channels,), scale, offset, 1e-5)
            else:
                x = F.rms_norm(x, (channels,), scale, 1e-5)
            return x.movedim(-1, 1)

        self.steps.append(run)

    def dense(self, inputs, units):
        weight, bias = self.parameter(units, inputs), self.parameter(units, scale=0.25)
        self.steps.append(lambda x, training: F.linear(x, weight, bias))

    def apply(self, function):
        self.steps.append(lambda x, training: function(x))

    def flatten(self):
        self.apply(lambda x: x.movedim(1, -1).flatten(1))

    def __call__(self, x, training):
        x = x.movedim(-1, 1)
        for step in self.steps:
            x = step(x, training)
        return x

    def values(self, of=lambda p: p):
        return torch.cat([of(p).detach().flatten() for p in self.parameters])


def batch_norm_and_pooling(random):
    """conv, batch norm, leaky ReLU, max pool; conv with ReLU, max pool; dense."""
    net = Layers(random)
    net.convolution(2, 4, (3, 3), pad=(1, 1, 1, 1), bias=False)
    net.batch_norm(4, 0.75)
    net.apply(lambda x: F.leaky_relu(x, 0.1))
    net.apply(lambda x: F.max_pool2d(x, 2))
    net.convolution(4, 5, (2, 2))
    net.apply(torch.relu)
    net.apply(lambda x: F.max_pool2d(x, (2, 3), (1, 1)))
    net.flatten()
    net.dense(2 * 1 * 5, 3)
    return net, (8, 9, 2), 3, True, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)


def strides_and_groups(random):
    """Strides, groups, borders, single channels, layer and group norm, mean pools."""
    net = Layers(random)
    net.convolution(4, 8, (3, 3), groups=2, stride=(2, 1), pad=(1, 0, 2, 1))
    net.apply(torch.tanh)
    net.norm("layer", 8)
    net.convolution(8, 8, (3, 3), groups=8, dilation=(1, 2), pad=(1, 1, 2, 2))
    net.apply(F.gelu)
    net.apply(lambda x: F.avg_pool2d(x, (2, 3), (1, 2), (1, 1), count_include_pad=False))
    net.norm("group", 8, groups=4)
    net.apply(lambda x: x.mean((2, 3)))
    net.dense(8, 3)
    return net, (9, 8, 4), 3, False, lambda p: torch.optim.Adam(p, lr=0.01)


def signals(random):
    """Signals: a dilated convolution, RMS norm, batch norm, pools of both kinds."""
    net = Layers(random)
    net.convolution(3, 6, (3,), dilation=2, pad=(2, 2))
    net.norm("rms", 6, shift=False)
    net.convolution(6, 4, (4,), stride=2, pad=(2, 1), bias=False)
    net.apply(F.elu)
    net.apply(lambda x: F.max_pool1d(x, 3, 2, 1))
    net.batch_norm(4, 0.9)
    net.apply(lambda x: F.avg_pool1d(x, 2, 1))
    net.apply(lambda x: x.amax(2))
    net.dense(4, 4)
    return net, (17, 3), 4, True, lambda p: torch.optim.SGD(p, lr=0.1)


def case(make, random, out, rows):
    net, shape, classes, labelled, optimizer_of = make(random)
    inputs = random.tensor(SAMPLES, *shape, scale=2.0)
    labels = torch.tensor([random.below(classes) for _ in range(SAMPLES)])
    targets = random.tensor(SAMPLES, classes, scale=1.0)
    name = make.__name__
    out.append(array(f"{name}_inputs", inputs))
    out.append(array(f"{name}_labels", labels, "int") if labelled else array(f"{name}_targets", targets))
    out.append(array(f"{name}_initial_parameters", net.values()))
    with torch.no_grad():
        out.append(array(f"{name}_outputs", net(inputs, False)))
    optimizer = optimizer_of([p for p in net.parameters if p.requires_grad])
    losses = []
    for step in range(STEPS):
        chosen = slice(step % 2 * BATCH, (step % 2 + 1) * BATCH)
        y = net(inputs[chosen], True)
        loss = F.cross_entropy(y, labels[chosen]) if labelled else F.mse_loss(y, targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            gradients = net.values(lambda p: torch.zeros_like(p) if p.grad is None else p.grad)
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        predictions = net(inputs, False)
    out += [array(f"{name}_gradients", gradients), array(f"{name}_losses", losses)]
    out += [array(f"{name}_parameters", net.values()), array(f"{name}_predictions", predictions)]
    print(f"{name}: {len(net.values())} parameters, loss {losses[0]:.4f} to {losses[-1]:.4f}")
    given = (f"{name}_labels", "nullptr") if labelled else ("nullptr", f"{name}_targets")
    arrays = ", ".join(f"{name}_{what}" for what in ("outputs", "gradients", "losses", "parameters", "predictions"))
    rows.append(
        f'    {{"{name}", {SAMPLES}, {BATCH}, {STEPS}, {classes}, {len(net.values())}, {name}_inputs, {given[0]}, '
        f"{given[1]}, {name}_initial_parameters, {arrays}}},"
    )


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("layers.hpp")
    random = Random()
    out, rows = [HEAD], []
    for make in (batch_norm_and_pooling, strides_and_groups, signals):
        case(make, random, out, rows)
    out.append("inline constexpr LayerCase layer_cases[] = {\n" + "\n".join(rows) + "\n};\n")
    out.append("}  // namespace reference\n// clang-format on\n")
    path.write_text("\n".join(out))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
