/* loader.c: batches made in the background, from images in memory or from files of pictures.
 *
 * The caller's thread owns every tensor. It posts empty batches (two tensors and a list of records)
 * into a ring; workers fill the raw buffers of posted batches in order, and the caller takes full
 * ones out in order. What goes into a batch is settled when it is posted, so the number of workers
 * cannot change it. Sequence numbers count batches: given <= taken <= posted <= given + ahead.
 *
 * A worker never touches the context. With images in memory nothing it does can fail; a picture is
 * read in a context of the worker's own, and an error stays in the slot until the batch is asked
 * for. After a fork the child has no workers, and the lock may be held forever by one of the
 * parent's: the child makes its batches itself, from the records, and touches neither. */
#include "core/base/context.h"
#include "core/io/image.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_WORKERS = 64, MAX_AHEAD = 64 };

typedef struct slot {
    resin_tensor *images, *labels; /* the caller's; workers use the buffers */
    float *image_buffer;
    int64_t *label_buffer;
    int64_t *records; /* room for batch_size */
    int64_t count;
    uint64_t epoch;
    bool full; /* under the lock */
    resin_status status;  /* of a full one, and its message */
    char problem[sizeof ((resin_context *)0)->message];
} slot;

struct resin_loader {
    resin_context *context;
    resin_tensor *images; /* NULL: there are files */
    image_files files;
    resin_tensor *labels;
    const int64_t *label; /* of every record */
    batch_work work;
    resin_loader_settings settings;
    int64_t batches; /* of an epoch */
    int process;     /* that has the workers */

    /* The caller's thread only. */
    resin_tensor *order; /* of the epoch order_epoch */
    uint64_t order_epoch;
    uint64_t next_epoch, post_epoch; /* what is given next, what is posted next */
    int64_t next_step, post_step;
    int64_t given;
    double waited;

    pthread_mutex_t lock;
    pthread_cond_t posted_more, filled_more;
    int64_t posted, taken; /* written under the lock */
    atomic_bool stop;      /* written under the lock, looked at between two images */
    int worker_count;
    pthread_t workers[MAX_WORKERS];
    slot slots[MAX_AHEAD];
};

/* ---- Filling --------------------------------------------------------------------------------- */

/* Pictures of many sizes leave many blocks in a worker's arena. */
static const size_t most_cached = (size_t)64 << 20;

static void note_problem(slot *batch, resin_context *own) {
    snprintf(batch->problem, sizeof batch->problem, "%s",
             own ? resin_error_message(own) : "loader: out of memory");
}

/* `own` is the calling thread's context, used for pictures only; NULL: there was no memory. */
static void fill_slot(resin_loader *loader, slot *batch, resin_context *own) {
    const batch_work *work = &loader->work;
    int64_t size = work->height * work->width * work->channels;
    batch->status = RESIN_OK;
    for (int64_t i = 0; i < batch->count && batch->status == RESIN_OK; i++) {
        if (atomic_load_explicit(&loader->stop, memory_order_relaxed)) return;
        int64_t record = batch->records[i];
        float *out = batch->image_buffer + i * size;
        if (loader->images)
            batch_place(work, batch->epoch, record, out);
        else if (own)
            batch->status = image_files_place(own, &loader->files, work, batch->epoch, record, out);
        else
            batch->status = RESIN_ERROR_MEMORY;
        batch->label_buffer[i] = loader->label[record];
    }
    if (batch->status != RESIN_OK) note_problem(batch, own);
    if (own && own != loader->context && resin_memory(own).cached > most_cached)
        resin_memory_trim(own);
}

static resin_context *worker_context(const resin_loader *loader) {
    resin_context *own = loader->images ? NULL : resin_context_new();
    if (own) resin_set_threads(own, 1);
    return own;
}

static void *work_in_background(void *argument) {
    resin_loader *loader = argument;
    resin_context *own = worker_context(loader);
    pthread_mutex_lock(&loader->lock);
    for (;;) {
        while (!loader->stop && loader->taken == loader->posted)
            pthread_cond_wait(&loader->posted_more, &loader->lock);
        if (loader->stop) break;
        slot *batch = &loader->slots[loader->taken++ % loader->settings.ahead];
        pthread_mutex_unlock(&loader->lock);
        fill_slot(loader, batch, own);
        pthread_mutex_lock(&loader->lock);
        batch->full = true;
        pthread_cond_signal(&loader->filled_more);
    }
    pthread_mutex_unlock(&loader->lock);
    resin_context_release(own);
    return NULL;
}

