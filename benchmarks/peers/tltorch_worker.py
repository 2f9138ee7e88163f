"""TensorLy-Torch: its factorized linear layer, as it is or compiled, with the cores one by one or as a whole matrix.

tltorch_worker.py THREADS
"""

import itertools
import math

from torch_setup import compile_alone, torch  # first: it says how many threads there are

import protocol
import tltorch

checks = []


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

    if compiled:
        forward = compile_alone(forward)
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
