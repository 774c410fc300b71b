#include "nibkv/append.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "nibkv/attend.hpp"
#include "tests/reference/arena_model.hpp"
#include "tests/reference/attention.hpp"
#include "tests/reference/quantiser.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/model_of.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::append_test {
namespace {

using reference::ArenaModel;
using reference::Slot;
using test::model_of;
using test::Random;
using test::Rig;
using test::running_ports;
using test::words;

// Relative squared error of a row that was stored.
double relative_error(std::span<const double> row, const std::vector<double>& stored) {
  const double far = reference::distance(row, stored) / reference::norm(row);
  return far * far;
}

TEST(Append, IsFullAfterAsManyTokensAsPositionsHaveNumbersFor) {
  constexpr Shape kOne = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 2};
  for (const Policy& policy : {streaming_llm(40), ems(40)}) {
    test::Arena arena(footprint(kOne, policy));
    Cache cache;
    ASSERT_EQ(cache.init(arena.bytes(), kOne, policy), Status::kOk);
    const std::vector<float> rows(32, 1.0f);
    const auto row = std::span(rows).first(16);
    ASSERT_EQ(append(cache, 0, row, row), Status::kOk);
    Chain chain;
    std::byte* at = arena.bytes().data() + layout_of(kOne, policy).chains;
    std::memcpy(&chain, at, sizeof chain);
    chain.seen = 0xfffffffe;
    std::memcpy(at, &chain, sizeof chain);
    EXPECT_EQ(append(cache, 0, rows, rows), Status::kFull);
    EXPECT_EQ(append(cache, 0, row, row), Status::kOk);
    EXPECT_EQ(cache.seen(0), 0xffffffffu);
    EXPECT_EQ(append(cache, 0, row, row), Status::kFull);
    EXPECT_EQ(cache.held(0, 0), 2u);
  }
}

TEST(Append, EveryErrorLeavesTheArenaAsItWas) {
  constexpr Shape kShape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = 5};
  for (const Policy& policy : {full(20), streaming_llm(20)}) {
    Rig rig(kShape, policy);
    Random random(31);
    const std::size_t token = 2 * 32;
    const auto rows = random.bells(8 * token);
    const auto first = [&](std::size_t floats) { return std::span(rows).first(floats); };
    ASSERT_EQ(append(rig.cache(), 0, first(3 * token), first(3 * token)), Status::kOk);
    const std::vector<std::byte> before = rig.arena().copy();
    struct {
      std::uint32_t layer;
      std::size_t keys;
      std::size_t values;
    } const wrong[] = {{2, token, token},
                       {0xffffffff, token, token},
                       {0, 0, 0},
                       {0, token, 0},
                       {0, 0, token},
                       {0, token - 1, token - 1},
                       {0, token + 1, token + 1},
                       {0, 32, 32},
                       {0, 2 * token, token},
                       {0, token, 2 * token},
                       {0, token, token + 1},
                       {0, 6 * token, 6 * token}};
    for (const auto& call : wrong) {
      EXPECT_EQ(append(rig.cache(), call.layer, first(call.keys), first(call.values)), Status::kBadArgument)
          << "layer " << call.layer << ", " << call.keys << " and " << call.values << " floats";
      EXPECT_EQ(rig.arena().copy(), before)
          << "layer " << call.layer << ", " << call.keys << " and " << call.values << " floats";
    }
  }
}

TEST(Append, AFullPoolRefusesAChunkAsAWhole) {
  for (const std::string& port : running_ports()) {
    constexpr Shape kShape = {.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 40};
    Rig rig(kShape, full(64), port);
    const std::size_t token = 2 * 16;
    const auto rows = Random(32).bells(40 * token);
    const auto first = [&](std::size_t tokens) { return std::span(rows).first(tokens * token); };
    ASSERT_EQ(append(rig.cache(), 0, first(40), first(40)), Status::kOk);
    const std::vector<std::byte> before = rig.arena().copy();
    for (std::size_t count = 25; count <= 40; ++count) {
      EXPECT_EQ(append(rig.cache(), 0, first(count), first(count)), Status::kFull) << count;
      EXPECT_EQ(rig.arena().copy(), before) << count;
    }
    EXPECT_EQ(append(rig.cache(), 0, first(24), first(24)), Status::kOk);
    EXPECT_EQ(rig.cache().held(0, 0), 64u);
    EXPECT_EQ(append(rig.cache(), 0, first(1), first(1)), Status::kFull);
    EXPECT_EQ(rig.cache().held(0, 1), 64u);
    EXPECT_EQ(rig.cache().seen(0), 64u);
  }
}

