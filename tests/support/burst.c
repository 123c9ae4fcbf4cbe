/*
 * Starts programs as fast as it can: COUNT of them, by WORKERS at once, each with an argument of its own.
 *
 *   burst PROGRAM MARK COUNT WORKERS       executes PROGRAM MARK-000000, PROGRAM MARK-000001, ...
 *
 * Prints how many seconds that took.
 */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int spawn_all(char *program, const char *mark, long from, long to)
{
    char argument[256], *arguments[] = {program, argument, NULL}, *environment[] = {NULL};
    for (long number = from; number < to; number++) {
        pid_t pid;
        int status;
        snprintf(argument, sizeof argument, "%s-%06ld", mark, number);
        if (posix_spawn(&pid, program, NULL, NULL, arguments, environment) || waitpid(pid, &status, 0) != pid || status)
            return 1;
    }
    return 0;
}

int main(int count, char **arguments)
{
    if (count != 5)
        return 2;
    long programs = atol(arguments[3]), workers = atol(arguments[4]);
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (long worker = 0; worker < workers; worker++)
        if (fork() == 0)
            _exit(spawn_all(arguments[1], arguments[2], programs * worker / workers, programs * (worker + 1) / workers));
    int status, failed = 0;
    while (wait(&status) > 0)
        failed |= status;
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.3f\n", end.tv_sec - begin.tv_sec + (end.tv_nsec - begin.tv_nsec) / 1e9);
    return failed != 0;
}
