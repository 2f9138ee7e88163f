#!/usr/bin/env bash
# Builds and runs a program outside the project: check.sh WAY SOURCE_FOLDER EMPTY_FOLDER
#
# Takes CXX, CMAKE and CMAKE_GENERATOR from the environment. Ends with 77 where the machine cannot do it.
set -euo pipefail
way=$1 source=$2 folder=$3
here=$source/tests/package
cmake=${CMAKE:-cmake} cxx=${CXX:-g++}
rm -rf "$folder"
mkdir -p "$folder"

install_to() {
  "$cmake" -S "$source" -B "$folder/tesla" -DCMAKE_BUILD_TYPE=Release -DTESLA_BUILD_TESTS=OFF \
    -DTESLA_BUILD_BENCHMARKS=OFF -DTESLA_BUILD_EXAMPLES=OFF -DCMAKE_INSTALL_PREFIX="$1"
  "$cmake" --build "$folder/tesla" --target install
}

consumer() {
  "$cmake" -S "$here/consumer" -B "$folder/consumer" -DCMAKE_BUILD_TYPE=Debug -DTESLA_WAY="$way" "$@"
  "$cmake" --build "$folder/consumer"
  "$folder/consumer/consumer"
}

# processor_has LEVEL FLAG...: the processor has these features, and the compiler knows x86-64-LEVEL.
processor_has() {
  local level=$1 flag
  shift
  for flag in "$@"; do grep -qwm 1 "$flag" /proc/cpuinfo || return 1; done
  "$cxx" -march=x86-64-"$level" -E -x c++ /dev/null >/dev/null 2>&1
}

case $way in
  find_package)
    install_to "$folder/first"
    mv "$folder/first" "$folder/prefix"  # an installed tree can be moved
    consumer -DCMAKE_PREFIX_PATH="$folder/prefix"
    ;;
  add_subdirectory | fetch_content)
    consumer -DTESLA_FOLDER="$source"
    # A subproject brings none of its tests and programs along.
    [ -z "$(find "$folder/consumer" -type d \( -name tests -o -name benchmarks -o -name examples \))" ]
    ;;
  pkg_config)
    command -v pkg-config >/dev/null || exit 77
    install_to "$folder/first"
    mv "$folder/first" "$folder/prefix"
    export PKG_CONFIG_PATH=$folder/prefix/share/pkgconfig
    # shellcheck disable=SC2046  # the flags are words
    "$cxx" -std=c++20 "$here"/consumer/*.cpp $(pkg-config --cflags --libs tesla) -o "$folder/consumer"
    "$folder/consumer"
    ;;
  instruction_sets)
    # One unit for each level that the processor has, all linked into one program.
    levels=()
    processor_has v2 sse4_2 && levels+=(v2)
    processor_has v3 avx2 fma && levels+=(v3)
    processor_has v4 avx512f avx512bw avx512dq avx512vl && levels+=(v4)
    if [ ${#levels[@]} -lt 2 ]; then
      echo "needs a processor and a compiler for x86-64-v2 and x86-64-v3"
      exit 77
    fi
    # As few functions as possible vanish by being inlined, so that as many as possible could clash.
    flags=(-std=c++20 -O1 -fno-inline -I"$source/include")
    cd "$folder"
    for level in "${levels[@]}"; do
      "$cxx" "${flags[@]}" -march=x86-64-"$level" -DLEVEL="$level" -c "$here/levels/unit.cpp" -o "$level.o"
      # What the linker would merge with a namesake in another unit, by mangled name.
      nm --defined-only --extern-only --no-demangle "$level.o" | awk '{ print $3 }' | LC_ALL=C sort -u >"$level.all"
      c++filt <"$level.all" | paste "$level.all" - | awk -F '\t' '$2 ~ /tesla::/' >"$level.symbols"
      echo "$level: $(wc -l <"$level.symbols") symbols of the library"
      [ -s "$level.symbols" ]
    done
    for a in "${levels[@]}"; do
      for b in "${levels[@]}"; do
        [[ $a < $b ]] || continue
        LC_ALL=C comm -12 "$a.symbols" "$b.symbols" >common
        if [ -s common ]; then
          echo "defined by the units for $a and for $b, so one would run code made for the other:"
          cut -f 2 common
          exit 1
        fi
        echo "$a and $b: none in common ($(LC_ALL=C comm -12 "$a.all" "$b.all" | wc -l) of other libraries)"
      done
    done
    "$cxx" "${flags[@]}" "${levels[@]/#/-DHAS_}" "$here/levels/main.cpp" "${levels[@]/%/.o}" -o levels
    ./levels
    ;;
  *)
    echo "unknown way: $way"
    exit 2
    ;;
esac
