# /// script
# requires-python = "==3.11.*"
# dependencies = [
#     "tensorflow-cpu==2.16.2",
#     "tensorflow-io==0.37.1",
#     "tensorflow-io-gcs-filesystem==0.37.1",
#     "numpy==1.26.4",
#     "pyarrow==22.0.0",
#     "soundfile==0.14.0",
# ]
# ///
"""TFRecord corpora to Parquet shards that flax_distil reads.

    uv run scripts/import_tfrecords.py 'gs://bucket/corpus/train-*.tfrecord' --output_dir corpus

A script of its own with an environment of its own (above): tensorflow-io, which reads ``gs://`` and decodes
the audio, needs numpy 1, and JAX does not run with it. Without uv, install what stands above in a virtual
environment and run it there.

Each record is a ``tf.train.Example`` with a recording: encoded (FLAC, WAV, MP3, Ogg: kept byte for byte),
or as samples (int64 of 16 bits become FLAC, floats become WAV, both without loss). Every recording is
decoded once: what cannot be is left out, counted and listed. Each TFRecord file becomes one shard, which
appears under its name once it is whole; run the same command again to go on after an interruption.
"""

import argparse
import errno
import glob
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["TF_USE_MODULAR_FILESYSTEM"] = "1"  # gs:// through tensorflow-io
# Its plugin ends with a segmentation fault where one of these is not set.
os.environ.setdefault("GCS_READ_CACHE_BLOCK_SIZE_MB", "16")
os.environ.setdefault("GCS_READ_CACHE_MAX_SIZE_MB", "64")
os.environ.setdefault("GCS_READ_CACHE_MAX_STALENESS", "0")
os.environ.setdefault("GCS_STAT_CACHE_MAX_AGE", "5")
os.environ.setdefault("GCS_STAT_CACHE_MAX_ENTRIES", "1024")

try:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import soundfile
    import tensorflow as tf
    import tensorflow_io as tfio
except ImportError as error:
    sys.exit(f"error: {error}: run this script with 'uv run', or install what its first lines list")

REPORT = "import_report.json"
REPORT_KEY = b"import_report"
"""Where a shard keeps what became of its records, in the metadata of its schema."""

ROWS_SAMPLED = 100
"""Records of the first file that tell which features there are."""

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
"""Errors of the folder that is written to."""

GROUP_ROWS, GROUP_BYTES = 64, 64 << 20
"""A row group holds at most so many rows, and is closed once it holds so many bytes of audio."""

UNKNOWN_FRAMES = 1 << 62
"""libsndfile reports more frames than this when a header leaves the length open."""

WIDTHS = {
    "PCM_U8": tf.uint8,
    "PCM_S8": tf.uint8,
    "PCM_16": tf.int16,
    "PCM_24": tf.int32,
    "PCM_32": tf.int32,
    "FLOAT": tf.float32,
}
"""What tensorflow-io decodes samples of FLAC and WAV to."""

OWN_COLUMNS = ("id", "audio", "text", "duration")

TYPES = {"bytes_list": pa.string(), "int64_list": pa.int64(), "float_list": pa.float64()}


class BadInput(Exception):
    """Something that the user can mend, in one sentence."""


