#include "nibkv/status.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string_view>

namespace nibkv::status_test {
namespace {

TEST(Status, ValuesAreFrozen) {
  static_assert(sizeof(Status) == 1);
  const Status in_order[] = {Status::kOk,
                             Status::kBadShape,
                             Status::kBadPolicy,
                             Status::kMisaligned,
                             Status::kArenaTooSmall,
                             Status::kUnknownPort,
                             Status::kUnsupportedPort,
                             Status::kBadProfile,
                             Status::kNotReady,
                             Status::kBadArgument,
                             Status::kFull,
                             Status::kBadPlan,
                             Status::kCorrupt,
                             Status::kBadSnapshot,
                             Status::kNewerSnapshot,
                             Status::kOtherShape,
                             Status::kOtherPolicy,
                             Status::kOtherProfile,
                             Status::kStorageFailed,
                             Status::kLost,
                             Status::kGone,
                             Status::kOtherStore};
  for (int i = 0; i < 22; ++i) EXPECT_EQ(static_cast<int>(in_order[i]), i);
}

TEST(Status, EveryValueHasATextOfItsOwn) {
  std::set<std::string_view> texts;
  for (int i = 0; i < 22; ++i) {
    const std::string_view sentence = text(static_cast<Status>(i));
    EXPECT_FALSE(sentence.empty()) << i;
    EXPECT_TRUE(texts.insert(sentence).second) << i << ": " << sentence;
  }
}

TEST(Status, AValueOfALaterVersionHasATextToo) {
  for (const int i : {-128, -1, 100, 127}) {
    const std::string_view sentence = text(static_cast<Status>(i));
    EXPECT_FALSE(sentence.empty()) << i;
    for (int known = 0; known < 22; ++known) EXPECT_NE(sentence, text(static_cast<Status>(known))) << i;
  }
}

}  // namespace
}  // namespace nibkv::status_test
