#ifndef NIBKV_EXPORT_H
#define NIBKV_EXPORT_H

/* What a shared library shows. NIBKV_SHARED is defined while one is built, and only then: a static library shows
 * nothing, so that what it is linked into does not either. */
#ifdef NIBKV_SHARED
#define NIBKV_API __attribute__((visibility("default")))
#else
#define NIBKV_API
#endif

#endif
