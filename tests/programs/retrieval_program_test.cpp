#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>

#include "bench/eval/report/retrieval_report.hpp"
#include "bench/eval/report/sweep_report.hpp"
#include "bench/runner/gguf/gguf.hpp"
#include "bench/runner/model/model_config.hpp"
#include "nibkv/nibkv.hpp"
#include "tests/programs/program.hpp"

namespace {

namespace fs = std::filesystem;

using nibkv::test::contents;
using nibkv::test::count_of;
using nibkv::test::in_quotes;
using nibkv::test::Result;

class RetrievalProgramTest : public nibkv::test::ProgramTest {
 protected:
  RetrievalProgramTest() : ProgramTest("nibkv-eval") {}

  Result command(const std::string& name, const std::string& options) const {
    return run(on_text(name) + " --threads 2 " + options);
  }
  Result retrieval(const std::string& options) const {
    return command("retrieval", "--needles code --lengths 256 --depths 3 --seeds 2 " + options);
  }
  static std::size_t rows(const std::string& json) { return count_of(json, "\"seed\""); }
};

TEST_F(RetrievalProgramTest, AsksAndKeepsRowsSumsAndAMap) {
  const Result result = retrieval("--json " + quoted("r.json") + " --svg " + quoted("map.svg"));
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_NE(result.out.find("95 % interval"), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("f32"), std::string::npos);
  const std::string json = contents(at("r.json"));
  EXPECT_EQ(rows(json), 6u);
  for (const char* member : {"\"accuracy\"", "\"low\"", "\"policy\": \"f32\"", "\"mode\": \"either\"", "\"depth\": 0.5",
                             "\"needle\": \"code\"", "\"length\": 256", "\"right\": "}) {
    EXPECT_NE(json.find(member), std::string::npos) << member;
  }
  EXPECT_TRUE(contents(at("map.svg")).starts_with("<svg "));
}

TEST_F(RetrievalProgramTest, NamesOneMapForEachCacheAndMode) {
  const Result result =
      retrieval("--policies full,streaming_llm,ems --tokens 128 --depths 2 --seeds 1 --svg " + quoted("many.svg"));
  // An option given twice is a separate error.
  expect_error(result, 2, "--depths");
  const Result good = command("retrieval",
                              "--needles code --lengths 256 --depths 2 --seeds 1 --tokens 128 "
                              "--policies full,streaming_llm,ems --svg " +
                                  quoted("many.svg"));
  EXPECT_EQ(good.status, 0) << good.err;
  for (const char* name : {"full-code", "streaming_llm-128-unseen-code", "ems-128-unseen-code", "ems-128-seen-code"}) {
    EXPECT_TRUE(fs::exists(at(std::string("many-") + name + ".svg"))) << name;
  }
  EXPECT_FALSE(fs::exists(at("many.svg")));
  EXPECT_FALSE(fs::exists(at("many-streaming_llm-128-seen-code.svg")));
}

TEST_F(RetrievalProgramTest, AsksF16CachesAsLargeAsTheArenaOfEms) {
  const Result good = run(on_text("retrieval") +
                          " --threads 1 --needles code --lengths 256 --depths 3 --seeds 2 --tokens 100 --policies "
                          "ems,f16_last,f16_sinks --json " +
                          quoted("f16.json"));
  EXPECT_EQ(good.status, 0) << good.err;
  EXPECT_EQ(good.err,
            "nibkv-eval: note: f16_last keeps no scores and is left out where the question is seen\n"
            "nibkv-eval: note: f16_sinks keeps no scores and is left out where the question is seen\n");
  const nibkv::llm::RetrievalReport report = nibkv::llm::RetrievalReport::parse(contents(at("f16.json")));
  ASSERT_EQ(report.rows.size(), 24u) << "ems in two modes";
  const nibkv::llm::Config config = nibkv::llm::Config::from(nibkv::llm::Gguf::open(model_));
  const std::uint64_t token_bytes = 4 * config.layers * config.kv_heads * config.head_dim;
  ASSERT_EQ(report.rows[0].mode, "unseen");
  const std::uint64_t tokens = report.rows[0].arena_bytes / token_bytes;
  EXPECT_LT(tokens, 100u);
  for (std::size_t i = 12; i < 24; ++i) {
    EXPECT_EQ(report.rows[i].policy, i < 18 ? "f16_last" : "f16_sinks");
    EXPECT_EQ(report.rows[i].mode, "unseen");
    EXPECT_EQ(report.rows[i].tokens, tokens);
    EXPECT_EQ(report.rows[i].arena_bytes, tokens * token_bytes);
    EXPECT_FALSE(report.rows[i].right && report.rows[i].depth == 0) << "it lies before the window";
  }
}

TEST_F(RetrievalProgramTest, FindsInASweepWhatItFindsAlone) {
  const std::string sweep =
      "--context 256 --policies full,ems --budgets 128 --retrieval 5 --json " + quoted("asked.json");
  const Result asked = command("sweep", sweep + " --needles code");
  EXPECT_EQ(asked.status, 0) << asked.err;
  EXPECT_NE(asked.out.find(" found\n"), std::string::npos) << asked.out;
  ASSERT_EQ(command("retrieval",
                    "--needles code --lengths 246 --depths 5 --seeds 1 --policies full,ems --tokens 128 "
                    "--mode unseen --json " +
                        quoted("alone.json"))
                .status,
            0);
  const nibkv::llm::SweepReport swept = nibkv::llm::SweepReport::parse(contents(at("asked.json")));
  const nibkv::llm::RetrievalReport alone = nibkv::llm::RetrievalReport::parse(contents(at("alone.json")));
  ASSERT_EQ(swept.rows.size(), 2u);
  for (const nibkv::llm::SweepRow& row : swept.rows) {
    std::uint64_t right = 0;
    for (const auto& other : alone.rows) right += other.policy == row.what.policy && other.right ? 1 : 0;
    EXPECT_EQ(row.retrieval_correct, right) << row.what.policy;
    EXPECT_EQ(row.retrieval_asked, 5u);
    EXPECT_GT(right, 0u);
  }
  expect_error(command("sweep", sweep + " --resume"), 1, "its rows are of needles 'code', not of needles 'passkey'");
  expect_error(command("sweep", sweep + " --needles pin"), 2, "--needles takes passkey");
  expect_error(command("sweep", "--needles code"), 2, "--needles needs --retrieval");
  expect_error(command("sweep", "--retrieval 0"), 2, "--retrieval takes a whole number");
  expect_error(command("sweep", "--context 64 --policies full --retrieval 1 --json -"), 1, "too short for the needle");
}

TEST_F(RetrievalProgramTest, ShortensAPromptThatFillsTheModelsContext) {
  const Result result =
      command("retrieval", "--needles sentence --lengths 1024 --depths 1 --seeds 1 --json " + quoted("long.json"));
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.err,
            "nibkv-eval: note: prompts of 1024 tokens get 1014, so that an answer fits the model's context\n");
  EXPECT_NE(contents(at("long.json")).find("\"length\": 1024"), std::string::npos);
}

