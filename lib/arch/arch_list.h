/* arch_list.h -- the model families: ARCH(x) is arch_x in x.c. */
ARCH(deepseek_v2)
ARCH(llama)
ARCH(mixtral)
ARCH(olmoe)
ARCH(qwen2)
ARCH(qwen2_moe)
ARCH(qwen3)
ARCH(qwen3_moe)
