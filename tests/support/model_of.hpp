#pragma once

#include "tests/reference/arena_model.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::test {

/// What the reference reads in the arena of a rig.
inline reference::ArenaModel model_of(const Rig& rig) {
  return {rig.arena().bytes(), rig.shape(), rig.policy()};
}

}  // namespace nibkv::test
