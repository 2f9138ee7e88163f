#!/usr/bin/env bash
# Runs a program in a folder of its own, which is removed afterwards: in_empty_folder.sh PROGRAM ARGUMENT...
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$@"
