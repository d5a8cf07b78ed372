/* arch_list.h -- the model families: ARCH(x) is arch_x in x.c. */
ARCH(mixtral)
ARCH(olmoe)
ARCH(qwen3_moe)
