#pragma once

// NIBKV_ASSERT(condition) states what holds inside a sound arena. It costs nothing unless NIBKV_ASSERTS is
// defined, as in tests under sanitizers, in fuzzers and under emulators: then a condition that does not
// hold stops the program. Firmware may define NIBKV_ASSERT itself.
#ifndef NIBKV_ASSERT
#ifdef NIBKV_ASSERTS
#define NIBKV_ASSERT(condition) ((condition) ? static_cast<void>(0) : __builtin_trap())
#else
#define NIBKV_ASSERT(condition) static_cast<void>(sizeof((condition) ? 1 : 0))
#endif
#endif
