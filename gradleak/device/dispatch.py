"""What sees each operation that PyTorch dispatches."""

from torch.utils._python_dispatch import TorchDispatchMode


class Dispatched(TorchDispatchMode):
    """A mode that starts at once: PyTorch's own imports its compiler first, which takes seconds."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
