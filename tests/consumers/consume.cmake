# Configures, builds and runs the consumer project SOURCE in the folder WORK; with PREFIX, with the package installed there.
# EMULATOR, OPTIONS and MORE (options that override the others) are lists and may be empty.
#   cmake -DSOURCE=... -DWORK=... [-DPREFIX=...] [-DEMULATOR=...] [-DOPTIONS=...] [-DMORE=...] [-DC=ON] [-DNM=...] -P consume.cmake
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)

file(REMOVE_RECURSE ${WORK})
if(PREFIX)
  # Not nibkv_ROOT: toolchain files search for packages only in their own root.
  file(GLOB_RECURSE config ${PREFIX}/nibkvConfig.cmake)
  get_filename_component(folder ${config} DIRECTORY)
  list(APPEND OPTIONS -Dnibkv_DIR=${folder})
endif()
run(${CMAKE_COMMAND} -S ${SOURCE} -B ${WORK}/build ${OPTIONS} ${MORE} -DWITH_C=${C})
run(${CMAKE_COMMAND} --build ${WORK}/build --target consumer)
run(${EMULATOR} ${WORK}/build/consumer)
if(C)
  run(${CMAKE_COMMAND} --build ${WORK}/build --target consumer_c)
  run(${EMULATOR} ${WORK}/build/consumer_c)
endif()
if(SOURCE MATCHES "_c$")
  expect_no_cpp(${WORK}/build/consumer)
endif()

# A library with one port has nothing to choose: it must not ask which CPU this is.
if(NM)
  file(GLOB_RECURSE library ${WORK}/build/libnibkv.a)
  run(${NM} ${library} OUTPUT symbols)
  if(NOT symbols MATCHES "kScalarKernels" OR symbols MATCHES "__cpu_|getauxval|k(Sse|Avx|Neon)[A-Za-z0-9]*Kernels")
    message(FATAL_ERROR "a library with only the scalar port has a choice of ports:\n${symbols}")
  endif()
endif()
