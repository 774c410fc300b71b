#include "nibkv/profile.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/reference/arena_model.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/rows.hpp"

namespace nibkv::profile_test {
namespace {

using test::Random;

constexpr Shape kShape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 64};
constexpr Shape kTiny = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16};

double bf16(const std::uint8_t* bytes, std::size_t index) {
  return static_cast<double>(
      std::bit_cast<float>(static_cast<std::uint32_t>(bytes[2 * index] | bytes[2 * index + 1] << 8) << 16));
}

// The view must refuse `bytes` and keep what it had.
void expect_refused(std::span<const std::byte> bytes, const Shape& shape, const char* what, std::size_t number) {
  ProfileView view;
  EXPECT_EQ(view.open(bytes, shape), Status::kBadProfile) << what << " " << number;
  EXPECT_TRUE(view.empty()) << what << " " << number;
}

TEST(Profile, OpensWhatTheCalibratorWrote) {
  const std::vector<std::byte> profile = test::make_profile(kShape, 71);
  ASSERT_EQ(profile.size(), profile_bytes(kShape));
  ProfileView view;
  EXPECT_TRUE(view.empty());
  ASSERT_EQ(view.open(profile, kShape), Status::kOk);
  EXPECT_FALSE(view.empty());
  Shape other = kShape;  // only layers, KV heads and head_dim matter
  other.query_heads = 2;
  other.outlier_channels = 16;
  other.max_chunk = 99;
  EXPECT_EQ(view.open(profile, other), Status::kOk);
}

TEST(Profile, HeaderIsAsDocumented) {
  const std::vector<std::byte> profile = test::make_profile(kShape, 72);
  ProfileHeader header;
  std::memcpy(&header, profile.data(), sizeof header);
  EXPECT_EQ(std::memcmp(profile.data(), "NBKP", 4), 0);
  EXPECT_EQ(header.version, kProfileVersion);
  EXPECT_EQ(header.header_bytes, 32);
  EXPECT_EQ(header.total_bytes, profile.size());
  EXPECT_EQ(header.layers, 2);
  EXPECT_EQ(header.kv_heads, 2);
  EXPECT_EQ(header.head_dim, 64);
  EXPECT_EQ(header.channels, 16);
  EXPECT_EQ(header.flags, 0);
  EXPECT_EQ(header.rotary_pairs, 0);
  EXPECT_EQ(header.weights, 0u);
  std::vector<std::byte> again = profile;
  test::seal(again);
  EXPECT_EQ(again, profile) << "the checksum";
}

TEST(Profile, KnowsItsWeightsAndACacheOfOthersRefusesIt) {
  for (const std::uint32_t of : {0u, 1u, 0x89abcdefu}) {
    const std::vector<std::byte> profile = test::make_profile(kTiny, 73, {.weights = of});
    ProfileView view;
    ASSERT_EQ(view.open(profile, kTiny), Status::kOk);
    EXPECT_EQ(view.weights(), of);
    for (const std::uint32_t model : {0u, 1u, 0x89abcdefu, 0xffffffffu}) {
      test::Arena arena(footprint(kTiny, full(32)));
      Cache cache;
      const bool known = of != 0 && model != 0;
      EXPECT_EQ(cache.init(arena.bytes(), kTiny, full(32), {.profile = profile, .weights = model}),
                known && of != model ? Status::kBadProfile : Status::kOk)
          << of << ", " << model;
    }
  }
}

TEST(Profile, EveryTruncationAndExtensionIsRefused) {
  const std::vector<std::byte> profile = test::make_profile(kTiny, 73);
  for (std::size_t size = 0; size < profile.size(); ++size)
    expect_refused(std::span(profile).first(size), kTiny, "size", size);
  std::vector<std::byte> longer = profile;
  longer.push_back(std::byte{0});
  expect_refused(longer, kTiny, "size", longer.size());
}

TEST(Profile, EveryFlippedBitIsRefused) {
  std::vector<std::byte> profile = test::make_profile(kTiny, 74);
  for (std::size_t bit = 0; bit < profile.size() * 8; ++bit) {
    profile[bit / 8] ^= std::byte{1} << bit % 8;
    expect_refused(profile, kTiny, "bit", bit);
    profile[bit / 8] ^= std::byte{1} << bit % 8;
  }
  ProfileView view;
  EXPECT_EQ(view.open(profile, kTiny), Status::kOk);
}

