#!/usr/bin/env python3
"""Computes metrics with scikit-learn and writes them to scikit_learn.hpp beside this file.

    scikit_learn.py [OUTPUT]

Needs numpy and scikit-learn; the tests need neither. All inputs are small binary fractions, so that single precision
holds them exactly.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import sklearn.metrics as sk

CLASSES, ABSENT = 5, 3  # class ABSENT is never wanted; see `never` for one that is never predicted either

HEAD = """\
// Made by scikit_learn.py: what scikit-learn computes. Do not edit.
#pragma once

// clang-format off
namespace scikit_learn {
"""


class Random:
    """A small generator of its own, so that the numbers never depend on a library's version."""

    def __init__(self):
        self.state = 2024

    def below(self, bound):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % bound

    def array(self, *shape, scale, grain):
        """Multiples of scale / grain in [-scale, scale]."""
        count = int(np.prod(shape))
        return np.array([(self.below(2 * grain + 1) - grain) * scale / grain for _ in range(count)]).reshape(shape)


def array(name, values, kind="float"):
    def word(value):
        return repr(int(value)) if kind == "int" else f"{float(value)!r}F"

    lines, line = [], " "
    for value in np.asarray(values).flatten():
        if len(line) + len(word(value)) + 2 > 120:
            lines.append(line)
            line = " "
        line += f" {word(value)},"
    body = "\n".join(lines + [line]).rstrip(",")
    return f"inline constexpr {kind} {name}[{np.asarray(values).size}] = {{\n{body}}};\n"


def number(name, value):
    return f"inline constexpr double {name} = {float(value)!r};\n"


def averages(out, prefix, wanted, predicted, labels=None):
    functions = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}
    for name, function in functions.items():
        for average in ("macro", "micro", "weighted"):
            value = function(wanted, predicted, average=average, zero_division=0, labels=labels)
            out.append(number(f"{prefix}_{name}_{average}", value))


def classes(random, out):
    samples = 60
    logits = random.array(samples, CLASSES, scale=4, grain=1024)
    # Outputs lean towards the label, so that the numbers differ; the label of class ABSENT does not occur.
    labels = np.array([random.below(CLASSES - 1) for _ in range(samples)])
    labels = labels + (labels >= ABSENT)
    logits[np.arange(samples), labels] += 2
    assert all(len(set(row)) == CLASSES for row in logits), "ties are tested elsewhere"
    predicted = logits.argmax(1)
    assert ABSENT in predicted and ABSENT not in labels
    out.append(f"inline constexpr int samples = {samples}, classes = {CLASSES};\n")
    out += [array("logits", logits), array("labels", labels, "int")]
    averages(out, "classes", labels, predicted)
    out.append(array("confusion", sk.confusion_matrix(labels, predicted, labels=range(CLASSES)), "int"))
    for k in (1, 2, 3, 4):
        out.append(number(f"top_{k}", sk.top_k_accuracy_score(labels, logits, k=k, labels=range(CLASSES))))

    never = logits.copy()
    never[:, ABSENT] = -8  # neither wanted nor predicted: left out of the mean
    averages(out, "never", labels, never.argmax(1))


