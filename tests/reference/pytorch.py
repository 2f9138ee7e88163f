#!/usr/bin/env python3
"""Computes reference values in double precision with PyTorch and writes them to pytorch.hpp beside this file.

    pytorch.py [OUTPUT]

Inputs, targets and initial weights are small binary fractions, so that single precision holds them exactly.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

SIZES, BATCH, STEPS = [5, 7, 4, 3], 6, 10
SAMPLES = 2 * BATCH
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

TRAINING = [  # name, optimizer, learning rate, momentum, nesterov, weight decay, clip norm, activation, loss
    ("sgd", "sgd", 0.1, 0, False, 0, 0, "relu", "cross_entropy"),
    ("sgd momentum", "sgd", 0.05, 0.9, False, 0, 0, "relu", "cross_entropy"),
    ("sgd nesterov", "sgd", 0.05, 0.9, True, 0, 0, "relu", "cross_entropy"),
    ("sgd weight decay", "sgd", 0.1, 0, False, 0.01, 0, "relu", "cross_entropy"),
    ("sgd momentum clip", "sgd", 0.1, 0.9, False, 0, 0.5, "relu", "cross_entropy"),
    ("sgd clip now and then", "sgd", 0.1, 0, False, 0, 1.0, "relu", "cross_entropy"),
    ("adam", "adam", 0.02, 0, False, 0, 0, "relu", "cross_entropy"),
    ("adam weight decay", "adam", 0.02, 0, False, 0.01, 0, "relu", "cross_entropy"),
    ("adamw", "adamw", 0.02, 0, False, 0.01, 0, "relu", "cross_entropy"),
    ("tanh mse sgd momentum", "sgd", 0.1, 0.9, False, 0, 0, "tanh", "mse"),
    ("tanh mse adam", "adam", 0.02, 0, False, 0, 0, "tanh", "mse"),
]

ACTIVATIONS = [  # name, parameter, function
    ("relu", 0, torch.relu),
    ("leaky_relu", 0.01, lambda x: F.leaky_relu(x, 0.01)),
    ("elu", 1, lambda x: F.elu(x, 1.0)),
    ("gelu", 0, lambda x: F.gelu(x)),
    ("sigmoid", 0, torch.sigmoid),
    ("tanh", 0, torch.tanh),
    ("softplus", 0, lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    ("softmax", 0, lambda x: torch.softmax(x, 1)),
    ("log_softmax", 0, lambda x: torch.log_softmax(x, 1)),
]

PER_SAMPLE = {  # each gives one loss per sample from (predictions, targets, delta)
    "mse": lambda p, t, _: F.mse_loss(p, t, reduction="none").mean(1),
    "mae": lambda p, t, _: F.l1_loss(p, t, reduction="none").mean(1),
    "huber": lambda p, t, delta: F.huber_loss(p, t, reduction="none", delta=delta).mean(1),
    "binary_cross_entropy": lambda p, t, _: F.binary_cross_entropy(p, t, reduction="none").mean(1),
    "binary_cross_entropy_logits": lambda p, t, _: F.binary_cross_entropy_with_logits(p, t, reduction="none").mean(1),
    "categorical_cross_entropy": lambda p, t, _: -(t * torch.log(p)).sum(1),
    "categorical_cross_entropy_logits": lambda p, t, _: F.cross_entropy(p, t, reduction="none"),
    "label_cross_entropy": lambda p, t, _: F.nll_loss(torch.log(p), t, reduction="none"),
    "label_cross_entropy_logits": lambda p, t, _: F.cross_entropy(p, t, reduction="none"),
}

LOSSES = [  # name, delta, predictions, targets
    ("mse", 0, "values", "value_targets"),
    ("mae", 0, "values", "value_targets"),
    ("huber", 1.0, "values", "value_targets"),
    ("huber", 0.3, "values", "value_targets"),
    ("binary_cross_entropy", 0, "probabilities", "binary_targets"),
    ("binary_cross_entropy_logits", 0, "logits", "binary_targets"),
    ("categorical_cross_entropy", 0, "distributions", "one_hot_targets"),
    ("categorical_cross_entropy_logits", 0, "logits", "one_hot_targets"),
    ("label_cross_entropy", 0, "distributions", "label_targets"),
    ("label_cross_entropy_logits", 0, "logits", "label_targets"),
]

HEAD = """\
// Made by pytorch.py: what PyTorch computes in double precision. Do not edit.
#pragma once