TEST(Append, TheWholeBudgetOfEveryLayerFits) {
  constexpr Shape kShape = {.layers = 3, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 7};
  for (const std::uint32_t tokens : {1u, 31u, 32u, 33u, 100u}) {
    Rig rig(kShape, full(tokens));
    const auto rows = Random(33).bells(2 * 16);
    for (std::uint32_t i = 0; i < tokens; ++i) {
      for (std::uint32_t layer = 0; layer < 3; ++layer)
        ASSERT_EQ(append(rig.cache(), layer, rows, rows), Status::kOk) << tokens << ", " << i;
    }
    for (std::uint32_t layer = 0; layer < 3; ++layer) EXPECT_EQ(rig.cache().held(layer, 1), tokens);
  }
}

TEST(Append, ErrorOfGaussianRowsIsThatOfTheCodebook) {
  struct {
    std::uint16_t head_dim;
    double most;
  } const cases[] = {{64, 0.0072}, {128, 0.0081}};
  for (const std::string& port : running_ports()) {
    for (const auto& limit : cases) {
      const Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = limit.head_dim, .max_chunk = 64};
      Rig rig(shape, full(640), port);
      Random random(34);
      double error = 0;
      double best = 0;
      for (std::uint32_t chunk = 0; chunk < 10; ++chunk) {
        const auto keys = random.gaussians(64u * limit.head_dim);
        const auto values = random.gaussians(64u * limit.head_dim);
        ASSERT_EQ(append(rig.cache(), 0, keys, values), Status::kOk);
        const std::vector<Slot> slots = model_of(rig).slots(0, 0);
        for (std::uint32_t i = 0; i < 64; ++i) {
          const auto row =
              reference::rotated(reference::widen(std::span(keys).subspan(i * limit.head_dim, limit.head_dim)));
          error += relative_error(row, slots[chunk * 64 + i].rotated_key());
          if (i % 8 == 0) best += reference::best_relative_error(row) * 8;
          const auto value =
              reference::rotated(reference::widen(std::span(values).subspan(i * limit.head_dim, limit.head_dim)));
          error += relative_error(value, slots[chunk * 64 + i].rotated_value());
        }
      }
      error /= 2 * 640;
      best /= 640;
      std::printf("[ measured ] port %s, head_dim %d: relative squared error %.5f, the best of all scales %.5f\n",
                  port.c_str(), limit.head_dim, error, best);
      EXPECT_LE(error, limit.most) << "head_dim " << limit.head_dim << ", port " << port;
      EXPECT_LE(error, best * 1.08) << "head_dim " << limit.head_dim << ", port " << port;
    }
  }
}

TEST(Append, EveryRowIsCodedNearlyAsWellAsCanBe) {
  constexpr int kStep = test::kShorter == 1 ? 16 : 48;
  for (const std::string& port : running_ports()) {
    for (std::uint16_t dim = 16; dim <= 256; dim = static_cast<std::uint16_t>(dim + kStep)) {
      const Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = dim, .max_chunk = 8};
      Rig rig(shape, full(8), port);
      Random random(35u + dim);
      std::vector<float> rows = random.gaussians(8u * dim);
      // Rows of other forms: a single channel, a constant, two values, a step, tiny and huge ones.
      for (std::uint16_t c = 0; c < dim; ++c) {
        rows[dim + c] = c == 3 ? -5.0f : 0.0f;
        rows[2 * dim + c] = 0.7f;
        rows[3 * dim + c] = c % 2 == 0 ? 1.0f : -3.0f;
        rows[4 * dim + c] = static_cast<float>(c);
        rows[5 * dim + c] *= 1e-15f;
        rows[6 * dim + c] *= 1e15f;
        rows[7 * dim + c] *= rows[7 * dim + c] * rows[7 * dim + c];
      }
      ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
      for (std::uint32_t i = 0; i < 8; ++i) {
        const Slot slot = model_of(rig).slot(0, 0, i);
        const auto row = reference::rotated(reference::widen(std::span(rows).subspan(i * dim, dim)));
        const double best = reference::best_relative_error(row);
        EXPECT_EQ(slot.key_codes, slot.value_codes);
        EXPECT_EQ(slot.key_scale, slot.value_scale);
        // The candidate scales are coarser than the reference's, and the stored scale has 8 bits
        // of fraction: at most 2^-18.
        EXPECT_LE(relative_error(row, slot.rotated_key()), best * 1.15 + 1e-3)
            << "row " << i << ", head_dim " << dim << ", port " << port;
      }
    }
  }
}

