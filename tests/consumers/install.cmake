# Installs nibkv into WORK and moves what was installed to WORK/moved: from the build folder BUILT, or after building it from
# ROOT with BUILD_SHARED_LIBS=SHARED.
#   cmake -DWORK=... -DROOT=... (-DBUILT=... | -DSHARED=...) [-DOPTIONS=...] -P install.cmake
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)

if(NOT BUILT)
  set(BUILT ${WORK}/build)
  run(${CMAKE_COMMAND} -S ${ROOT} -B ${BUILT} ${OPTIONS} -DBUILD_SHARED_LIBS=${SHARED} -DNIBKV_TESTS=OFF -DNIBKV_BENCH=OFF
      -DNIBKV_WERROR=ON)
  run(${CMAKE_COMMAND} --build ${BUILT})
endif()
file(REMOVE_RECURSE ${WORK}/installed ${WORK}/moved)
run(${CMAKE_COMMAND} --install ${BUILT} --prefix ${WORK}/installed)
file(RENAME ${WORK}/installed ${WORK}/moved)
