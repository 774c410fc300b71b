#pragma once

#include <cstddef>
#include <cstdint>

#include "nibkv/profile.hpp"

// How similar the rows of two neighbouring layers are for the same tokens: sums over tokens,
// then cosines and maps.

namespace nibkv {

/// Sums of one KV head of a layer (the upper) and the layer below (the lower), over the tokens
/// that both have seen.
struct PairSums {
  double* tokens;         ///< one number, as are the next five
  double* keys;           ///< <lower, upper> of the keys
  double* key_rows;       ///< number of key pairs in which both have a direction,
  double* key_cosines;    ///< ... and the sum of their cosines
  double* value_rows;     ///< likewise for the values
  double* value_cosines;  ///<
  double* turns;          ///< [D / 2][2]: lower times conjugate of upper, for each pair of key channels;
                          ///< null if not aligned
  double* values;         ///< [D][D]: lower times transposed upper, of the values' directions; null if not aligned
};

/// The number of doubles in a PairSums.
constexpr std::size_t pair_sums_size(std::size_t head_dim, bool align) {
  return 6 + (align ? head_dim + head_dim * head_dim : 0);
}

inline PairSums pair_sums_at(double* at, std::size_t head_dim, bool align) {
  double* turns = align ? at + 6 : nullptr;
  return {at, at + 1, at + 2, at + 3, at + 4, at + 5, turns, align ? turns + head_dim : nullptr};
}

/// Sums over one layer's keys, from which their means are computed.
struct KeySums {
  double tokens;
  const double* keys;   ///< [D]
  const double* keys2;  ///< [D]
};

/// Adds one token.
void add_keys(const PairSums& sums, const float* lower, const float* upper, std::uint32_t head_dim,
              const RotaryPairs& rotary);
void add_values(const PairSums& sums, const float* lower, const float* upper, std::uint32_t head_dim);

/// Computes the cosines that a profile holds. All are unknown unless every token of both layers
/// was added to the pair.
/// @param map    [D][D] doubles, written: the map of the values, the identity where unknown;
///               null if not aligned
/// @param turns  [D / 2][2] doubles, written: cosines and sines of the keys' rotations;
///               null if not aligned
/// @param room   workspace of polar_workspace(D) doubles
LayerCosines measure_pair(const PairSums& sums, const KeySums& lower, const KeySums& upper, std::uint32_t head_dim,
                          const RotaryPairs& rotary, double* map, double* turns, double* room);

}  // namespace nibkv
