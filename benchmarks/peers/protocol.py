"""What the Python workers share: the line protocol (described in worker.hpp), the timing and the fixed data."""

import math
import string
import sys
import time

import numpy as np

SGD_RATE, MOMENTUM, ADAM_RATE = 0.01, 0.9, 0.001
SAMPLE = 22e3  # microseconds that a sample lasts at least
DENSE_LIMIT = 1 << 24  # weights of a tensor-train, above which it is not built as a dense matrix: that is hopeless


class Case:
    def __init__(self, name):
        self.kind, *rest = name.split(":")
        self.live = 100  # of 100 weights
        self.samples = 1024  # about so many are there
        if self.kind == "product":
            self.sizes = [int(size) for size in rest]
        elif self.kind == "sparse":
            self.sizes = [int(size) for size in rest[:2]]
            self.live, self.batch, self.backward = int(rest[2]), int(rest[3]), rest[-1] == "both"
        elif self.kind in ("lstm", "gru"):
            self.steps, self.inputs, self.units, self.batch = (int(number) for number in rest[:4])
            self.backward = rest[-1] == "both"
        elif self.kind in ("attention", "transformer"):
            self.length, self.features, self.heads, self.batch = (int(number) for number in rest[:4])
            self.sizes = [self.length * self.features, 10]
            self.causal, self.backward = self.kind == "transformer" or rest[4] == "causal", rest[-1] == "both"
            if self.kind == "transformer":
                self.blocks, self.optimizer, self.samples = int(rest[4]), rest[5], 64
        elif self.kind == "embedding":
            self.tokens, self.units, length, self.batch = (int(number) for number in rest[:4])
            self.sizes, self.optimizer = [length, 10], rest[-1]
        elif self.kind == "cnn":
            self.sizes, self.norm, self.batch, self.optimizer = [28 * 28, 10], rest[0] == "norm", int(rest[1]), "sgd"
        elif self.kind in ("tt", "dense"):
            self.inputs, self.outputs = (tuple(int(mode) for mode in modes.split("x")) for modes in rest[:2])
            self.sizes = [math.prod(self.inputs), math.prod(self.outputs)]
            inner = (int(rest[2]) if self.kind == "tt" else 0,) * (len(self.inputs) - 1)
            self.ranks = (1, *inner, 1)
            self.batch, self.backward = int(rest[-2]), rest[-1] == "both"
        else:
            self.sizes = [int(size) for size in rest[0].split("-")]
            self.batch = int(rest[1])
            self.optimizer = rest[2] if self.kind == "step" else ""
            self.live = int(rest[3]) if len(rest) > 3 else 100


