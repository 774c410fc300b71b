#include "tests/golden/pipeline.hpp"

#include <algorithm>
#include <cstring>

#include "tests/support/rows.hpp"

namespace nibkv::test {
namespace {

constexpr std::uint64_t kSeed = 7;  // of profiles

// Every score, both merges, every way to divide a budget; groups below and above
// the 16 rows of a pass.
void add_scored_cases(GoldenCases& list) {
  Policy policy = ems(90);
  policy.merge = Merge::kValues;
  list.add({{.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .outlier_channels = 4, .max_chunk = 12},
            policy,
            40});
  policy.merge = Merge::kBoth;
  policy.mass = Mass::kCount;
  policy.similarity = Similarity::kKeyValue;
  policy.group = Group::kMax;
  policy.combine = Combine::kMax;
  policy.mean_threshold = true;
  policy.budget = Budget::kPyramid;
  list.add({{.layers = 3, .query_heads = 8, .kv_heads = 2, .head_dim = 96, .outlier_channels = 8, .max_chunk = 5},
            policy,
            60});
  policy = ems(70);
  policy.merge = Merge::kBoth;
  policy.threshold = 0;
  policy.pool = 3;
  policy.candidate_mass = 200;
  list.add({{.layers = 1, .query_heads = 20, .kv_heads = 1, .head_dim = 48, .max_chunk = 3}, policy, 70});
  list.add({{.layers = 1, .query_heads = 4, .kv_heads = 4, .head_dim = 32, .max_chunk = 9}, ada_kv(80), 60});
  list.add({{.layers = 2, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 40}, head_kv(100), 20});
  list.add({{.layers = 3, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 9}, fast_gen(80), 60});
  list.add({{.layers = 3, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 9}, prefix_kv(80), 60});
  list.add({{.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = 9}, duo(96), 90});
  list.add({{.layers = 1, .query_heads = 3, .kv_heads = 1, .head_dim = 128}, h2o(40), 400});
  list.add({{.layers = 1, .query_heads = 3, .kv_heads = 1, .head_dim = 112, .max_chunk = 2}, tova(33), 60});
  list.add({{.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 80, .outlier_channels = 16, .max_chunk = 16},
            l2_norm(50),
            20});
  policy = snapkv(96);
  policy.budget = Budget::kTable;
  list.add({{.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .max_chunk = 8}, policy, 40, {128, 64}, 2});
}

// Rows of very different sizes, including rows of exact zeros.
void scale_rows(std::span<float> rows, std::size_t dim, Random& random) {
  constexpr float kSizes[] = {1.0f, 1.0f, 1.0f, 1.0f, 0.0f, 1024.0f, 0.0009765625f, 8.0f};
  for (std::size_t row = 0; row < rows.size() / dim; ++row) {
    const float size = kSizes[random.below(8)];
    for (std::size_t c = 0; c < dim; ++c) rows[row * dim + c] *= size;
  }
}

}  // namespace

// Every kind of block of the rotation (16 to 256), group sizes below and above the 16
// rows of a pass, outlier channels, both policies, both storages; streaming cases append
// several times their budget.
GoldenCases golden_cases() {
  GoldenCases list;
  list.add({{.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .outlier_channels = 4, .max_chunk = 24},
            streaming_llm(96),
            24});
  list.add({{.layers = 1, .query_heads = 8, .kv_heads = 1, .head_dim = 128, .outlier_channels = 16, .max_chunk = 5},
            full(100),
            20});
  list.add({{.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 240, .outlier_channels = 8, .max_chunk = 9},
            full(90),
            10});
  list.add({{.layers = 1, .query_heads = 32, .kv_heads = 1, .head_dim = 80, .max_chunk = 3}, streaming_llm(40, 6), 40});
  list.add({{.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 256, .max_chunk = 40}, full(80), 2});
  list.add({{.layers = 1, .query_heads = 3, .kv_heads = 3, .head_dim = 16, .outlier_channels = 12, .max_chunk = 7},
            streaming_llm(33, 0),
            30});
  Shape f32 = {.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 48, .max_chunk = 8};
  f32.storage = Storage::kF32;
  list.add({f32, streaming_llm(32), 12});
  add_scored_cases(list);
  return list;
}

// Keys that are compared without their rotary embedding, and merged in the phase of their centre; queries that are turned for
// slots beyond a reach.
GoldenCases turned_cases() {
  GoldenCases list;
  Shape shape = {.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .outlier_channels = 8, .max_chunk = 12};
  shape.rotary = {.base = 1e4f, .dims = 64};
  Policy policy = ems(90);
  policy.merge = Merge::kBoth;
  policy.rephase = true;
  list.add({shape, policy, 40});
  policy.rephase = false;
  policy.position_free = true;
  list.add({shape, policy, 40});
  shape = {.layers = 1, .query_heads = 5, .kv_heads = 1, .head_dim = 112, .max_chunk = 7};
  shape.rotary = {.base = 5e5f, .scale = 0.25f, .dims = 96, .adjacent = false};
  policy.rephase = true;
  policy.similarity = Similarity::kKeyValue;
  policy.threshold = 0;
  list.add({shape, policy, 60});
  shape = {.layers = 1, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .outlier_channels = 8, .max_chunk = 7};
  shape.rotary = {.base = 1e4f, .dims = 64, .reach = 64};
  list.add({shape, ems(90), 60});
  shape.outlier_channels = 0;
  shape.rotary.reach = 47;  // a step of 16, so three turns
  list.add({shape, streaming_llm(96), 60});
  return list;
}

// Codes of every width: streams, scores that merge both or values alone, queries that are turned.
GoldenCases width_cases() {
  GoldenCases list;
  for (const Storage storage : {Storage::kQ8, Storage::kQ8Q4, Storage::kQ4Q2, Storage::kQ2}) {
    Shape shape = {
        .layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .outlier_channels = 8, .max_chunk = 12};
    shape.storage = storage;
    list.add({shape, ems(90), 40});
    shape = {.layers = 1, .query_heads = 5, .kv_heads = 1, .head_dim = 112, .max_chunk = 9};
    shape.storage = storage;
    shape.rotary = {.base = 1e4f, .dims = 112, .reach = 47};
    list.add({shape, streaming_llm(96), 40});
    shape.rotary = {};
    shape.head_dim = 256;
    list.add({shape, full(120), 15});
    shape.head_dim = 16;
    Policy policy = snapkv(70);
    policy.merge = Merge::kValues;
    policy.similarity = Similarity::kKeyValue;
    list.add({shape, policy, 60});
  }
  // Some layers with wider codes, budgets that differ.
  Shape shape = {.layers = 4, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .outlier_channels = 4, .max_chunk = 9};
  Policy policy = ems(90);
  policy.wide.add(0);
  policy.wide.add(2);
  list.add({shape, policy, 60});
  shape.storage = Storage::kQ2;
  policy = head_kv(100);
  policy.wide.add(3);
  policy.wide_storage = Storage::kQ8;
  list.add({shape, policy, 60});
  // And the first slots of all heads.
  policy = ems(90);
  policy.wide_first = true;
  policy.wide_storage = Storage::kQ4;
  list.add({shape, policy, 60});
  shape.storage = Storage::kQ4;
  policy = streaming_llm(96);
  policy.wide.add(1);
  policy.wide_first = true;
  list.add({shape, policy, 40});
  return list;
}

// Tails, of wider codes and of the same, and faint slots, with and without merging, wide layers and first slots.
GoldenCases tier_cases() {
  GoldenCases list;
  Shape shape = {.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .outlier_channels = 8, .max_chunk = 12};
  list.add({shape, precise_tail(300), 30});
  Policy policy = ems(200);
  policy.tail = 32;
  policy.faint = 64;
  list.add({shape, policy, 40});
  policy.wide.add(1);
  policy.wide_first = true;
  policy.tail_storage = Storage::kQ8Q4;
  policy.faint_storage = Storage::kQ4Q2;
  list.add({shape, policy, 40});
  shape.storage = Storage::kQ2;
  shape.outlier_channels = 0;
  policy = ada_kv(160);
  policy.tail = 64;
  policy.tail_storage = Storage::kQ4;
  list.add({shape, policy, 40});
  shape.storage = Storage::kQ4;
  policy = qpruning(160);
  policy.tail_storage = Storage::kQ4;
  list.add({shape, policy, 40});
  // What the first tokens say of the keys, with a rotary embedding that is known and with none.
  shape.basis = KeyBasis::kMeasured;
  shape.outlier_channels = 8;
  shape.max_chunk = 24;
  list.add({shape, ems(120), 30});
  shape.rotary = {.base = 1e4f, .dims = 48, .adjacent = false};
  list.add({shape, precise_tail(500), 30});
  return list;
}

// A log that forgets and one that does not, of heads that look things up and of all.
GoldenCases log_cases() {
  GoldenCases list;
  Shape shape = {.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .outlier_channels = 8, .max_chunk = 12};
  list.add({shape, recall_window(128, 256), 80});
  shape.storage = Storage::kQ8Q4;
  Policy policy = recall_window(100, 512);
  policy.indexed = 256;
  list.add({shape, policy, 60});
  shape = {.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 48, .max_chunk = 31};
  shape.storage = Storage::kQ2;
  policy.sinks = 0;
  policy.log = 96;
  list.add({shape, policy, 30});
  shape.storage = Storage::kQ4;
  shape.basis = KeyBasis::kMeasured;
  shape.outlier_channels = 4;
  list.add({shape, policy, 30});
  return list;
}

// Layers that share codes of keys, values and both, with and without scores; the last
// merges into folded slots.
GoldenCases fold_cases() {
  GoldenCases list;
  Shape shape = {.layers = 4, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .outlier_channels = 8, .max_chunk = 24};
  list.add({shape, minicache(700, pairs_from(1, 4)), 50});
  Policy policy = full(1200);
  policy.fold.values = pairs_from(0, 4);
  policy.fold.t = 100;
  policy.fold.retain = Retain::kFarRange;
  list.add({shape, policy, 80});
  shape.max_chunk = 8;
  policy = ems_fold(400, pairs_from(0, 4));
  policy.merge = Merge::kValues;
  list.add({shape, policy, 120});
  shape.layers = 2;
  shape.head_dim = 48;
  shape.outlier_channels = 0;
  policy = ems_fold(400, pairs_from(0, 2));
  policy.mass = Mass::kCount;
  policy.similarity = Similarity::kKeyValue;
  policy.threshold = 0;
  policy.recent = 60;
  policy.fold.retained = 40;
  policy.fold.retain = Retain::kNear;
  list.add({shape, policy, 150});
  return list;
}

// Layers that share codes through the maps of a profile: values and keys of all pairs, and those
// of one pair each, by score.
GoldenCases aligned_cases() {
  GoldenCases list;
  Shape shape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = 8};
  Policy policy = minicache(500, pairs_from(0, 2));
  policy.fold.aligned_keys = policy.fold.aligned_values = policy.fold.keys;
  policy.fold.centred = true;
  list.add({shape, policy, 100});
  shape.layers = 4;
  shape.head_dim = 48;
  shape.outlier_channels = 8;
  policy = ems_fold(400, pairs_from(0, 4));
  policy.recent = 60;
  policy.threshold = 0;
  policy.fold.aligned_values.add(0);
  policy.fold.aligned_keys.add(2);
  policy.fold.centred = true;
  list.add({shape, policy, 120});
  return list;
}

