# Sourced by the scripts named "run": what they have in common. Debian's packages are named once, here.

to_build="g++ cmake ninja-build libxsimd-dev"
to_test="catch2 libeigen3-dev libxtensor-dev pkg-config python3"
to_check="clang clang-format libclang-rt-14-dev"
to_measure="libbenchmark-dev libeigen3-dev python3"

jobs=$(nproc)

say() { printf '%s\n' "$*"; }

# need PACKAGE...: installs what is missing, or says what to type and stops.
need() {
  command -v dpkg-query >/dev/null || return 0  # not Debian: CMake will say what it does not find
  local missing=() package sudo=()
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
      say "missing packages: ${missing[*]}" >&2
      say "install them with: sudo apt-get install ${missing[*]}" >&2
      exit 1
    fi
    sudo=(sudo -n)
  fi
  say "installing ${missing[*]}"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "${missing[@]}" >/dev/null
}

# quietly LOG COMMAND...: runs a command and shows what it printed only if it fails.
quietly() {
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  "$@" >"$log" 2>&1 </dev/null || { local status=$?; cat "$log" >&2; return $status; }
}

# configure PRESET FOLDER OPTION...: a preset of CMakePresets.json into build/FOLDER, with Ninja where there is one.
configure() {
  local preset=$1 folder=build/$2 generator=()
  shift 2
  if [ ! -f "$folder/CMakeCache.txt" ] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
  quietly "$folder/configure.log" cmake --preset "$preset" -B "$folder" "${generator[@]}" "$@"
}

# build FOLDER [TARGET...]: with the progress of the build for whoever watches.
build() {
  local folder=build/$1
  shift
  local command=(cmake --build "$folder" --parallel "$jobs" ${1:+--target "$@"})
  [ ! -f "$folder/build.ninja" ] || command+=(-- -k 0)  # all errors at once
  if [ -t 1 ]; then "${command[@]}"; else quietly "$folder/build.log" "${command[@]}"; fi
}
