#include "nibkv/arena.hpp"

// In an object file of its own, because firmware whose sizes are constants does not need it.

namespace nibkv {

std::uint32_t tokens_that_fit(const Shape& shape, std::string_view preset, std::uint64_t bytes) {
  Policy found;
  if (find_policy(preset, 1, found) != Status::kOk) return 0;
  const auto with_budget = [preset](std::uint32_t tokens) {
    Policy policy;
    return find_policy(preset, tokens, policy) == Status::kOk ? policy : Policy{};
  };
  return tokens_that_fit(shape, with_budget, bytes);
}

}  // namespace nibkv
