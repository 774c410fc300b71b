# shellcheck shell=sh
# Functions for the scripts that set up, build and test: . toolchains/debian.sh

missing_packages=

# need PACKAGE COMMAND...: notes that the package is missing unless the command succeeds.
need() {
  package=$1
  shift
  "$@" >/dev/null 2>&1 || missing_packages="$missing_packages $package"
}

# What building the programs needs.
need_for_programs() {
  need cmake command -v cmake
  [ -n "${CXX:-}" ] || need g++ command -v g++
  need make command -v make
}

# What configuring, building and testing with the default options needs.
need_for_building() {
  need_for_programs
  need python3 command -v python3
  need googletest test -e /usr/src/googletest/CMakeLists.txt
  need libbenchmark-dev test -e /usr/include/benchmark/benchmark.h
}

# Installs with apt what is missing, as root or by sudo. All that it says goes to standard error. Returns 1 when that cannot be; without
# apt it only says what is missing.
install_missing() {
  [ -n "$missing_packages" ] || return 0
  echo "missing packages:$missing_packages" >&2
  if ! command -v apt-get >/dev/null; then
    echo "there is no apt-get here: please install what these Debian packages hold; going on with what there is" >&2
    return 0
  fi
  if [ "$(id -u)" -eq 0 ]; then
    as_root=
  elif command -v sudo >/dev/null; then
    as_root=sudo
  else
    echo "neither root nor sudo here; as root, run: apt-get install$missing_packages" >&2
    return 1
  fi
  # shellcheck disable=SC2086 # lists of words
  if $as_root apt-get update -q >&2 &&
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing_packages >&2; then
    missing_packages=
    return 0
  fi
  echo "apt-get failed; as root, run: apt-get install$missing_packages" >&2
  return 1
}

# Prints how many compilers to run at the same time: as many as cores, each with a gigabyte of memory.
job_count() {
  jobs=$(nproc)
  if [ -r /proc/meminfo ]; then
    gigabytes=$(awk '/^MemAvailable:/ { print int($2 / 1048576) }' /proc/meminfo)
    if [ "$jobs" -gt "${gigabytes:-$jobs}" ]; then
      jobs=$((gigabytes > 1 ? gigabytes : 1))
    fi
  fi
  echo "$jobs"
}

# print_comment FILE: prints the comment that a script begins with, which is its help.
print_comment() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$1"
}
