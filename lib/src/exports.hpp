#pragma once

// The build includes this before every source of a shared library, whose symbols are hidden by default: what the public
// headers declare is shown, and nothing else.
#pragma GCC visibility push(default)
#include "nibkv/nibkv.hpp"
#pragma GCC visibility pop
