#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/programs/program.hpp"
#include "tests/support/gguf_writer.hpp"

namespace {

namespace fs = std::filesystem;

using nibkv::test::contents;
using nibkv::test::count_of;
using nibkv::test::in_quotes;
using nibkv::test::Result;

class EvalTest : public nibkv::test::ProgramTest {
 protected:
  EvalTest() : ProgramTest("nibkv-eval") {}

  Result perplexity(const std::string& options) const { return run(on_text("perplexity") + " " + options); }

  Result profile(const std::string& options, const std::string& out = "profile") const {
    return run(on_text("profile") + " -o " + quoted(out) + " " + options);
  }

  // The result for a model with two layers.
  static std::string profile_of_another_model() {
    nibkv::Shape shape;
    shape.layers = 2;
    shape.query_heads = 2;
    shape.kv_heads = 1;
    shape.head_dim = 64;
    std::vector<double> memory(nibkv::calibration_bytes(shape) / sizeof(double) + 1);
    nibkv::Calibrator calibrator;
    EXPECT_EQ(calibrator.init(std::as_writable_bytes(std::span(memory)), shape), nibkv::Status::kOk);
    std::vector<float> row(128);
    for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i % 7) - 3;
    const std::span<const float> queries(row), keys = queries.first(64);
    for (std::uint32_t layer = 0; layer < 2; ++layer) {
      EXPECT_EQ(calibrator.observe(layer, queries, keys, keys), nibkv::Status::kOk);
    }
    std::string bytes(nibkv::profile_bytes(shape), '\0');
    EXPECT_EQ(calibrator.write(std::as_writable_bytes(std::span(bytes))), nibkv::Status::kOk);
    return bytes;
  }

  static double number(const Result& result, const std::string& name) {
    return std::stod(figure("\n" + result.out, name + " "));
  }
};

TEST_F(EvalTest, ReportsTheSameFiguresAsLinesAndAsJson) {
  const std::string options = "--context 128 --windows 2 --threads 1 --json ";
  const Result result = perplexity(options + quoted("report.json"));
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.err, "") << "no progress without a terminal";
  EXPECT_EQ(number(result, "windows"), 2);
  EXPECT_EQ(number(result, "context"), 128);
  EXPECT_EQ(number(result, "scored_tokens"), 128);
  EXPECT_EQ(number(result, "threads"), 1);
  EXPECT_EQ(number(result, "outlier_channels"), 4) << "without a profile keys are measured";
  EXPECT_EQ(figure(result.out, "storage "), "q4");
  EXPECT_EQ(figure(result.out, "policy "), "full");
  EXPECT_NEAR(number(result, "perplexity"), std::exp(number(result, "cross_entropy")), 1e-4);
  EXPECT_GT(number(result, "kl_divergence"), 0);
  EXPECT_GT(number(result, "tokens_per_second"), 0);
  EXPECT_LE(number(result, "peak_bytes"), number(result, "arena_bytes"));

  const std::string json = contents(at("report.json"));
  EXPECT_EQ(json.substr(0, 17), "{\n  \"windows\": 2,") << json;
  for (const char* name :
       {"windows", "context", "scored_tokens", "storage", "policy", "outlier_channels", "port", "threads",
        "cross_entropy", "standard_error", "perplexity", "cross_entropy_f32", "kl_divergence", "top1_agreement",
        "bits_per_channel", "arena_bytes", "peak_bytes", "tokens_per_second"}) {
    EXPECT_NE(("\n" + result.out).find("\n" + std::string(name) + " "), std::string::npos) << name;
    EXPECT_NE(json.find("\n  \"" + std::string(name) + "\": "), std::string::npos) << name;
  }
  const double exact = std::stod(figure(json, "\"cross_entropy\":"));
  EXPECT_NEAR(exact, number(result, "cross_entropy"), 1e-5);

  const Result piped = perplexity(options + "-");
  EXPECT_EQ(piped.out.substr(0, 2), "{\n");
  EXPECT_EQ(figure(piped.out, "\"cross_entropy\":"), figure(json, "\"cross_entropy\":"));
}