/* Whether this process has workers. */
static bool has_workers(const resin_loader *loader) {
    return loader->worker_count > 0 && (int)getpid() == loader->process;
}

/* Signals are for the host's threads. If the system gives fewer threads, fewer work; even none is
 * enough. */
static void start_workers(resin_loader *loader) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (loader->worker_count < loader->settings.workers) {
        pthread_t *worker = &loader->workers[loader->worker_count];
        if (pthread_create(worker, NULL, work_in_background, loader) != 0) break;
        loader->worker_count++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void stop_workers(resin_loader *loader) {
    if (!has_workers(loader)) return;
    pthread_mutex_lock(&loader->lock);
    atomic_store(&loader->stop, true);
    pthread_cond_broadcast(&loader->posted_more);
    pthread_mutex_unlock(&loader->lock);
    for (int i = 0; i < loader->worker_count; i++) pthread_join(loader->workers[i], NULL);
}

/* ---- Posting --------------------------------------------------------------------------------- */

static bool beyond_last_epoch(const resin_loader *loader, uint64_t epoch) {
    const resin_loader_settings *settings = &loader->settings;
    return settings->epochs > 0 && epoch - settings->batch.epoch >= (uint64_t)settings->epochs;
}

static resin_status order_of(resin_loader *loader, uint64_t epoch, const int64_t **records) {
    if (!loader->order || loader->order_epoch != epoch) {
        resin_tensor *order;
        RESIN_TRY(resin_epoch_order(loader->context, loader->work.all, loader->settings.shuffle,
                                    loader->settings.batch.seed, epoch, &order));
        resin_release(loader->order);
        loader->order = order;
        loader->order_epoch = epoch;
    }
    *records = resin_tensor_data(loader->order);
    return RESIN_OK;
}

static resin_status make_tensors(resin_loader *loader, slot *batch) {
    const batch_work *work = &loader->work;
    int64_t shape[4] = {batch->count, work->height, work->width, work->channels};
    RESIN_TRY(resin_empty(loader->context, RESIN_FLOAT32, 4, shape, &batch->images));
    resin_status status = resin_empty(loader->context, RESIN_INT64, 1, shape, &batch->labels);
    if (status != RESIN_OK) {
        resin_release(batch->images);
        batch->images = NULL;
        return status;
    }
    batch->image_buffer = resin_tensor_data(batch->images);
    batch->label_buffer = resin_tensor_data(batch->labels);
    return RESIN_OK;
}

/* Posts the next batch into the next slot, which is free. */
static resin_status post_batch(resin_loader *loader) {
    slot *batch = &loader->slots[loader->posted % loader->settings.ahead];
    int64_t size = loader->settings.batch_size, first = loader->post_step * size;
    const int64_t *records;
    RESIN_TRY(order_of(loader, loader->post_epoch, &records));
    batch->count = loader->work.all - first < size ? loader->work.all - first : size;
    batch->epoch = loader->post_epoch;
    batch->full = false;
    RESIN_TRY(make_tensors(loader, batch));
    memcpy(batch->records, records + first, (size_t)batch->count * sizeof *records);
    if (++loader->post_step == loader->batches) {
        loader->post_step = 0;
        loader->post_epoch++;
    }
    if (!has_workers(loader)) {
        loader->posted++;
        return RESIN_OK;
    }
    pthread_mutex_lock(&loader->lock);
    loader->posted++;
    pthread_cond_signal(&loader->posted_more);
    pthread_mutex_unlock(&loader->lock);
    return RESIN_OK;
}

static resin_status fill_ring(resin_loader *loader) {
    while (loader->posted < loader->given + loader->settings.ahead &&
           !beyond_last_epoch(loader, loader->post_epoch))
        RESIN_TRY(post_batch(loader));
    return RESIN_OK;
}

/* ---- Giving ---------------------------------------------------------------------------------- */

static double clock_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void wait_until_full(resin_loader *loader, slot *batch) {
    if (!has_workers(loader)) {
        /* In the child a worker's half of it is done again. */
        fill_slot(loader, batch, loader->context);
        return;
    }
    pthread_mutex_lock(&loader->lock);
    while (!batch->full) pthread_cond_wait(&loader->filled_more, &loader->lock);
    pthread_mutex_unlock(&loader->lock);
}

static resin_status give_batch(resin_loader *loader, resin_tensor **images,
                               resin_tensor **labels) {
    if (loader->given == loader->posted) RESIN_TRY(fill_ring(loader)); /* memory was out before */
    slot *batch = &loader->slots[loader->given % loader->settings.ahead];
    wait_until_full(loader, batch);
    if (batch->status != RESIN_OK)
        return resin_fail(loader->context, batch->status, "%s", batch->problem);
    *images = batch->images;
    *labels = batch->labels;
    batch->images = batch->labels = NULL;
    loader->given++;
    loader->next_step++;
    /* If memory is out for a batch of later there is still time to find some. */
    (void)fill_ring(loader);
    return RESIN_OK;
}

resin_status resin_loader_next(resin_loader *loader, resin_tensor **images,
                               resin_tensor **labels) {
    *images = *labels = NULL;
    if (beyond_last_epoch(loader, loader->next_epoch)) return RESIN_OK;
    if (loader->next_step == loader->batches) {
        loader->next_step = 0;
        loader->next_epoch++;
        return RESIN_OK;
    }
    double start = clock_seconds();
    resin_status status = give_batch(loader, images, labels);
    loader->waited += clock_seconds() - start;
    return status;
}

void resin_loader_position(const resin_loader *loader, uint64_t *epoch, int64_t *step) {
    *epoch = loader->next_epoch;
    *step = loader->next_step;
}

int64_t resin_loader_batches(const resin_loader *loader) { return loader->batches; }

double resin_loader_waited(const resin_loader *loader) { return loader->waited; }

/* ---- Life ------------------------------------------------------------------------------------ */

static resin_status check_range(resin_context *context, const char *name, int64_t value,
                                int64_t low, int64_t high) {
    if (value >= low && value <= high) return RESIN_OK;
    return resin_fail(context, RESIN_ERROR_ARGUMENT,
                      "loader: expected %s from %" PRId64 " to %" PRId64 ", got %" PRId64, name,
                      low, high, value);
}

static resin_status check_settings(resin_context *context, const resin_loader_settings *settings,
                                   int64_t all, int64_t *batches) {
    if (all < 1)
        return resin_fail(context, RESIN_ERROR_ARGUMENT, "loader: there are no images");
    RESIN_TRY(check_range(context, "batch_size", settings->batch_size, 1, INT64_MAX));
    RESIN_TRY(check_range(context, "workers", settings->workers, 0, MAX_WORKERS));
    RESIN_TRY(check_range(context, "ahead", settings->ahead, 1, MAX_AHEAD));
    RESIN_TRY(check_range(context, "epochs", settings->epochs, 0, INT64_MAX));
    *batches = all / settings->batch_size;
    if (all % settings->batch_size != 0 && !settings->drop_last) ++*batches;
    if (*batches == 0)
        return resin_fail(context, RESIN_ERROR_ARGUMENT,
                          "loader: %" PRId64 " images give no batch of %" PRId64
                          " when short ones are dropped", all, settings->batch_size);
    return check_range(context, "step", settings->step, 0, *batches);
}

/* The records of each slot; the batch size is bounded by the number of images first. */
static resin_status make_slots(resin_loader *loader) {
    for (int i = 0; i < loader->settings.ahead; i++) {
        loader->slots[i].records =
            calloc((size_t)loader->settings.batch_size, sizeof *loader->slots[i].records);
        if (!loader->slots[i].records)
            return resin_fail(loader->context, RESIN_ERROR_MEMORY, "loader: out of memory");
    }
    return RESIN_OK;
}

static resin_status prepare_images(resin_loader *loader) {
    const image_files *files = &loader->files;
    const resin_batch_settings *settings = &loader->settings.batch;
    if (loader->images)
        return batch_prepare(loader->context, loader->images, settings, &loader->work);
    return batch_prepare_size(loader->context, files->count, files->settings.height,
                              files->settings.width, 3, settings, &loader->work);
}

static resin_status prepare(resin_loader *loader) {
    resin_context *context = loader->context;
    resin_loader_settings *settings = &loader->settings;
    RESIN_TRY(prepare_images(loader));
    RESIN_TRY(batch_check_labels(context, loader->labels));
    if (resin_tensor_count(loader->labels) != loader->work.all)
        return resin_fail(context, RESIN_ERROR_SHAPE,
                          "loader: %" PRId64 " images, but %" PRId64 " labels", loader->work.all,
                          resin_tensor_count(loader->labels));
    loader->label = resin_tensor_data(loader->labels);
    RESIN_TRY(check_settings(context, settings, loader->work.all, &loader->batches));
    if (settings->batch_size > loader->work.all) settings->batch_size = loader->work.all;
    loader->next_epoch = loader->post_epoch = settings->batch.epoch;
    loader->next_step = loader->post_step = settings->step;
    if (loader->post_step == loader->batches) { /* it starts with the end of an epoch */
        loader->post_step = 0;
        loader->post_epoch++;
    }
    RESIN_TRY(make_slots(loader));
    return fill_ring(loader);
}

static void free_loader(resin_loader *loader) {
    for (int i = 0; i < MAX_AHEAD; i++) {
        resin_release(loader->slots[i].images);
        resin_release(loader->slots[i].labels);
        free(loader->slots[i].records);
    }
    resin_release(loader->order);
    resin_release(loader->images);
    resin_release(loader->labels);
    image_files_free(loader->context, &loader->files);
    resin_context_release(loader->context);
    free(loader);
}

static bool make_lock(resin_loader *loader) {
    if (pthread_mutex_init(&loader->lock, NULL) != 0) return false;
    if (pthread_cond_init(&loader->posted_more, NULL) == 0) {
        if (pthread_cond_init(&loader->filled_more, NULL) == 0) return true;
        pthread_cond_destroy(&loader->posted_more);
    }
    pthread_mutex_destroy(&loader->lock);
    return false;
}

static resin_loader *new_loader(resin_context *context, resin_tensor *labels,
                                const resin_loader_settings *settings) {
    resin_loader *loader = calloc(1, sizeof *loader);
    if (!loader) {
        resin_fail(context, RESIN_ERROR_MEMORY, "loader: out of memory");
        return NULL;
    }
    loader->context = resin_context_retain(context);
    loader->labels = resin_retain(labels);
    loader->settings = *settings;
    loader->process = (int)getpid();
    atomic_init(&loader->stop, false);
    return loader;
}

/* With the images or files in place, if `status` says so. */
static resin_status start_loader(resin_loader *loader, resin_status status, resin_loader **out) {
    if (status == RESIN_OK) status = prepare(loader);
    if (status == RESIN_OK && !make_lock(loader))
        status = resin_fail(loader->context, RESIN_ERROR_SYSTEM, "loader: cannot make a lock");
    if (status != RESIN_OK) {
        free_loader(loader);
        return status;
    }
    start_workers(loader);
    *out = loader;
    return RESIN_OK;
}

resin_status resin_loader_new(resin_context *context, resin_tensor *images, resin_tensor *labels,
                              const resin_loader_settings *settings, resin_loader **out) {
    *out = NULL;
    resin_loader *loader = new_loader(context, labels, settings);
    if (!loader) return RESIN_ERROR_MEMORY;
    loader->images = resin_retain(images);
    return start_loader(loader, RESIN_OK, out);
}

resin_status resin_picture_loader_new(resin_context *context, const char *const *paths,
                                      resin_tensor *labels, const resin_picture_settings *pictures,
                                      const resin_loader_settings *settings, resin_loader **out) {
    *out = NULL;
    resin_loader *loader = new_loader(context, labels, settings);
    if (!loader) return RESIN_ERROR_MEMORY;
    resin_status status = batch_check_labels(context, labels);
    if (status == RESIN_OK)
        status = image_files_make(context, paths, resin_tensor_count(labels), pictures,
                                  &loader->files);
    return start_loader(loader, status, out);
}

void resin_loader_close(resin_loader *loader) {
    if (!loader) return;
    stop_workers(loader);
    if ((int)getpid() == loader->process) {
        pthread_cond_destroy(&loader->posted_more);
        pthread_cond_destroy(&loader->filled_more);
        pthread_mutex_destroy(&loader->lock);
    }
    free_loader(loader);
}
