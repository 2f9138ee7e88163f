#!/usr/bin/env python3
"""Computes cross-entropies of labels a step in double precision with PyTorch, and writes them to steps_pytorch.hpp
beside this file.

    steps_pytorch.py [OUTPUT]

Needs torch; the tests do not. Inputs are small binary fractions, so that single precision holds them exactly.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from pytorch import Random, array

SAMPLES, STEPS, CLASSES = 3, 4, 5
torch.set_default_dtype(torch.float64)

HEAD = """\
// Made by steps_pytorch.py: what PyTorch computes in double precision. Do not edit.
//
// The mean over all labels that count, and its gradient with regard to the predictions.
#pragma once

// clang-format off
namespace torch_steps {

struct Case {
  const char* name;
  bool from_logits, ignoring, sample_weights, class_weights;
  double gamma;  // of focal; below 0: cross-entropy
  double value;
  const double* gradient;
};
"""


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("steps_pytorch.hpp")
    random = Random(2024)
    count = SAMPLES * STEPS
    logits = torch.tensor([(random.below(257) - 128) / 32 for _ in range(count * CLASSES)]).reshape(count, CLASSES)
    # Rows of sixteenths that add up to 1.
    rows = []
    for _ in range(count):
        row = [1] * CLASSES
        for _ in range(16 - CLASSES):
            row[random.below(CLASSES)] += 1
        rows.append(row)
    chances = torch.tensor(rows) / 16
    labels = torch.tensor([random.below(CLASSES) for _ in range(count)])
    some = labels.clone()
    for i in (1, 4, 5, 11):
        some[i] = -1
    sample_weights = torch.tensor([0.5, 2.0, 1.25])
    class_weights = torch.tensor([1.0, 0.5, 0.0, 3.0, 0.25])
    out = [HEAD, f"inline constexpr int samples = {SAMPLES}, steps = {STEPS}, classes = {CLASSES};\n"]
    out += [array("logits", logits), array("chances", chances), array("labels", labels, "int")]
    out += [array("some_labels", some, "int"), array("sample_weights", sample_weights)]
    out += [array("class_weights", class_weights)]
    table = []

    def case(name, from_logits, ignoring, by_sample, by_class, gamma=-1):
        leaf = (logits if from_logits else chances).clone().requires_grad_()
        wanted = some if ignoring else labels
        log_p = F.log_softmax(leaf, 1) if from_logits else torch.log(leaf)
        if not by_sample and not by_class and gamma < 0:  # PyTorch's own mean
            value = F.nll_loss(log_p, wanted, ignore_index=-1)
        else:
            costs = F.nll_loss(log_p, wanted, weight=class_weights if by_class else None, ignore_index=-1, reduction="none")
            if gamma >= 0:
                costs = costs * (1 - torch.exp(log_p[torch.arange(count), labels])) ** gamma
            if by_sample:
                costs = costs * sample_weights.repeat_interleave(STEPS)
            value = costs.sum() / (wanted >= 0).sum()  # weights are not normalised
        value.backward()
        number = len(table)
        out.append(array(f"gradient_{number}", leaf.grad))
        flags = ", ".join(str(f).lower() for f in (from_logits, ignoring, by_sample, by_class))
        table.append(f'    {{"{name}", {flags}, {gamma}, {value.item()!r}, gradient_{number}}},')

    for from_logits in (True, False):
        kind = "logits" if from_logits else "chances"
        case(kind, from_logits, False, False, False)
        case(kind + ", some ignored", from_logits, True, False, False)
        case(kind + ", weighted by sample", from_logits, False, True, False)
        case(kind + ", weighted by class", from_logits, False, False, True)
        case(kind + ", all of it", from_logits, True, True, True)
        case(kind + ", focal", from_logits, False, True, True, 2)
    out.append("inline constexpr Case cases[] = {\n" + "\n".join(table) + "\n};\n")
    out.append("}  // namespace torch_steps\n// clang-format on\n")
    path.write_text("\n".join(out))


if __name__ == "__main__":
    main()
