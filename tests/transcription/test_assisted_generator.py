"""A real model says the same with an untrained student of two of its layers drafting for it."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from flax_distil.checkpoints.checkpoint import load_checkpoint
from flax_distil.checkpoints.export import export_checkpoint
from flax_distil.checkpoints.student import init_student
from flax_distil.core.errors import InputError
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.parallel.make_partitioner import single_device
from flax_distil.pipeline.transcription_model import TranscriptionModel
from flax_distil.transcription.assisted_generator import Assistant, AssistedGenerator, SpeculativeStatistics
from flax_distil.transcription.decoding_request import DecodingRequest
from flax_distil.transcription.generator import WhisperGenerator
from flax_distil.transcription.options import TranscriptionOptions
from tests.transcription.models import Model

NEW = 24  # tokens: more than any of the recordings needs, and one short cache


@pytest.fixture(scope="module")
def teacher(tiny_en_dir):
    return Model.open(tiny_en_dir)


@pytest.fixture(scope="module")
def student(tiny_en_dir):
    """Two of the teacher's layers, untrained: few of its drafts are accepted."""
    return init_student(load_checkpoint(tiny_en_dir), decoder_layers=2)


@pytest.fixture(scope="module")
def alone(teacher) -> WhisperGenerator:
    return teacher.transcriber(max_new_tokens=NEW, return_timestamps=True).generator


