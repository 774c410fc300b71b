#include "c_api/convert.hpp"

using namespace nibkv;

nibkv_status nibkv_reserve(nibkv_cache* cache, uint32_t layer, uint32_t count) {
  Cache* const in = ready(cache);
  return in == nullptr ? NIBKV_NOT_READY : to_c(reserve(*in, layer, count));
}

nibkv_status nibkv_append_share(nibkv_cache* cache, uint32_t layer, uint32_t count, const nibkv_rows* keys,
                                const nibkv_rows* values, const nibkv_share* share) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (keys == nullptr || values == nullptr || share == nullptr) return NIBKV_BAD_ARGUMENT;
  return to_c(append_share(*in, layer, count, to_cpp(*keys), to_cpp(*values), to_cpp(*share)));
}

bool nibkv_divisible(const nibkv_cache* cache) {
  const Cache* const in = ready(cache);
  return in != nullptr && divisible(*in);
}

nibkv_status nibkv_attend_share(nibkv_cache* cache, uint32_t layer, const nibkv_rows* query, const nibkv_share* share) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (query == nullptr || share == nullptr) return NIBKV_BAD_ARGUMENT;
  return to_c(attend_share(*in, layer, to_cpp(*query), to_cpp(*share)));
}

nibkv_status nibkv_combine_share(nibkv_cache* cache, uint32_t layer, const nibkv_mutable_rows* out,
                                 const nibkv_share* share) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (out == nullptr || share == nullptr) return NIBKV_BAD_ARGUMENT;
  return to_c(combine_share(*in, layer, to_cpp(*out), to_cpp(*share)));
}
