#!/usr/bin/env python3
"""Computes losses and their gradients in double precision with PyTorch, and writes them to pytorch.hpp beside this file.

    pytorch.py [OUTPUT]

Needs torch; the tests do not. Inputs are small binary fractions, so that single precision holds them exactly.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

ROWS, COLUMNS = 5, 4
torch.set_default_dtype(torch.float64)

HEAD = """\
// Made by pytorch.py: what PyTorch computes in double precision. Do not edit.
//
// The mean over the samples of what each costs, and its gradient with regard to the predictions.
#pragma once

// clang-format off
namespace torch_losses {

struct Case {
  const char* name;
  double gamma, alpha;  // of focal
  const double* predictions;
  const double* targets;  // null where labels are given
  const int* labels;
  double value;
  const double* gradient;
};
"""


class Random:
    """A small generator of its own, so that the numbers never depend on a library's version."""

    def __init__(self, seed=77):
        self.state = seed

    def below(self, bound):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % bound

    def tensor(self, scale, grain=64):
        """Multiples of scale / grain in [-scale, scale]."""
        numbers = [(self.below(2 * grain + 1) - grain) * scale / grain for _ in range(ROWS * COLUMNS)]
        return torch.tensor(numbers).reshape(ROWS, COLUMNS)


def array(name, values, kind="double"):
    words = [repr(int(v)) if v == int(v) else repr(v) for v in values.detach().flatten().tolist()]
    lines, line = [], " "
    for word in words:
        if len(line) + len(word) + 2 > 120:
            lines.append(line)
            line = " "
        line += f" {word},"
    body = "\n".join(lines + [line]).rstrip(",")
    return f"inline constexpr {kind} {name}[{len(words)}] = {{\n{body}}};\n"


def focal(p, t, cost, gamma, alpha):
    """Formula (5) of Lin et al. 2017, as torchvision writes it."""
    p_t = p * t + (1 - p) * (1 - t)
    return ((alpha * t + (1 - alpha) * (1 - t)) * (1 - p_t) ** gamma * cost).mean()


def focal_of_classes(log_p, labels, gamma):
    log_p = log_p[torch.arange(ROWS), labels]
    return -((1 - log_p.exp()) ** gamma * log_p).mean()


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("pytorch.hpp")
    random = Random()
    arrays = {
        "logits": random.tensor(6.0),
        "values": random.tensor(2.0) + 1 / 256,
        "value_targets": random.tensor(1.0) + 1 / 512,
        "chances": (random.tensor(28.0, 28) + 32) / 64,
        "signs": torch.where(random.tensor(1.0) > 0, 1.0, -1.0),
        "labels": torch.tensor([2, 0, 3, 1, 2]),
        "distributions": torch.tensor([[1, 2, 5, 8], [3, 4, 1, 8], [2, 2, 4, 8], [6, 1, 1, 8], [10, 3, 2, 1.0]]) / 16,
        "distribution_targets": torch.tensor([[4, 4, 4, 4], [0, 0, 16, 0], [7, 2, 4, 3], [0, 8, 8, 0], [1, 1, 1, 13.0]])
        / 16,
    }
    arrays["answers"] = (arrays["signs"] + 1) / 2
    a = arrays
    ones = torch.ones(ROWS)
    cases = []
    for gamma, alpha in ((2, 0.25), (0, 0.5), (0.5, 0.75)):
        cases += [
            (
                "focal_logits", gamma, alpha, "logits", "answers",
                lambda y, t, g=gamma, w=alpha: focal(
                    torch.sigmoid(y), t, F.binary_cross_entropy_with_logits(y, t, reduction="none"), g, w
                ),
            ),
            (
                "focal", gamma, alpha, "chances", "answers",
                lambda y, t, g=gamma, w=alpha: focal(y, t, F.binary_cross_entropy(y, t, reduction="none"), g, w),
            ),
        ]
    for gamma in (2, 0, 0.5):
        cases += [
            (
                "focal_labels_logits", gamma, 0.25, "logits", "labels",
                lambda y, t, g=gamma: focal_of_classes(F.log_softmax(y, 1), t, g),
            ),
            (
                "focal_labels", gamma, 0.25, "distributions", "labels",
                lambda y, t, g=gamma: focal_of_classes(torch.log(y), t, g),
            ),
        ]
    hinge = lambda y, t: torch.clamp(1 - (2 * (t > 0) - 1) * y, min=0).mean()
    cases += [
        ("hinge", 0, 0, "values", "signs", hinge),
        ("hinge", 0, 0, "values", "answers", hinge),
        (
            "kl_logits", 0, 0, "logits", "distribution_targets",
            lambda y, t: F.kl_div(F.log_softmax(y, 1), t, reduction="batchmean"),
        ),
        ("kl", 0, 0, "distributions", "distribution_targets", lambda y, t: F.kl_div(torch.log(y), t, reduction="batchmean")),
        ("cosine", 0, 0, "values", "value_targets", lambda y, t: F.cosine_embedding_loss(y, t, ones)),
    ]

    out = [HEAD, f"inline constexpr int rows = {ROWS}, columns = {COLUMNS};\n"]
    out += [array(name, values, "int" if name == "labels" else "double") for name, values in arrays.items()]
    table = []
    for i, (name, gamma, alpha, predictions, targets, function) in enumerate(cases):
        leaf = a[predictions].clone().requires_grad_()
        value = function(leaf, a[targets])
        value.backward()
        out.append(array(f"gradient_{i}", leaf.grad))
        pointers = ("nullptr", targets) if targets == "labels" else (targets, "nullptr")
        table.append(
            f'    {{"{name}", {gamma}, {alpha}, {predictions}, {pointers[0]}, {pointers[1]}, {value.item()!r}, gradient_{i}}},'
        )
    out.append("inline constexpr Case cases[] = {\n" + "\n".join(table) + "\n};\n")
    out.append("}  // namespace torch_losses\n// clang-format on\n")
    path.write_text("\n".join(out))


if __name__ == "__main__":
    main()
