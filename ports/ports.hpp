#pragma once

#include "ports/kernels.hpp"

#if defined(NIBKV_PORT_AVX2) || defined(NIBKV_PORT_AVX512VNNI)
#include <cpuid.h>
#elif defined(__linux__) && (defined(__aarch64__) || defined(__arm__))
#include <sys/auxv.h>
#elif defined(__APPLE__) && defined(__aarch64__)
#include <sys/sysctl.h>
#elif defined(_WIN32) && defined(__aarch64__)
extern "C" __declspec(dllimport) int __stdcall IsProcessorFeaturePresent(unsigned long feature);
#endif

namespace nibkv {

/// A built port, and a test whether this CPU can run it.
struct Port {
  const Kernels* kernels;
  bool (*runs_here)();
};

#if defined(NIBKV_PORT_AVX2) || defined(NIBKV_PORT_AVX512VNNI)
/// Every CPU with AVX2 has it, but a virtual machine may hide it. clang 14 does not know its name.
inline bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif
#ifdef NIBKV_PORT_AVX512VNNI
inline bool runs_avx512vnni() {
  return has_f16c() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif
#ifdef NIBKV_PORT_AVX2
inline bool runs_avx2() {
  return __builtin_cpu_supports("avx2") && has_f16c();
}
#endif
#ifdef NIBKV_PORT_SSE41
inline bool runs_sse41() {
  return __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("ssse3");
}
#endif
// NEON is available if the compiler was told that every CPU of the program has it, or if the
// operating system says so. Without an operating system there is no one to ask.
#ifdef NIBKV_PORT_NEON_DOTPROD
inline bool runs_neon_dotprod() {
#if defined(__ARM_FEATURE_DOTPROD)
  return true;
#elif defined(__linux__) && defined(__aarch64__)
  return (getauxval(AT_HWCAP) & (1ul << 20)) != 0;  // HWCAP_ASIMDDP
#elif defined(__APPLE__) && defined(__aarch64__)
  int has = 0;
  std::size_t bytes = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &bytes, nullptr, 0) == 0 && has != 0;
#elif defined(_WIN32) && defined(__aarch64__)
  return IsProcessorFeaturePresent(43) != 0;  // PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE
#else
  return false;
#endif
}
#endif
#ifdef NIBKV_PORT_NEON
inline bool runs_neon() {
#if defined(__ARM_NEON)  // always on AArch64
  return true;
#elif defined(__linux__) && defined(__arm__)
  return (getauxval(AT_HWCAP) & (1ul << 12)) != 0;  // HWCAP_NEON
#else
  return false;
#endif
}
#endif
// Configuring one of these ports states which CPU the program runs on.
#ifdef NIBKV_PORT_MVE
inline bool runs_mve() {
  return true;
}
#endif
#ifdef NIBKV_PORT_DSP
inline bool runs_dsp() {
  return true;
}
#endif
inline bool runs_scalar() {
  return true;
}

/// The selection ladder: all built ports, fastest first.
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
