#include "bench/kernels/cold_cache.hpp"

#ifdef __linux__
#include <sys/mman.h>
#endif
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "arena/view.hpp"
#include "bench/kernels/benchmarks.hpp"
#include "bench/kernels/plain_attention.hpp"
#include "tests/support/random.hpp"

namespace nibkv::bench {
namespace {

constexpr std::uint64_t kSeed = 1;
constexpr std::uint32_t kFillTokens = 256;  // number of different tokens with which a cache is filled

Shape shape_of(const Model& model, std::uint16_t outlier_channels) {
  Shape shape;
  shape.query_heads = model.query_heads;
  shape.kv_heads = model.kv_heads;
  shape.head_dim = model.head_dim;
  shape.outlier_channels = outlier_channels;
  shape.max_chunk = kPrefillChunk;
  shape.workers = kMostThreads;
  return shape;
}

// A profile that needs no text: a few random tokens per layer.
std::vector<std::byte> make_profile(const Shape& shape, std::span<const float> queries, std::span<const float> keys) {
  std::vector<std::uint64_t> memory(calibration_bytes(shape) / sizeof(std::uint64_t) + 1);
  Calibrator calibrator;
  must(calibrator.init(std::as_writable_bytes(std::span(memory)), shape));
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) must(calibrator.observe(layer, queries, keys, keys));
  std::vector<std::byte> profile(profile_bytes(shape));
  must(calibrator.write(profile));
  return profile;
}

}  // namespace

AlignedMemory::AlignedMemory(std::size_t bytes)
    : data_(static_cast<std::byte*>(::operator new(bytes, kAlignment))), size_(bytes) {
#ifdef __linux__
  // Only a request: without huge pages everything still works, but reading a large cache
  // takes a third longer.
  (void)madvise(data_, bytes, MADV_HUGEPAGE);
#endif
}

std::size_t last_level_cache_bytes() {
  std::size_t most = 0;
  for (int index = 0; index < 8; ++index) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size");
    std::size_t kilobytes = 0;
    if (file >> kilobytes) most = std::max(most, kilobytes << 10);
  }
#ifdef _SC_LEVEL3_CACHE_SIZE
  if (most == 0 && sysconf(_SC_LEVEL3_CACHE_SIZE) > 0) most = static_cast<std::size_t>(sysconf(_SC_LEVEL3_CACHE_SIZE));
#endif
  return most != 0 ? most : std::size_t{32} << 20;
}

std::uint16_t cold_layers(std::size_t layer_bytes) {
  const std::size_t wanted = (3 * last_level_cache_bytes() + layer_bytes - 1) / layer_bytes;
  const std::size_t most = std::min<std::size_t>(1024, 1500000000 / layer_bytes);
  return static_cast<std::uint16_t>(std::max<std::size_t>(2, std::min(wanted, most)));
}

std::vector<float> bells(std::size_t count, std::uint64_t seed) {
  return test::Random(seed).bells(count);
}

std::vector<std::string_view> running_ports() {
  std::vector<std::string_view> names;
  for (std::uint32_t i = 0; !port_name(i).empty(); ++i) {
    if (port_runs(port_name(i))) names.push_back(port_name(i));
  }
  return names;
}

ColdCache::ColdCache(const Model& model, std::uint16_t outlier_channels, const Policy& policy, bool filled,
                     std::uint32_t reach, Storage storage)
    : shape_(shape_of(model, outlier_channels)), policy_(policy), ports_(running_ports()) {
  shape_.storage = storage;
  if (reach != 0) shape_.rotary = {.base = 1e4f, .dims = shape_.head_dim, .reach = reach};
  shape_.layers = 1;
  policy_.fold = {};
  const Layout one = layout_of(shape_, policy_);
  shape_.layers = cold_layers(one.tiles * (one.code_bytes + one.side_bytes));
  if (has_pairs(policy)) policy_.fold.keys = policy_.fold.values = pairs_from(0, shape_.layers);
  keys_ = bells(std::size_t{kFillTokens} * shape_.kv_heads * shape_.head_dim, kSeed);
  values_ = bells(keys_.size(), kSeed + 1);
  queries_ = bells(std::size_t{kPrefillChunk} * shape_.query_heads * shape_.head_dim, kSeed + 2);
  memory_ = std::make_unique<AlignedMemory>(footprint(shape_, policy_));
  pages_.resize(static_cast<std::size_t>(cold_bytes(shape_, policy_)));
  store_ = memory_store(pages_.data());
  const std::size_t rows = std::size_t{kPrefillChunk} * shape_.kv_heads * shape_.head_dim;
  if (outlier_channels != 0) {
    profile_ = make_profile(shape_, queries_, std::span(keys_).first(rows));
  }
  // A handle's only state is the choice of a port, so all handles may use one arena; the
  // last init clears it.
  for (const std::string_view port : ports_) {
    Options options;
    options.port = port;
    options.profile = profile_;
    options.store = &store_;
    must(caches_.emplace_back().init(memory_->bytes(), shape_, policy_, options));
  }
  layer_ = shape_.layers - 1u;  // the next one is 0
  if (filled) fill(policy_.tokens + policy_.log);
}

void ColdCache::fill(std::uint32_t tokens) {
  const std::size_t row = std::size_t{shape_.kv_heads} * shape_.head_dim;
  // Layers that share codes take turns.
  for (std::uint32_t token = 0; token < tokens; token += kPrefillChunk) {
    for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
      const std::size_t count = std::min<std::size_t>(kPrefillChunk, tokens - token);
      const std::size_t at = token % kFillTokens * row;
      must(append(caches_[0], layer, std::span(keys_).subspan(at, count * row),
                  std::span(values_).subspan(at, count * row)));
    }
  }
}

Cache& ColdCache::cache(std::string_view port) {
  return caches_[static_cast<std::size_t>(std::find(ports_.begin(), ports_.end(), port) - ports_.begin())];
}

std::size_t ColdCache::tile_bytes() const {
  const Layout at = layout_of(shape_, policy_);
  return std::size_t{shape_.kv_heads} * tiles_of(policy_.tokens) * (at.code_bytes + at.side_bytes);
}

std::uint64_t ColdCache::read_layer(std::uint32_t layer) const {
  const ArenaView to{caches_[0]};
  std::uint64_t sum = 0;
  for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
    for (std::uint32_t tile = to.chain(layer, head).first; tile != kNoTile; tile = to.links()[tile]) {
      sum += sum_of_words(to.codes(tile), to.layout().code_bytes);
      sum += sum_of_words(to.side(tile), to.layout().side_bytes);
    }
  }
  return sum;
}

ColdRows::ColdRows(const Model& model, std::uint32_t tokens)
    : shape_(shape_of(model, 0)), tokens_(tokens), half_(std::size_t{tokens} * model.kv_heads * model.head_dim) {
  shape_.layers = cold_layers(layer_bytes());
  const std::vector<float> some = bells(1 << 16, kSeed);
  rows_.resize(2 * half_ * shape_.layers);
  for (std::size_t at = 0; at < rows_.size(); at += some.size()) {
    const std::size_t count = std::min(some.size(), rows_.size() - at);
    std::copy_n(some.begin(), count, rows_.begin() + static_cast<std::ptrdiff_t>(at));
  }
  weights_.resize(std::size_t{shape_.group()} * tokens);
}

void ColdRows::attend(std::uint32_t layer, std::span<const float> query, std::span<float> out) {
  const float* keys = rows_.data() + 2 * half_ * layer;
  plain_attention(shape_, tokens_, keys, keys + half_, query.data(), weights_.data(), out.data());
}

}  // namespace nibkv::bench
