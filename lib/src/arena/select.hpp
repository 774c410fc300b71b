#pragma once

#include <string_view>

#include "nibkv/status.hpp"
#include "ports/kernels.hpp"

namespace nibkv {

/// Finds the port of that name, or for an empty name the fastest that this CPU can run.
/// @returns kUnknownPort, kUnsupportedPort; `port` is unchanged then.
Status select_port(std::string_view name, const Kernels*& port);

}  // namespace nibkv
