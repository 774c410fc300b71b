#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

// The files that programs write.

namespace nibkv::llm {

/// Who may read a new file. Whether others may depends on the umask.
enum class Readers : std::uint8_t { kAny, kOwner };

/// Writes a file completely or not at all: under another name in its folder, which replaces the old
/// file once all of it is on the disk.
///
/// What exists already: a symbolic link stays, and its target is replaced; a file keeps its
/// mode, and its owner and group if the system permits it; other hard links to it keep the old
/// contents. A device, a pipe, or the target of a descriptor such as /dev/stdout is written
/// to and never replaced.
///
/// @throws Error naming the path and the reason. The old file is unchanged then, and nothing
///         else is left behind.
void write_file(const std::string& path, std::span<const std::byte> bytes, Readers readers = Readers::kAny);
void write_file(const std::string& path, const std::string& text);

/// Takes the next bytes of a file.
using Sink = std::function<void(std::span<const std::byte>)>;

/// write_file for what is too large for memory: `fill` hands over the bytes part by part. What it throws leaves the old
/// file unchanged, too.
void write_parts(const std::string& path, const std::function<void(const Sink&)>& fill,
                 Readers readers = Readers::kAny);

/// Long work should not end with a file that cannot be written: tests that in advance,
/// and changes nothing.
/// @throws Error as write_file would, as far as that can be known: no such folder, no permission,
///         no free space at all
void check_place(const std::string& path);

/// Writes to standard output, at once.
/// @throws Error if that fails
void print(std::string_view text);

/// Whether writing again replaces what was written, instead of being appended to it as in a pipe.
bool is_replaced(const std::string& path);

}  // namespace nibkv::llm
