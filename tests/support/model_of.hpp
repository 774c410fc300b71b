#pragma once

#include "tests/reference/arena_model.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::test {

/// What the reference reads in the arena of a rig.
inline reference::ArenaModel model_of(const Rig& rig) {
  return {rig.arena().bytes(), rig.shape(), rig.policy()};
}

/// Whether codes are those of the same row with fewer bits, as far as these go; where the bits are the same, the same
/// codes. A loose bound, that shows a wrong row.
inline bool is_lower_coding(const reference::Slot& before, const reference::Slot& after) {
  const auto near = [](int bits, int fewer, const auto& row, const auto& coded, bool same) {
    if (bits <= fewer) return bits == fewer && same;
    double error = 0, energy = 0;
    for (std::size_t i = 0; i < row.size(); ++i) {
      error += (row[i] - coded[i]) * (row[i] - coded[i]);
      energy += row[i] * row[i];
    }
    return error <= (fewer == 2 ? 0.5 : 0.25) * energy + 1e-30;
  };
  const bool keys = before.key_codes == after.key_codes && before.key_scale == after.key_scale;
  const bool values = before.value_codes == after.value_codes && before.value_scale == after.value_scale;
  return before.outliers == after.outliers &&
         near(before.key_bits, after.key_bits, before.rotated_key(), after.rotated_key(), keys) &&
         near(before.value_bits, after.value_bits, before.rotated_value(), after.rotated_value(), values);
}

}  // namespace nibkv::test
