"""``flax-distil transcribe``."""

from collections.abc import Sequence

from flax_distil.cli.parser import parse_config
from flax_distil.workflows import TranscribeConfig, run_transcription


def run(argv: Sequence[str]) -> int:
    """Transcribe audio files; return the exit status."""
    config = parse_config(
        TranscribeConfig,
        argv,
        command="transcribe",
        positional="files",
        aliases={"model": "model_name_or_path"},
    )
    for path, transcript in run_transcription(config).items():
        print(f"{path}: {transcript.text_with_timestamps or transcript.text}")
    return 0
