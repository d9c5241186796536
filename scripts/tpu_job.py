"""Run a command on a Cloud TPU that may be taken away, until the command is done; then delete the TPU.

    python scripts/tpu_job.py --name student --accelerator_type v4-8 --zones us-central2-b --spot \\
        --install . --secret HF_TOKEN -- flax-distil distil --resume_from_checkpoint auto ...

It needs Python 3.11 and gcloud on this machine, nothing else. Everything up to ``--`` is for this script, the
rest is run on all workers of the TPU. An exit status of 75 means: stopped, all is saved, the same command
goes on. It is then started again in place, and on a new TPU where this one was taken away. Any other status
ends the script with that status. docs/trc.md tells the whole way.
"""

import argparse
import os
import re
import shutil
import signal
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tpu_supervisor.gcloud import DryRun, Gcloud, Log
from tpu_supervisor.job import Job
from tpu_supervisor.machine import RUNTIMES, Machine, NotDeletedError, Slice, family_of
from tpu_supervisor.package import Command, install_script
from tpu_supervisor.supervisor import Limits, StopError, Supervisor

HUB_TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}")


class SignalError(KeyboardInterrupt):
    """A signal asked this script to end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of what stands before ``--``."""
    parser = argparse.ArgumentParser(
        prog="tpu_job.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tpu = parser.add_argument_group("TPU")
    tpu.add_argument("--name", required=True, help="Name of the TPU: small letters, digits and hyphens.")
    tpu.add_argument("--accelerator_type", required=True, help="v4-8, v5litepod-8, v5p-8, v6e-8 or larger.")
    tpu.add_argument("--zones", required=True, nargs="+", help="Zones in order of preference.")
    tpu.add_argument("--runtime_version", help="Image of the machine; by default the one for the type.")
    tpu.add_argument("--project", help="Google Cloud project; by default that of gcloud's configuration.")
    tpu.add_argument("--spot", action="store_true", help="A machine that may be taken away, and costs less.")
    tpu.add_argument("--queued", action="store_true", help="Wait in Google's queue (queued resources).")
    tpu.add_argument(
        "--queue_minutes", type=float, default=120,
        help="With several zones, how long a queued request waits in one before the next is tried.",
    )  # fmt: skip
    tpu.add_argument("--network", help="Network of the machine; by default the project's default.")
    tpu.add_argument("--subnetwork", help="Subnetwork of the machine.")
    tpu.add_argument("--service_account", help="Service account that the machine acts as.")
    tpu.add_argument(
        "--scopes", default="https://www.googleapis.com/auth/cloud-platform",
        help="What the service account may do; by default all that its roles allow.",
    )  # fmt: skip
    tpu.add_argument(
        "--create_flag",
        action="append",
        default=[],
        help="Another flag of gcloud's create command, as --labels=a=b.",
    )
    tpu.add_argument(
        "--reuse", action="store_true", help="Go on with a TPU of that name, and the command on it."
    )
    tpu.add_argument("--keep", action="store_true", help="Do not delete the TPU at the end.")
    add_job_flags(parser)
    return parser


def add_job_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command and of this script's patience."""
    job = parser.add_argument_group("command")
    job.add_argument(
        "--install", default="", metavar="PACKAGE",
        help="Folder of a git checkout, wheel, git+https:// address or requirement; by default nothing.",
    )  # fmt: skip
    job.add_argument("--extras", default="tpu,gcs", help="Extras to install. (default: tpu,gcs)")
    job.add_argument("--python", default="3.12", help="Python to install it for. (default: 3.12)")
    job.add_argument("--setup", action="append", default=[], help="Shell command before the installation.")
    job.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="Environment variable.")
    job.add_argument(
        "--secret", action="append", default=[], metavar="NAME",
        help="Variable of this shell that the command needs and nobody else may see, as HF_TOKEN.",
    )  # fmt: skip
    job.add_argument(
        "--all_logs", action="store_true", help="Follow the logs of all workers, not of the first."
    )
    job.add_argument("--log_file", help="File that the log is appended to; by default NAME.log.")
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max_restarts", type=int, default=50, help="Restarts before it gives up. (default: 50)"
    )
    limits.add_argument(
        "--max_hours",
        type=float,
        default=0,
        help="Hours, waiting included, before it gives up; no limit if 0.",
    )
    limits.add_argument(
        "--retry_seconds",
        type=float,
        default=60,
        help="First pause where no zone has a TPU; doubles. (default: 60)",
    )
    limits.add_argument(
        "--poll_seconds",
        type=float,
        default=60,
        help="How long one connection follows the log. (default: 60)",
    )
    limits.add_argument(
        "--lost_minutes",
        type=float,
        default=10,
        help="Silence after which a TPU counts as lost. (default: 10)",
    )
    parser.add_argument("--dry_run", action="store_true", help="Print every command, in order, and run none.")


