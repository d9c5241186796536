"""On policy, the student writes the decoder input, and only the teacher's opinion of it is learned."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.core.tree import flatten
from flax_distil.distillation.config import DistillConfig
from flax_distil.distillation.forward import encode
from flax_distil.distillation.loss import make_terms
from flax_distil.distillation.on_policy import is_on_policy, prompt_lengths, sampled_batch
from flax_distil.distillation.optimizer import make_optimizer
from flax_distil.distillation.step_config import OnPolicy, StepConfig
from flax_distil.distillation.train_state import init_state, partition_params
from flax_distil.distillation.train_step import train_step
from flax_distil.distillation.training_config import FreezeConfig, LossConfig, OptimizerConfig
from flax_distil.model.assembly import bind_decoder
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.text.special_tokens import SpecialTokens
from tests.parallel.layouts import random_params

pytestmark = pytest.mark.integration

SPECIAL = SpecialTokens(
    eot=90, sot=91, sot_prev=92, no_speech=93, no_timestamps=94, timestamp_begin=95, vocab_size=97
)
OPTIONS = ComputeOptions(use_scan=True)
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_steps=0, max_steps=10)


@pytest.fixture(scope="module")
def models(small_config, small_params):
    """A student with the teacher's encoder and a decoder that says all sorts of things."""
    decoder = random_params(dataclasses.replace(small_config, decoder_layers=2), 1, scale=0.3)["decoder"]
    student = small_params | {"decoder": jax.tree.map(jnp.asarray, decoder)}
    return student, {"decoder": small_params["decoder"]}


@pytest.fixture
def prompted(small_batch):
    """Prompts of one token, of two, and of two behind a previous text; the last row has no label."""
    inputs = np.minimum(small_batch.decoder_input_ids_BT, 89)
    inputs[:, :, 0] = SPECIAL.sot
    inputs[:, 1, 1] = SPECIAL.no_timestamps
    inputs[:, 2, :5] = [SPECIAL.sot_prev, 5, 6, SPECIAL.sot, SPECIAL.no_timestamps]
    mask = small_batch.loss_mask_BT.copy()
    mask[:, 3] = False
    return dataclasses.replace(small_batch, decoder_input_ids_BT=inputs, loss_mask_BT=mask)


@functools.cache
def configured(small_config, lmbda, temperature=1.0, **weights):
    return StepConfig(
        student=dataclasses.replace(small_config, decoder_layers=2), teacher=small_config,
        student_options=OPTIONS, teacher_options=OPTIONS, terms=make_terms(LossConfig(**weights)), seed=3,
        on_policy=OnPolicy(lmbda=lmbda, temperature=temperature, special=SPECIAL) if lmbda else None,
    )  # fmt: skip


@functools.cache
def sampling(config):
    return jax.jit(functools.partial(sampled_batch, config))


def written(config, models, batch, step=0, first_row=0):
    return sampling(config)(models[0]["decoder"], batch, jnp.int32(step), jnp.int32(first_row))


@pytest.fixture
def heard(prompted):
    """One micro-batch, with encoder outputs."""
    states = jnp.asarray(np.random.default_rng(5).normal(size=(4, 20, 16)), jnp.float32)
    one = jax.tree.map(lambda leaf: leaf[0], prompted)
    return dataclasses.replace(one, mel_BRM=None, encoder_out_BSD=states)


def test_prompts_end_with_the_last_mark(heard):
    lengths_B = prompt_lengths(jnp.asarray(heard.decoder_input_ids_BT), SPECIAL)
    assert lengths_B.tolist() == [1, 2, 5, 1]


def test_what_is_written_is_what_the_student_says_behind_each_prompt(small_config, models, heard):
    """Greedily: each token is the most likely one of an uncached pass over what was written."""
    found = written(configured(small_config, 1.0, temperature=0.0), models, heard)
    inputs, labels, mask = map(np.asarray, (found.decoder_input_ids_BT, found.labels_BT, found.loss_mask_BT))
    decoder = bind_decoder(dataclasses.replace(small_config, decoder_layers=2), OPTIONS, models[0]["decoder"])
    said = np.asarray(
        decoder.logits(decoder(found.decoder_input_ids_BT, heard.encoder_out_BSD).hidden_BTD).argmax(axis=2)
    )
    np.testing.assert_array_equal(labels[mask], said[mask])
    np.testing.assert_array_equal(inputs[:, 1:], labels[:, :-1])
    for row, length in enumerate([1, 2, 5]):
        np.testing.assert_array_equal(inputs[row, :length], heard.decoder_input_ids_BT[row, :length])
        count = mask[row].sum()
        assert mask[row, length - 1 : length - 1 + count].all()
        ended = SPECIAL.eot in labels[row][mask[row]]
        assert count == (12 - length if not ended else list(labels[row, length - 1 :]).index(SPECIAL.eot) + 1)
    assert not mask[3].any()
    np.testing.assert_array_equal(inputs[3], heard.decoder_input_ids_BT[3])


