/* Journals what a process does to the files below a directory and what it says over TCP, in the order in which it did
 * it, so that a test can work out what a disk may hold after a power cut, and what the far end had been told by then.
 * For LD_PRELOAD. Environment: POWERCUT_ROOT, POWERCUT_JOURNAL.
 *
 *   record = "OP STAMP NUMBER OFFSET LENGTH PATH PATH2\n" data
 *
 *   STAMP   microseconds of CLOCK_MONOTONIC when it was done
 *   NUMBER  inode of a file, descriptor of a socket
 *   OP      c(reate) w(rite) t(runcate or grow) s(ync of a file) d(irectory synced) r(ename) u(nlink) m(kdir)
 *           o(pen connection) > (sent) < (received)    ! (a call that the test does not know)
 *
 * A call and its record are under one lock, so the order of the records is the order of the calls.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;

static void put(const void *bytes, size_t length) {
    if (journal < 0) journal = syscall(SYS_openat, AT_FDCWD, getenv("POWERCUT_JOURNAL"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (syscall(SYS_write, journal, bytes, length) != (long)length) abort();
}

static void record(char op, unsigned long number, long offset, size_t length, const char *path, const char *path2, const void *data) {
    char line[8300];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long stamp = now.tv_sec * 1000000L + now.tv_nsec / 1000;
    int n = snprintf(line, sizeof line, "%c %ld %lu %ld %zu %s %s\n", op, stamp, number, offset, length, path, path2);
    put(line, n);
    if (data) put(data, length);
}

static int is_ours(const char *path) {
    const char *root = getenv("POWERCUT_ROOT");
    return root && path && strncmp(path, root, strlen(root)) == 0;
}

/* A file or directory below the root that a descriptor stands for; 0 for others. */
static unsigned long inode(int fd, char *path, struct stat *st) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, 4095);
    if (n <= 0) return 0;
    path[n] = 0;
    return is_ours(path) && fstat(fd, st) == 0 && (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) ? st->st_ino : 0;
}

static int is_tcp(int fd) {
    int domain = 0, type = 0, saved = errno;
    socklen_t size = sizeof domain;
    int is = getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
    errno = saved;
    return is && (domain == AF_INET || domain == AF_INET6) && type == SOCK_STREAM;
}

/* Names as the test knows them are absolute: what is relative to a directory's descriptor is made so. */
static const char *absolute(int dir, const char *path, char *buffer) {
    struct stat st;
    if (path[0] == '/' || dir == AT_FDCWD || !inode(dir, buffer, &st)) return path;
    strncat(strncat(buffer, "/", 4095 - strlen(buffer)), path, 4095 - strlen(buffer));
    return buffer;
}

#define LOCKED(type, expression) pthread_mutex_lock(&lock); type r = (expression); int e = errno; pthread_mutex_unlock(&lock); errno = e; return r;

/* --- names */

static int do_open(int dir, const char *relative, int flags, mode_t mode) {
    char buffer[4096];
    const char *path = absolute(dir, relative, buffer);
    if (!is_ours(path) || !(flags & (O_CREAT | O_TRUNC))) return syscall(SYS_openat, dir, relative, flags, mode);
    int is_new = access(path, F_OK) != 0;
    int fd = syscall(SYS_openat, dir, relative, flags, mode);
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0) {
        if ((flags & O_TMPFILE) == O_TMPFILE) record('!', 0, 0, 0, "O_TMPFILE", "-", 0);
        else if (is_new) record('c', st.st_ino, 0, 0, path, "-", 0);
        else if (flags & O_TRUNC) record('t', st.st_ino, 0, 0, path, "-", 0);
    }
    return fd;
}

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, flags); mode = va_arg(a, mode_t); va_end(a); }
int open(const char *p, int f, ...) { MODE(f) LOCKED(int, do_open(AT_FDCWD, p, f, mode)) }
int open64(const char *p, int f, ...) { MODE(f) LOCKED(int, do_open(AT_FDCWD, p, f | O_LARGEFILE, mode)) }
int openat(int d, const char *p, int f, ...) { MODE(f) LOCKED(int, do_open(d, p, f, mode)) }
int openat64(int d, const char *p, int f, ...) { MODE(f) LOCKED(int, do_open(d, p, f | O_LARGEFILE, mode)) }
int creat(const char *p, mode_t m) { LOCKED(int, do_open(AT_FDCWD, p, O_CREAT | O_WRONLY | O_TRUNC, m)) }
int creat64(const char *p, mode_t m) { return creat(p, m); }

