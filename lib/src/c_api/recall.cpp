#include "c_api/convert.hpp"
#include "nibkv/nibkv.hpp"

using namespace nibkv;

uint64_t nibkv_cold_bytes_sized(const nibkv_shape* shape, const nibkv_policy* policy, const nibkv_sizes* sizes) {
  Taken in;
  if (!in.take_shape(shape, sizes) || !in.take_policy(policy, sizes)) return 0;
  return valid(in.shape) && valid(in.policy, in.shape) ? cold_bytes(in.shape, in.policy) : 0;
}

nibkv_status nibkv_recall(nibkv_cache* cache, uint32_t layer, uint32_t count, const float* queries,
                          const nibkv_part* part) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (count > in->shape().max_chunk || queries == nullptr) return NIBKV_BAD_ARGUMENT;
  return to_c(recall(*in, layer, {queries, floats(*in, count, in->shape().query_heads)}, to_cpp(part)));
}

nibkv_status nibkv_recall_rows(nibkv_cache* cache, uint32_t layer, uint32_t count, const nibkv_rows* queries,
                               const nibkv_part* part) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (queries == nullptr) return NIBKV_BAD_ARGUMENT;
  return to_c(recall(*in, layer, count, to_cpp(*queries), to_cpp(part)));
}

nibkv_status nibkv_verify_log(nibkv_cache* cache, uint32_t layer, uint32_t kv_head) {
  Cache* const in = ready(cache);
  return in == nullptr ? NIBKV_NOT_READY : to_c(verify_log(*in, layer, kv_head));
}

nibkv_recall_usage nibkv_recall_usage_now(const nibkv_cache* cache) {
  const Cache* const in = ready(cache);
  if (in == nullptr) return {};
  const auto& [written_pages, read_pages, lost_pages, forgotten_pages, chosen_tokens, found_tokens] = recall_usage(*in);
  return {written_pages, read_pages, lost_pages, forgotten_pages, chosen_tokens, found_tokens};
}

uint32_t nibkv_recalled(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head) {
  const Cache* const in = ready(cache);
  return in == nullptr ? 0 : recalled(*in, layer, kv_head);
}