// clang-format off
namespace reference {
"""

TRAINING_NOTE = """\
// Training: a network of dense layers with `activation` between them and none at the end; step s takes the samples of
// batch s % 2. `losses` are those before each update; parameters lie layer by layer, first the weights {out, in}, then
// the biases. Weight decay and clipping cover the biases too; a clip_norm of 0 means no clipping, else the gradient is
// multiplied by min(1, clip_norm / (norm over all parameters + 1e-6)). Adam: 0.9, 0.999, 1e-8.
"""

TRAINING_STRUCT = """\
struct TrainingCase {
  const char* name;
  const char* optimizer;  // sgd, adam, adamw
  double learning_rate, momentum;
  bool nesterov;
  double weight_decay, clip_norm;
  const char* activation;    // relu, tanh
  const char* loss;          // cross_entropy (labels, from logits), mse (targets)
  const double* losses;      // steps
  const double* parameters;  // parameter_count
};
"""

ACTIVATION_NOTE = """\
// Activations: outputs, and gradients with regard to the inputs for the given gradient with regard to the outputs;
// softmax and log_softmax go over the features of a sample.
"""

ACTIVATION_STRUCT = """\
struct ActivationCase {
  const char* name;
  double parameter;  // leaky_relu: slope, elu: alpha
  const double* outputs;
  const double* gradients;
};
"""

LOSS_NOTE = """\
// Losses: the mean over the samples of weight * loss of the sample, and its gradient with regard to the predictions.
// The loss of a sample is the mean over its features for mse, mae, huber and the binary ones, the sum over the classes
// for the others. Without `logits` in the name the predictions are probabilities, taken as they are.
"""

LOSS_STRUCT = """\
struct LossCase {
  const char* name;
  double delta;  // of huber
  const double* predictions;
  const double* targets;  // null where labels are given
  const int* labels;      // null where targets are given
  const double* weights;  // of the samples; null: all 1
  double value;
  const double* gradient;
};
"""


class Random:
    """A small generator of its own, so that the numbers never depend on a library's version."""

    def __init__(self):
        self.state = 12345

    def below(self, bound):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % bound

    def tensor(self, *shape, scale, grain=64):
        """Multiples of scale / grain in [-scale, scale]."""
        count = torch.Size(shape).numel()
        return torch.tensor([(self.below(2 * grain + 1) - grain) * scale / grain for _ in range(count)]).reshape(shape)


def array(name, values, kind="double"):
    values = values.detach().flatten().tolist() if isinstance(values, torch.Tensor) else values
    lines, line = [], " "
    for value in values:
        word = f" {int(value)}," if kind == "int" or value == int(value) else f" {value!r},"
        if len(line) + len(word) > 120:
            lines.append(line)
            line = " "
        line += word
    body = "\n".join(lines + [line]).rstrip(",")
    return f"inline constexpr {kind} {name}[{len(values)}] = {{\n{body}}};\n"


def number(value):
    return repr(int(value)) if value == int(value) else repr(value)


def identifier(name):
    return name.replace(" ", "_")


def train(case, initial, inputs, labels, targets):
    _, optimizer, rate, momentum, nesterov, decay, clip, activation, loss_name = case
    parameters = [p.clone().requires_grad_() for p in initial]
    if optimizer == "sgd":
        rule = torch.optim.SGD(parameters, lr=rate, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    else:
        rule = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer](
            parameters, lr=rate, weight_decay=decay
        )
    function = {"relu": torch.relu, "tanh": torch.tanh}[activation]
    losses, norms = [], []
    for step in range(STEPS):
        chosen = slice(step % 2 * BATCH, (step % 2 + 1) * BATCH)
        x = inputs[chosen]
        for i in range(0, len(parameters), 2):
            x = x @ parameters[i].T + parameters[i + 1]
            if i + 2 < len(parameters):
                x = function(x)
        loss = F.cross_entropy(x, labels[chosen]) if loss_name == "cross_entropy" else F.mse_loss(x, targets[chosen])
        rule.zero_grad()
        loss.backward()
        if clip:
            norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, clip)))
        rule.step()
        losses.append(loss.item())
    if norms:
        print("norms before clipping:", " ".join(f"{norm:.3f}" for norm in norms))
    print(f"{case[0]}: loss {losses[0]:.4f} to {losses[-1]:.4f}")
    return losses, torch.cat([p.detach().flatten() for p in parameters])


def training_data(random):
    initial = []
    for inputs, outputs in zip(SIZES, SIZES[1:]):
        initial += [random.tensor(outputs, inputs, scale=1.0), random.tensor(outputs, scale=0.25, grain=16)]
    inputs = random.tensor(SAMPLES, SIZES[0], scale=2.0)
    labels = torch.tensor([random.below(SIZES[-1]) for _ in range(SAMPLES)])
    return initial, inputs, labels, random.tensor(SAMPLES, SIZES[-1], scale=1.0)