TEST(Profile, FieldsOutOfRangeAreRefusedUnderARightChecksum) {
  const std::vector<std::byte> good = test::make_profile(kTiny, 75);
  const auto change = [&](std::size_t at, std::initializer_list<int> bytes, const char* what) {
    std::vector<std::byte> bad = good;
    for (const int byte : bytes) bad[at++] = static_cast<std::byte>(byte);
    test::seal(bad);
    expect_refused(bad, kTiny, what, at);
  };
  change(0, {'X'}, "magic");
  change(4, {1}, "version");
  change(4, {2}, "version");
  change(4, {3}, "version");
  change(4, {5}, "version");
  change(6, {64}, "header_bytes");
  change(8, {1, 0, 0, 0}, "total_bytes");
  change(16, {2}, "layers");
  change(18, {2}, "kv_heads");
  change(20, {32}, "head_dim");
  change(22, {8}, "channels");
  change(24, {1}, "maps that are not there");
  change(24, {2}, "pairs of no maps");
  change(26, {8}, "rotary pairs of no maps");
  ProfileView view;
  ASSERT_EQ(view.open(good, kTiny), Status::kOk);
  const HeadProfile head = view.head(0, 0);
  const auto offset = [&](const void* field) {
    return static_cast<std::size_t>(static_cast<const std::byte*>(field) - good.data());
  };
  change(offset(head.channels), {16}, "channel out of range");
  change(offset(head.channels) + 3, {head.channels[4]}, "channel twice");
  change(offset(head.outlier_scales), {0x00, 0xff}, "infinite scale");
  change(offset(head.key_means) + 4, {0x80, 0x7f}, "infinite key mean");
  change(offset(head.key_means) + 4, {0xc1, 0xff}, "key mean not a number");
  change(offset(head.outlier_scales) + 2, {0x01, 0x00}, "denormal scale");
  change(offset(head.query_squares) + 30, {0x80, 0x7f}, "infinite query square");
  change(offset(head.query_squares) + 30, {0x80, 0xbf}, "negative query square");
  for (std::size_t n = 0; n < 5; ++n) change(good.size() - 10 + 2 * n, {0, 0}, "a layer below the lowest");
}

TEST(Profile, OfAnotherShapeIsRefusedAndTheViewKeepsTheOldOne) {
  const std::vector<std::byte> first = test::make_profile(kShape, 76);
  ProfileView view;
  ASSERT_EQ(view.open(first, kShape), Status::kOk);
  const std::uint8_t* before = view.head(1, 1).channels;
  for (const Shape& other : {Shape{.layers = 1, .query_heads = 4, .kv_heads = 4, .head_dim = 64},
                             Shape{.layers = 4, .query_heads = 4, .kv_heads = 1, .head_dim = 64}, kTiny, Shape{}}) {
    EXPECT_EQ(view.open(first, other), Status::kBadProfile) << testing::PrintToString(other);
    EXPECT_EQ(view.head(1, 1).channels, before);
  }
}

TEST(Profile, MayLieAtAnyAddress) {
  const std::vector<std::byte> profile = test::make_profile(kShape, 77);
  std::vector<std::byte> room(profile.size() + 8);
  ProfileView aligned;
  ASSERT_EQ(aligned.open(profile, kShape), Status::kOk);
  for (std::size_t offset = 1; offset < 8; ++offset) {
    std::copy(profile.begin(), profile.end(), room.begin() + static_cast<std::ptrdiff_t>(offset));
    ProfileView view;
    ASSERT_EQ(view.open(std::span(room).subspan(offset, profile.size()), kShape), Status::kOk) << offset;
    EXPECT_EQ(bf16(view.head(1, 0).key_means, 5), bf16(aligned.head(1, 0).key_means, 5)) << offset;
  }
}

TEST(Profile, HasTheDocumentedSize) {
  EXPECT_EQ(profile_bytes(kTiny), 32u + 60 + 4 * 16);
  EXPECT_EQ(profile_bytes(kShape), 32u + 4 * (60 + 4 * 64));
}

// Of every head, in order.
std::vector<int> head_scores(std::span<const std::byte> profile) {
  ProfileView view;
  EXPECT_EQ(view.open(profile, kShape), Status::kOk);
  std::vector<int> scores;
  for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
    for (std::uint32_t head = 0; head < kShape.kv_heads; ++head) scores.push_back(view.head(layer, head).head_score);
  }
  return scores;
}

