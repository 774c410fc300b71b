#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "bench/llm/kv_store.hpp"
#include "bench/llm/plain_store.hpp"
#include "nibkv/nibkv.hpp"

namespace nibkv::llm {

/// What folding does without 4 bits: f16 caches that keep every token. They stand beside the policies and are none.
inline constexpr const char* kF16Fold = "f16_fold";               ///< each head retains slots of its own
inline constexpr const char* kF16FoldTokens = "f16_fold_tokens";  ///< all heads of a layer retain the same ones

/// Whether it is one of the two names.
bool is_f16_fold(std::string_view name);

/// The angle between two rows, [0, pi]; 0 where one of them is zero.
double angle_between(std::span<const float> a, std::span<const float> b);

/// Gives two rows one direction, that at `t` of the way from the lower layer's to the upper one's by spherical
/// interpolation, and leaves each its norm: MiniCache, arXiv 2405.14366. What is stored of them, one
/// direction and two norms, is rounded to f16. A row of zero stays one, and the other keeps its direction.
/// @param t  [0, 1]
void share_direction(std::span<float> lower, std::span<float> upper, double t);

/// An f16 cache of all tokens in which pairs of layers fold as MiniCache has it, at the moments at which the library
/// folds: when 32 slots more are old than may be retained, the 32 that are most alike do (lib/DESIGN.md).
class F16Fold final : public KvStore {
 public:
  /// @param policy  of Keep::kAll; its aligned pairs stay apart
  /// @param name    one for which is_f16_fold
  F16Fold(const Shape& shape, const Policy& policy, std::string_view name);

  std::size_t max_chunk() const override { return shape_.max_chunk; }
  /// @throws Error when there are more tokens than the policy has
  void append(int layer, std::size_t count, const float* keys, const float* values) override;
  void attend(int layer, std::size_t count, const float* queries, float* out, ThreadPool& pool) override;

  /// Forgets everything but the peak.
  void clear();

  /// What keys and values take: of a folded row its direction once and two norms, of others all in both layers, and
  /// with each slot that is whole though it is old a position of 4 bytes.
  std::uint64_t bytes() const;
  std::uint64_t peak_bytes() const { return peak_bytes_; }
  /// Bits of the peak over the key and value channels that were held then; 0 before the first append.
  double bits_per_channel() const { return bits_per_channel_; }
  /// With the pairs that fold.
  const Policy& policy() const { return policy_; }
  /// Rows of a head, [token][head_dim].
  std::span<const float> keys(std::size_t layer, std::size_t kv_head) { return store_.keys(layer, kv_head); }
  std::span<const float> values(std::size_t layer, std::size_t kv_head) { return store_.values(layer, kv_head); }

 private:
  struct Whole {
    std::size_t slot;
    double distance;  // sum of the angles between both layers' rows
  };
  /// Heads of a pair that fold the same slots: one, or all.
  struct Heads {
    std::size_t lower, first, count;
    std::size_t old = 0;  // slots below that are folded, or listed here, or sinks
    std::vector<Whole> whole = {};
    double nearest = std::numeric_limits<double>::infinity();
    double farthest = 0;
  };

  template <typename F>
  void for_rows(const Heads& heads, std::size_t slot, F&& use);
  std::size_t retained_of(const Heads& heads) const;
  void add_old(Heads& heads);
  void fold_some(Heads& heads);

  Shape shape_;
  Policy policy_;
  PlainStore store_;
  std::vector<Heads> heads_;
  std::uint64_t peak_bytes_ = 0;
  double bits_per_channel_ = 0;
};

}  // namespace nibkv::llm
