#pragma once

#include "ports/kernels.hpp"

#if defined(__linux__) && (defined(__aarch64__) || defined(__arm__))
#include <sys/auxv.h>
#endif

namespace nibkv {

/// A built port and the test whether this CPU runs it.
struct Port {
  const Kernels* kernels;
  bool (*runs_here)();
};

#ifdef NIBKV_PORT_AVX512VNNI
inline bool runs_avx512vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif
#ifdef NIBKV_PORT_AVX2
inline bool runs_avx2() {
  return __builtin_cpu_supports("avx2");
}
#endif
#ifdef NIBKV_PORT_SSE41
inline bool runs_sse41() {
  return __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("ssse3");
}
#endif
#ifdef NIBKV_PORT_NEON_DOTPROD
#if defined(__linux__) && defined(__aarch64__)
inline bool runs_neon_dotprod() {
  return (getauxval(AT_HWCAP) & (1ul << 20)) != 0;
}  // HWCAP_ASIMDDP
#else
inline bool runs_neon_dotprod() {
  return true;
}  // built for a CPU that is known to have it
#endif
#endif
#ifdef NIBKV_PORT_NEON
#if defined(__linux__) && defined(__arm__)
inline bool runs_neon() {
  return (getauxval(AT_HWCAP) & (1ul << 12)) != 0;
}  // HWCAP_NEON
#else
inline bool runs_neon() {
  return true;
}  // part of AArch64
#endif
#endif
#ifdef NIBKV_PORT_MVE
inline bool runs_mve() {
  return true;
}  // built for a CPU that is known to have it
#endif
#ifdef NIBKV_PORT_DSP
inline bool runs_dsp() {
  return true;
}  // likewise
#endif
inline bool runs_scalar() {
  return true;
}

/// The selection ladder: all built ports, best first.
inline constexpr Port kPorts[] = {
#ifdef NIBKV_PORT_AVX512VNNI
    {&kAvx512vnniKernels, runs_avx512vnni},
#endif
#ifdef NIBKV_PORT_AVX2
    {&kAvx2Kernels, runs_avx2},
#endif
#ifdef NIBKV_PORT_SSE41
    {&kSse41Kernels, runs_sse41},
#endif
#ifdef NIBKV_PORT_NEON_DOTPROD
    {&kNeonDotprodKernels, runs_neon_dotprod},
#endif
#ifdef NIBKV_PORT_NEON
    {&kNeonKernels, runs_neon},
#endif
#ifdef NIBKV_PORT_MVE
    {&kMveKernels, runs_mve},
#endif
#ifdef NIBKV_PORT_DSP
    {&kDspKernels, runs_dsp},
#endif
    {&kScalarKernels, runs_scalar},
};

}  // namespace nibkv
