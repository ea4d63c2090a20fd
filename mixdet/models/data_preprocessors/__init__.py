"""What happens to a batch between the data loader and the network."""

from .batched import BatchedDetDataPreprocessor

__all__ = ["BatchedDetDataPreprocessor"]