void GoldenRun::add(std::span<const std::byte> bytes) {
  for (const std::byte byte : bytes) word_ = (word_ ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3u;
}

template <typename T>
std::span<T> GoldenRun::take(std::size_t count) {
  const std::size_t bytes = (count * sizeof(T) + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  if (bytes > memory_.size() - used_) {
    short_of_memory_ = true;
    return {};
  }
  T* const start = reinterpret_cast<T*>(memory_.data() + used_);
  used_ += bytes;
  most_ = std::max(most_, used_);
  return {start, count};
}

// A cache with its arena and, if it needs one, its profile.
Status GoldenRun::make_cache(const GoldenCase& one) {
  const Shape& shape = one.shape;
  const auto arena = take<std::byte>(footprint(shape, one.policy));
  const bool has_profile = needs_profile(shape, one.policy);
  const CalibrationOptions options = calibration_of(one.policy);
  const bool has_attention = needs_attention(one.policy);
  const std::size_t heads = std::size_t{shape.layers} * shape.kv_heads;
  const auto profile = take<std::byte>(has_profile ? profile_bytes(shape, options.align, has_attention) : 0);
  const auto pages = take<std::byte>(static_cast<std::size_t>(cold_bytes(shape, one.policy)));
  if (short_of_memory_) return Status::kArenaTooSmall;
  std::fill(pages.begin(), pages.end(), std::byte{0});
  store_ = memory_store(pages.data());
  pages_ = pages;
  if (has_profile) {
    const std::size_t before = used_;
    const std::size_t token = kProfileTokens * shape.head_dim;
    const auto calibration = take<std::byte>(calibration_bytes(shape, options));
    const auto keys = take<float>(token * shape.kv_heads);
    const auto values = take<float>(token * shape.kv_heads);
    const auto queries = take<float>(token * shape.query_heads);
    const auto scores = take<float>(heads);
    const auto attention = take<HeadAttention>(has_attention ? heads : 0);
    const auto plain = has_attention ? take<std::byte>(profile_bytes(shape, options.align)) : profile;
    if (short_of_memory_) return Status::kArenaTooSmall;
    Status status = write_profile(plain, shape, kSeed, calibration, keys, values, queries, options);
    if (status != Status::kOk) return status;
    if (has_attention) {
      fill_attention(attention, kSeed);
      status = add_attention(plain, shape, attention, profile);
      if (status != Status::kOk) return status;
    }
    if (reads_head_scores(one.policy)) {
      fill_head_scores(scores, kSeed);
      status = set_head_scores(profile, shape, scores);
      if (status != Status::kOk) return status;
    }
    used_ = before;
  }
  const std::span budgets(one.budgets, one.budget_count);
  const Status status =
      cache_.init(arena, shape, one.policy, {.port = port_, .profile = profile, .budgets = budgets, .store = &store_});
  if (status != Status::kOk) return status;
  state_ = arena.first(static_cast<std::size_t>(layout_of(shape, one.policy).plan));
  add(profile);
  return Status::kOk;
}

// Hashes what explain() and plan() return for every head; every other time, compact_now follows.
Status GoldenRun::add_scores(int step) {
  const Shape& shape = cache_.shape();
  const std::size_t before = used_;
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
      used_ = before;
      const auto slots = take<SlotInfo>(cache_.held(layer, head));
      const auto target = take<std::uint32_t>(cache_.held(layer, head));
      if (short_of_memory_) return Status::kArenaTooSmall;
      Status status = explain(cache_, layer, head, slots);
      if (status != Status::kOk) return status;
      for (const SlotInfo& slot : slots) {
        const std::uint32_t words[] = {slot.position, slot.global, slot.local, slot.bias, slot.merged};
        add(std::as_bytes(std::span(words)));
      }
      status = plan(cache_, layer, head, shape.max_chunk, target);
      if (status != Status::kOk) return status;
      add(std::as_bytes(target));
    }
  }
  used_ = before;
  const Policy& policy = cache_.policy();
  if (step % 20 != 19) return Status::kOk;
  const std::uint32_t tokens = policy.sinks + policy.recent + (policy.tokens - policy.sinks - policy.recent + 1) / 2;
  return compact_now(cache_, tokens, policy.budget);
}

