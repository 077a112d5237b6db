"""How the commands ``python -m c2r...`` end: with a status, and with errors in one line."""

import sys
from collections.abc import Callable


def run_command(
    name: str, extra: str, work: Callable[[], None], errors: tuple[type[Exception], ...] = (OSError, ValueError)
) -> int:
    """Runs a command's work.

    Args:
      name: the command, which begins its messages: "c2r.evaluate".
      extra: the extra of this package that brings what the command imports: "eval".
      work: what the command does.
      errors: what is said in one line instead of a traceback.

    Returns:
      The exit status: 0, or 1 after an error was said on standard error.
    """
    try:
        work()
    except ImportError as error:
        print(f"{name}: {error}; pip install 'c2r[{extra}]' brings what is missing", file=sys.stderr)
        return 1
    except errors as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        print(f"{name}: {lines[0]}", file=sys.stderr)
        return 1
    return 0