TEST_F(RetrievalProgramTest, GoesOnWhereItStopped) {
  const std::string json = "--json " + quoted("resumed.json");
  ASSERT_EQ(retrieval(json).status, 0);
  const std::string first = contents(at("resumed.json"));
  const Result again = retrieval(json + " --resume");
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(contents(at("resumed.json")), first);
  const Result more = retrieval(json + " --resume --policies f32,full");
  EXPECT_EQ(more.status, 0) << more.err;
  EXPECT_EQ(rows(contents(at("resumed.json"))), 12u);
  expect_error(retrieval(json + " --resume --prompt chat"), 1, "another prompt");
  std::ofstream(at("broken.json")) << "{";
  expect_error(retrieval("--resume --json " + quoted("broken.json")), 1, "cannot go on from " + at("broken.json"));
}

TEST_F(RetrievalProgramTest, CallsWrongOptionsUsageErrors) {
  expect_error(run("retrieval"), 2, "--text is missing");
  expect_error(command("retrieval", "--needles pin"), 2, "--needles takes passkey");
  expect_error(command("retrieval", "--mode later"), 2, "--mode takes unseen, seen or both");
  expect_error(command("retrieval", "--prompt html"), 2, "--prompt takes plain or chat");
  expect_error(command("retrieval", "--lengths 10"), 2, "--lengths takes numbers");
  expect_error(command("retrieval", "--policies f32,magic"), 2, "unknown policy 'magic'");
  expect_error(command("retrieval", "--policies ems"), 2, "needs --tokens");
  expect_error(command("retrieval", "--policies f32 --policy full"), 2, "exclude each other");
  expect_error(command("retrieval", "--resume"), 2, "--resume needs --json");
  expect_error(command("retrieval", "--policies streaming_llm --tokens 64 --mode seen"), 2, "keep scores");
  expect_error(command("retrieval", "--policies f16_last"), 2, "needs --tokens");
  expect_error(command("retrieval", "--policies f16_last,f16_sinks --tokens 64 --mode seen"), 2, "keep scores");
  expect_error(command("retrieval", "--lengths 1025"), 1, "larger than the model's context of 1024");
  expect_error(retrieval("--json /no/such/x.json"), 1, "cannot write /no/such/x.json");
  expect_error(command("head-scores", ""), 2, "--profile is missing");
  expect_error(command("head-scores", "--profile x"), 2, "--out is missing");
  expect_error(command("heads", ""), 2, "--svg is missing");
}

