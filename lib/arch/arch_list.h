/* arch_list.h -- the model families: ARCH(x) is arch_x in x.c. */
ARCH(mixtral)
