#pragma once

#include <cstdint>

#include "nibkv/policy.hpp"
#include "nibkv/profile.hpp"

namespace nibkv {

/// Chooses the pairs of neighbouring layers that may share codes, by what a profile knows of them: the gate (MiniCache,
/// arXiv 2405.14366, rests on rows that point the same way in both layers, which those of many models do not).
///
/// From `start_layer` up, a layer that is in no pair yet takes the one above it when the mean cosine of their keys, or
/// that of their values, is at least policy.fold.min_cosine / 256; only what reaches it is shared. Keys are compared
/// as they are, or less their means under Fold::centred. Nothing measured: no pairs.
///
/// What is alike only through the maps of a profile that has them comes after all that is alike as it is, and is
/// aligned: values; keys under Fold::centred only.
///
/// Footprint and tokens_that_fit count what the pairs gain. A caller who knows better names pairs in Policy::fold.
///
/// @param policy       under which layers may share (Policy::fold); its own pairs are forgotten
/// @param profile      of the shape, or empty; that which the cache gets
/// @param start_layer  half of the layers is usual: the lower ones of published models are the less alike
Policy fold_pairs(const Shape& shape, const Policy& policy, const ProfileView& profile, std::uint32_t start_layer);

}  // namespace nibkv
