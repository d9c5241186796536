"""What a worker needs to run a command: its words and variables, and the package that it comes from."""

import hashlib
import io
import shlex
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = ".tpu_job"
"""Folder in the home of every worker."""


@dataclass(frozen=True)
class Command:
    """What to run on every worker.

    Attributes:
        words: Program and arguments.
        environment: Variables that may be seen.
        secrets: Variables that reach the workers through a file that only the user may read.
        package: What to install: folder of a checkout, wheel, git address, requirement, or "" for nothing.
        extras: Extras of a checkout, wheel or git address.
        python: Version of Python that is installed for it.
        setup: Shell commands that run before the installation.
    """

    words: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    package: str = ""
    extras: str = "tpu,gcs"
    python: str = "3.12"
    setup: tuple[str, ...] = ()


def install_script(command: Command) -> tuple[str, tuple[str, bytes] | None]:
    """Return the shell script that installs a package, and the name and bytes of the archive that it needs.

    Raises:
        ValueError: The package is not there, or is a folder that git does not know.
    """
    archive, spec, steps = None, command.package, []
    path = Path(command.package)
    extras = f"[{command.extras}]" if command.extras else ""
    if command.package and path.is_dir():
        archive = ("checkout.tar.gz", pack_checkout(path))
        steps = ["rm -rf checkout", "mkdir checkout", "tar -xzf checkout.tar.gz -C checkout"]
        spec = f"./checkout{extras}"
    elif path.suffix == ".whl":
        archive, spec = (path.name, path.read_bytes()), f"./{path.name}{extras}"
    elif path.is_absolute() or command.package.startswith("."):
        raise ValueError(f"--install {path}: there is no such folder or wheel")
    elif command.package.startswith("git+"):
        spec = f"flax-distil{extras} @ {command.package}"
    if spec:
        steps += [
            "python3 -m pip install --quiet --user uv",
            f"python3 -m uv venv --quiet --allow-existing --python {shlex.quote(command.python)} venv",
            f"python3 -m uv pip install --quiet --python venv {shlex.quote(spec)}",
        ]
    digest = hashlib.sha256(repr((command.setup, steps, archive)).encode()).hexdigest()[:16]
    lines = ["set -eu", f"cd ~/{FOLDER}", f'[ "$(cat installed 2>/dev/null)" = {digest} ] && exit 0']
    return "\n".join([*lines, *command.setup, *steps, f"echo {digest} > installed", ""]), archive


def pack_checkout(folder: Path) -> bytes:
    """Return a tar.gz of the files of a git checkout as they are now, without those that git ignores.

    Raises:
        ValueError: It is no git checkout.
    """
    listing = subprocess.run(
        ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    names = [name for name in listing.stdout.split("\0") if name and (folder / name).is_file()]
    if listing.returncode or not names:
        raise ValueError(f"--install {folder}: it is no git checkout with files: {listing.stderr.strip()}")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name in sorted(names):
            tar.add(folder / name, arcname=name)
    return data.getvalue()