TEST_F(EvalTest, FindsTheReferenceEqualToItselfOnAnyPort) {
  const Result result = perplexity("--context 128 --windows 1 --storage f32 --port scalar --threads 3");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(figure(result.out, "port "), "scalar");
  EXPECT_EQ(number(result, "kl_divergence"), 0);
  EXPECT_EQ(number(result, "top1_agreement"), 1);
  EXPECT_EQ(figure(result.out, "cross_entropy "), figure(result.out, "cross_entropy_f32 "));
}

TEST_F(EvalTest, MakesAProfileThatItReads) {
  const Result made = profile("--tokens 600 --context 256 --header " + quoted("profile.hpp"));
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_EQ(made.out, "");
  EXPECT_EQ(made.err, "nibkv-eval: profile kept in " + at("profile") + " and " + at("profile.hpp") + "\n");
  const std::string bytes = contents(at("profile"));
  ASSERT_FALSE(bytes.empty());
  const std::string header = contents(at("profile.hpp"));
  EXPECT_NE(header.find("kProfile[" + std::to_string(bytes.size()) + "]"), std::string::npos);

  const std::string options = "--context 128 --windows 2 --profile " + quoted("profile");
  const Result eight = perplexity(options);
  EXPECT_EQ(eight.status, 0) << eight.err;
  EXPECT_EQ(number(eight, "outlier_channels"), 8);
  const Result none = perplexity(options + " --outliers 0");
  EXPECT_EQ(number(none, "outlier_channels"), 0);
  EXPECT_LT(number(none, "bits_per_channel"), number(eight, "bits_per_channel"));
}

TEST_F(EvalTest, ShowsWhichNeighbouringLayersAreAlike) {
  ASSERT_EQ(profile("--tokens 600 --context 256", "direct").status, 0);
  ASSERT_EQ(profile("--tokens 600 --context 256 --align", "aligned").status, 0);
  const auto layers = [&](const std::string& options) { return run("layers --profile " + options); };

  const Result direct = layers(quoted("direct") + " --json -");
  EXPECT_EQ(direct.status, 0) << direct.err;
  EXPECT_EQ(figure(direct.out, "\"aligned\":"), "null,") << "nobody asked for it";

  // Only a cosine above 1 would be refused: pairs go from layer 0 to the last layer, one
  // directly above the other.
  const Result low =
      layers(quoted("aligned") + " --min-cosine -1 --svg " + quoted("layers.svg") + " --json " + quoted("layers.json"));
  EXPECT_EQ(low.status, 0) << low.err;
  EXPECT_NE(low.out.find("\n  0    1"), std::string::npos) << low.out;
  EXPECT_NE(low.out.find("direct"), std::string::npos) << low.out;
  EXPECT_EQ(low.out.find("refuse"), std::string::npos) << low.out;
  const std::string svg = contents(at("layers.svg"));
  EXPECT_EQ(svg.substr(0, 5), "<svg ");
  for (const char* line : {">keys<", ">values<", ">keys, aligned<", ">values, aligned<", ">may share<"}) {
    EXPECT_NE(svg.find(line), std::string::npos) << line;
  }
  const std::string json = contents(at("layers.json"));
  EXPECT_EQ(figure(json, "\"gate\":"), "\"direct\"");
  EXPECT_GE(std::stod(figure(json, "\"aligned\":")), std::stod(figure(json, "\"direct\":")));

  const Result high = layers(quoted("aligned") + " --min-cosine 1");
  EXPECT_NE(high.out.find("refuse"), std::string::npos) << high.out;
  EXPECT_EQ(high.out.find("direct"), std::string::npos) << high.out;

  // Maps change nothing for a cache.
  const std::string options = "--context 128 --windows 1 --threads 1 --profile ";
  EXPECT_EQ(figure(perplexity(options + quoted("aligned")).out, "kl_divergence "),
            figure(perplexity(options + quoted("direct")).out, "kl_divergence "));
}

