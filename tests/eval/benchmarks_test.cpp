#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "bench/eval/benchmarks/babilong.hpp"
#include "bench/eval/benchmarks/ruler.hpp"
#include "bench/eval/report/benchmark_report.hpp"
#include "bench/runner/programs/arguments.hpp"

namespace nibkv::llm::benchmarks_test {
namespace {

template <typename Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

Sample question(std::vector<std::string> answers, const std::string& asked = "") {
  return {"prompt", "", asked, std::move(answers)};
}

TEST(Ruler, IsReadLineByLine) {
  const std::vector<Sample> samples =
      read_ruler("f.jsonl",
                 "{\"index\": 0, \"input\": \"A\\nB?\", \"outputs\": [\"1\", \"2\"], \"length\": 9, \"answer_prefix\": "
                 "\" It is\", "
                 "\"others\": {\"x\": null}}\r\n\n{\"input\": \"C\", \"outputs\": [\"3\"]}");
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_EQ(samples[0].prompt, "A\nB?");
  EXPECT_EQ(samples[0].lead, " It is");
  EXPECT_EQ(samples[0].answers, (std::vector<std::string>{"1", "2"}));
  EXPECT_EQ(samples[1].prompt, "C");
  EXPECT_EQ(samples[1].lead, "");
}

TEST(Ruler, NamesTheLineOfWhatIsWrong) {
  const std::string good = "{\"input\": \"A\", \"outputs\": [\"1\"]}\n";
  const auto says = [&](const std::string& line) {
    return error_of([&] { read_ruler("f", good + "\n" + line + "\n" + good); });
  };
  EXPECT_EQ(says("{\"input\": \"A\"}"), "f, line 3: JSON: there is no 'outputs'");
  EXPECT_EQ(says("{\"outputs\": [\"1\"]}"), "f, line 3: JSON: there is no 'input'");
  EXPECT_EQ(says("{\"input\": \"A\", \"outputs\": \"1\"}"), "f, line 3: JSON: expected an array");
  EXPECT_EQ(says("{\"input\": \"A\", \"outputs\": [1]}"), "f, line 3: JSON: expected a text");
  EXPECT_EQ(says("{\"input\": \"A\", \"outputs\": []}"), "f, line 3: there are no outputs");
  EXPECT_EQ(says("{\"input\": \"A\", \"outputs\": [\"\"]}"),
            "f, line 3: an output is empty, so that any answer has it");
  EXPECT_EQ(says("{\"input\": \"\", \"outputs\": [\"1\"]}"), "f, line 3: the input is empty");
  EXPECT_EQ(says("{\"input\": \"A"), "f, line 3: JSON: expected '\"' at byte 12");
  EXPECT_EQ(says("7"), "f, line 3: JSON: there is no 'input'");
  EXPECT_EQ(error_of([] { read_ruler("f", " \n\n"); }), "f: there are no questions in it");
  EXPECT_EQ(error_of([] { read_ruler("f", ""); }), "f: there are no questions in it");
}

TEST(Ruler, CountsOutputsInAnyCase) {
  const BenchmarkTask niah = ruler_task("niah"), qa = ruler_task("qa");
  EXPECT_EQ(niah.answer_tokens, 128u);
  EXPECT_EQ(qa.answer_tokens, 32u);
  const Sample two = question({"Paris", "12345"});
  EXPECT_EQ(niah.score(two, "It is PARIS."), 0.5);
  EXPECT_EQ(niah.score(two, "12345 and paris"), 1);
  EXPECT_EQ(niah.score(two, "1234"), 0);
  EXPECT_EQ(qa.score(two, "in pARIs"), 1);
  EXPECT_EQ(qa.score(two, "in Rome"), 0);
  EXPECT_EQ(ruler_task("vt").score(two, "paris"), 0.5);
  EXPECT_FALSE(niah.is_over(two, "It is PARIS."));
  EXPECT_TRUE(niah.is_over(two, "12345 and paris"));
  EXPECT_TRUE(qa.is_over(two, "paris"));
  EXPECT_THROW(ruler_task("qa1"), UsageError);
  EXPECT_THROW(ruler_task(""), UsageError);
}

TEST(Ruler, FindsTheTaskInAPath) {
  EXPECT_EQ(ruler_task_of("data/niah_single_1/validation.jsonl"), "niah");
  EXPECT_EQ(ruler_task_of("/vt/qa_2/validation.jsonl"), "qa");
  EXPECT_EQ(ruler_task_of("cwe.jsonl"), "cwe");
  EXPECT_EQ(ruler_task_of("fwe/"), "fwe");
  EXPECT_EQ(ruler_task_of("qatar/niahs/validation.jsonl"), "");
  EXPECT_EQ(ruler_task_of(""), "");
}

TEST(Babilong, IsReadFromLinesAndFromAnArray) {
  const std::string one = R"({"input": "Mary is {question} here.", "question": "Where?", "target": "kitchen"})";
  BabilongPrompt prompt;
  prompt.instruction = "I";
  prompt.form = "\n{instruction}{examples}<{context}> {unknown} {question}\n";
  for (const std::string& text : {one + "\n" + one + "\n", "[" + one + ", " + one + "]"}) {
    const std::vector<Sample> samples = read_babilong("f", text, prompt);
    ASSERT_EQ(samples.size(), 2u) << text;
    EXPECT_EQ(samples[1].prompt, "I<Mary is {question} here.> {unknown} Where?");
    EXPECT_EQ(samples[1].question, "Where?");
    EXPECT_EQ(samples[1].answers, std::vector<std::string>{"kitchen"});
  }
  const std::string bad = R"({"input": "A", "question": "B"})", empty = R"({"input":"A","question":"B","target":""})";
  const auto says = [&](const std::string& text) { return error_of([&] { read_babilong("f", text, prompt); }); };
  EXPECT_EQ(says(one + "\n" + bad), "f, line 2: JSON: there is no 'target'");
  EXPECT_EQ(says("[" + one + "," + empty + "]"), "f, element 2: the target is empty");
  EXPECT_EQ(says("[" + one), "f: JSON: expected ']' at byte " + std::to_string(one.size() + 1));
  EXPECT_EQ(says("[]"), "f: there are no questions in it");
  const std::string plain = BabilongPrompt::plain().write("THE TEXT", "WHAT?");
  EXPECT_LT(plain.find("THE TEXT"), plain.find("WHAT?"));
  EXPECT_EQ(plain.find('{'), std::string::npos);
}

TEST(Babilong, TakesPublishedInstructions) {
  const BabilongPrompt bare = BabilongPrompt::parse(R"({"instruction": "I", "examples": "E", "post_prompt": "P"})");
  EXPECT_EQ(bare.write("C", "Q"), "I\nE\nP\n<context>\nC\n</context>\nQuestion: Q");
  const BabilongPrompt kept = BabilongPrompt::parse(
      R"({"prompt": {"instruction": "I", "template": "{question}|{context}|{instruction}"}, "generate_kwargs": {}})");
  EXPECT_EQ(kept.write("C", "Q"), "Q|C|I");
  EXPECT_EQ(error_of([] { BabilongPrompt::parse(R"({"instruction": "I", "template": "{context}"})"); }),
            "the template has no {question}");
  EXPECT_THROW(BabilongPrompt::parse("{}"), Error);
}

TEST(Babilong, WantsTheTargetAndNoOtherLabelInTheFirstSentence) {
  const Sample kitchen = question({"kitchen"}, "Where is Mary?");
  const BenchmarkTask qa1 = babilong_task("qa1", {kitchen});
  EXPECT_EQ(qa1.answer_tokens, 20u);
  EXPECT_EQ(qa1.score(kitchen, " In the Kitchen"), 1);
  EXPECT_EQ(qa1.score(kitchen, "the kitchen. Not the garden."), 1);
  EXPECT_EQ(qa1.score(kitchen, "the kitchen or the garden"), 0);
  EXPECT_EQ(qa1.score(kitchen, "I do not know. The kitchen"), 0);
  EXPECT_EQ(qa1.score(kitchen, "garden"), 0);
  EXPECT_EQ(qa1.score(kitchen, ""), 0);
  EXPECT_EQ(qa1.score(kitchen, "kitchen <example> garden"), 1);
  EXPECT_FALSE(qa1.is_over(kitchen, "the kitchen"));
  EXPECT_TRUE(qa1.is_over(kitchen, "the kitchen."));

  const Sample before = question({"garden"}, "Where was the milk before the kitchen?");
  EXPECT_EQ(babilong_task("qa3", {before}).score(before, "Before the kitchen it was in the garden"), 1)
      << "what the question names does not count";
  const Sample person = question({"Fred"}, "Who gave the milk to Bill?");
  EXPECT_EQ(babilong_task("qa5", {person}).score(person, "FRED gave the milk to Bill"), 1);
  EXPECT_EQ(babilong_task("qa5", {person}).score(person, "Fred or Mary"), 0);
  const Sample both = question({"apple,milk"}, "What is Mary carrying?");
  const BenchmarkTask qa8 = babilong_task("qa8", {both});
  EXPECT_EQ(qa8.score(both, "milk and an apple"), 1);
  EXPECT_EQ(qa8.score(both, "milk"), 0);
  EXPECT_EQ(qa8.score(both, "milk, apple, football"), 0);
}

TEST(Babilong, KnowsWhatAnswersOfATaskMayBe) {
  const Sample milk = question({"milk"}), wolf = question({"Wolf"}), cat = question({"cat"});
  EXPECT_EQ(error_of([&] { babilong_task("qa1", {milk}); }), "the target 'milk' is no answer of qa1");
  EXPECT_EQ(babilong_task("qa15", {wolf, cat}).score(wolf, "a wolf"), 1);
  EXPECT_EQ(babilong_task("qa15", {wolf, cat}).score(wolf, "a wolf, a cat"), 0) << "the targets of the others";
  for (const char* name : {"qa0", "qa21", "qa", "niah", "", "qa1x"}) EXPECT_THROW(babilong_task(name, {}), UsageError);
  EXPECT_EQ(babilong_task_of("babilong/qa2/4k.json"), "qa2");
  EXPECT_EQ(babilong_task_of("qa10_0k.jsonl"), "qa10");
  EXPECT_EQ(babilong_task_of("qa99/4k.json"), "");
}

TEST(BenchmarkReport, AveragesTheScoresOfEachCache) {
  BenchmarkReport report;
  report.benchmark = "RULER";
  report.task = "niah";
  for (const char* policy : {"f32", "ems"}) {
    for (const double score : {1.0, 0.5, 0.0, policy[0] == 'f' ? 1.0 : 0.0}) {
      BenchmarkRow row;
      row.policy = policy;
      row.mode = policy[0] == 'f' ? "either" : "seen";
      row.tokens = policy[0] == 'f' ? 0 : 64;
      row.length = 100;
      row.score = score;
      report.rows.push_back(row);
    }
  }
  const std::string table = report.as_table();
  EXPECT_NE(table.find("f32                                      100      2    4   62.5 %  "), std::string::npos)
      << table;
  EXPECT_NE(table.find("ems, 64 tokens a head, question seen     100      1    4   37.5 %"), std::string::npos)
      << table;
  const JsonValue json = JsonValue::parse(report.as_json());
  ASSERT_EQ(json.at("sums").elements().size(), 2u);
  EXPECT_EQ(json.at("sums").elements()[1].at("score").number(), 0.375);
  EXPECT_EQ(json.at("rows").elements().size(), 8u);
}

}  // namespace
}  // namespace nibkv::llm::benchmarks_test
