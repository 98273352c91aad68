/* Loaded before the C library (LD_PRELOAD), it puts the clock of one process AHEAD_S seconds ahead. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) {
        now->tv_sec += AHEAD_S;
    }
    return result;
}
