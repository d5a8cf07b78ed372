/* ckpt.h -- checkpoints: a folder of tensors by name, cut into slices, with a manifest that says
 * where every slice is (formats/ckpt.md).
 *
 * Safetensors files of the model under Hugging Face names, others below optim/, config.json,
 * tokenizer files, and manifest.json, written last.  No manifest, no checkpoint.  A reader proves
 * that the slices of every tensor cover it exactly once before it trusts a byte, and takes any
 * rectangle from them: weights and optimizer state load at any layout. */
#ifndef CKPT_H
#define CKPT_H

#include "shard/shard.h"
#include "mesh/mesh.h"
#include "arch/arch.h"

/* What one rank writes.  Slices are added in any order; data are borrowed until the writer closes.
 */
struct ckpt_writer;
/* dir: the unpublished folder (dir_begin); rank, ranks: of the world. */
struct ckpt_writer *ckpt_writer_open(const char *dir, int rank, int ranks);
/* set: "model", or an optimizer's "exp_avg", "exp_avg_sq", "master".  data: r.rows x r.cols,
 * elements of `from`, stored as `to`. */
void ckpt_put(struct ckpt_writer *w, const char *set, const struct param *p, struct rect r,
              const void *data, enum dtype from, enum dtype to);
/* The same of data that need not be in memory: when the writer closes and it is their turn, put()
 * puts all elements of the rectangle, of that type and row by row, into the file. */
void ckpt_put_later(struct ckpt_writer *w, const char *set, const struct param *p, struct rect r,
                    enum dtype type, void (*put)(void *arg, struct blob_file *f), void *arg);
/* p, from malloc, is freed when the writer closes: for data that were copied to be put. */
void ckpt_hold(struct ckpt_writer *w, void *p);
/* All data elsewhere: move() returns where those of a slice are to be read from.  What has been put
 * need not be memory of the host until then. */
int64_t ckpt_writer_bytes(const struct ckpt_writer *w);
void ckpt_move(struct ckpt_writer *w, void *(*move)(void *arg, const void *data, int64_t bytes),
               void *arg);
/* Writes and fsyncs this rank's files and returns their part of the manifest (JSON text), which
 * rank 0 needs from everybody.  Frees the writer; caller frees the string. */
char *ckpt_writer_close(struct ckpt_writer *w);
/* Rank 0, after all: manifest.json from the ranks' parts and the run's state (a JSON object: step,
 * cursor, configuration), config.json, model.safetensors.index.json where every model tensor lies
 * whole in one file.  Fsyncs the folder; the caller publishes it by rename. */
void ckpt_manifest_write(const char *dir, char *const *parts, int n, const char *state,
                         const struct config *c, enum dtype model_type);

struct ckpt;
/* Opens a checkpoint, or a run (then RUN/last).  Dies with 4 when it has no manifest, a file is
 * missing or of another size, or slices do not cover a tensor exactly once. */
struct ckpt *ckpt_open(const char *path);
const char *ckpt_path(const struct ckpt *k); /* the checkpoint's own folder */
struct json ckpt_state(const struct ckpt *k);
void ckpt_config(const struct ckpt *k, struct config *c);
int ckpt_has(const struct ckpt *k, const char *set, const char *name);
/* Dies (4) naming a tensor, of the model or of the optimizer's state, that is none of these n. */
void ckpt_only(const struct ckpt *k, const struct param *p, int64_t n);
/* Fills dst (r.rows x r.cols of `to`) from whatever slices cover it, checking the hash of each
 * slice read.  Dies (4) naming the tensor on damage or a missing tensor. */
void ckpt_get(struct ckpt *k, const char *set, const struct param *p, struct rect r, void *dst,
              enum dtype to);
/* Puts the rectangle into a file, without holding more in memory than it must. */
void ckpt_copy(struct ckpt *k, const char *set, const struct param *p, struct rect r,
               struct blob_file *f, enum dtype to);
void ckpt_close(struct ckpt *k);
int ckpt_is(const char *folder); /* whether its manifest.json says that it is a checkpoint */
/* Reads every slice and config.json; dies (4) where one is not as the manifest says, or where there
 * are tensors that it does not name. */
void ckpt_check(struct ckpt *k);
int hf_is(const char *folder); /* whether weights lie in it as Hugging Face has them */
/* Compares two folders tensor by tensor, each whole.  Where one is no checkpoint but a plain folder
 * (Hugging Face's), only the model is compared.  As shard_diff() otherwise. */
int64_t ckpt_diff(const char *a, const char *b, struct out *o, int64_t *tensors);

/* What lies beside a model's weights and config.json: files of its tokenizer and of generation, and
 * config.json's code; all of them but one of that name, or NULL.  Names what else there is and is
 * left. */
struct ckpt_side;
struct ckpt_side *ckpt_side_read(const char *folder, const char *but);
void ckpt_side_write(const struct ckpt_side *s, const char *folder);
void ckpt_side_free(struct ckpt_side *s);

/* Publishing replaces a folder.  Dies (2) unless all that is in this one is what a checkpoint or a
 * Hugging Face folder has: never somebody's home. */
void ckpt_spare(const char *path);

/* Plain Hugging Face folders (config.json, *.safetensors, maybe an index).  Every tensor of the
 * family's table must be there with its shape and no other but what repeats one; each fault is
 * named, and then nothing is written.  type DT_COUNT: as each tensor is stored, blocks of FP8 as
 * BF16.  Both ways the weights go into files of at most file_bytes, or of one larger tensor. */
void ckpt_from_hf(const char *from, const char *to, enum dtype type, int64_t file_bytes);
void ckpt_to_hf(const char *from, const char *to, enum dtype type, int64_t file_bytes);

/* A dense model as one of its family's kind with experts, of which `chosen` are chosen for a token
 * and `parts` make up the dense network; the first forward pass is the dense model's. */
void ckpt_upcycle(const char *from, const char *to, int64_t experts, int64_t chosen, int64_t parts,
                  int64_t seed, int64_t file_bytes);

/* A checkpoint with the same tensors and state in files cut by rows. */
void ckpt_rewrite(const char *from, const char *to, int files);

#endif