TEST(HeadScores, AreUnknownAfterCalibration) {
  EXPECT_EQ(head_scores(test::make_profile(kShape, 82)), std::vector<int>(4, 0));
}

TEST(HeadScores, AreScaledToTheLargest) {
  std::vector<std::byte> profile = test::make_profile(kShape, 83);
  const auto set = [&](std::vector<float> scores) {
    EXPECT_EQ(set_head_scores(profile, kShape, scores), Status::kOk);
    return head_scores(profile);
  };
  EXPECT_EQ(set({0.25f, 0.0f, 0.5f, 0.1f}), (std::vector<int>{32768, 0, 65535, 13107}));
  EXPECT_EQ(set({3e38f, 1.5e38f, -0.0f, 1e-38f}), (std::vector<int>{65535, 32768, 0, 0}));
  EXPECT_EQ(set({0, 1e-44f, 1e-44f, 0}), (std::vector<int>{0, 65535, 65535, 0}));
  EXPECT_EQ(set({0, 0, 0, 0}), std::vector<int>(4, 0));
}

TEST(HeadScores, ChangeNothingElse) {
  const std::vector<std::byte> before = test::make_profile(kShape, 84);
  std::vector<std::byte> profile = before;
  ASSERT_EQ(set_head_scores(profile, kShape, std::vector<float>{1, 2, 3, 4}), Status::kOk);
  const std::size_t record = 60 + 4 * 64;
  for (std::size_t at = 0; at < profile.size(); ++at) {
    const bool is_checksum = at >= 12 && at < 16;
    const bool is_score = at >= 32 && (at - 32) % record / 2 == record / 2 - 6;  // before five cosines
    if (is_checksum || is_score) continue;
    EXPECT_EQ(profile[at], before[at]) << at;
  }
  std::vector<std::byte> again = profile;
  test::seal(again);
  EXPECT_EQ(again, profile) << "the checksum";
  ASSERT_EQ(set_head_scores(profile, kShape, std::vector<float>(4, 0.0f)), Status::kOk);
  EXPECT_EQ(profile, before);
}

TEST(HeadScores, AreRefusedWithNothingChanged) {
  const std::vector<std::byte> good = test::make_profile(kShape, 85);
  std::vector<std::byte> profile = good;
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::vector<float>& scores : {std::vector<float>{},
                                           {1, 2, 3},
                                           {1, 2, 3, 4, 5},
                                           {1, 2, 3, infinity},
                                           {1, 2, nan, 4},
                                           {1, -1e-30f, 3, 4},
                                           {-infinity, 2, 3, 4}}) {
    EXPECT_EQ(set_head_scores(profile, kShape, scores), Status::kBadArgument) << testing::PrintToString(scores);
    EXPECT_EQ(profile, good);
  }
  const std::vector<float> scores = {1, 2, 3, 4};
  EXPECT_EQ(set_head_scores({}, kShape, scores), Status::kBadProfile);
  EXPECT_EQ(set_head_scores(profile, kTiny, scores), Status::kBadProfile);
  EXPECT_EQ(set_head_scores(profile, Shape{}, scores), Status::kBadProfile);
  EXPECT_EQ(set_head_scores(std::span(profile).first(profile.size() - 1), kShape, scores), Status::kBadProfile);
  EXPECT_EQ(profile, good);
  profile[100] ^= std::byte{1};
  const std::vector<std::byte> damaged = profile;
  EXPECT_EQ(set_head_scores(profile, kShape, scores), Status::kBadProfile);
  EXPECT_EQ(profile, damaged);
}

TEST(Calibrator, ChoosesThePlantedChannels) {
  for (const std::uint16_t dim : std::initializer_list<std::uint16_t>{16, 64, 96, 256}) {
    Shape shape = kShape;
    shape.head_dim = dim;
    const std::vector<std::byte> profile = test::make_profile(shape, 78);
    ProfileView view;
    ASSERT_EQ(view.open(profile, shape), Status::kOk);
    for (std::uint32_t layer = 0; layer < 2; ++layer) {
      for (std::uint32_t head = 0; head < 2; ++head) {
        std::vector<std::uint32_t> planted = test::planted_channels(shape, 78, layer, head);
        const HeadProfile found = view.head(layer, head);
        std::vector<std::uint32_t> first(found.channels, found.channels + 4);
        std::sort(planted.begin(), planted.end());
        std::sort(first.begin(), first.end());
        EXPECT_EQ(first, planted) << "head_dim " << dim << ", layer " << layer << ", head " << head;
      }
    }
  }
}

