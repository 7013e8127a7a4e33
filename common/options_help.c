/* The table of options for people: --help at 80 columns and a page in markdown. */
#include <math.h>
#include <string.h>

#include "common/options_value.h"

enum { LINE = 80, INDENT = 6 };

/* Puts words in lines of at most LINE columns, each behind INDENT blanks. */
static void put_wrapped(struct text *out, const char *words)
{
    int column = 0;
    while (*words) {
        int size = (int)strcspn(words, " ");
        if (column && column + 1 + size > LINE) {
            text_puts(out, "\n");
            column = 0;
        }
        if (!column)
            text_printf(out, "%*s", INDENT, "");
        text_printf(out, "%s%.*s", column ? " " : "", size, words);
        column = (column ? column + 1 : INDENT) + size;
        words += size;
        words += *words == ' ';
    }
    text_puts(out, "\n");
}

static void describe(const struct option_row *row, struct text *out)
{
    text_puts(out, row->help);
    text_puts(out, ". ");
    size_t start = out->size;
    option_put_wanted(row, out);
    if (out->failed)
        return;
    if (out->data[start] >= 'a' && out->data[start] <= 'z')
        out->data[start] = (char)(out->data[start] - 'a' + 'A');
    text_puts(out, ".");
    if (*row->fallback)
        text_printf(out, " Default: %s.", row->fallback);
}

/* Calls `put` for every row of a group, in the order of the table. */
static void each_row(enum option_group group, void (*put)(const struct option_row *, struct text *), struct text *out)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (option_rows[i].group == group)
            put(&option_rows[i], out);
    for (size_t i = 0; i < option_entry_kind_count; i++)
        for (size_t k = 0; k < option_entry_kinds[i].count; k++)
            if (option_entry_kinds[i].rows[k].group == group)
                put(&option_entry_kinds[i].rows[k], out);
}

static void put_help(const struct option_row *row, struct text *out)
{
    struct text words = {0};
    describe(row, &words);
    text_printf(out, "  %s\n", row->name);
    if (words.failed)
        out->failed = true;
    else
        put_wrapped(out, words.data);
    text_free(&words);
}

void options_help(struct text *out)
{
    for (enum option_group group = 0; group < OPTION_GROUP_COUNT; group++) {
        text_printf(out, "%s%s\n", group ? "\n" : "", option_group_titles[group]);
        each_row(group, put_help, out);
    }
}

/* '|' would end a cell, '<' would begin a tag. */
static void put_cell(struct text *out, const char *cell)
{
    for (; *cell; cell++)
        if (*cell == '|' || *cell == '<')
            text_printf(out, "\\%c", *cell);
        else
            text_append(out, cell, 1);
}

static void put_table_row(const struct option_row *row, struct text *out)
{
    struct text cell = {0};
    text_printf(out, "| `%s` | ", row->name);
    put_cell(out, row->help);
    text_puts(out, " | ");
    option_put_wanted(row, &cell);
    if (cell.failed)
        out->failed = true;
    else
        put_cell(out, cell.data);
    text_free(&cell);
    text_printf(out, *row->fallback ? " | `%s` | " : " | %s | ", row->fallback);
    text_puts(out, row->fixed ? "no |\n" : "yes |\n");
}

void options_reference(struct text *out)
{
    text_puts(out, "# Keys of a run file\n\nOn the command line: `key=value`, `--key value` or `--key=value`; nested as `ps.slots=16` "
                   "and `datasets.0.path=FILE`.\nThe last column says whether a resumed run may change the key.\n");
    for (enum option_group group = 0; group < OPTION_GROUP_COUNT; group++) {
        text_printf(out, "\n## %s\n\n| key | meaning | value | default | resume |\n| --- | --- | --- | --- | --- |\n",
                    option_group_titles[group]);
        each_row(group, put_table_row, out);
    }
    text_puts(out, "\n## Other names\n\n| read as | given as |\n| --- | --- |\n");
    for (size_t i = 0; i < option_alias_count; i++)
        text_printf(out, "| `%s`%s | `%s` |\n", option_aliases[i].name, option_aliases[i].inverse ? " (inverse)" : "",
                    option_aliases[i].other);
}