// Each slot is coded as well as its width allows, with a profile and without: of the whole cache, of wide layers, and of
// the first slots.
TEST(Append, ErrorsAreThoseOfTheWidthOfTheirSlots) {
  Shape shape = {.layers = 2, .query_heads = 2, .kv_heads = 2, .head_dim = 64, .max_chunk = 10};
  const auto most = [](int bits) { return bits == 2 ? 0.22 : bits == 4 ? 0.015 : 0.0002; };
  for (const std::uint16_t channels : {std::uint16_t{0}, std::uint16_t{8}}) {
    shape.outlier_channels = channels;
    for (const Storage storage : {Storage::kQ2, Storage::kQ4Q2, Storage::kQ4, Storage::kQ8}) {
      shape.storage = storage;
      Policy policy = full(100);
      policy.wide_storage = storage == Storage::kQ2 ? Storage::kQ4 : Storage::kQ8;
      policy.wide_first = storage != Storage::kQ8;
      if (policy.wide_first) policy.wide.add(1);
      Rig rig(shape, policy, "", 7);
      Random random(9);
      std::vector<float> all_keys[2], all_values[2];
      for (int chunk = 0; chunk < 10; ++chunk) {
        for (std::uint32_t layer = 0; layer < 2; ++layer) {
          const auto keys = test::keys_of_profile(shape, 7, layer, 10, random);
          const auto values = test::values_of_profile(shape, 10, random);
          ASSERT_EQ(append(rig.cache(), layer, keys, values), Status::kOk);
          all_keys[layer].insert(all_keys[layer].end(), keys.begin(), keys.end());
          all_values[layer].insert(all_values[layer].end(), values.begin(), values.end());
        }
      }
      ProfileView profile;
      ASSERT_EQ(channels == 0 ? Status::kOk : profile.open(rig.profile(), shape), Status::kOk);
      for (std::uint32_t layer = 0; layer < 2; ++layer) {
        for (std::uint32_t head = 0; head < 2; ++head) {
          const auto slots = model_of(rig).slots(layer, head);
          double key_errors[2] = {};
          for (std::size_t t = 0; t < slots.size(); ++t) {
            const bool wide = policy.wide_first && (layer == 1 || t < 32);
            const TileFormat format = format_of(wide ? policy.wide_storage : storage);
            ASSERT_EQ(slots[t].key_bits, format.key_bits);
            ASSERT_EQ(slots[t].value_bits, format.value_bits);
            const auto row = [&](const std::vector<float>& rows) {
              return reference::widen(std::span(rows).subspan((t * 2 + head) * 64, 64));
            };
            const double error =
                relative_error(row(all_keys[layer]), reference::decode_key(slots[t], profile, layer, head));
            // With a profile outlier channels may be beyond its range, and a key shorter than what is coded of it.
            EXPECT_LT(error, channels == 0 ? most(format.key_bits) : 1.0) << words(shape, policy) << ", slot " << t;
            key_errors[wide ? 1 : 0] += error / static_cast<double>(slots.size());
            EXPECT_LT(relative_error(row(all_values[layer]), reference::decode_value(slots[t])),
                      most(format.value_bits))
                << words(shape, policy) << ", slot " << t;
          }
          EXPECT_LT(key_errors[0], 4 * most(format_of(storage).key_bits) + 0.01) << words(shape, policy);
          EXPECT_LT(key_errors[1], 4 * most(format_of(policy.wide_storage).key_bits) + 0.01) << words(shape, policy);
        }
      }
    }
  }
}