// Passes `tokens` rows to a calibrator of kTiny, in chunks of 7, and returns the profile.
std::vector<std::byte> calibrate_tiny(std::span<const float> queries, std::span<const float> keys) {
  std::vector<double> memory(calibration_bytes(kTiny) / sizeof(double));
  Calibrator calibrator;
  EXPECT_EQ(calibrator.init(std::as_writable_bytes(std::span(memory)), kTiny), Status::kOk);
  for (std::size_t at = 0; at < keys.size(); at += 7 * 16) {
    const std::size_t count = std::min<std::size_t>(7 * 16, keys.size() - at);
    EXPECT_EQ(calibrator.observe(0, queries.subspan(at, count), keys.subspan(at, count), keys.subspan(at, count)),
              Status::kOk);
  }
  std::vector<std::byte> profile(profile_bytes(kTiny));
  EXPECT_EQ(calibrator.write(profile), Status::kOk);
  return profile;
}

TEST(Calibrator, RanksByMeanSquareOfQueriesTimesThatOfKeys) {
  Random random(79);
  auto queries = random.bells(400 * 16);
  auto keys = random.bells(400 * 16);
  for (std::size_t i = 0; i < 400; ++i) {
    keys[i * 16 + 3] *= 8;         // cost 64
    queries[i * 16 + 3] *= 0.25f;  // ... and a sixteenth: 4
    queries[i * 16 + 9] *= 6;      // 36
    keys[i * 16 + 12] *= 5;        // 25, and twice that
    queries[i * 16 + 12] *= 2;     // 100
  }
  const std::vector<std::byte> profile = calibrate_tiny(queries, keys);
  ProfileView view;
  ASSERT_EQ(view.open(profile, kTiny), Status::kOk);
  EXPECT_EQ(view.head(0, 0).channels[0], 12);
  EXPECT_EQ(view.head(0, 0).channels[1], 9);
  EXPECT_EQ(view.head(0, 0).channels[2], 3);
}

TEST(Calibrator, MeansAreThoseOfTheRows) {
  Random random(80);
  auto queries = random.bells(1000 * 16);  // kTiny has one query head
  auto keys = random.bells(1000 * 16);
  std::vector<double> key_means(16, 0.0);
  std::vector<double> query_squares(16, 0.0);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    keys[i] += static_cast<float>(i % 16) - 8;
    queries[i] *= 0.5f * static_cast<float>(i % 16);
    key_means[i % 16] += static_cast<double>(keys[i]) / 1000;
    query_squares[i % 16] += static_cast<double>(queries[i]) * static_cast<double>(queries[i]) / 1000;
  }
  const std::vector<std::byte> profile = calibrate_tiny(queries, keys);
  ProfileView view;
  ASSERT_EQ(view.open(profile, kTiny), Status::kOk);
  for (std::size_t c = 0; c < 16; ++c) {  // bf16 has 8 bits of fraction
    EXPECT_NEAR(bf16(view.head(0, 0).key_means, c), key_means[c], std::abs(key_means[c]) / 256 + 1e-6) << c;
    EXPECT_NEAR(bf16(view.head(0, 0).query_squares, c), query_squares[c], query_squares[c] / 256) << c;
  }
}