TEST_F(EvalTest, SaysWhatIsWrongWithTheProfileOfLayers) {
  expect_error(run("layers"), 2, "--profile is missing");
  expect_error(run("layers --profile x --min-cosine 2"), 2, "--min-cosine takes");
  expect_error(run("layers --profile /no/such"), 1, "cannot read /no/such");
  ASSERT_EQ(profile("--tokens 300 --align", "whole").status, 0);
  const std::string whole = contents(at("whole"));
  for (const std::size_t size : {std::size_t{0}, std::size_t{31}, whole.size() - 1}) {
    std::ofstream(at("part"), std::ios::binary) << whole.substr(0, size);
    expect_error(run("layers --profile " + quoted("part")), 1, at("part") + ": the profile is missing, damaged");
  }
  expect_error(run("layers --profile " + quoted("whole") + " --svg /no/such/x.svg"), 1, "cannot write /no/such/x.svg");
}

// The model was trained so that only layers 1 and 2, and 3 and 4, have nearly the
// same keys and values.
TEST_F(EvalTest, FindsTheLayersThatWereMadeAlike) {
  const std::string model = NIBKV_TINY_FOLD_MODEL;
  const Result made =
      run("profile --tokens 1024 --model " + in_quotes(model) + " --text " + quoted("text") + " -o " + quoted("fold"));
  ASSERT_EQ(made.status, 0) << made.err;
  const Result layers = run("layers --profile " + quoted("fold") + " --json -");
  ASSERT_EQ(layers.status, 0) << layers.err;
  std::vector<std::string> gates;
  for (std::size_t place = 0; (place = layers.out.find("\"gate\": ", place)) != std::string::npos; ++place) {
    gates.push_back(layers.out.substr(place + 9, 6));
  }
  const std::vector<std::string> expected = {"refuse", "refuse", "direct", "direct",
                                             "refuse", "refuse", "direct", "direct"};
  EXPECT_EQ(gates, expected) << "keys and values, pair by pair";
}

TEST_F(EvalTest, MeasuresBoundedCachesByTokensAndByBytes) {
  const Result tokens = perplexity("--context 256 --windows 1 --policy streaming_llm --tokens 64");
  EXPECT_EQ(tokens.status, 0) << tokens.err;
  EXPECT_EQ(figure(tokens.out, "policy "), "streaming_llm");
  const Result bytes = perplexity("--context 256 --windows 1 --policy streaming_llm --arena 128K");
  EXPECT_EQ(bytes.status, 0) << bytes.err;
  EXPECT_LE(number(bytes, "arena_bytes"), 131072);
  expect_error(perplexity("--context 256 --windows 1 --tokens 64"), 1, "the arena is full");
  expect_error(perplexity("--context 256 --policy streaming_llm --tokens 3"), 1, "more than 4 tokens");
}

TEST_F(EvalTest, MeasuresTheSpeedOfPrefillAndDecoding) {
  const std::string model = " --model " + in_quotes(model_) + " --text " + quoted("text");
  const Result speed = run("speed --context 128 --decode 8" + model);
  EXPECT_EQ(speed.status, 0) << speed.err;
  EXPECT_GT(number(speed, "prefill_tokens_per_second"), 0);
  EXPECT_GT(number(speed, "decode_tokens_per_second"), 0);
  EXPECT_GT(number(speed, "attend_share_of_decode"), 0);
  EXPECT_LT(number(speed, "attend_share_of_decode"), 1);
  expect_error(run("speed --context 10000000" + model), 1, "are needed");
}

