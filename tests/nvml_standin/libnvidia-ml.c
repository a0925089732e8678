/* A stand-in for NVIDIA's libnvidia-ml.so.1: answers from a table, so that the real pynvml is asked for real.
 *
 * The file that NVML_STANDIN names is read at every call, a record a line, "-" for no parent:
 *
 *   all CODE                                                  every call fails with it
 *   old | deaf                                                no calls for MPS | no events
 *   event UUID XID                                            each is told once
 *   gpu UUID PARENT NUMBER BYTES ECC LOST TELLS SLICED SHY MODEL...   PARENT: of a MIG slice; ECC -1: has none
 *   process UUID PID BYTES PERCENT MPS                        BYTES -1: not told
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK, INVALID = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, TOO_SMALL = 7, TIMEOUT = 10,
       NO_LIBRARY = 12, NO_FUNCTION = 13, LOST = 15 };
enum { MOST = 64, TEXT = 96 };

typedef char (*Handle)[TEXT]; /* a UUID, at a place of its own for good */
typedef unsigned long long Long;
typedef struct { char uuid[TEXT], parent[TEXT], model[TEXT]; int number, lost, tells, sliced, shy; long long bytes, ecc; } Gpu;
typedef struct { char uuid[TEXT]; unsigned pid, percent; int mps; long long bytes; } Process;
typedef struct { char uuid[TEXT]; Long xid; } Event;
typedef struct { unsigned pid; Long memory; unsigned instance, compute; } Info;
typedef struct { unsigned pid; Long time; unsigned sm, memory, encoder, decoder; } Sample;
typedef struct { Handle device; Long kind, data; unsigned instance, compute; } EventData;

static char names[MOST][TEXT];
static Gpu gpus[MOST];
static Process processes[MOST];
static Event events[MOST];
static int gpu_count, process_count, event_count, heard, starts, all, old, deaf;

int standin_starts(void) { return starts; }
void standin_forget(void) { starts = heard = 0; }

static int load(void) {
    const char *path = getenv("NVML_STANDIN");
    FILE *file = path ? fopen(path, "r") : NULL;
    char word[16];
    if (!file) return NO_LIBRARY;
    gpu_count = process_count = event_count = all = old = deaf = 0;
    while (fscanf(file, "%15s", word) == 1) {
        Gpu *g = &gpus[gpu_count];
        Process *p = &processes[process_count];
        Event *e = &events[event_count];
        if (!strcmp(word, "all")) fscanf(file, "%d", &all);
        else if (!strcmp(word, "old")) old = 1;
        else if (!strcmp(word, "deaf")) deaf = 1;
        else if (!strcmp(word, "event")) event_count += fscanf(file, "%95s %llu", e->uuid, &e->xid) == 2;
        else if (!strcmp(word, "process"))
            process_count += fscanf(file, "%95s %u %lld %u %d", p->uuid, &p->pid, &p->bytes, &p->percent, &p->mps) == 5;
        else
            gpu_count += fscanf(file, "%95s %95s %d %lld %lld %d %d %d %d %95[^\n]", g->uuid, g->parent, &g->number,
                                &g->bytes, &g->ecc, &g->lost, &g->tells, &g->sliced, &g->shy, g->model) == 10;
    }
    fclose(file);
    return all;
}

static Handle handle_of(const char *uuid) {
    int i = 0;
    while (names[i][0] && strcmp(names[i], uuid)) i++;
    return strcpy(names[i], uuid), &names[i];
}

/* Find the GPU, or slice, that is asked; what is not for everybody is not told of a shy one. */
static int find(Handle handle, int open, Gpu **found) {
    int code = load();
    if (code) return code;
    for (Gpu *g = gpus; g < gpus + gpu_count; g++)
        if (!strcmp(g->uuid, *handle)) {
            *found = g;
            return g->lost ? LOST : open && g->shy ? NO_PERMISSION : OK;
        }
    return INVALID;
}

static int put(char *to, unsigned room, const char *text) {
    return strlen(text) < room ? (strcpy(to, text), OK) : TOO_SMALL;
}

static int child(const char *parent, int number, Handle *handle) {
    for (Gpu *g = gpus; g < gpus + gpu_count; g++)
        if (!strcmp(g->parent, parent) && g->number == number) return *handle = handle_of(g->uuid), g->lost ? LOST : OK;
    return parent[0] == '-' ? INVALID : NOT_FOUND;
}

const char *nvmlErrorString(int code) { return code == LOST ? "GPU is lost" : "told by the stand-in"; }
int nvmlInitWithFlags(unsigned flags) { int code = load(); return starts += !code, code; }
int nvmlShutdown(void) { return load(); }

