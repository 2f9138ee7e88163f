#!/usr/bin/env bash
# Checks that check.sh passes a good tree and finds each kind of violation in a bad one.
set -euo pipefail
check=$(cd "$(dirname "$0")" && pwd)/check.sh
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0

# expect MESSAGE PATH CONTENT: the tree with this one file changed; an empty message means that all is well.
expect() {
  rm -rf "${tree:?}/tesla"
  mkdir -p "$tree"/tesla/{core,tensor,model}
  printf '#pragma once\n#include <vector>\n' >"$tree/tesla/core/a.hpp"
  printf '#pragma once\n#include <tesla/core/a.hpp>\n' >"$tree/tesla/tensor/b.hpp"
  printf '#pragma once\n#include <tesla/tensor/b.hpp>\n#include <tesla/core/a.hpp>\n' >"$tree/tesla/model/c.hpp"
  printf '#pragma once\n#include <tesla/model/c.hpp>\n' >"$tree/tesla/tesla.hpp"
  if [ $# -gt 1 ]; then
    mkdir -p "$(dirname "$tree/tesla/$2")"
    printf '%b' "$3" >"$tree/tesla/$2"
  fi
  local output status=0
  output=$(bash "$check" "$tree/tesla" 2>&1) || status=$?
  if [ -z "$1" ] && [ $status -eq 0 ] && [ -z "$output" ]; then return; fi
  if [ -n "$1" ] && [ $status -ne 0 ] && [[ $output == *"$1"* ]]; then return; fi
  echo "wanted \"$1\", got status $status and \"$output\""
  failures=$((failures + 1))
}

expect ""
expect "" model/d.hpp '#pragma once\n#include <tesla/model/c.hpp>\n'
expect "core/z.hpp:2: includes tesla/tensor/b.hpp, from a room below" core/z.hpp '#pragma once\n#include <tesla/tensor/b.hpp>\n'
expect "from a room below" tensor/z.hpp '#pragma once\n#  include  <tesla/tesla.hpp>\n'
expect "from a room below" core/deep/z.hpp '#pragma once\n#include <tesla/model/c.hpp>\n'
expect "quotes" tensor/z.hpp '#pragma once\n#include "b.hpp"\n'
expect "through .." tensor/z.hpp '#pragma once\n#include <tesla/tensor/../core/a.hpp>\n'
expect "does not exist" tensor/z.hpp '#pragma once\n#include <tesla/core/none.hpp>\n'
expect "CUDA header" model/z.hpp '#pragma once\n#include <tesla/core/a.cuh>\n'
expect "no #pragma once" tensor/z.hpp '#include <vector>\n'
expect "no #pragma once" tensor/z.hpp ''
expect "more than 500 lines" tensor/z.hpp "#pragma once\n$(printf '//\\n%.0s' {1..500})"
expect "" tensor/z.hpp "#pragma once\n$(printf '//\\n%.0s' {1..499})"
expect "not in the list" unknown/z.hpp '#pragma once\n'
expect "neither .hpp nor .cuh" core/z.h '#pragma once\n'

[ $failures -eq 0 ]
