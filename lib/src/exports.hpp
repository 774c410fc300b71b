#pragma once

// The build includes this before every source of a shared library, whose symbols are hidden by
// default: only what the public headers declare is exported.
#pragma GCC visibility push(default)
#include "nibkv/nibkv.hpp"
#pragma GCC visibility pop
