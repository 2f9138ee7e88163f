#!/usr/bin/env bash
# Checks the headers below a folder: check.sh include/tesla
#
# A header includes only from its own room or from rooms above it in this list. Change the order here, and only here.
rooms="core tensor io backend network layer loss metric optimizer model all_layers.hpp data train
       sequential.hpp tensor_network.hpp train.hpp compress.hpp
       tesla.hpp"
most_lines=500

set -euo pipefail
cd "$1"

find . -type f | LC_ALL=C sort | sed 's|^\./||' | while IFS= read -r header; do
  case $header in
    *.hpp | *.cuh) ;;
    *) echo "$header: neither .hpp nor .cuh" && continue ;;
  esac
  awk -v header="$header" -v rooms="$rooms" -v most_lines="$most_lines" '
    function room_of(path) { sub("/.*", "", path); return path }
    function complain(what) { print header ":" FNR ": " what }
    BEGIN {
      split(rooms, list)
      for (i in list) rank[list[i]] = i + 0
      own = room_of(header)
      if (!(own in rank)) complain("the room \"" own "\" is not in the list of rooms")
    }
    /^[ \t]*#[ \t]*pragma[ \t]+once[ \t]*$/ { once = 1 }
    /^[ \t]*#[ \t]*include[ \t]*"/ { complain("includes with quotes instead of <tesla/...>: " $0) }
    /^[ \t]*#[ \t]*include[ \t]*</ {
      path = $0
      sub(/^[^<]*</, "", path)
      sub(/>.*/, "", path)
      if (path ~ /\.\.\//) complain("includes through ..: " path)
      if (path ~ /\.cuh$/ && header ~ /\.hpp$/) complain("includes a CUDA header: " path)
      if (path !~ /^tesla\//) next
      sub("^tesla/", "", path)
      if (system("test -f \"" path "\"") != 0) complain("includes tesla/" path ", which does not exist")
      room = room_of(path)
      if ((room in rank) && (own in rank) && rank[room] > rank[own])
        complain("includes tesla/" path ", from a room below its own")
    }
    END {
      if (!once) complain("no #pragma once")
      if (FNR > most_lines) complain("more than " most_lines " lines")
    }' "$header"
done | awk '{ print } END { exit NR > 0 }'  # nothing to say: success

[ -n "$(find . -name '*.hpp' -print -quit)" ] || { echo "no headers in $1" && exit 1; }
