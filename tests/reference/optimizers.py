#!/usr/bin/env python3
"""Computes reference values of optimizers and schedules in double precision and writes them to optimizers.hpp beside
this file.

    optimizers.py [OUTPUT]

The network, the samples and the initial parameters are those of pytorch.py. PyTorch has the rules of RMSprop and Adagrad,
groups of parameters and the schedules; Lion and LAMB are written out here, in NumPy, after their papers.
"""

import sys
from pathlib import Path

import numpy as np
import pytorch as base
import torch
import torch.nn.functional as F
from torch.optim import lr_scheduler

HEAD = """\
// Made by optimizers.py: what PyTorch, and NumPy where PyTorch has no such rule, computes in double precision. Do not
// edit.
#pragma once

// clang-format off
namespace reference {
"""

NOTE = """\
// Ten steps of optimizers on the network of pytorch.hpp, with relu and cross-entropy from labels.
struct OptimizerCase {
  const char* name;
  const double* losses;      // steps
  const double* parameters;  // parameter_count
};
"""

SCHEDULE_NOTE = """\
// Learning rates of the first steps.
inline constexpr int scheduled_steps = 40;
struct ScheduleCase {
  const char* name;
  const double* rates;
};
"""


class Lion:
    """Chen et al. 2023, algorithm 2."""

    def __init__(self, rate, beta_1, beta_2, decay):
        self.rate, self.beta_1, self.beta_2, self.decay = rate, beta_1, beta_2, decay

    def step(self, number, weights, gradient, state):
        momentum = state.setdefault("m", np.zeros_like(weights))
        direction = np.sign(self.beta_1 * momentum + (1 - self.beta_1) * gradient)
        state["m"] = self.beta_2 * momentum + (1 - self.beta_2) * gradient
        return weights - self.rate * (direction + self.decay * weights)


class LAMB:
    """You et al. 2020, algorithm 2, with phi(z) = z; a norm of zero leaves the rate as it is."""

    def __init__(self, rate, decay, beta_1=0.9, beta_2=0.999, epsilon=1e-6):
        self.rate, self.decay, self.beta_1, self.beta_2, self.epsilon = rate, decay, beta_1, beta_2, epsilon

    def step(self, number, weights, gradient, state):
        m = self.beta_1 * state.get("m", 0) + (1 - self.beta_1) * gradient
        v = self.beta_2 * state.get("v", 0) + (1 - self.beta_2) * gradient**2
        state["m"], state["v"] = m, v
        r = (m / (1 - self.beta_1**number)) / (np.sqrt(v / (1 - self.beta_2**number)) + self.epsilon)
        r = r + self.decay * weights
        norm, length = np.linalg.norm(weights), np.linalg.norm(r)
        trust = norm / length if norm > 0 and length > 0 else 1.0
        return weights - self.rate * trust * r


class ByHand:
    """A rule of one of the classes above as PyTorch would have it."""

    def __init__(self, parameters, rule):
        self.parameters, self.rule, self.number = parameters, rule, 0
        self.states = [{} for _ in parameters]

    def zero_grad(self):
        for p in self.parameters:
            p.grad = None

    def step(self):
        self.number += 1
        for p, state in zip(self.parameters, self.states):
            moved = self.rule.step(self.number, p.detach().numpy().copy(), p.grad.numpy().copy(), state)
            p.data = torch.from_numpy(moved)


def groups(p):
    """Weights of the first layer go slowly and do not decay, biases decay more."""
    return [
        {"params": [p[0]], "lr": 0.005, "weight_decay": 0.0},
        {"params": [p[2], p[4]]},
        {"params": p[1::2], "weight_decay": 0.5},
    ]


def cosine(p):
    rule = torch.optim.Adam(p, lr=0.05)
    return rule, lr_scheduler.CosineAnnealingLR(rule, T_max=10, eta_min=0.005)


