#include "tests/support/rig.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <ostream>
#include <sstream>

#include "tests/support/effort.hpp"
#include "tests/support/rows.hpp"

namespace nibkv {

void PrintTo(Status status, std::ostream* out) {
  *out << "Status " << static_cast<int>(status) << " (" << text(status) << ")";
}

void PrintTo(const Shape& shape, std::ostream* out) {
  *out << test::words(shape, Policy{});
}

void PrintTo(const Policy& policy, std::ostream* out) {
  *out << test::words(Shape{}, policy);
}

}  // namespace nibkv

namespace nibkv::test {

std::vector<std::string> running_ports() {
  std::vector<std::string> names;
  for (std::uint32_t i = 0; !port_name(i).empty(); ++i) {
    if (port_runs(port_name(i)) && (kEveryPort || names.empty())) names.emplace_back(port_name(i));
  }
  return names;
}

std::string words(const Shape& shape, const Policy& policy, std::string_view port) {
  std::ostringstream out;
  out << "layers " << shape.layers << ", query heads " << shape.query_heads << ", KV heads " << shape.kv_heads
      << ", head_dim " << shape.head_dim << ", outliers " << shape.outlier_channels << ", chunk " << shape.max_chunk
      << ", workers " << shape.workers << (shape.storage == Storage::kF32 ? ", f32" : ", q4");
  if (shape.rotary.known()) {
    out << ", rotary " << shape.rotary.base << " on " << shape.rotary.dims << (shape.rotary.adjacent ? "" : ", halves");
    if (shape.rotary.reach != 0) out << ", reach " << shape.rotary.reach;
  }
  if (policy.tokens != 0)
    out << "; keep " << static_cast<int>(policy.keep) << ", tokens " << policy.tokens << ", sinks " << policy.sinks;
  if (policy.keep == Keep::kScore) {
    out << ", recent " << policy.recent << ", score " << static_cast<int>(policy.score) << ", group "
        << static_cast<int>(policy.group) << ", combine " << static_cast<int>(policy.combine) << ", per query "
        << policy.per_query << ", window " << policy.window << ", pool " << static_cast<int>(policy.pool) << ", merge "
        << static_cast<int>(policy.merge) << (policy.rephase ? " in phase" : "") << ", similarity "
        << static_cast<int>(policy.similarity) << (policy.position_free ? " position-free" : "") << ", mass "
        << static_cast<int>(policy.mass) << ", threshold " << static_cast<int>(policy.threshold)
        << (policy.mean_threshold ? " or mean" : "") << ", candidates " << static_cast<int>(policy.candidate_mass)
        << ", budget " << static_cast<int>(policy.budget);
  }
  if (!port.empty()) out << "; port " << port;
  return out.str();
}

std::vector<std::uint32_t> planted_channels(const Shape& shape, std::uint64_t seed, std::uint32_t layer,
                                            std::uint32_t kv_head) {
  std::vector<std::uint32_t> channels(kPlantedChannels);
  plant_channels(shape, seed, layer, kv_head, channels.data());
  return channels;
}

std::vector<float> keys_of_profile(const Shape& shape, std::uint64_t seed, std::uint32_t layer, std::size_t count,
                                   Random& random) {
  std::vector<float> keys(count * shape.kv_heads * shape.head_dim);
  fill_keys(keys, shape, seed, layer, random);
  return keys;
}

std::vector<float> values_of_profile(const Shape& shape, std::size_t count, Random& random) {
  std::vector<float> values(count * shape.kv_heads * shape.head_dim);
  fill_values(values, shape, random);
  return values;
}

std::vector<std::byte> make_profile(const Shape& shape, std::uint64_t seed, const CalibrationOptions& options) {
  std::vector<double> memory(calibration_bytes(shape, options) / sizeof(double) + 1);
  const std::size_t token = kProfileTokens * shape.head_dim;
  std::vector<float> keys(token * shape.kv_heads), values(keys.size()), queries(token * shape.query_heads);
  std::vector<std::byte> profile(profile_bytes(shape, options.align));
  EXPECT_EQ(
      write_profile(profile, shape, seed, std::as_writable_bytes(std::span(memory)), keys, values, queries, options),
      Status::kOk);
  return profile;
}

std::vector<std::byte> make_profile(const Shape& shape, const Policy& policy, std::uint64_t seed) {
  if (!needs_profile(shape, policy)) return {};
  std::vector<std::byte> profile = make_profile(shape, seed, calibration_of(policy));
  const std::size_t heads = std::size_t{shape.layers} * shape.kv_heads;
  std::vector<float> scores(heads);
  fill_head_scores(scores, seed);
  EXPECT_EQ(set_head_scores(profile, shape, scores), Status::kOk);
  if (needs_attention(policy)) {
    std::vector<HeadAttention> attention(heads);
    fill_attention(attention, seed);
    std::vector<std::byte> more(profile.size() + sizeof(HeadAttention) * heads);
    EXPECT_EQ(add_attention(profile, shape, attention, more), Status::kOk);
    profile = std::move(more);
  }
  return profile;
}

void seal(std::span<std::byte> profile) {
  std::memset(profile.data() + 12, 0, 4);
  std::uint32_t crc = 0xffffffff;
  for (const std::byte byte : profile) {
    crc ^= static_cast<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
  }
  crc = ~crc;
  std::memcpy(profile.data() + 12, &crc, 4);
}

std::vector<SlotInfo> explain_all(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head) {
  std::vector<SlotInfo> slots(cache.held(layer, kv_head));
  EXPECT_EQ(explain(cache, layer, kv_head, slots), Status::kOk) << words(cache.shape(), cache.policy(), cache.port());
  return slots;
}

std::vector<Preset> scored_presets(const Shape& shape, std::uint32_t tokens) {
  std::vector<Preset> list;
  for (std::uint32_t i = 0; !policy_name(i).empty(); ++i) {
    Policy policy;
    if (find_policy(policy_name(i), tokens, policy) != Status::kOk) continue;
    if (policy.keep == Keep::kScore && valid(policy, shape)) list.push_back({std::string(policy_name(i)), policy});
  }
  return list;
}

Policy random_scored_policy(Random& random, const Shape& shape, std::uint32_t most_tokens) {
  Policy policy;
  policy.keep = Keep::kScore;
  do {
    policy.tokens = random.within(1, most_tokens);
    policy.sinks = random.below(8);
    policy.recent = random.below(policy.tokens);
    policy.recent_share = static_cast<std::uint8_t>(random.below(2) == 0 ? 0 : random.below(256));
    policy.score = static_cast<Score>(random.below(4));
    policy.group = static_cast<Group>(shape.group() > kMaxRows ? 0 : random.below(2));
    policy.value_norms = policy.score != Score::kKeyNorm && random.below(2) == 0;
    policy.combine = static_cast<Combine>(random.below(2));
    policy.per_query = random.below(2) == 0;
    policy.window = static_cast<std::uint16_t>(1u << random.below(13));
    policy.pool = static_cast<std::uint8_t>(1 + 2 * random.below(8));
    policy.merge = static_cast<Merge>(random.below(3));
    policy.similarity = static_cast<Similarity>(random.below(3));
    policy.mass = static_cast<Mass>(random.below(3));
    policy.mean_threshold = random.below(4) == 0;
    policy.threshold = static_cast<std::uint8_t>(random.below(200));
    policy.candidate_mass = static_cast<std::uint8_t>(random.below(2) == 0 ? 0 : random.below(256));
    constexpr Budget kBudgets[] = {Budget::kUniform, Budget::kPyramid,   Budget::kScores, Budget::kAdaptive,
                                   Budget::kPrefix,  Budget::kRetrieval, Budget::kRules,  Budget::kAnyScores};
    policy.budget = kBudgets[random.below(8)];
    policy.most = static_cast<std::uint8_t>(random.within(1, 8));
    policy.recovered = static_cast<std::uint8_t>(random.within(1, 255));
    if (shape.rotary.known() && shape.rotary.reach == 0) {
      policy.rephase = random.below(2) == 0;
      policy.position_free = random.below(2) == 0;
    }
  } while (!valid(policy, shape));
  return policy;
}

std::vector<float> rows_of_sizes(Random& random, std::size_t rows, std::uint32_t head_dim) {
  Random numbers(random.word());
  std::vector<float> all = numbers.bells(rows * head_dim);
  constexpr float kSizes[] = {1.0f, 1.0f, 1.0f, 0.0f, 30.0f, 1e-3f, 3.0f, 1e6f};
  for (std::size_t at = 0; at < all.size(); at += head_dim) {
    const float size = kSizes[numbers.below(8)];
    for (std::size_t c = 0; c < head_dim; ++c) all[at + c] *= size;
  }
  return all;
}

Rotary random_rotary(Random& random, std::uint32_t head_dim) {
  constexpr float kBases[] = {1e4f, 1e5f, 5e5f, 1.0f};
  constexpr float kScales[] = {1.0f, 1.0f, 0.25f};
  Rotary rotary;
  rotary.base = kBases[random.below(4)];
  rotary.scale = kScales[random.below(3)];
  rotary.dims = static_cast<std::uint16_t>(random.below(2) == 0 ? head_dim : 2 * random.within(1, head_dim / 2));
  rotary.adjacent = random.below(2) == 0;
  return rotary;
}

Rotary random_rotary_and_reach(Random& random, std::uint32_t head_dim) {
  Rotary rotary = random_rotary(random, head_dim);
  if (random.below(2) == 0) rotary.reach = random.below(4) == 0 ? random.within(2, 9) : random.within(10, 300);
  return rotary;
}

Storage random_storage(Random& random) {
  if (random.below(2) == 0) return Storage::kQ4;
  constexpr Storage kOthers[] = {Storage::kQ8, Storage::kQ8Q4, Storage::kQ4Q2, Storage::kQ2};
  return kOthers[random.below(4)];
}

void widen_layers(Random& random, const Shape& shape, Policy& policy) {
  constexpr Storage kAll[] = {Storage::kQ8, Storage::kQ8Q4, Storage::kQ4Q2, Storage::kQ4};
  if (random.below(3) == 0) {
    Policy wide = policy;
    wide.wide_storage = kAll[random.below(4)];
    for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
      if (random.below(2) == 0) wide.wide.add(layer);
    }
    wide.wide_first = random.below(2) == 0;
    if (valid(wide, shape)) policy = wide;
  }
  if (random.below(3) == 0) draw_tiers(random, shape, policy);
}

