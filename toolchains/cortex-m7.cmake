# Cortex-M7 without an operating system, on the board mps2-an500 of qemu.
#   cmake -S . -B build-m7 -DCMAKE_TOOLCHAIN_FILE=toolchains/cortex-m7.cmake
set(CMAKE_SYSTEM_PROCESSOR cortex-m7)
set(NIBKV_BOARD mps2-an500)
set(NIBKV_CPU_FLAGS "-mcpu=cortex-m7 -mfpu=fpv5-d16 -mfloat-abi=hard")
include(${CMAKE_CURRENT_LIST_DIR}/arm-none-eabi.cmake)