// One value of 1e5 in a row of ordinary ones takes all levels of its codes: it is counted, at the width where it matters.
TEST(Append, CountsRowsWhoseLargestChannelDrownsTheOthers) {
  const auto drowned = [](Storage storage, float large, bool value, Policy policy = full(100)) {
    Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 64, .max_chunk = 4};
    shape.storage = storage;
    Rig rig(shape, policy);
    Random random(8);
    const auto plain = random.bells(4 * 64);
    auto other = plain;
    other[2 * 64 + 7] = large;
    EXPECT_EQ(append(rig.cache(), 0, value ? plain : other, value ? other : plain), Status::kOk);
    const std::uint32_t count = rig.cache().usage().drowned_rows;
    EXPECT_EQ(rig.cache().clear(), Status::kOk);
    EXPECT_EQ(rig.cache().usage().drowned_rows, 0u);
    return count;
  };
  for (const bool value : {false, true}) {
    for (const Storage storage : {Storage::kQ2, Storage::kQ4, Storage::kQ8}) {
      EXPECT_EQ(drowned(storage, 1.0f, value), 0u);
      EXPECT_EQ(drowned(storage, 1e5f, value), 1u);
    }
    EXPECT_EQ(drowned(Storage::kQ2, 40.0f, value), 1u) << "64 / 0.11 is 24 squared";
    EXPECT_EQ(drowned(Storage::kQ4, 40.0f, value), 0u) << "64 / 0.0067 is 98 squared";
    EXPECT_EQ(drowned(Storage::kQ4, 200.0f, value), 1u);
    EXPECT_EQ(drowned(Storage::kQ8, 200.0f, value), 0u);
    EXPECT_EQ(drowned(Storage::kQ4, 200.0f, value, precise_tail(100, 32)), 1u) << "once it leaves the tail";
  }
}

TEST(Append, ZeroRowsDecodeToZero) {
  for (const std::string& port : running_ports()) {
    constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 80, .max_chunk = 4};
    Rig rig(kShape, full(32), port);
    std::vector<float> rows(4 * 80, 0.0f);
    for (int c = 0; c < 80; ++c) {
      rows[80 + c] = -0.0f;
      rows[160 + c] = c % 2 == 0 ? 1e-25f : -1e-25f;  // far below the smallest row that is stored
      rows[240 + c] = std::numeric_limits<float>::denorm_min();
    }
    ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
    for (std::uint32_t i = 0; i < 4; ++i) {
      const Slot slot = model_of(rig).slot(0, 0, i);
      for (const double x : slot.rotated_key()) EXPECT_EQ(x, 0) << "row " << i << ", port " << port;
      for (const double x : slot.rotated_value()) EXPECT_EQ(x, 0) << "row " << i << ", port " << port;
    }
    const auto query = Random(36).bells(80);
    for (const float x : test::attend_all(rig.cache(), 0, query)) EXPECT_EQ(x, 0.0f) << port;
  }
}

TEST(Append, F32StorageIsExact) {
  constexpr Shape kShape = {.layers = 2,
                            .query_heads = 4,
                            .kv_heads = 2,
                            .head_dim = 48,
                            .max_chunk = 9,
                            .workers = 1,
                            .storage = Storage::kF32};
  Rig rig(kShape, full(100));
  Random random(37);
  const std::size_t token = 2 * 48;
  std::vector<float> keys;
  std::vector<float> values;
  for (const std::size_t count : {1, 9, 4, 9, 9, 9}) {
    auto new_keys = random.gaussians(count * token);
    auto new_values = random.gaussians(count * token);
    new_keys[0] = std::numeric_limits<float>::max();
    new_values[0] = std::numeric_limits<float>::denorm_min();
    ASSERT_EQ(append(rig.cache(), 1, new_keys, new_values), Status::kOk);
    keys.insert(keys.end(), new_keys.begin(), new_keys.end());
    values.insert(values.end(), new_values.begin(), new_values.end());
  }
  for (std::uint32_t i = 0; i < rig.cache().held(1, 0); ++i) {
    for (std::uint32_t head = 0; head < 2; ++head) {
      const std::size_t at = i * token + head * 48;
      EXPECT_TRUE(test::same_bytes(model_of(rig).key_f32(1, head, i), std::span(keys).subspan(at, 48)))
          << i << ", head " << head;
      EXPECT_TRUE(test::same_bytes(model_of(rig).value_f32(1, head, i), std::span(values).subspan(at, 48)))
          << i << ", head " << head;
    }
  }
}