void draw_tiers(Random& random, const Shape& shape, Policy& policy) {
  constexpr Storage kAll[] = {Storage::kQ8, Storage::kQ8Q4, Storage::kQ4Q2, Storage::kQ4};
  Policy tiers = policy;
  tiers.faint = 0;
  tiers.tail_storage = random.below(2) == 0 ? Storage::kQ8 : kAll[random.below(4)];
  tiers.tail = random.below(2) == 0 ? 32 * random.within(1, 2) : random.within(1, 70);
  if (!valid(tiers, shape)) return;
  policy = tiers;
  tiers.faint_storage = random.below(2) == 0 ? Storage::kQ2 : random_storage(random);
  tiers.faint = 32 * random.below(4);
  if (valid(tiers, shape)) policy = tiers;
}

Shape random_shape(Random& random, const MostShape& most) {
  const auto draw = [&](std::uint32_t largest) { return static_cast<std::uint16_t>(random.within(1, largest)); };
  Shape shape;
  shape.layers = draw(most.layers);
  shape.kv_heads = draw(most.kv_heads);
  shape.query_heads = static_cast<std::uint16_t>(shape.kv_heads * draw(most.group));
  shape.head_dim = static_cast<std::uint16_t>(16 * draw(most.blocks));
  shape.max_chunk = draw(most.chunk);
  return shape;
}

