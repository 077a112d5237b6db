"""c2r: collaboration-constrained routing, placement and expert parallelism of Mixture-of-Experts models."""


def traffic() -> list:
    """Rows and bytes that this process has sent, see c2r.torch.traffic(). Needs PyTorch."""
    from c2r.torch import traffic as traffic_of_torch

    return traffic_of_torch()
