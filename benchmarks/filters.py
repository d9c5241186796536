"""The filters of a labelled corpus: time per row with and without the column of error rates, and found again.

    python -m benchmarks.filters --rows 40000 --workers 2

Rows are the bundled prompts with their texts for transcripts, a word of some of them changed.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import describe

if TYPE_CHECKING:
    from flax_distil.data.dataset import SpeechDataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", default="tiny.en")
    args = parser.parse_args()
    print(describe(args.workers))
    from benchmarks.checkpoints import checkpoint_folder
    from flax_distil.data.preprocessing.config import FilterConfig, LabelConfig
    from flax_distil.data.preprocessing.filter_tables import filter_rows
    from flax_distil.data.preprocessing.filters import RowFilter
    from flax_distil.data.preprocessing.labels import LabelBuilder
    from flax_distil.text.normalizers import get_normalizer
    from flax_distil.text.tokenizer import WhisperTokenizer

    labels = LabelBuilder(WhisperTokenizer.from_pretrained(checkpoint_folder(args.model)), LabelConfig())
    plain = corpus(args.rows)
    labeled = with_error_rates(plain)
    with tempfile.TemporaryDirectory() as cache:
        for title, data, workers in (
            ("one process, error rates computed", plain, 1),
            (
                f"{args.workers} processes, error rates computed",
                plain.select(range(len(plain))),
                args.workers,
            ),
            ("one process, column of error rates", labeled, 1),
            ("found again", labeled, 1),
        ):
            start = time.perf_counter()
            row_filter = RowFilter(
                data, FilterConfig(wer_threshold=10.0), normalize=get_normalizer("en"), labels=labels
            )
            folder = cache if data is labeled else Path(cache) / title
            result = filter_rows(data, row_filter, workers=workers, cache_dir=folder)
            seconds = time.perf_counter() - start
            print(f"{title:44} {1e3 * seconds / args.rows:8.4f} ms per row, {len(result.kept)} rows stay")


def corpus(rows: int) -> "SpeechDataset":
    import datasets
    import pyarrow

    from flax_distil.data.sources.dataset_spec import DatasetSpec
    from flax_distil.data.sources.load_datasets import load_table
    from flax_distil.data.tables import to_speech_dataset

    folder = Path(__file__).parents[1] / "examples" / "asterisk_prompts" / "train"
    texts = load_table(DatasetSpec(name=str(folder), text_column="text")).references()
    draw = random.Random(0)
    references = [draw.choice(texts) or "" for _ in range(rows)]
    heard = [text.replace("the", "a") if draw.random() < 0.2 else text for text in references]
    labels = [f" {text}" for text in heard]
    table = pyarrow.table({"audio": ["none.wav"] * rows, "text": references, "whisper_transcript": labels})
    return to_speech_dataset(
        datasets.Dataset(table),
        name="corpus",
        text_column="text",
        label_column="whisper_transcript",
        id_prefix="row",
    )


def with_error_rates(data: "SpeechDataset") -> "SpeechDataset":
    from flax_distil.metrics.word_errors import sample_wer
    from flax_distil.text.normalizers import get_normalizer

    pairs = list(zip(data.references(), data.labels(), strict=True))
    known = {pair: sample_wer(pair[0] or "", pair[1] or "", get_normalizer("en")) for pair in set(pairs)}
    return data.with_columns({"wer": [known[pair] for pair in pairs]})


if __name__ == "__main__":
    main()
