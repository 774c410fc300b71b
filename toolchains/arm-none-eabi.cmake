# What the Cortex-M toolchain files share: no operating system, newlib's C++ library, programs run on a board that qemu emulates, which
# tests/baremetal has start-up code and a memory map for. Debian: gcc-arm-none-eabi libstdc++-arm-none-eabi-newlib qemu-system-arm
#   include() it after CMAKE_SYSTEM_PROCESSOR, NIBKV_BOARD and NIBKV_CPU_FLAGS are set.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
set(CMAKE_CXX_COMPILER arm-none-eabi-g++)
set(CMAKE_CXX_FLAGS_INIT "-mthumb ${NIBKV_CPU_FLAGS} -ffunction-sections -fdata-sections")
set(CMAKE_C_FLAGS_INIT "${CMAKE_CXX_FLAGS_INIT}")
# A program needs a board's memory map: compilers are tried without linking.
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-system-arm -M ${NIBKV_BOARD} -display none -monitor none -serial none -semihosting-config
    enable=on,target=native -kernel)
# The runner of bench/ wants files and threads.
set(NIBKV_BENCH OFF CACHE BOOL "Build the assistant, the evaluation and the benchmarks")
set(NIBKV_INSTALL OFF CACHE BOOL "Install the library and its package files")
