#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "nibkv/nibkv.h"
#include "nibkv/nibkv.hpp"

namespace nibkv {

constexpr nibkv_status to_c(Status status) {
  return static_cast<nibkv_status>(status);
}

Shape to_cpp(const nibkv_shape& from);
Policy to_cpp(const nibkv_policy& from);
nibkv_policy to_c(const Policy& from);
ConstRows to_cpp(const nibkv_rows& from);
MutableRows to_cpp(const nibkv_mutable_rows& from);
/// @param from  null: the whole layer
Part to_cpp(const nibkv_part* from);
inline Share to_cpp(const nibkv_share& from) {
  return {from.index, from.of, from.worker};
}
/// @param from  not null; must outlive the result
SnapshotSource to_cpp(const nibkv_source* from);

/// Reads a caller's struct, which may be an older one, shorter, or a newer one, longer (nibkv_sizes). A field that is
/// added must begin after what was padding at the end of the older struct.
/// @param least  bytes that every version has
template <typename T>
bool take(T& to, const T* from, std::size_t bytes, std::size_t least) {
  if (from == nullptr || bytes < least) return false;
  to = {};
  std::memcpy(&to, from, bytes < sizeof to ? bytes : sizeof to);
  const auto* all = reinterpret_cast<const unsigned char*>(from);
  for (std::size_t i = sizeof to; i < bytes; ++i) {
    if (all[i] != 0) return false;
  }
  return true;
}

/// What the functions that take sizes read.
struct Taken {
  Shape shape;
  Policy policy;

  bool take_shape(const nibkv_shape* from, const nibkv_sizes* sizes);
  bool take_policy(const nibkv_policy* from, const nibkv_sizes* sizes);
};
/// Writes a policy as far as the caller's struct reaches.
/// @returns false for null or a size that no version has
bool give_policy(const Policy& from, nibkv_policy* to, const nibkv_sizes* sizes);

// Null for a handle that is null or not ready.
/// The number of floats of `count` tokens. The product cannot overflow: a size_t of 32 bits
/// holds 4096 * 1024 * 256 = 2^30.
inline std::size_t floats(const Cache& cache, std::uint32_t count, std::uint32_t heads) {
  return std::size_t{count} * heads * cache.shape().head_dim;
}

inline const Cache* ready(const nibkv_cache* handle) {
  if (handle == nullptr) return nullptr;
  const Cache* cache = reinterpret_cast<const Cache*>(handle->opaque);
  return cache->ready() ? cache : nullptr;
}
inline Cache* ready(nibkv_cache* handle) {
  return ready(static_cast<const nibkv_cache*>(handle)) != nullptr ? reinterpret_cast<Cache*>(handle->opaque) : nullptr;
}

inline std::string_view view(const char* text) {
  return text == nullptr ? std::string_view{} : std::string_view{text};
}

}  // namespace nibkv
