// The words of tests/golden on a bare board, using only SRAM.
#include "tests/baremetal/semihosting.hpp"
#include "tests/golden/pipeline.hpp"

namespace {

alignas(nibkv::kArenaAlignment) std::byte memory[nibkv::test::kGoldenBytes];

bool gives(const nibkv::test::GoldenCases& cases, std::string_view port, std::uint64_t expected) {
  nibkv::test::GoldenRun golden(port, memory);
  for (const nibkv::test::GoldenCase& one : cases) {
    const nibkv::Status status = golden.run(one);
    if (status == nibkv::Status::kOk) continue;
    nibkv::metal::say(nibkv::text(status).data());
    nibkv::metal::say("\n");
    return false;
  }
  nibkv::metal::say(port.data());
  nibkv::metal::say(" ");
  nibkv::metal::say_word(golden.word());
  nibkv::metal::say(golden.word() == expected ? " as everywhere, in " : " is WRONG, in ");
  nibkv::metal::say_number(golden.most_bytes());
  nibkv::metal::say(" bytes\n");
  return golden.word() == expected;
}

}  // namespace

int main(int, char**) {
  // With the fastest port, as boards are emulated here: parity holds the others to its bytes.
  std::uint32_t i = 0;
  while (!nibkv::port_runs(nibkv::port_name(i))) ++i;
  const std::string_view port = nibkv::port_name(i);
  bool right = gives(nibkv::test::golden_cases(), port, nibkv::test::kGolden);
  right = gives(nibkv::test::turned_cases(), port, nibkv::test::kTurnedGolden) && right;
  right = gives(nibkv::test::width_cases(), port, nibkv::test::kWidthGolden) && right;
  right = gives(nibkv::test::tier_cases(), port, nibkv::test::kTierGolden) && right;
  right = gives(nibkv::test::log_cases(), port, nibkv::test::kLogGolden) && right;
  right = gives(nibkv::test::aligned_cases(), port, nibkv::test::kAlignedGolden) && right;
  nibkv::metal::say("stack, with what this program and start-up take: ");
  nibkv::metal::say_number(nibkv::metal::stack_used());
  nibkv::metal::say(" bytes\n");
  return right ? 0 : 1;
}
