"""`swrbatch --help` against `python -c "import typer"`; also with fifty commands, for a group is lazy.

The forty-odd commands that are added point at modules that exist: were they imported, it would show.
"""

from __future__ import annotations

import sys
from functools import partial

from bench import SWRBATCH, Report, options, pairs, ratio_row, run

MOST = 3.0
FIFTY = """
import sys
from swrbatch import cli
more = {f"command-{number}": ("batch", "One more command, as later versions will have them.") for number in range(50)}
cli.COMMANDS = dict([*cli.COMMANDS.items(), *more.items()][:50])
sys.argv = ["swrbatch", "--help"]
cli.main()
"""


def main() -> int:
    given = options(__doc__ or "", rounds=21)
    report = Report("Help, whole process (seconds; less is better)")
    bare = [sys.executable, "-c", "import typer"]
    for what, argv in (("swrbatch --help", [*SWRBATCH, "--help"]), ("the same with 50 commands", [sys.executable, "-c", FIFTY])):
        ours = partial(run, argv, sync=False)
        ours()
        a, b = pairs(lambda ours=ours: ours().wall, lambda: run(bare, sync=False).wall, given.rounds)  # type: ignore[misc]
        report.add(ratio_row(f"{what} against import typer", a, b, MOST, at_most=True))
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
