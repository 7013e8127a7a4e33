/* Runs a fuzz target without a fuzzing engine: every file named (or in a folder named) as it is, and then in
 * fixed mutations, the same ones each time. A target that finds something wrong aborts; so does a sanitizer.
 * usage: fuzz_x FILE|FOLDER... [-m MUTATIONS_PER_FILE] */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/files.h"
#include "common/memory.h"
#include "common/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { GROWTH = 64 };

static uint64_t draw(uint64_t file, uint64_t *counter)
{
    return rng_u64(1, file, (*counter)++);
}

/* One small change: flip, overwrite, insert, delete or copy a piece; returns the new size. */
static size_t mutate_once(uint8_t *data, size_t size, size_t capacity, uint64_t file, uint64_t *counter)
{
    static const uint8_t telling[] = {0, 1, 0x7f, 0x80, 0xff, '"', '{', '}', '[', ']', ',', ':', '-', '.', '0', '9', 'e', '\\', '\n', ' '};
    uint64_t kind = draw(file, counter) % 6, value = draw(file, counter);
    size_t at = size ? draw(file, counter) % size : 0, other = size ? draw(file, counter) % size : 0;
    size_t length = 1 + value % 8;
    switch (kind) {
    case 0:
        if (size)
            data[at] ^= (uint8_t)(1u << value % 8);
        return size;
    case 1:
        if (size)
            data[at] = telling[value % sizeof telling];
        return size;
    case 2:
        if (size + length > capacity)
            return size;
        memmove(data + at + length, data + at, size - at);
        for (size_t i = 0; i < length; i++)
            data[at + i] = telling[draw(file, counter) % sizeof telling];
        return size + length;
    case 3:
        if (at + length > size)
            return size;
        memmove(data + at, data + at + length, size - at - length);
        return size - length;
    case 4:
        if (at + length <= size && other + length <= size)
            memmove(data + at, data + other, length);
        return size;
    default:
        return value % 4 ? size : at; /* cut off, less often */
    }
}

static int run_file(const char *path, long mutations, uint64_t number)
{
    struct error err;
    char *seed;
    size_t size;
    if (file_read(path, &seed, &size, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    LLVMFuzzerTestOneInput((const uint8_t *)seed, size);
    uint64_t counter = 0;
    uint8_t *data = mem_alloc(size + GROWTH, 1);
    for (long i = 0; i < mutations && data; i++) {
        memcpy(data, seed, size);
        size_t changed = size;
        for (uint64_t changes = 1 + draw(number, &counter) % 4; changes; changes--)
            changed = mutate_once(data, changed, size + GROWTH, number, &counter);
        uint8_t *exact = mem_alloc(changed, 1); /* its own block, so that a sanitizer sees a read beyond it */
        if (!exact)
            break;
        memcpy(exact, data, changed);
        LLVMFuzzerTestOneInput(exact, changed);
        mem_free(exact);
    }
    mem_free(data);
    mem_free(seed);
    return data ? 0 : 1;
}

static int run_folder(const char *path, long mutations, uint64_t *number)
{
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort), failed = count < 0;
    for (int i = 0; i < count; i++) {
        char *file = path_join(path, names[i]->d_name);
        if (file && file_exists(file))
            failed |= run_file(file, mutations, ++*number);
        mem_free(file);
        free(names[i]);
    }
    if (count >= 0)
        free(names);
    return failed;
}

int main(int argc, char **argv)
{
    long mutations = 50000;
    uint64_t number = 0;
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-m") && i + 1 < argc)
            mutations = strtol(argv[++i], NULL, 10);
        else if (folder_exists(argv[i]))
            failed |= run_folder(argv[i], mutations, &number);
        else
            failed |= run_file(argv[i], mutations, ++number);
    }
    printf("%llu files, each as it is and in %ld mutations\n", (unsigned long long)number, mutations);
    return failed || !number;
}
