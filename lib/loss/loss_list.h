/* loss_list.h -- every loss: LOSS(variable). */
LOSS(loss_nll)
