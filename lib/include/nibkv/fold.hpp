#pragma once

#include <cstdint>

#include "nibkv/policy.hpp"
#include "nibkv/profile.hpp"

namespace nibkv {

/// Chooses the pairs of neighbouring layers that may share codes, from what a profile measured.
/// This is the gate: MiniCache (arXiv 2405.14366) relies on rows that point the same way in both
/// layers, which is not so in many models.
///
/// From `start_layer` up, a layer that is in no pair yet is paired with the one above it if the
/// mean cosine of their keys, or that of their values, is at least policy.fold.min_cosine / 256.
/// Only what reaches this bound is shared. Keys are compared as they are, or minus their means
/// under Fold::centred. Without measurements there are no pairs.
///
/// If the profile has maps, a second pass adds what is similar only through those maps, and marks
/// it as aligned: values, and, under Fold::centred only, keys.
///
/// footprint and tokens_that_fit account for what the pairs gain. A caller who knows better can
/// name pairs in Policy::fold. There are no pairs under other storages than kQ4, and where layers have wider codes.
///
/// @param policy       the policy under which layers may share (Policy::fold); its own
///                     pairs are discarded
/// @param profile      the one that the cache will get, made for the shape; or empty
/// @param start_layer  half of the layers is usual: in published models the lower layers
///                     are less similar
Policy fold_pairs(const Shape& shape, const Policy& policy, const ProfileView& profile, std::uint32_t start_layer);

}  // namespace nibkv
