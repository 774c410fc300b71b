#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bench/eval/metrics/sweep_store.hpp"
#include "bench/runner/model/model.hpp"
#include "bench/runner/profile/needles.hpp"
#include "bench/runner/programs/progress.hpp"
#include "bench/runner/text/tokenizer.hpp"

namespace nibkv::llm {

struct SweepOptions {
  std::size_t context = 4096;    ///< tokens of a window, at least 2
  std::size_t score_from = 512;  ///< position of the first token that is scored, [1, context)
  std::size_t windows = 1;       ///< at least 1; fewer are used if the text is shorter
  std::size_t side_by_side = 8;  ///< caches that are fed together and share one pass of the reference
  StoreOptions store;            ///< port, profile, outlier_channels, workers

  /// Needles that every cache is asked for after it has read its windows, at equally
  /// spaced depths; 0: none.
  std::size_t retrieval = 0;
  NeedleKind needles = NeedleKind::kPasskey;
  const Tokenizer* tokenizer = nullptr;  ///< the model's; read only if there are questions
};

/// The effect of one cache on the model.
struct SweepRow {
  SweepCase what;            ///< its settings are not written to a file
  std::uint64_t budget = 0;  ///< tokens per head
  std::uint64_t context = 0;
  double cross_entropy = 0;   ///< nats per token
  double standard_error = 0;  ///< of cross_entropy, as if the losses were independent
  double kl_divergence = 0;   ///< mean of KL(reference || tested), in nats
  double top1_agreement = 0;  ///< share of the rows in which the most likely token is the same in both
  std::uint64_t peak_bytes = 0;
  std::uint64_t arena_bytes = 0;
  double compression = 0;        ///< bytes of the context in f16 / peak_bytes
  double bits_per_channel = 0;   ///< maximum over the windows
  double tokens_per_second = 0;  ///< of its forward passes
  std::string mode = "question unseen";
  std::vector<double> window_cross_entropies;  ///< that of each window
  std::uint64_t retrieval_correct = 0;
  std::uint64_t retrieval_asked = 0;
};

/// Gets the rows of caches that were measured together, and the cross-entropy of the reference.
using SweepDone = std::function<void(const std::vector<SweepRow>& rows, double reference_cross_entropy)>;

/// Feeds windows of a text as a stream, from position 0, into empty caches, and scores the
/// predictions after the first tokens of each. The reference is a store of the same model in f32
/// that keeps everything. Each cache has a separate sequence: none sees a token before it is due.
///
/// The needles are hidden in parts of the same text. Prompt and answer together are as long
/// as a window, so that each cache is asked at the length at which it was measured; the other
/// figures do not change.
///
/// @param tokens    of the text
/// @param progress  counts a token once for each cache that it goes through; may be empty
/// @throws Error when the text is shorter than a window, the context larger than the model's, too
///         small for a needle, or a cache is refused: that before anything is measured
void measure_sweep(Model& model, ThreadPool& pool, std::span<const std::int32_t> tokens, const SweepOptions& options,
                   std::span<const SweepCase> cases, const SweepDone& done, const TokensDone& progress);

}  // namespace nibkv::llm
