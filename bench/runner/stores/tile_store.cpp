#include "bench/runner/stores/tile_store.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <span>

#include "bench/runner/model/heap_count.hpp"
#include "bench/runner/stores/policy_settings.hpp"
#include "bench/runner/stores/smallest_arena.hpp"
#include "bench/runner/stores/storage_name.hpp"

namespace nibkv::llm {
namespace {

// Long enough for the matrix products to share unpacked weights, short enough that a small window still sees most of
// its tokens.
constexpr std::uint32_t kChunk = 64;
constexpr std::uint16_t kFoldChunk = 16;

// Queries of a chunk that choose together what is recalled.
constexpr std::uint32_t kChoosers = 8;

// The largest with steps of 2,048 tokens, the context from which profiles are made: keys are coded at positions below a
// step, where the profile knows them.
constexpr std::size_t kMostReach = 8191;

std::uint16_t narrow(std::size_t value, const char* what) {
  if (value > std::numeric_limits<std::uint16_t>::max()) throw Error(std::string("the model has too many ") + what);
  return static_cast<std::uint16_t>(value);
}

// The rotary embedding, if the library supports it: not that of a model whose frequencies are
// divided individually.
Rotary rotary_of(const Config& model) {
  Rotary rotary;
  if (!model.rope_divisors.empty()) return rotary;
  rotary.base = static_cast<float>(model.rope_base);
  rotary.scale = static_cast<float>(model.rope_scale);
  rotary.dims = narrow(model.rope_pairs * 2, "rotary channels");
  rotary.adjacent = model.rope_adjacent;
  return valid(rotary, static_cast<std::uint32_t>(model.head_dim)) ? rotary : Rotary{};
}

// As many tokens as the arena can hold. A small arena takes small chunks.
std::uint32_t tokens_of_arena(const Config& model, const StoreOptions& options, Shape& shape) {
  const auto preset = [&](std::uint32_t tokens) { return policy_of(options, shape, tokens); };
  for (;; shape.max_chunk /= 2) {
    const std::uint32_t tokens = tokens_that_fit(shape, preset, options.arena_bytes);
    if (tokens != 0) return tokens;
    if (shape.max_chunk == 1) break;
  }
  if (smallest_arena(model, options) == 0)
    require(valid(shape) ? Status::kBadPolicy : Status::kBadShape, "policy '" + policy_text(options) + "'");
  throw Error(too_small_text(model, options));
}

// What a policy reads in a profile must be there; a cache would only say that the profile is missing or damaged.
void require_profile(const Policy& policy, const StoreOptions& options, const Shape& shape) {
  const std::string name = "policy '" + policy_text(options) + "' ";
  ProfileView profile;
  if (!options.profile.empty()) require(profile.open(options.profile, shape), "profile");
  const bool attention = policy.budget == Budget::kPrefix || policy.budget == Budget::kRules;
  const std::string_view read = read_in_profile(policy.budget);
  if (!read.empty() && (attention ? !profile.has_attention() : options.profile.empty())) {
    throw Error(name + "needs a profile with " + std::string(read));
  }
  if (policy.fold.aligned_keys.empty() && policy.fold.aligned_values.empty()) return;
  if (!profile.has_maps()) throw Error(name + "needs a profile with maps (nibkv-eval profile --align)");
}

// The policy with its budget, and the chunks and workers that it takes.
Policy choose_policy(const Config& model, const StoreOptions& options, Shape& shape) {
  // First without a budget, since the recent share of it says nothing about the bytes.
  const Keep keep = policy_of(options, shape, options.tokens).keep;
  // The space for a chunk comes on top of the budget of every head, so a tile of
  // tokens is the limit.
  if (keep != Keep::kAll) shape.max_chunk = std::min<std::uint16_t>(shape.max_chunk, kTileSlots);
  // Slots of a chunk do not fold, and there must be space for one more.
  if (may_fold(options.policy)) shape.max_chunk = std::min<std::uint16_t>(shape.max_chunk, kFoldChunk);
  const Policy wanted = policy_of(options, shape, options.tokens);
  if ((wanted.rephase || wanted.position_free) && !shape.rotary.known()) {
    throw Error("this model's rotary embedding is not one by which keys can be turned: no rephase or position_free");
  }
  if (options.reach != 0 && !shape.rotary.known()) {
    throw Error("this model's rotary embedding is not one by which queries can be turned: no reach");
  }
  require_profile(wanted, options, shape);
  shape.workers = workers_of(shape, keep);
  const Policy policy =
      policy_of(options, shape, options.tokens != 0 ? options.tokens : tokens_of_arena(model, options, shape));
  if (keep == Keep::kAll) return policy;
  const std::uint32_t kept = policy.sinks + policy.recent;
  if (has_tiers(policy) && policy.tokens < detail::smallest_budget(policy)) {
    throw Error("policy '" + options.policy + "' needs at least " + std::to_string(detail::smallest_budget(policy)) +
                " tokens");
  }
  if (policy.tokens <= kept) {
    throw Error("policy '" + options.policy + "' needs more than " + std::to_string(kept) + " tokens");
  }
  return policy;
}

void open_log(FileStore& file, const std::string& path, std::uint64_t bytes) {
  const int error = file.open(path.c_str(), bytes);
  if (error == 0) return;
  const char* const why = error == EEXIST   ? "there already, and no file of pages"
                          : error == EINVAL ? "not a file, so no place for pages"
                                            : std::strerror(error);
  throw Error(path + ": " + why);
}

}  // namespace

void require(Status status, const std::string& what) {
  if (status != Status::kOk) throw Error(what + ": " + std::string(text(status)));
}

void TileStore::Free::operator()(std::byte* memory) const {
  std::free(memory);
}

bool can_measure(const StoreOptions& options) {
  return has_codes(options.storage) && !may_fold(options.policy);
}

Shape shape_of(const Config& model, const StoreOptions& options) {
  Shape shape;
  shape.layers = narrow(model.layers, "layers");
  shape.query_heads = narrow(model.query_heads, "query heads");
  shape.kv_heads = narrow(model.kv_heads, "KV heads");
  shape.head_dim = narrow(model.head_dim, "channels a head");
  const bool measures = options.basis == KeyBasis::kMeasured;
  const bool exact = options.storage == Storage::kF32;
  shape.outlier_channels = exact || (measures && !can_measure(options)) ? std::uint16_t{0} : options.outlier_channels;
  shape.max_chunk = kChunk;
  shape.workers = narrow(options.workers, "workers");
  shape.storage = options.storage;
  if (measures && can_measure(options)) shape.basis = KeyBasis::kMeasured;
  shape.rotary = rotary_of(model);
  if (shape.rotary.known()) shape.rotary.reach = options.reach;
  return shape;
}

std::uint32_t endless_reach(const Config& model, const StoreOptions& options) {
  const Shape shape = shape_of(model, options);
  if (!shape.rotary.known() || policy_of(options, shape, options.tokens).keep == Keep::kAll) return 0;
  const std::size_t reach = std::min(model.context, kMostReach);
  return reach < 2 ? 0 : static_cast<std::uint32_t>(reach);
}

void check_shape(const Config& model, const std::string& name) {
  StoreOptions options;
  if (valid(shape_of(model, options))) return;
  if (model.head_dim < 16 || model.head_dim > kMaxHeadDim || model.head_dim % 16 != 0) {
    throw Error(name + ": the model's heads have " + std::to_string(model.head_dim) +
                " channels; nibkv takes multiples of 16 from 16 to " + std::to_string(kMaxHeadDim));
  }
  throw Error(name + ": nibkv takes at most 1024 layers, query heads and KV heads");
}

std::uint16_t workers_of(const Shape& shape, Keep keep) {
  return keep == Keep::kScore ? std::min(shape.workers, shape.kv_heads) : shape.workers;
}

// Says what valid() would refuse of tiers.
static void check_tiers(const Shape& shape, const Policy& policy) {
  if (!has_tiers(policy)) return;
  if (!has_codes(shape.storage) && policy.keep == Keep::kScore) return;  // refused in any case
  if (!has_codes(shape.storage)) throw Error("a tail has codes: not with --storage f32");
  const auto check = [](const char* key, Storage wider, const char* than, Storage narrower) {
    const TileFormat a = format_of(wider), b = format_of(narrower);
    if (a.key_bits >= b.key_bits && a.value_bits >= b.value_bits) return;
    throw Error(std::string("--set ") + key + ": " + std::string(storage_name(wider)) + " is narrower than " + than +
                std::string(storage_name(narrower)));
  };
  check("tail_storage", policy.tail_storage, "", shape.storage);
  if (has_wide(policy)) check("tail_storage", policy.tail_storage, "wide_storage, ", policy.wide_storage);
  if (policy.faint != 0) check("faint_storage", shape.storage, "", policy.faint_storage);
}

// Says what valid() would refuse of widths.
static void check_widths(const Shape& shape, const Policy& policy) {
  if (has_pairs(policy) && shape.storage != Storage::kQ4)
    throw Error("layers share codes of 4 bits alone: --storage q4");
  check_tiers(shape, policy);
  if (!has_wide(policy)) return;
  for (std::uint32_t layer = shape.layers; layer < kMaxPairedLayers; ++layer) {
    if (policy.wide.has(layer))
      throw Error("--set wide: the model has layers 0 to " + std::to_string(shape.layers - 1));
  }
  const TileFormat wide = format_of(policy.wide_storage), other = format_of(shape.storage);
  if (wide == other || wide.key_bits < other.key_bits || wide.value_bits < other.value_bits) {
    throw Error("--set wide_storage: " + std::string(storage_name(policy.wide_storage)) + " is not wider than " +
                std::string(storage_name(shape.storage)));
  }
}

Policy policy_of(const StoreOptions& options, const Shape& shape, std::uint32_t tokens) {
  Policy policy;
  require(find_policy(options.policy, tokens, policy), "policy '" + options.policy + "'");
  apply_settings(options.settings, policy);
  if (policy.faint != 0 && policy.tail == 0) {  // what is new has the codes of the others
    policy.tail = kTileSlots;
    policy.tail_storage = shape.storage;
  }
  choose_pairs(options, shape, policy);
  check_widths(shape, policy);
  return policy;
}

CachePlan plan_cache(const Config& model, const StoreOptions& options) {
  CachePlan plan;
  plan.shape = shape_of(model, options);
  plan.policy = choose_policy(model, options, plan.shape);
  return plan;
}

TileStore::TileStore(const Config& model, const StoreOptions& options)
    : profile_(options.profile), compacted_by_(options.compacted_by), errors_(model.layers), warn_(options.warn) {
  const CachePlan plan = plan_cache(model, options);
  const std::size_t bytes = footprint(plan.shape, plan.policy);
  if (bytes == 0) require(valid(plan.shape) ? Status::kBadPolicy : Status::kBadShape, "cache");
  if (bytes > physical_memory()) throw Error(too_large_text(model, options, bytes, physical_memory()));
  arena_.reset(static_cast<std::byte*>(std::aligned_alloc(kArenaAlignment, bytes)));
  if (arena_ == nullptr) throw Error("no memory for an arena of " + std::to_string(bytes) + " bytes");
  Options cache_options;
  cache_options.port = options.port;
  cache_options.weights = model.weights;
  cache_options.turns = options.turns;
  if (has_codes(options.storage)) cache_options.profile = profile_;
  const std::uint64_t pages = cold_bytes(plan.shape, plan.policy);
  if (options.cold_file.empty() || !has_log(plan.policy)) {
    if (pages > physical_memory()) throw Error("a log of " + std::to_string(pages) + " bytes needs a file: --cold");
    pages_.resize(static_cast<std::size_t>(pages));
    store_ = memory_store(pages_.data());
  } else {
    open_log(page_file_, options.cold_file, pages);
    store_ = page_file_.store();
  }
  cache_options.store = &store_;
  const std::string what = options.port.empty() ? "cache" : "cache on port '" + options.port + "'";
  require(watched([&] { return cache_.init({arena_.get(), bytes}, plan.shape, plan.policy, cache_options); }), what);
}

// Matrix products share unpacked weights among the tokens of a batch, so small chunks would be slow without it. A
// policy that drops nothing may refuse a chunk, and layers that share codes go in step: there no layer is ahead.
std::size_t TileStore::max_batch() const {
  const Policy& policy = cache_.policy();
  if (policy.keep == Keep::kAll || has_pairs(policy)) return max_chunk();
  return std::max<std::size_t>(max_chunk(), kTileSlots);
}

void TileStore::append(int layer, std::size_t count, const float* keys, const float* values, ThreadPool& pool) {
  const Shape& shape = cache_.shape();
  const std::size_t size = count * shape.kv_heads * shape.head_dim;
  const auto index = static_cast<std::uint32_t>(layer);
  const auto tokens = static_cast<std::uint32_t>(count);
  // A few rows take less time than waking threads for them.
  const bool measures = shape.basis == KeyBasis::kMeasured && cache_.held(index, 0) == 0;
  const std::uint32_t shares = count < kTileSlots / 2 || measures ? 1 : shares_of(pool);
  const Status status = watched([&] {
    if (shares > 1) return nibkv::reserve(cache_, index, tokens);
    return nibkv::append(cache_, index, std::span(keys, size), std::span(values, size));
  });
  if (status == Status::kFull && cache_.policy().keep == Keep::kAll) {
    throw Error("the arena is full after " + std::to_string(cache_.held(0, 0)) + " tokens, and the policy drops none");
  }
  require(status, "append");
  if (shares > 1) {
    const ConstRows key_rows = tokens_first(keys, Number::kF32, shape.kv_heads, shape.head_dim);
    const ConstRows value_rows = tokens_first(values, Number::kF32, shape.kv_heads, shape.head_dim);
    in_shares(shares, pool, "append", [&](const Share& share) {
      return nibkv::append_share(cache_, index, tokens, key_rows, value_rows, share);
    });
  }
  if (measures && warn_ && !said_unmeasured_ && cache_.measured(index) == 0) {
    said_unmeasured_ = true;
    warn_("nothing is measured of the model's keys, which takes " + std::to_string(kLeastMeasured) +
          " tokens to begin with: they are coded as they come");
  }
  if (layer + 1 != shape.layers) return;
  note_peak();
  if (!reads_classes()) return;
  const std::size_t known = std::min(count, expected_.size());
  require(watched([&] { return nibkv::classify(cache_, std::span(expected_).first(known)); }), "classify");
  expected_.erase(expected_.begin(), expected_.begin() + static_cast<std::ptrdiff_t>(known));
}

std::uint32_t TileStore::shares_of(const ThreadPool& pool) const {
  return std::min(cache_.shape().workers, narrow(pool.workers(), "threads"));
}

template <typename Call>
void TileStore::in_shares(std::uint32_t shares, ThreadPool& pool, const char* what, Call call) {
  pool.run(shares, [&](std::size_t task, std::size_t) {
    const auto index = static_cast<std::uint32_t>(task);
    require(watched([&] { return call(Share{index, shares, index}); }), what);
  });
}

void TileStore::note_peak() {
  const Shape& shape = cache_.shape();
  std::uint64_t slots = 0;
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) slots += cache_.held(layer, head);
  }
  peak_slots_ = std::max(peak_slots_, slots);
}

