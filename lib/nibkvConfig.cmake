include(${CMAKE_CURRENT_LIST_DIR}/nibkvTargets.cmake)
