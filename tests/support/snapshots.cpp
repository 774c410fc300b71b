#include "tests/support/snapshots.hpp"

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

std::vector<float> go_on(Cache& cache, Random& random, int steps) {
  const Shape shape = cache.shape();
  std::vector<float> all;
  for (int step = 0; step < steps; ++step) {
    const std::uint32_t count = random.within(1, shape.max_chunk);
    for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
      const auto keys = random.bells(std::size_t{count} * shape.kv_heads * shape.head_dim);
      const auto values = random.bells(std::size_t{count} * shape.kv_heads * shape.head_dim);
      const auto queries = random.bells(std::size_t{count} * shape.query_heads * shape.head_dim);
      EXPECT_EQ(append(cache, layer, keys, values), Status::kOk) << words(shape, cache.policy(), cache.port());
      const std::vector<float> out = attend_all(cache, layer, queries);
      all.insert(all.end(), out.begin(), out.end());
    }
    if (step % 4 != 3) continue;
    if (step % 8 == 7 && cache.policy().keep == Keep::kScore) {
      const Policy& policy = cache.policy();
      const std::uint32_t tokens = policy.tokens - (policy.tokens - policy.sinks - policy.recent) / 3;
      EXPECT_EQ(compact_now(cache, tokens, policy.budget), Status::kOk) << words(shape, policy);
      continue;
    }
    const std::uint32_t head = shape.kv_heads - 1u;
    std::vector<std::uint32_t> target;
    std::uint32_t next = 0;
    for (std::uint32_t i = 0; i < cache.held(0, head); ++i) target.push_back(i % 3 == 1 && i > 4 ? kDrop : next++);
    EXPECT_EQ(compact(cache, 0, head, target), Status::kOk);
  }
  return all;
}

}  // namespace nibkv::test
