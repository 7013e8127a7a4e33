#include "launch/gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/files.h"

extern char **environ;

/* Both ends of the talk are files without a name: no pipe can fill up, no signal comes when gnuplot dies early. */
struct talk {
    FILE *script, *words; /* its standard input, what it says on standard error */
    int picture;          /* its standard output */
};

static enum status spawn(const struct talk *talk, pid_t *child, struct error *err)
{
    char *argv[] = {"gnuplot", "-d", NULL}; /* -d: no start file of the user changes the picture */
    posix_spawn_file_actions_t actions;
    int rc = posix_spawn_file_actions_init(&actions);
    if (!rc) {
        rc = posix_spawn_file_actions_adddup2(&actions, fileno(talk->script), STDIN_FILENO);
        if (!rc)
            rc = posix_spawn_file_actions_adddup2(&actions, talk->picture, STDOUT_FILENO);
        if (!rc)
            rc = posix_spawn_file_actions_adddup2(&actions, fileno(talk->words), STDERR_FILENO);
        if (!rc)
            rc = posix_spawnp(child, argv[0], &actions, NULL, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    if (rc == ENOENT)
        FAIL(err, STATUS_USAGE, "gnuplot is not installed, and it draws the picture; install it: apt-get install gnuplot-nox");
    if (rc)
        FAIL(err, STATUS_IO, "cannot start gnuplot: %s", strerror(rc));
    return STATUS_OK;
}

/* The first lines of what gnuplot said. */
static enum status failed(const struct talk *talk, int status, struct error *err)
{
    char words[1024];
    rewind(talk->words);
    size_t size = fread(words, 1, sizeof words - 1, talk->words);
    while (size && (words[size - 1] == '\n' || words[size - 1] == ' '))
        size--;
    words[size] = '\0';
    if (WIFSIGNALED(status))
        FAIL(err, STATUS_IO, "gnuplot was ended by signal %d%s%s", WTERMSIG(status), size ? ": " : "", words);
    FAIL(err, STATUS_IO, "gnuplot ended with status %d%s%s", WEXITSTATUS(status), size ? ": " : "", words);
}

static enum status talk_to(const struct talk *talk, const struct text *script, struct error *err)
{
    pid_t child;
    int status;
    if (fwrite(script->data, 1, script->size, talk->script) != script->size || fflush(talk->script) ||
        lseek(fileno(talk->script), 0, SEEK_SET) < 0)
        FAIL(err, STATUS_IO, "cannot write the script for gnuplot to a temporary file: %s", strerror(errno));
    TRY(spawn(talk, &child, err));
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            FAIL(err, STATUS_IO, "cannot wait for gnuplot: %s", strerror(errno));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? STATUS_OK : failed(talk, status, err);
}

static enum status draw_to(int picture, const struct text *script, struct error *err)
{
    struct talk talk = {tmpfile(), tmpfile(), picture};
    enum status st = talk.script && talk.words ? talk_to(&talk, script, err)
                                               : error_set(err, STATUS_IO, "cannot make a temporary file: %s", strerror(errno));
    if (talk.script)
        fclose(talk.script);
    if (talk.words)
        fclose(talk.words);
    return st;
}

enum status gnuplot_draw(const struct text *script, const char *path, struct error *err)
{
    struct text temporary = {0};
    if (!path)
        return draw_to(STDOUT_FILENO, script, err);
    text_printf(&temporary, "%s.tmp", path);
    if (temporary.failed)
        FAIL(err, STATUS_NOMEM, "no memory for the path '%s'", path);
    int picture = open(temporary.data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    enum status st = picture < 0 ? error_set(err, STATUS_IO, "cannot write '%s': %s", temporary.data, strerror(errno))
                                 : draw_to(picture, script, err);
    if (picture >= 0)
        close(picture);
    if (st == STATUS_OK)
        st = file_publish(temporary.data, path, err);
    if (st != STATUS_OK && picture >= 0)
        unlink(temporary.data);
    text_free(&temporary);
    return st;
}
