#include "bench/eval/metrics/sweep_store.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>
#include <vector>

#include "bench/runner/programs/arguments.hpp"
#include "bench/runner/stores/policy_settings.hpp"

namespace nibkv::llm {
namespace {

/// Bytes of tiles and chains that streaming_llm has in use at its peak in a window of `context`
/// tokens. Its heads are all the same, so feeding any tokens to one tells.
std::uint64_t bytes_in_use(const Cache& cache, std::size_t context) {
  const Shape& shape = cache.shape();
  Config one;
  one.layers = one.query_heads = one.kv_heads = 1;
  one.head_dim = shape.head_dim;
  StoreOptions options;
  options.policy = "streaming_llm";
  options.tokens = cache.policy().tokens;
  TileStore head(one, options);
  ThreadPool pool(1);
  const std::vector<float> rows(kSweepStep * one.head_dim);
  for (std::size_t at = 0; at < context; at += kSweepStep) {
    const std::size_t step = std::min(kSweepStep, context - at);
    for (std::size_t fed = 0; fed < step; fed += head.max_chunk()) {
      head.append(0, std::min(head.max_chunk(), step - fed), rows.data(), rows.data(), pool);
    }
  }
  const Layout layout = layout_of(shape, cache.policy());
  const std::uint64_t tile_bytes = layout.code_bytes + layout.side_bytes + sizeof(std::uint32_t);
  return std::uint64_t{shape.layers} * shape.kv_heads * (sizeof(Chain) + head.cache().usage().peak_tiles * tile_bytes);
}

}  // namespace

std::string name_of(const SweepCase& what) {
  std::string name = what.policy;
  if (!what.setting.empty()) name.append(" ").append(what.setting);
  return name;
}

void set_budget(const std::string& budget, std::size_t context, StoreOptions& options) {
  options.tokens = 0;
  options.arena_bytes = 0;
  if (budget.ends_with('%')) {
    double share = 0;
    const char* end = budget.data() + budget.size() - 1;
    const auto [read, error] = std::from_chars(budget.data(), end, share);
    if (error == std::errc() && read == end && share > 0 && share <= 100) {
      const double tokens = std::round(static_cast<double>(context) * share / 100);
      options.tokens = static_cast<std::uint32_t>(std::max(1.0, tokens));
      return;
    }
  } else if (const auto tokens = parse_whole(budget); tokens && *tokens >= 1 && *tokens <= kMaxTokens) {
    options.tokens = static_cast<std::uint32_t>(*tokens);
    return;
  } else if (const auto bytes = parse_size(budget); bytes && !tokens) {
    options.arena_bytes = *bytes;
    return;
  }
  throw UsageError("--budgets takes tokens such as 410, shares of the context such as 10%, or bytes such as 1M, not '" +
                   budget + "'");
}

StoreOptions store_options(const StoreOptions& base, const SweepCase& what, std::size_t context) {
  StoreOptions options = base;
  options.storage = what.storage;
  options.policy = is_f16(what.policy) ? "streaming_llm" : is_f16_fold(what.policy) ? "minicache" : what.policy;
  options.settings = what.settings;
  set_budget(what.budget, context, options);
  return options;
}

SweepStore::SweepStore(const Config& model, const StoreOptions& base, const SweepCase& what, std::size_t context) try {
  if (is_f16_fold(what.policy) && fold_choice(what.settings).how == FoldChoice::How::kAligned) {
    throw UsageError(what.policy + " aligns no layers");
  }
  tiles_ = std::make_unique<TileStore>(model, store_options(base, what, context));
  const Cache& cache = tiles_->cache();
  if (is_f16(what.policy)) {
    window_ = std::make_unique<F16Store>(model, what.policy, bytes_in_use(cache, context));
  } else if (is_f16_fold(what.policy)) {
    folded_ = std::make_unique<F16Fold>(cache.shape(), cache.policy(), what.policy);
  } else {
    return;
  }
  tiles_.reset();
} catch (const UsageError&) {
  throw;
} catch (const Error& error) {
  throw Error(name_of(what) + ", budget " + what.budget + ": " + error.what());
}

SweepStore::SweepStore(std::unique_ptr<TileStore> tiles) : tiles_(std::move(tiles)) {}

SweepStore::SweepStore(std::unique_ptr<F16Store> window) : window_(std::move(window)) {}

KvStore& SweepStore::store() {
  if (tiles_) return *tiles_;
  if (folded_) return *folded_;
  return window_->store;
}

void SweepStore::clear() {
  if (tiles_) {
    tiles_->clear();
  } else if (folded_) {
    folded_->clear();
  } else {
    window_->store.clear();
  }
}

void SweepStore::compact_now(std::uint32_t tokens) {
  if (!tiles_) throw Error("an f16 cache keeps no scores");
  tiles_->compact_now(tokens);
}

std::uint64_t SweepStore::tokens() const {
  if (folded_) return folded_->policy().tokens;
  return tiles_ ? tiles_->cache().policy().tokens : window_->tokens;
}

std::uint64_t SweepStore::peak_bytes() const {
  if (folded_) return folded_->peak_bytes();
  return tiles_ ? tiles_->cache().usage().peak_bytes : window_->bytes;
}

std::uint64_t SweepStore::arena_bytes() const {
  if (folded_) return folded_->peak_bytes();
  return tiles_ ? tiles_->cache().usage().arena_bytes : window_->bytes;
}

std::string SweepStore::fold() const {
  if (folded_) return pairs_text(folded_->policy().fold);
  return tiles_ ? fold_text(tiles_->cache().shape(), tiles_->cache().policy()) : "none";
}

double SweepStore::bits_per_channel() const {
  if (folded_) return folded_->bits_per_channel();
  return tiles_ ? tiles_->bits_per_channel() : 16;
}

}  // namespace nibkv::llm
