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
  # Not nibkv_ROOT: toolchain files look for packages in their own root only.
  file(GLOB_RECURSE config ${WORK}/prefix/nibkvConfig.cmake)
  get_filename_component(folder ${config} DIRECTORY)
  list(APPEND OPTIONS -Dnibkv_DIR=${folder})
endif()
run(${CMAKE_COMMAND} -S ${SOURCE} -B ${WORK}/build ${OPTIONS})
run(${CMAKE_COMMAND} --build ${WORK}/build --target consumer)
run(${EMULATOR} ${WORK}/build/consumer)