TEST(Append, ChunksLeaveTheSameBytesAsSingleTokens) {
  for (const std::string& port : running_ports()) {
    for (const std::uint16_t outliers : std::initializer_list<std::uint16_t>{0, 4, 16}) {
      const Shape shape = {
          .layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 80, .outlier_channels = outliers, .max_chunk = 50};
      Rig whole(shape, full(150), port);
      Rig single(shape, full(150), port);
      Random random(38);
      const std::size_t token = 2 * 80;
      for (const std::size_t count : {50, 1, 31, 33, 2}) {
        const auto keys = random.bells(count * token);
        const auto values = random.bells(count * token);
        ASSERT_EQ(append(whole.cache(), 0, keys, values), Status::kOk);
        for (std::size_t i = 0; i < count; ++i) {
          ASSERT_EQ(append(single.cache(), 0, std::span(keys).subspan(i * token, token),
                           std::span(values).subspan(i * token, token)),
                    Status::kOk);
        }
      }
      for (std::uint32_t head = 0; head < 2; ++head) {
        EXPECT_EQ(model_of(whole).slots(0, head), model_of(single).slots(0, head))
            << outliers << " outliers, port " << port;
      }
    }
  }
}

TEST(Append, LayersAndHeadsDoNotMix) {
  constexpr Shape kShape = {.layers = 3, .query_heads = 3, .kv_heads = 3, .head_dim = 32, .max_chunk = 4};
  Rig rig(kShape, full(64));
  Random random(39);
  std::vector<std::vector<float>> rows(3);
  for (std::uint32_t step = 0; step < 16; ++step) {
    for (std::uint32_t layer = 0; layer < 3; ++layer) {
      const auto keys = random.bells(4 * 3 * 32);
      ASSERT_EQ(append(rig.cache(), layer, keys, keys), Status::kOk);
      rows[layer].insert(rows[layer].end(), keys.begin(), keys.end());
    }
  }
  EXPECT_EQ(model_of(rig).check_chains(), 18u);
  for (std::uint32_t layer = 0; layer < 3; ++layer) {
    for (std::uint32_t head = 0; head < 3; ++head) {
      const std::vector<Slot> slots = model_of(rig).slots(layer, head);
      ASSERT_EQ(slots.size(), 64u);
      for (std::uint32_t i = 0; i < 64; ++i) {
        const auto row = reference::rotated(reference::widen(std::span(rows[layer]).subspan((i * 3 + head) * 32, 32)));
        EXPECT_LT(relative_error(row, slots[i].rotated_key()), 0.03)
            << "layer " << layer << ", head " << head << ", slot " << i;
      }
    }
  }
}

TEST(Append, OutlierChannelsTakeTheLoadOffTheOthers) {
  for (const std::string& port : running_ports()) {
    for (const std::uint16_t outliers : std::initializer_list<std::uint16_t>{0, 4, 8, 12, 16}) {
      const Shape shape = {
          .layers = 2, .query_heads = 2, .kv_heads = 2, .head_dim = 64, .outlier_channels = outliers, .max_chunk = 32};
      const std::vector<std::byte> profile = test::make_profile(shape, 41);
      test::Arena arena(footprint(shape, full(32)));
      Cache cache;
      ASSERT_EQ(cache.init(arena.bytes(), shape, full(32), {port, profile}), Status::kOk);
      ProfileView view;
      ASSERT_EQ(view.open(profile, shape), Status::kOk);
      Random random(42);
      const auto keys = test::keys_of_profile(shape, 41, 1, 32, random);
      const auto values = random.bells(32 * 2 * 64);
      ASSERT_EQ(append(cache, 1, keys, values), Status::kOk);
      const ArenaModel model(arena.bytes(), shape, full(32));
      double key_error = 0;
      double value_error = 0;
      for (std::uint32_t head = 0; head < 2; ++head) {
        for (std::uint32_t i = 0; i < 32; ++i) {
          const Slot slot = model.slot(1, head, i);
          const std::size_t at = (i * 2 + head) * 64;
          key_error += relative_error(reference::widen(std::span(keys).subspan(at, 64)),
                                      reference::decode_key(slot, view, 1, head)) /
                       64;
          value_error +=
              relative_error(reference::widen(std::span(values).subspan(at, 64)), reference::decode_value(slot)) / 64;
        }
      }
      // With 4 bits alone, the squared error is 0.007 of a key. The planted channels hold 97 %
      // of it: with them at 8 bits, far less remains.
      EXPECT_LT(value_error, 0.009) << outliers << " outliers, port " << port;
      EXPECT_LT(key_error, outliers == 0 ? 0.009 : 0.0015) << outliers << " outliers, port " << port;
    }
  }
}

