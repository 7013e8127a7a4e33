#include "worker/data/conversation.h"

const char *role_name(enum role role)
{
    static const char *const names[ROLE_COUNT] = {"system", "user", "assistant", "tool"};
    return (unsigned)role < ROLE_COUNT ? names[role] : "unknown";
}
