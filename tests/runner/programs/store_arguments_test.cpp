#include "bench/runner/programs/store_arguments.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>

namespace nibkv::llm {
namespace {

namespace fs = std::filesystem;

/// The folder of an installation: its programs are in bin/.
class TinyModelPlace : public testing::Test {
 protected:
  TinyModelPlace() : folder_((fs::temp_directory_path() / "nibkv-tiny-XXXXXX").string()) {
    if (::mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("cannot create " + folder_);
    for (const char* name : {"bin", "share/nibkv", "sources"}) fs::create_directories(at(name));
  }
  ~TinyModelPlace() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  std::string at(const std::string& name) const { return folder_ + "/" + name; }
  std::string found() const { return find_tiny_model(at("bin"), at("sources/m.gguf")); }

  std::string folder_;
};

TEST_F(TinyModelPlace, IsBesideTheProgramOrInItsDataFolderOrInTheSources) {
  EXPECT_EQ(found(), "");
  EXPECT_EQ(find_tiny_model("", at("sources/m.gguf")), "");
  // From the last place on, each goes before the ones before.
  for (const char* path : {"sources/m.gguf", "share/nibkv/m.gguf", "bin/m.gguf"}) {
    std::ofstream(at(path)) << "x";
    EXPECT_EQ(found(), at(path));
  }
  fs::remove(at("bin/m.gguf"));
  fs::create_directory(at("bin/m.gguf"));
  EXPECT_EQ(found(), at("share/nibkv/m.gguf")) << "a folder is no model";
}

TEST_F(TinyModelPlace, ComesAfterWhatIsAskedFor) {
  const char* const kept = std::getenv("NIBKV_MODEL");  // other tests read it
  const std::optional<std::string> before = kept != nullptr ? std::optional<std::string>(kept) : std::nullopt;
  const char* const words[] = {"--model", "x.gguf"};
  EXPECT_EQ(choose_model(Arguments(2, words, {"model"}, {})), "x.gguf");
  ::setenv("NIBKV_MODEL", "y.gguf", 1);
  EXPECT_EQ(choose_model(Arguments(0, words, {"model"}, {})), "y.gguf");
  ::setenv("NIBKV_MODEL", "", 1);
  EXPECT_EQ(choose_model(Arguments(0, words, {"model"}, {})), NIBKV_TINY_MODEL);
  ::unsetenv("NIBKV_MODEL");
  if (before) ::setenv("NIBKV_MODEL", before->c_str(), 1);
}

}  // namespace
}  // namespace nibkv::llm
