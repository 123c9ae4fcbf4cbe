/* Journals what a process does to the files below a directory, in the order in which it did it, so that a test can
 * work out what a disk may hold after a power cut. For LD_PRELOAD. Environment: POWERCUT_ROOT, POWERCUT_JOURNAL.
 *
 *   record = "OP INODE OFFSET LENGTH PATH PATH2\n" data      OP: c(reate) w(rite) t(runcate) s(ync) r(ename) u(nlink) m(kdir)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;

static int is_ours(const char *path) {
    const char *root = getenv("POWERCUT_ROOT");
    return root && path && strncmp(path, root, strlen(root)) == 0;
}

static void put(const void *bytes, size_t length) {
    if (journal < 0) journal = syscall(SYS_openat, AT_FDCWD, getenv("POWERCUT_JOURNAL"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (syscall(SYS_write, journal, bytes, length) != (long)length) abort();
}

static void record(char op, unsigned long ino, long offset, size_t length, const char *path, const char *path2, const void *data) {
    char line[8300];
    int n = snprintf(line, sizeof line, "%c %lu %ld %zu %s %s\n", op, ino, offset, length, path, path2);
    put(line, n);
    if (data) put(data, length);
}

/* The inode of a descriptor below the root, 0 for others. */
static unsigned long inode(int fd, char *path) {
    char link[64];
    struct stat st;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, 4095);
    if (n <= 0) return 0;
    path[n] = 0;
    return is_ours(path) && fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) ? st.st_ino : 0;
}

static int do_open(int dir, const char *path, int flags, mode_t mode) {
    if (!is_ours(path) || !(flags & (O_CREAT | O_TRUNC))) return syscall(SYS_openat, dir, path, flags, mode);
    pthread_mutex_lock(&lock);
    int is_new = access(path, F_OK) != 0;
    int fd = syscall(SYS_openat, dir, path, flags, mode);
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0) {
        if (is_new) record('c', st.st_ino, 0, 0, path, "-", 0);
        else if (flags & O_TRUNC) record('t', st.st_ino, 0, 0, path, "-", 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, flags); mode = va_arg(a, mode_t); va_end(a); }
int open(const char *p, int f, ...) { MODE(f) return do_open(AT_FDCWD, p, f, mode); }
int open64(const char *p, int f, ...) { MODE(f) return do_open(AT_FDCWD, p, f | O_LARGEFILE, mode); }
int openat(int d, const char *p, int f, ...) { MODE(f) return do_open(d, p, f, mode); }
int openat64(int d, const char *p, int f, ...) { MODE(f) return do_open(d, p, f | O_LARGEFILE, mode); }

static ssize_t wrote(int fd, ssize_t n, long offset, const void *data) {
    char path[4096];
    unsigned long ino;
    if (n > 0 && (ino = inode(fd, path))) record('w', ino, offset, n, path, "-", data);
    return n;
}

#define LOCKED(type, expression) pthread_mutex_lock(&lock); type r = (expression); pthread_mutex_unlock(&lock); return r;
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { LOCKED(ssize_t, wrote(fd, syscall(SYS_pwrite64, fd, b, n, o), o, b)) }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { return pwrite64(fd, b, n, o); }
ssize_t write(int fd, const void *b, size_t n) {
    char path[4096];
    if (!inode(fd, path)) return syscall(SYS_write, fd, b, n);
    pthread_mutex_lock(&lock);
    long at = lseek(fd, 0, SEEK_CUR);
    ssize_t r = wrote(fd, syscall(SYS_write, fd, b, n), at, b);
    pthread_mutex_unlock(&lock);
    return r;
}

static int done(int r, char op, int fd, long offset) {
    char path[4096];
    unsigned long ino;
    if (r == 0 && (ino = inode(fd, path))) record(op, ino, offset, 0, path, "-", 0);
    return r;
}
int ftruncate64(int fd, off64_t n) { LOCKED(int, done(syscall(SYS_ftruncate, fd, n), 't', fd, n)) }
int ftruncate(int fd, off_t n) { return ftruncate64(fd, n); }
int fdatasync(int fd) { LOCKED(int, done(syscall(SYS_fdatasync, fd), 's', fd, 0)) }
int fsync(int fd) { LOCKED(int, done(syscall(SYS_fsync, fd), 's', fd, 0)) }

static int named(int r, char op, const char *path, const char *path2) {
    if (r == 0 && is_ours(path)) record(op, 0, 0, 0, path, path2, 0);
    return r;
}
int rename(const char *a, const char *b) { LOCKED(int, named(syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 0), 'r', a, b)) }
int unlink(const char *p) { LOCKED(int, named(syscall(SYS_unlinkat, AT_FDCWD, p, 0), 'u', p, "-")) }
int mkdir(const char *p, mode_t m) { LOCKED(int, named(syscall(SYS_mkdirat, AT_FDCWD, p, m), 'm', p, "-")) }