class BadRecord(Exception):
    """Why one record gives no row."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Import and return the exit status: 0, or 2 for bad input."""
    args = parse(arguments)
    try:
        run(args)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except tf.errors.OpError as error:  # of a file system: not the fault of one record
        print(f"error: {_sentence(error)}: finished shards are kept, run it again", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(
            f"error: cannot write to {args.output_dir!r}: {error.strerror}; finished shards are kept, "
            "run it again",
            file=sys.stderr,
        )
        return 2
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", help="TFRecord files or patterns of them, local or gs://")
    parser.add_argument("--output_dir", required=True, help="folder of the Parquet shards")
    parser.add_argument("--audio_feature", default="audio", help="feature of recordings (default: audio)")
    parser.add_argument(
        "--text_feature", default="text", help="feature of texts (default: text); empty if there are none"
    )
    parser.add_argument("--id_feature", help="feature of stable names; by default file:number")
    parser.add_argument("--sampling_rate", type=int, help="Hz of recordings that are given as samples")
    parser.add_argument("--sampling_rate_feature", help="feature that tells it for each record")
    parser.add_argument(
        "--compression_type",
        choices=["", "GZIP", "ZLIB"],
        help="of the TFRecord files; by default GZIP for names that end in .gz",
    )
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> None:
    """Write a shard for every file that has none yet, then the report."""
    shards = shard_paths(find_files(args.files), Path(args.output_dir).expanduser())
    schema = read_schema(next(iter(shards)), args)
    Path(args.output_dir).expanduser().mkdir(parents=True, exist_ok=True)
    for number, (file, shard) in enumerate(shards.items(), 1):
        if shard.exists():
            check_schema(shard, schema)
            done = "was there"
        else:
            write_shard(file, shard, schema, args)
            done = "written"
        report = read_report(shard)
        bad = f", {len(report['bad_records'])} records left out" if report["bad_records"] else ""
        print(f"{number}/{len(shards)} {shard.name} {done}: {report['rows']} rows{bad}", flush=True)
    summarize(list(shards.values()), Path(args.output_dir).expanduser())


def find_files(patterns: Sequence[str]) -> list[str]:
    """Return the files that patterns name, sorted, each once."""
    files: list[str] = []
    for pattern in patterns:
        if "://" in pattern:
            check_reachable(pattern)
            found = tf.io.gfile.glob(pattern)
        else:
            found = glob.glob(os.path.expanduser(pattern), recursive=True)
        if not found:
            raise BadInput(f"no file is called {pattern!r}: check the path")
        files += sorted(found)
    return list(dict.fromkeys(files))


def check_reachable(pattern: str) -> None:
    """Refuse a bucket that may not be read; patterns would find nothing there, and keep quiet about it."""
    try:
        tf.io.gfile.stat(pattern)
    except tf.errors.NotFoundError:
        pass
    except tf.errors.OpError as error:
        raise BadInput(f"cannot read {pattern!r}: {_sentence(error)}") from error


def shard_paths(files: Sequence[str], folder: Path) -> dict[str, Path]:
    """Return the shard of each file: its name alone tells whether it was imported before."""
    shards: dict[str, Path] = {}
    for file in files:
        shard = folder / f"{file.rstrip('/').rsplit('/', 1)[-1]}.parquet"
        if shard in shards.values():
            raise BadInput(f"two files are called {shard.stem!r}: import them into different folders")
        shards[file] = shard
    return shards


def read_records(file: str, args: argparse.Namespace) -> Iterator[bytes]:
    """Yield the records of a file."""
    compression = args.compression_type
    if compression is None:
        compression = "GZIP" if file.endswith(".gz") else ""
    return iter(tf.data.TFRecordDataset(file, compression_type=compression).as_numpy_iterator())


def read_schema(file: str, args: argparse.Namespace) -> pa.Schema:
    """Tell from the first records of a file which columns there are, and check those asked for."""
    kinds: dict[str, Counter[str]] = {}
    many: set[str] = set()
    try:
        for _, record in zip(range(ROWS_SAMPLED), read_records(file, args), strict=False):
            for name, feature in parse_example(record).items():
                kind, values = feature_values(feature)
                kinds.setdefault(name, Counter()).update([kind] if values else [])
                if len(values) > 1 or (kind == "bytes_list" and any(map(_not_text, values))):
                    many.add(name)
    except (tf.errors.DataLossError, BadRecord) as error:
        if not kinds:
            reason = str(error) if isinstance(error, BadRecord) else _sentence(error)
            raise BadInput(f"cannot read {file!r} as TFRecords of tf.train.Example: {reason}") from error
    if not kinds:
        raise BadInput(f"{file!r} holds no records with features: leave it out")
    asked = (args.audio_feature, args.text_feature, args.id_feature, args.sampling_rate_feature)
    for name in filter(None, asked):
        if name not in kinds:
            raise BadInput(
                f"no record of {file!r} has the feature {name!r}: it has {', '.join(sorted(kinds))}"
            )
    samples = kinds[args.audio_feature].keys() & {"int64_list", "float_list"}
    if samples and not (args.sampling_rate or args.sampling_rate_feature):
        raise BadInput(
            f"feature {args.audio_feature!r} holds samples: give sampling_rate or sampling_rate_feature"
        )
    kept = [
        pa.field(name, TYPES[found.most_common(1)[0][0]])
        for name, found in sorted(kinds.items())
        if found and name not in many and name not in {*asked, *OWN_COLUMNS}
    ]
    left_out = sorted(kinds.keys() - {field.name for field in kept} - set(asked))
    if left_out:
        print(f"features left out (columns hold one number or text per record): {', '.join(left_out)}")
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    text = [pa.field("text", pa.string())] if args.text_feature else []
    fields = [
        pa.field("id", pa.string()),
        pa.field("audio", audio),
        *text,
        pa.field("duration", pa.float64()),
    ]
    return with_features(pa.schema([*fields, *kept]))


def with_features(schema: pa.Schema) -> pa.Schema:
    """Tell ``datasets`` that the audio column is one."""
    names = {pa.string(): "string", pa.int64(): "int64", pa.float64(): "float64"}
    features: dict[str, Any] = {
        field.name: {"_type": "Audio"}
        if field.name == "audio"
        else {"_type": "Value", "dtype": names[field.type]}
        for field in schema
    }
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def check_schema(shard: Path, schema: pa.Schema) -> None:
    """Refuse a folder of another import."""
    with pq.ParquetFile(shard) as file:
        there, ours = file.schema_arrow, REPORT_KEY in (file.metadata.metadata or {})
    if not ours or not there.equals(schema):
        raise BadInput(
            f"{str(shard)!r} has the columns {', '.join(there.names)}, this import makes "
            f"{', '.join(schema.names)}: choose another output_dir, or remove it"
        )


def write_shard(file: str, shard: Path, schema: pa.Schema, args: argparse.Namespace) -> None:
    """Import one file; the shard gets its name when it is whole."""
    scratch = shard.with_name(f".{shard.name}.writing")
    rows: list[dict[str, Any]] = []
    bad: list[dict[str, Any]] = []
    count = 0
    try:
        with scratch.open("wb") as sink:
            with pq.ParquetWriter(sink, schema, compression="none") as writer:
                for number, outcome in enumerate(read_rows(file, schema, args)):
                    if isinstance(outcome, BadRecord):
                        bad.append({"record": number, "reason": str(outcome)})
                        continue
                    rows.append(outcome)
                    count += 1
                    size = sum(len(row["audio"]["bytes"]) for row in rows)
                    if len(rows) == GROUP_ROWS or size >= GROUP_BYTES:
                        writer.write_table(pa.Table.from_pylist(rows, schema))
                        rows = []
                if rows:
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                report = {"source": file, "rows": count, "bad_records": bad}
                writer.add_key_value_metadata({REPORT_KEY: json.dumps(report)})
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(scratch, shard)
    finally:
        scratch.unlink(missing_ok=True)


def read_rows(file: str, schema: pa.Schema, args: argparse.Namespace) -> Iterator[dict[str, Any] | BadRecord]:
    """Yield a row for every record, or why there is none."""
    name = file.rsplit("/", 1)[-1]
    number = 0
    try:
        for number, record in enumerate(read_records(file, args)):
            try:
                yield make_row(f"{name}:{number}", parse_example(record), schema, args)
            except BadRecord as error:
                yield error
    except tf.errors.DataLossError as error:
        yield BadRecord(f"the file is damaged from here on: {_sentence(error)}")


def make_row(
    name: str, features: Mapping[str, Any], schema: pa.Schema, args: argparse.Namespace
) -> dict[str, Any]:
    """Make the row of one record.

    Raises:
        BadRecord: if it has no audio that can be decoded, or a value of another kind than the first records.
    """
    others = [field for field in schema if field.name not in OWN_COLUMNS]
    row = {field.name: scalar(features, field.name, field.type) for field in others}
    if args.id_feature:
        name = scalar(features, args.id_feature, pa.string()) or name
    if args.text_feature:
        row["text"] = scalar(features, args.text_feature, pa.string())
    if args.audio_feature not in features:
        raise BadRecord(f"it has no feature {args.audio_feature!r}")
    kind, values = feature_values(features[args.audio_feature])
    if not values:
        raise BadRecord("its audio is empty")
    if kind == "bytes_list":
        encoded = values[0]
    else:
        rate = args.sampling_rate
        if args.sampling_rate_feature:
            rate = scalar(features, args.sampling_rate_feature, pa.int64())
        encoded = encode_samples(kind, values, rate)
    seconds, suffix = check_audio(encoded)
    path = f"{name.replace('/', '_')}.{suffix}"
    return {**row, "id": name, "audio": {"bytes": encoded, "path": path}, "duration": seconds}


def scalar(features: Mapping[str, Any], name: str, wanted: pa.DataType) -> Any:
    """Return the only value of a feature; None where it is missing or empty."""
    kind, values = feature_values(features[name]) if name in features else (None, [])
    if not values:
        return None
    if wanted == pa.string() and kind == "int64_list" and len(values) == 1:
        return str(values[0])  # names may be numbers
    if TYPES[kind] != wanted or len(values) > 1:
        raise BadRecord(f"its feature {name!r} is not one {wanted} value")
    if kind == "bytes_list":
        if _not_text(values[0]):
            raise BadRecord(f"its feature {name!r} is not UTF-8")
        return values[0].decode()
    return values[0]


def parse_example(record: bytes) -> Mapping[str, Any]:
    """Return the features of a record by name."""
    from google.protobuf.message import DecodeError

    try:
        return tf.train.Example.FromString(record).features.feature
    except DecodeError as error:
        raise BadRecord("it is no tf.train.Example") from error


def feature_values(feature: Any) -> tuple[str | None, Sequence[Any]]:
    """Return which list a feature holds, and its values."""
    kind = feature.WhichOneof("kind")
    return kind, [] if kind is None else getattr(feature, kind).value


def encode_samples(kind: str, values: Sequence[Any], rate: int | None) -> bytes:
    """Return samples of one channel as FLAC (16 bits) or WAV (floats)."""
    if not rate or rate < 0:
        raise BadRecord("its sampling rate is missing")
    samples = np.asarray(values, np.int64 if kind == "int64_list" else np.float32)
    if kind == "int64_list" and np.abs(samples + 0.5).max() > 32768:
        raise BadRecord("its samples have more than 16 bits")
    if not np.isfinite(samples).all():
        raise BadRecord("its samples are not finite")
    file = io.BytesIO()
    if kind == "int64_list":
        soundfile.write(file, samples.astype(np.int16), rate, format="FLAC", subtype="PCM_16")
    else:
        soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def check_audio(encoded: bytes) -> tuple[float, str]:
    """Decode a recording to the end, with tensorflow-io where it knows the format.

    Returns:
        Seconds, and a suffix for its name.

    Raises:
        BadRecord: if it cannot be decoded, ends early or holds no samples.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as sound:
            decoded = decode(encoded, sound)
            frames = sound.frames if 0 < sound.frames < UNKNOWN_FRAMES else decoded
            rate, suffix = sound.samplerate, sound.format.lower()
    except soundfile.LibsndfileError as error:
        raise BadRecord(f"its audio cannot be read: {error.error_string.lower().rstrip('.')}") from error
    except tf.errors.OpError as error:
        raise BadRecord(f"its audio cannot be decoded: {_sentence(error)}") from error
    if not decoded:
        raise BadRecord("its audio holds no samples")
    if suffix in ("flac", "wav") and decoded != frames:
        raise BadRecord(f"its audio ends early: {decoded} of {frames} samples")
    return frames / rate, suffix


def decode(encoded: bytes, sound: "soundfile.SoundFile") -> int:
    """Return how many samples of a channel there are; ``sound`` tells the format."""
    if sound.format in ("FLAC", "WAV") and sound.subtype in WIDTHS:
        decoder = tfio.audio.decode_flac if sound.format == "FLAC" else tfio.audio.decode_wav
        return int(decoder(encoded, dtype=WIDTHS[sound.subtype]).shape[0])
    if sound.format == "MP3":
        return int(tfio.audio.decode_mp3(encoded).shape[0])
    if (sound.format, sound.subtype) == ("OGG", "VORBIS"):
        return int(tfio.audio.decode_vorbis(encoded).shape[0])
    # Opus, A-law and other kinds that tensorflow-io has no decoder for.
    return sum(len(block) for block in sound.blocks(1 << 18))


def read_report(shard: Path) -> dict[str, Any]:
    """Return what became of the records of a shard's file."""
    return json.loads(pq.read_metadata(shard).metadata[REPORT_KEY])


def summarize(shards: Sequence[Path], folder: Path) -> None:
    """Print and write the totals of all shards, those of earlier runs too."""
    reports = [read_report(shard) for shard in shards]
    seconds = sum(sum(pq.read_table(shard, columns=["duration"])["duration"].to_pylist()) for shard in shards)
    bad = [{"source": report["source"], **record} for report in reports for record in report["bad_records"]]
    totals = {
        "files": len(reports),
        "rows": sum(report["rows"] for report in reports),
        "hours": seconds / 3600,
        "bad_records": bad,
    }
    (folder / REPORT).write_text(json.dumps(totals, indent=2, ensure_ascii=False) + "\n")
    print(f"{totals['rows']} rows, {totals['hours']:.2f} hours in {len(shards)} shards of {folder}")
    if bad:
        kinds = Counter(record["reason"].split(":")[0] for record in bad).most_common()
        print(f"{len(bad)} records left out: " + ", ".join(f"{count} × {kind}" for kind, count in kinds))
        for record in bad[:20]:
            print(f"  {record['source']}, record {record['record']}: {record['reason']}")
        if len(bad) > 20:
            print(f"  and {len(bad) - 20} more, in {REPORT}")


def _not_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return True
    return False


def _sentence(error: "tf.errors.OpError") -> str:
    """Return the message without the name of TensorFlow's operation."""
    message = " ".join((error.message or type(error).__name__).split())
    return message.split("}} ")[-1].split(" [Op:")[0].rstrip(".")


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # not sys.exit: tensorflow-io's plugins may crash while they are unloaded