static int named(int r, char op, int dir, const char *path, int dir2, const char *path2) {
    char buffer[4096], buffer2[4096];
    path = absolute(dir, path, buffer);
    path2 = path2 ? absolute(dir2, path2, buffer2) : "-";
    if (r == 0 && (is_ours(path) || is_ours(path2))) record(op, 0, 0, 0, path, path2, 0);
    return r;
}
/* Only a plain rename is known: an exchange, or a link, would be something else. */
int renameat2(int d, const char *a, int d2, const char *b, unsigned f) { LOCKED(int, named(syscall(SYS_renameat2, d, a, d2, b, f), f & ~RENAME_NOREPLACE ? '!' : 'r', d, a, d2, b)) }
int renameat(int d, const char *a, int d2, const char *b) { return renameat2(d, a, d2, b, 0); }
int rename(const char *a, const char *b) { return renameat2(AT_FDCWD, a, AT_FDCWD, b, 0); }
int unlinkat(int d, const char *p, int f) { LOCKED(int, named(syscall(SYS_unlinkat, d, p, f), 'u', d, p, 0, 0)) }
int unlink(const char *p) { return unlinkat(AT_FDCWD, p, 0); }
int rmdir(const char *p) { return unlinkat(AT_FDCWD, p, AT_REMOVEDIR); }
int mkdirat(int d, const char *p, mode_t m) { LOCKED(int, named(syscall(SYS_mkdirat, d, p, m), 'm', d, p, 0, 0)) }
int mkdir(const char *p, mode_t m) { return mkdirat(AT_FDCWD, p, m); }
int linkat(int d, const char *a, int d2, const char *b, int f) { LOCKED(int, named(syscall(SYS_linkat, d, a, d2, b, f), '!', d, a, d2, b)) }
int link(const char *a, const char *b) { return linkat(AT_FDCWD, a, AT_FDCWD, b, 0); }

/* --- content, and what is said */

static ssize_t wrote(int fd, ssize_t n, long offset, const void *data) {
    char path[4096];
    struct stat st;
    unsigned long ino;
    int saved = errno;
    if (n <= 0) return n;
    if ((ino = inode(fd, path, &st))) {
        if (offset < 0) offset = fcntl(fd, F_GETFL) & O_APPEND ? st.st_size - n : lseek(fd, 0, SEEK_CUR) - n;
        record('w', ino, offset, n, path, "-", data);
    } else if (is_tcp(fd)) record('>', fd, 0, n, "-", "-", data);
    errno = saved;
    return n;
}
static ssize_t heard(int fd, ssize_t n, const void *data) {
    if (n > 0 && is_tcp(fd)) record('<', fd, 0, n, "-", "-", data);
    return n;
}

