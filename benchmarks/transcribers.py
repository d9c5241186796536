"""Four programs that transcribe on the same weights: ours, transformers, faster-whisper in two types.

A side is built once and called in every round; it takes recordings and returns a text for each.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

Recordings = list[Any]
"""Samples of each recording, 16 kHz."""

Side = Callable[[Recordings], list[str]]

SIDES = ("flax_distil", "transformers", "faster-whisper", "faster-whisper int8")


def build_sides(task: str, args: argparse.Namespace) -> dict[str, Side]:
    """Return the sides of a task: ``short``, ``sequential``, ``chunked`` or ``vad``."""
    ours = {"short": our_short, "sequential": our_sequential, "chunked": our_chunked, "vad": our_vad}
    theirs = {
        "short": torch_short, "sequential": torch_sequential, "chunked": torch_chunked, "vad": torch_chunked,
    }  # fmt: skip
    fast = {"short": fast_short, "sequential": fast_sequential, "chunked": fast_chunked, "vad": fast_vad}
    if args.alone:
        return {SIDES[0]: ours[task](args)}
    return {
        "flax_distil": ours[task](args),
        "transformers": theirs[task](args),
        "faster-whisper": fast[task](args, "float32"),
        "faster-whisper int8": fast[task](args, "int8"),
    }


def in_batches(recordings: Recordings, size: int) -> Iterator[Recordings]:
    for start in range(0, len(recordings), size):
        yield recordings[start : start + size]


def our_decoder(args: argparse.Namespace, **options: Any) -> Any:
    from benchmarks.checkpoints import checkpoint_folder
    from flax_distil.checkpoints.checkpoint import load_checkpoint
    from flax_distil.model.compute_options import ComputeOptions
    from flax_distil.text.generation_settings import GenerationSettings
    from flax_distil.text.tokenizer import WhisperTokenizer
    from flax_distil.transcription.generator import WhisperGenerator
    from flax_distil.transcription.options import TranscriptionOptions

    folder = checkpoint_folder(args.model)
    checkpoint, tokenizer = load_checkpoint(folder), WhisperTokenizer.from_pretrained(folder)
    language = "en" if tokenizer.special.is_multilingual else None
    return WhisperGenerator(
        checkpoint.config, checkpoint.params, tokenizer,
        GenerationSettings.from_folder(folder, tokenizer.special),
        options=TranscriptionOptions(language=language, **options), compute=ComputeOptions(),
    )  # fmt: skip


def our_short(args: argparse.Namespace) -> Side:
    from flax_distil.transcription.modes import make_transcriber

    return _by_name(make_transcriber("short", our_decoder(args), batch_size=args.batch))


def our_sequential(args: argparse.Namespace) -> Side:
    from flax_distil.transcription.modes import make_transcriber

    generator = our_decoder(args, return_timestamps=True)
    return _by_name(make_transcriber("sequential", generator, batch_size=args.files))


def our_chunked(args: argparse.Namespace) -> Side:
    from flax_distil.transcription.modes import make_transcriber

    return _by_name(make_transcriber(
        "chunked", our_decoder(args, max_new_tokens=128), batch_size=args.batch,
        chunk_merging="longest_common_sequence",
    ))  # fmt: skip


def our_vad(args: argparse.Namespace) -> Side:
    from flax_distil.transcription.modes import make_transcriber

    return _by_name(make_transcriber("vad", our_decoder(args, vad="silero"), batch_size=args.batch))


def _by_name(transcriber: Any) -> Side:
    def run(recordings: Recordings) -> list[str]:
        found = dict(transcriber.transcribe_recordings(enumerate(recordings)))
        return [found[index].text for index in range(len(recordings))]

    run.generator = transcriber.generator  # type: ignore[attr-defined]  # it counts its steps
    return run


def torch_model(args: argparse.Namespace) -> tuple[Any, Any, dict[str, str]]:
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    from benchmarks.checkpoints import checkpoint_folder

    torch.set_num_threads(args.threads)
    folder = checkpoint_folder(args.model)
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    spoken = {"language": "en", "task": "transcribe"} if model.generation_config.is_multilingual else {}
    return model, WhisperProcessor.from_pretrained(folder), spoken


def torch_short(args: argparse.Namespace) -> Side:
    import torch

    model, processor, spoken = torch_model(args)

    def run(recordings: Recordings) -> list[str]:
        texts: list[str] = []
        for part in in_batches(recordings, args.batch):
            features = processor(part, sampling_rate=16000, return_tensors="pt").input_features
            with torch.no_grad():
                rows = model.generate(
                    features, return_timestamps=False, num_beams=1, do_sample=False, **spoken
                )
            texts += processor.batch_decode(rows, skip_special_tokens=True)
        return [text.strip() for text in texts]

    return run


def torch_sequential(args: argparse.Namespace) -> Side:
    import torch

    model, processor, spoken = torch_model(args)

    def run(recordings: Recordings) -> list[str]:
        inputs = processor(
            recordings, sampling_rate=16000, return_tensors="pt", truncation=False, padding="longest",
            return_attention_mask=True,
        )  # fmt: skip
        with torch.no_grad():
            rows = model.generate(
                **inputs, return_timestamps=True, num_beams=1, do_sample=False,
                condition_on_prev_tokens=False, **spoken,
            )  # fmt: skip
        return [text.strip() for text in processor.batch_decode(rows, skip_special_tokens=True)]

    return run


def torch_chunked(args: argparse.Namespace) -> Side:
    import warnings

    from transformers import pipeline

    model, processor, spoken = torch_model(args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of chunks being an experiment
        recognize = pipeline(
            "automatic-speech-recognition", model=model, tokenizer=processor.tokenizer,
            feature_extractor=processor.feature_extractor, chunk_length_s=30, batch_size=args.batch,
            ignore_warning=True,
        )  # fmt: skip

    def run(recordings: Recordings) -> list[str]:
        given = [{"raw": x, "sampling_rate": 16000} for x in recordings]
        settings = {**spoken, "num_beams": 1, "do_sample": False, "max_new_tokens": 128}
        return [result["text"].strip() for result in recognize(given, generate_kwargs=settings)]

    return run


def fast_model(args: argparse.Namespace, compute_type: str) -> Any:
    """Return faster-whisper on the same weights: the CTranslate2 folder that the checkpoint is made from."""
    from faster_whisper import WhisperModel

    from tests.real_checkpoints import CTRANSLATE2, build_ctranslate2

    name = args.model.removeprefix("openai/").removeprefix("whisper-")
    folder = build_ctranslate2(name, CTRANSLATE2 / f"whisper-{name}")
    return WhisperModel(str(folder), device="cpu", compute_type=compute_type, cpu_threads=args.threads)


def fast_short(args: argparse.Namespace, compute_type: str) -> Side:
    """Batch recordings by the parts of faster-whisper, whose own batches are of one recording."""
    import numpy as np
    from faster_whisper.audio import pad_or_trim
    from faster_whisper.tokenizer import Tokenizer

    model = fast_model(args, compute_type)
    multilingual = model.model.is_multilingual
    tokenizer = Tokenizer(model.hf_tokenizer, multilingual, task="transcribe", language="en")
    prompt = [*tokenizer.sot_sequence, tokenizer.no_timestamps]

    def run(recordings: Recordings) -> list[str]:
        texts: list[str] = []
        for part in in_batches(recordings, args.batch):
            features = np.stack([pad_or_trim(model.feature_extractor(x)) for x in part])
            results = model.model.generate(
                model.encode(features), [prompt] * len(part), beam_size=1, max_length=448
            )
            texts += [tokenizer.decode(result.sequences_ids[0]).strip() for result in results]
        return texts

    return run


def fast_sequential(args: argparse.Namespace, compute_type: str) -> Side:
    model = fast_model(args, compute_type)

    def run(recordings: Recordings) -> list[str]:
        texts = []
        for samples in recordings:
            segments, _ = model.transcribe(
                samples, language="en", beam_size=1, temperature=0.0, condition_on_previous_text=False,
                compression_ratio_threshold=None, log_prob_threshold=None, no_speech_threshold=None,
            )  # fmt: skip
            texts.append("".join(segment.text for segment in segments).strip())
        return texts

    return run


def fast_vad(args: argparse.Namespace, compute_type: str) -> Side:
    """Use faster-whisper's batched pipeline as it stands: regions of speech, without timestamps."""
    from faster_whisper import BatchedInferencePipeline

    model = BatchedInferencePipeline(fast_model(args, compute_type))

    def run(recordings: Recordings) -> list[str]:
        texts = []
        for samples in recordings:
            segments, _ = model.transcribe(
                samples, language="en", beam_size=1, temperature=0.0, batch_size=args.batch,
                without_timestamps=True,
            )  # fmt: skip
            texts.append("".join(segment.text for segment in segments).strip())
        return texts

    return run


def fast_chunked(args: argparse.Namespace, compute_type: str) -> Side:
    """Use faster-whisper's batched pipeline: cuts at 30 s, without strides where it looks for no silence."""
    from faster_whisper import BatchedInferencePipeline

    model = BatchedInferencePipeline(fast_model(args, compute_type))

    def run(recordings: Recordings) -> list[str]:
        texts = []
        for samples in recordings:
            seconds = len(samples) / 16000
            clips = [
                {"start": float(start), "end": min(start + 30.0, seconds)}
                for start in range(0, int(seconds) + 1, 30)
            ]
            segments, _ = model.transcribe(
                samples, language="en", beam_size=1, temperature=0.0, batch_size=args.batch,
                vad_filter=False, clip_timestamps=clips, without_timestamps=True,
            )  # fmt: skip
            texts.append("".join(segment.text for segment in segments).strip())
        return texts

    return run