TEST_F(EvalTest, SaysWhatALogWouldCostOnMedia) {
  const std::string on = on_text("speed") + " --context 400 --decode 8 --policy recall --tokens 128 --set indexed=256 ";
  const Result speed = run(on + "--media memory,sd --json " + quoted("media.json"));
  EXPECT_EQ(speed.status, 0) << speed.err;
  EXPECT_NE(speed.out.find("\nSD card, class A1 "), std::string::npos) << speed.out;
  EXPECT_NE(speed.out.find("\nmemory  "), std::string::npos);
  EXPECT_EQ(speed.out.find("eMMC"), std::string::npos);
  const std::string json = contents(at("media.json"));
  for (const char* member :
       {"\"sd_decode_tokens_per_second\": ", "\"memory_wait_seconds_a_token\": 0,", "\"hit_rate\": "})
    EXPECT_NE(json.find(member), std::string::npos) << member << json;
  expect_error(run(on + "--media tape"), 2, "--media takes memory, sd, emmc and ufs, not 'tape'");
  expect_error(run(on + "--media sd --cold " + quoted("pages")), 2, "--media and --cold exclude each other");
  expect_error(run(on_text("speed") + " --media sd"), 2, "--media is for --policy recall");
}

TEST_F(EvalTest, TakesDraftsBack) {
  const std::string on = "speculative --model " + in_quotes(model_) + " --text " + quoted("text") + " --length 150 ";
  const Result full = run(on + "--right 60 --seed 3");
  EXPECT_EQ(full.status, 0) << full.err;
  EXPECT_EQ(number(full, "rows"), 150);
  EXPECT_EQ(number(full, "same_rows"), 150);
  EXPECT_EQ(number(full, "passes") + number(full, "accepted"), 150);
  EXPECT_GT(number(full, "drafted"), number(full, "accepted"));
  EXPECT_GT(number(full, "accepted"), 0);
  const Result ems = run(on + "--policy ems --tokens 40 --json -");
  EXPECT_EQ(ems.status, 0) << ems.err;
  EXPECT_EQ(figure(ems.out, "\"policy\":"), "\"ems\",");
  EXPECT_GT(std::stod(figure(ems.out, "\"kl_divergence\":")), 0);
  expect_error(run("speculative --length 10000000 --model " + in_quotes(model_) + " --text " + quoted("text")), 1,
               "are needed");
  expect_error(run(on + "--drafts 32 --policy ems --tokens 64"), 1, "longer than the cache's chunks of 32");
}

TEST_F(EvalTest, SweepsPoliciesAndBudgetsAndGoesOn) {
  const std::string base = "sweep --model " + in_quotes(model_) + " --text " + quoted("text") +
                           " --context 256 --score-from 128 --from 40 --json " + quoted("sweep.json");
  const Result some = run(base + " --policies full,streaming_llm --budgets 25%");
  EXPECT_EQ(some.status, 0) << some.err;
  EXPECT_EQ(some.err, "");
  EXPECT_NE(some.out.find("\nfull "), std::string::npos) << some.out;
  EXPECT_NE(some.out.find("\nstreaming_llm "), std::string::npos) << some.out;
  std::string json = contents(at("sweep.json"));
  for (const char* member :
       {"\"context\": 256", "\"text_from\": 40", "\"score_from\": 128", "\"budget_given\": \"25%\"", "\"budget\": 64",
        "\"mode\": \"question unseen\"", "\"reference_cross_entropy\": "}) {
    EXPECT_NE(json.find(member), std::string::npos) << member;
  }

  // The existing content stays as it is, speed included.
  const Result more =
      run(base + " --policies full,streaming_llm,f16_last --budgets 25%,50% --resume --svg " + quoted("sweep.svg"));
  EXPECT_EQ(more.status, 0) << more.err;
  EXPECT_NE(more.out.find("\nf16_last "), std::string::npos) << more.out;
  const std::string longer = contents(at("sweep.json"));
  const std::size_t end = json.rfind("    }\n  ]");
  EXPECT_EQ(longer.substr(0, end), json.substr(0, end));
  EXPECT_EQ(count_of(longer, "\"policy\""), 5u);
  EXPECT_EQ(contents(at("sweep.svg")).substr(0, 5), "<svg ");

  const Result nothing = run(base + " --policies streaming_llm --budgets 50% --resume");
  EXPECT_EQ(nothing.status, 0) << nothing.err;
  EXPECT_EQ(contents(at("sweep.json")), longer);
  expect_error(run(base + " --resume --windows 2"), 1, "its rows are of windows 1, not of windows 2");
  std::ofstream(at("sweep.json"), std::ios::binary) << json.substr(0, json.size() / 2);
  expect_error(run(base + " --resume"), 1, "cannot go on from " + at("sweep.json"));

  const std::string piped = run("sweep --model " + in_quotes(model_) + " --text " + quoted("text") +
                                " --context 128 --policies streaming_llm --budgets 32 --set sinks=2 --json -")
                                .out;
  EXPECT_EQ(piped.substr(0, 2), "{\n");
  EXPECT_EQ(figure(piped, "\"setting\":"), "\"sinks=2\",");
  EXPECT_EQ(figure(piped, "\"score_from\":"), "64,");
}

