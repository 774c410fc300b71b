#include "arena/select.hpp"

#include "nibkv/cache.hpp"
#include "ports/ports.hpp"

namespace nibkv {

Status select_port(std::string_view name, const Kernels*& port) {
  for (const Port& candidate : kPorts) {
    if (!name.empty() && name != candidate.kernels->name) continue;
    if (candidate.runs_here()) {
      port = candidate.kernels;
      return Status::kOk;
    }
    if (!name.empty()) return Status::kUnsupportedPort;
  }
  return Status::kUnknownPort;
}

std::string_view port_name(std::uint32_t index) {
  return index < sizeof kPorts / sizeof kPorts[0] ? std::string_view{kPorts[index].kernels->name} : std::string_view{};
}

bool port_runs(std::string_view name) {
  for (const Port& candidate : kPorts) {
    if (name == candidate.kernels->name) return candidate.runs_here();
  }
  return false;
}

}  // namespace nibkv