def data(case):
    """Random samples with random labels, as (batches, batch, features) and (batches, batch)."""
    random = np.random.default_rng(1)
    batches = max(1, case.samples // case.batch)
    shape = (batches, case.batch, case.sizes[0])
    if case.kind == "embedding":
        inputs = random.integers(0, case.tokens, shape)
    else:
        inputs = random.uniform(-0.5, 0.5, shape).astype(np.float32)
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


def convolutions(case):
    """Of a network of images: filters as {filters, rows, columns, channels}, (weight, bias) of the dense layers."""
    random = np.random.default_rng(2)
    side = 7 if case.norm else 5  # of the images behind the last pool

    def drawn(inputs, *shape):
        bound = (6 / inputs) ** 0.5
        return random.uniform(-bound, bound, shape).astype(np.float32)

    filters = [drawn(9, 32, 3, 3, 1), drawn(9 * 32, 64, 3, 3, 32)]
    sizes = [64 * side * side, 128, 10]
    return filters, [(drawn(i, o, i), np.zeros(o, np.float32)) for i, o in zip(sizes, sizes[1:])]


def masks(case):
    """One of outputs x inputs for each layer, 1 where a weight lives; None where all do."""
    if case.live == 100:
        return None
    random = np.random.default_rng(5)
    shapes = zip(case.sizes[1:], case.sizes)
    return [(random.uniform(0, 100, shape) < case.live).astype(np.float32) for shape in shapes]


def layer_data(case):
    """x and dy of one layer, a sample a row, and its cores, or its one matrix, of outputs x inputs."""
    random = np.random.default_rng(4)
    x, dy = (random.uniform(-0.5, 0.5, (case.batch, size)).astype(np.float32) for size in case.sizes)
    if case.kind in ("dense", "sparse"):
        bound = (3 / case.sizes[0]) ** 0.5
        return x, dy, [random.uniform(-bound, bound, case.sizes[::-1]).astype(np.float32)]
    # An entry of the matrix is a sum over all ranks of products of one number of each core.
    deviation = (case.sizes[0] * math.prod(case.ranks)) ** (-0.5 / len(case.inputs))
    bound = 3**0.5 * deviation
    shapes = zip(case.ranks, case.outputs, case.inputs, case.ranks[1:])
    return x, dy, [random.uniform(-bound, bound, shape).astype(np.float32) for shape in shapes]


def recurrent_data(case):
    """x and dy as {batch, steps, features}; weights of gates x inputs and of gates x units, and a bias of either.

    The gates come in PyTorch's order.
    """
    random = np.random.default_rng(6)
    gates = {"lstm": 4, "gru": 3}[case.kind] * case.units
    bound = case.units**-0.5
    x, dy = (
        random.uniform(-0.5, 0.5, (case.batch, case.steps, size)).astype(np.float32)
        for size in (case.inputs, case.units)
    )
    shapes = ((gates, case.inputs), (gates, case.units), (gates,), (gates,))
    return x, dy, [random.uniform(-bound, bound, shape).astype(np.float32) for shape in shapes]


def attention_data(case):
    """x and dy as {batch, length, features}; weights for queries, keys and values below each other, and those of the
    output, each as outputs x inputs."""
    random = np.random.default_rng(7)
    bound = (3 / case.features) ** 0.5
    x, dy = (random.uniform(-0.5, 0.5, (case.batch, case.length, case.features)).astype(np.float32) for _ in range(2))
    shapes = ((3 * case.features, case.features), (case.features, case.features))
    return x, dy, [random.uniform(-bound, bound, shape).astype(np.float32) for shape in shapes]


def transformer_weights(case):
    """For each block those of attention, as above, and of its two dense layers; and that of the last layer."""
    random = np.random.default_rng(8)

    def drawn(outputs, inputs):
        bound = (6 / (inputs + outputs)) ** 0.5
        return random.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)

    f = case.features
    shapes = {"qkv": (3 * f, f), "output": (f, f), "wide": (4 * f, f), "narrow": (f, 4 * f)}
    blocks = [{name: drawn(*shape) for name, shape in shapes.items()} for _ in range(case.blocks)]
    return blocks, drawn(case.sizes[-1], f)


def equation(case):
    """A tensor-train layer in the words of einsum: samples with inputs, all cores -> samples with outputs."""
    count = len(case.inputs)
    ins, outs, ranks = (string.ascii_letters[16 * i : 16 * i + count + 1] for i in range(3))
    cores = (ranks[k] + outs[k] + ins[k] + ranks[k + 1] for k in range(count))
    return f"Z{ins[:count]},{','.join(cores)}->Z{outs[:count]}"


def chain(x, cores, end, samples, multiply, permute):
    """y = W x, one core after another from the first or the last end, with the samples first or last in memory.

    What stands between two cores is (modes not yet met, rank, modes made) or, from the first core on, (modes made,
    rank, modes not yet met), with the samples at one side. So a core always meets the middle, and nothing has to move.
    multiply(core as a matrix, (before, columns of the matrix, after)) gives (before, rows of the matrix, after).
    """
    batch = len(x)
    z, before, after = (x, batch, 1) if samples == "first" else (x.T, 1, batch)
    for core in cores if end == "first" else cores[::-1]:
        left, out, inner, right = core.shape
        if end == "first":
            matrix = permute(core, (1, 3, 0, 2)).reshape(out * right, left * inner)
            z = multiply(matrix, z.reshape(before, left * inner, -1))
            before *= out
        else:
            z = multiply(core.reshape(left * out, inner * right), z.reshape(-1, inner * right, after))
            after *= out
    return z.reshape(batch, -1) if samples == "first" else z.reshape(-1, batch).T


def whole_matrix(cores, einsum):
    """W as outputs x inputs."""
    matrix = cores[0][0]
    for core in cores[1:]:
        matrix = einsum("oir,rpjs->opijs", matrix, core)
        matrix = matrix.reshape(matrix.shape[0] * matrix.shape[1], matrix.shape[2] * matrix.shape[3], -1)
    return matrix[:, :, 0]


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
