#pragma once

// All of nibkv, in the order in which data flows.
#include "nibkv/append.hpp"
#include "nibkv/arena.hpp"
#include "nibkv/attend.hpp"
#include "nibkv/cache.hpp"
#include "nibkv/compact.hpp"
#include "nibkv/plan.hpp"
#include "nibkv/policy.hpp"
#include "nibkv/profile.hpp"
#include "nibkv/shape.hpp"
#include "nibkv/status.hpp"