TEST_F(EvalTest, AblatesOneSettingAtATime) {
  const Result result = run("ablate --model " + in_quotes(model_) + " --text " + quoted("text") +
                            " --context 128 --budgets 48 --together 40 --json " + quoted("ablate.json"));
  EXPECT_EQ(result.status, 0) << result.err;
  const std::string json = contents(at("ablate.json"));
  for (const char* setting : {"default", "merge=values", "rephase=1", "position_free=1", "pool=7"}) {
    EXPECT_NE(json.find("\"" + std::string(setting) + "\""), std::string::npos) << setting;
  }
}

TEST_F(EvalTest, SaysWhatIsWrongWithASweep) {
  const std::string base = "--model " + in_quotes(model_) + " --text " + quoted("text") + " ";
  expect_error(run("sweep"), 2, "--text is missing");
  expect_error(run("sweep " + base + "--policies ems,lru"), 2, "unknown policy 'lru'; there are full, streaming_llm");
  expect_error(run("sweep " + base + "--budgets 10%,x"), 2, "--budgets takes tokens such as 410");
  expect_error(run("sweep " + base + "--resume"), 2, "--resume needs --json PATH");
  expect_error(run("sweep " + base + "--context 64 --score-from 64"), 2, "--score-from takes a whole number");
  expect_error(run("sweep " + base + "--set merge=keys"), 2, "--set merge takes none, values or both, not 'keys'");
  expect_error(run("sweep " + base + "--policies full,streaming_llm --set merge=none"), 2,
               "none of the policies has that");
  expect_error(run("ablate " + base + "--policies ems"), 2, "unknown option --policies");
  expect_error(run("ablate " + base + "--budgets 0"), 2, "--budgets takes");
  expect_error(perplexity("--set merge=none"), 2, "policy 'full' has no 'merge' to set");
  expect_error(perplexity("--set sinks"), 2, "--set takes key=value");
  expect_error(run("sweep " + base + "--policies streaming_llm --context 256 --json /no/such/x.json"), 1,
               "cannot write /no/such/x.json");
}

TEST_F(EvalTest, SaysWhatAPolicyCannotDoWithTheProfile) {
  ASSERT_EQ(profile("--tokens 300", "plain").status, 0);
  const std::string same =
      "nibkv-eval: note: policy 'head_kv' gives all heads the same budget: the profile has no head";
  const std::string none = "nibkv-eval: note: policy 'minicache' folds no layers: ";
  const std::string head_kv = " --policy head_kv --tokens 64 --profile " + quoted("plain");
  const std::string options = " --threads 1 --context 128";
  const std::string retrieval = on_text("retrieval") + " --lengths 128 --depths 1 --seeds 1 --needles code --threads 1";
  for (const std::string& command :
       {on_text("perplexity") + options + " --windows 1", on_text("speed") + options + " --decode 1",
        on_text("heads") + options + " --svg " + quoted("notes.svg"), retrieval}) {
    const Result scored = run(command + head_kv);
    EXPECT_EQ(scored.status, 0) << scored.err;
    EXPECT_EQ(count_of(scored.err, same), 1u) << scored.err;
    const Result folded = run(command + " --policy minicache");
    EXPECT_EQ(folded.status, 0) << folded.err;
    EXPECT_EQ(count_of(folded.err, none), 1u) << folded.err;
  }
  const Result sweep =
      run(on_text("sweep") + options + " --policies head_kv --budgets 32,64 --profile " + quoted("plain"));
  EXPECT_EQ(sweep.status, 0) << sweep.err;
  EXPECT_EQ(count_of(sweep.err, same), 1u) << sweep.err;
}

