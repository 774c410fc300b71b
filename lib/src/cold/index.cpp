#include "cold/index.hpp"

#include "codec/rotation.hpp"
#include "codec/row.hpp"
#include "codec/slot.hpp"

namespace nibkv {
namespace {

constexpr std::int32_t kSteps = 32;              // of a logit, to an octave
constexpr std::int32_t kFaintest = 20 * kSteps;  // so far below the largest logit a token has no weight
constexpr std::int16_t kUnknown = -0x8000;       // the logit of a lost token

// The loops below are written so that they become vectors: no branches, and sums of 32 bits.

// 2^(-below / 32) in Q20, less one; straight between powers of two, so up to 6 % too much: the exponent and the first
// bits of a float. 0 from kFaintest on.
std::int32_t weight_of(std::int32_t logit, std::int32_t largest, int flatter) {
  const std::int32_t apart = (largest - logit) >> flatter;
  const std::int32_t below = apart < kFaintest ? apart : kFaintest;
  const auto bits = static_cast<std::uint32_t>((127 + 20) * kSteps - below) << 18;
  return static_cast<std::int32_t>(float_from_bits(bits)) - 1;
}

std::uint64_t sum_of_weights(const std::int16_t* logits, std::uint32_t count, std::int32_t largest, int flatter) {
  constexpr std::uint32_t kBlock = 1024;  // whose sum fits
  std::uint64_t sum = 0;
  for (std::uint32_t first = 0; first < count; first += kBlock) {
    const std::uint32_t end = count - first < kBlock ? count : first + kBlock;
    std::int32_t of_block = 0;
    for (std::uint32_t i = first; i < end; ++i) of_block += weight_of(logits[i], largest, flatter);
    sum += static_cast<std::uint32_t>(of_block);
  }
  return sum;
}

void add_votes(const std::int16_t* logits, std::uint32_t count, std::int32_t largest, int flatter, float share,
               std::int32_t* votes) {
  for (std::uint32_t i = 0; i < count; ++i)
    votes[i] += static_cast<std::int32_t>(static_cast<float>(weight_of(logits[i], largest, flatter)) * share);
}

// How far the logits of a row lie apart, in octaves. Signs leave an error of about 0.6 times their standard deviation.
// Where that is large, the few tokens that seem best would get all votes, and the right one none: the logits of such a
// row are divided by a power of two.
class Spread {
 public:
  static constexpr float kMostSpread = 8;

  void add(const std::int16_t* page) {
    std::int32_t sum = 0, squares = 0;
    for (std::uint32_t t = 0; t < kTileSlots; ++t) {
      const std::int32_t logit = page[t] / kSteps;
      sum += logit;
      squares += logit * logit;
    }
    sum_ += sum;
    squares_ += static_cast<std::uint32_t>(squares);
    count_ += kTileSlots;
  }
  int flatter() const {
    if (count_ == 0) return 0;
    const float mean = static_cast<float>(sum_) / static_cast<float>(count_);
    float variance = static_cast<float>(squares_) / static_cast<float>(count_) - mean * mean;
    int places = 0;
    for (; variance > kMostSpread * kMostSpread && places < 10; variance *= 0.25f) ++places;
    return places;
  }