def decoder_with(alone, assistant, **changes) -> AssistedGenerator:
    options = dataclasses.replace(alone.options, **changes)
    return AssistedGenerator(
        alone.config, alone.params, alone.tokenizer, alone.settings,
        assistant=assistant, options=options, compute=ComputeOptions(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def assistant(student, alone) -> Assistant:
    params = {"decoder": student.params["decoder"]}
    return Assistant(config=student.config, params=params, tokenizer=alone.tokenizer)


@pytest.fixture(scope="module")
def assisted(alone, assistant) -> AssistedGenerator:
    generator = decoder_with(alone, assistant)
    generator.warm_up(3)
    generator.reset_statistics()
    return generator


@pytest.fixture(scope="module")
def states(alone, speech_and_silence):
    return alone.encode_samples(speech_and_silence)


def requests_for(generator, rows=3, **options):
    return [DecodingRequest(prompt=generator.prompts.build("en"), **options) for _ in range(rows)]


def decoded(generator, states, requests):
    return generator.collect(generator.dispatch(states, requests))


def assert_same(results, wanted):
    for ours, theirs in zip(results, wanted, strict=True):
        assert ours.tokens == theirs.tokens
        # float32; products of other shapes sum in another order
        np.testing.assert_allclose(ours.token_logprobs, theirs.token_logprobs, atol=1e-3)
        np.testing.assert_allclose(ours.avg_logprob, theirs.avg_logprob, atol=1e-3)
        np.testing.assert_allclose(ours.no_speech_prob, theirs.no_speech_prob, rtol=1e-2, atol=1e-5)


def test_windows_are_decoded_as_without_an_assistant(alone, assisted, states, compilations):
    requests = requests_for(alone)
    wanted = decoded(alone, states, requests)
    found = []
    assert compilations(lambda: found.extend(decoded(assisted, states, requests))) == []
    assert_same(found, wanted)
    assert any(result.tokens for result in wanted)


def test_drafts_are_counted(assisted, states):
    assisted.reset_statistics()
    requests = requests_for(assisted)
    first, idle = decoded(assisted, states, [requests[0], None, None])[:2]
    assert idle is None
    alone_count = assisted.statistics
    assert alone_count.tokens == len(first.token_logprobs) > 0
    assert 0 < alone_count.rounds <= alone_count.tokens
    assert alone_count.rounds + alone_count.accepted >= alone_count.tokens
    assert alone_count.acceptance_rate == alone_count.accepted / alone_count.drafted
    assert alone_count.passes_per_token == alone_count.rounds / alone_count.tokens
    decoded(assisted, states, [requests[0], None, None])
    twice = [2 * count for count in dataclasses.astuple(alone_count)]
    assert dataclasses.astuple(assisted.statistics) == tuple(twice)
    assisted.reset_statistics()
    assert assisted.statistics == SpeculativeStatistics()
    assert assisted.statistics.acceptance_rate == assisted.statistics.passes_per_token == 0


def test_an_encoder_that_is_the_teachers_is_left_on_the_host(tiny_en_dir, student, tmp_path):
    """Also where its file holds it rounded to fewer bits."""
    export_checkpoint(
        student.params, student.config, tmp_path / "same", files=student.files, dtype="bfloat16"
    )
    params = {**student.params, "encoder": jax.tree.map(lambda leaf: leaf * 0.9, student.params["encoder"])}
    export_checkpoint(params, student.config, tmp_path / "other", files=student.files, dtype="float32")
    options = TranscriptionOptions(max_new_tokens=NEW, return_timestamps=True)
    loaded = {}
    for name in ("same", "other"):
        model = TranscriptionModel(
            str(tiny_en_dir), single_device(), options=options, compute=ComputeOptions(),
            assistant=str(tmp_path / name),
        )  # fmt: skip
        loaded[name] = model.load()
        assert model.parameters == sum(leaf.size for leaf in jax.tree.leaves(loaded[name].params))
    assert list(loaded["same"].assistant.params) == ["decoder"]
    assert set(loaded["other"].assistant.params) == {"decoder", "encoder"}


@pytest.mark.slow
def test_a_decoder_that_was_saved_alone_drafts_with_the_models_encoder(tiny_en_dir, student, tmp_path):
    from transformers import WhisperForCausalLM

    whole, generator = tmp_path / "whole", tmp_path / "decoder"
    export_checkpoint(student.params, student.config, whole, files=student.files, dtype="float32")
    WhisperForCausalLM.from_pretrained(whole).save_pretrained(generator)  # without a tokenizer
    model = TranscriptionModel(
        str(tiny_en_dir), single_device(), options=TranscriptionOptions(max_new_tokens=NEW),
        compute=ComputeOptions(), assistant=str(generator),
    )  # fmt: skip
    assistant = model.load().assistant
    assert list(assistant.params) == ["decoder"]
    assert assistant.tokenizer is model.load().tokenizer


@pytest.mark.slow
def test_an_assistant_with_an_encoder_of_its_own_hears_by_it(alone, student, assisted, speech_and_silence):
    whole = Assistant(config=student.config, params=student.params, tokenizer=alone.tokenizer)
    generator = decoder_with(alone, whole)
    states = generator.encode_samples(speech_and_silence)
    assert set(states) == {"encoder_out_BSD", "assistant_encoder_out_BSE"}
    np.testing.assert_array_equal(states["encoder_out_BSD"], states["assistant_encoder_out_BSE"])
    requests = requests_for(alone)
    assisted.reset_statistics()
    wanted = decoded(assisted, {"encoder_out_BSD": states["encoder_out_BSD"]}, requests)
    assert_same(decoded(generator, states, requests), wanted)
    assert generator.statistics == assisted.statistics
    generator.reset_statistics()
    deaf = {**states, "assistant_encoder_out_BSE": states["assistant_encoder_out_BSE"] * -3}
    assert_same(decoded(generator, deaf, requests), wanted)
    assert generator.statistics != assisted.statistics


def test_an_assistant_that_does_not_fit_is_refused(alone, assistant, tiny_en_dir, base_dir):
    from flax_distil.decoding.options import SearchOptions

    def refused(message, changed=assistant, **changes):
        with pytest.raises(InputError, match=message):
            decoder_with(alone, changed, **changes)

    refused("one sequence per row, not num_beams 5", search=SearchOptions(num_beams=5))
    refused("one sequence per row, not best_of 2", search=SearchOptions(best_of=2), temperature=(0.5,))
    wider = dataclasses.replace(assistant.config, d_model=768)
    refused("its decoder of width 768 cannot attend to the model's encoder of width 384",
            dataclasses.replace(assistant, config=wider))  # fmt: skip
    mels = dataclasses.replace(assistant.config, num_mel_bins=128)
    refused("takes 128 mel bins and the model's 80", dataclasses.replace(assistant, config=mels))
    with pytest.raises(InputError, match="num_assistant_tokens 0 is not between 1 and 447"):
        AssistedGenerator(
            alone.config, {}, alone.tokenizer, alone.settings, 
            assistant=dataclasses.replace(assistant, num_tokens=0),
            options=alone.options, compute=ComputeOptions(),
        )  # fmt: skip
    with pytest.raises(InputError, match="vocabulary of 51865 tokens is not the model's of 51864"):
        TranscriptionModel(
            str(tiny_en_dir), single_device(), options=TranscriptionOptions(), compute=ComputeOptions(),
            assistant=str(base_dir),
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("timestamps", [False, True])
def test_a_trained_student_spares_the_teacher_most_of_its_passes(base_dir, prompts_dir, timestamps):
    from benchmarks.speculative_student import student_folder
    from flax_distil.audio.clip import pad_or_trim
    from flax_distil.audio.reading.decoding import decode_audio

    options = TranscriptionOptions(language="en", return_timestamps=timestamps, max_new_tokens=64)
    partitioner, compute = single_device(), ComputeOptions()
    plain = TranscriptionModel(str(base_dir), partitioner, options=options, compute=compute).load()
    drafting = TranscriptionModel(
        str(base_dir), partitioner, options=options, compute=compute, assistant=str(student_folder())
    ).load()
    assert isinstance(drafting, AssistedGenerator)
    assert list(drafting.assistant.params) == ["decoder"]
    files = sorted((prompts_dir / "validation").glob("*.ogg"))[::5]
    samples = np.stack([pad_or_trim(decode_audio(file)) for file in files])
    assert len(samples) == 16
    for size in (1, 4, 16):
        drafting.reset_statistics()
        for start in range(0, 16, max(size, 4)):  # at batch 1 every fourth recording
            states = plain.encode_samples(samples[start : start + size])
            requests = requests_for(plain, size)
            assert_same(decoded(drafting, states, requests), decoded(plain, states, requests))
        assert drafting.statistics.passes_per_token < 0.75


@pytest.mark.slow
def test_rows_and_weights_are_laid_over_devices(tiny_en_dir):
    script = Path(__file__).parent / "speculative_on_eight_devices.py"
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        [sys.executable, str(script), str(tiny_en_dir)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    alone = said.pop("alone")
    assert len({tuple(tokens) for tokens in alone}) > 1
    assert said == dict.fromkeys(["one", "pmap×8", "fsdp×8", "fsdp×4·tensor×2"], alone)
