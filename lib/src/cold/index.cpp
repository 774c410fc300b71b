#include "cold/index.hpp"

#include "codec/rotation.hpp"
#include "codec/row.hpp"
#include "codec/slot.hpp"

namespace nibkv {
namespace {

constexpr std::int32_t kSteps = 32;         // of a logit, to an octave
constexpr std::int16_t kUnknown = -0x8000;  // the logit of a lost token

// 2^-i/32 in Q20.
struct Powers {
  std::uint32_t at[kSteps];
};
constexpr Powers make_powers() {
  // 2^(-1/32), by five square roots of a half.
  double root = 0.5;
  for (int i = 0; i < 5; ++i) {
    double guess = 1;
    for (int step = 0; step < 30; ++step) guess = (guess + root / guess) / 2;
    root = guess;
  }
  Powers table{};
  double power = 1048576;
  for (std::uint32_t& at : table.at) {
    at = static_cast<std::uint32_t>(power + 0.5);
    power *= root;
  }
  return table;
}
constexpr Powers kPowers = make_powers();

std::uint32_t weight_of(std::int32_t logit, std::int32_t largest) {
  const std::int32_t below = largest - logit;
  return below >= 20 * kSteps ? 0 : kPowers.at[below % kSteps] >> below / kSteps;
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
      share_(0x1p31f / static_cast<float>(rows)) {
  const RecallSpace at = recall_space_of(to.shape(), to.policy());
  table_ = in_place<std::int16_t>(space + at.table);
  query_ = in_place<std::int8_t>(space + at.query);
  logits_ = in_place<std::int16_t>(space + at.logits);
  votes_ = in_place<std::uint32_t>(space + at.votes);
  std::memset(votes_, 0, std::size_t{count_} * 4);
}

// For each eight channels and each of their signs: the sum of the query's codes with those signs.
void Votes::fill_table(const std::int8_t* query) {
  for (std::uint32_t group = 0; group < to_.shape().head_dim / 8; ++group) {
    std::int16_t* const sums = table_ + group * 256;
    std::int32_t negative = 0;
    for (std::uint32_t c = 0; c < 8; ++c) negative -= query[group * 8 + c];
    sums[0] = static_cast<std::int16_t>(negative);
    for (std::uint32_t c = 0; c < 8; ++c) {
      const std::int32_t more = 2 * query[group * 8 + c];
      for (std::uint32_t i = 0; i < 1u << c; ++i) sums[(1u << c) + i] = static_cast<std::int16_t>(sums[i] + more);
    }
  }
}

// A logit in steps.
static std::int16_t rounded(float logit) {
  logit = logit < 32000.0f ? logit : 32000.0f;
  logit = logit > -32000.0f ? logit : -32000.0f;
  return static_cast<std::int16_t>(static_cast<std::int32_t>(logit + 32768.0f) - 32768);
}

void Votes::weigh_log(float* row) {
  const std::uint32_t dim = to_.shape().head_dim;
  rotate_in(to_.kernels(), row, dim, row);
  const float scale = bounded_query_scale(to_.kernels().quantise_query(row, static_cast<int>(dim), query_));
  const float steps = scale * octaves_per_logit(dim) * kSteps;
  fill_table(query_);
  std::int16_t* logits = logits_;
  for (std::uint32_t page = first_; page < head_.pages; ++page, logits += kTileSlots) {
    const IndexPage index = index_.at(page);
    if (index.lost()) {
      for (std::uint32_t t = 0; t < kTileSlots; ++t) logits[t] = kUnknown;
      continue;
    }
    std::int16_t dots[kTileSlots] = {};
    for (std::uint32_t group = 0; group < dim / 8; ++group) {
      const std::int16_t* const sums = table_ + group * 256;
      const std::uint8_t* const signs = index.signs() + group * kTileSlots;
      for (std::uint32_t t = 0; t < kTileSlots; ++t) dots[t] = static_cast<std::int16_t>(dots[t] + sums[signs[t]]);
    }
    const auto of_mean = static_cast<float>(dot_of_codes(query_, index.mean(), dim));
    const float base = of_mean * from_scale16(index.scale(0)) * steps;
    const float unit = from_scale16(index.scale(1)) * steps;
    for (std::uint32_t t = 0; t < kTileSlots; ++t) {
      logits[t] = rounded(base + static_cast<float>(dots[t] * index.sizes()[t]) * unit);
      largest_ = logits[t] > largest_ ? logits[t] : largest_;
    }
  }
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
    if (largest != largest_) mass = mass * weight_of(largest_, largest) >> 20;
    largest_ = largest;
    for (std::uint32_t t = 0; t < lanes; ++t) mass += weight_of(logits[t], largest);
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
  for (std::uint32_t i = 0; i < count_; ++i) sum += weight_of(logits_[i], largest_);
  const float share = share_ / static_cast<float>(sum);
  for (std::uint32_t i = 0; i < count_; ++i)
    votes_[i] += static_cast<std::uint32_t>(static_cast<float>(weight_of(logits_[i], largest_)) * share);
}

std::uint32_t Votes::choose(std::uint32_t* chosen) const {
  const std::uint32_t most = to_.policy().recall;
  // The most votes that a token has which is not chosen.
  const std::uint32_t limit = largest_that([&](std::uint32_t least) {
    std::uint32_t count = 0;
    for (std::uint32_t i = 0; i < count_; ++i) count += votes_[i] >= least ? 1 : 0;
    return least == 0 || count > most;
  });
  std::uint32_t above = 0;
  for (std::uint32_t i = 0; i < count_; ++i) above += votes_[i] > limit ? 1 : 0;
  std::uint32_t equal = 0;  // the newest of those with just so many
  if (limit != 0) {
    for (std::uint32_t i = 0; i < count_; ++i) equal += votes_[i] == limit ? 1 : 0;
  }
  std::uint32_t skipped = above + equal > most ? above + equal - most : 0;
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; i < count_; ++i) {
    if (votes_[i] < limit || votes_[i] == 0) continue;
    if (votes_[i] == limit && skipped != 0) {
      --skipped;
      continue;
    }
    chosen[count++] = first_ * kTileSlots + i;
  }
  NIBKV_ASSERT(count <= most);
  return count;
}

}  // namespace nibkv
