#pragma once

// All of nibkv, in the order in which data flows. Headers whose macros collide with its names (Status
// of X11, clear of curses) may be included before it. Code that uses such a name must #undef the
// macro first.
// clang-format off
#include "nibkv/status.hpp"
#include "nibkv/shape.hpp"
#include "nibkv/policy.hpp"
#include "nibkv/profile.hpp"
#include "nibkv/fold.hpp"
#include "nibkv/arena.hpp"
#include "nibkv/cold.hpp"
#include "nibkv/cache.hpp"
#include "nibkv/rows.hpp"
#include "nibkv/append.hpp"
#include "nibkv/classify.hpp"
#include "nibkv/attend.hpp"
#include "nibkv/recall.hpp"
#include "nibkv/share.hpp"
#include "nibkv/score.hpp"
#include "nibkv/precision.hpp"
#include "nibkv/plan.hpp"
#include "nibkv/compact.hpp"
#include "nibkv/tidy.hpp"
#include "nibkv/truncate.hpp"
#include "nibkv/move.hpp"
#include "nibkv/check.hpp"
#include "nibkv/snapshot.hpp"
#include "nibkv/banks.hpp"
// clang-format on