 private:
  std::int64_t sum_ = 0;
  std::uint64_t squares_ = 0;
  std::uint32_t count_ = 0;
};

// Votes as a float's exponent and first seven bits have them: from 0 for none to kMostRank.
constexpr std::int32_t kRankOfOne = 127 << 7;
constexpr std::uint32_t kMostRank = (31 << 7) + 1;
void rank_votes(const std::int32_t* votes, std::uint32_t count, std::int16_t* ranks) {
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto bits = static_cast<std::int32_t>(bits_from_float(static_cast<float>(votes[i])) >> 16);
    ranks[i] = static_cast<std::int16_t>(bits < kRankOfOne ? 0 : bits - kRankOfOne + 1);
  }
}

std::uint32_t count_from(const std::int16_t* ranks, std::uint32_t count, std::uint32_t least) {
  const auto limit = static_cast<std::int16_t>(least);
  std::uint32_t from = 0;
  for (std::uint32_t i = 0; i < count; ++i) from += ranks[i] >= limit ? 1 : 0;
  return from;
}

// A rotated key of a page, its outlier channels among the others and without the mean of the profile, which moves all
// logits alike.
void key_of(const ArenaView& to, const Basis& basis, const PageBytes& page, std::uint32_t lane, float* row) {
  const CodePlane plane{to.format(Pool::kKept).key_bits, to.shape().head_dim};
  std::uint8_t codes[kMaxHeadDim];
  std::int8_t levels[kMaxHeadDim];
  get_key_codes(plane, page.keys(), lane, codes);
  to_levels(plane.bits, codes, plane.head_dim, levels);
  const float scale = from_scale16(page.key_scale(lane));
  for (std::uint32_t c = 0; c < plane.head_dim; ++c) row[c] = static_cast<float>(levels[c]) * scale;
  if (to.shape().outlier_channels == 0) return;
  std::int8_t outliers[kMaxOutlierChannels];
  for (std::uint32_t n = 0; n < to.shape().outlier_channels; ++n) outliers[n] = page.outlier(outlier_byte(lane, n));
  rotate_out(to.kernels(), row, plane.head_dim, row);
  basis.join_outliers(row, outliers);
  rotate_in(to.kernels(), row, plane.head_dim, row);
}

}  // namespace

HeadIndex::HeadIndex(const ArenaView& to, const ColdHead& head)
    : pages_(log_pages(to)), head_dim_(to.shape().head_dim) {
  const std::uint64_t bytes = std::uint64_t{head.index} * pages_ * index_page_bytes(head_dim_);
  bytes_ = to.at<std::uint8_t>(to.cold() + cold_space_of(to.shape(), to.policy()).pages + bytes);
}

bool sound_index(const IndexPage& index) {
  return sound_index(reinterpret_cast<const std::uint8_t*>(index.mean()), index.head_dim);
}

bool sound_index(const std::uint8_t* after_signs, std::uint32_t head_dim) {
  std::uint16_t scales[2];
  std::memcpy(scales, after_signs + head_dim + kTileSlots, sizeof scales);
  if (scales[0] == IndexPage::kLost) return true;
  return sound_scale(scales[0], kMostKeyScale16) && sound_scale(scales[1], kMostKeyScale16) &&
         sound_bytes(after_signs, head_dim);
}

void index_keys(const ArenaView& to, const Basis& basis, const PageBytes& page, float* row, const IndexPage& index) {
  const std::uint32_t dim = to.shape().head_dim;
  float* const mean = row + dim;
  for (std::uint32_t c = 0; c < dim; ++c) mean[c] = 0;
  for (std::uint32_t lane = 0; lane < kTileSlots; ++lane) {
    key_of(to, basis, page, lane, row);
    for (std::uint32_t c = 0; c < dim; ++c) mean[c] += row[c];
  }
  for (std::uint32_t c = 0; c < dim; ++c) mean[c] *= 1.0f / kTileSlots;
  const float scale = to.kernels().quantise_query(mean, static_cast<int>(dim), index.mean());
  const std::uint16_t mean_scale = to_scale16(scale < 0x1p50f ? scale : 0x1p50f);
  for (std::uint32_t c = 0; c < dim; ++c) mean[c] = static_cast<float>(index.mean()[c]) * from_scale16(mean_scale);
  float sizes[kTileSlots];
  float largest = 0;
  std::memset(index.signs(), 0, std::size_t{dim} * kTileSlots / 8);
  for (std::uint32_t lane = 0; lane < kTileSlots; ++lane) {
    key_of(to, basis, page, lane, row);
    float sum = 0;
    for (std::uint32_t c = 0; c < dim; ++c) {
      const float difference = row[c] - mean[c];
      const bool positive = difference >= 0;
      std::uint8_t& byte = index.signs()[c / 8 * kTileSlots + lane];
      byte = static_cast<std::uint8_t>(byte | (positive ? 1u : 0u) << c % 8);
      sum += positive ? difference : -difference;
    }
    sizes[lane] = sum;
    largest = sum > largest ? sum : largest;
  }
  // The size of a difference is what its signs are multiplied by: the mean of its magnitudes.
  const float unit = largest / (255.0f * static_cast<float>(dim));
  const std::uint16_t size_scale = unit >= ports::kSmallest ? to_scale16(unit < 0x1p50f ? unit : 0x1p50f) : 0;
  for (std::uint32_t lane = 0; lane < kTileSlots; ++lane) {
    const float share = largest > 0 ? sizes[lane] / largest : 0;
    index.sizes()[lane] = static_cast<std::uint8_t>(share * 255.0f + 0.5f);
  }
  index.set_scales(mean_scale, size_scale);
}

