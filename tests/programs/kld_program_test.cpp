// nibkv-eval kld, as a user runs it.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/programs/child.hpp"
#include "tests/programs/program.hpp"

namespace {

namespace fs = std::filesystem;

using nibkv::test::Child;
using nibkv::test::contents;
using nibkv::test::in_quotes;
using nibkv::test::Result;

class KldProgramTest : public nibkv::test::ProgramTest {
 protected:
  KldProgramTest() : ProgramTest("nibkv-eval") {}

  Result write(const std::string& name, const std::string& options) const {
    return run(on_text("kld") + " --threads 1 --write " + quoted(name) + " --context 128 --chunks 2 " + options);
  }

  Result kld(const std::string& base, const std::string& options) const {
    return run("kld --model " + in_quotes(model_) + " --threads 1 --base " + quoted(base) + " " + options);
  }
};

TEST_F(KldProgramTest, WritesABaseAndComparesACacheWithIt) {
  const Result written = write("base", "");
  EXPECT_EQ(written.status, 0) << written.err;
  EXPECT_EQ(written.err, "");
  EXPECT_EQ(figure(written.out, "storage "), "f32");
  EXPECT_EQ(figure(written.out, "scored_tokens "), "126");
  const std::string bytes = contents(at("base"));
  EXPECT_EQ(bytes.substr(0, 8), "_logits_");
  EXPECT_EQ(bytes.size(), 20 + 2 * (128 * 4 + 63 * 2 * 264)) << "a vocabulary of 259, and four words more";

  const Result result = kld("base", "--json " + quoted("kld.json"));
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(figure(result.out, "storage "), "q4");
  EXPECT_NEAR(std::stod(figure(result.out, "Mean PPL(base)                :")),
              std::stod(figure(written.out, "perplexity ")), 2e-3);
  EXPECT_GT(std::stod(figure(result.out, "Mean    KLD:")), 0);
  const std::string json = contents(at("kld.json"));
  for (const char* name : {"chunks",
                           "context",
                           "scored_tokens",
                           "storage",
                           "policy",
                           "bits_per_channel",
                           "arena_bytes",
                           "perplexity",
                           "perplexity_error",
                           "perplexity_base",
                           "correlation",
                           "log_ratio",
                           "log_ratio_error",
                           "ratio",
                           "difference",
                           "kl_divergence",
                           "kl_divergence_error",
                           "kl_divergence_maximum",
                           "kl_divergence_99_9",
                           "kl_divergence_median",
                           "kl_divergence_0_1",
                           "kl_divergence_minimum",
                           "delta_p",
                           "delta_p_25",
                           "delta_p_rms",
                           "delta_p_rms_error",
                           "same_top",
                           "same_top_error"}) {
    EXPECT_NE(json.find("\n  \"" + std::string(name) + "\": "), std::string::npos) << name << " in " << json;
  }
  EXPECT_NEAR(std::stod(figure(json, "\"kl_divergence\":")), std::stod(figure(result.out, "Mean    KLD:")), 1e-6);
  EXPECT_EQ(kld("base", "--json -").out, json);

  const Result first = kld("base", "--chunks 1 --policy streaming_llm --tokens 8");
  EXPECT_EQ(figure(first.out, "scored_tokens "), "63");
  EXPECT_EQ(figure(first.out, "policy "), "streaming_llm");
  EXPECT_GT(std::stod(figure(first.out, "Mean    KLD:")), std::stod(figure(result.out, "Mean    KLD:")));
}

TEST_F(KldProgramTest, ComparesTwoFilesWithoutAModel) {
  ASSERT_EQ(write("base", "").status, 0);
  ASSERT_EQ(write("q4", "--storage q4").status, 0);
  const Result direct = kld("base", "");
  const Result files = run("kld --base " + quoted("base") + " --tested " + quoted("q4"));
  EXPECT_EQ(files.status, 0) << files.err;
  EXPECT_EQ(files.out.find("policy"), std::string::npos) << files.out;
  EXPECT_EQ(figure(files.out, "Mean PPL(base)"), figure(direct.out, "Mean PPL(base)"));
  EXPECT_NEAR(std::stod(figure(files.out, "Mean    KLD:")), std::stod(figure(direct.out, "Mean    KLD:")), 2e-5);
  EXPECT_NEAR(std::stod(figure(files.out, "RMS Delta p    :")), std::stod(figure(direct.out, "RMS Delta p    :")),
              0.01);
}

TEST_F(KldProgramTest, SaysWhatIsWrongWithFiles) {
  ASSERT_EQ(write("base", "").status, 0);
  const std::string good = contents(at("base"));
  const auto refuses = [&](const std::string& bytes, const std::string& why) {
    std::ofstream(at("bad"), std::ios::binary) << bytes;
    expect_error(kld("bad", ""), 1, at("bad") + ": " + why);
    expect_error(run("kld --base " + quoted("base") + " --tested " + quoted("bad")), 1, at("bad") + ": " + why);
  };
  refuses("", "it does not begin with _logits_");
  refuses(contents(model_).substr(0, 100), "it does not begin with _logits_");
  refuses(good.substr(0, good.size() - 1), "it is cut short");
  refuses(good + '\0', "1 bytes are left after its last row");
  std::string changed = good;
  changed.replace(20, 4, "\xff\xff\xff\xff");
  refuses(changed, "token 0 is -1, outside its vocabulary of 259");
  changed = good;
  changed.replace(16, 4, "\xff\xff\xff\x7f");
  refuses(changed, "it is cut short: ");
  changed = good;
  changed.replace(good.size() - 528, 4, "\xff\xff\xff\xff");
  refuses(changed, "row 62 of chunk 1 is damaged");
  expect_error(run("kld --base /no/such"), 1, "cannot read /no/such: No such file or directory");
  expect_error(kld("", ""), 1, "cannot read " + folder_);

  // A file of a smaller vocabulary: one row of two tokens.
  std::string other("_logits_\3\0\0\0\2\0\0\0\1\0\0\0", 20);
  other += std::string(12, '\0') + std::string("\0\0\0\0\x18\x72\x31\xbf\0\0\0\0", 12);
  std::ofstream(at("other"), std::ios::binary) << other;
  expect_error(kld("other", ""), 1, "the file is of a vocabulary of 2 tokens, and the model has 259");
  expect_error(run("kld --base " + quoted("base") + " --tested " + quoted("other")), 1, "are not of the same tokens");
  EXPECT_EQ(run("kld --base " + quoted("other") + " --tested " + quoted("other")).status, 0);

  expect_error(run(on_text("kld") + " --context 8192 --write " + quoted("x")), 1, "less than one chunk of 8192");
  expect_error(run(on_text("kld") + " --context 1025 --write " + quoted("x")), 1, "larger than the model's 1024");
  expect_error(run(on_text("kld") + " --write /no/such/x"), 1, "cannot write /no/such/x");
  EXPECT_FALSE(fs::exists(at("x")));
  EXPECT_EQ(parts(), 0u);
}

TEST_F(KldProgramTest, CallsWrongOptionsUsageErrors) {
  expect_error(run("kld"), 2, "--base or --write is missing");
  expect_error(run("kld --write x"), 2, "--text is missing");
  expect_error(run("kld --write x --base y --text z"), 2, "--write and --base exclude each other");
  expect_error(run("kld --write x --tested y --text z"), 2, "--base is missing");
  expect_error(run("kld --base x --tested y --write z"), 2, "--tested and --write exclude each other");
  expect_error(run("kld --tested x"), 2, "--base is missing");
  expect_error(run("kld --base x --text y"), 2, "--base and --text exclude each other");
  expect_error(run("kld --base x --context 64"), 2, "--base and --context exclude each other");
  expect_error(run("kld --base x --tested y --policy full"), 2, "--tested and --policy exclude each other");
  expect_error(run("kld --base x --tested y --force-fold"), 2, "--tested and --force-fold exclude each other");
  expect_error(run("kld --base x --policy ems"), 2, "policy 'ems' needs --tokens or --arena");
  expect_error(run("kld --base x --chunks 0"), 2, "--chunks takes a whole number from 1");
  expect_error(run("kld --write x --text y --context 2"), 2, "--context takes a whole number from 3");
  expect_error(run("kld --write x --text y --profile z"), 2, "--storage f32 takes no --profile");
}

TEST_F(KldProgramTest, EndsInTheMiddleOfAFileIfASignalAsksForIt) {
  Child child(
      "exec env " +
      command_line(on_text("kld") + " --threads 1 --context 64 --chunks 20 --write /dev/stdout 2>" + quoted("err")));
  ASSERT_EQ(child.read(8), "_logits_");
  child.signal(SIGTERM);
  while (!child.read().empty()) {
  }
  EXPECT_EQ(child.wait(), 1);
  EXPECT_EQ(contents(at("err")), "nibkv-eval: stopped by a signal\n");
}

}  // namespace
