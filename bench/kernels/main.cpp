#include "bench/kernels/benchmarks.hpp"

int main(int argc, char** argv) {
  nibkv::bench::register_kernels();
  nibkv::bench::register_stages();
  nibkv::bench::register_threads();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