TEST(Profile, AttentionIsAddedToACopy) {
  const std::vector<std::byte> plain = test::make_profile(kShape, 4);
  const std::vector<std::byte> maps = test::make_profile(kShape, 4, {.align = true});
  std::vector<HeadAttention> attention(std::size_t{kShape.layers} * kShape.kv_heads);
  test::fill_attention(attention, 7);
  for (const std::vector<std::byte>& from : {plain, maps}) {
    const bool has_maps = &from != &plain && from.size() != plain.size();
    std::vector<std::byte> copy(profile_bytes(kShape, has_maps, true));
    ASSERT_EQ(copy.size(), from.size() + 40 * attention.size());
    ASSERT_EQ(add_attention(from, kShape, attention, copy), Status::kOk);
    ProfileView view, before;
    ASSERT_EQ(before.open(from, kShape), Status::kOk);
    EXPECT_FALSE(before.has_attention());
    EXPECT_EQ(before.attention(0, 0), HeadAttention{});
    ASSERT_EQ(view.open(copy, kShape), Status::kOk);
    EXPECT_TRUE(view.has_attention());
    EXPECT_EQ(view.has_maps(), has_maps);
    EXPECT_NE(view.checksum(), before.checksum());
    for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
      for (std::uint32_t head = 0; head < kShape.kv_heads; ++head) {
        EXPECT_EQ(view.attention(layer, head), attention[layer * kShape.kv_heads + head]);
        EXPECT_EQ(view.cosines(layer, head).keys, before.cosines(layer, head).keys);
      }
    }
    // Again, with other attention.
    std::vector<HeadAttention> others = attention;
    others.back().tokens[15] = 65535;
    std::vector<std::byte> again(copy.size());
    ASSERT_EQ(add_attention(copy, kShape, others, again), Status::kOk);
    ASSERT_EQ(view.open(again, kShape), Status::kOk);
    EXPECT_EQ(view.attention(kShape.layers - 1u, kShape.kv_heads - 1u), others.back());

    const std::vector<std::byte> unchanged(copy.size(), std::byte{5});
    std::vector<std::byte> out = unchanged;
    const auto refuses = [&](std::span<const std::byte> profile, std::span<const HeadAttention> all,
                             std::span<std::byte> to, Status status) {
      EXPECT_EQ(add_attention(profile, kShape, all, to), status);
      EXPECT_EQ(out, unchanged);
    };
    refuses(std::span(from).first(from.size() - 1), attention, out, Status::kBadProfile);
    refuses(from, std::span(attention).first(1), out, Status::kBadArgument);
    refuses(from, attention, std::span(out).first(from.size()), Status::kBadArgument);
    others = attention;
    others[1].recovered[0] = 9;
    others[1].recovered[1] = 8;
    refuses(from, others, out, Status::kBadArgument);
    others = attention;
    others[0].tokens[3] = 9;
    others[0].tokens[4] = 8;
    refuses(from, others, out, Status::kBadArgument);
    // The same numbers in a sealed profile.
    std::memset(copy.data() + from.size(), 9, 2);
    std::memset(copy.data() + from.size() + 2, 0, 2);
    test::seal(copy);
    EXPECT_EQ(view.open(copy, kShape), Status::kBadProfile);
  }
}

TEST(Calibrator, RefusesWhatIsWrong) {
  Calibrator calibrator;
  const std::vector<float> rows(4 * 64, 1.0f);
  const auto first = [&](std::size_t floats) { return std::span(rows).first(floats); };
  std::vector<std::byte> profile(profile_bytes(kShape), std::byte{9});
  EXPECT_EQ(calibrator.observe(0, rows, first(128), first(128)), Status::kNotReady);
  EXPECT_EQ(calibrator.write(profile), Status::kNotReady);

  std::vector<double> memory(calibration_bytes(kShape) / 8 + 2);
  const auto bytes = std::as_writable_bytes(std::span(memory));
  EXPECT_EQ(calibrator.init(bytes, Shape{}), Status::kBadShape);
  EXPECT_EQ(calibrator.init(bytes.subspan(4), kShape), Status::kMisaligned);
  EXPECT_EQ(calibrator.init(bytes.first(calibration_bytes(kShape) - 1), kShape), Status::kArenaTooSmall);
  EXPECT_EQ(calibrator.write(profile), Status::kNotReady);
  ASSERT_EQ(calibrator.init(bytes.first(calibration_bytes(kShape)), kShape), Status::kOk);

  EXPECT_EQ(calibrator.observe(2, rows, first(128), first(128)), Status::kBadArgument);
  EXPECT_EQ(calibrator.observe(0, {}, {}, {}), Status::kBadArgument);
  EXPECT_EQ(calibrator.observe(0, rows, first(127), first(127)), Status::kBadArgument);
  EXPECT_EQ(calibrator.observe(0, first(128), first(128), first(128)), Status::kBadArgument);
  EXPECT_EQ(calibrator.observe(0, rows, first(128), first(127)), Status::kBadArgument);
  EXPECT_EQ(calibrator.observe(0, rows, first(128), {}), Status::kBadArgument);
  for (const float odd : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    std::vector<float> bad = rows;
    bad[17] = odd;
    const auto bad_first = std::span(bad).first(128);
    EXPECT_EQ(calibrator.observe(0, bad, first(128), first(128)), Status::kBadArgument);
    EXPECT_EQ(calibrator.observe(0, rows, bad_first, first(128)), Status::kBadArgument);
    EXPECT_EQ(calibrator.observe(0, rows, first(128), bad_first), Status::kBadArgument);
  }
  const std::vector<float> many((kCalibrationChunk + 1) * 4 * 64, 1.0f);
  const auto half = std::span(many).first(many.size() / 2);
  EXPECT_EQ(calibrator.observe(0, many, half, half), Status::kBadArgument);
  EXPECT_EQ(calibrator.write(profile), Status::kBadArgument);
  ASSERT_EQ(calibrator.observe(0, rows, first(128), first(128)), Status::kOk);
  EXPECT_EQ(calibrator.write(profile), Status::kBadArgument) << "layer 1 has seen nothing";
  ASSERT_EQ(calibrator.observe(1, rows, first(128), first(128)), Status::kOk);
  EXPECT_EQ(calibrator.write(std::span(profile).first(profile.size() - 1)), Status::kBadArgument);
  EXPECT_EQ(profile, std::vector<std::byte>(profile.size(), std::byte{9})) << "a failure wrote to the profile";
  EXPECT_EQ(calibrator.write(profile), Status::kOk);
  ProfileView view;
  EXPECT_EQ(view.open(profile, kShape), Status::kOk);
}

