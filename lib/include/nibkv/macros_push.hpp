// Saves and undefines macros of other headers that collide with names of this library: Status
// of X11, min and max of windows.h, clear of curses, check of Apple's AssertMacros.h. Every header
// with such a name includes this before its declarations and macros_pop.hpp after them. There is no
// include guard, because pairs may be nested.
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
