#include "nibkv/banks.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "nibkv/nibkv.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::banks_test {
namespace {

using test::Random;
using test::Rig;
using test::saved;

constexpr Shape kShape = {.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 16};
const Policy kPolicy = ems(40);

// Two banks of memory whose power fails after a number of bytes were erased or written.
struct Flash {
  explicit Flash(bool has_erase, std::size_t bytes = static_cast<std::size_t>(most_snapshot_bytes(kShape, kPolicy, 8)))
      : banks{read, write, has_erase ? erase : nullptr, this, bytes},
        memory{std::vector<std::byte>(bytes, std::byte{0xff}), std::vector<std::byte>(bytes, std::byte{0xff})} {}

  static bool read(void* context, std::uint32_t bank, std::uint64_t offset, std::byte* bytes, std::size_t count) {
    const auto& from = *static_cast<Flash*>(context);
    EXPECT_LT(bank, 2u);
    EXPECT_LE(offset + count, from.banks.bytes);
    if (from.unreadable[bank]) return false;
    std::memcpy(bytes, from.memory[bank].data() + offset, count);
    return true;
  }
  static bool write(void* context, std::uint32_t bank, std::uint64_t offset, const std::byte* bytes,
                    std::size_t count) {
    auto& to = *static_cast<Flash*>(context);
    EXPECT_LE(offset + count, to.banks.bytes);
    EXPECT_EQ(offset, to.next);
    to.next = offset + count;
    to.written_bank = bank;
    for (std::size_t i = 0; i < count; ++i) {
      if (!to.spend()) return false;
      to.memory[bank][static_cast<std::size_t>(offset) + i] = bytes[i];
    }
    return true;
  }
  static bool erase(void* context, std::uint32_t bank) {
    auto& to = *static_cast<Flash*>(context);
    for (std::byte& byte : to.memory[bank]) {
      if (!to.spend()) return false;
      byte = std::byte{0xff};
    }
    return true;
  }
  bool spend() {
    if (power == 0) return false;
    --power;
    return true;
  }
  void start(std::size_t bytes_until_failure = ~std::size_t{0}) {
    power = bytes_until_failure;
    next = 0;
  }

