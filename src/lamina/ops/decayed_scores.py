"""Scores of a chunk's queries with the keys before them, where each of the K numbers of a key fades by its own share.

    s_ij = sum over c of q_ic k_jc exp(g_(j+1)c + ... + g_ic),   j < i

That is no product of two matrices. Between two neighbouring runs of tokens it is: queries of the later run are times
what faded since it began, keys of the earlier one times what fades until it ends. Runs of one token join to runs of
two, those to runs of four and so on, and each two tokens meet once. All factors are products of decays, none above one:
strong ones fade to zero, nothing overflows, and weak ones are as exact behind strong ones as before them.
Source: arXiv 2312.06635, section 4.3 (chunks within chunks; two levels there)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def decayed_scores(
    q: Float[Tensor, "B H n A K"], k: Float[Tensor, "B H n K"], decay: Float[Tensor, "B H n K"]
) -> tuple[Float[Tensor, "B H n A n"], Float[Tensor, "B H n A K"], Float[Tensor, "B H n K"], Float[Tensor, "B H 1 K"]]:
    """The scores, zeros where j >= i, and what meets the state: each token asks A times.

    What meets the state is q times what faded since before the first token, k times what fades until the last one, and
    all that fades. A token's decay is what fades before its own key is written.
    """
    tokens, asking, keys, decay = k.shape[2], q * decay[..., None, :], k.clone(), decay.clone()
    scores, half = k.new_zeros(*q.shape[:4], tokens), 1
    while half < tokens:
        since, until = (torch.ones_like(decay) for _ in range(2)) if torch.is_grad_enabled() else (None, None)
        for start, size, many in _runs(tokens, 2 * half):
            here = slice(start, start + many * size)
            asks, kept, fades = (x[:, :, here].unflatten(2, (many, size)) for x in (asking, keys, decay))
            met = asks[:, :, :, half:].flatten(3, 4) @ kept[:, :, :, :half].mT
            runs = scores[:, :, here, :, here].unflatten(4, (many, size)).unflatten(2, (many, size))
            runs.diagonal(0, 2, 5)[:, :, half:, :, :half] = met.unflatten(3, (size - half, -1)).movedim(2, -1)
            before, after = fades[:, :, :, half - 1, None], fades[:, :, :, -1, None]
            if since is None or until is None:
                asks[:, :, :, half:] *= before[..., None, :]
                kept[:, :, :, :half] *= after
                fades[:, :, :, half:] *= before
            else:  # gradients will ask what was there
                since[:, :, here].unflatten(2, (many, size))[:, :, :, half:] = before
                until[:, :, here].unflatten(2, (many, size))[:, :, :, :half] = after
        if since is not None and until is not None:
            asking, keys, decay = asking * since[..., None, :], keys * until, decay * since
        half *= 2
    return scores, asking, keys, decay[:, :, -1:]


def _runs(tokens: int, size: int) -> list[tuple[int, int, int]]:
    """Where runs of a size begin, their size and how many; the last is shorter, or left out where none meet in it."""
    many, rest = divmod(tokens, size)
    return [run for run in ((0, size, many), (many * size, rest, 1)) if run[2] and run[1] > size // 2]
