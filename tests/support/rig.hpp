#pragma once

#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/support/arena.hpp"
#include "tests/support/random.hpp"

namespace nibkv {

/// What GoogleTest prints for these in a message.
void PrintTo(Status status, std::ostream* out);
void PrintTo(const Shape& shape, std::ostream* out);
void PrintTo(const Policy& policy, std::ostream* out);

}  // namespace nibkv

namespace nibkv::test {

/// The names of the built ports that this CPU runs, fastest first; "scalar" is the
/// last. See effort.hpp.
std::vector<std::string> running_ports();

/// A shape, policy and port in words.
std::string words(const Shape& shape, const Policy& policy, std::string_view port = {});

/// A profile of random rows, made with a Calibrator. Some key channels of every head are 12
/// to 30 times as large as the others, and keys and values have means. The numbers come from
/// Random::bell: the profile is the same on every machine.
std::vector<std::byte> make_profile(const Shape& shape, std::uint64_t seed, const CalibrationOptions& options = {});

/// The profile that a cache needs, with head scores and attention of the same seed; empty if it needs none.
std::vector<std::byte> make_profile(const Shape& shape, const Policy& policy, std::uint64_t seed);

/// Corrects the checksum of a changed profile.
void seal(std::span<std::byte> profile);

/// The key channels that make_profile made large, of one head.
std::vector<std::uint32_t> planted_channels(const Shape& shape, std::uint64_t seed, std::uint32_t layer,
                                            std::uint32_t kv_head);

/// Rows like those that the profile of the same seed was made from.
std::vector<float> keys_of_profile(const Shape& shape, std::uint64_t seed, std::uint32_t layer, std::size_t count,
                                   Random& random);
std::vector<float> values_of_profile(const Shape& shape, std::size_t count, Random& random);

/// What explain() says about a chain; fails the test if explain() fails.
std::vector<SlotInfo> explain_all(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head);

/// A preset of Keep::kScore and its name.
struct Preset {
  std::string name;
  Policy policy;
};
/// All of them that are valid for the shape.
std::vector<Preset> scored_presets(const Shape& shape, std::uint32_t tokens);

/// Rows of bells of very different sizes, zero among them; takes one number of `random`.
std::vector<float> rows_of_sizes(Random& random, std::size_t rows, std::uint32_t head_dim);

/// Any rotary embedding that is known and fits.
Rotary random_rotary(Random& random, std::uint32_t head_dim);
/// Half of them have a reach, of few tokens.
Rotary random_rotary_and_reach(Random& random, std::uint32_t head_dim);

/// Any that has codes: half of them kQ4.
Storage random_storage(Random& random);
/// Gives some layers of a third of all policies wider codes, where the shape's storage has any.
void widen_layers(Random& random, const Shape& shape, Policy& policy);
/// Gives a policy a tail, and slots that become faint, where it may have them.
void draw_tiers(Random& random, const Shape& shape, Policy& policy);

/// The maximum values that random_shape draws.
struct MostShape {
  std::uint32_t layers;
  std::uint32_t kv_heads;
  std::uint32_t group;
  std::uint32_t blocks;  ///< of 16 channels
  std::uint32_t chunk;
};
/// Draws at least 1 of each of these; all other fields have their defaults.
Shape random_shape(Random& random, const MostShape& most);

/// A plan that keeps about odds / 16 of the slots, and drops the others, or, with `merges`,
/// merges half of them.
/// The slots that a head may hold beyond its budget.
inline std::uint32_t most_beyond(const Shape& shape, const Policy& policy) {
  if (policy.keep == Keep::kAll) return has_tiers(policy) ? shape.max_chunk + 2 * kTileSlots - 2u : kTileSlots - 1u;
  if (has_tiers(policy)) return shape.max_chunk + kTileSlots - 1u;
  return shape.max_chunk > kTileSlots ? shape.max_chunk : kTileSlots;
}

std::vector<std::uint32_t> random_plan(Random& random, std::size_t slots, std::uint32_t odds, bool merges,
                                       std::uint32_t faint = 0, std::uint32_t most_faint = 0);

/// Any policy of Keep::kScore, except with Budget::kTable, that fits the shape, which
/// must be Storage::kQ4.
Policy random_scored_policy(Random& random, const Shape& shape, std::uint32_t most_tokens);

/// A cache with its arena and, if it needs one, its profile, that of make_profile. AddressSanitizer watches the gaps between the regions of its state.
class Rig {
 public:
  Rig(const Shape& shape, const Policy& policy, std::string_view port = {}, std::uint64_t profile_seed = 1,
      std::span<const std::uint32_t> budgets = {});
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  Cache& cache() { return cache_; }
  const Cache& cache() const { return cache_; }
  const Arena& arena() const { return arena_; }
  const Shape& shape() const { return cache_.shape(); }
  const Policy& policy() const { return cache_.policy(); }
  std::span<const std::byte> profile() const { return profile_; }
  /// What a log has written.
  std::span<std::byte> pages() { return pages_; }
  /// Where it writes. May be changed.
  ColdStore& store() { return store_; }
  Status made() const { return made_; }

  /// The bytes of the arena that hold state: all before the plan and the scratch.
  std::span<const std::byte> state() const;
  std::vector<std::byte> copy_state() const { return copy_of(state()); }

 private:
  Arena arena_;
  std::vector<std::byte> profile_;
  std::vector<std::byte> pages_;  // of a log
  ColdStore store_;
  Cache cache_;
  Status made_;
};

/// Returns the attention of the last `count` tokens; fails the test if attend does.
std::vector<float> attend_all(Cache& cache, std::uint32_t layer, std::span<const float> queries);

/// True when two arrays of floats are the same bytes.
bool same_bytes(std::span<const float> a, std::span<const float> b);

}  // namespace nibkv::test