def read_command(args: argparse.Namespace, words: list[str]) -> Command:
    """Return what is to be run.

    Raises:
        ValueError: A variable is missing or malformed, or a secret stands in the open.
    """
    missing = [name for name in args.secret if not os.environ.get(name)]
    if missing:
        raise ValueError(
            f"--secret {missing[0]}: this shell has no environment variable of that name: export it first"
        )
    secrets = {name: os.environ[name] for name in args.secret}
    for word in (*words, *args.env, *args.setup, *args.create_flag, args.install):
        if HUB_TOKEN.search(word) or any(value in word for value in secrets.values()):
            raise ValueError(
                "a token stands on the command line, where others can read it: use --secret NAME instead"
            )
    for pair in args.env:
        if not re.match(r"[A-Za-z_]\w*=", pair):
            raise ValueError(f"--env {pair}: write NAME=VALUE")
    environment = dict(pair.split("=", 1) for pair in args.env)
    return Command(
        tuple(words), environment, secrets, args.install, args.extras, args.python, tuple(args.setup)
    )


def read_slice(args: argparse.Namespace) -> Slice:
    """Return the TPU to ask for.

    Raises:
        ValueError: Its name or type does not exist.
    """
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", args.name):
        raise ValueError(
            f"--name {args.name}: use up to 40 small letters, digits and hyphens, a letter first"
        )
    runtime = args.runtime_version or RUNTIMES[family_of(args.accelerator_type)]
    options = [
        f"--{name.replace('_', '-')}={getattr(args, name)}"
        for name in ("network", "subnetwork", "service_account", "scopes")
        if getattr(args, name)
    ]
    minutes = args.queue_minutes if len(args.zones) > 1 else 0
    return Slice(
        args.name,
        args.accelerator_type,
        runtime,
        args.spot,
        args.queued,
        minutes,
        (*options, *args.create_flag),
    )


def make_supervisor(args: argparse.Namespace, words: list[str]) -> Supervisor:
    """Return the supervisor of a command.

    Raises:
        ValueError: What was asked for does not exist.
    """
    if not words:
        raise ValueError("no command: write it after --")
    if not args.dry_run and shutil.which("gcloud") is None:
        raise ValueError("gcloud is not installed: see https://cloud.google.com/sdk/docs/install")
    command, wanted = read_command(args, words), read_slice(args)
    install_script(command)  # refuses a package that is not there
    path = None if args.dry_run else Path(args.log_file or f"{args.name}.log")
    log = Log(path, command.secrets)
    gcloud = (DryRun if args.dry_run else Gcloud)(args.project, log)
    limits = Limits(args.max_restarts, args.max_hours, args.retry_seconds)
    machine = Machine(gcloud, wanted, pause=min(15, args.retry_seconds))
    lost = args.lost_minutes * 60
    job = Job(gcloud, machine, command, args.poll_seconds, lost, args.all_logs, limits.check_time)
    return Supervisor(log, machine, job, args.zones, limits)


def leaves_running() -> bool:
    """Ask, where somebody can answer, whether to leave the TPU and its command running."""
    if not sys.stdin.isatty():
        return False
    try:
        answer = input(
            "\nStop the command (it saves) and delete the TPU [Enter], or leave both running [k]? "
        )
    except (EOFError, KeyboardInterrupt):
        return False
    return answer.strip().lower().startswith("k")


def run(supervisor: Supervisor, reuse: bool, keep: bool) -> int:
    """Run a command to its end, delete the TPU, and return the exit status."""
    log, code, stop = supervisor.log, 1, True
    try:
        supervisor.find(reuse)
        supervisor.run()
        code, stop = 0, False
        log.say("the command is done")
    except StopError as error:
        code = error.code
        log.say(str(error))
    except NotDeletedError as error:
        log.say(str(error))
        return 1
    except KeyboardInterrupt as error:
        code = 128 + getattr(error, "number", signal.SIGINT)
        if leaves_running():
            keep, stop = True, False
    except Exception:
        log.say(f"an error of this script: {traceback.format_exc()}")
    return clean_up(supervisor, code, keep, stop)


def clean_up(supervisor: Supervisor, code: int, keep: bool, stop: bool) -> int:
    """Stop the command where it may run, delete the TPU unless it is kept, and return the exit status."""
    log, machine = supervisor.log, supervisor.machine
    if machine.zone is None:
        log.say("no TPU is left behind")
        return code
    try:
        if stop and supervisor.job.starts:
            log.say("stopping the command, which saves")
            supervisor.job.stop()
        if keep:
            log.say(f"the TPU is kept and costs money until you run: {machine.how_to_delete()}")
            return code
        log.say(f"deleting the TPU {machine.wanted.name}")
        machine.delete()
        log.say("the TPU is deleted")
    except NotDeletedError as error:
        log.say(str(error))
        return code or 1
    except KeyboardInterrupt:
        log.say(
            f"left at once: the TPU may still exist and cost money until you run: {machine.how_to_delete()}"
        )
        return 130
    return code


def main(argv: list[str]) -> int:
    """Run the script.

    Returns:
        0 done, 2 wrong input, 75 a limit is reached and the same command goes on, 130 or 143 after a signal,
        1 no TPU could be created or deleted, otherwise the status of the command that failed.
    """
    parser = make_parser()
    at = argv.index("--") if "--" in argv else len(argv)
    args = parser.parse_args(argv[:at])
    try:
        supervisor = make_supervisor(args, argv[at + 1 :])
    except (ValueError, OSError) as error:
        parser.error(str(error))

    def interrupt(number: int, frame: object) -> None:
        raise SignalError(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    return run(supervisor, args.reuse, args.keep)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