/* One buffer after the other: a short write is as good as a whole one. */
static ssize_t do_writev(int fd, const struct iovec *v, int count, long offset) {
    ssize_t sum = 0;
    for (int i = 0; i < count; i++) {
        if (v[i].iov_len == 0) continue;
        ssize_t n = offset < 0 ? syscall(SYS_write, fd, v[i].iov_base, v[i].iov_len)
                               : syscall(SYS_pwrite64, fd, v[i].iov_base, v[i].iov_len, offset + sum);
        if (n < 0) return sum > 0 ? sum : n;
        wrote(fd, n, offset < 0 ? -1 : offset + sum, v[i].iov_base);
        sum += n;
        if ((size_t)n < v[i].iov_len) break;
    }
    return sum;
}
static int is_known(int fd) {
    char path[4096];
    struct stat st;
    return inode(fd, path, &st) || is_tcp(fd);
}

ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { LOCKED(ssize_t, wrote(fd, syscall(SYS_pwrite64, fd, b, n, o), o, b)) }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { return pwrite64(fd, b, n, o); }
/* What is not ours goes its way without the lock: it may wait for long. */
ssize_t write(int fd, const void *b, size_t n) {
    if (!is_known(fd)) return syscall(SYS_write, fd, b, n);
    LOCKED(ssize_t, wrote(fd, syscall(SYS_write, fd, b, n), -1, b))
}
ssize_t writev(int fd, const struct iovec *v, int n) {
    if (!is_known(fd)) return syscall(SYS_writev, fd, v, n);
    LOCKED(ssize_t, do_writev(fd, v, n, -1))
}
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t o) { LOCKED(ssize_t, do_writev(fd, v, n, o)) }
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t o) { return pwritev(fd, v, n, o); }
ssize_t send(int fd, const void *b, size_t n, int f) {
    if (!is_tcp(fd)) return syscall(SYS_sendto, fd, b, n, f, 0, 0);
    LOCKED(ssize_t, wrote(fd, syscall(SYS_sendto, fd, b, n, f, 0, 0), -1, b))
}
ssize_t recv(int fd, void *b, size_t n, int f) {
    if (!is_tcp(fd) || f & MSG_PEEK) return syscall(SYS_recvfrom, fd, b, n, f, 0, 0);
    LOCKED(ssize_t, heard(fd, syscall(SYS_recvfrom, fd, b, n, f, 0, 0), b))
}
ssize_t read(int fd, void *b, size_t n) {
    if (!is_tcp(fd)) return syscall(SYS_read, fd, b, n);
    LOCKED(ssize_t, heard(fd, syscall(SYS_read, fd, b, n), b))
}
int connect(int fd, const struct sockaddr *a, socklen_t n) {
    if (!is_tcp(fd)) return syscall(SYS_connect, fd, a, n);
    pthread_mutex_lock(&lock);
    record('o', fd, 0, 0, "-", "-", 0);
    pthread_mutex_unlock(&lock);
    return syscall(SYS_connect, fd, a, n);
}

static int done(int r, char op, int fd, long offset) {
    char path[4096];
    struct stat st;
    unsigned long ino;
    if (r == 0 && (ino = inode(fd, path, &st))) record(op == 's' && S_ISDIR(st.st_mode) ? 'd' : op, ino, offset, 0, path, "-", 0);
    return r;
}
int ftruncate64(int fd, off64_t n) { LOCKED(int, done(syscall(SYS_ftruncate, fd, n), 't', fd, n)) }
int ftruncate(int fd, off_t n) { return ftruncate64(fd, n); }
int fdatasync(int fd) { LOCKED(int, done(syscall(SYS_fdatasync, fd), 's', fd, 0)) }
int fsync(int fd) { LOCKED(int, done(syscall(SYS_fsync, fd), 's', fd, 0)) }

/* Room that is set aside behind the end changes nothing that can be read; a file that grows does. */
static int allocate(int fd, int mode, off64_t o, off64_t n) {
    struct stat before, after;
    int r = fstat(fd, &before) == 0 ? (int)syscall(SYS_fallocate, fd, mode, o, n) : -1;
    if (r != 0 || mode == FALLOC_FL_KEEP_SIZE || fstat(fd, &after) != 0) return r;
    if (mode != 0) return done(r, '!', fd, o);
    return after.st_size == before.st_size ? r : done(r, 't', fd, after.st_size);
}
int fallocate64(int fd, int mode, off64_t o, off64_t n) { LOCKED(int, allocate(fd, mode, o, n)) }
int fallocate(int fd, int mode, off_t o, off_t n) { return fallocate64(fd, mode, o, n); }
int posix_fallocate64(int fd, off64_t o, off64_t n) { return fallocate64(fd, 0, o, n) == 0 ? 0 : errno; }
int posix_fallocate(int fd, off_t o, off_t n) { return posix_fallocate64(fd, o, n); }
/* Callers fall back to plain reads and writes. */
ssize_t copy_file_range(int a, off64_t *o, int b, off64_t *p, size_t n, unsigned f) { errno = ENOSYS; return -1; }
ssize_t sendfile64(int a, int b, off64_t *o, size_t n) { errno = ENOSYS; return -1; }
ssize_t sendfile(int a, int b, off_t *o, size_t n) { errno = ENOSYS; return -1; }