// The squared error of keys as their queries see it, relative to that of the same keys quantised
// without knowing the queries.
TEST(Append, KnowingTheQueriesLowersTheErrorsTheySee) {
  for (const std::uint16_t dim : std::initializer_list<std::uint16_t>{16, 64, 80, 96, 128}) {
    const Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = dim, .max_chunk = 256};
    Random random(dim);
    std::vector<double> squares(dim);  // of the queries: over three orders of magnitude
    auto queries = random.bells(256 * std::size_t{dim});
    for (std::size_t c = 0; c < dim; ++c) {
      const float spread = std::exp2(5 * random.bell() / 3);
      squares[c] = static_cast<double>(spread * spread);
      for (std::size_t i = 0; i < 256; ++i) queries[i * dim + c] *= spread;
    }
    const auto keys = random.bells(256 * std::size_t{dim});
    std::vector<double> memory(calibration_bytes(shape) / sizeof(double) + 1);
    Calibrator calibrator;
    ASSERT_EQ(calibrator.init(std::as_writable_bytes(std::span(memory)), shape), Status::kOk);
    for (std::size_t at = 0; at < keys.size(); at += kCalibrationChunk * dim) {
      const auto chunk = std::span(keys).subspan(at, kCalibrationChunk * dim);
      ASSERT_EQ(calibrator.observe(0, std::span(queries).subspan(at, chunk.size()), chunk, chunk), Status::kOk);
    }
    std::vector<std::byte> profile(profile_bytes(shape));
    ASSERT_EQ(calibrator.write(profile), Status::kOk);
    ProfileView view;
    ASSERT_EQ(view.open(profile, shape), Status::kOk);

    double seen[2] = {};
    for (const bool known : {false, true}) {
      test::Arena arena(footprint(shape, full(256)));
      Cache cache;
      Options options;
      if (known) options.profile = profile;
      ASSERT_EQ(cache.init(arena.bytes(), shape, full(256), options), Status::kOk);
      ASSERT_EQ(append(cache, 0, keys, keys), Status::kOk);
      const ArenaModel model(arena.bytes(), shape, full(256));
      for (std::uint32_t i = 0; i < 256; ++i) {
        const auto key = reference::decode_key(model.slot(0, 0, i), known ? view : ProfileView{}, 0, 0);
        for (std::size_t c = 0; c < dim; ++c) {
          const double error = key[c] - static_cast<double>(keys[i * dim + c]);
          seen[known ? 1 : 0] += squares[c] * error * error;
        }
      }
    }
    EXPECT_LT(seen[1], 0.8 * seen[0]) << "head_dim " << dim;
    RecordProperty("seen_error_ratio_" + std::to_string(dim), std::to_string(seen[1] / seen[0]));
  }
}

