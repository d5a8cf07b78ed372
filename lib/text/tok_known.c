/* tok_known.c -- the known vocabularies of tiktoken files: the pattern and the special tokens are
 * in the programs that use them, not in the files, so a file is known by its hash. */

#include "text/tok_known.h"

#include <stddef.h>

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORDS(digits)                                                                              \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                                          \
                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"

const char tok_qwen_pattern[] = WORDS("\\p{N}"), tok_nfc[] = "{\"type\":\"NFC\"}";
const char tok_cl100k_pattern[] = WORDS("\\p{N}{1,3}");
const char tok_o200k_pattern[] =
    "[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+" CONTRACTIONS "?|[^\\r\\n\\p{L}\\p{N}]?[" UPPER
    "]+[" LOWER "]*" CONTRACTIONS "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|"
    "\\s+(?!\\S)|\\s+";

static const struct known_special gpt2_special[] = {{50256, 1, 0, "<|endoftext|>"}, {0}};
static const struct known_special cl100k_special[] = {
    {100257, 1, 0, "<|endoftext|>"},   {100258, 1, 0, "<|fim_prefix|>"},
    {100259, 1, 0, "<|fim_middle|>"},  {100260, 1, 0, "<|fim_suffix|>"},
    {100276, 1, 0, "<|endofprompt|>"}, {0}};
static const struct known_special o200k_special[] = {
    {199999, 1, 0, "<|endoftext|>"}, {200018, 1, 0, "<|endofprompt|>"}, {0}};
static const struct known_special qwen_special[] = {{151643, 1, 0, "<|endoftext|>"},
                                                    {151644, 1, 0, "<|im_start|>"},
                                                    {151645, 1, 0, "<|im_end|>"},
                                                    {151646, 205, 0, "<|extra_%d|>"},
                                                    {0}};
static const struct known_special llama3_special[] = {
    {128000, 1, 0, "<|begin_of_text|>"},
    {128001, 1, 0, "<|end_of_text|>"},
    {128002, 2, 0, "<|reserved_special_token_%d|>"},
    {128004, 1, 0, "<|finetune_right_pad_id|>"},
    {128005, 1, 0, "<|step_id|>"},
    {128006, 1, 0, "<|start_header_id|>"},
    {128007, 1, 0, "<|end_header_id|>"},
    {128008, 1, 0, "<|eom_id|>"},
    {128009, 1, 0, "<|eot_id|>"},
    {128010, 1, 0, "<|python_tag|>"},
    {128011, 1, 0, "<|image|>"},
    {128012, 244, 2, "<|reserved_special_token_%d|>"},
    {0}};
static const struct known_special llama4_special[] = {
    {200000, 1, 0, "<|begin_of_text|>"},
    {200001, 1, 0, "<|end_of_text|>"},
    {200002, 1, 0, "<|fim_prefix|>"},
    {200003, 1, 0, "<|fim_middle|>"},
    {200004, 1, 0, "<|fim_suffix|>"},
    {200005, 1, 0, "<|header_start|>"},
    {200006, 1, 0, "<|header_end|>"},
    {200007, 1, 0, "<|eom|>"},
    {200008, 1, 0, "<|eot|>"},
    {200009, 1, 0, "<|step|>"},
    {200010, 6, 0, "<|text_post_train_reserved_special_token_%d|>"},
    {200016, 1, 0, "<|python_start|>"},
    {200017, 1, 0, "<|python_end|>"},
    {200018, 1, 0, "<|finetune_right_pad|>"},
    {200019, 61, 8, "<|text_post_train_reserved_special_token_%d|>"},
    {200080, 1, 0, "<|image_start|>"},
    {200081, 1, 0, "<|image_end|>"},
    {200082, 2, 0, "<|vision_reserved_special_token_%d|>"},
    {200084, 1, 0, "<|tile_x_separator|>"},
    {200085, 1, 0, "<|tile_y_separator|>"},
    {200086, 4, 2, "<|vision_reserved_special_token_%d|>"},
    {200090, 1, 0, "<|image|>"},
    {200091, 1, 6, "<|vision_reserved_special_token_%d|>"},
    {200092, 1, 0, "<|patch|>"},
    {200093, 1041, 7, "<|vision_reserved_special_token_%d|>"},
    {201134, 8, 0, "<|reasoning_reserved_special_token_%d|>"},
    {201142, 1, 0, "<|reasoning_thinking_start|>"},
    {201143, 1, 0, "<|reasoning_thinking_end|>"},
    {201144, 904, 0, "<|reserved_special_token_%d|>"},
    {0}};

const struct known tok_known[] = {
    {"r50k_base", "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930", NULL, NULL,
     -1, gpt2_special},
    {"p50k_base", "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069", NULL, NULL,
     -1, gpt2_special},
    {"cl100k_base", "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
     tok_cl100k_pattern, NULL, -1, cl100k_special},
    {"o200k_base", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
     tok_o200k_pattern, NULL, -1, o200k_special},
    {"Qwen", "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186", tok_qwen_pattern,
     tok_nfc, -1, qwen_special},
    {"Llama 3", "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55",
     tok_cl100k_pattern, NULL, 128000, llama3_special},
    {"Llama 4", "d0bdbaf59b0762c8c807617e2d8ea51420eb1b1de266df2495be755c8e0ed6ed",
     tok_o200k_pattern, NULL, 200000, llama4_special},
    {0}};
