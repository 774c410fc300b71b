#include "bench/assistant/kept_profile.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <string>
#include <vector>

#include "bench/runner/profile/profile_maker.hpp"
#include "bench/runner/programs/output_file.hpp"
#include "bench/runner/text/builtin_text.hpp"
#include "tests/assistant/conversation_fixture.hpp"

namespace nibkv::llm {
namespace {

namespace fs = std::filesystem;

class ProfilePlaceTest : public ConversationTest {
 protected:
  std::vector<std::byte> find(const std::vector<std::string>& places) {
    said_.clear();
    made_ = 0;
    return find_or_make_profile(
        places, model_.config(),
        [&] {
          ++made_;
          const std::vector<std::int32_t> tokens = tokenizer_.encode(builtin_text()[1], false, true);
          return make_profile(model_, pool_, std::span(tokens).first(200), 200, {});
        },
        [&](const std::string& line) { said_ += line + '\n'; });
  }

  Folder folder_;
  std::string said_;
  int made_ = 0;
};

TEST_F(ProfilePlaceTest, MakesAProfileOnceAndKeepsIt) {
  const std::vector<std::string> places = {folder_ / "model.nibkv-profile"};
  const std::vector<std::byte> made = find(places);
  EXPECT_EQ(made_, 1);
  EXPECT_NE(said_.find("kept in " + places[0]), std::string::npos) << said_;
  EXPECT_EQ(find(places), made);
  EXPECT_EQ(made_, 0);
  EXPECT_EQ(said_, "");
}

TEST_F(ProfilePlaceTest, RepairsADamagedProfileAndSaysSo) {
  const std::vector<std::string> places = {folder_ / "model.nibkv-profile"};
  const std::vector<std::byte> made = find(places);
  for (const std::size_t size : {std::size_t{0}, std::size_t{31}, made.size() - 1}) {
    write_file(places[0], std::span(made).first(size));
    EXPECT_EQ(find(places), made);
    EXPECT_EQ(made_, 1) << size;
    EXPECT_NE(said_.find("not used"), std::string::npos) << said_;
  }
  std::vector<std::byte> flipped = made;
  flipped[made.size() / 2] ^= std::byte{4};
  write_file(places[0], flipped);
  EXPECT_EQ(find(places), made);
  EXPECT_EQ(made_, 1);
  EXPECT_EQ(find(places), made);
  EXPECT_EQ(made_, 0);
}

TEST_F(ProfilePlaceTest, MakesOneAnewForOtherWeightsOfTheSameShape) {
  const std::vector<std::string> places = {folder_ / "model.nibkv-profile"};
  const std::vector<std::byte> made = find(places);
  ProfileView view;
  ASSERT_EQ(view.open(made, shape_of(model_.config(), {})), Status::kOk);
  EXPECT_EQ(view.weights(), model_.config().weights);
  Config other = model_.config();
  other.weights ^= 2;
  EXPECT_THROW((void)read_profile(places[0], other), Error);
  EXPECT_EQ(read_profile(places[0], model_.config()), made);
  StoreOptions options;
  options.tokens = 64;
  options.profile = made;
  EXPECT_THROW(TileStore(other, options), Error) << "the library refuses it too";
}

TEST_F(ProfilePlaceTest, UsesTheCacheFolderWhereTheFirstPlaceCannotBeWritten) {
  // The path is a folder: nobody can write a file there, whatever their permissions.
  fs::create_directory(folder_ / "model.nibkv-profile");
  const std::vector<std::string> places = {folder_ / "model.nibkv-profile", folder_ / "new/cache/other.nibkv-profile"};
  find(places);
  EXPECT_EQ(made_, 1);
  EXPECT_TRUE(fs::is_regular_file(places[1]));
  const fs::directory_iterator files(fs::path(places[0]).parent_path());
  EXPECT_EQ(std::distance(files, fs::directory_iterator()), 2) << "and new/";
  find(places);
  EXPECT_EQ(made_, 0);
}

TEST_F(ProfilePlaceTest, KeepsItInMemoryWhereNoPlaceCanBeWritten) {
  fs::create_directory(folder_ / "one");
  fs::create_directory(folder_ / "two");
  EXPECT_FALSE(find({folder_ / "one", folder_ / "two"}).empty());
  EXPECT_EQ(made_, 1);
  EXPECT_NE(said_.find("cannot be kept"), std::string::npos) << said_;
}

TEST(ProfilePlaces, AreBesideTheModelAndThenInTheCacheFolder) {
  const auto with = [](const char* cache, const char* xdg, const char* home) {
    const auto set = [](const char* name, const char* value) { value ? setenv(name, value, 1) : unsetenv(name); };
    set("NIBKV_CACHE", cache);
    set("XDG_CACHE_HOME", xdg);
    set("HOME", home);
    return profile_places("/models/m.gguf");
  };
  const auto old = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  const std::string cache = old("NIBKV_CACHE"), xdg = old("XDG_CACHE_HOME"), home = old("HOME");
  EXPECT_EQ(with("/c", "/x", "/h").at(0), "/models/m.gguf.nibkv-profile");
  EXPECT_EQ(with("/c", "/x", "/h").at(1).find("/c/m.gguf-"), 0u);
  EXPECT_EQ(with(nullptr, "/x", "/h").at(1).find("/x/nibkv/m.gguf-"), 0u);
  EXPECT_EQ(with(nullptr, nullptr, "/h").at(1).find("/h/.cache/nibkv/m.gguf-"), 0u);
  EXPECT_EQ(with(nullptr, nullptr, nullptr).size(), 1u);
  with(cache.empty() ? nullptr : cache.c_str(), xdg.empty() ? nullptr : xdg.c_str(),
       home.empty() ? nullptr : home.c_str());
  EXPECT_NE(profile_places("/a/m.gguf").back(), profile_places("/b/m.gguf").back());
}

TEST_F(ConversationTest, CalibratesOnTheBuiltInTextInTheFormatOfTheModel) {
  const std::vector<std::int32_t> tokens = calibration_tokens(tokenizer_, chat_);
  std::size_t bytes = 0;
  for (const std::string_view text : builtin_text()) bytes += text.size();
  EXPECT_GT(tokens.size(), bytes) << "one token a byte, BOS and the system text";
  EXPECT_EQ(builtin_text().size() % 2, 0u);
}

}  // namespace
}  // namespace nibkv::llm
