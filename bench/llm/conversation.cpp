#include "bench/llm/conversation.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "bench/llm/builtin_text.hpp"
#include "bench/llm/heap_count.hpp"
#include "bench/llm/output_file.hpp"
#include "bench/llm/profile_maker.hpp"
#include "bench/llm/unicode.hpp"

namespace nibkv::llm {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

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

// Whether more bytes can complete these to a character. The second byte decides, and trying
// the lowest and the highest continuation byte covers every case.
bool may_be_completed(std::string_view start) {
  for (const char filler : {'\x80', '\xBF'}) {
    const CodePoint read = decode_utf8(std::string(start) + std::string(3, filler), 0);
    if (read.valid && read.length > start.size()) return true;
  }
  return false;
}

std::string grouped(std::uint64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

std::string rate(std::uint64_t tokens, double seconds) {
  if (tokens == 0 || seconds <= 0) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", static_cast<double>(tokens) / seconds);
  return text;
}

// Distinguishes models of the same name in different folders.
std::string fingerprint(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char character : text) hash = (hash ^ static_cast<unsigned char>(character)) * 0x100000001b3;
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  return digits;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  std::string whole;
  std::size_t at = 0;
  while (at < held_.size()) {
    const CodePoint read = decode_utf8(held_, at);
    if (!read.valid && may_be_completed(std::string_view(held_).substr(at))) break;
    whole += read.valid ? std::string_view(held_).substr(at, read.length) : kReplacement;
    at += read.length;
  }
  held_.erase(0, at);
  return whole;
}

std::string Utf8Stream::flush() {
  std::string rest;
  for (std::size_t i = 0; i < held_.size(); ++i) rest += kReplacement;
  held_.clear();
  return rest;
}

Conversation::Conversation(Model& model, const Tokenizer& tokenizer, const Chat& chat, TileStore& store,
                           const ConversationOptions& options)
    : model_(model),
      tokenizer_(tokenizer),
      chat_(chat),
      store_(store),
      options_(options),
      sampler_(options.sampler),
      limit_(options.limit != 0 ? options.limit : model.config().context),
      logits_(model.config().vocabulary) {}

void Conversation::reset() {
  store_.clear();
  sampler_ = Sampler(options_.sampler);
  counts_ = {};
  turns_.clear();
  pending_.clear();
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

// Feeds the pending tokens, the first `again` of them for the second time.
bool Conversation::prefill(std::size_t again, const Stop& stop) {
  const Stopwatch stopwatch(counts_.prefill_seconds);
  const std::size_t before = position();
  const bool is_fed = feed(stop);
  const std::size_t fed = position() - before;
  counts_.read_again += std::min(fed, again);
  counts_.prompt_tokens += fed - std::min(fed, again);
  return is_fed;
}

Ending Conversation::answer(std::string_view message, const Output& output, const Stop& stop) {
  std::vector<std::int32_t> more = pending_;
  const std::vector<std::int32_t> written_message =
      turns_.empty() ? chat_.first(options_.system, message) : chat_.next(false, message);
  more.insert(more.end(), written_message.begin(), written_message.end());
  if (more.empty()) throw Error("the message is empty");

  std::size_t again = 0;
  if (position() + more.size() <= limit_) {
    require_room(position(), more.size());
    pending_ = std::move(more);
    turns_.push_back({std::string(message), {}});
  } else {
    std::vector<Turn> turns = turns_;
    turns.push_back({std::string(message), {}});
    begin_again(newest_half(std::move(turns)));
    again = pending_.size() - std::min(pending_.size(), more.size());
  }
  return prefill(again, stop) ? generate(output, stop) : Ending::kStopped;
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
      begin_again(newest_half(turns_));
      const double before = counts_.prefill_seconds;
      const bool is_fed = prefill(pending_.size(), stop);
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

void check_shape(const Config& model, const std::string& name) {
  StoreOptions options;
  if (valid(shape_of(model, options))) return;
  if (model.head_dim < 16 || model.head_dim > kMaxHeadDim || model.head_dim % 16 != 0) {
    throw Error(name + ": the model's heads have " + std::to_string(model.head_dim) +
                " channels; nibkv takes multiples of 16 from 16 to " + std::to_string(kMaxHeadDim));
  }
  throw Error(name + ": nibkv takes at most 1024 layers, query heads and KV heads");
}

std::vector<std::int32_t> calibration_tokens(const Tokenizer& tokenizer, const Chat& chat) {
  const std::span<const std::string_view> text = builtin_text();
  std::vector<std::int32_t> tokens;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool is_answer = i % 2 == 1;
    const std::vector<std::int32_t> more = is_answer ? tokenizer.encode(text[i], false, false)
                                           : i == 0  ? chat.first("You are a helpful assistant.", text[i])
                                                     : chat.next(false, text[i]);
    tokens.insert(tokens.end(), more.begin(), more.end());
  }
  return tokens;
}

std::vector<std::string> profile_places(const std::string& model_path) {
  std::vector<std::string> places = {model_path + ".nibkv-profile"};
  fs::path folder = environment("NIBKV_CACHE");
  if (folder.empty()) {
    fs::path base = environment("XDG_CACHE_HOME");
    if (const std::string home = environment("HOME"); base.empty() && !home.empty()) base = fs::path(home) / ".cache";
    if (base.empty()) return places;
    folder = base / "nibkv";
  }
  std::error_code ignored;
  const fs::path absolute = fs::absolute(model_path, ignored);
  const std::string name = fs::path(model_path).filename().string() + "-" + fingerprint(absolute.string());
  places.push_back((folder / (name + ".nibkv-profile")).string());
  return places;
}

std::vector<std::byte> find_or_make_profile(std::span<const std::string> places, const Config& model,
                                            const std::function<std::vector<std::byte>()>& make,
                                            const std::function<void(const std::string&)>& say) {
  std::error_code ignored;
  for (const std::string& place : places) {
    if (!fs::is_regular_file(place, ignored)) continue;
    try {
      return read_profile(place, model);
    } catch (const Error& error) {
      say(std::string(error.what()) + "; not used");
    }
  }
  std::vector<std::byte> profile = make();
  std::string reasons;
  for (const std::string& place : places) {
    // A device or a pipe stores nothing.
    if (fs::exists(place, ignored) && !fs::is_regular_file(place, ignored)) continue;
    // Not for the folder of the model: it exists, or is not meant to be used.
    if (place != places.front()) fs::create_directories(fs::path(place).parent_path(), ignored);
    try {
      write_file(place, profile);
      say("profile kept in " + place);
      return profile;
    } catch (const Error& error) {
      reasons += std::string("; ") + error.what();
    }
  }
  say("the profile cannot be kept, and the next start makes it again" + reasons);
  return profile;
}

}  // namespace nibkv::llm