TEST_F(EvalTest, AProfileWithAttentionServesThePoliciesThatReadIt) {
  ASSERT_EQ(profile("--tokens 300", "plain").status, 0);
  ASSERT_EQ(profile("--tokens 300 --attention", "spread").status, 0);
  for (const std::string policy : {"prefix_kv", "fast_gen"}) {
    const std::string command =
        on_text("perplexity") + " --threads 1 --context 256 --windows 1 --tokens 96 --policy " + policy + " --profile ";
    expect_error(run(command + quoted("plain")), 1, "needs a profile with attention (nibkv-eval profile --attention)");
    const Result result = run(command + quoted("spread"));
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_NE(result.out.find("kl_divergence"), std::string::npos) << result.out;
  }
}

TEST_F(EvalTest, SaysWhatOfASweepDoesNotFit) {
  const std::string base =
      "sweep --json - --policies streaming_llm --model " + in_quotes(model_) + " --text " + quoted("text") + " ";
  expect_error(run(base + "--context 2048"), 1, "a context of 2048 tokens is larger than the model's 1024");
  expect_error(run(base + "--context 256 --from 100000000"), 1, "less than 100000000");
  expect_error(run(base + "--context 256 --budgets 4"), 1, "streaming_llm, budget 4: ");
  const Result small = run(base + "--context 256 --budgets 1K");  // smaller choices follow, a line each
  EXPECT_EQ(small.status, 1);
  EXPECT_NE(
      small.err.find("nibkv-eval: streaming_llm, budget 1K: an arena of 1024 bytes is too small; the smallest has "),
      std::string::npos)
      << small.err;
}

TEST_F(EvalTest, UsesWhatThereIsOfAShortTextAndSaysSo) {
  std::ofstream(at("short"), std::ios::binary) << std::string(300, 'x');
  const std::string model = " --model " + in_quotes(model_) + " --text " + quoted("short");
  const Result some = run("perplexity --context 128 --windows 9" + model);
  EXPECT_EQ(some.status, 0) << some.err;
  EXPECT_EQ(some.err, "nibkv-eval: note: the text has 300 tokens, enough for 2 of 9 windows\n");
  EXPECT_EQ(number(some, "windows"), 2);
  expect_error(run("perplexity --context 512" + model), 1, "the text has 300 tokens, less than one window of 512");

  const Result made = run("profile --tokens 400 -o " + quoted("short.profile") + model);
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_EQ(made.err,
            "nibkv-eval: note: the text has 300 tokens, less than the 400 asked for\nnibkv-eval: profile kept in " +
                at("short.profile") + "\n");

  std::ofstream(at("empty"), std::ios::binary).flush();
  const std::string empty = " --model " + in_quotes(model_) + " --text " + quoted("empty");
  expect_error(run("perplexity" + empty), 1, "the text has 0 tokens");
  expect_error(run("profile -o " + quoted("empty.profile") + empty), 1, "the text for the profile is empty");
}

TEST_F(EvalTest, RefusesAContextLargerThanTheModels) {
  expect_error(perplexity("--context 1025"), 1, "a context of 1025 tokens is larger than the model's 1024");
  expect_error(profile("--context 1025"), 1, "a context of 1025 tokens is larger than the model's 1024");
}

