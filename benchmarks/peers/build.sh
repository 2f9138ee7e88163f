#!/bin/sh
# Builds the C++ workers whose library is installed, into the folder given (default: build/peers at the root of the
# repository), and says which ones it had to leave out.
#
#   benchmarks/peers/build.sh [FOLDER]        CXX and CXXFLAGS are taken from the environment
set -u
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/../../build/peers}
compiler=${CXX:-g++}
flags="-std=c++17 -O3 -march=native -fno-math-errno ${CXXFLAGS:-}"
mkdir -p "$folder" || exit 1
failed=0

installed() {  # FLAGS HEADER: whether the compiler finds the header
  # shellcheck disable=SC2086
  echo "#include <$2>" | $compiler $flags $1 -E -x c++ - >/dev/null 2>&1
}

build() {  # NAME HEADER FLAGS LIBRARIES
  if ! installed "$3" "$2"; then
    echo "$1: not built, $2 is not installed"
    return
  fi
  # shellcheck disable=SC2086
  if $compiler $flags $3 "$here/$1_worker.cpp" -o "$folder/$1_worker" $4 2>"$folder/$1.log"; then
    echo "$1: built"
  else
    echo "$1: its library is installed, but it does not compile, see $folder/$1.log"
    failed=1
  fi
}

# OpenBLAS's OpenMP flavour shares its threads with the optimizer loops; its pthread flavour does not, and the two kinds
# of threads would be in each other's way.
openmp=$(dirname "$(ls /usr/lib/*/openblas-openmp/libopenblas.so 2>/dev/null | head -n 1)" 2>/dev/null)
if [ -n "$openmp" ] && [ "$openmp" != . ]; then
  blas_flags=-fopenmp
  blas="-L$openmp -Wl,-rpath,$openmp -lopenblas"
else
  blas_flags=-Wno-unknown-pragmas
  blas=-lopenblas
fi
eigen=$(pkg-config --cflags-only-I eigen3 2>/dev/null || echo -I/usr/include/eigen3)

build eigen Eigen/Dense "-fopenmp $(echo "$eigen" | sed 's/-I/-isystem /g')" ""
build openblas cblas.h "$blas_flags" "$blas"
build dlib dlib/dnn.h "-fopenmp" "-ldlib -lopenblas"
build mlpack mlpack.hpp "-fopenmp" "-larmadillo -lopenblas"
exit $failed