Votes::Votes(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, std::byte* space, std::uint32_t rows)
    : to_(to),
      chain_(to.chain(layer, kv_head)),
      head_(cold_head(to, chain_)),
      index_(to, head_),
      basis_(to, layer, kv_head),
      first_(first_page(to, head_)),
      count_((head_.pages - first_) * kTileSlots),
      share_(0x1p30f / static_cast<float>(rows)) {
  const RecallSpace at = recall_space_of(to.shape(), to.policy());
  sums_ = in_place<std::int8_t>(space + at.sums);
  query_ = in_place<std::int8_t>(space + at.query);
  logits_ = in_place<std::int16_t>(space + at.logits);
  votes_ = in_place<std::int32_t>(space + at.votes);
  std::memset(votes_, 0, std::size_t{count_} * 4);
}

// For each four channels and each of their signs: the sum of the query's codes with those signs. Codes have 31 steps
// here instead of 127, so that the sums are bytes; signs say less than that.
void Votes::fill_sums() {
  for (std::uint32_t c = 0; c < to_.shape().head_dim; c += 4) {
    std::int8_t* const sums = sums_ + c * 4;
    std::int32_t codes[4];
    for (std::uint32_t i = 0; i < 4; ++i) codes[i] = (query_[c + i] * 62 + 127 + 254 * 31) / 254 - 31;
    std::int32_t negative = 0;
    for (const std::int32_t code : codes) negative -= code;
    sums[0] = static_cast<std::int8_t>(negative);
    for (std::uint32_t i = 0; i < 4; ++i) {
      for (std::uint32_t j = 0; j < 1u << i; ++j)
        sums[(1u << i) + j] = static_cast<std::int8_t>(sums[j] + 2 * codes[i]);
    }
  }
}

// A logit in steps.
static std::int16_t rounded(float logit) {
  logit = logit < ports::kMostLogit ? logit : ports::kMostLogit;
  logit = logit > -ports::kMostLogit ? logit : -ports::kMostLogit;
  return static_cast<std::int16_t>(static_cast<std::int32_t>(logit + 32768.5f) - 32768);
}

void Votes::weigh_log(float* row) {
  const std::uint32_t dim = to_.shape().head_dim;
  rotate_in(to_.kernels(), row, dim, row);
  const float scale = bounded_query_scale(to_.kernels().quantise_query(row, static_cast<int>(dim), query_));
  const float steps = scale * octaves_per_logit(dim) * kSteps;
  fill_sums();
  std::int16_t* logits = logits_;
  Spread spread;
  for (std::uint32_t page = first_; page < head_.pages; ++page, logits += kTileSlots) {
    const IndexPage index = index_.at(page);
    if (index.lost()) {
      for (std::uint32_t t = 0; t < kTileSlots; ++t) logits[t] = kUnknown;
      continue;
    }
    const auto of_mean = static_cast<float>(dot_of_codes(query_, index.mean(), dim));
    const std::int16_t largest =
        to_.kernels().sign_logits({.signs = index.signs(),
                                   .sizes = index.sizes(),
                                   .sums = sums_,
                                   .head_dim = static_cast<int>(dim),
                                   .base = of_mean * from_scale16(index.scale(0)) * steps,
                                   .unit = from_scale16(index.scale(1)) * (steps * (127.0f / 31)),
                                   .logits = logits});
    largest_ = largest > largest_ ? largest : largest_;
    spread.add(logits);
  }
  flatter_ = spread.flatter();
}

