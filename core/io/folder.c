/* folder.c: what a folder holds. */
#include "core/io/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Names one after the other, each with its zero byte. */
typedef struct name_list {
    char *text;
    size_t size, room;
    int64_t count;
} name_list;

static bool add_name(name_list *list, const char *name, bool folder) {
    size_t length = strlen(name), needed = list->size + length + 2;
    if (needed > list->room) {
        size_t room = 2 * needed + 1024;
        char *text = realloc(list->text, room);
        if (!text) return false;
        list->text = text;
        list->room = room;
    }
    memcpy(list->text + list->size, name, length);
    list->size += length;
    if (folder) list->text[list->size++] = '/';
    list->text[list->size++] = '\0';
    list->count++;
    return true;
}

/* Regular files and folders, also behind symbolic links; names that begin with a dot are left
 * out. */
static bool read_names(DIR *folder, name_list *list) {
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct stat facts;
        if (entry->d_name[0] == '.' || fstatat(dirfd(folder), entry->d_name, &facts, 0) != 0)
            continue;
        if (!S_ISREG(facts.st_mode) && !S_ISDIR(facts.st_mode)) continue;
        if (!add_name(list, entry->d_name, S_ISDIR(facts.st_mode))) return false;
    }
    return true;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Copies the names in the order of their bytes. */
static bool sort_names(const name_list *list, char *out) {
    char **names = malloc(((size_t)list->count + 1) * sizeof *names), *at = list->text;
    if (!names) return false;
    for (int64_t i = 0; i < list->count; i++, at += strlen(at) + 1) names[i] = at;
    qsort(names, (size_t)list->count, sizeof *names, compare_names);
    for (int64_t i = 0; i < list->count; i++) {
        size_t length = strlen(names[i]) + 1;
        memcpy(out, names[i], length);
        out += length;
    }
    free(names);
    return true;
}

resin_status resin_folder_list(resin_context *context, const char *path, resin_tensor **out) {
    DIR *folder = opendir(path);
    if (!folder)
        return resin_fail(context, RESIN_ERROR_FILE, "cannot open the folder %s: %s",
                          resin_path_shown(path), strerror(errno));
    name_list list = {0};
    bool enough = read_names(folder, &list);
    closedir(folder);
    const int64_t size = (int64_t)list.size;
    resin_tensor *names = NULL;
    resin_status status = RESIN_OK;
    if (enough) status = resin_empty(context, RESIN_UINT8, 1, &size, &names);
    if (status == RESIN_OK && (!enough || !sort_names(&list, resin_tensor_data(names))))
        status = resin_fail(context, RESIN_ERROR_MEMORY, "%s: out of memory for the names in it",
                            resin_path_shown(path));
    free(list.text);
    if (status == RESIN_OK)
        *out = names;
    else
        resin_release(names);
    return status;
}
