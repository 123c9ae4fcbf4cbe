/* Sockets of all kinds in many processes, for as long as standard input is open.
 *
 *   sockets PROCESSES LISTENERS CONNECTIONS
 *
 * Each process opens its share of both; the first eight hold one listener of their parent too. Prints "ready" when all
 * is there. What is no listener is there as well: unix sockets, connected UDP, TCP that is bound only.
 */
#include <arpa/inet.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SHARING 8

static const struct {
    int family, type, only_v6;
    const char *address, *device;
} kinds[] = {
    {AF_INET, SOCK_STREAM, 0, "127.0.0.1", NULL}, {AF_INET, SOCK_STREAM, 0, "0.0.0.0", NULL},
    {AF_INET6, SOCK_STREAM, 0, "::", NULL},       {AF_INET6, SOCK_STREAM, 1, "::", NULL},
    {AF_INET6, SOCK_STREAM, 0, "::1", NULL},      {AF_INET6, SOCK_STREAM, 0, "::ffff:127.0.0.1", NULL},
    {AF_INET, SOCK_DGRAM, 0, "127.0.0.1", NULL},  {AF_INET, SOCK_DGRAM, 0, "0.0.0.0", "lo"},
    {AF_INET6, SOCK_DGRAM, 0, "::", NULL},        {AF_INET6, SOCK_DGRAM, 1, "::", NULL},
    {AF_INET6, SOCK_DGRAM, 0, "::1", NULL},       {AF_INET, SOCK_STREAM, 0, "0.0.0.0", "lo"},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void must(int holds, const char *what)
{
    if (!holds) {
        perror(what);
        exit(1);
    }
}

static int opened(size_t kind)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    int is_v4 = kinds[kind].family == AF_INET;
    int fd = socket(kinds[kind].family, kinds[kind].type, 0);
    must(fd >= 0, "socket");
    must(inet_pton(kinds[kind].family, kinds[kind].address, is_v4 ? (void *)&v4.sin_addr : &v6.sin6_addr), "inet_pton");
    if (!is_v4)
        must(!setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &kinds[kind].only_v6, sizeof(int)), "IPV6_V6ONLY");
    if (kinds[kind].device)
        must(!setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, kinds[kind].device, 2), "SO_BINDTODEVICE");
    must(!bind(fd, is_v4 ? (void *)&v4 : (void *)&v6, is_v4 ? sizeof(v4) : sizeof(v6)), "bind");
    if (kinds[kind].type == SOCK_STREAM)
        must(!listen(fd, 64), "listen");
    return fd;
}

static void connect_to(int listener)
{
    struct sockaddr_storage to;
    socklen_t length = sizeof(to);
    must(!getsockname(listener, (void *)&to, &length), "getsockname");
    int fd = socket(to.ss_family, SOCK_STREAM, 0);
    must(!connect(fd, (void *)&to, length), "connect");
    must(accept(listener, NULL, NULL) >= 0, "accept");
}

/* What must not be taken for a listener. */
static void open_others(int udp)
{
    struct sockaddr_in to, any = {.sin_family = AF_INET};
    struct sockaddr_un unnamed = {.sun_family = AF_UNIX};
    socklen_t length = sizeof(to);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    must(!bind(fd, (void *)&unnamed, sizeof(sa_family_t)) && !listen(fd, 1), "a unix socket");
    must(!bind(socket(AF_INET, SOCK_STREAM, 0), (void *)&any, sizeof(any)), "bind");
    must(!getsockname(udp, (void *)&to, &length), "getsockname");
    must(!connect(socket(AF_INET, SOCK_DGRAM, 0), (void *)&to, length), "connect");
}

int main(int count, char **words)
{
    must(count == 4, "sockets PROCESSES LISTENERS CONNECTIONS");
    int processes = atoi(words[1]), listeners = atoi(words[2]), connections = atoi(words[3]), ready[2];
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    must(!pipe(ready), "pipe");
    int shared = opened(2);
    for (int process = 0; process < processes; process++) {
        if (fork())
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (process >= SHARING)
            close(shared);
        int target = -1, udp = -1;
        for (int index = process; index < listeners - 1; index += processes) {
            size_t kind = index % KINDS;
            int fd = opened(kind);
            target = kinds[kind].type == SOCK_STREAM ? fd : target;
            udp = kind == 6 ? fd : udp;
        }
        for (int index = process; index < connections; index += processes)
            connect_to(target);
        if (udp >= 0)
            open_others(udp);
        must(write(ready[1], "x", 1) == 1, "write");
        pause();
    }
    close(ready[1]);
    char byte;
    for (int process = 0; process < processes; process++)
        must(read(ready[0], &byte, 1) == 1, "a process failed");
    puts("ready");
    fflush(stdout);
    while (read(0, &byte, 1) > 0) {}
    return 0;
}
