"""What the workers that run on PyTorch share: import this before anything that imports torch.

The program's argument is the number of threads.
"""

import itertools
import os
import sys
import warnings

THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 1
os.environ["OMP_NUM_THREADS"] = str(THREADS)
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no processes that stay behind
warnings.filterwarnings("ignore")

import torch

torch.set_num_threads(THREADS)
torch.set_flush_denormal(True)
names = itertools.count()


def compile_alone(function, options=None):
    """Compiles a function for one shape, apart from all other uses of the same source line."""
    code = function.__code__
    function.__code__ = code.replace(co_name=f"{code.co_name}_{next(names)}")
    return torch.compile(function, dynamic=False, options=options)