TEST(Calibrator, ConstantAndZeroRowsMakeAUsableProfile) {
  for (const float value : {0.0f, 3.0f, -1e20f, 1e-30f}) {
    const std::vector<float> rows(20 * 16, value);
    const std::vector<std::byte> profile = calibrate_tiny(rows, rows);
    Shape shape = kTiny;
    shape.outlier_channels = 4;
    test::Arena arena(footprint(shape, full(32)));
    Cache cache;
    ASSERT_EQ(cache.init(arena.bytes(), shape, full(32), {{}, profile}), Status::kOk) << value;
    ASSERT_EQ(append(cache, 0, std::span(rows).first(16), std::span(rows).first(16)), Status::kOk);
    const std::vector<float> query(16, 1e-3f);
    // A constant row is one channel once rotated, and the codebook has no zero: the error of the
    // other 15 is 15 * 3^2 of 63^2 + 15 * 3^2. Rows below 2^-60 are stored as zero.
    const float kept = std::abs(value) < 0x1p-60f ? 0.0f : value;
    double distance = 0;
    for (const float x : test::attend_all(cache, 0, query))
      distance = std::hypot(distance, static_cast<double>(x - kept));
    EXPECT_LE(distance, 0.19 * 4 * std::abs(static_cast<double>(kept))) << value;
  }
}

TEST(Calibrator, UsesNoMoreMemoryThanItAsksFor) {
  test::Arena memory(calibration_bytes(kShape));
  Calibrator calibrator;
  ASSERT_EQ(calibrator.init(memory.bytes(), kShape), Status::kOk);
  Random random(81);
  for (std::uint32_t layer = 0; layer < 2; ++layer) {
    const auto keys = random.bells(10 * 2 * 64);
    ASSERT_EQ(calibrator.observe(layer, random.bells(10 * 4 * 64), keys, keys), Status::kOk);
  }
  test::Arena profile(profile_bytes(kShape));
  ASSERT_EQ(calibrator.write(profile.bytes()), Status::kOk);
  EXPECT_TRUE(memory.guards_intact());
  EXPECT_TRUE(profile.guards_intact());
}

TEST(Calibrator, MemoryIsCountedWithoutOverflow) {
  constexpr Shape kHuge = {.layers = 1024, .query_heads = 1024, .kv_heads = 1024, .head_dim = 256};
  constexpr std::uint64_t kNeed = std::uint64_t{1024} * 1024 * (8 + 256 * 32) + std::uint64_t{1023} * 1024 * 48 +
                                  std::uint64_t{kCalibrationChunk} * 1024 * 256 * 8;
  if constexpr (sizeof(std::size_t) == 8) {
    EXPECT_EQ(calibration_bytes(kHuge), kNeed);
  } else {
    // No machine with 32-bit sizes has that much memory: whatever the result, a buffer of the
    // truncated size must not be accepted.
    EXPECT_TRUE(calibration_bytes(kHuge) == 0 || calibration_bytes(kHuge) == ~std::size_t{0})
        << calibration_bytes(kHuge);
  }
}

}  // namespace
}  // namespace nibkv::profile_test
