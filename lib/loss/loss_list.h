/* loss_list.h -- every loss: LOSS(variable). */
LOSS(loss_nll)
LOSS(loss_bt)
LOSS(loss_dpo)
