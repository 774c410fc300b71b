#include "nibkv/arena.hpp"

// In an object file of its own, because firmware whose sizes are constants does not need it.

namespace nibkv {
namespace {

bool is_preset(std::string_view name) {
  Policy found;
  return find_policy(name, 1, found) == Status::kOk;
}

struct NamedPreset {
  std::string_view name;

  Policy operator()(std::uint32_t tokens) const {
    Policy policy;
    return find_policy(name, tokens, policy) == Status::kOk ? policy : Policy{};
  }
};

}  // namespace

std::uint32_t tokens_that_fit(const Shape& shape, std::string_view preset, std::uint64_t bytes) {
  return is_preset(preset) ? tokens_that_fit(shape, NamedPreset{preset}, bytes) : 0;
}

std::size_t smallest_footprint(const Shape& shape, std::string_view preset) {
  return is_preset(preset) ? smallest_footprint(shape, NamedPreset{preset}) : 0;
}

}  // namespace nibkv
