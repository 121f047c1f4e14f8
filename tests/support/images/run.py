"""Builds every image of dockerfiles/ on a bare Debian, checks each in a chroot, and prints a table.

python -m images.run (as root; `make images`). Exit code 1 when a check failed, 2 when something is missing here.
"""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from deployment import ROOT

from branchy.errors import BranchyError
from branchy.reports.text import text_table
from images import checks
from images.building import Image, built, check_machine, make_base, pip_flags, run

BUNDLE = "saved_models/images-check"
"""Where the bundle lies that goes into the images: it must be among what an image may be made of."""

EVERY: dict[str, checks.Check] = {
    "version": checks.says_its_version,
    "entry point": checks.has_its_entry_point,
    "user": checks.user_may_write_nothing,
    "read-only": checks.file_system_is_read_only,
    "labels": checks.has_labels,
}
SERVING: dict[str, checks.Check] = EVERY | {
    "bundle": checks.knows_its_bundle,
    "no TensorFlow": checks.has_no_tensorflow,
}


@dataclass
class Result:
    """An image's line of the table: by check, what is wrong, None when nothing is."""

    image: Image
    found: dict[str, str | None] = field(default_factory=dict)

    def check(self, wanted: Mapping[str, checks.Check]) -> None:
        """Run these, and keep what they say."""
        self.found |= {name: check(self.image) for name, check in wanted.items()}


def main() -> int:
    """Build, check, print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    results: list[Result] = []
    try:
        check_machine()
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="branchy-images-")))
            stack.callback(shutil.rmtree, ROOT / BUNDLE, ignore_errors=True)
            build_and_check(results, folder, stack)
    except BranchyError as error:
        print(table(results), file=sys.stderr)
        print(f"make images: {error}", file=sys.stderr)
        return error.exit_code
    print(table(results))
    wrong = [f"{each.image.name}: {name}: {why}" for each in results for name, why in each.found.items() if why]
    print("\n".join(wrong or [f"{len(results)} images, all checks met"]))
    return 1 if wrong else 0


def build_and_check(results: list[Result], folder: Path, stack: ExitStack) -> None:
    """Training's image first: it trains the bundle that the others are made of, and a device in it asks them."""

    def build(name: str, bundle: str | None = None) -> Result:
        logging.info("building %s", name)
        results.append(Result(stack.enter_context(built(name, pip, bundle))))
        return results[-1]

    logging.info("making the base")
    make_base()
    pip = pip_flags(run(sys.executable, "-m", "pip", "config", "list"), folder)
    scratch = folder / "scratch"
    scratch.mkdir()
    train = build("train")
    shutil.chown(scratch, *(int(each) for each in train.image.config["User"].split(":")))
    train.check(EVERY | {"trains": checks.trains(scratch)})
    if train.found["trains"]:
        return
    shutil.copytree(scratch / "digits", ROOT / BUNDLE, dirs_exist_ok=True)
    edge, cloud, whole = (build(name, BUNDLE) for name in ("edge", "cloud", "all-in-one"))
    for each in (edge, cloud, whole):
        each.check(SERVING)
    edge.check({"size": checks.is_small})
    edge.found["answers"] = cloud.found["answers"] = checks.answer((cloud.image, edge.image), train.image, scratch)
    whole.found["answers"] = checks.answer((whole.image,), train.image, scratch)


def table(results: list[Result]) -> str:
    """A line an image."""
    rows = [
        (
            each.image.name,
            f"{each.image.over_base_bytes / 1e6:,.0f} MB",
            f"{each.image.build_s:.0f} s",
            ", ".join(name if why is None else f"{name} FAILED" for name, why in each.found.items()),
        )
        for each in results
    ]
    return text_table(("image", "over base", "build", "checks"), rows, left=4)


if __name__ == "__main__":
    sys.exit(main())
