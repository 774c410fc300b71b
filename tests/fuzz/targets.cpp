#include "tests/fuzz/targets.hpp"

namespace nibkv::fuzz {

const std::vector<Target>& targets() {
  static const std::vector<Target> kTargets = {
      {"snapshot", snapshot, snapshot_seeds},
      {"profile", profile, profile_seeds},
      {"operations", operations, operations_seeds},
#ifdef NIBKV_FUZZ_RUNNER
      {"gguf", gguf, gguf_seeds},
      {"tokenizer", tokenizer, tokenizer_seeds},
#endif
  };
  return kTargets;
}

}  // namespace nibkv::fuzz
