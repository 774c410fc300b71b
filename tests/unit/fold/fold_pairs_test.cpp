// Which layers may share codes, according to a profile.
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "profile/format.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::fold_pairs_test {
namespace {

constexpr Shape kShape = {.layers = 7, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 8};

// A profile whose layers have these cosines, in percent, to those below: of keys and of values.
using Percents = std::vector<std::array<int, 2>>;

class Known {
 public:
  explicit Known(const Percents& above) : bytes_(test::make_profile(kShape, 1)) {
    for (std::uint32_t layer = 1; layer < kShape.layers; ++layer) {
      auto* at = const_cast<std::uint8_t*>(profile_cosines_at(bytes_.data(), layer, kShape.head_dim));
      put_i16(at, 4, static_cast<std::int16_t>(above[layer - 1][0] * 327.68));  // raw
      put_i16(at, 0, static_cast<std::int16_t>(layer == 4 ? 32000 : 0));        // minus their means
      put_i16(at, 1, static_cast<std::int16_t>(above[layer - 1][1] * 327.68));
    }
    test::seal(bytes_);
    EXPECT_EQ(view_.open(bytes_, kShape), Status::kOk);
  }
  const ProfileView& view() const { return view_; }

 private:
  std::vector<std::byte> bytes_;
  ProfileView view_;
};

LayerSet set_of(std::initializer_list<std::uint32_t> layers) {
  LayerSet set;
  for (const std::uint32_t layer : layers) set.add(layer);
  return set;
}

TEST(FoldPairs, TakesTheLayerAboveWhereItIsAlike) {
  const Known known({{90, 90}, {90, 90}, {10, 10}, {80, 20}, {99, 99}, {20, 75}});
  const Policy policy = fold_pairs(kShape, ems_fold(300), known.view(), 0);
  EXPECT_EQ(policy.fold.keys, set_of({0, 3}));
  EXPECT_EQ(policy.fold.values, set_of({0, 5})) << "layer 4 is taken by 3, so 5 is free for 6";
  EXPECT_TRUE(valid(policy, kShape));
  Policy centred = ems_fold(300);
  centred.fold.centred = true;
  EXPECT_EQ(fold_pairs(kShape, centred, known.view(), 1).fold.keys, set_of({3}));
  const Policy later = fold_pairs(kShape, policy, known.view(), 4);
  EXPECT_EQ(later.fold.keys, set_of({4})) << "pairs of before are forgotten";
  EXPECT_EQ(later.fold.values, set_of({4}));
  EXPECT_FALSE(has_pairs(fold_pairs(kShape, policy, known.view(), 6))) << "the last layer has none above";
  EXPECT_FALSE(has_pairs(fold_pairs(kShape, policy, known.view(), 0xffffffff)));
}

TEST(FoldPairs, AsksForTheCosineOfThePolicy) {
  const Known known({{60, 0}, {0, 0}, {69, 70}, {0, 0}, {0, 0}, {0, 0}});
  Policy policy = full(300);
  EXPECT_EQ(fold_pairs(kShape, policy, known.view(), 0).fold.keys, LayerSet{});
  EXPECT_EQ(fold_pairs(kShape, policy, known.view(), 0).fold.values, set_of({2}));
  policy.fold.min_cosine = 176;  // 0.6875
  EXPECT_EQ(fold_pairs(kShape, policy, known.view(), 0).fold.keys, set_of({2}));
  policy.fold.min_cosine = 150;
  EXPECT_EQ(fold_pairs(kShape, policy, known.view(), 0).fold.keys, set_of({0, 2}));
}

TEST(FoldPairs, NothingMeasuredNothingFolds) {
  Policy policy = minicache(300, pairs_from(0, 6));
  policy.fold.min_cosine = 0;
  EXPECT_FALSE(has_pairs(fold_pairs(kShape, policy, ProfileView{}, 0)));
  std::vector<std::byte> bytes = test::make_profile(kShape, 1);
  for (std::uint32_t layer = 1; layer < kShape.layers; ++layer) {
    auto* at = const_cast<std::uint8_t*>(profile_cosines_at(bytes.data(), layer, kShape.head_dim));
    for (std::size_t i = 0; i < 5; ++i) put_i16(at, i, kUnknownCosine);
  }
  test::seal(bytes);
  ProfileView view;
  ASSERT_EQ(view.open(bytes, kShape), Status::kOk);
  EXPECT_FALSE(has_pairs(fold_pairs(kShape, policy, view, 0)));
}

TEST(FoldPairs, ChangesNothingElse) {
  const Known known({{90, 90}, {0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 0}});
  Policy policy = ems_fold(300);
  policy.fold.recent = 50;
  policy.fold.t = 3;
  policy.fold.retained = 4;
  policy.fold.retain = Retain::kNear;
  Policy chosen = fold_pairs(kShape, policy, known.view(), 0);
  EXPECT_EQ(chosen.fold.keys, set_of({0}));
  chosen.fold.keys = chosen.fold.values = {};
  EXPECT_EQ(chosen, policy);
}

}  // namespace
}  // namespace nibkv::fold_pairs_test
