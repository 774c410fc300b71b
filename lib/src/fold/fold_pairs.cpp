#include "nibkv/fold.hpp"

namespace nibkv {
namespace {

// Cosines are in Q15. An unknown one never reaches the minimum.
bool reaches(std::int16_t cosine, std::uint8_t least) {
  return cosine != kUnknownCosine && cosine >= std::int32_t{least} * 128;
}

}  // namespace

Policy fold_pairs(const Shape& shape, const Policy& policy, const ProfileView& profile, std::uint32_t start_layer) {
  Policy chosen = policy;
  Fold& fold = chosen.fold;
  fold.keys = fold.values = fold.aligned_keys = fold.aligned_values = {};
  if (profile.empty() || shape.storage != Storage::kQ4 || has_wide(policy)) return chosen;
  const auto take = [&](std::uint32_t lower, bool aligned) {
    const bool in_pair = detail::is_lower(chosen, lower);
    const bool free = !detail::is_paired(chosen, lower) && !detail::is_lower(chosen, lower + 1);
    if (!in_pair && !free) return;
    const LayerCosines cosines = profile.cosines(lower + 1);
    // Rotated keys were measured minus their means.
    const std::int16_t keys = aligned        ? fold.centred ? cosines.aligned_keys : kUnknownCosine
                              : fold.centred ? cosines.keys
                                             : cosines.raw_keys;
    const std::int16_t values = aligned ? cosines.aligned_values : cosines.values;
    if (!fold.keys.has(lower) && reaches(keys, fold.min_cosine)) {
      fold.keys.add(lower);
      if (aligned) fold.aligned_keys.add(lower);
    }
    if (!fold.values.has(lower) && reaches(values, fold.min_cosine)) {
      fold.values.add(lower);
      if (aligned) fold.aligned_values.add(lower);
    }
  };
  for (const bool aligned : {false, true}) {
    if (aligned && !profile.has_maps()) break;
    for (std::uint32_t lower = start_layer; lower < kMaxPairedLayers && lower + 1 < shape.layers; ++lower) {
      take(lower, aligned);
    }
  }
  return chosen;
}

}  // namespace nibkv
