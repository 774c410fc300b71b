// The consumer behind headers that took names of the library.
#include "macros.h"
#include "nibkv/nibkv.hpp"

// What needs none of those names works as it is.
std::string_view refusal() {
  nibkv::Cache cache;
  return nibkv::text(nibkv::append(cache, 0, {}, {}));
}

// Those that it needs it takes back.
#undef Status
#undef I
#include "consumer.cpp"
