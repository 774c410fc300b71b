#include "bench/assistant/conversation.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/runner/gguf/fingerprint.hpp"
#include "bench/runner/model/heap_count.hpp"
#include "bench/runner/text/builtin_text.hpp"
#include "tests/assistant/conversation_fixture.hpp"
#include "tests/support/effort.hpp"

namespace nibkv::llm {
namespace {

TEST_F(ConversationTest, AnswersFromWhatItWasTold) {
  Talk talk = this->talk("full", 512, greedy(5));
  EXPECT_EQ(ask(talk, kFacts), "90717");
  EXPECT_EQ(talk.conversation->counts().answer_tokens, 5u);
  EXPECT_EQ(talk.conversation->counts().decode_steps, 4u) << "the last token shown is fed with the next turn";
  EXPECT_EQ(talk.conversation->position(), talk.conversation->counts().prompt_tokens + 4);
}

TEST_F(ConversationTest, GivesInItsSecondTurnWhatOnePrefillOfEverythingGives) {
  const std::string second = "\nHe asked again. What is the code for willow? ";
  Talk turns = talk("full", 512, greedy(24));
  const std::string first_answer = ask(turns, kFacts);
  const std::string second_answer = ask(turns, second);

  Talk once = talk("full", 512, greedy(24));
  EXPECT_EQ(ask(once, kFacts + first_answer + second), second_answer);
  EXPECT_EQ(once.conversation->position(), turns.conversation->position());
}

TEST_F(ConversationTest, FeedsNothingTwice) {
  Talk talk = this->talk("full", 512, greedy(3));
  ask(talk, "One.");
  const std::size_t before = talk.conversation->position();
  ask(talk, "Two.");
  // The last token of the first answer, the message, two of the three tokens of the answer.
  EXPECT_EQ(talk.conversation->position() - before, 1 + 4 + 2u);
}

TEST_F(ConversationTest, SaysHowMuchOfAMessageIsReadAndNothingOfTheAnswer) {
  std::vector<std::size_t> seen;
  ConversationOptions options = greedy(5);
  options.reading = [&](std::size_t done, std::size_t all) {
    EXPECT_EQ(all, 101u) << "one begins the text";
    seen.push_back(done);
  };
  Talk talk = this->talk("ems", 512, options);
  ask(talk, std::string(100, 'a'));
  EXPECT_EQ(seen, (std::vector<std::size_t>{0, 32, 64, 96}));
}

TEST_F(ConversationTest, SaysUnderFullThatTheArenaIsFullAndLeavesItUnchanged) {
  Talk talk = this->talk("full", 64, greedy(8));
  ask(talk, std::string(40, 'a'));
  const std::size_t before = talk.conversation->position();
  const auto ignore = [](std::string_view) {};
  try {
    talk.conversation->answer(std::string(60, 'b'), ignore);
    FAIL() << "took a message that does not fit";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("the arena is full"), std::string::npos) << error.what();
  }
  EXPECT_EQ(talk.conversation->position(), before);
  EXPECT_EQ(ask(talk, "c").size(), 8u) << "a short message still fits";
}

TEST_F(ConversationTest, ShowsWhatItMadeBeforeTheArenaWasFull) {
  Talk talk = this->talk("full", 64, greedy(100));
  std::string answer;
  EXPECT_THROW(talk.conversation->answer(std::string(40, 'a'), [&](std::string_view text) { answer += text; }), Error);
  // BOS and 40 bytes; 23 more tokens fit, and one is shown that does not.
  EXPECT_EQ(talk.conversation->counts().answer_tokens, 24u);
  EXPECT_FALSE(answer.empty());
  EXPECT_EQ(talk.conversation->position(), 64u);
  talk.conversation->reset();
  EXPECT_EQ(talk.conversation->position(), 0u);
  talk.conversation->answer(
      "b", [](std::string_view) {}, [] { return true; });
}

TEST_F(ConversationTest, StopsWhenToldAndGoesOnFromThere) {
  Talk stopped = talk("full", 512, greedy(100));
  std::string first;
  const Ending ending = stopped.conversation->answer(
      kFacts, [&](std::string_view text) { first += text; }, [&] { return first.size() >= 5; });
  EXPECT_EQ(ending, Ending::kStopped);
  EXPECT_EQ(first, "90717");
  stopped.conversation->reset();

  // An interrupted prefill continues with the next turn.
  EXPECT_EQ(stopped.conversation->answer(
                kFacts, [](std::string_view) {}, [] { return true; }),
            Ending::kStopped);
  EXPECT_EQ(stopped.conversation->position(), 0u);
  Talk whole = talk("full", 512, greedy(100));
  EXPECT_EQ(ask(stopped, " Tell me."), ask(whole, std::string(kFacts) + " Tell me."));
}

TEST_F(ConversationTest, BeginsWithTheSystemTextOnceUntilReset) {
  ConversationOptions options = greedy(5);
  options.system = std::string(kFacts).substr(0, std::string(kFacts).find("What"));
  Talk talk = this->talk("full", 512, options);
  EXPECT_EQ(ask(talk, "What is the code for willow? "), "90717");
  talk.conversation->reset();
  EXPECT_EQ(talk.conversation->counts().prompt_tokens, 0u);
  EXPECT_EQ(ask(talk, "What is the code for willow? "), "90717");
  const std::uint64_t once = talk.conversation->counts().prompt_tokens;
  ask(talk, "x");
  EXPECT_EQ(talk.conversation->counts().prompt_tokens, once + 2);
}

// LostRuins/koboldcpp#2151
TEST_F(ConversationTest, AnswersAfterResetAsANewOneDoes) {
  ConversationOptions options;
  options.sampler.temperature = 1;
  options.max_tokens = 40;
  const auto answer = [](Talk& to, const std::string& message) {
    std::string text;
    to.conversation->answer(message, [&](std::string_view part) { text += part; });
    return text;
  };
  Talk used = talk("ems", 64, options), fresh = talk("ems", 64, options);
  for (int i = 0; i < 6; ++i) answer(used, kFacts);
  used.conversation->reset();
  for (const char* message : {"They went to", " And then? "}) EXPECT_EQ(answer(used, message), answer(fresh, message));
  EXPECT_EQ(used.conversation->save(7, ""), fresh.conversation->save(7, ""));
  EXPECT_EQ(used.conversation->counts().prompt_tokens, fresh.conversation->counts().prompt_tokens);
}

TEST_F(ConversationTest, DrawsTheSameTextFromTheSameSeed) {
  const auto text = [&](std::uint64_t seed) {
    ConversationOptions options = greedy(60);
    options.sampler = {1.0, 0.95, seed};
    Talk talk = this->talk("full", 512, options);
    return ask(talk, "They went to");
  };
  EXPECT_EQ(text(5), text(5));
  EXPECT_NE(text(5), text(6));
}

TEST_F(ConversationTest, GoesOnFromASnapshotAsIfItHadNeverStopped) {
  const std::vector<std::string> messages = {kFacts, "And then? ", "What is the code for willow? ", "Go on. ", "Why? "};
  for (const char* policy : {"full", "streaming_llm", "ems", "ada_kv"}) {
    const std::uint32_t tokens = std::string(policy) == "full" ? 2000 : 96;
    ConversationOptions options;
    options.sampler.temperature = 1;
    options.max_tokens = 20;
    Talk whole = talk(policy, tokens, options);
    std::vector<std::vector<std::byte>> saved = {whole.conversation->save(7, "")};
    std::vector<std::string> answers;
    const auto answer = [](Talk& to, const std::string& message) {
      std::string text;
      to.conversation->answer(message, [&](std::string_view part) { text += part; });
      return text;
    };
    for (const std::string& message : messages) {
      answers.push_back(answer(whole, message));
      saved.push_back(whole.conversation->save(7, ""));
    }
    EXPECT_NE(saved.front(), saved.back());
    for (std::size_t stop = 0; stop < messages.size(); stop += test::kShorter == 1 ? 1 : 3) {
      options.sampler.seed = 99;  // no longer read
      Talk again = talk(policy, tokens, options);
      answer(again, "something else");
      again.conversation->load(saved[stop], 7);
      EXPECT_EQ(again.conversation->counts().prompt_tokens, 0u) << "counts are of what was fed since";
      EXPECT_EQ(again.conversation->save(7, ""), saved[stop]);
      for (std::size_t i = stop; i < messages.size(); ++i) {
        EXPECT_EQ(answer(again, messages[i]), answers[i]) << policy << ", stopped at " << stop << ", answer " << i;
        EXPECT_EQ(again.conversation->save(7, ""), saved[i + 1]) << policy << ", stopped at " << stop;
      }
    }
  }
}

TEST_F(ConversationTest, RefusesWhatItCannotGoOnFromAndStaysAsItIs) {
  Talk first = talk("ems", 96, greedy(5));
  ask(first, kFacts);
  const std::vector<std::byte> saved = first.conversation->save(7, "96 tokens");
  const auto error_of = [](Talk& to, std::span<const std::byte> bytes, std::uint64_t model) -> std::string {
    const std::vector<std::byte> before = to.conversation->save(1, "");
    std::string what = "none";
    try {
      to.conversation->load(bytes, model);
    } catch (const Error& error) {
      what = error.what();
    }
    EXPECT_EQ(to.conversation->save(1, ""), before) << what;
    return what;
  };
  Talk second = talk("ems", 96, greedy(5));
  ask(second, "Something else. ");
  EXPECT_NE(error_of(second, saved, 8).find("another model"), std::string::npos);
  std::vector<std::byte> damaged = saved;
  damaged[damaged.size() / 2] ^= std::byte{1};
  EXPECT_NE(error_of(second, damaged, 7).find("damaged"), std::string::npos);
  EXPECT_NE(error_of(second, std::span(saved).first(saved.size() - 1), 7).find("damaged"), std::string::npos);
  EXPECT_NE(error_of(second, {}, 7).find("damaged"), std::string::npos);
  EXPECT_NE(error_of(second, first.store->save({}), 7).find("of no conversation"), std::string::npos);
  Talk larger = talk("ems", 128, greedy(5));
  const std::string error = error_of(larger, saved, 7);
  EXPECT_NE(error.find("another policy"), std::string::npos) << error;
  EXPECT_NE(error.find("saved with a cache of 96 tokens"), std::string::npos) << error;
  // Notes with right checksums that no conversation writes.
  const auto with_word = [&](std::size_t offset, std::uint32_t word) {
    SnapshotInfo info;
    EXPECT_EQ(inspect(saved, info), Status::kOk);
    std::vector<std::byte> note(saved.begin() + static_cast<std::ptrdiff_t>(info.note_offset),
                                saved.begin() + static_cast<std::ptrdiff_t>(info.note_offset + info.note_bytes));
    std::memcpy(note.data() + offset, &word, 4);
    return first.store->save(note);
  };
  EXPECT_EQ(error_of(second, with_word(4, 3), 7), "a conversation of another version of this program");
  EXPECT_EQ(error_of(second, with_word(48, 0), 7), "a damaged conversation") << "fewer pending tokens";
  EXPECT_EQ(error_of(second, with_word(48, 0xffffffff), 7), "a damaged conversation") << "more pending tokens";
  EXPECT_EQ(error_of(second, with_word(52, 0), 7), "a damaged conversation") << "fewer turns";
  EXPECT_EQ(error_of(second, with_word(52, 0xffffffff), 7), "a damaged conversation") << "more turns";
  EXPECT_EQ(error_of(second, with_word(56, 8), 7), "a damaged conversation") << "fewer words";
  EXPECT_EQ(error_of(second, with_word(64, 0x7fffffff), 7), "a damaged conversation") << "an unknown token";
  EXPECT_EQ(error_of(second, with_word(64, 0xffffffff), 7), "a damaged conversation") << "a negative token";
  EXPECT_EQ(error_of(second, with_word(68, 0xffffffff), 7), "a damaged conversation") << "a longer answer";
  EXPECT_EQ(error_of(second, with_word(72, 0xffffffff), 7), "a damaged conversation") << "a longer message";
  EXPECT_EQ(error_of(second, with_word(76, 0x7fffffff), 7), "a damaged conversation") << "an unknown token said";
}

TEST_F(ConversationTest, KnowsModelsApart) {
  const std::uint64_t mine = model_fingerprint(file_);
  EXPECT_EQ(model_fingerprint(Gguf::open(NIBKV_TINY_MODEL)), mine);
  std::ifstream in(NIBKV_TINY_MODEL, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  const Folder folder;
  bytes.back() = static_cast<char>(bytes.back() ^ 1);  // the last byte of the last tensor
  std::ofstream(folder / "other.gguf", std::ios::binary) << bytes;
  EXPECT_NE(model_fingerprint(Gguf::open(folder / "other.gguf")), mine);
}

TEST_F(ConversationTest, SumsUpWhatItTook) {
  Talk talk = this->talk("full", 512, greedy(5));
  ask(talk, kFacts);
  const std::string table = summary(*talk.conversation);
  const std::string seen = std::to_string(talk.conversation->position());
  EXPECT_NE(table.find(seen + " / " + seen), std::string::npos) << table;
  EXPECT_NE(table.find("heap allocations by nibkv     " + heap_report() + "\n"), std::string::npos) << table;
  // 138 tokens, 5 layers, 2 KV heads, 64 channels, keys and values, 2 bytes each.
  EXPECT_NE(table.find(" 353,280\n"), std::string::npos) << table;
}

TEST(HeapCount, SeesWhatIsAllocatedUnderAWatchByTheThreadThatWatches) {
  ASSERT_NE(heap_sight(), HeapSight::kNothing);
  const auto allocate = [] {
    void* (*volatile take)(std::size_t) = [](std::size_t size) { return ::operator new(size); };
    ::operator delete(take(100));
  };
  const std::uint64_t before = heap_allocations();
  allocate();
  EXPECT_EQ(heap_allocations(), before);
  EXPECT_EQ(watched([&] {
              allocate();
              return 7;
            }),
            7);
  EXPECT_EQ(heap_allocations(), before + 1);
  {
    const HeapWatch outer;
    { const HeapWatch inner; }
    allocate();
    EXPECT_EQ(heap_allocations(), before + 2);
  }
  allocate();
  EXPECT_EQ(heap_allocations(), before + 2);
}

TEST(HeapCount, DoesNotSeeOtherThreads) {
  std::atomic<int> step{0};
  std::thread other([&] {
    while (step != 1) std::this_thread::yield();
    const std::vector<int> block(1000, 1);
    step = 1 + block[999];
  });
  const std::uint64_t before = heap_allocations();
  {
    const HeapWatch watch;
    step = 1;
    while (step != 2) std::this_thread::yield();
  }
  EXPECT_EQ(heap_allocations(), before);
  other.join();
}

TEST(HeapCount, SeesTheMallocFamilyWhereItSaysSo) {
  if (heap_sight() != HeapSight::kEverything)
    GTEST_SKIP() << "malloc is not counted here: build without -fsanitize and for glibc";
  void* (*volatile take)(std::size_t) = std::malloc;
  void* (*volatile clear)(std::size_t, std::size_t) = std::calloc;
  void* (*volatile align)(std::size_t, std::size_t) = std::aligned_alloc;
  void* (*volatile resize)(void*, std::size_t) = std::realloc;
  const std::uint64_t before = heap_allocations();
  watched([&] {
    void* block = resize(take(10), 1000);
    std::free(block);
    std::free(clear(3, 5));
    std::free(align(64, 128));
    return 0;
  });
  EXPECT_EQ(heap_allocations(), before + 4);
}

TEST_F(ConversationTest, CausesNoHeapAllocationInsideTheLibrary) {
  ASSERT_NE(heap_sight(), HeapSight::kNothing);
  const std::uint64_t before = heap_allocations();
  Talk talk = this->talk("streaming_llm", 64, greedy(30));
  for (int i = 0; i < 5; ++i) ask(talk, "The quick brown fox jumps over the lazy dog, again and again.");
  talk.conversation->reset();
  EXPECT_EQ(heap_allocations(), before);
}

TEST_F(ConversationTest, NamesTheModelWhoseHeadsNibkvCannotTake) {
  Config config = model_.config();
  EXPECT_NO_THROW(check_shape(config, "m.gguf"));
  for (const std::size_t head_dim : {8, 24, 272}) {
    config.head_dim = head_dim;
    try {
      check_shape(config, "m.gguf");
      ADD_FAILURE() << head_dim;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find("m.gguf: the model's heads have " + std::to_string(head_dim)), 0u);
    }
  }
}

}  // namespace
}  // namespace nibkv::llm
