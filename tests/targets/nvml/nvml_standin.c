/* A stand-in for NVIDIA's management library: the symbols that pynvml loads, over a power trace that is known exactly.
 *
 * The test says what power the device draws from now on (sim_power) and lets time pass (sim_pass, on a virtual or the
 * real clock). The true energy is the integral of that piecewise constant trace and is kept analytically; the sensors
 * see it the way real ones do: a counter that moves only every period, one that looks at a part of each period only, a
 * register that shows a moving average, a gain, a read that takes time, or no sensor at all.
 */

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15
};

/* What the test may set; the Python side declares the same fields in the same order. */
typedef struct {
    double counter_period_s;   /* the energy counter moves this often */
    double counter_phase_s;    /* when it moves first */
    double counter_jitter_s;   /* largest deviation of a tick from its time */
    double counter_window_s;   /* the part of each period the counter looks at, at its end; 0 for all of it */
    double counter_average_s;  /* the counter sums a moving average over so long; 0 for the power itself */
    double power_period_s;     /* the power register changes this often */
    double power_window_s;     /* and shows the mean over so long; 0 for the power at that moment */
    double gain;               /* of both sensors */
    double read_s;             /* what each call into this library takes */
    int32_t virtual_clock;     /* 1: time passes only in sim_pass and in reads */
    int32_t has_counter, has_fields, has_power;
    int32_t forbidden;         /* sensors answer "no permission" */
    int32_t driver_missing;    /* initialising fails */
    int32_t mig;               /* multi-instance mode is on */
    int32_t processes;         /* how many of `pids` use the device */
    uint32_t pids[4];
    uint32_t sm_clock_mhz, memory_clock_mhz, temperature_c;
    uint64_t throttle_reasons;
    double lost_after_s;       /* the device is lost from this time on; 0 for never */
} sim_config;

typedef struct { double start_s, power_w, energy_j, moment_js; } segment;  /* at its start: integrals of power and energy */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static sim_config config;
static segment *trace;
static size_t segments, room;
static double virtual_s, origin_s;
static double counted_j;       /* of a part-time counter, up to tick `ticks` */
static int64_t ticks;
static const double base_j = 4321;  /* used before the test began */
static int initialised;

static double monotonic_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static double now_s(void) { return config.virtual_clock ? virtual_s : monotonic_s() - origin_s; }

static void pass(double duration_s) {
    if (config.virtual_clock) {
        virtual_s += duration_s;
    } else if (duration_s > 0) {
        struct timespec pause = {(time_t)duration_s, (long)(fmod(duration_s, 1.0) * 1e9)};
        pthread_mutex_unlock(&gate);
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&gate);
    }
}

static const segment *segment_at(double at_s) {
    size_t low = 0, high = segments;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (trace[middle].start_s <= at_s) low = middle; else high = middle;
    }
    return &trace[low];
}

/* The exact integral of power from the beginning, and the integral of that. Before the beginning: the first power. */
static double energy_j(double at_s) {
    const segment *part = segment_at(at_s);
    return part->energy_j + part->power_w * (at_s - part->start_s);
}

static double moment_js(double at_s) {
    const segment *part = segment_at(at_s);
    double since_s = at_s - part->start_s;
    return part->moment_js + part->energy_j * since_s + part->power_w * since_s * since_s / 2;
}

static double tick_s(int64_t tick) {
    uint64_t mixed = (uint64_t)tick * 0x9E3779B97F4A7C15u;
    mixed ^= mixed >> 29; mixed *= 0xBF58476D1CE4E5B9u; mixed ^= mixed >> 32;
    double jitter_s = config.counter_jitter_s * ((double)(mixed >> 11) / 9007199254740992.0 * 2 - 1);
    return config.counter_phase_s + tick * config.counter_period_s + jitter_s;
}

/* The number of the last tick at or before a time; tick 0 is at the phase. Negative: none yet. */
static int64_t last_tick(double at_s) {
    int64_t tick = (int64_t)floor((at_s - config.counter_phase_s) / config.counter_period_s) + 1;
    while (tick >= 0 && tick_s(tick) > at_s) tick--;
    return tick;
}

