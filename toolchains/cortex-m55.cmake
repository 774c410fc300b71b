# Cortex-M55 without an operating system, on the board mps3-an547 of qemu.
#   cmake -S . -B build-m55 -DCMAKE_TOOLCHAIN_FILE=toolchains/cortex-m55.cmake
set(CMAKE_SYSTEM_PROCESSOR cortex-m55)
set(NIBKV_BOARD mps3-an547)
# No Helium but in the port that asks for it.
set(NIBKV_CPU_FLAGS "-mcpu=cortex-m55+nomve -mfloat-abi=hard")
include(${CMAKE_CURRENT_LIST_DIR}/arm-none-eabi.cmake)
