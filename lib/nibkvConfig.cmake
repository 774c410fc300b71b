include(${CMAKE_CURRENT_LIST_DIR}/nibkvTargets.cmake)
# Before 3.22, CMake refuses targets that ask for a C++ standard in a project without C++.
get_property(nibkv_languages GLOBAL PROPERTY ENABLED_LANGUAGES)
if(CMAKE_VERSION VERSION_LESS 3.22 AND NOT nibkv_languages MATCHES "CXX")
  set_target_properties(nibkv::nibkv PROPERTIES INTERFACE_COMPILE_FEATURES "")
endif()
unset(nibkv_languages)
