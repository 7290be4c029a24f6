"""Scores between tokens of a chunk where each of the K numbers of a key fades by its own share.

They are no product of two matrices, but those between two neighbouring runs of tokens are: what asks in the later run
is times what faded since the run began, keys of the earlier one are times what fades until it ends. Runs of one token
join to runs of two, those to runs of four and so on, and each pair of tokens meets once. All factors are products of
decays: strong ones fade to zero and nothing overflows.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def faded_scores(
    asking: Float[Tensor, "B H A n K"], keys: Float[Tensor, "B H L n K"], decay: Float[Tensor, "B H n K"]
) -> tuple[
    Float[Tensor, "B H A L n n"], Float[Tensor, "B H A n K"], Float[Tensor, "B H L n K"], Float[Tensor, "B H 1 K"]
]:
    """Of A vectors of each token with L keys of each before it; and what is left of both, and of a state.

    `asking` is times what fades at its own token already, where it reads after that. Returned are the scores, zero but
    below the diagonal; `asking` times what faded since before the first token; `keys` times what fades until the last
    one; and all that fades.
    """
    tokens, kinds, others = keys.shape[3], asking.shape[2], keys.shape[2]
    scores, half = keys.new_zeros(*keys.shape[:2], kinds, others, tokens, tokens), 1
    gradients = torch.is_grad_enabled()
    if not gradients:
        asking, keys, decay = asking.clone(), keys.clone(), decay.clone()
    while half < tokens:
        since, until = (torch.ones_like(decay) if gradients else decay for _ in range(2))
        whole = tokens - tokens % (2 * half)
        for start, end in ((0, whole), (whole, tokens)):
            if end - start <= half:
                continue
            size = min(2 * half, end - start)
            asks, held = (x[..., start:end, :].unflatten(3, (-1, size)).transpose(2, 3) for x in (asking, keys))
            met = asks[..., half:, :].flatten(3, 4) @ held[..., :half, :].flatten(3, 4).mT
            met = met.unflatten(4, (others, half)).unflatten(3, (kinds, size - half))  # [B H runs A size-half L half]
            runs = scores[..., start:end, start:end].unflatten(5, (-1, size)).unflatten(4, (-1, size))
            runs.diagonal(dim1=4, dim2=6)[..., half:, :half, :] = met.permute(0, 1, 3, 5, 4, 6, 2)
            fades = decay[:, :, start:end].unflatten(2, (-1, size))
            before, after = fades[:, :, :, half - 1 : half], fades[:, :, :, -1:]
            if gradients:  # which ask what was there
                since[:, :, start:end].unflatten(2, (-1, size))[:, :, :, half:] = before
                until[:, :, start:end].unflatten(2, (-1, size))[:, :, :, :half] = after
            else:
                asks[..., half:, :] *= before[:, :, :, None]
                held[..., :half, :] *= after[:, :, :, None]
                fades[:, :, :, half:] *= before
        if gradients:
            asking, keys, decay = asking * since[:, :, None], keys * until[:, :, None], decay * since
        half *= 2
    return scores, asking, keys, decay[:, :, -1:]
