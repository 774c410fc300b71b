#include "tests/golden/kept_snapshots.hpp"

#include "tests/support/hash.hpp"

namespace nibkv::test {
namespace {

constexpr std::uint64_t kKeptSeed = 11;  // of profiles

bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

}  // namespace

Status KeptCache::init(const KeptSnapshot& one, std::string_view port) {
  const Shape& shape = one.shape;
  std::span<std::byte> profile;
  if (shape.outlier_channels != 0) {
    profile = std::span(profile_).first(profile_bytes(shape));
    const Status status = write_profile(profile, shape, kKeptSeed, calibration_, keys_, values_, queries_);
    if (status != Status::kOk) return status;
  }
  const std::span budgets(one.budgets, one.budget_count);
  store_ = memory_store(pages_, 7);
  return cache_.init(std::span(arena_).first(footprint(shape, one.policy)), shape, one.policy,
                     {.port = port, .profile = profile, .budgets = budgets, .store = &store_});
}

Status KeptCache::fill(const KeptSnapshot& one) {
  Random random(12);
  return go_on(cache_, random, one.steps, room(), [](std::span<const float>) {});
}

std::span<const std::byte> KeptCache::save_with(std::span<const std::byte> note, std::uint32_t sequence) {
  const auto bytes = std::span(saved_).first(static_cast<std::size_t>(snapshot_bytes(cache_, note.size())));
  return save(cache_, bytes, {sequence, note}) == Status::kOk ? bytes : std::span<std::byte>();
}

std::span<const std::byte> KeptCache::saved() {
  return save_with(std::as_bytes(std::span(kKeptNote)), 1);
}

Status KeptCache::go_on_from(std::uint64_t& word) {
  Random random(13);
  Hash hash;
  const Status status = go_on(cache_, random, 20, room(),
                              [&hash](std::span<const float> attended) { hash.add(std::as_bytes(attended)); });
  hash.add(save_with({}, 0));
  word = hash.word();
  return status;
}

KeptResult try_kept(const KeptSnapshot& one, std::span<const std::byte> snapshot, std::string_view port,
                    KeptCache& memory) {
  KeptResult result;
  if (has_log(one.policy)) {  // its pages are not in the snapshot
    result.status = memory.init(one, port);
    if (result.status == Status::kOk) result.status = memory.fill(one);
    if (result.status != Status::kOk) return result;
  }
  result.status = memory.init(one, port);
  if (result.status == Status::kOk) result.status = restore(memory.cache(), snapshot);
  if (result.status != Status::kOk) return result;
  result.saved_the_same = same(memory.saved(), snapshot);
  result.status = memory.go_on_from(result.word);
  if (result.status == Status::kOk) result.status = memory.init(one, port);
  if (result.status == Status::kOk) result.status = memory.fill(one);
  result.made_the_same = result.status == Status::kOk && same(memory.saved(), snapshot);
  return result;
}

}  // namespace nibkv::test
