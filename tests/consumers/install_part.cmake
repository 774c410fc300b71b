# Installs nibkv as a part of the project built in BUILT, into folders of WORK given as absolute paths:
# what nibkv.pc names must exist (google/sentencepiece#754).
#   cmake -DWORK=... -DBUILT=... -P install_part.cmake
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/subdirectory -B ${BUILT} -DASKED=INSTALL -DNIBKV_INSTALL=ON
    -DCMAKE_INSTALL_PREFIX=${WORK}/prefix -DCMAKE_INSTALL_LIBDIR=${WORK}/lib -DCMAKE_INSTALL_INCLUDEDIR=${WORK}/headers)
run(${CMAKE_COMMAND} --build ${BUILT} --target nibkv)
run(${CMAKE_COMMAND} --install ${BUILT})
file(STRINGS ${WORK}/lib/pkgconfig/nibkv.pc folders REGEX "^[a-z]*dir=")
if(NOT folders STREQUAL "includedir=${WORK}/headers;libdir=${WORK}/lib")
  message(FATAL_ERROR "nibkv.pc: ${folders}")
endif()
