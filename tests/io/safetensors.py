"""The oracle of safetensors.cpp: files by the safetensors package of Python, and its reading of TESLA's files.

    python3 safetensors.py print        the array `from_python` of safetensors.cpp
    python3 safetensors.py check FILE   reads what the hidden test "[.python]" has written to FILE

Needs numpy, torch and safetensors. The tests need none of them.
"""
import os
import sys

sys.path.pop(0)  # this folder, whose safetensors.py is this file

import torch
from safetensors import safe_open
from safetensors.torch import save

TENSORS = {
    "weight": torch.tensor([[1.5, -2.25, 3e38], [0.0, -0.0, float("inf")]], dtype=torch.float32),
    "bias": torch.tensor([0.1, -1e-300], dtype=torch.float64),
    "long": torch.tensor([[[2**62 + 1]], [[-5]]], dtype=torch.int64),
    "int": torch.tensor([-1, 2**31 - 1], dtype=torch.int32),
    "byte": torch.tensor([0, 1, 255], dtype=torch.uint8),
    "half": torch.tensor([1.0], dtype=torch.bfloat16),
    "scalar": torch.tensor(7.0, dtype=torch.float32),
    "empty": torch.zeros((0, 3), dtype=torch.float32),
    'näme "quoted"': torch.tensor([True, False]),
}
METADATA = {"größe": "7 µm\n"}  # a single one: the package writes them in random order


def literal(data):
    """The bytes as C++ string literals."""
    lines, line, after_hex = [], "", False
    for byte in data:
        char = chr(byte)
        if char in '"\\':
            piece = "\\" + char
        elif 32 <= byte < 127:
            piece = ('""' if after_hex and char in "0123456789abcdefABCDEF" else "") + char
        else:
            piece = f"\\x{byte:02X}"
        after_hex = piece.startswith("\\x")
        line += piece
        if len(line) > 108:
            lines.append(line)
            line, after_hex = "", False
    return "\n".join(f'    "{line}"' for line in lines + [line])


def check(path):
    for framework in ("pt", "np"):
        with safe_open(path, framework) as file:
            assert file.metadata() == METADATA, file.metadata()
            # numpy has no bfloat16.
            names = [name for name in TENSORS if framework == "pt" or name != "half"]
            assert sorted(file.keys()) == sorted(TENSORS), file.keys()
            for name in names:
                read = torch.as_tensor(file.get_tensor(name))
                assert read.dtype == TENSORS[name].dtype and read.shape == TENSORS[name].shape, name
                assert read.numpy(force=True).tobytes() == TENSORS[name].numpy().tobytes() if name != "half" else (
                    torch.equal(read, TENSORS[name])), name
    size = int.from_bytes(open(path, "rb").read(8), "little")
    assert (8 + size) % 64 == 0, size
    print(os.path.getsize(path), "bytes as expected")


if __name__ == "__main__":
    if sys.argv[1:2] == ["print"]:
        print(literal(save(TENSORS, METADATA)))
    elif sys.argv[1:2] == ["check"]:
        check(sys.argv[2])
    else:
        sys.exit(__doc__)
