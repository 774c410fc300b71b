#include "attention/attend_f32.hpp"

#include "codec/far_queries.hpp"

namespace nibkv {
namespace {

// 2^x for x <= 0, with a relative error below 2^-22; results below 2^-126 become 2^-126. Free
// of branches, so that compilers can vectorise it.
inline float exp2_f32(float x) {
  x = x > -126.0f ? x : -126.0f;
  int whole = static_cast<int>(x);
  whole -= static_cast<float>(whole) > x ? 1 : 0;
  const float f = x - static_cast<float>(whole);
  float p = 1.8775767e-3f;
  p = p * f + 8.9893397e-3f;
  p = p * f + 5.5826318e-2f;
  p = p * f + 2.4015361e-1f;
  p = p * f + 6.9315308e-1f;
  p = p * f + 9.9999994e-1f;
  return p * power_of_two(whole);
}

// A query: its numbers, the end of the slots that it sees, and its row of a mask, or nullptr.
struct F32Query {
  const float* numbers;
  std::uint32_t limit;
  const std::uint32_t* mask;
  std::uint32_t mask_words;
  std::uint32_t first_new;
  std::uint32_t position;  // its own
  float* turned;           // f32[head_dim], written where slots are too far behind

  // Those of a tile's slots up to its limit that the mask hides.
  std::uint32_t hidden(std::uint32_t slot) const {
    if (mask == nullptr) return 0;
    return first_bits(limit - slot) & ~seen_by(mask, mask_words, slot, first_new);
  }
  static std::uint32_t first_bits(std::uint32_t count) {
    return count < kTileSlots ? (1u << count) - 1 : ports::kAllSeen;
  }
};

void put(float number, std::uint32_t slots, float* logits) {
  for (std::uint32_t t = 0; t < kTileSlots; ++t) logits[t] = (slots >> t & 1) != 0 ? number : logits[t];
}

void add_products(const float* query, const float* keys, std::uint32_t dim, float* logits) {
  for (std::uint32_t c = 0; c < dim; ++c) {
    for (std::uint32_t t = 0; t < kTileSlots; ++t) logits[t] += query[c] * keys[c * kTileSlots + t];
  }
}

// The same for a tile some of whose slots are beyond Rotary::reach: each with the query turned for it.
void add_far_products(const ArenaView& to, const Chain& chain, const F32Query& of, std::uint32_t tile,
                      std::uint32_t slot, std::uint32_t visible, float* logits) {
  const Shape& shape = to.shape();
  RowTurner turner(shape.rotary);
  std::uint32_t done = 0;
  for (std::uint32_t t = 0; t < visible; ++t) {
    if ((done >> t & 1) != 0) continue;
    const auto shift_at = [&](std::uint32_t lane) {
      return shift_between(shape.rotary, of.position, to.position_of(chain, slot + lane, {tile, lane}));
    };
    const std::uint32_t shift = shift_at(t);
    std::memcpy(of.turned, of.numbers, shape.head_dim * sizeof(float));
    turner.set_back(shift);
    turner.turn(of.turned);
    float products[kTileSlots] = {};
    add_products(of.turned, to.key_rows(tile), shape.head_dim, products);
    for (std::uint32_t lane = t; lane < visible; ++lane) {
      if (shift_at(lane) != shift) continue;
      logits[lane] = products[lane];
      done |= 1u << lane;
    }
  }
}

void attend_row(const ArenaView& to, const Chain& chain, const F32Query& of, float* sums, float* out) {
  const float* const query = of.numbers;
  const std::uint32_t dim = to.shape().head_dim;
  const float to_octaves = octaves_per_logit(dim);
  float most = -1e30f;
  float mass = 0;
  std::memset(sums, 0, dim * sizeof(float));
  std::uint32_t tile = chain.first;
  for (std::uint32_t slot = 0; slot < of.limit; slot += kTileSlots, tile = to.links()[tile]) {
    const std::uint32_t visible = of.limit - slot < kTileSlots ? of.limit - slot : kTileSlots;
    const std::uint32_t hidden = of.hidden(slot);
    if (hidden == F32Query::first_bits(visible)) continue;
    const float* keys = to.key_rows(tile);
    const float* values = to.value_rows(tile);
    float logits[kTileSlots] = {};
    if (shift_between(to.shape().rotary, of.position, least_position(to, chain, tile, slot)) != 0) {
      add_far_products(to, chain, of, tile, slot, visible, logits);
    } else {
      add_products(query, keys, dim, logits);
    }
    float tile_most = -1e30f;
    if (hidden != 0) put(-1e38f, hidden, logits);
    for (std::uint32_t t = 0; t < visible; ++t) {
      logits[t] *= to_octaves;
      tile_most = logits[t] > tile_most ? logits[t] : tile_most;
    }
    if (tile_most > most) {
      const float factor = exp2_f32(most - tile_most);
      mass *= factor;
      for (std::uint32_t c = 0; c < dim; ++c) sums[c] *= factor;
      most = tile_most;
    }
    for (std::uint32_t t = 0; t < kTileSlots; ++t) logits[t] = t < visible ? exp2_f32(logits[t] - most) : 0.0f;
    if (hidden != 0) put(0, hidden, logits);
    for (std::uint32_t t = 0; t < kTileSlots; t += 4) {
      const float* row = values + t * dim;
      mass += (logits[t] + logits[t + 1]) + (logits[t + 2] + logits[t + 3]);
      for (std::uint32_t c = 0; c < dim; ++c) {
        sums[c] += (logits[t] * row[c] + logits[t + 1] * row[dim + c]) +
                   (logits[t + 2] * row[2 * dim + c] + logits[t + 3] * row[3 * dim + c]);
      }
    }
  }
  for (std::uint32_t c = 0; c < dim; ++c) out[c] = sums[c] / mass;
}

}  // namespace

void attend_head_f32(const ArenaView& to, std::uint32_t layer, std::uint32_t head, const Mask& mask,
                     const ConstRows& queries, const MutableRows& out, const Part& part) {
  const Shape& shape = to.shape();
  const Chain& chain = to.chain(layer, head);
  const Scratch at = to.scratch_layout();
  const std::uint32_t first_new = chain.used - mask.count;
  auto* sums = in_place<float>(to.scratch(part.worker) + at.sums);
  auto* row = in_place<float>(to.scratch(part.worker) + at.row);
  auto* turned = in_place<float>(to.scratch(part.worker) + at.queries);
  const std::uint32_t first_position = chain.seen - mask.count;
  for (std::uint32_t query = part.first_query; query < part.first_query + part.queries; ++query) {
    for (std::uint32_t member = 0; member < shape.group(); ++member) {
      const std::uint32_t query_head = head * shape.group() + member;
      const NativeOut to_write = row_of(out, query, query_head);
      const float* numbers = row_of(queries, query, query_head).widened(to.kernels(), shape.head_dim, row);
      const F32Query of = {numbers,   first_new + mask.reach(query), mask.row(query), mask.words(),
                           first_new, first_position + query,        turned};
      attend_row(to, chain, of, sums, to_write.staged(row));
      to_write.put(to.kernels(), shape.head_dim, row);
    }
  }
}

}  // namespace nibkv
