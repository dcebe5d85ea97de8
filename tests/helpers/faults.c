/* A preloaded library that makes the disk below one folder fail, for tests (Linux).
 *
 * fault_folder(path)         the folder; nothing outside it is touched
 * fault_refuse(call, error)  every call of that name fails with errno `error` (0: no longer)
 * fault_stop(n, error)       the n-th change of a file or folder ends the process in its middle
 *                            (error 0), or it and every later one fails with errno `error`; a disk
 *                            that is full (ENOSPC, EDQUOT) still lets files be removed and renamed
 * fault_count()              how many changes there were since fault_folder
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static size_t folder_length;
static atomic_long changes, stop_at;
static int stop_error;

enum { FLOCK, FCNTL, MMAP, FSYNC, LINK, SYMLINK, CALLS };
static const char *names[CALLS] = {"flock", "fcntl", "mmap", "fsync", "link", "symlink"};
static int refused[CALLS];

void fault_folder(const char *path) {
    folder_length = 0;
    strncpy(folder, path, sizeof folder - 1);
    folder_length = strlen(folder);
    changes = stop_at = stop_error = 0;
    memset(refused, 0, sizeof refused);
}

int fault_refuse(const char *call, int error) {
    for (int number = 0; number < CALLS; number++)
        if (!strcmp(names[number], call)) {
            refused[number] = error;
            return 0;
        }
    return -1;
}

void fault_stop(long at, int error) {
    stop_error = error;
    stop_at = at;
}

long fault_count(void) { return changes; }

static int is_below(const char *path) {
    return folder_length && !strncmp(path, folder, folder_length) &&
           (path[folder_length] == '/' || !path[folder_length]);
}

static int fd_is_below(int fd) {
    char link[64], path[PATH_MAX];
    if (!folder_length || fd < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static int at_is_below(int dir, const char *path) {
    char whole[2 * PATH_MAX], parent[PATH_MAX], link[64];
    if (!folder_length || !path) return 0;
    if (path[0] == '/') return is_below(path);
    if (dir == AT_FDCWD) {
        if (!getcwd(parent, sizeof parent)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t length = readlink(link, parent, sizeof parent - 1);
        if (length < 0) return 0;
        parent[length] = 0;
    }
    snprintf(whole, sizeof whole, "%s/%s", parent, path);
    return is_below(whole);
}

/* Counts a change; returns the errno that it is to fail with, 0 to go on, -1 to end the process. */
static int change(int grows) {
    long number = ++changes;
    if (!stop_at || number < stop_at) return 0;
    if (!stop_error) return number == stop_at ? -1 : 0;
    if ((stop_error == ENOSPC || stop_error == EDQUOT) && !grows) return 0;
    return stop_error;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define GO_ON(condition, grows)                 \
    if (condition) {                            \
        int error = change(grows);              \
        if (error < 0) _exit(137);              \
        if (error) { errno = error; return -1; } \
    }

#define WRITES(name, half, arguments, ...)                                    \
    ssize_t name(__VA_ARGS__) {                                               \
        static __typeof__(&name) real;                                        \
        if (!real) real = REAL(name);                                         \
        if (fd_is_below(fd)) {                                                \
            int error = change(1);                                            \
            if (error < 0) { if (real half < 0) {} _exit(137); }              \
            if (error) { errno = error; return -1; }                          \
        }                                                                     \
        return real arguments;                                                \
    }
WRITES(write, (fd, data, size / 2), (fd, data, size), int fd, const void *data, size_t size)
WRITES(pwrite, (fd, data, size / 2, at), (fd, data, size, at), int fd, const void *data,
       size_t size, off_t at)
WRITES(pwrite64, (fd, data, size / 2, at), (fd, data, size, at), int fd, const void *data,
       size_t size, off64_t at)
WRITES(writev, (fd, data, count / 2), (fd, data, count), int fd, const struct iovec *data,
       int count)

#define CHANGES(name, condition, grows, arguments, ...)  \
    int name(__VA_ARGS__) {                              \
        static __typeof__(&name) real;                   \
        if (!real) real = REAL(name);                    \
        GO_ON(condition, grows)                          \
        return real arguments;                           \
    }
CHANGES(ftruncate, fd_is_below(fd), 1, (fd, size), int fd, off_t size)
CHANGES(ftruncate64, fd_is_below(fd), 1, (fd, size), int fd, off64_t size)
CHANGES(rename, at_is_below(AT_FDCWD, to), 0, (from, to), const char *from, const char *to)
CHANGES(renameat, at_is_below(b, to), 0, (a, from, b, to), int a, const char *from, int b,
        const char *to)
CHANGES(unlink, at_is_below(AT_FDCWD, path), 0, (path), const char *path)
CHANGES(unlinkat, at_is_below(dir, path), 0, (dir, path, flags), int dir, const char *path,
        int flags)
CHANGES(rmdir, at_is_below(AT_FDCWD, path), 0, (path), const char *path)
CHANGES(mkdir, at_is_below(AT_FDCWD, path), 1, (path, mode), const char *path, mode_t mode)

#define SYNCS(name)                                                                          \
    int name(int fd) {                                                                       \
        static __typeof__(&name) real;                                                       \
        if (!real) real = REAL(name);                                                        \
        int below = fd_is_below(fd);                                                         \
        if (below && refused[FSYNC]) { errno = refused[FSYNC]; return -1; }                  \
        GO_ON(below, 1)                                                                      \
        return real(fd);                                                                     \
    }
SYNCS(fsync)
SYNCS(fdatasync)

#define OPENS(name)                                                                \
    int name(const char *path, int flags, ...) {                                   \
        static int (*real)(const char *, int, ...);                                \
        if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        va_list rest;                                                              \
        va_start(rest, flags);                                                     \
        mode_t mode = va_arg(rest, mode_t);                                        \
        va_end(rest);                                                              \
        int makes = flags & O_CREAT && access(path, F_OK);                         \
        GO_ON(makes && at_is_below(AT_FDCWD, path), 1)                             \
        return real(path, flags, mode);                                            \
    }
OPENS(open)
OPENS(open64)

int flock(int fd, int operation) {
    static int (*real)(int, int);
    if (!real) real = (int (*)(int, int))dlsym(RTLD_NEXT, "flock");
    if (refused[FLOCK] && fd_is_below(fd)) { errno = refused[FLOCK]; return -1; }
    return real(fd, operation);
}

#define FCNTL_OF(name)                                                             \
    int name(int fd, int command, ...) {                                           \
        static int (*real)(int, int, ...);                                         \
        if (!real) real = (int (*)(int, int, ...))dlsym(RTLD_NEXT, #name);         \
        va_list rest;                                                              \
        va_start(rest, command);                                                   \
        void *argument = va_arg(rest, void *);                                     \
        va_end(rest);                                                              \
        int locks = command == F_SETLK || command == F_SETLKW || command == F_GETLK; \
        if (locks && refused[FCNTL] && fd_is_below(fd)) {                          \
            errno = refused[FCNTL];                                                \
            return -1;                                                             \
        }                                                                          \
        return real(fd, command, argument);                                        \
    }
FCNTL_OF(fcntl)
FCNTL_OF(fcntl64)

#define MAPS(name, offset_type)                                                          \
    void *name(void *at, size_t size, int access, int flags, int fd, offset_type start) { \
        static void *(*real)(void *, size_t, int, int, int, offset_type);                \
        if (!real)                                                                       \
            real = (void *(*)(void *, size_t, int, int, int, offset_type))dlsym(RTLD_NEXT, #name); \
        if (refused[MMAP] && flags & MAP_SHARED && fd_is_below(fd)) {                    \
            errno = refused[MMAP];                                                       \
            return MAP_FAILED;                                                           \
        }                                                                                \
        return real(at, size, access, flags, fd, start);                                 \
    }
MAPS(mmap, off_t)
MAPS(mmap64, off64_t)

int link(const char *from, const char *to) {
    static int (*real)(const char *, const char *);
    if (!real) real = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "link");
    if (refused[LINK] && at_is_below(AT_FDCWD, to)) { errno = refused[LINK]; return -1; }
    return real(from, to);
}

int symlink(const char *from, const char *to) {
    static int (*real)(const char *, const char *);
    if (!real) real = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "symlink");
    if (refused[SYMLINK] && at_is_below(AT_FDCWD, to)) { errno = refused[SYMLINK]; return -1; }
    return real(from, to);
}
