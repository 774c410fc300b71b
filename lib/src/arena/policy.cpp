#include "nibkv/policy.hpp"

namespace nibkv {
namespace {

struct Preset {
  std::string_view name;
  Policy (*make)(std::uint32_t tokens);
};

constexpr Preset kPresets[] = {
    {"full", [](std::uint32_t tokens) { return full(tokens); }},
    {"streaming_llm", [](std::uint32_t tokens) { return streaming_llm(tokens); }},
    {"ems", [](std::uint32_t tokens) { return ems(tokens); }},
    {"ems_no_merge", [](std::uint32_t tokens) { return ems_no_merge(tokens); }},
    {"h2o", [](std::uint32_t tokens) { return h2o(tokens); }},
    {"tova", [](std::uint32_t tokens) { return tova(tokens); }},
    {"snapkv", [](std::uint32_t tokens) { return snapkv(tokens); }},
    {"l2_norm", [](std::uint32_t tokens) { return l2_norm(tokens); }},
    {"pyramid_kv", [](std::uint32_t tokens) { return pyramid_kv(tokens); }},
    {"ada_kv", [](std::uint32_t tokens) { return ada_kv(tokens); }},
    {"head_kv", [](std::uint32_t tokens) { return head_kv(tokens); }},
    {"prefix_kv", [](std::uint32_t tokens) { return prefix_kv(tokens); }},
    {"duo", [](std::uint32_t tokens) { return duo(tokens); }},
    {"fast_gen", [](std::uint32_t tokens) { return fast_gen(tokens); }},
    {"precise_tail", [](std::uint32_t tokens) { return precise_tail(tokens); }},
    {"qpruning", [](std::uint32_t tokens) { return qpruning(tokens); }},
    {"recall", [](std::uint32_t tokens) { return recall_window(tokens); }},
    {"minicache", [](std::uint32_t tokens) { return minicache(tokens); }},
    {"ems_fold", [](std::uint32_t tokens) { return ems_fold(tokens); }},
};

}  // namespace

Status find_policy(std::string_view name, std::uint32_t tokens, Policy& policy) {
  for (const Preset& preset : kPresets) {
    if (preset.name != name) continue;
    policy = preset.make(tokens);
    return Status::kOk;
  }
  return Status::kBadPolicy;
}

std::string_view policy_name(std::uint32_t index) {
  return index < sizeof kPresets / sizeof kPresets[0] ? kPresets[index].name : std::string_view{};
}

}  // namespace nibkv
