/* Runs a command as a user does, with what it prints in files. Include behind cmocka_all.h. */
#ifndef TESTS_SUPPORT_CAPTURE_H
#define TESTS_SUPPORT_CAPTURE_H

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static inline int send_to(const char *path, int fd)
{
    int saved = dup(fd), file = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(saved >= 0 && file >= 0);
    dup2(file, fd);
    close(file);
    return saved;
}

/* Standard output goes to `output`, standard error to `errors`. Returns the exit status. */
static inline int run_captured(int (*command)(int, char **), int argc, char **argv, const char *output, const char *errors)
{
    fflush(stdout);
    int out = send_to(output, STDOUT_FILENO), bad = send_to(errors, STDERR_FILENO);
    int rc = command(argc, argv);
    fflush(stdout);
    dup2(out, STDOUT_FILENO);
    dup2(bad, STDERR_FILENO);
    close(out);
    close(bad);
    return rc;
}

#endif
