// Restores the macros that macros_push.hpp saved.
#pragma pop_macro("Status")
#pragma pop_macro("check")
#pragma pop_macro("clear")
#pragma pop_macro("max")
#pragma pop_macro("min")