TEST_F(EvalTest, SaysWhatIsWrongWithFiles) {
  fs::create_directory(at("folder"));
  const std::string folder = quoted("folder");
  const std::string text = " --text " + quoted("text");
  const std::string model = " --model " + in_quotes(model_);
  expect_error(run("perplexity --text /no/such.txt" + model), 1, "cannot read /no/such.txt");
  expect_error(run("perplexity --text " + folder + model), 1, "cannot read " + at("folder"));
  expect_error(run("profile -o " + quoted("x") + " --text " + folder + model), 1, "cannot read " + at("folder"));
  expect_error(run("perplexity --model /no/such.gguf" + text), 1, "/no/such.gguf");
  expect_error(run("perplexity --model " + folder + text), 1, at("folder"));
  expect_error(run("perplexity --model " + quoted("text") + text), 1, at("text"));
  expect_error(perplexity("--profile /no/such.profile"), 1, "cannot read /no/such.profile");
  expect_error(perplexity("--profile " + folder), 1, "cannot read " + at("folder"));
  expect_error(perplexity("--json /no/such/report.json"), 1, "cannot write /no/such/report.json");
  expect_error(perplexity("--json " + folder), 1, "cannot write " + at("folder"));
  expect_error(profile("", "folder"), 1, "cannot write " + at("folder"));
  expect_error(profile("--header /no/such/profile.hpp"), 1, "cannot write /no/such/profile.hpp");
  EXPECT_EQ(parts(), 0u);
}

TEST_F(EvalTest, RefusesProfilesThatAreDamagedOrOfAnotherModel) {
  ASSERT_EQ(profile("--tokens 300", "good").status, 0);
  const std::string good = contents(at("good"));
  const auto refuses = [&](const std::string& name, const std::string& bytes) {
    std::ofstream(at(name), std::ios::binary) << bytes;
    expect_error(perplexity("--profile " + quoted(name)), 1, at(name) + ": the profile is missing, damaged");
  };
  refuses("none", "");
  refuses("half", good.substr(0, good.size() / 2));
  refuses("long", good + "x");
  refuses("other", profile_of_another_model());
  for (const std::size_t place : {std::size_t{0}, good.size() / 2, good.size() - 1}) {
    std::string damaged = good;
    damaged[place] = static_cast<char>(damaged[place] ^ 0x10);
    refuses("damaged", damaged);
  }
}