static double counter_j(double at_s) {
    int64_t last = last_tick(at_s);
    if (last < 0) return 0;
    if (config.counter_window_s > 0) {
        for (; ticks < last; ticks++) {
            double end_s = tick_s(ticks + 1);
            double seen_j = energy_j(end_s) - energy_j(end_s - config.counter_window_s);
            counted_j += seen_j / config.counter_window_s * (end_s - tick_s(ticks));
        }
        return config.gain * counted_j;
    }
    double end_s = tick_s(last), window_s = config.counter_average_s;
    if (window_s > 0) return config.gain * (moment_js(end_s) - moment_js(end_s - window_s)) / window_s;
    return config.gain * energy_j(end_s);
}

static double register_w(double at_s, double *taken_s) {
    double tick = floor(at_s / config.power_period_s) * config.power_period_s;
    *taken_s = tick;
    if (config.power_window_s > 0)
        return config.gain * (energy_j(tick) - energy_j(tick - config.power_window_s)) / config.power_window_s;
    return config.gain * segment_at(tick)->power_w;
}

/* ---- for the test ---- */

void sim_start(const sim_config *wanted, double power_w) {
    pthread_mutex_lock(&gate);
    config = *wanted;
    virtual_s = 0;
    origin_s = monotonic_s();
    if (!trace) trace = malloc((room = 1024) * sizeof *trace);
    segments = 1;
    trace[0] = (segment){0, power_w, 0, 0};
    counted_j = 0;
    ticks = 0;
    pthread_mutex_unlock(&gate);
}

void sim_change(const sim_config *wanted) {  /* other settings, same trace and time */
    pthread_mutex_lock(&gate);
    config = *wanted;
    pthread_mutex_unlock(&gate);
}

void sim_power(double power_w) {  /* from now on */
    pthread_mutex_lock(&gate);
    double at_s = now_s();
    if (config.counter_window_s > 0) counter_j(at_s);
    if (segments == room) trace = realloc(trace, (room *= 2) * sizeof *trace);
    trace[segments] = (segment){at_s, power_w, energy_j(at_s), moment_js(at_s)};
    segments++;
    pthread_mutex_unlock(&gate);
}

void sim_pass(double duration_s) { pthread_mutex_lock(&gate); pass(duration_s); pthread_mutex_unlock(&gate); }

double sim_now_s(void) { pthread_mutex_lock(&gate); double at_s = now_s(); pthread_mutex_unlock(&gate); return at_s; }

double sim_true_j(double at_s) {
    pthread_mutex_lock(&gate);
    double truth_j = energy_j(at_s);
    pthread_mutex_unlock(&gate);
    return truth_j;
}

/* ---- the library ---- */

typedef struct { uint32_t pid; uint64_t memory; uint32_t instance, compute_instance; } process;
typedef struct {
    uint32_t field, scope;
    int64_t timestamp_us, latency_us;
    int32_t type, result;
    union { double d; uint32_t u; uint64_t ull; } value;
} field;

static int device;

/* Takes the time of a call; says whether the device can answer. The gate is held. */
static int enter(void *handle, int supported) {
    if (!initialised) return UNINITIALIZED;
    if (handle != &device) return INVALID_ARGUMENT;
    pass(config.read_s);
    if (config.lost_after_s > 0 && now_s() >= config.lost_after_s) return GPU_IS_LOST;
    if (!supported) return NOT_SUPPORTED;
    return SUCCESS;
}

#define LOCKED(expression) { \
        pthread_mutex_lock(&gate); int result = (expression); pthread_mutex_unlock(&gate); return result; }

static int sensor(void *handle, int supported) {
    int result = enter(handle, supported);
    return result == SUCCESS && config.forbidden ? NO_PERMISSION : result;
}

static int text(char *into, uint32_t size, const char *what) {
    if (size <= strlen(what)) return INSUFFICIENT_SIZE;
    strcpy(into, what);
    return SUCCESS;
}

static int set(void *handle, uint32_t *into, uint32_t value) {
    int result = enter(handle, 1);
    if (result == SUCCESS) *into = value;
    return result;
}

int nvmlInitWithFlags(uint32_t flags) {
    (void)flags;
    if (config.driver_missing) return DRIVER_NOT_LOADED;
    initialised++;
    return SUCCESS;
}

int nvmlShutdown(void) {
    if (!initialised) return UNINITIALIZED;
    initialised--;
    return SUCCESS;
}

