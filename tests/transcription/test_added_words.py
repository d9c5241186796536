"""A vocabulary with words behind the timestamps: they are no timestamps, and change no transcript."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import pytest

from flax_distil.decoding.options import SearchOptions
from flax_distil.transcription.sequential.transcriber import SequentialTranscriber
from tests.transcription.models import Model

WORDS = (" flaxian", " distilian", " jaxian")


@pytest.fixture(scope="module")
def plain(tiny_en_dir) -> Model:
    return Model.open(tiny_en_dir)


@pytest.fixture(scope="module")
def longer(plain, tmp_path_factory) -> Model:
    """The same model after words were added, their embeddings the mean of all, as transformers makes them."""
    folder = tmp_path_factory.mktemp("longer")
    for name in ("tokenizer_config.json", "generation_config.json"):
        shutil.copy(plain.folder / name, folder)
    contents = json.loads((plain.folder / "tokenizer.json").read_text(encoding="utf-8"))
    flags = dict.fromkeys(("special", "single_word", "lstrip", "rstrip", "normalized"), False)
    size = plain.config.vocab_size
    contents["added_tokens"] += [
        {"id": size + number, "content": word} | flags for number, word in enumerate(WORDS)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(contents), encoding="utf-8")
    embedding = plain.params["decoder"]["token_embedding"]["embedding"]
    added = jnp.tile(embedding.mean(axis=0), (len(WORDS), 1))
    generator = plain.params["decoder"] | {
        "token_embedding": {"embedding": jnp.concatenate([embedding, added])}
    }
    config = dataclasses.replace(plain.config, vocab_size=size + len(WORDS))
    return Model(folder, config, {**plain.params, "decoder": generator})


@pytest.mark.slow
@pytest.mark.parametrize(("search", "words"), [(SearchOptions(), True), (SearchOptions(num_beams=3), False)])
def test_transcripts_with_timestamps_are_those_of_the_model_before(plain, longer, speech, search, words):
    options = {"return_timestamps": True, "word_timestamps": words, "search": search, "max_new_tokens": 40}

    def transcripts(model: Model) -> list:
        generator = model.transcriber(**options).generator
        transcriber = SequentialTranscriber(generator, batch_size=2)
        named = [(row, samples_W[: 12 * 16_000]) for row, samples_W in enumerate(speech)]
        return [transcript for _, transcript in sorted(transcriber.transcribe_recordings(named))]

    for one, other in zip(transcripts(plain), transcripts(longer), strict=True):
        assert other.tokens == one.tokens
        assert other.text == one.text
        assert [(s.start, s.end) for s in other.segments] == [(s.start, s.end) for s in one.segments]
        if words:
            assert [[w.start for w in s.words] for s in other.segments] == [
                [w.start for w in s.words] for s in one.segments
            ]
