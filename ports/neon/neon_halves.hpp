#pragma once

// Conversions of 16-bit numbers. AArch64 has instructions for f16; 32-bit NEON has them only with an extension, so
// there they are done in integers.
#include <arm_neon.h>

#include <cstdint>

#include "ports/kernels.hpp"

namespace nibkv {
namespace {

using namespace ports;

#if defined(__aarch64__)
float32x4_t from_f16(uint16x4_t halves) {
  return vcvt_f32_f16(vreinterpret_f16_u16(halves));
}
uint16x4_t to_f16(float32x4_t x) {
  return vreinterpret_u16_f16(vcvt_f16_f32(x));
}
#else
float32x4_t from_f16(uint16x4_t halves) {
  const uint32x4_t wide = vmovl_u16(halves);
  const uint32x4_t size = vandq_u32(wide, vdupq_n_u32(0x7fff));
  const uint32x4_t sign = vshlq_n_u32(veorq_u32(wide, size), 16);
  const uint32x4_t rebias = vdupq_n_u32((127 - 15) << 23);
  uint32x4_t bits = vaddq_u32(vshlq_n_u32(size, 13), rebias);
  bits = vaddq_u32(bits, vandq_u32(vcgtq_u32(size, vdupq_n_u32(0x7bff)), rebias));
  const float32x4_t denormal = vmulq_f32(vcvtq_f32_u32(size), vdupq_n_f32(0x1p-24f));
  bits = vbslq_u32(vcltq_u32(size, vdupq_n_u32(0x400)), vreinterpretq_u32_f32(denormal), bits);
  return vreinterpretq_f32_u32(vorrq_u32(bits, sign));
}

// The scalar port says why. The sum with 0.5 is normal; what it may flush is too small to change it.
uint16x4_t to_f16(float32x4_t x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x);
  const uint32x4_t size = vandq_u32(bits, vdupq_n_u32(0x7fffffff));
  const uint32x4_t sign = vshrq_n_u32(veorq_u32(bits, size), 16);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(size, 13), vdupq_n_u32(1));
  const uint32x4_t usual = vshrq_n_u32(vaddq_u32(vaddq_u32(size, odd), vdupq_n_u32(0xfffu - ((127u - 15u) << 23))), 13);
  const float32x4_t shifted = vaddq_f32(vreinterpretq_f32_u32(size), vdupq_n_f32(0.5f));
  const uint32x4_t denormal = vsubq_u32(vreinterpretq_u32_f32(shifted), vdupq_n_u32(0x3f000000));
  uint32x4_t half = vbslq_u32(vcltq_u32(size, vdupq_n_u32(0x38800000)), denormal, usual);
  half = vminq_u32(half, vdupq_n_u32(0x7c00));
  const uint32x4_t nan = vcgtq_u32(size, vdupq_n_u32(0x7f800000));
  half = vorrq_u32(half, vandq_u32(nan, vdupq_n_u32(0x200)));
  return vmovn_u32(vorrq_u32(half, sign));
}
#endif

uint16x4_t to_bf16(float32x4_t x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x);
  const uint32x4_t nan = vcgtq_u32(vandq_u32(bits, vdupq_n_u32(0x7fffffff)), vdupq_n_u32(0x7f800000));
  const uint32x4_t upper = vshrq_n_u32(bits, 16);
  const uint32x4_t odd = vandq_u32(upper, vdupq_n_u32(1));
  const uint32x4_t rounded = vshrq_n_u32(vaddq_u32(vaddq_u32(bits, odd), vdupq_n_u32(0x7fff)), 16);
  return vmovn_u32(vbslq_u32(nan, vorrq_u32(upper, vdupq_n_u32(0x40)), rounded));
}

void widen(const void* halves, int head_dim, Half half, float* row) {
  const auto* from = static_cast<const std::uint16_t*>(halves);
  for (int c = 0; c < head_dim; c += 4) {
    const uint16x4_t four = vld1_u16(from + c);
    vst1q_f32(row + c, half == Half::kF16 ? from_f16(four) : vreinterpretq_f32_u32(vshll_n_u16(four, 16)));
  }
}

void narrow(const float* row, int head_dim, Half half, void* halves) {
  auto* to = static_cast<std::uint16_t*>(halves);
  for (int c = 0; c < head_dim; c += 4) {
    const float32x4_t four = vld1q_f32(row + c);
    vst1_u16(to + c, half == Half::kF16 ? to_f16(four) : to_bf16(four));
  }
}

}  // namespace
}  // namespace nibkv
