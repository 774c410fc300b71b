# Configures, builds and runs the consumer project SOURCE in the folder WORK; with BUILT, a build folder of nibkv, first installs from
# there. EMULATOR and OPTIONS: lists, may be empty.
#   cmake -DSOURCE=... -DWORK=... [-DBUILT=...] [-DEMULATOR=...] [-DOPTIONS=...] -P consume.cmake
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "failed (${result}): ${ARGN}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
if(BUILT)
  run(${CMAKE_COMMAND} --install ${BUILT} --prefix ${WORK}/prefix)
  list(APPEND OPTIONS -Dnibkv_ROOT=${WORK}/prefix -DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=BOTH)
endif()
run(${CMAKE_COMMAND} -S ${SOURCE} -B ${WORK}/build ${OPTIONS})
run(${CMAKE_COMMAND} --build ${WORK}/build --target consumer)
run(${EMULATOR} ${WORK}/build/consumer)
