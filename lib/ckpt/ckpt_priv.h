/* ckpt_priv.h -- the list of slices that writer, manifest and reader share, and a place for bytes
 * that need not stay in memory. */
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
    const void *data; /* writer: r.rows x r.cols */
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

/* Memory backed by an unlinked file in dir, so that a tensor waiting to be written can leave RAM.
 */
struct spool;
struct spool *spool_open(const char *dir);
void *spool_take(struct spool *s, int64_t bytes);
void spool_close(struct spool *s);

/* The slices of an open checkpoint. */
const struct table *ckpt_table(const struct ckpt *k);
enum dtype stored_type(const struct ckpt *k, const char *name); /* of a tensor of the model */
/* The type config.json gives: where tensors differ, that of the family's first. */
enum dtype ckpt_type(const struct ckpt *k, const struct config *c);

/* Copies whatever of a tokenizer's and generation's files lies in from. */
void side_files_copy(const char *from, const char *to);

#endif