// Some tokens go through every layer.
Status GoldenRun::add_tokens(std::uint32_t count, Random& random) {
  const Shape& shape = cache_.shape();
  const std::size_t before = used_;
  const std::size_t token = std::size_t{count} * shape.head_dim;
  const auto keys = take<float>(token * shape.kv_heads);
  const auto values = take<float>(token * shape.kv_heads);
  const auto queries = take<float>(token * shape.query_heads);
  const auto out = take<float>(token * shape.query_heads);
  if (short_of_memory_) return Status::kArenaTooSmall;
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    fill_keys(keys, shape, kSeed, layer, random);
    fill_bells(values, random);
    fill_bells(queries, random);
    if (shape.outlier_channels == 0) scale_rows(keys, shape.head_dim, random);
    scale_rows(values, shape.head_dim, random);
    scale_rows(queries, shape.head_dim, random);
    for (float& x : queries) x *= 0.0625f;
    Status status = append(cache_, layer, keys, values);
    if (status != Status::kOk) return status;
    status = recall(cache_, layer, queries);
    if (status != Status::kOk) return status;
    status = attend(cache_, layer, queries, out);
    if (status != Status::kOk) return status;
    add(std::as_bytes(out));
  }
  if (keeps_classes(cache_.policy())) {
    const auto classes = take<TokenClass>(count);
    if (short_of_memory_) return Status::kArenaTooSmall;
    for (TokenClass& each : classes) each = static_cast<TokenClass>(random.below(8) % 3);
    if (const Status status = classify(cache_, classes); status != Status::kOk) return status;
  }
  used_ = before;
  return Status::kOk;
}

