// The snapshots of tests/data on a bare board: restored from flash, continued, and saved again.
#include <iterator>

#include "tests/baremetal/kept_files.hpp"
#include "tests/baremetal/semihosting.hpp"
#include "tests/golden/kept_snapshots.hpp"

namespace {

nibkv::test::KeptCache memory;

bool all_right(std::string_view port) {
  nibkv::metal::say(port.data());
  for (std::size_t i = 0; i < std::size(nibkv::test::kKeptSnapshots); ++i) {
    const nibkv::test::KeptSnapshot& one = nibkv::test::kKeptSnapshots[i];
    const nibkv::test::KeptResult result = nibkv::test::try_kept(one, nibkv::metal::kept_file(i), port, memory);
    nibkv::metal::say(i == 0 ? " restores " : ", ");
    nibkv::metal::say(one.name);
    if (result.right(one)) continue;
    nibkv::metal::say(": WRONG, ");
    nibkv::metal::say(nibkv::text(result.status).data());
    nibkv::metal::say(", word ");
    nibkv::metal::say_word(result.word);
    nibkv::metal::say("\n");
    return false;
  }
  nibkv::metal::say(": they go on as everywhere, and it saves the same bytes\n");
  return true;
}

}  // namespace

int main(int, char**) {
  bool right = true;
  for (std::uint32_t i = 0; !nibkv::port_name(i).empty(); ++i) {
    if (nibkv::port_runs(nibkv::port_name(i))) right = all_right(nibkv::port_name(i)) && right;
  }
  return right ? 0 : 1;
}
