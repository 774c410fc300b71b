# Builds and runs the examples that are installed in PREFIX, as the project that they are there.
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)

file(REMOVE_RECURSE ${WORK})
file(GLOB_RECURSE config ${PREFIX}/nibkvConfig.cmake)
get_filename_component(folder ${config} DIRECTORY)
run(${CMAKE_COMMAND} -S ${PREFIX}/share/doc/nibkv/examples -B ${WORK} ${OPTIONS} -Dnibkv_DIR=${folder} -DNIBKV_WERROR=ON)
run(${CMAKE_COMMAND} --build ${WORK})
run(${CMAKE_CTEST_COMMAND} --test-dir ${WORK} --output-on-failure OUTPUT results)
if(NOT results MATCHES "100% tests passed, 0 tests failed out of [34]")
  message(FATAL_ERROR "${results}")
endif()
