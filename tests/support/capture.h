/* Runs a command as a user does, with what it prints in files. Include behind cmocka_all.h. */
#ifndef TESTS_SUPPORT_CAPTURE_H
#define TESTS_SUPPORT_CAPTURE_H

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/files.h"
#include "common/memory.h"

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

/* The same with the words up to NULL as arguments, the command's own name first. */
static inline int run_words(int (*command)(int, char **), const char *output, const char *errors, ...)
{
    char *argv[25] = {NULL};
    int argc = 0;
    va_list words;
    va_start(words, errors);
    for (char *word; argc < 24 && (word = va_arg(words, char *));)
        argv[argc++] = word;
    va_end(words);
    return run_captured(command, argc, argv, output, errors);
}

/* The file must hold the text. */
static inline void expect_in(const char *path, const char *part)
{
    struct error err;
    char *content;
    size_t size;
    assert_ok(file_read(path, &content, &size, &err), &err);
    if (!strstr(content, part))
        print_error("'%s' lacks '%s'\n", content, part);
    assert_non_null(strstr(content, part));
    mem_free(content);
}

#endif
