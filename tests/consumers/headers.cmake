# Compiles every public header by itself, after the macros of other headers and with many warnings.
# Builds and runs a program that uses the library LIBRARY in this way.
#   cmake -DWORK=... -DROOT=... -DLIBRARY=... [-DEMULATOR=...] [-DC=ON] -P headers.cmake
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)

file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
set(here ${CMAKE_CURRENT_LIST_DIR})
separate_arguments(cpp UNIX_COMMAND "${CMAKE_CXX_COMPILER} ${CMAKE_CXX_FLAGS}")
separate_arguments(c UNIX_COMMAND "${CMAKE_C_COMPILER} ${CMAKE_C_FLAGS}")
set(warnings -Werror -Wall -Wextra -pedantic -Wconversion -Wsign-conversion -Wshadow -Wundef -Wcast-qual -Wcast-align)
run(${cpp} --version OUTPUT compiler)
if(compiler MATCHES "clang")
  set(of_cpp -Wold-style-cast -Wfloat-equal -Wdocumentation -Wtautological-type-limit-compare -Wshadow-all -Wextra-semi -Wglobal-constructors
      -Wswitch-enum -Wcovered-switch-default -Wunused-macros -Wheader-hygiene)
else()
  list(APPEND warnings -Wcast-align=strict)
  set(of_cpp -Wuseless-cast -Wold-style-cast -Wfloat-equal -Weffc++)
endif()
list(APPEND cpp -std=c++20 -I${ROOT}/lib/include ${warnings})

file(GLOB headers RELATIVE ${ROOT}/lib/include ${ROOT}/lib/include/nibkv/*.h*)
list(FILTER headers EXCLUDE REGEX "macros_(push|pop)")
set(sources)
foreach(header IN LISTS headers)
  string(MAKE_C_IDENTIFIER ${header} name)
  # X11's Status is defined again.
  file(WRITE ${WORK}/${name}.cpp "#include \"${here}/macros.h\"\n#include \"${header}\"\nextern Status ${name};\n")
  list(APPEND sources ${WORK}/${name}.cpp)
endforeach()
run(${cpp} ${of_cpp} -fsyntax-only ${sources})
if(C)
  file(WRITE ${WORK}/nibkv.c "#include \"${here}/macros.h\"\n#include \"nibkv/nibkv.h\"\nextern Status again;\n")
  run(${c} -std=c11 -I${ROOT}/lib/include ${warnings} -fsyntax-only ${WORK}/nibkv.c)
endif()

get_filename_component(folder ${LIBRARY} DIRECTORY)
run(${cpp} -Wno-sign-conversion ${here}/behind_macros.cpp -o ${WORK}/consumer ${LIBRARY} -Wl,-rpath,${folder})
run(${EMULATOR} ${WORK}/consumer)