def answers(random, out):
    """Three independent questions, and the first of them alone."""
    samples, questions = 40, 3
    scores = random.array(samples, questions, scale=2, grain=64)
    wanted = (scores + random.array(samples, questions, scale=2, grain=64) > 0.5).astype(int)
    wanted[5] = wanted[6] = 0  # rows without a yes
    out.append(f"inline constexpr int asked = {samples}, questions = {questions};\n")
    out += [array("scores", scores), array("answers", wanted)]
    averages(out, "answers", wanted, (scores > 0).astype(int))
    first, said = wanted[:, 0], scores[:, 0]
    for threshold in (0.5, 0.75):
        yes = (said > np.log(threshold / (1 - threshold))).astype(int)
        key = f"one_{int(100 * threshold)}"
        out.append(number(f"{key}_precision", sk.precision_score(first, yes)))
        out.append(number(f"{key}_recall", sk.recall_score(first, yes)))
        out.append(number(f"{key}_f1", sk.f1_score(first, yes)))
        out.append(array(f"{key}_confusion", sk.confusion_matrix(first, yes), "int"))
    out.append(number("roc_auc", sk.roc_auc_score(first, said)))
    coarse = np.round(said)  # many ties
    assert len(set(coarse)) <= 5
    out += [array("coarse", coarse), number("roc_auc_coarse", sk.roc_auc_score(first, coarse))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isnan(sk.roc_auc_score(np.ones(samples), said))


def values(random, out):
    samples, outputs = 50, 3
    targets = random.array(samples, outputs, scale=4, grain=32) + 5 / 64  # none is 0
    targets[:, 1] += 1000  # far from 0 for its spread
    predictions = targets + random.array(samples, outputs, scale=2, grain=32)
    out.append(f"inline constexpr int measured = {samples}, measures = {outputs};\n")
    out += [array("targets", targets), array("predictions", predictions)]
    out.append(number("r2", sk.r2_score(targets, predictions)))
    out.append(number("r2_first", sk.r2_score(targets[:, 0], predictions[:, 0])))
    constant = targets.copy()
    constant[:, 2] = 0.25
    exact = predictions.copy()
    exact[:, 2] = 0.25
    out.append(number("r2_constant", sk.r2_score(constant, predictions)))
    out.append(number("r2_constant_met", sk.r2_score(constant, exact)))
    # Of all values together: scikit-learn would take the root for each output and then the mean.
    out.append(number("root_mean_squared_error", np.sqrt(sk.mean_squared_error(targets, predictions))))
    out.append(number("percentage", 100 * sk.mean_absolute_percentage_error(targets, predictions)))
    out.append(number("mean_absolute_error", sk.mean_absolute_error(targets, predictions)))


def areas(random, out):
    """The area under the curve of each class against all others, and of several questions."""
    samples, classes = 60, 4
    logits = random.array(samples, classes, scale=3, grain=512)
    labels = np.array([random.below(classes * (classes + 1) // 2) for _ in range(samples)])
    labels = np.digitize(labels, np.cumsum(range(1, classes)))  # class k is k + 1 times as frequent as the first
    logits[np.arange(samples), labels] += 1.5
    assert set(labels) == set(range(classes))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    # In eighths and one in the sum: many ties, and every class 0 somewhere.
    coarse = np.floor(chances * 8)
    coarse[np.arange(samples), chances.argmax(1)] += 8 - coarse.sum(1)
    coarse /= 8
    never = np.where(labels == 1, 2, labels)  # class 1 does not occur
    several = random.array(samples, 3, scale=2, grain=16)
    wanted = (several + random.array(samples, 3, scale=2, grain=16) > np.array([0, 0.5, 1.5])).astype(int)
    wanted[3] = 0
    out.append(f"inline constexpr int ranked = {samples}, kinds = {classes}, several_questions = 3;\n")
    out += [array("ranked_logits", logits), array("ranked_labels", labels, "int"), array("ranked_coarse", coarse)]
    out += [array("several", several), array("several_answers", wanted)]
    for average in ("macro", "weighted"):
        every = {"multi_class": "ovr", "average": average}
        out.append(number(f"areas_{average}", sk.roc_auc_score(labels, chances, **every)))
        out.append(number(f"areas_coarse_{average}", sk.roc_auc_score(labels, coarse, **every)))
        # scikit-learn gives no number here; this is the same average over the classes that occur.
        present = sorted(set(never))
        each = [sk.roc_auc_score(never == k, chances[:, k]) for k in present]
        weights = None if average == "macro" else [(never == k).sum() for k in present]
        out.append(number(f"areas_never_{average}", np.average(each, weights=weights)))
        out.append(number(f"areas_several_{average}", sk.roc_auc_score(wanted, several, average=average)))


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("scikit_learn.hpp")
    random, out = Random(), [HEAD]
    classes(random, out)
    answers(random, out)
    values(random, out)
    areas(random, out)
    out.append("}  // namespace scikit_learn\n// clang-format on\n")
    path.write_text("\n".join(out))


if __name__ == "__main__":
    main()