// vllm-project/compressed-tensors#854: a scale that is not finite is packed without an error
// and found much later.
TEST(Append, WhatIsNotFiniteIsRefusedAndChangesNothing) {
  constexpr float kOdd[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()};
  for (const std::string& port : running_ports()) {
    for (const Policy& policy : {full(200), streaming_llm(40), ems(40)}) {
      for (const Storage storage : {Storage::kQ4, Storage::kF32}) {
        const Shape shape = {.layers = 1,
                             .query_heads = 4,
                             .kv_heads = 2,
                             .head_dim = 48,
                             .max_chunk = 6,
                             .workers = 1,
                             .storage = storage};
        if (!valid(policy, shape)) continue;
        Rig rig(shape, policy, port);
        Random random(44);
        for (int step = 0; step < 24; ++step) {  // slots are dropped during this
          const auto keys = random.bells(6 * 2 * 48);
          const auto queries = random.bells(6 * 4 * 48);
          const std::vector<std::byte> before = rig.arena().copy();
          for (const float odd : kOdd) {
            auto bad = keys;
            bad[random.below(6 * 2 * 48)] = odd;
            ASSERT_EQ(append(rig.cache(), 0, bad, keys), Status::kBadArgument);
            ASSERT_EQ(append(rig.cache(), 0, keys, bad), Status::kBadArgument);
          }
          ASSERT_EQ(rig.arena().copy(), before) << words(shape, policy, port) << ", step " << step;
          ASSERT_EQ(append(rig.cache(), 0, keys, keys), Status::kOk);
          const std::vector<std::byte> appended = rig.arena().copy();
          for (const float odd : kOdd) {
            auto bad = queries;
            bad[random.below(6 * 4 * 48)] = odd;
            std::vector<float> out(bad.size(), 7.0f);
            ASSERT_EQ(attend(rig.cache(), 0, bad, out), Status::kBadArgument);
            ASSERT_EQ(out, std::vector<float>(bad.size(), 7.0f));
          }
          ASSERT_EQ(rig.arena().copy(), appended) << words(shape, policy, port) << ", step " << step;
          (void)test::attend_all(rig.cache(), 0, queries);
        }
      }
    }
  }
}

TEST(Append, NumbersWhoseSumIsNotFiniteAreTaken) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 2};
  Rig rig(kShape, full(32));
  const std::vector<float> large(32, std::numeric_limits<float>::max());
  const std::vector<float> small(32, 1.0f);
  EXPECT_EQ(append(rig.cache(), 0, small, large), Status::kOk);
  EXPECT_EQ(append(rig.cache(), 0, large, small), Status::kOk);
  std::vector<float> out(32);
  EXPECT_EQ(attend(rig.cache(), 0, large, out), Status::kOk);
}

TEST(Append, NumbersOfAnySizeTouchNothingElse) {
  for (const std::string& port : running_ports()) {
    constexpr Shape kShape = {
        .layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 48, .outlier_channels = 4, .max_chunk = 6};
    Rig rig(kShape, streaming_llm(64), port);
    Random random(43);
    const float odd[] = {std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest(),
                         std::numeric_limits<float>::denorm_min()};
    for (int step = 0; step < 60; ++step) {
      auto keys = random.bells(6 * 2 * 48);
      auto values = random.bells(6 * 2 * 48);
      auto queries = random.bells(6 * 4 * 48);
      for (int i = 0; i < 40; ++i) {
        keys[random.below(6 * 2 * 48)] = odd[random.below(3)];
        values[random.below(6 * 2 * 48)] = odd[random.below(3)];
        queries[random.below(6 * 4 * 48)] = odd[random.below(3)];
      }
      ASSERT_EQ(append(rig.cache(), 0, keys, values), Status::kOk);
      (void)test::attend_all(rig.cache(), 0, queries);
    }
    EXPECT_TRUE(rig.arena().guards_intact()) << port;
    EXPECT_NO_THROW((void)model_of(rig).check_chains()) << port;
    // The rows of other tokens are as accurate as before once the odd ones are dropped.
    for (int step = 0; step < 40; ++step) {
      const auto keys = random.bells(6 * 2 * 48);
      ASSERT_EQ(append(rig.cache(), 0, keys, keys), Status::kOk);
    }
    const std::uint32_t held = rig.cache().held(0, 0);
    for (std::uint32_t head = 0; head < 2; ++head) {
      std::vector<std::uint32_t> no_sinks(held);
      for (std::uint32_t i = 0; i < held; ++i) no_sinks[i] = i < 4 ? kDrop : i - 4;
      ASSERT_EQ(compact(rig.cache(), 0, head, no_sinks), Status::kOk);
    }
    for (const float x : test::attend_all(rig.cache(), 0, random.bells(6 * 4 * 48)))
      EXPECT_TRUE(std::isfinite(x)) << port;
  }
}

}  // namespace
}  // namespace nibkv::append_test