def training(random, out):
    initial, inputs, labels, targets = training_data(random)
    out.append(TRAINING_NOTE)
    out.append(
        f"inline constexpr int layer_sizes[] = {{{', '.join(map(str, SIZES))}}};\n"
        f"inline constexpr int batch = {BATCH}, samples = {SAMPLES}, steps = {STEPS};\n"
        f"inline constexpr int parameter_count = {sum(p.numel() for p in initial)};\n"
    )
    out += [array("inputs", inputs), array("labels", labels, "int"), array("targets", targets)]
    out.append(array("initial_parameters", torch.cat([p.flatten() for p in initial])))
    rows = []
    for case in TRAINING:
        losses, parameters = train(case, initial, inputs, labels, targets)
        name = identifier(case[0])
        out += [array(f"{name}_losses", losses), array(f"{name}_parameters", parameters)]
        rows.append(
            f'    {{"{case[0]}", "{case[1]}", {number(case[2])}, {number(case[3])}, {str(case[4]).lower()}, '
            f'{number(case[5])}, {number(case[6])}, "{case[7]}", "{case[8]}", {name}_losses, {name}_parameters}},'
        )
    out.append(TRAINING_STRUCT)
    out.append("inline constexpr TrainingCase training_cases[] = {\n" + "\n".join(rows) + "\n};\n")


def activations(random, out):
    x = random.tensor(4, 5, scale=4.0) + 1 / 256  # no input at a kink
    x[2, 1], x[3, 3] = 30.0, -30.0
    upstream = random.tensor(4, 5, scale=1.0)
    out.append(ACTIVATION_NOTE)
    out.append("inline constexpr int activation_rows = 4, activation_columns = 5;\n")
    out += [array("activation_inputs", x), array("activation_upstream", upstream)]
    rows = []
    for name, parameter, function in ACTIVATIONS:
        leaf = x.clone().requires_grad_()
        output = function(leaf)
        output.backward(upstream)
        out += [array(f"{name}_outputs", output), array(f"{name}_gradients", leaf.grad)]
        rows.append(f'    {{"{name}", {number(parameter)}, {name}_outputs, {name}_gradients}},')
    out.append(ACTIVATION_STRUCT)
    out.append("inline constexpr ActivationCase activation_cases[] = {\n" + "\n".join(rows) + "\n};\n")


def losses(random, out):
    rows, columns = 4, 3
    weight = torch.tensor([0.5, 2.0, 0.0, 1.25])
    arrays = {
        "values": random.tensor(rows, columns, scale=2.0) + 1 / 256,
        "logits": random.tensor(rows, columns, scale=6.0),
        "probabilities": (random.tensor(rows, columns, scale=0.5, grain=60) + 0.5) * 15 / 16 + 1 / 32,
        "value_targets": random.tensor(rows, columns, scale=1.0),
        "binary_targets": torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 1, 0.0]]),
        "label_targets": torch.tensor([2, 0, 1, 2]),
    }
    # Rows of exact eighths that sum to one.
    arrays["distributions"] = torch.tensor([[1, 2, 5], [3, 4, 1], [2, 2, 4], [6, 1, 1.0]]) / 8
    arrays["one_hot_targets"] = F.one_hot(arrays["label_targets"], columns).double()
    # Single precision holds these probabilities too.
    arrays["probabilities"] = (arrays["probabilities"] * 64).round() / 64
    out.append(LOSS_NOTE)
    out.append(f"inline constexpr int loss_rows = {rows}, loss_columns = {columns};\n")
    out += [
        array(f"loss_{name}", values, "int" if name == "label_targets" else "double") for name, values in arrays.items()
    ]
    out.append(array("loss_weights", weight))
    table = []
    for name, delta, predictions, targets in LOSSES:
        for weighted in (False, True):
            leaf = arrays[predictions].clone().requires_grad_()
            each = PER_SAMPLE[name](leaf, arrays[targets], delta)
            value = (each * weight).mean() if weighted else each.mean()
            value.backward()
            key = name + (f"_{delta:g}".replace(".", "_") if delta else "") + ("_weighted" if weighted else "")
            out.append(array(f"{key}_gradient", leaf.grad))
            pointers = ("nullptr", f"loss_{targets}") if targets == "label_targets" else (f"loss_{targets}", "nullptr")
            table.append(
                f'    {{"{name}", {number(delta)}, loss_{predictions}, {pointers[0]}, {pointers[1]}, '
                f"{'loss_weights' if weighted else 'nullptr'}, {value.item()!r}, {key}_gradient}},"
            )
    out.append(LOSS_STRUCT)
    out.append("inline constexpr LossCase loss_cases[] = {\n" + "\n".join(table) + "\n};\n")


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("pytorch.hpp")
    random = Random()
    out = [HEAD]
    training(random, out)
    activations(random, out)
    losses(random, out)
    out.append("}  // namespace reference\n// clang-format on\n")
    path.write_text("\n".join(out))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
