// Operations on a cache: the input chooses their order, the shape and the policy. Compared with
// the plain models of the property tests.
#include <gtest/gtest.h>

#include "tests/fuzz/targets.hpp"
#include "tests/property/fold_walk.hpp"
#include "tests/property/log_walk.hpp"
#include "tests/property/scored_walk.hpp"
#include "tests/property/walk.hpp"

namespace nibkv::fuzz {

// A byte for the port, a byte for the kind of policy, then two bytes for each choice.
void operations(std::span<const std::byte> input) {
  static const std::vector<std::string> kPorts = test::running_ports();
  if (input.size() < 2) return;
  const std::string& port = kPorts[std::to_integer<std::size_t>(input[0]) % kPorts.size()];
  const auto kind = std::to_integer<std::size_t>(input[1]);
  const std::size_t preset = kind % 20;
  const test::Random random(input.subspan(2));
  constexpr int kSteps = 6;
  if (kind >= 220) {
    test::LogWalk walk(random, port, true);
    walk.steps(kSteps);
  } else if (preset < 6) {
    test::Walk walk(random, port, true);
    walk.steps(kSteps);
  } else if (preset < 16) {
    test::ScoredWalk walk(random, 1, preset - 6, port, true);
    walk.steps(kSteps);
  } else {
    test::FoldWalk walk(random, 1, port, true);
    walk.steps(kSteps);
  }
}

std::vector<Input> operations_seeds() {
  std::vector<Input> seeds;
  test::Random random(1);
  for (unsigned i = 0; i < 64; ++i) {
    // The last ones have a log.
    Input input = {static_cast<std::byte>(i), static_cast<std::byte>(i < 48 ? i : 172 + i)};
    for (int byte = 0; byte < 200; ++byte) input.push_back(static_cast<std::byte>(random.below(256)));
    seeds.push_back(input);
  }
  return seeds;
}

}  // namespace nibkv::fuzz
