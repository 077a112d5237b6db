"""c2r: collaboration-constrained routing, placement and expert parallelism of Mixture-of-Experts models.

The functions here are the C++ library's, on NumPy arrays: routing traces, collaboration statistics, routing,
placement plans and what they save. ``c2r.torch`` has the parts of a model for PyTorch, ``c2r.hf`` those for
Hugging Face models; neither is imported from here.

Arrays go in and out without copies. An array of another type or layout than a function states is refused with
a TypeError and never converted silently. What a caller got wrong is a ValueError, what a file got wrong an
OSError, with the words of the C++ library.
"""

import importlib.util as _importlib_util

__version__ = "0.1.0"

if _importlib_util.find_spec("c2r._c2r") is not None:
    from c2r._numpy import *
else:  # a source tree, in which c2r.torch and c2r.hf work without the extension module

    def __getattr__(name: str) -> object:
        raise AttributeError(f"c2r.{name} needs the extension module, which is not built here: pip install .")


def traffic() -> list:
    """Rows and bytes that this process has sent in c2r.torch and c2r.hf. Needs PyTorch.

    Returns:
      A list of c2r.torch.Sent, one for each layer, step and peer, as c2r.torch.traffic() gives it.
    """
    from c2r.torch import traffic as traffic_of_torch

    return traffic_of_torch()
