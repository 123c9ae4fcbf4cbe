/* A disk that does not answer as long as the file in the environment variable DISK_HANGS is there. For LD_PRELOAD. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd) {
    const char *hangs = getenv("DISK_HANGS");
    while (hangs && access(hangs, F_OK) == 0) usleep(10000);
    return syscall(SYS_fdatasync, fd);
}