OPTIMIZERS = {
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "rmsprop momentum": lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, momentum=0.8),
    "rmsprop centered": lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, eps=1e-4, centered=True),
    "rmsprop all": lambda p: torch.optim.RMSprop(
        p, lr=0.005, alpha=0.8, eps=1e-3, momentum=0.5, centered=True, weight_decay=0.02
    ),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "adagrad all": lambda p: torch.optim.Adagrad(
        p, lr=0.1, lr_decay=0.2, weight_decay=0.02, initial_accumulator_value=0.3, eps=1e-4
    ),
    "lion": lambda p: ByHand(p, Lion(0.01, 0.9, 0.99, 0.0)),
    "lion all": lambda p: ByHand(p, Lion(0.02, 0.8, 0.95, 0.1)),
    "lamb": lambda p: ByHand(p, LAMB(0.02, 0.01)),
    "lamb all": lambda p: ByHand(p, LAMB(0.05, 0.2, 0.8, 0.95, 1e-3)),
    "sgd groups": lambda p: torch.optim.SGD(groups(p), lr=0.05, momentum=0.9, weight_decay=0.1),
    "adam cosine": cosine,
}

SCHEDULES = {
    "step": lambda o: lr_scheduler.StepLR(o, step_size=7, gamma=0.3),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.9),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=30, eta_min=0.02),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=10, T_mult=1, eta_min=0.02),
    "growing": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=6, T_mult=2, eta_min=0),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(
        o, max_lr=0.2, total_steps=40, pct_start=0.25, div_factor=20, final_div_factor=500, cycle_momentum=False
    ),
    "piecewise": lambda o: lr_scheduler.MultiStepLR(o, milestones=[5, 20], gamma=0.1),
}


def train(make, initial, inputs, labels):
    parameters = [p.clone().requires_grad_() for p in initial]
    rule = make(parameters)
    rule, schedule = rule if isinstance(rule, tuple) else (rule, None)
    losses = []
    for step in range(base.STEPS):
        chosen = slice(step % 2 * base.BATCH, (step % 2 + 1) * base.BATCH)
        x = inputs[chosen]
        for i in range(0, len(parameters), 2):
            x = x @ parameters[i].T + parameters[i + 1]
            if i + 2 < len(parameters):
                x = torch.relu(x)
        loss = F.cross_entropy(x, labels[chosen])
        rule.zero_grad()
        loss.backward()
        rule.step()
        if schedule:
            schedule.step()
        losses.append(loss.item())
    return losses, torch.cat([p.detach().flatten() for p in parameters])


def rates(make):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    schedule = make(optimizer)
    result = []
    for _ in range(40):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(result) < 40:
            schedule.step()
    return [float(rate) for rate in result]


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("optimizers.hpp")
    initial, inputs, labels = base.training_data(base.Random())[:3]
    out, rows = [HEAD, NOTE], []
    for name, make in OPTIMIZERS.items():
        losses, parameters = train(make, initial, inputs, labels)
        print(f"{name}: loss {losses[0]:.4f} to {losses[-1]:.4f}")
        key = base.identifier(name)
        out += [base.array(f"{key}_losses", losses), base.array(f"{key}_parameters", parameters)]
        rows.append(f'    {{"{name}", {key}_losses, {key}_parameters}},')
    out.append("inline constexpr OptimizerCase optimizer_cases[] = {\n" + "\n".join(rows) + "\n};\n")
    out.append(SCHEDULE_NOTE)
    rows = []
    for name, make in SCHEDULES.items():
        key = base.identifier(name)
        out.append(base.array(f"{key}_rates", rates(make)))
        rows.append(f'    {{"{name}", {key}_rates}},')
    out.append("inline constexpr ScheduleCase schedule_cases[] = {\n" + "\n".join(rows) + "\n};\n")
    out.append("}  // namespace reference\n// clang-format on\n")
    path.write_text("\n".join(out))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
