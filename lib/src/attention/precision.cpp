#include "nibkv/precision.hpp"

#include "codec/basis.hpp"
#include "codec/native_rows.hpp"
#include "codec/row.hpp"

namespace nibkv {
namespace {

// The share of a row's squared norm that its codes leave, of rows whose channels have a bell curve.
float coding_error(std::uint32_t bits) {
  return bits == 2 ? 0.111f : bits == 4 ? 0.0070f : 0.00004f;
}

// The mean of the squared norms of what the codes of a chain's keys hold, times the share that they leave.
float mean_error(const ArenaView& to, const Chain& chain) {
  float sum = 0;
  float energies[kTileSlots];
  for (Cursor at = to.first_slot(chain); at.any(); at.next_tile(to.links())) {
    key_energies(to, at.tile, energies);
    for (std::uint32_t lane = 0; lane < at.slots_in_tile(); ++lane) {
      const float scale = from_scale16(to.key_scales(at.tile)[lane]);
      sum += energies[lane] * scale * scale;
    }
  }
  if (chain.used == 0) return 0;
  return sum / static_cast<float>(chain.used) * coding_error(to.format(to.is_wide(chain)).key_bits);
}

}  // namespace

Status logit_errors(const Cache& cache, std::uint32_t layer, std::span<const float> queries, std::span<float> errors) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  const Shape& shape = to.shape();
  const std::uint32_t dim = shape.head_dim;
  if (layer >= shape.layers || errors.size() != shape.query_heads) return Status::kBadArgument;
  if (queries.size() != std::size_t{shape.query_heads} * dim) return Status::kBadArgument;
  const RowCounts counts{1, shape.query_heads, dim};
  if (!all_finite(tokens_first(queries.data(), Number::kF32, shape.query_heads, dim), counts))
    return Status::kBadArgument;
  for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
    const float error = has_codes(shape.storage) ? mean_error(to, to.chain(layer, head)) : 0.0f;
    const Basis basis(to, layer, head);
    for (std::uint32_t query = head * shape.group(); query < (head + 1) * shape.group(); ++query) {
      float row[kMaxHeadDim];
      float outliers[kMaxOutlierChannels];
      std::memcpy(row, queries.data() + std::size_t{query} * dim, dim * sizeof(float));
      basis.split_query(row, outliers);
      float energy = 0;
      for (std::uint32_t c = 0; c < dim; ++c) energy += row[c] * row[c];
      errors[query] = square_root(energy * error) / static_cast<float>(dim);
    }
  }
  return Status::kOk;
}

}  // namespace nibkv
