#!/bin/sh
# Installs the peers that TESLA is measured against: PyTorch, JAX and TensorLy-Torch into benchmarks/peers/.venv, and,
# when run by root on a Debian system, the C++ libraries. PyTorch finds better orders for einsum with opt_einsum.
# TensorLy imports packaging without asking for it.
set -u
here=$(cd "$(dirname "$0")" && pwd)
status=0

python3 -m venv "$here/.venv" &&
  "$here/.venv/bin/python" -m pip install --quiet torch==2.15.0 jax==0.10.2 numpy==2.4.6 safetensors==0.8.0 \
    opt_einsum==3.4.0 tensorly==0.10.0 tensorly-torch==0.5.0 packaging==26.3 || {
  echo "the Python peers could not be installed"
  status=1
}

for package in libeigen3-dev libopenblas-dev libopenblas-openmp-dev libdlib-dev libmlpack-dev; do
  if dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then
    continue
  elif ! apt-cache show "$package" >/dev/null 2>&1; then
    echo "$package: this system's package lists do not have it"
  elif [ "$(id -u)" != 0 ]; then
    echo "$package: missing, and only root can install it: apt-get install $package"
  else
    apt-get install -y -q "$package" >/dev/null || {
      echo "$package: could not be installed"
      status=1
    }
  fi
done
exit $status
