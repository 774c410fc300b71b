#include "nibkv/precision.hpp"

#include "codec/basis.hpp"
#include "codec/native_rows.hpp"
#include "codec/row.hpp"

namespace nibkv {
namespace {

constexpr double kMost = 1e30;  // of an error

// The share of a row's squared norm that its codes leave, of rows whose channels have a bell curve.
double coding_error(std::uint32_t bits) {
  return bits == 2 ? 0.111 : bits == 4 ? 0.0070 : 0.00004;
}

// The mean of the squared norms of what the codes of a chain's keys hold, times the share that they leave.
double mean_error(const ArenaView& to, const Chain& chain) {
  double sum = 0;
  float energies[kTileSlots];
  for (Cursor at = to.first_slot(chain); at.any(); at.next_tile(to.links())) {
    // What is in a tail will move down.
    const Pool pool = to.pool_of(at.tile) == Pool::kTail ? to.pool_of(chain) : to.pool_of(at.tile);
    const double share = coding_error(to.format(pool).key_bits);
    key_energies(to, at.tile, energies);
    for (std::uint32_t lane = 0; lane < at.slots_in_tile(); ++lane) {
      const double scale = from_scale16(to.key_scales(at.tile)[lane]);
      sum += static_cast<double>(energies[lane]) * scale * scale * share;
    }
  }
  if (chain.used == 0) return 0;
  return sum / chain.used;
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
    const double error = has_codes(shape.storage) ? mean_error(to, to.chain(layer, head)) : 0;
    const Basis basis(to, layer, head);
    for (std::uint32_t query = head * shape.group(); query < (head + 1) * shape.group(); ++query) {
      float row[kMaxHeadDim];
      float outliers[kMaxOutlierChannels];
      std::memcpy(row, queries.data() + std::size_t{query} * dim, dim * sizeof(float));
      basis.split_query(row, outliers);
      double energy = 0;
      for (std::uint32_t c = 0; c < dim; ++c) energy += static_cast<double>(row[c]) * row[c];
      const double moved = square_root(energy * error) / dim;
      errors[query] = static_cast<float>(moved < kMost ? moved : kMost);
    }
  }
  return Status::kOk;
}

}  // namespace nibkv