TEST_F(RetrievalProgramTest, AsksQuestionsOfPublishedBenchmarks) {
  // Questions of the kind that the tiny model knows.
  std::string lines;
  for (const char* code : {"12345", "70881"}) {
    lines += std::string("{\"index\": 0, \"input\": \"") + contents(at("text")).substr(0, 90);
    std::replace(lines.begin(), lines.end(), '\n', ' ');
    lines += std::string("\\nThe code for river is ") + code +
             ".\\n\\nWhat is the code for river?\", \"answer_prefix\": \" \", \"outputs\": [\"" + code + "\"]}\v";
  }
  std::replace(lines.begin(), lines.end(), '\v', '\n');
  std::ofstream(at("niah_1.jsonl"), std::ios::binary) << lines;
  const auto benchmark = [this](const std::string& options) {
    return run("benchmark --model " + in_quotes(model_) + " --threads 2 " + options);
  };
  const Result good = benchmark("--ruler " + quoted("niah_1.jsonl") + " --policies f32,ems,full --tokens 96 --json " +
                                quoted("b.json"));
  EXPECT_EQ(good.status, 0) << good.err;
  EXPECT_EQ(figure(good.out, "RULER, task "), "niah");
  EXPECT_NE(figure(good.out, "f32").find(" 2    2  100.0 %"), std::string::npos) << good.out;
  EXPECT_NE(good.out.find("ems, 96 tokens a head, question unseen"), std::string::npos) << good.out;
  EXPECT_NE(good.out.find("ems, 96 tokens a head, question seen"), std::string::npos) << good.out;
  const std::string json = contents(at("b.json"));
  EXPECT_EQ(count_of(json, "\"said\": "), 8u) << json;
  EXPECT_NE(json.find("70881"), std::string::npos);

  std::ofstream(at("story"), std::ios::binary)
      << "[{\"input\": \"Mary went home.\", \"question\": \"Where is Mary?\", \"target\": \"office\"}]";
  const Result story = benchmark("--babilong " + quoted("story") + " --task qa1 --samples 1 --answer-tokens 2");
  EXPECT_EQ(story.status, 0) << story.err;
  EXPECT_NE(figure(story.out, "f32").find(" 0    1    0.0 %"), std::string::npos) << story.out;

  std::ofstream(at("bad"), std::ios::binary) << lines << "{\"input\": 3}\n";
  expect_error(benchmark("--ruler " + quoted("bad") + " --task niah"), 1, "/bad, line 3: JSON: expected a text");
  expect_error(benchmark("--ruler " + quoted("niah_1.jsonl") + " --answer-tokens 60000"), 1,
               "niah_1.jsonl, question 1: ");
  expect_error(benchmark("--babilong " + quoted("story") + " --task qa6"), 1, "'office' is no answer of qa6");
  expect_error(benchmark("--ruler " + quoted("bad")), 2, "--task is missing");
  expect_error(benchmark("--ruler x --babilong y"), 2, "it takes either --ruler or --babilong");
  expect_error(benchmark(""), 2, "it takes either --ruler or --babilong");
  expect_error(benchmark("--ruler niah/x --instructions y"), 2, "--instructions is for --babilong");
  expect_error(benchmark("--ruler niah/x --policies ems"), 2, "policy 'ems' needs --tokens");
  expect_error(benchmark("--babilong qa1/x --instructions " + quoted("text")), 1, "No such file");
}

TEST_F(RetrievalProgramTest, PutsHeadScoresIntoAProfile) {
  ASSERT_EQ(command("profile", "--tokens 400 -o " + quoted("in.profile")).status, 0);
  const std::string before = contents(at("in.profile"));
  const std::string options = "--needles code --lengths 300 --depths 3 --seeds 1 --profile ";
  const Result result = command(
      "head-scores", options + quoted("in.profile") + " -o " + quoted("out.profile") + " --header " + quoted("p.hpp"));
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_NE(result.out.find("needles found "), std::string::npos) << result.out;
  EXPECT_EQ(contents(at("in.profile")), before);
  const std::string after = contents(at("out.profile"));
  ASSERT_EQ(after.size(), before.size());
  EXPECT_NE(after, before);
  EXPECT_NE(contents(at("p.hpp")).find("kProfile[" + std::to_string(after.size()) + "]"), std::string::npos);
  const Result used = command(
      "perplexity", "--context 256 --windows 1 --policy head_kv --tokens 128 --profile " + quoted("out.profile"));
  EXPECT_EQ(used.status, 0) << used.err;
  expect_error(command("head-scores", options + quoted("text") + " -o " + quoted("x")), 1, "the profile is missing");
  EXPECT_FALSE(fs::exists(at("x")));
}

TEST_F(RetrievalProgramTest, DrawsWhatHeadsHold) {
  const Result result = command("heads", "--policy streaming_llm --tokens 128 --context 400 --svg " + quoted("h.svg"));
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(figure(result.out, "context "), "400");
  EXPECT_TRUE(contents(at("h.svg")).starts_with("<svg "));
  expect_error(command("heads", "--context 999999 --svg " + quoted("h.svg")), 1, "less than the 999999 asked for");
}

}  // namespace
