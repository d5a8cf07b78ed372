/* loss.c -- losses by name. */
#include "loss/loss.h"

#include <string.h>

#define LOSS(variable) extern const struct loss variable;
#include "loss/loss_list.h"
#undef LOSS

const struct loss *loss_find(const char *name)
{
    static const struct loss *const list[] = {
#define LOSS(variable) &variable,
#include "loss/loss_list.h"
#undef LOSS
    };
    struct buf names = {0};
    for (int64_t i = 0; i < ARRAY_LEN(list); i++)
        if (!strcmp(list[i]->name, name))
            return list[i];
    for (int64_t i = 0; i < ARRAY_LEN(list); i++)
        buf_printf(&names, " %s", list[i]->name);
    die_misused("--loss %s: there is no such loss; known:%s", name, names.data);
}
