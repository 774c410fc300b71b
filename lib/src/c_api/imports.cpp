// In an object file of its own, because programs that never import do not need what it calls.
#include "c_api/convert.hpp"

using namespace nibkv;

nibkv_status nibkv_import_snapshot_from_sized(nibkv_cache* cache, const nibkv_shape* shape, const nibkv_policy* policy,
                                              const nibkv_source* source, const nibkv_sizes* sizes) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  Taken saved;
  if (source == nullptr || !saved.take_shape(shape, sizes) || !saved.take_policy(policy, sizes)) {
    return NIBKV_BAD_ARGUMENT;
  }
  return to_c(import_snapshot(*in, saved.shape, saved.policy, to_cpp(source)));
}

nibkv_status nibkv_import_snapshot_sized(nibkv_cache* cache, const nibkv_shape* shape, const nibkv_policy* policy,
                                         const void* bytes, size_t count, const nibkv_sizes* sizes) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  Taken saved;
  if (bytes == nullptr || !saved.take_shape(shape, sizes) || !saved.take_policy(policy, sizes)) {
    return NIBKV_BAD_ARGUMENT;
  }
  return to_c(import_snapshot(*in, saved.shape, saved.policy, std::span{static_cast<const std::byte*>(bytes), count}));
}
