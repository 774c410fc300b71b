#include "nibkv/fold.hpp"

namespace nibkv {
namespace {

// Cosines are in Q15. An unknown one is below all that are asked for.
bool reaches(std::int16_t cosine, std::uint8_t least) {
  return cosine != kUnknownCosine && cosine >= std::int32_t{least} * 128;
}

}  // namespace

Policy fold_pairs(const Shape& shape, const Policy& policy, const ProfileView& profile, std::uint32_t start_layer) {
  Policy chosen = policy;
  chosen.fold.keys = chosen.fold.values = {};
  if (profile.empty()) return chosen;
  const std::uint8_t least = policy.fold.min_cosine;
  for (std::uint32_t lower = start_layer; lower < kMaxPairedLayers && lower + 1 < shape.layers; ++lower) {
    const LayerCosines cosines = profile.cosines(lower + 1);
    const bool keys = reaches(policy.fold.centred ? cosines.keys : cosines.raw_keys, least);
    const bool values = reaches(cosines.values, least);
    if (keys) chosen.fold.keys.add(lower);
    if (values) chosen.fold.values.add(lower);
    if (keys || values) ++lower;  // both are taken
  }
  return chosen;
}

}  // namespace nibkv
