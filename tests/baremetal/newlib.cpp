// What newlib's C library needs for GoogleTest: a heap in the board's external memory, and output. Programs without a
// heap do not link this.
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>

#include <cerrno>
#include <cstddef>

#include "tests/baremetal/semihosting.hpp"

extern "C" {

extern char __external[], __external_end[];

void* __dso_handle = nullptr;  // the handle under which destructors of static objects are registered
void _fini() {}

void* _sbrk(std::ptrdiff_t bytes) {
  static char* end = __external;
  if (bytes > __external_end - end || bytes < __external - end) {
    errno = ENOMEM;
    return reinterpret_cast<void*>(-1);
  }
  char* const start = end;
  end += bytes;
  return start;
}

int _write(int, const char* bytes, int count) {
  char text[129];
  for (int at = 0; at < count;) {
    int n = 0;
    while (n < 128 && at < count) text[n++] = bytes[at++];
    text[n] = 0;
    nibkv::metal::say(text);
  }
  return count;
}

[[noreturn]] void _exit(int status) {
  nibkv::metal::leave(status);
}
int _kill(int, int) {
  nibkv::metal::leave(1);
}
int _getpid() {
  return 1;
}
int _isatty(int) {
  return 1;
}
int _fstat(int, struct stat* status) {
  status->st_mode = S_IFCHR;
  return 0;
}

// There are no files, and no clock.
int _open(const char*, int, ...) {
  errno = ENOENT;
  return -1;
}
int _stat(const char*, struct stat*) {
  errno = ENOENT;
  return -1;
}
int _close(int) {
  return -1;
}
int _read(int, char*, int) {
  return 0;
}
int _lseek(int, int, int) {
  return 0;
}
int _unlink(const char*) {
  errno = ENOENT;
  return -1;
}
int _gettimeofday(struct timeval* time, void*) {
  *time = {};
  return 0;
}
int mkdir(const char*, mode_t) {
  errno = ENOENT;
  return -1;
}
int rmdir(const char*) {
  errno = ENOENT;
  return -1;
}
char* getcwd(char*, std::size_t) {
  errno = ENOENT;
  return nullptr;
}

}  // extern "C"