std::vector<std::uint32_t> random_plan(Random& random, std::size_t slots, std::uint32_t odds, bool merges,
                                       std::uint32_t faint, std::uint32_t most_faint) {
  std::vector<std::uint32_t> target(slots, kDrop);
  std::uint32_t next = 0;
  for (std::size_t i = 0; i < slots; ++i) {
    std::uint32_t& to = target[i];
    if (random.below(16) >= odds) continue;
    if (most_faint == 0 || (i >= faint && random.below(2) == 0)) {
      to = i >= faint ? next++ : kDrop;
    } else {
      to = kFaint;
      --most_faint;
    }
  }
  for (std::uint32_t& to : target) {
    if (to == kDrop && merges && next != 0 && random.below(2) == 0) to = kMember + random.below(next);
  }
  return target;
}

#ifdef NIBKV_SANITIZED
extern "C" void __asan_poison_memory_region(const volatile void* at, std::size_t bytes);

// The library reads and writes nothing there. Scratch lies in the regions from the plan on.
static void watch_gaps(std::span<std::byte> arena, const Shape& shape, const Policy& policy) {
  const Layout layout = layout_of(shape, policy);
  for (const Region& region : kRegions) {
    const std::uint64_t begin = layout.*region.offset;
    if (region.size != Region::Size::kLayout && begin >= layout.plan) continue;
    const std::uint64_t end = begin + region.bytes(shape, policy, layout);
    const std::uint64_t gap = detail::round_up(end, kArenaAlignment) - end;
    __asan_poison_memory_region(arena.data() + end, static_cast<std::size_t>(gap));
  }
}
#else
static void watch_gaps(std::span<std::byte>, const Shape&, const Policy&) {}
#endif

Rig::Rig(const Shape& shape, const Policy& policy, std::string_view port, std::uint64_t profile_seed,
         std::span<const std::uint32_t> budgets)
    : arena_(footprint(shape, policy)),
      profile_(make_profile(shape, policy, profile_seed)),
      pages_(static_cast<std::size_t>(cold_bytes(shape, policy))),
      store_(memory_store(pages_.data())) {
  made_ = cache_.init(arena_.bytes(), shape, policy,
                      {.port = port, .profile = profile_, .budgets = budgets, .store = &store_});
  EXPECT_EQ(made_, Status::kOk) << words(shape, policy, port);
  if (made_ == Status::kOk) watch_gaps(arena_.bytes(), shape, policy);
}

std::span<const std::byte> Rig::state() const {
  return arena_.bytes().first(static_cast<std::size_t>(layout_of(shape(), policy()).plan));
}

std::vector<float> attend_all(Cache& cache, std::uint32_t layer, std::span<const float> queries) {
  std::vector<float> out(queries.size());
  EXPECT_EQ(attend(cache, layer, queries, out), Status::kOk) << words(cache.shape(), cache.policy(), cache.port());
  return out;
}

bool same_bytes(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

}  // namespace nibkv::test
