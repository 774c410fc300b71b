# Compiles the consumer and the library with one command, from the list of sources; the list must be complete.
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)

file(STRINGS ${ROOT}/lib/sources.txt listed)
file(GLOB_RECURSE there RELATIVE ${ROOT} ${ROOT}/lib/src/*.cpp ${ROOT}/ports/scalar/*.cpp)
list(SORT listed)
list(SORT there)
if(NOT listed STREQUAL there)
  message(FATAL_ERROR "lib/sources.txt lists\n${listed}\nbut there are\n${there}")
endif()

file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
separate_arguments(cpp UNIX_COMMAND "${CMAKE_CXX_COMPILER} ${CMAKE_CXX_FLAGS}")
set(command ${cpp} -std=c++20 -O0 -ffp-contract=off -fno-exceptions -fno-rtti -Ilib/include -Ilib/src -I. @lib/sources.txt
            ${CMAKE_CURRENT_LIST_DIR}/consumer.cpp -o ${WORK}/consumer)
execute_process(COMMAND ${command} WORKING_DIRECTORY ${ROOT} RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "failed (${result}): ${command}")
endif()
run(${EMULATOR} ${WORK}/consumer)
