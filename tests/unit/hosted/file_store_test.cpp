#include "nibkv/file_store.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

#include "tests/support/rig.hpp"

namespace nibkv {
namespace {

namespace fs = std::filesystem;

constexpr Shape kShape = {.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 32};

Policy all_indexed() {
  Policy policy = recall_window(128, 512);
  policy.indexed = 256;
  return policy;
}

using Page = std::array<std::byte, 128>;

Page page_of(int content) {
  Page page;
  page.fill(static_cast<std::byte>(content));
  std::memcpy(page.data(), "NBKP", 4);
  return page;
}

bool put(const ColdStore& store, std::uint64_t offset, const Page& page) {
  return store.write(store.context, offset, page.data(), page.size());
}

/// Whether that page comes back.
bool has(const ColdStore& store, std::uint64_t offset, const Page& page) {
  Page back{};
  return store.read(store.context, offset, back.data(), back.size()) && back == page;
}

template <typename Store>
class FileStores : public testing::Test {
 protected:
  FileStores() : folder_((fs::temp_directory_path() / "nibkv-pages-XXXXXX").string()) {
    if (::mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("cannot create " + folder_);
  }
  ~FileStores() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  int open(const std::string& name, std::uint64_t bytes, OldPages old = OldPages::kDrop) {
    return store_.open(path(name).c_str(), bytes, old);
  }

  Store store_;

 private:
  std::string folder_;
};
using Stores = testing::Types<FileStore, MappedStore>;
TYPED_TEST_SUITE(FileStores, Stores);
using Files = FileStores<FileStore>;
using Maps = FileStores<MappedStore>;

TYPED_TEST(FileStores, HoldWhatALogWrites) {
  const Policy policy = all_indexed();
  ASSERT_EQ(this->open("pages", cold_bytes(kShape, policy)), 0);
  EXPECT_EQ(fs::file_size(this->path("pages")), cold_bytes(kShape, policy));
  EXPECT_EQ(fs::status(this->path("pages")).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  test::Rig in_memory(kShape, policy), in_file(kShape, policy);
  in_file.store() = this->store_.store(7, true);
  EXPECT_NE(in_file.store().prefetch, nullptr);
  test::Random random(1);
  for (int i = 0; i < 400; ++i) {
    const std::vector<float> keys = random.bells(32), values = random.bells(32), queries = random.bells(64);
    for (test::Rig* rig : {&in_memory, &in_file}) {
      ASSERT_EQ(append(rig->cache(), 0, keys, values), Status::kOk);
      ASSERT_EQ(recall(rig->cache(), 0, queries), Status::kOk);
    }
    ASSERT_TRUE(test::same_bytes(test::attend_all(in_file.cache(), 0, queries),
                                 test::attend_all(in_memory.cache(), 0, queries)));
    if (i != 300) continue;
    // The file is closed and opened again while the cache waits.
    EXPECT_EQ(this->store_.sync(), 0);
    this->store_.close();
    ASSERT_EQ(this->open("pages", cold_bytes(kShape, policy), OldPages::kKeep), 0);
  }
  EXPECT_GT(recall_usage(in_file.cache()).read_pages, 100u);
  EXPECT_EQ(recall_usage(in_file.cache()).lost_pages, 0u);
}

TYPED_TEST(FileStores, FindPagesAgainOrDropThem) {
  ASSERT_EQ(this->open("pages", 384), 0);
  const ColdStore store = this->store_.store();
  ASSERT_TRUE(put(store, 0, page_of(1)));
  ASSERT_TRUE(put(store, 256, page_of(3)));
  ASSERT_EQ(this->open("pages", 512, OldPages::kKeep), 0);
  EXPECT_EQ(fs::file_size(this->path("pages")), 512u);
  EXPECT_TRUE(has(store, 0, page_of(1))) << "a store goes on with what is open";
  EXPECT_TRUE(has(store, 256, page_of(3)));
  EXPECT_TRUE(put(store, 384, page_of(4)));
  ASSERT_EQ(this->open("pages", 256, OldPages::kKeep), 0);
  EXPECT_EQ(fs::file_size(this->path("pages")), 512u) << "nothing is cut";
  ASSERT_EQ(this->open("pages", 256), 0);
  EXPECT_EQ(fs::file_size(this->path("pages")), 256u);
  EXPECT_TRUE(has(store, 0, Page{}));
}

TYPED_TEST(FileStores, AreOfNoUseWhenClosed) {
  EXPECT_EQ(this->store_.sync(), EBADF);
  ASSERT_EQ(this->open("pages", 256), 0);
  const ColdStore store = this->store_.store();
  ASSERT_TRUE(put(store, 0, page_of(1)));
  EXPECT_EQ(this->store_.sync(), 0);
  this->store_.close();
  EXPECT_FALSE(put(store, 0, page_of(2)));
  EXPECT_FALSE(has(store, 0, page_of(1)));
  store.prefetch(store.context, 0, 128);
  EXPECT_EQ(this->open("none", 256, OldPages::kKeep), ENOENT);
  EXPECT_FALSE(put(store, 0, page_of(2))) << "what could not be opened";
}

TYPED_TEST(FileStores, LeaveOtherFilesAlone) {
  std::ofstream(this->path("pages")) << "NBKP and so on";
  EXPECT_EQ(this->open("pages", 128), 0);
  for (const char* content : {"dear reader", "NB", "NBKQ"}) {
    std::ofstream(this->path("letter")) << content;
    for (const OldPages old : {OldPages::kDrop, OldPages::kKeep}) {
      EXPECT_EQ(this->open("letter", 128, old), EEXIST) << content;
      std::ifstream letter(this->path("letter"));
      EXPECT_EQ(std::string(std::istreambuf_iterator<char>(letter), {}), content);
    }
  }
  EXPECT_EQ(this->open("none/pages", 128), ENOENT);
  EXPECT_EQ(this->open("", 128), EISDIR) << "the folder";
  EXPECT_EQ(this->store_.open("/dev/null", 128), EINVAL);
  EXPECT_EQ(this->store_.open("/dev/full", 128), EINVAL);
  EXPECT_EQ(this->open("large", std::uint64_t{1} << 63), EFBIG);
  EXPECT_FALSE(fs::exists(this->path("large")));
}

TYPED_TEST(FileStores, SayThatAFileMayNotBeSoLarge) {
  struct rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small = {4096, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const int error = this->open("pages", 1 << 20);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(error, EFBIG);
  EXPECT_FALSE(put(this->store_.store(), 0, page_of(1)));
}

TEST_F(Files, ThatEndEarlyLoseOnlyWhatLiesBehind) {
  ASSERT_EQ(open("pages", 256), 0);
  const ColdStore store = store_.store();
  ASSERT_TRUE(put(store, 0, page_of(1)));
  ASSERT_TRUE(put(store, 128, page_of(2)));
  fs::resize_file(path("pages"), 200);
  EXPECT_FALSE(has(store, 128, page_of(2)));
  EXPECT_TRUE(has(store, 0, page_of(1)));
  EXPECT_FALSE(has(store, std::numeric_limits<std::uint64_t>::max() - 8, Page{}));
  EXPECT_FALSE(put(store, std::uint64_t{1} << 63, page_of(1)));
}

TEST_F(Files, OfAFullDiskLoseTheirPagesAndNothingElse) {
  const Policy policy = all_indexed();
  test::Rig rig(kShape, policy), without(kShape, policy);
  FileStore full(::open("/dev/full", O_RDWR | O_CLOEXEC));
  rig.store() = full.store();
  without.store().write = [](void*, std::uint64_t, const void*, std::size_t) { return false; };
  test::Random random(2);
  for (int i = 0; i < 300; ++i) {
    const std::vector<float> keys = random.bells(32), values = random.bells(32), queries = random.bells(64);
    for (test::Rig* each : {&rig, &without}) {
      ASSERT_EQ(append(each->cache(), 0, keys, values), Status::kOk);
      ASSERT_EQ(recall(each->cache(), 0, queries), Status::kOk);
    }
    ASSERT_TRUE(
        test::same_bytes(test::attend_all(rig.cache(), 0, queries), test::attend_all(without.cache(), 0, queries)));
  }
  EXPECT_GT(recall_usage(rig.cache()).lost_pages, 3u);
  EXPECT_EQ(recall_usage(rig.cache()).lost_pages, recall_usage(without.cache()).lost_pages);
  EXPECT_EQ(logged(rig.cache(), 0, 0), 0u);
}

TEST_F(Files, ThatAreReadOnlyAreRead) {
  ASSERT_EQ(open("pages", 256), 0);
  ASSERT_TRUE(put(store_.store(), 128, page_of(5)));
  FileStore other(::open(path("pages").c_str(), O_RDONLY | O_CLOEXEC));
  const ColdStore store = other.store();
  EXPECT_TRUE(has(store, 128, page_of(5)));
  EXPECT_FALSE(put(store, 128, page_of(6)));
  EXPECT_TRUE(has(store, 128, page_of(5)));
  fs::permissions(path("pages"), fs::perms::owner_read);
  if (::geteuid() == 0) return;  // who may write everything
  EXPECT_EQ(open("pages", 256, OldPages::kKeep), EACCES);
}

TEST_F(Files, CloseWhatTheyTookOver) {
  const int file = ::open(path("pages").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  { const FileStore taken(file); }
  EXPECT_EQ(::fcntl(file, F_GETFD), -1);
}

TEST_F(Maps, EndWhereTheirFileEnds) {
  ASSERT_EQ(open("pages", 256), 0);
  const ColdStore store = store_.store();
  EXPECT_TRUE(put(store, 128, page_of(1)));
  EXPECT_FALSE(put(store, 129, page_of(1)));
  EXPECT_FALSE(put(store, std::numeric_limits<std::uint64_t>::max() - 8, page_of(1)));
  EXPECT_FALSE(has(store, 256, Page{}));
  store.prefetch(store.context, 1000, 128);
  EXPECT_EQ(open("empty", 0), EINVAL);
}

TEST_F(Maps, TakeAllOfTheirSpaceAtOnce) {
  constexpr std::uint64_t kBytes = (1 << 20) + 5;
  const auto taken = [&] {
    struct stat about = {};
    EXPECT_EQ(::stat(path("pages").c_str(), &about), 0);
    return static_cast<std::uint64_t>(about.st_blocks) * 512;
  };
  FileStore with_holes;
  ASSERT_EQ(with_holes.open(path("pages").c_str(), kBytes), 0);
  EXPECT_LT(taken(), kBytes);
  ASSERT_TRUE(put(with_holes.store(), 4090, page_of(9)));
  ASSERT_EQ(open("pages", kBytes, OldPages::kKeep), 0);
  EXPECT_GE(taken(), kBytes);
  EXPECT_TRUE(has(store_.store(), 4090, page_of(9)));
}

// What a file system gets that cannot reserve space.
TEST_F(Maps, TakeSpaceByWritingWhereThereIsNoOtherWay) {
  constexpr std::uint64_t kBytes = 10000;
  int file = -1;
  ASSERT_EQ(detail::open_page_file(path("pages").c_str(), kBytes, OldPages::kDrop, file), 0);
  const FileStore closes(file);
  const Page page = page_of(9);
  ASSERT_TRUE(detail::write_all(file, 8190, page.data(), page.size()));
  EXPECT_EQ(detail::write_over(file, kBytes), 0);
  struct stat about = {};
  ASSERT_EQ(::fstat(file, &about), 0);
  EXPECT_EQ(about.st_size, static_cast<off_t>(kBytes));
  EXPECT_GE(static_cast<std::uint64_t>(about.st_blocks) * 512, kBytes);
  Page back;
  ASSERT_TRUE(detail::read_all(file, 8190, back.data(), back.size()));
  EXPECT_EQ(back, page);
  EXPECT_EQ(detail::write_over(file, kBytes + 1), EIO) << "beyond its end";
}

}  // namespace
}  // namespace nibkv