// A layer's errors, and after the last layer's what they mean.
std::vector<std::size_t> lossy_layers(std::span<const float> errors) {
  std::vector<std::size_t> layers;
  for (std::size_t i = 0; i < errors.size(); ++i) {
    if (errors[i] >= kLargeError) layers.push_back(i);
  }
  return layers;
}

std::string layer_names(std::span<const std::size_t> layers) {
  std::string names;
  for (const std::size_t layer : layers) names.append(names.empty() ? "" : ", ").append(std::to_string(layer));
  return names;
}

void TileStore::note_errors(std::uint32_t layer, std::span<const float> query) {
  if (errors_[layer] > 0 || cache_.held(layer, 0) < kErrorTokens || !has_codes(cache_.shape().storage)) return;
  std::vector<float> errors(cache_.shape().query_heads);
  require(watched([&] { return nibkv::logit_errors(cache_, layer, query, errors); }), "logit errors");
  float sum = 0;
  for (const float error : errors) sum += error * error;
  errors_[layer] = std::sqrt(sum / static_cast<float>(errors.size()));
  if (layer + 1u != errors_.size() || !warn_) return;
  const std::uint64_t drowned = cache_.usage().drowned_rows;
  const std::uint64_t rows = 2ull * errors_.size() * cache_.shape().kv_heads * cache_.held(layer, 0);
  if (drowned * 100 > rows) {
    warn_(std::to_string(drowned) + " of the first " + std::to_string(rows) +
          " keys and values have one channel so large that " + std::string(storage_name(cache_.shape().storage)) +
          " codes lose all others: a profile or more bits help (--profile measured, --storage q8q4)");
  }
  const std::vector<std::size_t> layers = lossy_layers(errors_);
  if (layers.empty()) return;
  std::string note = "what the model attends to is lost in the codes of keys of layers " + layer_names(layers) + ": ";
  note += profile_.empty() ? "make a profile (nibkv-eval profile), " : "";
  warn_(note + "give these layers wider codes (--set wide=...) or all (--storage q8q4)");
}

