#ifndef NIBKV_EXPORT_H
#define NIBKV_EXPORT_H

/* What a shared library exports. NIBKV_SHARED is defined only while one is built: a static
 * library exports nothing, and neither does a program or library that links it. */
#ifdef NIBKV_SHARED
#define NIBKV_API __attribute__((visibility("default")))
#else
#define NIBKV_API
#endif

#endif
