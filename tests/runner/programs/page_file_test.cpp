#include "bench/runner/programs/page_file.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "bench/runner/gguf/gguf.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::llm {
namespace {

namespace fs = std::filesystem;

class PageFiles : public testing::Test {
 protected:
  PageFiles() : folder_((fs::temp_directory_path() / "nibkv-pages-XXXXXX").string()) {
    if (::mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("cannot create " + folder_);
  }
  ~PageFiles() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }

 private:
  std::string folder_;
};

TEST_F(PageFiles, HoldWhatALogWrites) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 32};
  Policy policy = recall_window(128, 512);
  policy.indexed = 256;
  PageFile file(path("pages"), cold_bytes(kShape, policy));
  EXPECT_EQ(fs::file_size(path("pages")), cold_bytes(kShape, policy));
  EXPECT_EQ(fs::status(path("pages")).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  test::Rig in_memory(kShape, policy), in_file(kShape, policy);
  in_file.store() = file.store();
  test::Random random(1);
  for (int i = 0; i < 400; ++i) {
    const std::vector<float> keys = random.bells(32), values = random.bells(32), queries = random.bells(64);
    for (test::Rig* rig : {&in_memory, &in_file}) {
      ASSERT_EQ(append(rig->cache(), 0, keys, values), Status::kOk);
      ASSERT_EQ(recall(rig->cache(), 0, queries), Status::kOk);
    }
    ASSERT_TRUE(test::same_bytes(test::attend_all(in_file.cache(), 0, queries),
                                 test::attend_all(in_memory.cache(), 0, queries)));
  }
  EXPECT_GT(recall_usage(in_file.cache()).read_pages, 100u);
  EXPECT_EQ(recall_usage(in_file.cache()).lost_pages, 0u);
}

TEST_F(PageFiles, ThatEndEarlyAreRead) {
  PageFile file(path("pages"), 256);
  const ColdStore store = file.store();
  std::array<std::byte, 128> page{}, back{};
  page.fill(std::byte{7});
  ASSERT_TRUE(store.write(store.context, 128, page.data(), page.size()));
  ASSERT_TRUE(store.read(store.context, 128, back.data(), back.size()));
  EXPECT_EQ(back, page);
  fs::resize_file(path("pages"), 200);
  EXPECT_FALSE(store.read(store.context, 128, back.data(), back.size()));
  EXPECT_TRUE(store.read(store.context, 0, back.data(), back.size()));
}

TEST_F(PageFiles, TakeThePlaceOfOldOnesAndOfNothingElse) {
  { PageFile first(path("pages"), 256); }
  { PageFile again(path("pages"), 128); }
  EXPECT_EQ(fs::file_size(path("pages")), 128u);
  std::ofstream(path("pages")) << "NBKP and so on";
  { PageFile again(path("pages"), 128); }
  std::ofstream(path("letter")) << "dear reader";
  EXPECT_THROW(PageFile(path("letter"), 128), Error);
  std::ifstream letter(path("letter"));
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(letter), {}), "dear reader");
  std::ofstream(path("short")) << "NB";
  EXPECT_THROW(PageFile(path("short"), 128), Error);
  EXPECT_THROW(PageFile(path("none/pages"), 128), Error);
  EXPECT_THROW(PageFile(path(""), 128), Error);
  EXPECT_THROW(PageFile("/dev/null", 128), Error);
}

TEST_F(PageFiles, StayForTheCacheThatComesBack) {
  std::array<std::byte, 128> page{}, back{};
  page.fill(std::byte{7});
  std::memcpy(page.data(), "NBKP", 4);
  EXPECT_THROW(PageFile(path("pages"), 256, PageFileUse::kOld), Error) << "it is not there";
  EXPECT_FALSE(fs::exists(path("pages")));
  {
    PageFile file(path("pages"), 256, PageFileUse::kNew);
    EXPECT_TRUE(file.empty());
    const ColdStore store = file.store();
    EXPECT_FALSE(store.read(store.context, 0, back.data(), back.size())) << "nothing there yet";
    ASSERT_TRUE(store.write(store.context, 0, page.data(), page.size()));
    EXPECT_FALSE(file.empty());
    file.sync();
    EXPECT_THROW(PageFile(path("pages"), 256, PageFileUse::kOld), Error) << "in use";
    EXPECT_THROW(PageFile(path("pages"), 256), Error) << "in use";
  }
  EXPECT_THROW(PageFile(path("pages"), 256, PageFileUse::kNew), Error);
  EXPECT_THROW(PageFile(path("pages"), 256, PageFileUse::kPassing), Error);
  EXPECT_EQ(fs::file_size(path("pages")), 128u);
  {
    PageFile file(path("pages"), 256, PageFileUse::kOld);
    EXPECT_FALSE(file.empty());
    const ColdStore store = file.store();
    ASSERT_TRUE(store.read(store.context, 0, back.data(), back.size()));
    EXPECT_EQ(back, page);
    ASSERT_TRUE(store.write(store.context, 128, page.data(), page.size()));
  }
  EXPECT_EQ(fs::file_size(path("pages")), 256u);
}

TEST_F(PageFiles, OfOneRunAreEmptyAfterIt) {
  const std::array<std::byte, 128> page{};
  for (int i = 0; i < 2; ++i) {
    PageFile file(path("pages"), 256, PageFileUse::kPassing);
    const ColdStore store = file.store();
    ASSERT_TRUE(store.write(store.context, 128, page.data(), page.size()));
    EXPECT_EQ(fs::file_size(path("pages")), 256u);
  }
  EXPECT_EQ(fs::file_size(path("pages")), 0u);
}

}  // namespace
}  // namespace nibkv::llm
