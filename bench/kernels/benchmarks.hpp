#pragma once

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "nibkv/status.hpp"

namespace nibkv::bench {

/// Benchmarks of each kernel by itself, on data in the first-level
/// cache: kernel/<kernel>/<port>/<head_dim>/...
void register_kernels();

/// Benchmarks of append, attend, save and restore, and of the two
/// baselines: <verb>/<model>/<outlier channels>/<tokens>/<port>.
void register_stages();

/// Benchmarks of threads that share the work of a layer: <verb>/<model>/0/<tokens>/threads:<n>, in real time.
void register_threads();

/// A counter of nanoseconds of CPU time per unit, for `units` per iteration.
inline benchmark::Counter nanoseconds_per(double units) {
  using benchmark::Counter;
  return Counter(units * 1e-9, Counter::Flags(Counter::kIsIterationInvariantRate | Counter::kInvert));
}

/// A counter of gigabytes per second, for `bytes` per iteration.
inline benchmark::Counter gigabytes_per_second(double bytes) {
  return benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

/// Ends the program if a call fails, measured or not.
inline void must(Status status) {
  if (status == Status::kOk) return;
  const std::string_view words = text(status);
  std::fprintf(stderr, "nibkv-bench: %.*s\n", static_cast<int>(words.size()), words.data());
  std::exit(1);
}

}  // namespace nibkv::bench
