#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

// The files that programs write.

namespace nibkv::llm {

/// Who may read a file that was not there before. Whether others may is up to the umask.
enum class Readers : std::uint8_t { kAny, kOwner };

/// Writes a file whole or not at all: under another name in its folder, which takes the place of the old file when all
/// of it is on the disk.
///
/// What is there already: a symbolic link keeps pointing, and what it points to is replaced; a file keeps its mode, and
/// its owner and group where the system lets it; further hard links to it keep the old contents. A device, a pipe, or
/// what a descriptor such as /dev/stdout stands for is written to and never replaced.
///
/// @throws Error naming the path and the reason. The old file is whole then, and nothing else is left behind.
void write_file(const std::string& path, std::span<const std::byte> bytes, Readers readers = Readers::kAny);
void write_file(const std::string& path, const std::string& text);

/// Long work shall not end at a place that cannot be written: tries it, and leaves it as it was.
/// @throws Error as write_file would, as far as that can be known: no such folder, no permission, no room at all
void check_place(const std::string& path);

/// To standard output, at once. @throws Error when it cannot be written
void print(std::string_view text);

/// Whether writing again replaces what was written, and does not come behind it as in a pipe.
bool is_replaced(const std::string& path);

}  // namespace nibkv::llm
