// Puts aside the macros by which other headers take names of this library: X11's Status, min and max of windows.h,
// clear of curses, check of Apple's AssertMacros.h. Every header with such a name has this before its declarations and
// macros_pop.hpp behind them. No guard: pairs may lie within pairs.
#pragma push_macro("Status")
#pragma push_macro("check")
#pragma push_macro("clear")
#pragma push_macro("max")
#pragma push_macro("min")
#undef Status
#undef check
#undef clear
#undef max
#undef min
