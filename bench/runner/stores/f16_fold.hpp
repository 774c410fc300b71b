#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "bench/runner/stores/kv_store.hpp"
#include "bench/runner/stores/plain_store.hpp"
#include "nibkv/nibkv.hpp"

namespace nibkv::llm {

/// The effect of folding without 4 bits: f16 caches that keep every token. They are listed with
/// the policies but are none.
inline constexpr const char* kF16Fold = "f16_fold";               ///< each head retains its own slots
inline constexpr const char* kF16FoldTokens = "f16_fold_tokens";  ///< all heads of a layer retain the same ones

/// Whether `name` is one of the two.
bool is_f16_fold(std::string_view name);

/// The angle between two rows, [0, pi]; 0 if one of them is zero.
double angle_between(std::span<const float> a, std::span<const float> b);

/// Gives two rows the same direction, that at `t` of the way from the lower layer's to the upper
/// one's by spherical interpolation, and keeps the norm of each: MiniCache, arXiv 2405.14366.
/// What is stored, one direction and two norms, is rounded to f16. A row of zeros stays zero, and
/// the other keeps its direction.
/// @param t  [0, 1]
void share_direction(std::span<float> lower, std::span<float> upper, double t);

/// An f16 cache of all tokens in which pairs of layers fold as in MiniCache, at the same moments
/// as in the library: when 32 more slots are old than may be retained, the 32 most similar ones
/// fold (lib/DESIGN.md).
class F16Fold final : public KvStore {
 public:
  /// @param policy  of Keep::kAll; its aligned pairs stay separate
  /// @param name    one for which is_f16_fold
  F16Fold(const Shape& shape, const Policy& policy, std::string_view name);

  std::size_t max_chunk() const override { return shape_.max_chunk; }
  /// @throws Error if there are more tokens than the policy has
  void append(int layer, std::size_t count, const float* keys, const float* values, ThreadPool& pool) override;
  void attend(int layer, std::size_t count, const float* queries, float* out, ThreadPool& pool) override;

  /// Forgets everything but the peak.
  void clear();

  /// The bytes of keys and values: for a folded row its direction once and two norms, for others
  /// everything in both layers, and for each old slot that is not folded a position of 4 bytes.
  std::uint64_t bytes() const;
  std::uint64_t peak_bytes() const { return peak_bytes_; }
  /// The bits at the peak divided by the key and value channels held then; 0
  /// before the first append.
  double bits_per_channel() const { return bits_per_channel_; }
  /// The policy, with the pairs that fold.
  const Policy& policy() const { return policy_; }
  /// Rows of a head, [token][head_dim].
  std::span<const float> keys(std::size_t layer, std::size_t kv_head) { return store_.keys(layer, kv_head); }
  std::span<const float> values(std::size_t layer, std::size_t kv_head) { return store_.values(layer, kv_head); }

 private:
  struct Whole {
    std::size_t slot;
    double distance;  // sum of the angles between both layers' rows
  };
  /// Heads of a pair that fold the same slots: one head, or all.
  struct Heads {
    std::size_t lower, first, count;
    std::size_t old = 0;  // slots below this one are folded, listed here, or sinks
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
