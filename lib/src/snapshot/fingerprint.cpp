#include "snapshot/fingerprint.hpp"

#include "numbers/numbers.hpp"

namespace nibkv {
namespace {

// FNV-1a of 64 bits, over numbers of 8 bytes each.
class Fingerprint {
 public:
  constexpr Fingerprint& add(std::uint64_t number) {
    for (int byte = 0; byte < 8; ++byte) word_ = (word_ ^ (number >> 8 * byte & 0xff)) * 0x100000001b3u;
    return *this;
  }
  constexpr std::uint64_t word() const { return word_; }

 private:
  std::uint64_t word_ = 0xcbf29ce484222325u;
};

// How attention is counted. Raise it when scores change their meaning.
constexpr std::uint64_t kRuleOfScores = 2;

// When you add a field, add it below too, unless caches that differ only in that field
// may share snapshots.
static_assert(sizeof(Rotary) == 16 && sizeof(Shape) == 32 && sizeof(Fold) == 144 && sizeof(Policy) == 248);

}  // namespace

std::uint64_t fingerprint(const Shape& shape, const Policy& policy) {
  Fingerprint all;
  all.add(shape.layers).add(shape.query_heads).add(shape.kv_heads).add(shape.head_dim);
  all.add(shape.outlier_channels).add(shape.max_chunk).add(static_cast<std::uint64_t>(shape.storage));
  if (shape.basis != KeyBasis::kProfile) all.add(8192u + static_cast<std::uint64_t>(shape.basis));
  if (policy.rephase || policy.position_free || shape.rotary.reach != 0) {
    all.add(bits_from_float(shape.rotary.base)).add(bits_from_float(shape.rotary.scale));
    all.add(shape.rotary.dims).add(shape.rotary.adjacent ? 1 : 0);
    if (shape.rotary.reach != 0) all.add(shape.rotary.reach);
  }
  return all.word();
}

std::uint64_t fingerprint(const Policy& policy, bool folds) {
  const auto number = [](auto value) { return static_cast<std::uint64_t>(value); };
  Fingerprint all;
  all.add(number(policy.keep)).add(policy.tokens).add(policy.sinks).add(policy.recent);
  all.add(number(policy.score)).add(number(policy.group)).add(number(policy.combine)).add(policy.per_query ? 1 : 0);
  all.add(policy.window).add(policy.pool).add(number(policy.merge)).add(policy.rephase ? 1 : 0);
  all.add(number(policy.similarity)).add(policy.position_free ? 1 : 0).add(number(policy.mass));
  all.add(policy.mean_threshold ? 1 : 0).add(policy.threshold).add(policy.candidate_mass);
  all.add(number(policy.budget));
  if (policy.budget != Budget::kUniform && policy.most != Policy{}.most) all.add(policy.most);
  if (keeps_classes(policy)) all.add(policy.recovered);
  if (policy.recent_share != 0) all.add(256u + policy.recent_share);
  if (policy.value_norms) all.add(512);
  if (scores_attention(policy)) all.add(kRuleOfScores);
  if (has_wide(policy)) {
    for (const std::uint64_t word : policy.wide.words) all.add(word);
    all.add(1024u + number(policy.wide_storage) + (policy.wide_first ? 256 : 0));
  }
  if (has_tiers(policy)) all.add(2048u + number(policy.tail_storage)).add(policy.tail);
  if (policy.faint != 0) all.add(4096u + number(policy.faint_storage)).add(policy.faint);
  if (has_log(policy)) all.add(16384u + policy.indexed).add(policy.log).add(policy.recall);
  if (has_pairs(policy)) {  // without min_cosine, which no cache reads
    const Fold& fold = policy.fold;
    for (const LayerSet* set : {&fold.keys, &fold.values, &fold.aligned_keys, &fold.aligned_values}) {
      for (const std::uint64_t word : set->words) all.add(word);
    }
    all.add(fold.recent)
        .add(fold.t)
        .add(fold.retained)
        .add(number(fold.retain))
        .add(fold.centred ? 1 : 0)
        .add(folds ? 1 : 0);
  }
  return all.word();
}

}  // namespace nibkv
