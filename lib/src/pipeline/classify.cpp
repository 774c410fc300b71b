#include "nibkv/classify.hpp"

#include "arena/view.hpp"

namespace nibkv {

Status classify(Cache& cache, std::span<const TokenClass> classes) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  if (!keeps_classes(to.policy())) return Status::kBadPolicy;
  const std::uint32_t seen = cache.seen(0);
  for (std::uint32_t layer = 1; layer < to.shape().layers; ++layer) {
    if (cache.seen(layer) != seen) return Status::kBadArgument;
  }
  if (classes.size() > seen - to.header().whole_from) return Status::kBadArgument;
  for (const TokenClass each : classes) {
    if (each > TokenClass::kSpecial) return Status::kBadArgument;
  }
  for (std::size_t i = 0; i < to.heads(); ++i) {
    const Chain& chain = to.chains()[i];
    const auto first = chain.used - static_cast<std::uint32_t>(classes.size());
    to.each_slot(chain, [&](std::uint32_t slot, const Place& at) {
      if (slot >= first) to.classes(at.tile)[at.lane] = static_cast<std::uint8_t>(classes[slot - first]);
    });
  }
  return Status::kOk;
}

}  // namespace nibkv