void TileStore::recall_and_attend(std::uint32_t layer, std::span<const float> queries, std::span<float> out,
                                  ThreadPool& pool) {
  const Shape& shape = cache_.shape();
  const auto count = static_cast<std::uint32_t>(queries.size() / (std::size_t{shape.query_heads} * shape.head_dim));
  pool.run(shape.kv_heads, [&](std::size_t head, std::size_t worker) {
    Part part;
    part.first_head = static_cast<std::uint32_t>(head);
    part.heads = 1;
    part.worker = static_cast<std::uint32_t>(worker);
    for (; part.first_query < count; part.first_query += part.queries) {
      part.queries = std::min(kChoosers, count - part.first_query);
      require(watched([&] { return nibkv::recall(cache_, layer, queries, part); }), "recall");
      require(watched([&] { return nibkv::attend(cache_, layer, queries, out, part); }), "attend");
    }
  });
}

void TileStore::attend(int layer, std::size_t count, const float* queries, float* out, ThreadPool& pool) {
  const Shape& shape = cache_.shape();
  const auto index = static_cast<std::uint32_t>(layer);
  const std::size_t query_size = std::size_t{shape.query_heads} * shape.head_dim;
  note_errors(index, std::span(queries + (count - 1) * query_size, query_size));
  if (has_log(cache_.policy()))
    return recall_and_attend(index, std::span(queries, count * query_size), std::span(out, count * query_size), pool);
  // One query of a long context: threads divide heads. Adding up what they leave takes less time than waking them again.
  if (const std::uint32_t shares = shares_of(pool);
      count == 1 && shares > 1 && divisible(cache_) && cache_.held(index, 0) > kBlockTiles * kTileSlots) {
    const ConstRows query = tokens_first(queries, Number::kF32, shape.query_heads, shape.head_dim);
    in_shares(shares, pool, "attend",
              [&](const Share& share) { return nibkv::attend_share(cache_, index, query, share); });
    require(nibkv::combine_share(cache_, index, tokens_first(out, Number::kF32, shape.query_heads, shape.head_dim), {}),
            "combine");
    return;
  }
  const std::size_t size = count * shape.query_heads * shape.head_dim;
  // Blocks of queries that fill the rows which share a pass over a chain.
  std::size_t block = std::max<std::size_t>(1, kMaxRows / shape.group());
  // Scores of a head are those of all its queries: one call adds them up.
  if (cache_.policy().keep == Keep::kScore) block = count;
  const std::size_t blocks = (count + block - 1) / block;
  // Then there may be fewer scratches than threads, but one for each head.
  const bool by_head = blocks == 1 && shape.workers == shape.kv_heads;
  pool.run(blocks * shape.kv_heads, [&](std::size_t task, std::size_t worker) {
    Part part;
    part.first_head = static_cast<std::uint32_t>(task / blocks);
    part.heads = 1;
    part.first_query = static_cast<std::uint32_t>(task % blocks * block);
    part.queries = static_cast<std::uint32_t>(std::min(block, count - part.first_query));
    part.worker = static_cast<std::uint32_t>(by_head ? task : worker);
    part.drafts = drafts_;
    const Status status =
        watched([&] { return nibkv::attend(cache_, index, std::span(queries, size), std::span(out, size), part); });
    require(status, "attend");
  });
}