def test_a_row_is_sampled_by_its_number_and_its_step_and_ends_with_the_end_of_text(
    small_config, models, heard
):
    config = configured(small_config, 1.0)
    one, same, later = (written(config, models, heard, step).labels_BT for step in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one[:3] != later[:3]).any(axis=1).all()
    moved = jax.tree.map(lambda leaf: jnp.roll(leaf, -1, axis=0), heard)
    np.testing.assert_array_equal(written(config, models, moved, first_row=1).labels_BT[:3], one[1:])
    ends = 0
    for step in range(40):
        found = written(config, models, heard, step)
        labels, mask = np.asarray(found.labels_BT), np.asarray(found.loss_mask_BT)
        for row in range(3):
            ends += SPECIAL.eot in labels[row][mask[row]]
            assert SPECIAL.eot not in labels[row][mask[row]][:-1]
    assert ends


@functools.cache
def trained(config, small_config):
    optimizer = make_optimizer(OPTIMIZER)
    return jax.jit(functools.partial(train_step, config, optimizer)), optimizer


@pytest.fixture
def step_of(models, small_config):
    def run(config, batch, step):
        trainable, frozen = partition_params(models[0], FreezeConfig())
        compiled, optimizer = trained(config, small_config)
        state = dataclasses.replace(init_state(trainable, optimizer), step=jnp.int32(step))
        return compiled(state, frozen, models[1], batch)

    return run


def test_steps_are_on_policy_or_plain_and_never_both(small_config, models, prompted, step_of):
    config = configured(small_config, 0.5)
    alone = configured(small_config, 0.0, ce_weight=0.0, kl_weight=1.0)
    choices = [bool(is_on_policy(config, jnp.int32(step))) for step in range(200)]
    assert 70 < sum(choices) < 130
    on, off = choices.index(True), choices.index(False)
    _, metrics = step_of(config, prompted, off)
    _, numbers = step_of(alone, prompted, off)
    assert float(metrics["on_policy"]) == 0.0
    for name in ("ce_loss", "kl_loss", "accuracy", "tokens"):
        np.testing.assert_allclose(metrics[name], numbers[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(metrics["loss"], 0.8 * metrics["ce_loss"] + metrics["kl_loss"], rtol=1e-5)
    after, metrics = step_of(config, prompted, on)
    assert float(metrics["on_policy"]) == 1.0
    assert np.isnan([metrics["ce_loss"], metrics["accuracy"]]).all()
    np.testing.assert_allclose(metrics["loss"], metrics["kl_loss"], rtol=1e-6)
    assert trained(config, small_config)[0]._cache_size() == 1
    # The same update as from the KL term alone on a batch that holds what the student wrote.
    mel = prompted.mel_BRM
    states = encode(config.student, OPTIONS, models[0]["encoder"], jnp.asarray(mel.reshape(8, 40, 8)))
    parts = [
        written(
            config, models,
            dataclasses.replace(
                jax.tree.map(lambda leaf: leaf[k], prompted), mel_BRM=None,  # noqa: B023
                encoder_out_BSD=states[4 * k : 4 * k + 4],
            ),
            on, first_row=4 * k,
        )
        for k in range(2)
    ]  # fmt: skip
    texts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    wanted, numbers = step_of(alone, texts, on)
    np.testing.assert_allclose(metrics["loss"], numbers["loss"], rtol=1e-5)
    assert float(metrics["tokens"]) == float(numbers["tokens"]) == np.asarray(texts.loss_mask_BT).sum()
    for path, leaf in flatten(wanted.params).items():
        np.testing.assert_allclose(flatten(after.params)[path], leaf, atol=2e-5, err_msg=path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lmbda": 1.5}, r"lmbda 1\.5 is not between 0 and 1"),
        ({"lmbda": 0.5, "kl_weight": 0.0}, r"lmbda 0\.5 has no teacher to score"),
        ({"lmbda": 0.5, "on_policy_temperature": -1.0}, r"on_policy_temperature -1\.0"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    given = {"teacher_model_name_or_path": "t", "train_dataset_name": "d", "output_dir": "o"}
    with pytest.raises(InputError, match=message):
        build(DistillConfig, given | values)