// The weights of the slots that need not be recalled, from what they hold. The largest logit may be one of theirs.
// @returns their sum
std::uint64_t Votes::weigh_own(float* row, std::uint32_t visible) {
  const auto dim = static_cast<int>(to_.shape().head_dim);
  const auto channels = static_cast<int>(to_.shape().outlier_channels);
  float outliers[kMaxOutlierChannels];
  std::int8_t outlier_codes[kMaxOutlierChannels];
  basis_.split_query(row, outliers);
  rotate_in(to_.kernels(), row, to_.shape().head_dim, row);
  const float scale = bounded_query_scale(to_.kernels().quantise_query(row, dim, query_));
  float outlier_scale = 0;
  if (channels != 0)
    outlier_scale = bounded_query_scale(to_.kernels().quantise_query(outliers, channels, outlier_codes));
  const float steps = octaves_per_logit(to_.shape().head_dim) * kSteps;
  const std::int32_t sum = sum_of_codes(query_, to_.shape().head_dim);
  const std::int32_t outlier_sum = channels == 0 ? 0 : sum_of_codes(outlier_codes, to_.shape().outlier_channels);
  std::uint64_t mass = 0;
  const Segment own = to_.own(chain_);
  std::uint32_t tile = own.first;
  for (std::uint32_t slot = 0; slot < visible; slot += kTileSlots, tile = to_.links()[tile]) {
    std::int32_t dots[kTileSlots], outlier_dots[kTileSlots];
    std::int16_t logits[kTileSlots];
    to_.key_kernels(tile).key_dots(to_.key_codes(tile), dim, query_, &sum, 1, dots);
    if (channels != 0)
      to_.kernels().outlier_dots(to_.outliers(tile), channels, outlier_codes, &outlier_sum, 1, outlier_dots);
    const std::uint32_t lanes = visible - slot < kTileSlots ? visible - slot : kTileSlots;
    std::int32_t largest = largest_;
    for (std::uint32_t t = 0; t < lanes; ++t) {
      float logit = static_cast<float>(dots[t]) * from_scale16(to_.key_scales(tile)[t]) * scale;
      if (channels != 0) logit += static_cast<float>(outlier_dots[t]) * outlier_scale;
      logits[t] = rounded(logit * steps);
      largest = logits[t] > largest ? logits[t] : largest;
    }
    if (largest != largest_) mass = mass * (weight_of(largest_, largest, flatter_) + 1u) >> 20;
    largest_ = largest;
    mass += sum_of_weights(logits, lanes, largest, flatter_);
  }
  return mass;
}

void Votes::add(float* row, std::uint32_t visible) {
  float* const again = row + to_.shape().head_dim;
  std::memcpy(again, row, to_.shape().head_dim * sizeof(float));
  largest_ = kUnknown;
  weigh_log(row);
  if (largest_ == kUnknown) return;
  std::uint64_t sum = weigh_own(again, visible);
  sum += sum_of_weights(logits_, count_, largest_, flatter_);
  add_votes(logits_, count_, largest_, flatter_, share_ / static_cast<float>(sum), votes_);
}

std::uint32_t Votes::choose(std::uint32_t* chosen) {
  const std::uint32_t most = to_.policy().recall;
  std::int16_t* const ranks = logits_;
  rank_votes(votes_, count_, ranks);
  // The highest of a token that is not chosen.
  const std::uint32_t limit = largest_that([&](std::uint32_t least) {
    return least == 0 || (least <= kMostRank && count_from(ranks, count_, least) > most);
  });
  const std::uint32_t enough = count_from(ranks, count_, limit == 0 ? 1 : limit);
  std::uint32_t skipped = enough > most ? enough - most : 0;  // the oldest of those that are equal
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; i < count_; ++i) {
    const auto rank = static_cast<std::uint32_t>(ranks[i]);
    if (rank < limit || rank == 0) continue;
    if (rank == limit && skipped != 0) {
      --skipped;
      continue;
    }
    chosen[count++] = first_ * kTileSlots + i;
  }
  NIBKV_ASSERT(count <= most);
  return count;
}

}  // namespace nibkv
