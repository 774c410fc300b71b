#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibkv/nibkv.hpp"

namespace nibkv::bench {

/// The properties of a model that matter to its KV cache.
struct Model {
  const char* name;
  std::uint16_t query_heads;
  std::uint16_t kv_heads;
  std::uint16_t head_dim;
};

/// The measured attention shapes. The number of layers does not matter: see ColdCache.
inline constexpr Model kModels[] = {{"SmolLM2-135M", 9, 3, 64}, {"Llama-3-8B", 32, 8, 128}};

inline constexpr std::uint16_t kPrefillChunk = 64;

/// The workers of a ColdCache.
inline constexpr std::uint16_t kMostThreads = 4;

/// The size of the CPU's last-level cache, as reported by the system; 32 MiB if it reports none.
std::size_t last_level_cache_bytes();

/// How many layers of `layer_bytes` are needed so that a layer is evicted from the CPU's caches
/// before it is used again: three times the last-level cache, within 1.5 GB and [2, 1024] layers.
std::uint16_t cold_layers(std::size_t layer_bytes);

/// `count` seeded numbers of a bell curve, mean 0 and variance 1.
std::vector<float> bells(std::size_t count, std::uint64_t seed);

/// Memory for an arena, in huge pages if the system provides them.
class AlignedMemory {
 public:
  explicit AlignedMemory(std::size_t bytes);
  AlignedMemory(const AlignedMemory&) = delete;
  AlignedMemory& operator=(const AlignedMemory&) = delete;
  ~AlignedMemory() { ::operator delete(data_, kAlignment); }
  std::span<std::byte> bytes() { return {data_, size_}; }

 private:
  static constexpr std::align_val_t kAlignment{std::size_t{2} << 20};
  std::byte* data_;
  std::size_t size_;
};

/// The names of the built ports that this CPU runs, fastest first.
std::vector<std::string_view> running_ports();

/// One arena with more layers than the CPU's caches hold, and a handle to it for every port.
/// All ports write and read the same bytes, so the fastest one fills it for all. It contains
/// the same 256 random tokens, repeated.
class ColdCache {
 public:
  /// @param filled  whether to fill every layer to the policy's tokens, and its log; otherwise it is empty
  /// @param reach   Rotary::reach of its keys; 0: they have no known rotary embedding
  ColdCache(const Model& model, std::uint16_t outlier_channels, const Policy& policy, bool filled,
            std::uint32_t reach = 0, Storage storage = Storage::kQ4);

  Cache& cache(std::string_view port);
  const Shape& shape() const { return shape_; }
  std::span<const std::byte> profile() const { return profile_; }

  /// The next layer in turn.
  std::uint32_t next_layer() { return layer_ = layer_ + 1 < shape_.layers ? layer_ + 1 : 0; }
  /// kPrefillChunk tokens of rows for append, or queries for attend.
  std::span<const float> keys() const { return keys_; }
  std::span<const float> values() const { return values_; }
  std::span<const float> queries() const { return queries_; }

  /// The bytes of codes and side data that attend reads in one layer.
  std::size_t tile_bytes() const;
  /// Reads each of these bytes once, tile after tile, and returns their sum.
  std::uint64_t read_layer(std::uint32_t layer) const;

 private:
  void fill(std::uint32_t tokens);

  Shape shape_;
  Policy policy_;
  std::unique_ptr<AlignedMemory> memory_;
  std::vector<std::byte> pages_;  // of a policy with a log
  ColdStore store_;
  std::vector<std::byte> profile_;
  std::vector<std::string_view> ports_;
  std::vector<Cache> caches_;
  std::vector<float> keys_;
  std::vector<float> values_;
  std::vector<float> queries_;
  std::uint32_t layer_ = 0;
};

/// The same number of f32 keys and values, also cold.
class ColdRows {
 public:
  ColdRows(const Model& model, std::uint32_t tokens);

  std::uint32_t next_layer() { return layer_ = layer_ + 1 < shape_.layers ? layer_ + 1 : 0; }
  const Shape& shape() const { return shape_; }
  std::size_t layer_bytes() const { return 2 * sizeof(float) * half_; }
  /// @param out  f32[query_heads][head_dim]
  void attend(std::uint32_t layer, std::span<const float> query, std::span<float> out);

 private:
  Shape shape_;
  std::uint32_t tokens_;
  std::size_t half_;  // floats of one layer's keys
  std::vector<float> rows_;
  std::vector<float> weights_;
  std::uint32_t layer_ = 0;
};

}  // namespace nibkv::bench
