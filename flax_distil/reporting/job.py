"""``report``: read what a run has written, and make a page of it."""

from flax_distil.core.console import show
from flax_distil.core.errors import InputError
from flax_distil.reporting.config import ReportConfig
from flax_distil.reporting.page import run_page
from flax_distil.reporting.run_data import read_run
from flax_distil.storage.output_dir import make_folder
from flax_distil.storage.paths import AnyPath, write_whole


def run(config: ReportConfig) -> AnyPath:
    """Write the page, and return where it is.

    Raises:
        InputError: If the folder holds no training run, or the page cannot be written.
    """
    page, target = run_page(read_run(config.folder)), config.target
    make_folder(target.parent)
    try:
        write_whole(target, page)
    except OSError as error:
        raise InputError(f"output {str(target)!r} cannot be written ({error.strerror})") from error
    show(str(target))
    return target
