"""What the Python workers share: the line protocol (described in worker.hpp), the timing and the fixed data."""

import sys
import time

import numpy as np

SGD_RATE, MOMENTUM, ADAM_RATE = 0.01, 0.9, 0.001
SAMPLE = 22e3  # microseconds that a sample lasts at least


class Case:
    def __init__(self, name):
        self.kind, *rest = name.split(":")
        if self.kind == "product":
            self.sizes = [int(size) for size in rest]
        else:
            self.sizes = [int(size) for size in rest[0].split("-")]
            self.batch = int(rest[1])
            self.optimizer = rest[2] if self.kind == "step" else ""


def data(case):
    """About 1024 random samples with random labels, as (batches, batch, features) and (batches, batch)."""
    random = np.random.default_rng(1)
    batches = max(1, 1024 // case.batch)
    inputs = random.uniform(-0.5, 0.5, (batches, case.batch, case.sizes[0])).astype(np.float32)
    return inputs, random.integers(0, case.sizes[-1], (batches, case.batch))


def weights(case):
    """(weight, bias) of each layer, weights as outputs x inputs."""
    random = np.random.default_rng(2)
    layers = []
    for inputs, outputs in zip(case.sizes, case.sizes[1:]):
        bound = (6 / inputs) ** 0.5
        layers.append(
            (random.uniform(-bound, bound, (outputs, inputs)).astype(np.float32), np.zeros(outputs, np.float32))
        )
    return layers


def timed(run, steps):
    """Microseconds, and how many steps were done in them."""
    start = time.perf_counter()
    done = run(steps)
    return (time.perf_counter() - start) * 1e6, done


def settle(run):
    """Warms a run up and returns how many steps make a sample."""
    for _ in range(3):
        run(1)  # compilation and first touch
    steps, spent, last = 1, 0.0, 0.0
    while spent < 4 * SAMPLE or last < SAMPLE:
        last, done = timed(run, steps)
        spent += last
        if last < SAMPLE:
            steps = int(done * min(10.0, 1.1 * SAMPLE / last) + 1)
    return steps


def fastest(candidates):
    """The best of several ways to do the same, each a (name, function that makes a run): (run, steps, name)."""
    best = None
    for name, make in candidates:
        try:
            run = make()
            steps = settle(run)
            samples = [timed(run, steps) for _ in range(5)]
        except Exception as error:  # a compiler that is missing or gives up leaves the other ways
            print(f"{name}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
            continue
        cost = sorted(spent / done for spent, done in samples)[2]
        print(f"  {name}: {cost:.1f} us", file=sys.stderr)
        if best is None or cost < best[0]:
            best = (cost, run, steps, name)
    return best[1:] if best else (None, 0, "")


def serve(name, version, setup, checksum):
    """Answers requests until the end of the input. `setup` gives the candidates of a case, or none; a run takes the
    number of steps wanted and returns the number done, after the last result is there."""
    print("ready", name, version, flush=True)
    cases = {}
    for line in sys.stdin:
        text, repeats = line.split()
        fresh = text not in cases
        if fresh:
            cases[text] = fastest(setup(Case(text)))
            print(f"{name} {text}: {cases[text][2] or 'unsupported'}", file=sys.stderr, flush=True)
        run, steps, _ = cases[text]
        if run is None:
            print(text, "unsupported", flush=True)
            continue
        timed(run, steps // 4 + 1)  # wakes the threads and warms the caches
        samples = [timed(run, steps) for _ in range(int(repeats))]
        print(text, *(f"{spent / done:.4f}" for spent, done in samples), flush=True)
    print(name, "checksum", checksum(), file=sys.stderr)
