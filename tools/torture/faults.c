/* Loaded before libc: makes the n-th write, sync or truncation of a regular file fail with a chosen error.
 * torture_arm(n, error, sticky) starts counting; n = 0 only counts; sticky: everything after the n-th fails, too. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static long count, target;
static int error_number, stays;

void torture_arm(long n, int error, int sticky) { count = 0; target = n; error_number = error; stays = sticky; }
long torture_count(void) { return count; }

static int fails(int fd) {
    struct stat info;
    if (error_number == 0 || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return 0;
    count++;
    if (target && (count == target || (stays && count > target))) { errno = error_number; return 1; }
    return 0;
}

#define WRAP(type, name, parameters, arguments)                                   \
    type name parameters {                                                        \
        static type(*real) parameters;                                            \
        if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);            \
        return fails(fd) ? -1 : real arguments;                                   \
    }

WRAP(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
WRAP(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
WRAP(int, ftruncate, (int fd, off_t size), (fd, size))
WRAP(int, ftruncate64, (int fd, off64_t size), (fd, size))
WRAP(int, fsync, (int fd), (fd))
WRAP(int, fdatasync, (int fd), (fd))
