#ifndef NIBKV_VERSION_H
#define NIBKV_VERSION_H

/* The version, for C and C++. The build reads it from here. While it is 0.x, a new minor version
 * may change the interface. */
#define NIBKV_VERSION_MAJOR 0
#define NIBKV_VERSION_MINOR 1
#define NIBKV_VERSION_PATCH 0
#define NIBKV_VERSION_STRING "0.1.0"

#endif
