"""What int8 does to a real teacher: KL divergence, most likely tokens, and labels on bundled recordings.

    python -m benchmarks.int8 --model tiny.en --clips 16

The teacher hears prompts of the bundled validation set. Under the texts of the set (teacher forcing) its
distributions in int8 are compared with those in float32, token by token, and then the labels that it makes.
"""

import argparse
import json

import jax
import jax.numpy as jnp
import jiwer
import numpy as np

from benchmarks.checkpoints import REPOSITORY, checkpoint_folder
from flax_distil.audio.clip import pad_or_trim
from flax_distil.audio.mel import log_mel
from flax_distil.audio.reading.decoding import decode_audio
from flax_distil.checkpoints.checkpoint import Checkpoint
from flax_distil.checkpoints.load_on_cpu import load_on_cpu
from flax_distil.checkpoints.tokenizer import read_tokenizer
from flax_distil.metrics.word_errors import word_errors
from flax_distil.model.assembly import bind_decoder, bind_encoder, held_params
from flax_distil.model.compute_options import ComputeOptions
from flax_distil.parallel.make_partitioner import single_device
from flax_distil.pipeline.transcription_model import TranscriptionModel
from flax_distil.text.normalizers import get_model_normalizer
from flax_distil.transcription.options import TranscriptionOptions
from flax_distil.transcription.short_form import ShortFormTranscriber

FOLDER = REPOSITORY / "examples" / "asterisk_prompts" / "validation"
TYPES = ("float32", "bfloat16", "int8")


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny.en", help="a folder, tiny.en or base")
    parser.add_argument("--clips", type=int, default=16, help="number of recordings, the longest texts first")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in (FOLDER / "metadata.jsonl").read_text().splitlines()]
    rows = sorted(rows, key=lambda row: -len(row["text"]))[: arguments.clips]
    samples = np.stack([pad_or_trim(decode_audio(FOLDER / row["file_name"])) for row in rows])
    texts = [row["text"] for row in rows]
    folder = checkpoint_folder(arguments.model)
    compare_distributions(load_on_cpu(str(folder)), samples, texts)
    compare_labels(str(folder), samples, texts)


def compare_distributions(teacher: Checkpoint, samples_BW: np.ndarray, texts: list[str]) -> None:
    """Print KL divergence from float32 and the share of equal most likely tokens."""
    tokens_BT, mask_BT = prompted(teacher, texts)
    wanted = log_probabilities(teacher, "float32", samples_BW, tokens_BT)
    for dtype in TYPES[1:]:
        found = log_probabilities(teacher, dtype, samples_BW, tokens_BT)
        divergence = (np.exp(wanted) * (wanted - found)).sum(axis=-1)[mask_BT]
        equal = (wanted.argmax(axis=-1) == found.argmax(axis=-1))[mask_BT]
        print(
            f"{dtype}: KL to float32 {divergence.mean():.5f} nats per token, at most {divergence.max():.3f}; "
            f"most likely token equal {equal.mean():.2%} of {equal.size}",
            flush=True,
        )


def prompted(teacher: Checkpoint, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs of the decoder, padded, and where the next token is one of the text or its end."""
    tokenizer, _ = read_tokenizer(teacher.files)
    special = tokenizer.special
    spoken = [special.languages["en"], special.transcribe] if special.is_multilingual else []
    prompt = [special.sot, *spoken, special.no_timestamps]
    rows = [[*prompt, *tokenizer.encode(f" {text}"), special.eot] for text in texts]
    tokens_BT = np.full((len(rows), max(map(len, rows))), special.eot, np.int32)
    mask_BT = np.zeros(tokens_BT.shape, bool)
    for number, row in enumerate(rows):
        tokens_BT[number, : len(row)] = row
        mask_BT[number, len(prompt) - 1 : len(row) - 1] = True
    return tokens_BT, mask_BT


def log_probabilities(
    teacher: Checkpoint, dtype: str, samples_BW: np.ndarray, tokens_BT: np.ndarray
) -> np.ndarray:
    """Return log-probabilities [B, T, V] under teacher forcing; two recordings at a time."""
    options = ComputeOptions(dtype=dtype).on("cpu")

    @jax.jit
    def compute(params, samples_BW, tokens_BT):
        mel_BRM = log_mel(samples_BW, num_mel_bins=teacher.config.num_mel_bins)
        states_BSD = bind_encoder(teacher.config, options, params["encoder"])(mel_BRM)[0]
        decoder = bind_decoder(teacher.config, options, params["decoder"])
        return jax.nn.log_softmax(decoder.logits(decoder(tokens_BT, states_BSD).hidden_BTD))

    params = held_params(teacher.params, options)
    parts = [(samples_BW[i : i + 2], tokens_BT[i : i + 2]) for i in range(0, len(samples_BW), 2)]
    return np.concatenate([np.asarray(compute(params, *map(jnp.asarray, part))) for part in parts])


def compare_labels(folder: str, samples_BW: np.ndarray, texts: list[str]) -> None:
    """Print how many tokens of the labels are kept, aligned, and the word error rates against the texts."""
    labels = {}
    for dtype in TYPES[::2]:
        options = TranscriptionOptions(max_new_tokens=64)
        model = TranscriptionModel(
            folder, single_device(), options=options, compute=ComputeOptions(dtype=dtype)
        )
        labels[dtype] = list(ShortFormTranscriber(model.load()).transcribe(samples_BW))
        errors = word_errors(texts, [label.text for label in labels[dtype]], normalizer(model))
        print(f"{dtype}: WER of its labels {errors.wer:.2f} %", flush=True)
    pairs = [(a.tokens, b.tokens) for a, b in zip(labels["float32"], labels["int8"], strict=True)]
    spelled = [[" ".join(map(str, tokens)) for tokens in side] for side in zip(*pairs, strict=True)]
    edits = jiwer.process_words(*spelled)
    total = edits.hits + edits.substitutions + edits.deletions
    whole = sum(a == b for a, b in pairs)
    print(
        f"int8: {edits.hits / total:.2%} of {total} label tokens kept, {edits.insertions} others inserted; "
        f"{whole} of {len(pairs)} labels are equal"
    )


def normalizer(model: TranscriptionModel):
    """Return Whisper's normalizer of English."""
    return get_model_normalizer("en", "transcribe", is_multilingual=model.is_multilingual, name="whisper")


if __name__ == "__main__":
    main()
