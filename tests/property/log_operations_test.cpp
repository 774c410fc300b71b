// Random operations on caches with a log, over a store that fails now and then.
#include <gtest/gtest.h>

#include "tests/property/log_walk.hpp"
#include "tests/support/effort.hpp"

namespace nibkv {
namespace {

TEST(LogOperations, InAnyOrderLeaveASoundCacheOverAStoreThatFails) {
  const std::vector<std::string> ports = test::running_ports();
  for (std::uint64_t seed = 0; seed < test::turns(80, 8) * test::effort(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::LogWalk walk(test::Random(seed), ports[seed % ports.size()]);
    walk.steps(80);
    if (HasFailure()) return;
  }
}

TEST(LogOperations, OfSmallCachesToo) {
  const std::vector<std::string> ports = test::running_ports();
  for (std::uint64_t seed = 1000; seed < 1000 + test::turns(300, 20) * test::effort(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::LogWalk walk(test::Random(seed), ports[seed % ports.size()], true);
    walk.steps(20);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace nibkv
