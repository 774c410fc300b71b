#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "tests/programs/program.hpp"
#include "tests/support/gguf_writer.hpp"

namespace {

namespace fs = std::filesystem;

using nibkv::llm::test::GgufWriter;
using nibkv::llm::test::with_metadata;
using nibkv::test::columns_of;
using nibkv::test::contents;
using nibkv::test::count_of;
using nibkv::test::in_quotes;
using nibkv::test::Result;

constexpr const char* kQuestion =
    "It was a fine morning, and they walked along the river.\nThe code for willow is 90717.\nShe said nothing.\n"
    "What is the code for willow? ";

class AssistantTest : public nibkv::test::ProgramTest {
 protected:
  AssistantTest() : ProgramTest("nibkv-assistant") {}

  Result ask(const std::string& options, const std::string& prompt = kQuestion) const {
    return run("--model " + in_quotes(model_) + " --prompt " + in_quotes(prompt) + " " + options);
  }

  // The path of a file that is the tiny model with more metadata.
  std::string model_with(const GgufWriter& more) const {
    const std::string path = folder_ + "/more.gguf";
    std::ofstream(path, std::ios::binary) << with_metadata(contents(model_), more);
    return path;
  }

  // The figures in a line of the table.
  static std::string figure(const Result& result, const std::string& name) {
    return ProgramTest::figure(result.err, name);
  }
};

TEST_F(AssistantTest, FindsTheTinyModelBesideItselfOrInItsDataFolderOnceItIsMoved) {
  for (const char* folder : {"moved/bin", "moved/share/nibkv"}) fs::create_directories(at(folder));
  fs::copy_file(NIBKV_PROGRAMS "/nibkv-assistant", at("moved/bin/nibkv-assistant"));
  for (const char* place : {"moved/share/nibkv/tiny-recall.gguf", "moved/bin/tiny-recall.gguf"}) {
    fs::copy_file(model_, at(place));
    const Result result = shell("NIBKV_MODEL= " NIBKV_EMULATOR " " + quoted("moved/bin/nibkv-assistant") +
                                " --profile none --tokens 64 --max-tokens 1 --prompt x");
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_NE(result.err.find("/" + std::string(place) + " (tiny: "), std::string::npos) << result.err;
  }
}

TEST_F(AssistantTest, SaysWhatIsWrongWithFiles) {
  expect_error(run("--model /no/such.gguf --prompt x"), 1, "/no/such.gguf");
  expect_error(ask("--profile /no/such.profile"), 1, "/no/such.profile");
  std::ofstream(folder_ + "/bad") << "no profile";
  expect_error(ask("--profile " + in_quotes(folder_ + "/bad")), 1, "/bad: the profile is missing, damaged");
  expect_error(run("--model " + in_quotes(folder_ + "/bad") + " --prompt x"), 1, "/bad");
}

// mudler/vllm.cpp#2077
TEST_F(AssistantTest, TakesNoUnknownChatTemplateForPlainText) {
  const std::string model =
      model_with(GgufWriter().set("tokenizer.chat_template", "<|im_start|>user<|im_sep|><|im_end|>"));
  const std::string options =
      "--model " + in_quotes(model) + " --profile none --greedy --max-tokens 5 --prompt " + in_quotes(kQuestion);
  expect_error(
      run(options), 1,
      model + ": tokenizer.chat_template is none of those known here; --template NAME chooses one of none, chatml");
  expect_error(run(options + " --template chatml"), 1, model + ": the vocabulary has no <|im_start|>");
  expect_error(run(options + " --template klingon"), 2, "unknown template 'klingon'; there are none, chatml, llama3");
  const Result plain = run(options + " --template none");
  EXPECT_EQ(plain.status, 0) << plain.err;
  EXPECT_EQ(plain.out, "90717\n");
  EXPECT_NE(plain.err.find(", plain text\n"), std::string::npos) << plain.err;
}

TEST_F(AssistantTest, BeginsWithTheSystemMessageOfTheChatTemplateUnlessThereIsAnother) {
  // Llama 2's markers need no tokens that the tiny vocabulary lacks.
  const std::string text = "{% set system_message = 'Be kind.' %}[INST] <<SYS>>[/INST]";
  const std::string model = "--model " + in_quotes(model_with(GgufWriter().set("tokenizer.chat_template", text)));
  const std::string options = model + " --profile none --greedy --max-tokens 2 --prompt Hi";
  const Result result = run(options);
  EXPECT_NE(result.err.find(", Llama 2\n"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("system message of the model's chat template: 'Be kind.'\n"), std::string::npos);
  // BOS, "[INST] <<SYS>>\n", the message, "\n<</SYS>>\n\nHi [/INST]".
  EXPECT_EQ(figure(result, "tokens, prompt / answer"), std::to_string(1 + 15 + 8 + 21) + " / 2");
  const Result other = run(options + " --system 'Be brief.'");
  EXPECT_EQ(other.err.find("system message of"), std::string::npos) << other.err;
  EXPECT_EQ(figure(other, "tokens, prompt / answer"), std::to_string(1 + 15 + 9 + 21) + " / 2");
}

TEST_F(AssistantTest, RefusesAModelWhoseMetadataAskForWhatItDoesNotDo) {
  const std::string model = model_with(GgufWriter().set("llama.attention.sliding_window", 256u));
  expect_error(run("--model " + in_quotes(model) + " --profile none --prompt x"), 1,
               model + ": metadata 'llama.attention.sliding_window' changes what the model computes");
  const std::string wide = model_with(GgufWriter().set("llama.attention.sliding_window", 1024u));
  EXPECT_EQ(run("--model " + in_quotes(wide) + " --profile none --max-tokens 1 --prompt x").status, 0);
}

// Mesh-LLM/mesh-llm#1532. The file has weights only for its first tensor: the message must come
// before they are read.
TEST_F(AssistantTest, NamesTheChannelsOfHeadsThatItCannotTakeBeforeItReadsWeights) {
  GgufWriter writer;
  writer.set("general.architecture", "llama").set("llama.block_count", 2u).set("llama.context_length", 64u);
  writer.set("llama.embedding_length", 200u).set("llama.feed_forward_length", 32u);
  writer.set("llama.attention.head_count", 2u).set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  writer.add_tensor("token_embd.weight", nibkv::llm::TensorType::kF32, {200, 3}, std::vector<std::byte>(200 * 3 * 4));
  const std::string model = folder_ + "/heads100.gguf";
  const std::vector<std::byte> bytes = writer.bytes();
  std::ofstream(model, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  expect_error(run("--model " + in_quotes(model) + " --prompt x"), 1,
               model + ": the model's heads have 100 channels; nibkv takes multiples of 16 from 16 to 256");
}

TEST_F(AssistantTest, SaysThatAnArenaIsTooSmall) {
  const Result small = ask("--arena 1K --profile none --threads 4");
  EXPECT_EQ(small.status, 1);
  const std::size_t error = small.err.find("nibkv-assistant: an arena of 1024 bytes is too small; the smallest has ");
  ASSERT_NE(error, std::string::npos) << small.err;
  EXPECT_LE(columns_of(small.err.substr(error)), 100u) << small.err;
  EXPECT_GE(count_of(small.err.substr(error), "K) with --"), 2u) << small.err;
  EXPECT_NE(ask("--arena 1 --profile none").err.find("an arena of 1 byte is too small"), std::string::npos);
  expect_error(ask("--policy streaming_llm --tokens 3 --profile none"), 1, "more than 4 tokens");
}

// The tiny model with 4 threads.
TEST_F(AssistantTest, StartsInTheArenaThatItsErrorNamesAndNotInAByteLess) {
  const std::string options = " --profile none --threads 4 --max-tokens 1 --arena ";
  for (const std::string policy : {"ems", "streaming_llm", "full"}) {
    const Result small = ask("--policy " + policy + options + "1");
    const std::string bytes = figure(small, "the smallest has ");
    const std::uint64_t least = std::stoull(bytes);
    const Result less = ask("--policy " + policy + options + std::to_string(least - 1));
    EXPECT_EQ(less.status, 1);
    const std::string kilobytes = std::to_string((least + 1023) / 1024);
    EXPECT_NE(less.err.find("the smallest has " + std::to_string(least) + " (--arena " + kilobytes + "K)\n"),
              std::string::npos)
        << less.err;
    const Result exact =
        run("--model " + in_quotes(model_) + " --prompt a --policy " + policy + options + std::to_string(least));
    EXPECT_EQ(exact.status, 0) << exact.err;
    EXPECT_EQ(small.err.find("--policy full") != std::string::npos, policy != "full") << small.err;
    // Under ems both heads' scratch lies where making room works anyway.
    EXPECT_EQ(small.err.find("--threads 1") != std::string::npos, policy != "ems") << small.err;
  }
}

TEST_F(AssistantTest, SaysWhatAPolicyCannotDoWithTheProfile) {
  const std::string options = " --tokens 64 --max-tokens 1";
  EXPECT_EQ(figure(ask("--policy head_kv" + options), "policy 'head_kv' gives all heads the same budget"),
            ": the profile has no head scores (nibkv-eval head-scores)");
  for (const std::string profile : {"", " --profile none"}) {
    const Result result = ask("--policy minicache --tokens 256 --max-tokens 1" + profile);
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_EQ(count_of(result.err, "policy 'minicache' folds no layers: "), 1u) << result.err;
  }
  expect_error(ask("--policy minicache --set fold=aligned --arena 1K"), 1,
               "policy 'minicache fold=aligned' needs a profile with maps");
  expect_error(ask("--policy head_kv --profile none" + options), 1,
               "policy 'head_kv' needs a profile with head scores");
}

TEST_F(AssistantTest, AnswersTheSameWithAnyNumberOfThreadsAndAnyPort) {
  const Result first = ask("--greedy --max-tokens 5 --threads 1");
  EXPECT_EQ(first.status, 0) << first.err;
  EXPECT_EQ(first.out, "90717\n");
  const Result longer = ask("--greedy --max-tokens 60 --threads 1");
  EXPECT_EQ(ask("--greedy --max-tokens 60 --threads 1").out, longer.out);
  EXPECT_EQ(ask("--greedy --max-tokens 60 --threads 3").out, longer.out);
  EXPECT_EQ(ask("--greedy --max-tokens 60 --threads 2 --port scalar").out, longer.out);
}

TEST_F(AssistantTest, SaysWhenAnAnswerWasCut) {
  const std::string line = "nibkv-assistant: the answer was cut after 3 tokens (--max-tokens)\n";
  const Result prompt = ask("--greedy --max-tokens 3");
  EXPECT_EQ(prompt.status, 0);
  EXPECT_EQ(prompt.out, "907\n");
  EXPECT_NE(prompt.err.find(line), std::string::npos) << prompt.err;
  const Result chat = run("--model " + in_quotes(model_) + " --profile none --greedy --max-tokens 3", "a\nb\n");
  EXPECT_EQ(count_of(chat.err, line), 2u) << chat.err;
}

TEST_F(AssistantTest, SaysWhenStandardInputCannotBeRead) {
  const std::string options = "--model " + in_quotes(model_) + " --profile none";
  const Result result = shell(command_line(options) + " </");
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.err.find("nibkv-assistant: cannot read standard input: Is a directory\n"), std::string::npos)
      << result.err;
}

TEST_F(AssistantTest, DrawsTheSameTextFromTheSameSeed) {
  const std::string options = "--temperature 1 --top-p 0.95 --max-tokens 60 --profile none --seed ";
  const Result first = ask(options + "7");
  EXPECT_EQ(ask(options + "7").out, first.out);
  EXPECT_NE(ask(options + "8").out, first.out);
}

TEST_F(AssistantTest, RepeatsItselfLessWithAPenalty) {
  const std::string options = "--greedy --max-tokens 60 --profile none --repeat-penalty ";
  const auto kinds = [&](const std::string& penalty) {
    const std::string text = ask(options + penalty).out;
    return std::set<char>(text.begin(), text.end()).size();
  };
  EXPECT_EQ(ask(options + "1").out, ask("--greedy --max-tokens 60 --profile none").out);
  EXPECT_GT(kinds("3"), kinds("1"));
}

TEST_F(AssistantTest, EndsWithATableThatShowsNoHeapAllocationByNibkv) {
  for (const std::string options : {"--arena 1M", "--tokens 64", "--policy full --profile none --threads 3"}) {
    const Result result = ask("--greedy --max-tokens 20 " + options);
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_EQ(figure(result, "heap allocations by nibkv")[0], '0') << result.err;
    EXPECT_EQ(figure(result, "tokens, prompt / answer"), "134 / 20");
    EXPECT_NE(figure(result, "tokens/s, prefill / decode").find(" / "), std::string::npos);
    EXPECT_EQ(figure(result, "f16 bytes for all seen"), "391,680");
  }
  const std::string bytes = figure(ask("--arena 1M"), "arena bytes, used / total");
  EXPECT_LE(bytes.substr(bytes.find('/')), "/ 1,048,576") << bytes;
}

// What an earlier version of the library left next to the model.
TEST_F(AssistantTest, MakesAProfileOfAnotherVersionAnew) {
  const std::string profile = model_ + ".nibkv-profile";
  fs::remove(profile);
  const Result first = ask("--greedy --max-tokens 3");
  const std::string made = contents(profile);
  ASSERT_GT(made.size(), 5u) << first.err;
  std::string old = made;
  old[4] = 1;
  old.resize(old.size() - 2);
  std::ofstream(profile, std::ios::binary) << old;

  const Result second = ask("--greedy --max-tokens 3");
  EXPECT_EQ(second.status, 0) << second.err;
  EXPECT_NE(second.err.find("of another version"), std::string::npos) << second.err;
  EXPECT_NE(second.err.find("making a profile"), std::string::npos) << second.err;
  EXPECT_EQ(second.out, first.out);
  EXPECT_EQ(contents(profile), made);
}

// osaurus-ai/osaurus#1989: what is kept for a model is keyed by the file's name, and new weights
// under that name get it silently.
TEST_F(AssistantTest, MakesAProfileAnewWhereTheFileHasOtherWeights) {
  const std::string profile = model_ + ".nibkv-profile";
  fs::remove(profile);
  ASSERT_EQ(ask("--greedy --max-tokens 3").status, 0);
  const std::string of_old = contents(profile);
  const std::string weights = contents(model_);
  std::string changed = weights;
  // The lowest bits of the last numbers: a model of the same shape that works.
  for (std::size_t i = changed.size() - 34 * 20; i < changed.size(); ++i) {
    if ((changed.size() - i) % 34 < 32) changed[i] = static_cast<char>(changed[i] ^ 1);
  }
  std::ofstream(model_, std::ios::binary) << changed;
  const Result other = ask("--greedy --max-tokens 3");
  EXPECT_EQ(other.status, 0) << other.err;
  EXPECT_NE(other.err.find("with other weights; not used"), std::string::npos) << other.err;
  EXPECT_NE(other.err.find("making a profile"), std::string::npos) << other.err;
  EXPECT_NE(contents(profile), of_old);
  std::ofstream(profile, std::ios::binary) << of_old;
  const Result asked = ask("--greedy --max-tokens 3 --profile " + in_quotes(profile));
  EXPECT_EQ(asked.status, 1);
  EXPECT_NE(asked.err.find("with other weights"), std::string::npos) << asked.err;
  std::ofstream(model_, std::ios::binary) << weights;
}

TEST_F(AssistantTest, MakesAProfileAtItsFirstStartUsesItAndRepairsIt) {
  const std::string profile = model_ + ".nibkv-profile";
  fs::remove(profile);
  const Result first = ask("--greedy --max-tokens 3");
  EXPECT_NE(first.err.find("making a profile"), std::string::npos) << first.err;
  EXPECT_NE(first.err.find("8 outlier channels"), std::string::npos) << first.err;
  EXPECT_NE(first.err.find("all heads get the same number of slots: the model finds none of 10 needles"),
            std::string::npos)
      << first.err;
  const std::string made = contents(profile);
  EXPECT_FALSE(made.empty());

  const Result second = ask("--greedy --max-tokens 3");
  EXPECT_EQ(second.err.find("making a profile"), std::string::npos) << second.err;
  EXPECT_EQ(second.out, first.out);

  fs::resize_file(profile, made.size() / 2);
  const Result third = ask("--greedy --max-tokens 3");
  EXPECT_NE(third.err.find("not used"), std::string::npos) << third.err;
  EXPECT_EQ(contents(profile), made);

  const Result without = ask("--greedy --max-tokens 3 --profile none");
  EXPECT_NE(without.err.find("0 outlier channels"), std::string::npos) << without.err;
}

TEST_F(AssistantTest, ChatsOverAPipeAndRemembersTheTurnBefore) {
  const std::string model = "--model " + in_quotes(model_) + " --greedy --max-tokens 5";
  const Result result = run(model,
                            "The code for willow is 90717. What is the code for willow? \r\n\n"
                            "/stats\n And again. What is the code for willow? ");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out, "90717\n90717\n");
  EXPECT_EQ(result.err.find("> "), std::string::npos) << "no prompt without a terminal";
  // BOS and 59 bytes, then the last token of the first answer and 41 bytes.
  EXPECT_EQ(figure(result, "tokens, prompt / answer"), "60 / 5") << "at /stats";
  EXPECT_NE(result.err.find("102 / 10"), std::string::npos) << result.err;
}

TEST_F(AssistantTest, ObeysCommandsAndTakesOtherLinesWithASlashAsText) {
  const Result result =
      run("--model " + in_quotes(model_) + " --profile none --max-tokens 2",
          "/help \n/nonsense\n/help me\n/UNDO\n/context\nabc\n/reset\n/etc/hosts is\n/quit\nnever read\n");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_NE(result.err.find("/reset"), std::string::npos);
  const std::size_t help = result.err.find("  /context"), end = result.err.find("ones back.\n");
  ASSERT_LT(help, end) << result.err;
  EXPECT_LE(columns_of(result.err.substr(help, end - help)), 100u) << result.err;
  for (const char* command : {"  /undo ", "  /regenerate ", "  /help "})
    EXPECT_EQ(count_of(result.err, command), 1u) << result.err;
  EXPECT_NE(result.err.find("  the cache is empty\n"), std::string::npos);
  for (const char* line : {"/nonsense", "/help me", "/UNDO"}) {
    EXPECT_EQ(count_of(result.err, std::string("unknown command ") + line + "; /help lists them\n"), 1u) << result.err;
  }
  EXPECT_EQ(count_of(result.err, "/help lists commands"), 0u) << "no hint without a terminal";
  EXPECT_EQ(figure(result, "tokens, prompt / answer"), "14 / 2") << "since the reset";
}

TEST_F(AssistantTest, GoesOnPastTheLengthThatTheModelWasTrainedForAndSaysSoWhereNothingIsDropped) {
  std::string input;
  for (int i = 0; i < 30; ++i) input += "They walked along the river, and the evening came, and nobody spoke a word.\n";
  const std::string model =
      "--model " + in_quotes(model_) + " --profile none --greedy --max-tokens 20 --policy full --tokens 1024";
  const std::string file = folder_ + "/long";
  const Result result = run(model + " --save " + in_quotes(file), input);
  EXPECT_EQ(result.status, 0) << result.err;
  const std::string line =
      "nibkv-assistant: the conversation has come to the 1024 tokens that the model was trained for; it forgets";
  EXPECT_EQ(count_of(result.err, line), 4u) << result.err;
  EXPECT_EQ(figure(result, "tokens read again"), "1,520");

  // Saved and loaded in between, it continues in the same way.
  std::string pieces;
  for (int i = 0; i < 5; ++i) {
    const Result piece =
        run(model + (i == 0 ? "" : " --load " + in_quotes(file + "2")) + " --save " + in_quotes(file + "2"),
            input.substr(0, input.size() / 5));
    ASSERT_EQ(piece.status, 0) << piece.err;
    pieces += piece.out;
  }
  EXPECT_EQ(pieces, result.out);
  EXPECT_EQ(contents(file + "2"), contents(file));

  const Result full = run("--model " + in_quotes(model_) + " --profile none --policy full --tokens 128", input);
  EXPECT_EQ(full.status, 1);
  EXPECT_NE(full.err.find("nibkv-assistant: the arena is full"), std::string::npos) << full.err;
  EXPECT_NE(full.err.find("heap allocations by nibkv"), std::string::npos) << "the table comes all the same";
}

TEST_F(AssistantTest, HasNoEndWhereTheCacheDropsTokens) {
  std::string input;
  for (int i = 0; i < 30; ++i) input += "They walked along the river, and the evening came, and nobody spoke a word.\n";
  const std::string model = "--model " + in_quotes(model_) + " --profile none --greedy --max-tokens 20 --tokens 128";
  const Result result = run(model, input);
  EXPECT_EQ(result.err.find("trained for"), std::string::npos) << result.err;
  // BOS and 30 times 75 and 20 tokens, but for the last, which waits.
  EXPECT_TRUE(figure(result, "tokens, held / seen").ends_with(" / 2,850")) << result.err;
  // Saved and loaded in between, it continues in the same way.
  const std::string file = in_quotes(folder_ + "/endless");
  const Result first = run(model + " --save " + file, input.substr(0, input.size() / 2));
  EXPECT_EQ(first.out + run(model + " --load " + file, input.substr(input.size() / 2)).out, result.out);
}

TEST_F(AssistantTest, RefusesAMessageThatIsLongerThanTheModelReadsAndKeepsTheConversation) {
  const std::string model =
      "--model " + in_quotes(model_) + " --profile none --greedy --max-tokens 5 --policy full --tokens 1024";
  const std::string file = in_quotes(folder_ + "/kept-talk"), after = in_quotes(folder_ + "/kept-after");
  ASSERT_EQ(run(model + " --save " + file, "The code for willow is 90717. ").status, 0);
  const Result result = run(model + " --load " + file + " --save " + after, std::string(2000, 'x'));
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.err.find("nibkv-assistant: the message is too long: with what stands around it, it has 2001 tokens"),
            std::string::npos)
      << result.err;
  EXPECT_EQ(contents(folder_ + "/kept-after"), contents(folder_ + "/kept-talk"));
}

