#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "nibkv/nibkv.hpp"
#include "tests/support/random.hpp"

/// Rows and profiles of random numbers that are the same on every machine, in memory of the caller,
/// so that programs without a heap can use them too. rig.hpp has the same as vectors.
namespace nibkv::test {

inline constexpr std::size_t kPlantedChannels = 4;
inline constexpr std::size_t kProfileTokens = 64;  ///< number of tokens that write_profile passes to its Calibrator

/// The key channels of one head that a profile of this seed made large.
/// @param channels  [kPlantedChannels], written
void plant_channels(const Shape& shape, std::uint64_t seed, std::uint32_t layer, std::uint32_t kv_head,
                    std::uint32_t* channels);

/// Random::bell numbers.
void fill_bells(std::span<float> rows, Random& random);
/// Rows like those that the profile of the same seed was made from, [count][kv_heads][head_dim].
void fill_keys(std::span<float> keys, const Shape& shape, std::uint64_t seed, std::uint32_t layer, Random& random);
void fill_values(std::span<float> values, const Shape& shape, Random& random);

/// See make_profile.
/// @param memory   at least calibration_bytes(shape, options), aligned to 8 bytes
/// @param keys     space for kProfileTokens rows; likewise values and queries
/// @param profile  profile_bytes(shape, options.align), written
/// @returns the first status that was not kOk
Status write_profile(std::span<std::byte> profile, const Shape& shape, std::uint64_t seed, std::span<std::byte> memory,
                     std::span<float> keys, std::span<float> values, std::span<float> queries,
                     const CalibrationOptions& options = {});

/// What a cache of the policy needs in its profile: maps if layers are aligned.
CalibrationOptions calibration_of(const Policy& policy);
/// Whether a cache needs a profile at all.
bool needs_profile(const Shape& shape, const Policy& policy);

inline bool needs_head_scores(const Policy& policy) {
  return policy.budget == Budget::kScores || policy.budget == Budget::kRetrieval ||
         (has_log(policy) && policy.indexed != 256);
}
/// Whether it reads head scores where there are any.
inline bool reads_head_scores(const Policy& policy) {
  return needs_head_scores(policy) || policy.budget == Budget::kAnyScores;
}
inline bool needs_attention(const Policy& policy) {
  return policy.budget == Budget::kPrefix || policy.budget == Budget::kRules;
}

/// Any attention of a profile, by a seed.
void fill_attention(std::span<HeadAttention> attention, std::uint64_t seed);
/// Head scores of the profile's seed.
void fill_head_scores(std::span<float> scores, std::uint64_t seed);

}  // namespace nibkv::test
