// The consumer, included after headers that define names of the library as macros.
#include "macros.h"
#include "nibkv/nibkv.hpp"

// Code that needs none of those names works unchanged.
std::string_view refusal() {
  nibkv::Cache cache;
  return nibkv::text(nibkv::append(cache, 0, {}, {}));
}

// It undefines the ones that it needs.
#undef Status
#undef I
#include "consumer.cpp"