// LostRuins/koboldcpp#2151
TEST_F(AssistantTest, AnswersAfterResetAsInANewStartWithTheSameSeed) {
  const std::string options =
      "--model " + in_quotes(model_) + " --profile none --temperature 1 --seed 5 --max-tokens 40 --tokens 64";
  const std::string question = "They went to the river. Why?\n";
  const Result fresh = run(options, question);
  const Result used =
      run(options, "One.\nTwo, and a little more, so that something is forgotten.\n/reset\n" + question);
  ASSERT_EQ(used.status, 0) << used.err;
  EXPECT_GT(fresh.out.size(), 30u);
  EXPECT_TRUE(used.out.ends_with("\n" + fresh.out)) << used.out << "\nand\n" << fresh.out;
}

// At 2 bits some layers of the tiny model get wider codes, unless the settings say which do.
TEST_F(AssistantTest, WidensLayersThatNeedIt) {
  const std::string options = "--prompt hello --max-tokens 2 --greedy --profile none ";
  const Result widened = run(options + "--storage q2");
  EXPECT_EQ(widened.status, 0) << widened.err;
  EXPECT_NE(widened.err.find("keys of 8 bits in layer"), std::string::npos) << widened.err;
  EXPECT_NE(widened.err.find("policy ems wide="), std::string::npos) << widened.err;
  EXPECT_NE(widened.err.find("storage=q2"), std::string::npos) << widened.err;
  const Result said = run(options + "--storage q2 --set wide=0");
  EXPECT_EQ(said.status, 0);
  EXPECT_EQ(said.err.find("keys of 8 bits"), std::string::npos) << said.err;
  EXPECT_EQ(run(options + "--storage q4").err.find("keys of 8 bits"), std::string::npos);
  EXPECT_EQ(run(options + "--storage f32").status, 2);
}

// Keys are measured from the first message, if it is long enough.
TEST_F(AssistantTest, SaysWhenTheFirstMessageIsTooShortToMeasureKeys) {
  const std::string options = "--profile measured --greedy --max-tokens 3";
  const Result longer = ask(options), brief = ask(options, "Hello"),
               none = ask("--profile none --max-tokens 3", "Hello");
  for (const Result* result : {&longer, &brief, &none}) EXPECT_EQ(result->status, 0) << result->err;
  const std::string said = "nothing is measured of the model's keys, which takes 16 tokens";
  EXPECT_EQ(longer.err.find(said), std::string::npos) << longer.err;
  EXPECT_NE(longer.err.find("4 outlier channels"), std::string::npos) << longer.err;
  EXPECT_EQ(count_of(brief.err, said), 1u) << brief.err;
  EXPECT_EQ(none.err.find(said), std::string::npos) << none.err;
  const Result folds = ask(options + " --policy minicache");
  EXPECT_EQ(folds.status, 0) << folds.err;
  EXPECT_NE(folds.err.find("policy 'minicache' measures nothing of the keys"), std::string::npos) << folds.err;
}

}  // namespace
