"""TensorLy-Torch: its factorized linear layer, as it is or compiled, with the cores one by one or as a whole matrix.

tltorch_worker.py THREADS
"""

import itertools
import math
import os
import sys
import warnings

THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 1
os.environ["OMP_NUM_THREADS"] = str(THREADS)
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no processes that stay behind
warnings.filterwarnings("ignore")

import protocol
import tltorch
import torch

torch.set_num_threads(THREADS)
torch.set_flush_denormal(True)
checks, names = [], itertools.count()


def layer(case, implementation, compiled):
    """Forward, or forward and backward to the gradients of x and all cores."""
    x, dy, cores = protocol.layer_data(case)
    x, dy = torch.from_numpy(x), torch.from_numpy(dy)
    linear = tltorch.FactorizedLinear(
        case.inputs,
        case.outputs,
        bias=False,
        factorization="blocktt",
        rank=case.ranks,
        implementation=implementation,
    )
    linear.in_features = int(linear.in_features)  # a number of NumPy, which the compiler stumbles over
    parameters = list(linear.weight.factors)
    with torch.no_grad():
        for parameter, core in zip(parameters, cores):
            parameter.copy_(torch.from_numpy(core))

    def forward(x):
        return linear(x)

    if compiled:  # apart from all other cases: of one source line only few uses are compiled
        forward.__code__ = forward.__code__.replace(co_name=f"forward_{next(names)}")
        forward = torch.compile(forward, dynamic=False)
    mode = torch.enable_grad if case.backward else torch.inference_mode

    def step():
        y = forward(x)
        return torch.autograd.grad(y, [x, *parameters], dy)[0] if case.backward else y

    def run(steps):
        with mode():
            x.requires_grad_(case.backward)
            for _ in range(steps):
                result = step()
        checks.append(float(result[0, 0]))
        return steps

    return run


def setup(case):
    if case.kind != "tt":
        return []
    ways = ["factorized"] + ["reconstructed"] * (math.prod(case.sizes) <= protocol.DENSE_LIMIT)
    return [
        (way + ", compiled" * compiled, lambda way=way, compiled=compiled: layer(case, way, compiled))
        for way, compiled in itertools.product(ways, (False, True))
    ]


protocol.serve("TensorLy-Torch", tltorch.__version__, setup, lambda: sum(checks))
