/* Memory that processes of a node hold once: who fills and who reads, what happens when the one who fills dies or dawdles, and that
 * nothing is left behind. */
#include "tests/support/cmocka_all.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/memory.h"
#include "common/node_memory.h"

enum { OWN = 192, SHARED = 100000, CHILDREN = 4 };

static struct error err;

/* A key of this test alone. */
static const char *key_of(int number)
{
    static char key[64];
    snprintf(key, sizeof key, "test-%d-%d", (int)getpid(), number);
    return key;
}

static struct node_memory *opened(const char *key)
{
    struct node_memory *m;
    assert_ok(node_memory_open(key, OWN, SHARED, &m, &err), &err);
    assert_int_equal((uintptr_t)node_memory_base(m) % 64, 0);
    return m;
}

static unsigned char *shared_of(const struct node_memory *m)
{
    return (unsigned char *)node_memory_base(m) + OWN;
}

/* Both parts are zeros and can be written; nobody waits. */
static void alone(const char *key)
{
    struct node_memory *m = opened(key);
    char note[NODE_NOTE_SIZE];
    bool filled;
    unsigned char *bytes = node_memory_base(m);
    node_memory_wait(m, 10000, &filled, note);
    assert_false(filled);
    for (int i = 0; i < OWN + SHARED; i++)
        assert_int_equal(bytes[i], 0);
    memset(bytes, 7, OWN + SHARED);
    node_memory_publish(m, "x");
    node_memory_close(m);
}

static void who_is_alone_fills(void **state)
{
    (void)state;
    long before = mem_live();
    alone(NULL);
    alone(key_of(0));
    alone(key_of(0)); /* nothing of the one before is left */
    assert_int_equal(mem_live(), before);
    mem_fail_after(0, false);
    struct node_memory *m;
    assert_refused(node_memory_open(NULL, OWN, SHARED, &m, &err), STATUS_NOMEM, &err, "no memory");
    mem_fail_after(-1, false);
}

/* Exit status of a process that reads: 0 as expected, 1 not. */
static int read_as_child(const char *key)
{
    struct node_memory *m;
    char note[NODE_NOTE_SIZE];
    bool filled;
    if (node_memory_open(key, OWN, SHARED, &m, &err) != STATUS_OK || !node_memory_is_shared(m))
        return 1;
    node_memory_wait(m, 20000, &filled, note);
    unsigned char *own = node_memory_base(m);
    bool good = filled && !strcmp(note, "as promised") && own[0] == 0;
    own[0] = 3;
    for (int i = 0; i < SHARED; i++)
        good = good && shared_of(m)[i] == (unsigned char)(i * 7);
    node_memory_close(m);
    return !good;
}

static void the_others_read(void **state)
{
    (void)state;
    const char *key = key_of(1);
    struct node_memory *m = opened(key);
    pid_t children[CHILDREN];
    for (int i = 0; i < CHILDREN; i++)
        if (!(children[i] = fork()))
            _exit(read_as_child(key));
    assert_true(node_memory_is_shared(m));
    usleep(30000); /* they wait */
    for (int i = 0; i < SHARED; i++)
        shared_of(m)[i] = (unsigned char)(i * 7);
    node_memory_publish(m, "as promised");
    for (int i = 0; i < CHILDREN; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_int_equal(*(unsigned char *)node_memory_base(m), 0); /* their own parts are theirs */
    node_memory_close(m);
}

/* A process that takes the name and fills nothing; killed by the caller. */
static pid_t idler(const char *key, bool gives_up)
{
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (!child) {
        struct node_memory *m;
        if (node_memory_open(key, OWN, SHARED, &m, &err) == STATUS_OK && write(ready[1], "x", 1) == 1) {
            if (gives_up) {
                usleep(20000);
                node_memory_publish(m, NULL);
            }
            pause();
        }
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]), close(ready[1]);
    return child;
}

static void who_waits_in_vain_fills(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) { /* dawdles, dies, gives up */
        const char *key = key_of(2 + how);
        bool dies = how == 1;
        pid_t child = idler(key, how == 2);
        struct node_memory *m = opened(key);
        char note[NODE_NOTE_SIZE];
        bool filled = true;
        assert_true(node_memory_is_shared(m));
        if (dies) {
            kill(child, SIGKILL);
            waitpid(child, NULL, 0);
        }
        node_memory_wait(m, how ? 60000 : 50, &filled, note);
        assert_false(filled || node_memory_is_shared(m));
        memset(node_memory_base(m), 1, OWN + SHARED);
        node_memory_close(m);
        if (!dies) {
            kill(child, SIGKILL);
            waitpid(child, NULL, 0);
        }
        alone(key); /* the dead leave no name */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_alone_fills), cmocka_unit_test(the_others_read), cmocka_unit_test(who_waits_in_vain_fills)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
