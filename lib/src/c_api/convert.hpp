#pragma once

#include <cstddef>
#include <cstdint>
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

// Null for a handle that is null or not ready.
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
