#include "bench/runner/programs/output_file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm {
namespace {

namespace fs = std::filesystem;

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

mode_t mode_of(const std::string& path) {
  struct stat status = {};
  EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
  return status.st_mode;
}

class OutputFile : public testing::Test {
 protected:
  OutputFile() : folder_((fs::temp_directory_path() / "nibkv-output-XXXXXX").string()) {
    if (::mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("cannot create " + folder_);
    ::umask(022);
  }
  ~OutputFile() override {
    std::error_code ignored;
    fs::permissions(folder_, fs::perms::owner_all, ignored);
    fs::remove_all(folder_, ignored);
  }

  std::string at(const std::string& name) const { return folder_ + "/" + name; }

  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  // The message that an action throws; it must change nothing in the folder.
  template <typename Action>
  std::string refusal(Action&& action) const {
    const std::size_t before = files();
    std::string what = "nothing was thrown";
    try {
      action();
    } catch (const Error& error) {
      what = error.what();
    }
    EXPECT_EQ(files(), before);
    return what;
  }

  void expect_both_refuse(const std::string& path, const std::string& why) const {
    const std::string line = "cannot write " + (path.empty() ? "''" : path) + ": " + why;
    EXPECT_EQ(refusal([&] { check_place(path); }), line);
    EXPECT_EQ(refusal([&] { write_file(path, "new"); }), line);
  }

  std::string folder_;
};

TEST_F(OutputFile, IsMadeOrReplacedAndNothingElseIsLeft) {
  for (const char* text : {"first", "", "a longer text"}) {
    check_place(at("file"));
    write_file(at("file"), text);
    EXPECT_EQ(contents(at("file")), text);
    EXPECT_EQ(files(), 1u);
  }
  check_place(at("file"));
  EXPECT_EQ(contents(at("file")), "a longer text") << "left as it was";
  check_place(at("other"));
  EXPECT_EQ(files(), 1u);
}

TEST_F(OutputFile, MayComePartByPartAndIsTheOldOneIfAPartFails) {
  const auto bytes = [](std::string_view text) { return std::as_bytes(std::span(text)); };
  write_parts(at("file"), [&](const Sink& sink) {
    sink(bytes("one "));
    sink({});
    sink(bytes("two"));
    EXPECT_FALSE(fs::exists(at("file")));
  });
  EXPECT_EQ(contents(at("file")), "one two");
  EXPECT_EQ(files(), 1u);
  const auto fails = [&](const Sink& sink) {
    sink(bytes("three"));
    throw Error("no more");
  };
  EXPECT_EQ(refusal([&] { write_parts(at("file"), fails); }), "no more");
  EXPECT_EQ(refusal([&] { write_parts(at("other"), fails); }), "no more");
  EXPECT_EQ(refusal([&] { write_parts("/dev/null", fails); }), "no more");
  EXPECT_EQ(contents(at("file")), "one two");
}

TEST_F(OutputFile, ThatIsNewHasTheModeOfTheUmaskOrIsItsOwnersOnly) {
  write_file(at("any"), "x");
  EXPECT_EQ(mode_of(at("any")), mode_t{S_IFREG | 0644});
  ::umask(027);
  write_file(at("group"), "x");
  EXPECT_EQ(mode_of(at("group")), mode_t{S_IFREG | 0640});
  write_file(at("own"), {}, Readers::kOwner);
  EXPECT_EQ(mode_of(at("own")), mode_t{S_IFREG | 0600});
}

TEST_F(OutputFile, KeepsModeAndOwnerOfTheOldOne) {
  for (const mode_t mode : {0600u, 0640u, 0664u, 0755u}) {
    write_file(at("file"), "old");
    ASSERT_EQ(::chmod(at("file").c_str(), mode), 0);
    if (::geteuid() == 0) {
      ASSERT_EQ(::chown(at("file").c_str(), 1234, 5678), 0);
    }
    write_file(at("file"), {}, Readers::kOwner);
    EXPECT_EQ(mode_of(at("file")), S_IFREG | mode);
    struct stat status = {};
    ASSERT_EQ(::stat(at("file").c_str(), &status), 0);
    if (::geteuid() == 0) {
      EXPECT_EQ(status.st_uid * 10000u + status.st_gid, 12345678u);
    }
    EXPECT_EQ(contents(at("file")), "");
  }
}

TEST_F(OutputFile, BehindALinkIsReplacedAndTheLinkKeepsPointing) {
  fs::create_directory(at("folder"));
  write_file(at("folder/file"), "old");
  fs::create_symlink("folder/file", at("relative"));
  fs::create_symlink(at("relative"), at("chain"));
  fs::create_symlink("folder/new", at("dangling"));
  for (const char* link : {"relative", "chain", "dangling"}) {
    check_place(at(link));
    EXPECT_TRUE(is_replaced(at(link)));
    write_file(at(link), link);
    EXPECT_TRUE(fs::is_symlink(at(link)));
    EXPECT_EQ(contents(at(link)), link);
  }
  EXPECT_EQ(contents(at("folder/file")), "chain");
  EXPECT_EQ(contents(at("folder/new")), "dangling");

  fs::create_symlink("b", at("a"));
  fs::create_symlink("a", at("b"));
  expect_both_refuse(at("a"), "Too many levels of symbolic links");
  fs::create_symlink("no/such/file", at("nowhere"));
  expect_both_refuse(at("nowhere"), "there is no such folder");
}

TEST_F(OutputFile, LeavesTheOldContentsToFurtherHardLinks) {
  write_file(at("file"), "old");
  fs::create_hard_link(at("file"), at("other"));
  write_file(at("file"), "new");
  EXPECT_EQ(contents(at("file")), "new");
  EXPECT_EQ(contents(at("other")), "old");
}

TEST_F(OutputFile, ThatIsAPipeOrADeviceIsWrittenToAndStaysOne) {
  ASSERT_EQ(::mkfifo(at("pipe").c_str(), 0600), 0);
  check_place(at("pipe"));
  EXPECT_FALSE(is_replaced(at("pipe")));
  std::string read;
  std::thread reader([&] { read = contents(at("pipe")); });
  write_file(at("pipe"), "through the pipe");
  reader.join();
  EXPECT_EQ(read, "through the pipe");
  EXPECT_TRUE(S_ISFIFO(mode_of(at("pipe"))));

  // Uses its own device nodes, if the system lets it make some: otherwise a failure of this test
  // would delete the machine's.
  if (::mknod(at("null").c_str(), S_IFCHR | 0600, makedev(1, 3)) != 0 || !std::ofstream(at("null"))) return;
  check_place(at("null"));
  write_file(at("null"), "gone");
  EXPECT_TRUE(S_ISCHR(mode_of(at("null"))));
  ASSERT_EQ(::mknod(at("full").c_str(), S_IFCHR | 0600, makedev(1, 7)), 0);
  EXPECT_EQ(refusal([&] { write_file(at("full"), "x"); }), "cannot write " + at("full") + ": No space left on device");
  EXPECT_TRUE(S_ISCHR(mode_of(at("full"))));
  EXPECT_EQ(files(), 3u);
}

TEST_F(OutputFile, ThatADescriptorStandsForIsWrittenWhereItIs) {
  const int file = ::open(at("log").c_str(), O_WRONLY | O_CREAT, 0600);
  ASSERT_EQ(::write(file, "before ", 7), 7);
  const std::string name = "/dev/fd/" + std::to_string(file);
  fs::create_symlink(name, at("link"));
  for (const std::string& path : {name, at("link")}) {
    check_place(path);
    EXPECT_FALSE(is_replaced(path));
    write_file(path, "text ");
  }
  ASSERT_EQ(::write(file, "after", 5), 5);
  ::close(file);
  EXPECT_EQ(contents(at("log")), "before text text after");
  EXPECT_TRUE(fs::is_symlink(at("link")));

  const int unwritable = ::open(at("log").c_str(), O_RDONLY);
  expect_both_refuse("/dev/fd/" + std::to_string(unwritable), "Bad file descriptor");
  ::close(unwritable);
}

TEST_F(OutputFile, ThatDoesNotFitTheDiskLeavesTheOldOneWhole) {
  write_file(at("file"), "old");
  struct rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const auto limit = [&](rlim_t bytes) {
    const struct rlimit small = {bytes, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  };
  limit(10000);
  const std::string too_large = "cannot write " + at("file") + ": File too large";
  EXPECT_EQ(refusal([&] { write_file(at("file"), std::string(20000, 'x')); }), too_large);
  EXPECT_EQ(refusal([&] { check_place(at("file")); }), "nothing was thrown") << "there is some room";
  limit(0);
  EXPECT_EQ(refusal([&] { check_place(at("file")); }), too_large) << "there is none";
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(contents(at("file")), "old");
}

TEST_F(OutputFile, IsRefusedBeforeTheWorkWhereItCannotBe) {
  fs::create_directory(at("folder"));
  write_file(at("file"), "old");
  expect_both_refuse("", "there is no such folder");
  expect_both_refuse(at("folder"), "it is a directory");
  expect_both_refuse(at("new/"), "it is a directory");
  expect_both_refuse("/no/such/file", "there is no such folder");
  expect_both_refuse("/proc/none", "no file can be made there");
  expect_both_refuse(at("file/name"), "Not a directory");
  expect_both_refuse(at(std::string(300, 'x')), "File name too long");
}

TEST_F(OutputFile, IsRefusedBeforeTheWorkWithoutPermission) {
  const uid_t own = ::geteuid();
  fs::create_directory(at("folder"));
  write_file(at("folder/file"), "old");
  write_file(at("read-only"), "old");
  ASSERT_EQ(::chmod(at("folder").c_str(), 0555), 0);
  ASSERT_EQ(::chmod(at("read-only").c_str(), 0444), 0);
  ASSERT_EQ(::chmod(folder_.c_str(), 0777), 0);
  if (own == 0) {
    ASSERT_EQ(::setresuid(65534, 65534, 0), 0);
  }
  expect_both_refuse(at("folder/new"), "Permission denied");
  expect_both_refuse(at("folder/file"), "Permission denied");
  expect_both_refuse(at("read-only"), "Permission denied");
  if (own == 0) {
    ASSERT_EQ(::setresuid(0, 0, 0), 0);
  }
  EXPECT_EQ(contents(at("folder/file")), "old");
}

}  // namespace
}  // namespace nibkv::llm
