/*
 * Executes itself in every way that is hard to tell of, and stays for a moment, so that also who only looks now and then
 * can see it.
 *
 *   execs canary WORD      stays
 *   execs DIRECTORY        makes what it needs in there, and prints "CASE PID" for each child it starts
 *
 * Statically linked, so that it runs in a chroot without libraries.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STAY_US 1700000

static const char *directory, *self;
static char path[4096], *environment[] = {"EXECS_STAY=1", NULL};

static const char *in(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* A copy of this program, not written to by anybody, open for reading. */
static int copy(const char *name, int to)
{
    char buffer[65536];
    int from = open(self, O_RDONLY | O_CLOEXEC);
    if (to < 0)
        to = open(in(name), O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
    ssize_t bytes;
    while ((bytes = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, bytes) != bytes)
            die("write");
    close(from);
    return to;
}

static char *repeated(char letter, size_t times)
{
    char *text = malloc(times + 1);
    memset(text, letter, times);
    text[times] = 0;
    return text;
}

static void run(const char *program, char *const arguments[])
{
    execve(program, arguments, environment);
    die(program);
}

#define RUN(...) run(self, (char *[]){"execs", __VA_ARGS__, NULL})

static void nine_thousand(void) { RUN("first", repeated('n', 9000), "last"); }
static void hundred_thousand(void) { RUN("first", repeated('h', 100000), "last"); }
static void not_utf8(void) { RUN("caf\xe9", "\xff\xfe"); }
static void lines_and_quotes(void) { RUN("two\nlines", "it's \"quoted\"", "", "back\\slash"); }
static void no_arguments(void) { run(self, (char *[]){NULL}); }
static void relative(void) { run("./copy", (char *[]){"copy", "relative", NULL}); }
static void script(void) { run("./script", (char *[]){"script", "one", "two words", NULL}); }
static void deleted(void) { run(in("gone"), (char *[]){"gone", "deleted", NULL}); }

static void unlinked(void)
{
    int fd = open(in("unlinked"), O_RDONLY);
    unlink(path);
    fexecve(fd, (char *[]){"unlinked", NULL}, environment);
    die("fexecve");
}

static void memfd(void)
{
    int fd = memfd_create("hidden", 0);
    copy(NULL, fd);
    char name[64];
    /* Through a descriptor that cannot be written to, which a file that is executed must not have. */
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    int readable = open(name, O_RDONLY);
    close(fd);
    fexecve(readable, (char *[]){"memfd", NULL}, environment);
    die("fexecve");
}

static void unshared(void)
{
    if (unshare(CLONE_NEWNS | CLONE_NEWNET))
        die("unshare");
    RUN("unshared");
}

static void jailed(void)
{
    if (chroot(in("jail")) || chdir("/"))
        die("chroot");
    run("/bin/execs", (char *[]){"execs", "jailed", NULL});
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"nine_thousand", nine_thousand}, {"hundred_thousand", hundred_thousand}, {"not_utf8", not_utf8},
    {"lines_and_quotes", lines_and_quotes}, {"no_arguments", no_arguments}, {"relative", relative},
    {"script", script}, {"deleted", deleted}, {"unlinked", unlinked}, {"memfd", memfd}, {"unshared", unshared},
    {"jailed", jailed},
};

static void prepare(void)
{
    close(copy("copy", -1));
    close(copy("gone", -1));
    close(copy("unlinked", -1));
    mkdir(in("jail"), 0755);
    mkdir(in("jail/bin"), 0755);
    close(copy("jail/bin/execs", -1));
    FILE *file = fopen(in("script"), "w");
    fprintf(file, "#!%s/copy -x\n", directory);
    fclose(file);
    chmod(path, 0755);
}

int main(int count, char **arguments)
{
    if (getenv("EXECS_STAY") || (count == 3 && !strcmp(arguments[1], "canary"))) {
        usleep(STAY_US);
        return 0;
    }
    self = realpath("/proc/self/exe", NULL);
    directory = arguments[1];
    if (count != 2 || chdir(directory))
        die("execs DIRECTORY");
    prepare();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pid_t pid = fork();
        if (pid == 0)
            cases[i].run();
        printf("%s %d\n", cases[i].name, pid);
    }
    /* It runs by now or is about to; its file goes while it does. */
    usleep(STAY_US / 10);
    unlink(in("gone"));
    int all = 0, status;
    while (wait(&status) > 0)
        all |= status;
    return all != 0;
}