const char *nvmlErrorString(int result) { (void)result; return "stand-in error"; }

int nvmlSystemGetDriverVersion(char *into, uint32_t size) { return text(into, size, "999.1"); }

int nvmlDeviceGetCount_v2(uint32_t *count) { *count = 1; return initialised ? SUCCESS : UNINITIALIZED; }

int nvmlDeviceGetHandleByIndex_v2(uint32_t index, void **handle) {
    if (!initialised) return UNINITIALIZED;
    *handle = &device;
    return index == 0 ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    if (!initialised) return UNINITIALIZED;
    *handle = &device;
    return strcmp(uuid, "GPU-5ead0000-57a4-d1e0-0000-000000000001") ? NOT_FOUND : SUCCESS;
}

int nvmlDeviceGetUUID(void *handle, char *into, uint32_t size)
    LOCKED(enter(handle, 1) == SUCCESS ? text(into, size, "GPU-5ead0000-57a4-d1e0-0000-000000000001") : INVALID_ARGUMENT)

int nvmlDeviceGetName(void *handle, char *into, uint32_t size)
    LOCKED(enter(handle, 1) == SUCCESS ? text(into, size, "Stand-in GPU") : INVALID_ARGUMENT)

int nvmlDeviceGetMigMode(void *handle, uint32_t *current, uint32_t *pending) {
    *pending = 0;
    LOCKED(set(handle, current, (uint32_t)config.mig))
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules) {
    pthread_mutex_lock(&gate);
    int result = sensor(handle, config.has_counter);
    if (result == SUCCESS) *millijoules = (unsigned long long)((base_j + counter_j(now_s())) * 1e3);
    pthread_mutex_unlock(&gate);
    return result;
}

int nvmlDeviceGetPowerUsage(void *handle, uint32_t *milliwatts) {
    double taken_s;
    pthread_mutex_lock(&gate);
    int result = sensor(handle, config.has_power);
    if (result == SUCCESS) *milliwatts = (uint32_t)(register_w(now_s(), &taken_s) * 1e3);
    pthread_mutex_unlock(&gate);
    return result;
}

int nvmlDeviceGetFieldValues(void *handle, int count, field *fields) {
    pthread_mutex_lock(&gate);
    int result = enter(handle, 1);
    for (int at = 0; result == SUCCESS && at < count; at++) {
        double taken_s = 0;
        int known = config.has_fields && (fields[at].field == 185 || fields[at].field == 186);
        fields[at].result = !known ? NOT_SUPPORTED : config.forbidden ? NO_PERMISSION : SUCCESS;
        if (fields[at].result != SUCCESS) continue;
        fields[at].type = 1;
        fields[at].value.u = (uint32_t)(register_w(now_s(), &taken_s) * 1e3);
        fields[at].timestamp_us = 1700000000000000 + (int64_t)llround(taken_s * 1e6);  /* since 1970 */
        fields[at].latency_us = 0;
    }
    pthread_mutex_unlock(&gate);
    return result;
}

int nvmlDeviceGetClockInfo(void *handle, int which, uint32_t *mhz)
    LOCKED(set(handle, mhz, which == 2 ? config.memory_clock_mhz : config.sm_clock_mhz))

int nvmlDeviceGetTemperature(void *handle, int which, uint32_t *celsius)
    LOCKED(which == 0 ? set(handle, celsius, config.temperature_c) : INVALID_ARGUMENT)

int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *reasons) {
    pthread_mutex_lock(&gate);
    int result = enter(handle, 1);
    if (result == SUCCESS) *reasons = config.throttle_reasons;
    pthread_mutex_unlock(&gate);
    return result;
}

static int users(void *handle, uint32_t *count, process *into, int have) {
    int result = enter(handle, 1);
    if (result != SUCCESS) return result;
    uint32_t room_for = *count;
    *count = (uint32_t)have;
    if (have == 0) return SUCCESS;
    if (!into || room_for < (uint32_t)have) return INSUFFICIENT_SIZE;
    for (int at = 0; at < have; at++) into[at] = (process){config.pids[at], 1 << 20, 0, 0};
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, uint32_t *count, process *into)
    LOCKED(users(handle, count, into, config.processes))

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, uint32_t *count, process *into)
    LOCKED(users(handle, count, into, 0))
