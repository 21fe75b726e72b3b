"""PathTransformer: it sees no later token, stands still untrained, and knows what it is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rounding import assert_equal_but_for_rounding
from tipl.models.path_transformer.net import PathTransformer, PathTransformerConfig

B, L, K = 3, 6, 5  # paths, checkpoints seen, coordinates
POSITIONS = torch.arange(L).expand(B, L)
RETURNS = torch.tensor([0.3, -1.2, 2.0])


def random_model(**changes: Any) -> PathTransformer:
    """A model whose last layer is random too, so that it does not stand still."""
    fields: dict[str, Any] = {"num_coordinates": K, "max_checkpoints": L, "width": 16}
    torch.manual_seed(0)
    model = PathTransformer(PathTransformerConfig(**fields | changes))
    torch.nn.init.normal_(model.change_out.weight)
    torch.nn.init.normal_(model.change_out.bias)
    return model.eval()


def random_tokens(seed: int = 1) -> Tensor:
    return torch.randn(B, L, K, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("condition_on_return", [False, True])
@pytest.mark.parametrize("changed", range(L))
@torch.inference_mode()
def test_a_token_changes_its_own_and_later_outputs_alone(
    changed: int, condition_on_return: bool
) -> None:
    model = random_model(condition_on_return=condition_on_return, depth=3)
    tokens = random_tokens()
    before = model(tokens, POSITIONS, RETURNS)
    tokens = tokens.clone()
    tokens[:, changed] += 1
    after = model(tokens, POSITIONS, RETURNS)
    assert torch.equal(after[:, :changed], before[:, :changed])  # to the bit
    assert (after[:, changed:] - before[:, changed:]).abs().amax(dim=2).min() > 1e-4


@torch.inference_mode()
def test_the_first_outputs_of_a_longer_history_are_those_of_a_shorter_one() -> None:
    model, tokens = random_model(), random_tokens()
    whole = model(tokens, POSITIONS)
    for length in range(1, L):
        shorter = model(tokens[:, :length], POSITIONS[:, :length])
        assert_equal_but_for_rounding(shorter, whole[:, :length], sums=12, terms=64)


@torch.inference_mode()
def test_paths_of_a_batch_do_not_see_each_other() -> None:
    model, tokens = random_model(), random_tokens()
    together = model(tokens, POSITIONS)
    for n in range(B):
        alone = model(tokens[n : n + 1], POSITIONS[n : n + 1])
        assert_equal_but_for_rounding(alone[0], together[n], sums=12, terms=64)


@torch.inference_mode()
def test_positions_past_the_last_one_are_the_last_one() -> None:
    model, tokens = random_model(max_checkpoints=4), random_tokens()
    clamped = model(tokens, POSITIONS.clamp(max=3))
    assert torch.equal(model(tokens, POSITIONS), clamped)
    assert torch.equal(model(tokens, torch.where(POSITIONS < 3, POSITIONS, 1000)), clamped)
    assert not torch.isclose(model(tokens, POSITIONS.clamp(max=2)), clamped).all(dim=2)[:, 3:].any()


@torch.inference_mode()
def test_the_order_of_positions_matters() -> None:
    model, tokens = random_model(), random_tokens()
    moved = model(tokens, POSITIONS.flip(1))
    assert not torch.isclose(moved, model(tokens, POSITIONS)).all(dim=2).any()


@pytest.mark.parametrize("condition_on_return", [False, True])
@torch.inference_mode()
def test_an_untrained_model_stands_still_exactly(condition_on_return: bool) -> None:
    config = PathTransformerConfig(K, L, condition_on_return=condition_on_return)
    model = PathTransformer(config, 7 * torch.ones(K), 3 * torch.ones(K))
    tokens = 100 * random_tokens()
    assert torch.equal(model(tokens, POSITIONS, RETURNS), tokens)


@torch.inference_mode()
def test_inputs_are_divided_and_changes_multiplied_by_their_scales() -> None:
    model, tokens = random_model(), random_tokens()
    change = model(tokens, POSITIONS) - tokens
    token_scale, change_scale = torch.tensor([1e-3, 1.0, 2.0, 10.0, 1e3]), torch.arange(1.0, K + 1)
    scaled = PathTransformer(model.config, token_scale, change_scale)
    weights = {k: v for k, v in model.state_dict().items() if not k.endswith("_scale")}
    scaled.load_state_dict(scaled.state_dict() | weights)
    # not by subtraction: beside large tokens the changes would drown in rounding
    predicted = scaled(tokens * token_scale, POSITIONS)
    torch.testing.assert_close(predicted, tokens * token_scale + change * change_scale)


@pytest.mark.parametrize("given", [None, torch.ones(K)])
@torch.inference_mode()
def test_a_state_is_loaded_into_both_scales(given: Tensor | None) -> None:
    config = PathTransformerConfig(K, L)
    scales = torch.rand(2, K, generator=torch.Generator().manual_seed(2))
    model, loaded = PathTransformer(config, *scales), PathTransformer(config, given, given)
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(torch.stack([loaded.token_scale, loaded.change_scale]), scales)


def test_scales_are_saved_with_the_model_but_not_trained() -> None:
    model = random_model()
    assert {"token_scale", "change_scale"} <= set(model.state_dict())
    assert {"token_scale", "change_scale"}.isdisjoint(name for name, _ in model.named_parameters())


@torch.inference_mode()
def test_an_unknown_return_is_nan_or_none() -> None:
    model, tokens = random_model(condition_on_return=True), random_tokens()
    unknown = model(tokens, POSITIONS, torch.full((B,), torch.nan))
    assert unknown.isfinite().all()
    assert torch.equal(model(tokens, POSITIONS, None), unknown)
    assert torch.equal(model(tokens, POSITIONS), unknown)


@torch.inference_mode()
def test_a_known_return_changes_the_outputs_of_its_path_alone() -> None:
    model, tokens = random_model(condition_on_return=True), random_tokens()
    unknown = model(tokens, POSITIONS)
    outputs = [unknown]
    for wished in (0.0, 0.5, -2.0):
        outputs.append(model(tokens, POSITIONS, torch.tensor([torch.nan, wished, torch.nan])))
        assert_equal_but_for_rounding(outputs[-1][[0, 2]], unknown[[0, 2]], sums=12, terms=64)
    for n, first in enumerate(outputs):
        for second in outputs[n + 1 :]:
            assert (first[1] - second[1]).abs().amax(dim=1).min() > 1e-4


def test_an_unknown_return_is_learned_without_nan_gradients() -> None:
    model = random_model(condition_on_return=True)
    returns = torch.tensor([torch.nan, 0.5, torch.nan])
    model(random_tokens(), POSITIONS, returns).square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(
        gradient is not None and gradient.isfinite().all() for gradient in gradients.values()
    )
    for name in ("unknown_return", "return_in.weight"):
        gradient = gradients[name]
        assert gradient is not None
        assert gradient.any()


@torch.inference_mode()
def test_a_return_is_ignored_by_a_model_that_does_not_condition_on_it() -> None:
    model, tokens = random_model(), random_tokens()
    assert torch.equal(model(tokens, POSITIONS, RETURNS), model(tokens, POSITIONS))
    assert not any("return" in name for name in model.state_dict())


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_depth_is_the_number_of_blocks(depth: int) -> None:
    assert len(random_model(depth=depth).blocks) == depth


@torch.inference_mode()
def test_attention_is_that_of_a_naive_implementation() -> None:
    """One block, written out head by head and position by position."""
    block = random_model(depth=1, heads=4, width=16).blocks[0]
    x = torch.randn(L, 16, generator=torch.Generator().manual_seed(3))
    q, k, v = block.query_key_value(block.attention_norm(x)).chunk(3, dim=1)
    mixed = torch.zeros(L, 16)
    for head in range(4):
        part = slice(4 * head, 4 * head + 4)
        for position in range(L):
            seen = slice(0, position + 1)
            weights = torch.softmax(k[seen, part] @ q[position, part] / 2, dim=0)  # 2 = sqrt(16/4)
            mixed[position, part] = weights @ v[seen, part]
    expected = x + block.attention_out(mixed)
    expected = expected + block.mlp(block.mlp_norm(expected))
    assert_equal_but_for_rounding(block(x[None])[0], expected, sums=12, terms=64)