TEST_F(EvalTest, RefusesFilesThatHoldNoModel) {
  // A vocabulary without a model.
  nibkv::llm::test::GgufWriter writer;
  writer.set("general.architecture", std::string("llama")).set("tokenizer.ggml.model", std::string("llama"));
  const auto bytes = writer.bytes();
  std::ofstream(at("vocabulary.gguf"), std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  const std::string model = " --model " + quoted("vocabulary.gguf") + " --text " + quoted("text");
  expect_error(run("perplexity" + model), 1, "llama.");
  expect_error(run("profile -o " + quoted("x") + model), 1, "llama.");
  const std::string half = contents(model_).substr(0, 300000);
  std::ofstream(at("half.gguf"), std::ios::binary) << half;
  expect_error(run("perplexity --model " + quoted("half.gguf") + " --text " + quoted("text")), 1, at("half.gguf"));
}

TEST_F(EvalTest, SaysWhyCodesDoNotFit) {
  const std::string on = on_text("perplexity") + " --context 128 --windows 1 ";
  const auto complaint = [&](const std::string& options) {
    const Result result = run(on + options);
    EXPECT_NE(result.status, 0);
    return result.err;
  };
  EXPECT_NE(complaint("--storage q8 --policy minicache --force-fold").find("layers share codes of 4 bits alone"),
            std::string::npos);
  EXPECT_NE(complaint("--set wide=6").find("the model has layers 0 to 4"), std::string::npos);
  EXPECT_NE(complaint("--storage q8 --set wide=1").find("q8q4 is not wider than q8"), std::string::npos);
}

// At 2 bits the tiny model's codes cannot hold what it attends to.
TEST_F(EvalTest, SaysWhatCodesCannotHold) {
  const Result narrow = run(on_text("perplexity") + " --context 128 --windows 1 --storage q2");
  EXPECT_EQ(narrow.status, 0) << narrow.err;
  EXPECT_NE(narrow.err.find("note: what the model attends to is lost in the codes of keys of layers "),
            std::string::npos)
      << narrow.err;
  EXPECT_NE(narrow.err.find("make a profile (nibkv-eval profile), "), std::string::npos) << narrow.err;
  const Result wide = run(on_text("perplexity") + " --context 128 --windows 1 --storage q8q4");
  EXPECT_EQ(wide.status, 0);
  EXPECT_EQ(wide.err, "");
}

// A cache without a profile measures its keys, where it can.
TEST_F(EvalTest, MeasuresKeysWithoutAProfile) {
  const std::string options = "--context 128 --windows 2 --threads 1";
  const Result measured = perplexity(options), asked = perplexity(options + " --profile measured");
  const Result none = perplexity(options + " --profile none"), f32 = perplexity(options + " --storage f32");
  const auto loss = [&](const Result& result) { return number(result, "kl_divergence"); };
  EXPECT_EQ(figure(measured.out, "cross_entropy "), figure(asked.out, "cross_entropy "));
  EXPECT_NE(figure(measured.out, "cross_entropy "), figure(none.out, "cross_entropy "));
  EXPECT_EQ(number(none, "outlier_channels"), 0);
  EXPECT_LT(loss(measured), loss(none));
  EXPECT_LT(loss(f32), 1e-6);
  EXPECT_EQ(number(f32, "outlier_channels"), 0);
  const Result folds = perplexity(options + " --policy minicache");
  EXPECT_EQ(folds.status, 0) << folds.err;
  EXPECT_NE(folds.err.find("policy 'minicache' measures nothing of the keys"), std::string::npos) << folds.err;
  EXPECT_EQ(number(folds, "outlier_channels"), 0);
  EXPECT_EQ(figure(folds.out, "cross_entropy "), figure(none.out, "cross_entropy "));
  const Result sweep = run(on_text("sweep") + " --context 128 --budgets 64 --policies full,minicache,f16_last");
  EXPECT_EQ(sweep.status, 0) << sweep.err;
  EXPECT_NE(sweep.err.find("measures nothing of the keys"), std::string::npos) << sweep.err;
  const Result passes = run(on_text("speculative") + " --length 60");
  EXPECT_EQ(passes.status, 0) << passes.err;
  EXPECT_EQ(passes.err, "");
  EXPECT_EQ(number(passes, "outlier_channels"), 0) << "passes are too short";
}

TEST_F(EvalTest, SaysWhichLayersNeedMoreBits) {
  const std::string widths = on_text("widths") + " --profile none --context 128 --storage q2 --bits 3.1";
  const Result result = run(widths);
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.err, "");
  double most = 0;
  std::size_t worst = 0;
  for (std::size_t layer = 0; layer < 5; ++layer) {
    const double error = std::stod(figure(result.out, "layer_" + std::to_string(layer) + " "));
    EXPECT_GT(error, 0);
    if (error > most) most = error, worst = layer;
  }
  // One layer of five with 6 bits more for its keys and 2 for its values.
  EXPECT_EQ(figure(result.out, "bits_per_channel "), "3.05");
  EXPECT_EQ(figure(result.out, "wide "), std::to_string(worst) + ":" + std::to_string(worst));
  const Result values = run(widths + " --set wide_storage=q4");
  EXPECT_EQ(figure(values.out, "bits_per_channel "), "3.05") << "two layers with 2 bits more for keys and values";
  EXPECT_EQ(run(on_text("widths") + " --context 128 --set wide=1").status, 2);
  EXPECT_EQ(run(on_text("widths") + " --context 128 --storage f32").status, 2);
  EXPECT_EQ(run(on_text("widths") + " --context 20").status, 1);
}

}  // namespace
