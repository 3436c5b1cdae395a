"""sva.py: against loops over frames, queries, heads and keys."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from longvu_cli.sva import Connector, SVACrossAttention, SVALayer

WIDTH = 32
HEADS = 16


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter drawn anew, those of the norms too."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return module.requires_grad_(False).double()


def connector(*, key_side: int = 2, query_side: int = 3, depth: int = 3) -> Connector:
    made = Connector(
        siglip_width=5,
        dinov2_width=7,
        width=WIDTH,
        hidden_size=6,
        depth=depth,
        query_side=query_side,
        key_side=key_side,
    )
    randomised(made)
    return made


# --- the same, by hand ----------------------------------------------------------------------------------------------


def normed(vector: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    mean = vector.sum() / len(vector)
    variance = ((vector - mean) ** 2).sum() / len(vector)
    return (vector - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def gelu(vector: torch.Tensor) -> torch.Tensor:
    return torch.stack([x * 0.5 * (1 + torch.erf(x / math.sqrt(2))) for x in vector])


def normed_linear(tensors: dict[str, torch.Tensor], name: str, vector: torch.Tensor) -> torch.Tensor:
    return tensors[f"{name}.1.weight"] @ normed(vector, tensors[f"{name}.0.weight"], tensors[f"{name}.0.bias"])


def naive_attention(
    tensors: dict[str, torch.Tensor],
    query: torch.Tensor,
    siglip: list[torch.Tensor],
    dinov2: list[torch.Tensor],
) -> torch.Tensor:
    """One query; the keys that it may not attend to are left out by the caller."""
    q = normed_linear(tensors, "q_proj", query)
    keys = [normed_linear(tensors, "k_proj_0", key) for key in siglip]
    keys += [normed_linear(tensors, "k_proj_1", key) for key in dinov2]
    values = [normed_linear(tensors, "v_proj_0", key) for key in siglip]
    values += [normed_linear(tensors, "v_proj_1", key) for key in dinov2]
    size = WIDTH // HEADS
    heads = []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = [math.exp(float(q[part] @ key[part]) / math.sqrt(size)) for key in keys]
        weighted = [value[part] * (score / sum(scores)) for value, score in zip(values, scores, strict=True)]
        heads.append(torch.stack(weighted).sum(dim=0))
    return tensors["o_proj.weight"] @ torch.cat(heads)


def naive_layer(
    tensors: dict[str, torch.Tensor],
    query: torch.Tensor,
    siglip: list[torch.Tensor],
    dinov2: list[torch.Tensor],
    context: torch.Tensor,
    inside: list[bool],
) -> torch.Tensor:
    if "pos_embed_0" in tensors:
        siglip = [key + tensors["pos_embed_0"][i] for i, key in enumerate(siglip)]
        dinov2 = [key + tensors["pos_embed_1"][i] for i, key in enumerate(dinov2)]
    siglip = [key for key, show in zip(siglip, inside, strict=True) if show]
    dinov2 = [key for key, show in zip(dinov2, inside, strict=True) if show]
    update = tensors["proj_in.weight"] @ torch.cat((query, tensors["proj_context.weight"] @ context))
    attention = {name.removeprefix("cross_attn."): tensor for name, tensor in tensors.items()}
    update = update + naive_attention(attention, update, siglip, dinov2)
    update = normed(update, tensors["norm.weight"], tensors["norm.bias"])
    hidden = gelu(tensors["proj_out.linear_1.weight"] @ update)
    return query + tensors["proj_out.linear_2.weight"] @ hidden


def naive_projector(tensors: dict[str, torch.Tensor], name: str, vector: torch.Tensor) -> torch.Tensor:
    hidden = gelu(tensors[f"{name}.0.weight"] @ vector + tensors[f"{name}.0.bias"])
    return tensors[f"{name}.2.weight"] @ hidden + tensors[f"{name}.2.bias"]


def naive_aggregate(
    made: Connector, siglip: torch.Tensor, dinov2: torch.Tensor, mask: list[list[bool]] | None
) -> torch.Tensor:
    tensors = made.state_dict()
    side, block = made.query_side, made.key_side
    frames = []
    for frame in range(len(siglip)):
        towers = []
        for number, tokens in enumerate((siglip[frame], dinov2[frame])):
            name = f"mm_projector_aux_{number}"
            weight, bias = tensors[f"{name}.3.weight"], tensors[f"{name}.3.bias"]
            towers.append([normed(naive_projector(tensors, name, token), weight, bias) for token in tokens])
        context = torch.stack(towers[0]).sum(dim=0) / len(towers[0])
        queries = []
        for place in range(side * side):
            top, left = place // side * block, place % side * block
            at = [(top + i) * side * block + left + j for i in range(block) for j in range(block)]
            query = tensors["vision_query"][0]
            inside = [True] * len(at) if mask is None else mask[place]
            for depth in range(len(made.vision_sampler_0.layers)):
                prefix = f"vision_sampler_0.layers.{depth}."
                layer = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
                keys = [[tower[i] for i in at] for tower in towers]
                query = naive_layer(layer, query, keys[0], keys[1], context, inside)
            queries.append(query)
        frames.append(torch.stack(queries))
    return torch.stack(frames)


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- tests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [1, 4])
def test_attention_is_one_softmax_over_both_towers_keys(keys: int) -> None:
    attention = randomised(SVACrossAttention(width=WIDTH))
    queries, siglip, dinov2 = some(5, WIDTH), some(5, keys, WIDTH, seed=1), some(5, keys, WIDTH, seed=2)
    found = attention(queries, siglip, dinov2, None)
    for i in range(5):
        wanted = naive_attention(attention.state_dict(), queries[i], list(siglip[i]), list(dinov2[i]))
        assert torch.allclose(found[i], wanted, atol=1e-10)


@pytest.mark.parametrize("keys", [1, 4])
def test_a_layer_is_what_the_description_says(keys: int) -> None:
    layer = randomised(SVALayer(width=WIDTH, keys=keys))
    queries, context = some(5, WIDTH), some(5, WIDTH, seed=3)
    siglip, dinov2 = some(5, keys, WIDTH, seed=1), some(5, keys, WIDTH, seed=2)
    found = layer(queries, siglip, dinov2, context, None)
    for i in range(5):
        wanted = naive_layer(
            layer.state_dict(), queries[i], list(siglip[i]), list(dinov2[i]), context[i], [True] * keys
        )
        assert torch.allclose(found[i], wanted, atol=1e-10)


@pytest.mark.parametrize(("key_side", "query_side"), [(2, 3), (1, 4)])
def test_aggregating_gives_each_query_its_block_of_both_grids(key_side: int, query_side: int) -> None:
    made = connector(key_side=key_side, query_side=query_side)
    tokens = (key_side * query_side) ** 2
    siglip, dinov2 = some(2, tokens, 5, seed=1), some(2, tokens, 7, seed=2)
    found = made.aggregate(siglip, dinov2, None)
    assert found.shape == (2, query_side**2, WIDTH)
    assert torch.allclose(found, naive_aggregate(made, siglip, dinov2, None), atol=1e-9)


def test_masked_keys_of_both_towers_are_not_attended_to() -> None:
    made = connector()
    siglip, dinov2 = some(2, 36, 5, seed=1), some(2, 36, 7, seed=2)
    mask = torch.tensor([[(query + key) % 3 > 0 for key in range(4)] for query in range(9)])
    found = made.aggregate(siglip, dinov2, mask)
    assert torch.allclose(found, naive_aggregate(made, siglip, dinov2, mask.tolist()), atol=1e-9)
    assert not torch.allclose(found, made.aggregate(siglip, dinov2, None), atol=1e-3)


def test_the_context_is_the_mean_of_all_tokens_padding_included() -> None:
    made = connector(depth=1)
    siglip, dinov2 = some(1, 36, 5, seed=1), some(1, 36, 7, seed=2)
    # Only the last query may see the last token, and only if nothing is masked: yet every query's context changes.
    mask = torch.tensor([[True, True, True, False]] * 9)
    before = made.aggregate(siglip, dinov2, mask)
    siglip[0, -1] += 10
    after = made.aggregate(siglip, dinov2, mask)
    assert ((before - after).abs().amax(dim=2) > 1e-6).all()


def test_projecting_is_linear_gelu_linear() -> None:
    made = connector()
    tokens = some(4, WIDTH)
    found = made.project(tokens)
    assert found.shape == (4, 6)
    for i in range(4):
        assert torch.allclose(found[i], naive_projector(made.state_dict(), "mm_projector", tokens[i]), atol=1e-10)


def names_of_a_layer() -> set[str]:
    projections = ("q_proj", "k_proj_0", "v_proj_0", "k_proj_1", "v_proj_1")
    names = {f"cross_attn.{name}.{part}" for name in projections for part in ("0.weight", "0.bias", "1.weight")}
    names |= {"cross_attn.o_proj.weight", "proj_context.weight", "proj_in.weight", "norm.weight", "norm.bias"}
    return names | {"proj_out.linear_1.weight", "proj_out.linear_2.weight"}


def test_the_names_of_a_layer_with_four_keys() -> None:
    layer = SVALayer(width=WIDTH, keys=4)
    assert set(layer.state_dict()) == names_of_a_layer() | {"pos_embed_0", "pos_embed_1"}
    assert layer.pos_embed_0.shape == (4, WIDTH)


def test_the_names_of_a_layer_with_one_key() -> None:
    assert set(SVALayer(width=WIDTH, keys=1).state_dict()) == names_of_a_layer()


def test_the_names_of_the_rest_of_the_connector() -> None:
    outside = {name for name in connector().state_dict() if not name.startswith("vision_sampler_0.")}
    towers = {
        f"mm_projector_aux_{i}.{layer}.{kind}" for i in (0, 1) for layer in (0, 2, 3) for kind in ("weight", "bias")
    }
    projector = {f"mm_projector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    assert outside == towers | projector | {"vision_query", "image_newline"}


def test_a_width_that_does_not_split_into_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="40 cannot be split into 16 heads"):
        SVACrossAttention(width=40)


def test_towers_that_do_not_fit_the_queries_are_refused() -> None:
    made = connector()
    with pytest.raises(ValueError, match="25 tower tokens are not 3² blocks of 2²"):
        made.aggregate(some(1, 25, 5), some(1, 25, 7), None)
