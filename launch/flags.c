#include "launch/flags.h"

#include "common/signals.h"
#include "ps/server.h"

int flags_of_signals(void)
{
    return (signals_take_stop() ? SERVER_SIGNAL_STOP : 0) | (signals_take_save() ? SERVER_SIGNAL_SAVE : 0);
}
