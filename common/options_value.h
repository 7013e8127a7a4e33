/* One value of one row: reading its text, writing it, letting go of it. Only for common/options_*.c.
 * Must not know: where the text came from. */
#ifndef COMMON_OPTIONS_VALUE_H
#define COMMON_OPTIONS_VALUE_H

#include "common/options_table.h"

/* Says what a value of the row may be: "a whole number of steps, 1 or more, or -1". */
void option_put_wanted(const struct option_row *row, struct text *out);

/* Replaces the field by what `text` says; on failure it keeps its value. An unquoted null or nothing is the default.
 * STATUS_USAGE: err says what was found and what is wanted. Lists get a single element; lists of mappings
 * the entry that their shorthand makes of it, or only their default. */
enum status option_value_set(const struct option_row *row, void *field, const char *text, bool quoted, struct error *err);
/* Puts one more element behind those of a STRINGS or REALS field. */
enum status option_value_add(const struct option_row *row, void *field, const char *text, bool quoted, struct error *err);
enum status option_value_default(const struct option_row *row, void *field, struct error *err);
/* Frees what the field owns and empties it. */
void option_value_clear(const struct option_row *row, void *field);
/* Appends the value as YAML that fits on one line; nothing for a string that is not given. */
void option_value_put(const struct option_row *row, const void *field, struct text *out);
/* True when both fields hold the same. */
bool option_value_is_default(const struct option_row *row, const void *field);

/* Any list of mappings, whatever its entries; a field is read and written as a copy of this. */
struct entry_list {
    char *items;
    size_t count;
};
struct entry_list option_entry_list(const void *field);
/* Appends an entry with defaults to a list of mappings and returns it; NULL when memory is short. */
void *option_entry_add(const struct option_entries *entries, void *field);

#endif