// Carries out a plan of its own: every third slot except the first is dropped.
Status GoldenRun::drop_some() {
  const std::size_t before = used_;
  const auto target = take<std::uint32_t>(cache_.held(0, 0));
  if (short_of_memory_) return Status::kArenaTooSmall;
  std::uint32_t next = 0;
  if (cache_.policy().faint != 0) {  // a plan says which slots are faint
    if (const Status status = plan(cache_, 0, 0, 0, target); status != Status::kOk) return status;
    for (std::uint32_t i = 0; i < target.size(); ++i) {
      target[i] = i % 3 == 1 && i > 4 ? kDrop : target[i] == kFaint ? kFaint : next++;
    }
  } else {
    for (std::uint32_t i = 0; i < target.size(); ++i) target[i] = i % 3 == 1 && i > 4 ? kDrop : next++;
  }
  used_ = before;
  return compact(cache_, 0, 0, target);
}

Status GoldenRun::run(const GoldenCase& one) {
  used_ = 0;
  short_of_memory_ = false;
  Status status = make_cache(one);
  // With a reach, slots keep the positions that a policy knows by their numbers.
  const bool may_drop = (one.shape.rotary.reach == 0 || one.policy.keep == Keep::kScore) && !has_log(one.policy);
  Random random(one.shape.head_dim);
  for (int step = 0; step < one.steps && status == Status::kOk; ++step) {
    const std::uint32_t count = step == 0 ? one.shape.max_chunk : random.within(1, one.shape.max_chunk);
    status = add_tokens(count, random);
    if (status == Status::kOk && one.policy.keep == Keep::kScore && step % 10 == 9) status = add_scores(step);
    if (status == Status::kOk && step % 7 == 6 && may_drop) status = drop_some();
  }
  if (status == Status::kOk) add(state_);
  if (status == Status::kOk) add(pages_);
  return status;
}

}  // namespace nibkv::test