void TileStore::clear() {
  require(watched([&] { return cache_.clear(); }), "clear");
  peak_slots_ = 0;
}

Status TileStore::truncate(std::size_t seen) {
  return watched([&] { return nibkv::truncate(cache_, static_cast<std::uint32_t>(seen)); });
}

std::size_t TileStore::space() const {
  const Shape& shape = cache_.shape();
  if (cache_.policy().keep == Keep::kAll) return room(cache_);
  const std::size_t slack = nibkv::detail::slack_of(shape, cache_.policy());
  std::size_t least = std::numeric_limits<std::size_t>::max();
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
      const std::size_t most = cache_.budget(layer, head) + slack;
      const std::size_t held = cache_.held(layer, head) - recalled(cache_, layer, head);
      least = std::min(least, most > held ? most - held : 0);
    }
  }
  return least;
}

std::vector<std::byte> TileStore::save(std::span<const std::byte> note) const {
  std::vector<std::byte> bytes(static_cast<std::size_t>(snapshot_bytes(cache_, note.size())));
  require(watched([&] { return nibkv::save(cache_, bytes, {0, note}); }), "save");
  return bytes;
}

Status TileStore::restore(std::span<const std::byte> snapshot) {
  const Status status = watched([&] { return nibkv::restore(cache_, snapshot); });
  if (status != Status::kOk) return status;
  peak_slots_ = 0;
  note_peak();
  return status;
}

void TileStore::compact_now(std::uint32_t tokens) {
  const Budget how = compacted_by_.value_or(cache_.policy().budget);
  require(watched([&] { return nibkv::compact_now(cache_, tokens, how); }), "compact");
}

double TileStore::bits_per_channel() const {
  if (peak_slots_ == 0) return 0;
  return 8.0 * static_cast<double>(cache_.usage().peak_bytes) /
         (2.0 * static_cast<double>(peak_slots_) * cache_.shape().head_dim);
}

std::uint64_t TileStore::f16_bytes(std::uint64_t tokens) const {
  const Shape& shape = cache_.shape();
  return tokens * shape.layers * shape.kv_heads * shape.head_dim * 4;
}

}  // namespace nibkv::llm
