#include "tests/support/snapshots.hpp"

#include "tests/support/effort.hpp"
#include "tests/support/go_on.hpp"

namespace nibkv::test {
namespace {

template <typename T>
void append_number(std::vector<std::byte>& to, T number) {
  const auto bytes = std::as_bytes(std::span(&number, 1));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

}  // namespace

std::uint32_t crc_of(std::uint32_t crc, std::span<const std::byte> bytes) {
  crc = ~crc;
  for (const std::byte byte : bytes) {
    crc ^= static_cast<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
  }
  return ~crc;
}

TakenApart::TakenApart(std::span<const std::byte> snapshot) : header(snapshot.begin(), snapshot.begin() + 64) {
  const std::vector<std::byte> all(snapshot.begin(), snapshot.end());
  for (std::size_t at = 64; at < all.size();) {
    Section section;
    section.kind = get<std::uint32_t>(all, at);
    section.reserved = get<std::uint32_t>(all, at + 4);
    section.claimed = get<std::uint64_t>(all, at + 8);
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(at + 16);
    section.bytes.assign(begin, begin + static_cast<std::ptrdiff_t>(section.claimed));
    at += 16 + static_cast<std::size_t>(section.claimed) + 4;
    sections.push_back(section);
  }
}

std::vector<std::byte> TakenApart::sealed() const {
  std::vector<std::byte> all = header;
  std::size_t total = 64;
  for (const Section& section : sections) total += 16 + section.bytes.size() + 4;
  if (total_follows) put<std::uint64_t>(all, 8, total);
  std::uint32_t crc = crc_of(0, std::span(all).first(60));
  put(all, 60, crc);
  for (const Section& section : sections) {
    const std::size_t begin = all.size();
    append_number(all, section.kind);
    append_number(all, section.reserved);
    append_number(all, section.claimed);
    all.insert(all.end(), section.bytes.begin(), section.bytes.end());
    crc = crc_of(crc, std::span(all).subspan(begin));
    append_number(all, crc);
  }
  return all;
}

std::vector<SnapshotCase> snapshot_cases() {
  std::vector<SnapshotCase> list;
  const Shape small = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .max_chunk = 7};
  Shape wide = {.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 48, .outlier_channels = 8, .max_chunk = 12};
  list.push_back({"full", small, full(300)});
  list.push_back({"full with outliers", wide, full(300)});
  list.push_back({"streaming", wide, streaming_llm(70, 4)});
  Shape exact = small;
  exact.storage = Storage::kF32;
  list.push_back({"f32", exact, full(300)});
  list.push_back({"precise tail", wide, precise_tail(300, 32)});
  Shape measured = wide;
  measured.basis = KeyBasis::kMeasured;
  measured.max_chunk = 20;
  list.push_back({"measured basis", measured, ems(90)});
  list.push_back({"f32 streaming", exact, streaming_llm(50, 3)});
  for (const Preset& preset : scored_presets(wide, 100)) list.push_back({preset.name, wide, preset.policy});
  Policy policy = ems(90);
  policy.merge = Merge::kBoth;
  policy.mass = Mass::kCount;
  policy.threshold = 0;
  policy.budget = Budget::kPyramid;
  list.push_back({"merged slots, pyramid", wide, policy});
  policy.budget = Budget::kAdaptive;
  list.push_back({"merged slots, adaptive", wide, policy});
  policy = snapkv(96);
  policy.budget = Budget::kTable;
  list.push_back({"table", small, policy, {128, 64, 96, 96}});
  wide.rotary = {.base = 1e4f, .dims = 48};
  policy = ems(90);
  policy.merge = Merge::kBoth;
  policy.rephase = policy.position_free = true;
  list.push_back({"keys that turn", wide, policy});
  const Shape deep = {
      .layers = 4, .query_heads = 4, .kv_heads = 2, .head_dim = 48, .outlier_channels = 4, .max_chunk = 7};
  policy = minicache(300, pairs_from(1, 4));
  policy.fold.recent = 0;
  list.push_back({"folded", deep, policy});
  policy = full(600);
  policy.fold.values.add(0);
  policy.fold.keys.add(2);
  policy.fold.retain = Retain::kFarRange;
  policy.fold.retained = 40;
  policy.fold.recent = 10;
  list.push_back({"folded values, folded keys", deep, policy});
  policy = ems_fold(240, pairs_from(0, 4));
  policy.recent = 40;
  policy.fold.recent = 0;
  list.push_back({"folded, scored", deep, policy});
  policy.tokens = 200;
  policy.threshold = 0;
  policy.fold.retain = Retain::kFarRange;
  list.push_back({"folded, scored, merged", deep, policy});
  policy = minicache(300, pairs_from(1, 4));
  policy.fold.recent = 0;
  policy.fold.aligned_values = policy.fold.values;
  policy.fold.aligned_keys.add(1);
  policy.fold.centred = true;
  list.push_back({"folded, aligned", deep, policy});
  return list;
}

std::vector<SnapshotCase> some_snapshot_cases() {
  const std::vector<SnapshotCase> all = snapshot_cases();
  if (kEvery == 1) return all;
  std::vector<SnapshotCase> some;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i % kEvery == 5 % kEvery) some.push_back(all[i]);
  }
  return some;
}

std::vector<float> go_on(Cache& cache, Random& random, int steps) {
  const Shape& shape = cache.shape();
  const std::size_t rows = std::size_t{shape.max_chunk} * shape.head_dim;
  std::vector<float> keys(rows * shape.kv_heads), values(keys.size()), queries(rows * shape.query_heads),
      out(queries.size()), all;
  std::vector<std::uint32_t> target(most_held(shape, cache.policy()));
  const Status status =
      go_on(cache, random, steps, {keys, values, queries, out, target},
            [&all](std::span<const float> attended) { all.insert(all.end(), attended.begin(), attended.end()); });
  EXPECT_EQ(status, Status::kOk) << words(shape, cache.policy(), cache.port());
  return all;
}

}  // namespace nibkv::test