int nvmlDeviceGetCount_v2(unsigned *count) {
    int code = load();
    *count = 0;
    for (int i = 0; i < gpu_count; i++) *count += gpus[i].parent[0] == '-';
    return code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned number, Handle *handle) {
    int code = load();
    return code ? code : child("-", number, handle);
}

int nvmlDeviceGetUUID(Handle handle, char *text, unsigned room) {
    Gpu *g;
    int code = find(handle, 0, &g);
    return code ? code : put(text, room, g->uuid);
}

int nvmlDeviceGetName(Handle handle, char *text, unsigned room) {
    Gpu *g;
    int code = find(handle, 0, &g);
    return code ? code : put(text, room, g->model);
}

int nvmlDeviceGetMemoryInfo(Handle handle, Long memory[3]) {
    Gpu *g;
    int code = find(handle, 0, &g);
    if (code) return code;
    memory[0] = g->bytes, memory[2] = 0;
    for (Process *p = processes; p < processes + process_count; p++)
        if (!strcmp(p->uuid, g->uuid) && p->bytes > 0) memory[2] += p->bytes;
    memory[1] = memory[0] - memory[2];
    return OK;
}

int nvmlDeviceGetUtilizationRates(Handle handle, unsigned percents[2]) {
    Gpu *g;
    int code = find(handle, 1, &g);
    if (code || g->parent[0] != '-') return code ? code : NOT_SUPPORTED;
    percents[0] = percents[1] = 0;
    for (Process *p = processes; p < processes + process_count; p++)
        if (!strcmp(p->uuid, g->uuid)) percents[0] += p->percent;
    return OK;
}

static int list(Handle handle, int mps, unsigned *room, Info *infos) {
    Gpu *g;
    unsigned count = 0;
    int code = find(handle, 1, &g);
    if (code || (mps && old)) return code ? code : NO_FUNCTION;
    for (Process *p = processes; p < processes + process_count; p++)
        if (!strcmp(p->uuid, g->uuid) && p->mps == mps && count++ < *room)
            infos[count - 1] = (Info){p->pid, p->bytes, -1, -1};
    code = count > *room ? TOO_SMALL : OK;
    return *room = count, code;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Handle handle, unsigned *room, Info *infos) {
    return list(handle, 0, room, infos);
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(Handle handle, unsigned *room, Info *infos) {
    return list(handle, 1, room, infos);
}

int nvmlDeviceGetProcessUtilization(Handle handle, Sample *samples, unsigned *room, Long since) {
    Gpu *g;
    unsigned count = 0;
    int code = find(handle, 1, &g);
    if (code || g->parent[0] != '-') return code ? code : NOT_SUPPORTED;
    for (Process *p = processes; p < processes + process_count; p++)
        if (!strcmp(p->uuid, g->uuid) && p->percent && count++ < *room)
            samples[count - 1] = (Sample){p->pid, since + 1, p->percent};
    code = !count ? NOT_FOUND : count > *room ? TOO_SMALL : OK;
    return *room = count, code;
}

int nvmlDeviceGetMigMode(Handle handle, unsigned *current, unsigned *pending) {
    Gpu *g;
    int code = find(handle, 1, &g);
    if (code || g->ecc < 0) return code ? code : NOT_SUPPORTED;
    return *current = *pending = g->sliced, OK;
}

int nvmlDeviceGetMaxMigDeviceCount(Handle handle, unsigned *count) {
    Gpu *g;
    return *count = 7, find(handle, 0, &g);
}

int nvmlDeviceGetMigDeviceHandleByIndex(Handle handle, unsigned number, Handle *slice) {
    Gpu *g;
    int code = find(handle, 0, &g);
    return code ? code : child(g->uuid, number, slice);
}

int nvmlDeviceGetTotalEccErrors(Handle handle, int kind, int since, Long *count) {
    Gpu *g;
    int code = find(handle, 1, &g);
    if (code || g->ecc < 0) return code ? code : NOT_SUPPORTED;
    return *count = kind == 1 && since == 0 ? g->ecc : 0, OK;
}

int nvmlEventSetCreate(void **set) {
    int code = load();
    return *set = &events, code ? code : deaf ? NOT_SUPPORTED : OK;
}

int nvmlDeviceRegisterEvents(Handle handle, Long kinds, void *set) {
    Gpu *g;
    int code = find(handle, 0, &g);
    return code ? code : set != &events || kinds != 8 ? INVALID : g->tells ? OK : NOT_SUPPORTED;
}

int nvmlEventSetWait_v2(void *set, EventData *data, unsigned ms) {
    int code = load();
    if (code || set != &events) return code ? code : INVALID;
    if (heard >= event_count) return TIMEOUT;
    *data = (EventData){handle_of(events[heard].uuid), 8, events[heard].xid, -1, -1};
    return heard++, OK;
}
