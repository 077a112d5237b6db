"""How long work shows how far it is."""

import contextlib
import sys


@contextlib.contextmanager
def shown(progress, description):
    """Yields what the extension module calls with (done, total), or None.

    ``progress`` is False (silence), True (a bar of tqdm where it is installed, else a line on standard error)
    or a callable of two whole numbers.
    """
    if progress is False or progress is None:
        yield None
    elif progress is True:
        with _bar(description) as update:
            yield update
    elif callable(progress):
        yield progress
    else:
        raise TypeError(f"progress is True, False or a callable of (done, total), not {progress!r}")


@contextlib.contextmanager
def _bar(description):
    try:
        from tqdm.auto import tqdm
    except ImportError:
        yield _line(description)
        print(file=sys.stderr)
        return
    with tqdm(desc=description) as bar:

        def update(done, total):
            bar.total = total or None
            bar.update(done - bar.n)

        yield update


def _line(description):
    def update(done, total):
        share = f"{100 * done / total:.0f} %" if total else f"{done}"
        print(f"\r{description}: {share}", end="", file=sys.stderr, flush=True)

    return update
