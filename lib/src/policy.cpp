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