  SnapshotBanks banks;
  std::vector<std::byte> memory[2];
  bool unreadable[2] = {};
  std::size_t power = ~std::size_t{0};
  std::uint64_t next = 0;
  std::uint32_t written_bank = 2;
};

void grow(Cache& cache, Random& random, int tokens) {
  for (int i = 0; i < tokens; ++i) {
    ASSERT_EQ(append(cache, 0, random.bells(16), random.bells(16)), Status::kOk);
    test::attend_all(cache, 0, random.bells(32));
  }
}

TEST(Banks, TakeTurnsAndTheNewestIsRead) {
  Flash flash(true);
  Rig rig(kShape, kPolicy), other(kShape, kPolicy);
  Random random(1);
  std::uint32_t bank = 7;
  SnapshotInfo info;
  EXPECT_EQ(newest_bank(flash.banks, bank, info), Status::kBadSnapshot);
  EXPECT_EQ(bank, 7u);
  EXPECT_EQ(restore_from_banks(other.cache(), flash.banks), Status::kBadSnapshot);
  for (std::uint32_t round = 0; round < 6; ++round) {
    grow(rig.cache(), random, 5);
    flash.start();
    const std::byte note[] = {std::byte{static_cast<unsigned char>(round)}};
    ASSERT_EQ(save_to_banks(rig.cache(), flash.banks, note), Status::kOk);
    ASSERT_EQ(newest_bank(flash.banks, bank, info), Status::kOk);
    EXPECT_EQ(bank, round % 2);
    EXPECT_EQ(info.sequence, round + 1);
    EXPECT_EQ(flash.memory[bank][static_cast<std::size_t>(info.note_offset)], note[0]);
    ASSERT_EQ(restore_from_banks(other.cache(), flash.banks), Status::kOk);
    EXPECT_EQ(saved(other.cache()), saved(rig.cache()));
  }
}

TEST(Banks, ThePowerMayFailAtEveryByte) {
  for (const bool has_erase : {false, true}) {
    Rig rig(kShape, kPolicy), other(kShape, kPolicy);
    Random random(2);
    Flash flash(has_erase);
    grow(rig.cache(), random, 36);
    ASSERT_EQ(save_to_banks(rig.cache(), flash.banks), Status::kOk);  // the one to be overwritten, of the same length
                                                                      // as the new one
    grow(rig.cache(), random, 3);
    flash.start();
    ASSERT_EQ(save_to_banks(rig.cache(), flash.banks), Status::kOk);
    const std::vector<std::byte> before = saved(rig.cache());
    grow(rig.cache(), random, 1);
    const std::vector<std::byte> after = saved(rig.cache());
    ASSERT_EQ(after.size(), before.size());
    const std::size_t all = after.size() + (has_erase ? flash.banks.bytes : 0);
    for (std::size_t power = 0; power <= all; power = test::after(power, all)) {
      Flash cut = flash;
      cut.banks.context = &cut;
      cut.start(power);
      const Status status = save_to_banks(rig.cache(), cut.banks);
      ASSERT_EQ(status, power == all ? Status::kOk : Status::kStorageFailed) << power;
      ASSERT_EQ(restore_from_banks(other.cache(), cut.banks), Status::kOk) << power;
      // Bytes that the old snapshot has in common with the end of the new one need not be written again.
      const std::vector<std::byte> got = saved(other.cache());
      ASSERT_TRUE(got == before || (got == after && power + 8 > all)) << power;
      if (power == all) {
        ASSERT_EQ(got, after);
      }
      // The lost state can be saved again.
      cut.start();
      ASSERT_EQ(save_to_banks(rig.cache(), cut.banks), Status::kOk) << power;
      ASSERT_EQ(restore_from_banks(other.cache(), cut.banks), Status::kOk) << power;
      ASSERT_EQ(saved(other.cache()), after) << power;
    }
  }
}

// A new header over an old snapshot with the same lengths: every section would be valid by itself.
TEST(Banks, PartsOfTwoSnapshotsAreNotOne) {
  Rig rig(kShape, kPolicy);
  Random random(3);
  grow(rig.cache(), random, 9);
  const auto first = saved(rig.cache(), {1, {}});
  const auto second = saved(rig.cache(), {2, {}});
  ASSERT_EQ(first.size(), second.size());
  ASSERT_NE(first, second);
  for (std::size_t end = 0; end <= first.size(); end = test::after(end, first.size())) {
    auto mixed = first;
    std::copy_n(second.begin(), end, mixed.begin());
    SnapshotInfo info;
    const bool whole = mixed == first || mixed == second;
    ASSERT_EQ(inspect(mixed, info), whole ? Status::kOk : Status::kBadSnapshot) << end;
  }
}

TEST(Banks, SequenceNumbersMayWrap) {
  Rig rig(kShape, kPolicy);
  Random random(4);
  Flash flash(false);
  for (const std::uint32_t older : {0u, 0x7fffffffu, 0xfffffffeu, 0xffffffffu}) {
    for (const std::uint32_t bank_of_older : {0u, 1u}) {
      const auto put = [&](std::uint32_t bank, std::uint32_t sequence) {
        const auto bytes = saved(rig.cache(), {sequence, {}});
        std::copy(bytes.begin(), bytes.end(), flash.memory[bank].begin());
      };
      put(bank_of_older, older);
      put(1 - bank_of_older, older + 1);
      std::uint32_t bank = 7;
      SnapshotInfo info;
      ASSERT_EQ(newest_bank(flash.banks, bank, info), Status::kOk);
      EXPECT_EQ(bank, 1 - bank_of_older);
      flash.start();
      ASSERT_EQ(save_to_banks(rig.cache(), flash.banks), Status::kOk);
      EXPECT_EQ(flash.written_bank, bank_of_older);
      ASSERT_EQ(newest_bank(flash.banks, bank, info), Status::kOk);
      EXPECT_EQ(info.sequence, older + 2);
    }
  }
}

TEST(Banks, OneThatCannotBeReadOrIsOfALaterVersionDoesNotHideTheOther) {
  Rig rig(kShape, kPolicy);
  Random random(5);
  Flash flash(false);
  grow(rig.cache(), random, 3);
  ASSERT_EQ(save_to_banks(rig.cache(), flash.banks), Status::kOk);
  std::uint32_t bank = 7;
  SnapshotInfo info;
  flash.unreadable[1] = true;
  EXPECT_EQ(newest_bank(flash.banks, bank, info), Status::kOk);
  EXPECT_EQ(bank, 0u);
  flash.unreadable[0] = true;
  EXPECT_EQ(newest_bank(flash.banks, bank, info), Status::kStorageFailed);
  flash.unreadable[0] = flash.unreadable[1] = false;
  test::TakenApart later(saved(rig.cache()));
  test::TakenApart::put<std::uint16_t>(later.header, 4, 3);
  const auto bytes = later.sealed();
  std::copy(bytes.begin(), bytes.end(), flash.memory[0].begin());
  EXPECT_EQ(newest_bank(flash.banks, bank, info), Status::kNewerSnapshot);
}

TEST(Banks, NeedFunctionsAndRoom) {
  Rig rig(kShape, kPolicy);
  Random random(6);
  grow(rig.cache(), random, 3);
  Flash small(true, static_cast<std::size_t>(snapshot_bytes(rig.cache())) - 1);
  EXPECT_EQ(save_to_banks(rig.cache(), small.banks), Status::kBadArgument);
  EXPECT_EQ(small.written_bank, 2u);
  SnapshotBanks none;
  std::uint32_t bank = 7;
  SnapshotInfo info;
  EXPECT_EQ(newest_bank(none, bank, info), Status::kBadArgument);
  EXPECT_EQ(save_to_banks(rig.cache(), none), Status::kBadArgument);
  Cache empty;
  EXPECT_EQ(save_to_banks(empty, small.banks), Status::kNotReady);
  EXPECT_EQ(restore_from_banks(empty, small.banks), Status::kNotReady);
}

}  // namespace
}  // namespace nibkv::banks_test
