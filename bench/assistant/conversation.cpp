#include "bench/assistant/conversation.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>
#include <utility>

#include "bench/runner/model/heap_count.hpp"
#include "bench/runner/text/utf8_stream.hpp"

namespace nibkv::llm {
namespace {

/// Adds its lifetime to a sum.
class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds) {}
  ~Stopwatch() { seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

std::string grouped(std::uint64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

// The most tokens in one sequence. Where queries are turned back to what the model knows, there is no end.
std::size_t limit_of(const Config& model, const Shape& shape) {
  return shape.rotary.reach != 0 ? std::numeric_limits<std::size_t>::max() : model.context;
}

std::string rate(std::uint64_t tokens, double seconds) {
  if (tokens == 0 || seconds <= 0) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", static_cast<double>(tokens) / seconds);
  return text;
}

}  // namespace

Conversation::Conversation(Model& model, const Tokenizer& tokenizer, const Chat& chat, TileStore& store,
                           const ConversationOptions& options)
    : model_(model),
      tokenizer_(tokenizer),
      chat_(chat),
      store_(store),
      options_(options),
      sampler_(options.sampler),
      limit_(options.limit != 0 ? options.limit : limit_of(model.config(), store.cache().shape())),
      readable_(options.limit != 0 ? options.limit : model.config().context),
      logits_(model.config().vocabulary) {}

void Conversation::reset() {
  store_.clear();
  sampler_ = Sampler(options_.sampler);
  counts_ = {};
  turns_.clear();
  pending_.clear();
  again_ = 0;
  question_.clear();
}

// Whether `tokens` more fit in addition to `held`.
void Conversation::require_room(std::size_t held, std::size_t tokens) const {
  const Cache& cache = store_.cache();
  if (cache.policy().keep != Keep::kAll) return;
  const std::size_t room = std::size_t{layout_of(cache.shape(), cache.policy()).tiles_per_head} * kTileSlots;
  if (held + tokens <= room) return;
  const std::string next = tokens == 1 ? "another one does" : std::to_string(tokens) + " more do";
  throw Error("the arena is full: it holds " + std::to_string(held) + " of " + std::to_string(room) + " tokens, " +
              next + " not fit, and its policy drops none");
}

// Feeds the pending tokens; the logits are those after the last of them. Returns
// false if stopped before.
bool Conversation::feed(const Stop& stop) {
  const std::size_t all = pending_.size();
  while (!pending_.empty()) {
    if (options_.reading && all > 1) options_.reading(all - pending_.size(), all);
    if (stop && stop()) return false;
    const std::size_t count = std::min(pending_.size(), store_.max_batch());
    const std::size_t rows = count == pending_.size() ? 1 : 0;
    model_.forward(std::span(pending_).first(count), position(), store_, logits_.data(), rows);
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(count));
  }
  return true;
}

// Feeds the pending tokens, and counts them.
bool Conversation::prefill(const Stop& stop) {
  const Stopwatch stopwatch(counts_.prefill_seconds);
  const std::size_t before = position();
  const bool is_fed = feed(stop);
  const std::size_t fed = position() - before;
  const std::size_t again = std::min(fed, again_);
  again_ -= again;
  counts_.read_again += again;
  counts_.prompt_tokens += fed - again;
  return is_fed;
}

Ending Conversation::answer(std::string_view message, const Output& output, const Stop& stop) {
  std::vector<std::int32_t> more = pending_;
  const std::vector<std::int32_t> written_message =
      turns_.empty() ? chat_.first(options_.system, message) : chat_.next(false, message);
  more.insert(more.end(), written_message.begin(), written_message.end());
  if (more.empty()) throw Error("the message is empty");

  if (position() + more.size() <= limit_) {
    require_room(position(), more.size());
    pending_ = std::move(more);
    turns_.push_back({std::string(message), {}});
  } else {
    std::vector<Turn> turns = turns_;
    turns.push_back({std::string(message), {}});
    forget_oldest(std::move(turns), more.size() - again_);
  }
  question_ = message;
  return prefill(stop) ? generate(output, stop) : Ending::kStopped;
}

// If the answer ends at the last token shown, that token stays pending: the next
// turn feeds it first.
Ending Conversation::generate(const Output& output, const Stop& stop) {
  const Stopwatch stopwatch(counts_.decode_seconds);
  Utf8Stream stream;
  const auto emit = [&output](const std::string& text) {
    if (!text.empty()) output(text);
  };
  const auto end = [&](Ending ending) {
    emit(stream.flush());
    return ending;
  };
  const bool penalised = options_.sampler.repeat_penalty != 1;
  std::vector<std::int32_t> before;  // empty where nobody reads it
  if (penalised) before = written(turns_);
  for (std::size_t made = 1;; ++made) {
    const std::int32_t token = sampler_.sample(logits_, before);
    if (penalised) before.push_back(token);
    if (chat_.ends_answer(token)) return end(Ending::kComplete);
    pending_.assign(1, token);
    turns_.back().answer.push_back(token);
    ++counts_.answer_tokens;
    if (!tokenizer_.is_special(token)) emit(stream.push(tokenizer_.decode(token)));
    if (made >= options_.max_tokens) return end(Ending::kCut);
    if (position() + 1 > limit_) {
      forget_oldest(turns_, 0);
      const double before = counts_.prefill_seconds;
      const bool is_fed = prefill(stop);
      counts_.decode_seconds -= counts_.prefill_seconds - before;
      if (!is_fed) return end(Ending::kStopped);
      continue;
    }
    try {
      require_room(position(), 1);
    } catch (const Error&) {
      end(Ending::kStopped);
      throw;
    }
    if (!feed(stop)) return end(Ending::kStopped);
    ++counts_.decode_steps;
  }
}

std::string summary(const Conversation& conversation) {
  const Counts& counts = conversation.counts();
  const TileStore& store = conversation.store();
  const Usage usage = store.cache().usage();
  const std::uint64_t seen = conversation.position();
  std::string lines;
  const auto line = [&lines](std::string_view name, const std::string& value) {
    lines += "  " + std::string(name) + std::string(30 - name.size(), ' ') + value + '\n';
  };
  line("tokens, prompt / answer", grouped(counts.prompt_tokens) + " / " + grouped(counts.answer_tokens));
  if (counts.read_again > 0) line("tokens read again", grouped(counts.read_again));
  line("tokens/s, prefill / decode", rate(counts.prompt_tokens + counts.read_again, counts.prefill_seconds) + " / " +
                                         rate(counts.decode_steps, counts.decode_seconds));
  line("arena bytes, used / total", grouped(usage.peak_bytes) + " / " + grouped(usage.arena_bytes));
  line("tokens, held / seen", grouped(store.cache().held(0, 0)) + " / " + grouped(seen));
  line("f16 bytes for all seen", grouped(store.f16_bytes(seen)));
  line("heap allocations by nibkv", heap_report());
  return lines;
}

}  // namespace nibkv::llm
