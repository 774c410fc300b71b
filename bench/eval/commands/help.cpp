#include <string>
#include <string_view>

#include "bench/eval/commands/commands.hpp"

namespace nibkv::llm {
namespace {

// The help of an option that several commands have, unless their own help has it.
struct Option {
  std::string_view name, help;
};

constexpr Option kOptions[] = {
    {"model", R"(  --model PATH         GGUF file (default: $NIBKV_MODEL, or else the tiny model that comes with this
                       program)
)"},
    {"text", R"(  --text PATH          UTF-8 text
)"},
    {"context", R"(  --context N          tokens of a window (default 4096)
)"},
    {"score-from", R"(  --score-from N       position of the first token that is scored (default 512, at most half the
                       context)
)"},
    {"windows", R"(  --windows N          (default 1; as many whole ones as the text has)
)"},
    {"from", R"(  --from N             characters of the text to leave out at its beginning (default 0)
)"},
    {"together", R"(  --together N         caches that are fed side by side and share one pass of the reference (default
                       8)
)"},
    {"retrieval", R"(  --retrieval N        ask each cache for N needles, too, at depths equally far from one another;
                       text, question and answer take --context tokens, and the question comes last,
                       unseen. The column is 'found'
)"},
    {"needles", R"(  --needles KIND       passkey: a number of five digits (default); sentence: a plain fact; several:
                       the pass keys of three persons, of which one is asked for; code: for the tiny
                       model that comes with this program
)"},
    {"prompt", R"(  --prompt FORM        plain (default) or chat: ChatML
)"},
    {"storage",
     R"(  --storage NAME       how the cache stores keys and values: q4 (default), q8, q2, q8q4 (keys q8,
                       values q4), q4q2, or f32
)"},
    {"policy", R"(  --policy NAME        full (default), streaming_llm, or one that keeps by importance: ems,
                       ems_no_merge, h2o, tova, snapkv, l2_norm, pyramid_kv, ada_kv, head_kv,
                       prefix_kv, fast_gen; duo, whose heads differ; precise_tail, qpruning, whose
                       tokens have fewer bits when they are older; recall, which brings tokens back
                       from a log; minicache or ems_fold, whose layers share codes
)"},
    {"policies", R"(  --policies LIST      of nibkv's (nibkv-eval perplexity --help), and f32: an f32 cache that keeps
                       everything (default). Also what there is without nibkv: f16_last, the last
                       tokens in f16, and f16_sinks, the first 4 and the last; as many as fit the
                       whole arena of ems at --tokens
)"},
    {"mode", R"(  --mode MODE          unseen: the text streams through the cache, and the question comes after it;
                       seen: the cache holds the whole prompt and is cut back once, question
                       included, before the model answers; or both (default). 'seen' is for policies
                       that keep scores; others are left out there
)"},
    {"set", R"(  --set KEY=VALUE,...  fields of the policy: sinks, recent (tokens, or a share such as 50%),
                       recent_share (0 to 255), score (global_local, global, local, key_norm), group
                       (mean, max), combine (sum, max), per_query (0, 1), window, pool,
                       value_norms (0, 1), merge (none, values, both), rephase (0, 1), similarity
                       (key, value, key_value), position_free (0, 1), mass (none, share, count),
                       threshold (0 to 255, mean), candidate_mass (0 to 255), budget (uniform,
                       pyramid, scores, adaptive, prefix, retrieval, rules, any_scores), most (1 to
                       64), recovered (1 to 255), wide (how many of the first layers have wider
                       codes, or which: 0:8:23, 8:8), wide_storage (q8q4, q8, q4),
                       wide_first (0, 1: also the first 32 slots of all heads), tail (how many of
                       the newest tokens have the codes of tail_storage: q8, q8q4, q4), faint (how
                       many have those of faint_storage before they are dropped: q2, q4q2, q4,
                       q8q4; alone, with a tail of 32 whose codes are no wider); of recall: log
                       (tokens; default 8 times the budget), recall (slots for them; default 3/4),
                       indexed (heads in 256 that have an index; default 86); of minicache and
                       ems_fold: fold (gate: layers share that are similar in the profile;
                       direct: all, as they are; aligned: all, through its maps), fold_start (the
                       first that may; default half of them), fold_rows (both, keys, values),
                       fold_centred (0, 1: keys minus their means), fold_min_cosine (0 to 255),
                       fold_recent, fold_t (0 to 255), fold_retained (0 to 128), fold_retain (far,
                       near, far_range); or fold_keys, fold_values (layers FIRST-END whose
                       neighbours share codes)
)"},
    {"force-fold", R"(  --force-fold         let layers share that the gate refuses: --set fold=direct
)"},
    {"tokens", R"(  --tokens N           tokens that the cache holds (default with policy full or minicache: the
                       context)
)"},
    {"arena", R"(  --arena BYTES        size of the cache instead, such as 65536, 512K or 2M
)"},
    {"profile", R"(  --profile PATH|none|measured
                       of the model's keys and values (default measured: each layer measures its own
                       keys from the first tokens of a cache; none where layers share codes)
)"},
    {"outliers", R"(  --outliers N         key channels at 8 bits: 0, 4, 8, 12 or 16 (default 8 with a profile,
                       measured 4, none 0)
)"},
    {"reach", R"(  --reach N            the largest distance from which a query may see a slot: it is turned back for
                       slots further behind (default: no limit)
)"},
    {"port", R"(  --port NAME          of the computing kernels (default: the fastest)
)"},
    {"cold", R"(  --cold FILE          where the log of policy recall goes (default: memory)
)"},
    {"threads", R"(  --threads N          (default: as many as cores)
)"},
    {"json", R"(  --json PATH          write the figures as JSON too; - prints JSON instead of lines
)"},
    {"resume", R"(  --resume             measure only what that file has no row for
)"},
    {"svg", R"(  --svg PATH           draw cross-entropy above that of f32 against bytes
)"},
};

}  // namespace

std::string help_of(const Command& command) {
  std::string help = command.help;
  for (const Option& option : kOptions) {
    const std::string name(option.name);
    if (!command.options.contains(name) && !command.flags.contains(name)) continue;
    if (help.find("\n  --" + name + ' ') == std::string::npos) help += option.help;
  }
  return help + "  -h, --help           print this and end\n";
}

}  // namespace nibkv::llm
