// A profile, as it is and with its checksum corrected: it is refused, or a cache can use it.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "nibkv/nibkv.hpp"
#include "tests/fuzz/targets.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::fuzz {
namespace {

constexpr Shape kShape = {.layers = 2, .query_heads = 2, .kv_heads = 1, .head_dim = 16, .outlier_channels = 8};

void offer(std::span<const std::byte> input) {
  const std::vector<std::byte> bytes(input.begin(), input.end());
  ProfileView view;
  const Status opened = view.open(bytes, kShape);
  Policy policy = ems(40);
  policy.budget = Budget::kScores;
  static test::Arena arena(footprint(kShape, policy));
  Cache cache;
  EXPECT_EQ(cache.init(arena.bytes(), kShape, policy, {.profile = bytes}), opened);
  if (opened != Status::kOk) {
    EXPECT_EQ(opened, Status::kBadProfile);
    EXPECT_TRUE(view.empty());
    return;
  }
  for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
    (void)view.cosines(layer);
    if (view.has_maps() && layer != 0) {
      EXPECT_NE(view.value_map(layer, 0), nullptr);
      EXPECT_NE(view.key_turns(layer, 0), nullptr);
    }
  }
  test::Random random(1);
  for (int step = 0; step < 80; ++step) {
    for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
      const auto rows = random.bells(16);
      EXPECT_EQ(append(cache, layer, rows, rows), Status::kOk);
      if (step % 16 == 15) {
        for (const float x : test::attend_all(cache, layer, random.bells(32))) EXPECT_TRUE(std::isfinite(x));
      }
    }
  }
  EXPECT_EQ(check(cache), Status::kOk);
  std::vector<std::byte> scored = bytes;
  const float scores[] = {0.5f, 2.0f};
  EXPECT_EQ(set_head_scores(scored, kShape, scores), Status::kOk);
  for (const Policy& other : {fast_gen(40), prefix_kv(40), duo(40)}) {
    static test::Arena space(1 << 17);
    const Status made = cache.init(space.bytes().first(footprint(kShape, other)), kShape, other, {.profile = bytes});
    EXPECT_EQ(made, other.keep == Keep::kRecent || view.has_attention() ? Status::kOk : Status::kBadProfile);
    if (made == Status::kOk) {
      EXPECT_EQ(check(cache), Status::kOk);
    }
  }
  EXPECT_TRUE(arena.guards_intact());
}

}  // namespace

// One byte that tells whether to correct the checksum and the length, then the profile.
void profile(std::span<const std::byte> input) {
  if (input.empty()) return;
  std::vector<std::byte> bytes(input.begin() + 1, input.end());
  if (input[0] != std::byte{0} && bytes.size() >= 32) {
    const auto total = static_cast<std::uint32_t>(bytes.size());
    std::memcpy(bytes.data() + 8, &total, 4);
    test::seal(bytes);
  }
  offer(bytes);
}

std::vector<Input> profile_seeds() {
  std::vector<Input> seeds;
  for (const bool align : {false, true}) {
    const CalibrationOptions options = {.align = align};
    std::vector<double> memory(calibration_bytes(kShape, options) / 8);
    Calibrator calibrator;
    EXPECT_EQ(calibrator.init(std::as_writable_bytes(std::span(memory)), kShape, options), Status::kOk);
    test::Random random(2);
    for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
      const auto rows = random.bells(64 * 16);
      EXPECT_EQ(calibrator.observe(layer, random.bells(64 * 32), rows, rows), Status::kOk);
    }
    std::vector<std::byte> bytes(profile_bytes(kShape, align));
    EXPECT_EQ(calibrator.write(bytes), Status::kOk);
    if (align) {
      std::vector<HeadAttention> attention(2);
      std::vector<std::byte> more(profile_bytes(kShape, true, true));
      EXPECT_EQ(add_attention(bytes, kShape, attention, more), Status::kOk);
      bytes = std::move(more);
    }
    for (const std::byte sealed : {std::byte{0}, std::byte{1}}) {
      Input input = {sealed};
      input.insert(input.end(), bytes.begin(), bytes.end());
      seeds.push_back(input);
    }
  }
  return seeds;
}

}  // namespace nibkv::fuzz
