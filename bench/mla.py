"""What one more token costs a model with latent attention after a long history, against transformers, in one run.

python bench/mla.py [--threads 2] [--rounds 9] [--held 4096 16384] [--json FILE]

A DeepSeek V3 of two layers (width 2048, 16 heads, latents of 512 + 64 numbers, no experts), random weights in float32
that both libraries share. Histories are put into the two caches as they are, the same in both, since only decoding is
timed. The libraries take turns, so that what else the machine does hits both; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

LAYERS, LATENT, ROTATED, STEPS = 2, 512, 64, 4
SIZES = {
    "vocab_size": 1000,
    "hidden_size": 2048,
    "intermediate_size": 4096,
    "moe_intermediate_size": 512,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "kv_lora_rank": LATENT,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": ROTATED,
    "v_head_dim": 128,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 32768,
}


def halves(key: torch.Tensor) -> torch.Tensor:
    """A shared key as the reference keeps it: the first of each pair that turns together, then the second."""
    return torch.cat([key[..., 0::2], key[..., 1::2]], -1)


@torch.inference_mode()
def decoded(model, peer, held: int) -> tuple[float, float, float]:
    """Seconds a token of ours and theirs after `held` tokens, and how far the logits are apart."""
    import transformers

    random = torch.Generator().manual_seed(held)
    state, cache = model.init_state(1, held + STEPS), transformers.DynamicCache(config=peer.config)
    for layer, kept in enumerate(state.layers):
        rows = torch.randn(1, 1, held, LATENT + ROTATED, generator=random)
        kept.kept[0][:, :, :held] = rows
        cache.update(rows[..., :LATENT].clone(), halves(rows[..., LATENT:]), layer)
    state.lengths = [held]
    token, us, them, apart = torch.tensor([[7]]), 0.0, 0.0, 0.0
    for _ in range(STEPS):
        start = time.perf_counter()
        ours = model(token, state)[0, -1]
        us += time.perf_counter() - start
        start = time.perf_counter()
        theirs = peer(token, past_key_values=cache, use_cache=True).logits[0, -1]
        them += time.perf_counter() - start
        apart = max(apart, float((ours - theirs).abs().max() / theirs.abs().max()))
        token = theirs.argmax().view(1, 1)
    return us / STEPS, them / STEPS, apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--held", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    import transformers

    import lamina

    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    peer = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**SIZES)).eval()
    with tempfile.TemporaryDirectory() as directory:
        peer.save_pretrained(directory)
        model = lamina.load(directory)
    rows, bar = {}, 8.0
    print(f"{'held':>8} {'lamina':>10} {'transformers':>13} {'ratio':>7} {'bar':>5}")
    for held in options.held:
        times = [decoded(model, peer, held) for _ in range(options.rounds + 1)][1:]  # the first warms both up
        us, them = (statistics.median(t[i] for t in times) for i in (0, 1))
        assert max(t[2] for t in times) <= 1e-4, "the two libraries disagree"
        rows[held] = {"lamina": us, "transformers": them, "ratio": them / us}
        print(f"{held:8} {us * 1e3:8.1f}ms {them * 1e3:11.1f}ms {them / us:6.1f}x {bar:4.1f}x")
    if options.json:
        versions = {"torch": torch.__version__, "transformers": transformers.__version__, "threads": options.threads}
        options.json.write_text(json.dumps({"versions": versions, "seconds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
