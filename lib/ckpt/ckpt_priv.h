/* ckpt_priv.h -- the list of slices that writer, manifest and reader share, and what goes with a
 * plain Hugging Face folder. */
#ifndef CKPT_PRIV_H
#define CKPT_PRIV_H

#include "ckpt/ckpt.h"

/* Beyond this a JSON reader that keeps numbers in doubles would not see what was written. */
#define TABLE_NUMBER_MAX ((int64_t)1 << 53)

/* One rectangle of one tensor and where it lies. */
struct slice {
    char *set, *name;   /* "model", "lm_head.weight" */
    int64_t rows, cols; /* of the whole tensor; cols 0 for a vector */
    struct rect r;
    enum dtype type;
    int64_t file; /* in table.file */
    char *tensor; /* its name in that file */
    char hash[17];
    int good;         /* reader: the bytes were read once and had this hash */
    const void *data; /* writer: r.rows x r.cols, or who puts them: */
    void (*put)(void *arg, struct blob_file *f);
    void *arg;
};
struct slice_file {
    char *name; /* below the checkpoint's folder */
    int64_t bytes;
};
struct table {
    struct slice *slice; /* after table_sort(): by set, name, row, column */
    int64_t slices, slice_cap;
    struct slice_file *file;
    int64_t files;
};

/* Strings are copied. */
struct slice *table_add(struct table *t, const char *set, const char *name);
int64_t table_file(struct table *t, const char *name, int64_t bytes);
void table_sort(struct table *t);
/* One past the slices of the tensor that begins at slice i. */
int64_t table_run(const struct table *t, int64_t i);
/* The tensor's first slice, or -1. */
int64_t table_find(const struct table *t, const char *set, const char *name);
/* Appends what a manifest, or one rank's part of it, says; sorted.  NULL, or why not (caller
 * frees). */
char *table_parse(struct table *t, struct json root);
/* The members "files", "model" and "optimizer" of a manifest, without braces; sorted. */
void table_print(const struct table *t, struct buf *out);
/* NULL, or which tensor is not covered exactly once (caller frees). */
char *table_prove(const struct table *t);
void table_release(struct table *t);
/* A slice's rectangle as JSON: its global shape, offset or own shape, one or two numbers. */
enum slice_dims { SLICE_GLOBAL, SLICE_OFFSET, SLICE_SHAPE };
void slice_dims_print(const struct slice *s, enum slice_dims which, struct buf *out);

/* Which file beside the tensors is not the one that the manifest was written with (caller frees),
 * and what is wrong with the manifest itself; NULL: nothing. */
char *hashes_fault(const char *dir, struct json root);
const char *seal_fault(const struct buf *text, struct json root);

/* What config.json calls a type: "float32". */
const char *torch_dtype(enum dtype t);
int torch_dtype_known(enum dtype t);

/* model.safetensors.index.json from tensors that each lie whole in one file. */
struct index;
struct index *index_new(void);
void index_add(struct index *x, const char *tensor, const char *file, int64_t bytes);
void index_write(struct index *x, const char *dir); /* and frees it */
void index_free(struct index *x);

/* put.c: n elements, or a tensor of another file, into a file, as `to`; tensor_put() returns the
 * hash of what it read. */
void elements_put(struct blob_file *f, enum dtype to, const void *src, enum dtype from, int64_t n);
uint64_t tensor_put(struct blob_file *f, enum dtype to, struct shard_file *from,
                    const struct tensor *t);
/* Which of n tensors of so many bytes are in file f of as few as there can be in order, when one
 * takes at most file_bytes, or one larger tensor: end[f - 1] to end[f].  Returns the files. */
int files_cut(const int64_t *bytes, int64_t n, int64_t file_bytes, int64_t *end);

/* make.c: a checkpoint of n tensors, and of what lies beside the weights in the folder `beside`. */
struct making {
    const struct param *p;
    enum dtype type;
    void (*put)(void *arg, struct blob_file *f); /* as ckpt_put_later() */
    void *arg;
};
void ckpt_make(const char *to, const struct making *m, int64_t n, const struct config *c,
               const char *beside, int64_t file_bytes);

/* The slices of an open checkpoint. */
const struct table *ckpt_table(const struct ckpt *k);
enum dtype stored_type(const struct ckpt *k, const char *name); /* of a tensor of the model */
/* What a tensor stored as `is` becomes where `asked` is asked for (DT_COUNT: as it is): fine ones
 * are not rounded. */
static inline enum dtype type_wanted(const struct param *p, enum dtype is, enum dtype asked)
{
    return asked == DT_COUNT || (p->fine && dtype_size(asked) < dtype_size(is)) ? is : asked;
}
/* The type config.json gives: where tensors differ, that of the family's first. */
enum dtype ckpt_type(const struct ckpt *k, const struct config *c);

/* side.c: what lies beside a model's weights, from folder to folder. */
void side_files_copy(const char *from, const char *to);
/* Dies (4) where the tokenizer's files give out ids that the embedding has no row for. */
void side_files_check(const char *dir, const struct config *c);

/* fp8.c: weights of 8 bits with a factor for each block of rows and columns. */
struct fp8_blocks {
    int64_t rows, cols; /* of a block; 0: there are none */
};
/* What config.json's text says of them, which it then says no more: the weights will be BF16. */
struct fp8_blocks fp8_config(struct buf *text, const char *who);
/* (rows, cols) F8_E4M3 with the factors of its blocks, F32, into a file as `to`. */
void fp8_put(struct blob_file *f, enum dtype to, const uint8_t *src, int64_t rows, int64_t cols,
             const float *factor, struct fp8_blocks b);

/* hf_files.c: the names of the files that hold a Hugging Face folder's weights, one at least; dies
 * (4) where there is none, or one is missing.  And each tensor that its index names, if that has
 * the word. */
char **hf_files(const char *path, int64_t *n);
void hf_index_each(const char *path, void (*use)(void *arg, const char *tensor, const char *file),
                   void *arg);

/* hf_folder.c: a Hugging Face folder whose weights are these n parameters of the model; dies (4)
 * naming each fault otherwise.  Borrows path and p. */
struct hf_folder;
struct hf_folder *hf_folder_open(const char *path, const struct config *c, const struct param *p,
                                 int64_t n, struct fp8_blocks blocks);
/* Whether a tensor of that name is in one of the folder's files. */
int hf_folder_has(const char *path, const char *name);
/* The type in which parameter i is put where no other is asked for. */
enum dtype hf_folder_type(const struct hf_folder *d, int64_t i);
void hf_folder_put(const struct hf_folder *d, int64_t i, struct blob_file *f, enum dtype to);
void hf_folder_close(struct hf_folder *d);

#endif
