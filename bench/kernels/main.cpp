#include "bench/kernels/benchmarks.hpp"

int main(int argc, char** argv) {
  nibkv::bench::register_kernels();
  nibkv::bench::register_stages();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
