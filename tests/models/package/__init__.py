"""A model in a package: it imports its parts relatively."""

from .model import Regressor

__all__ = ["Regressor"]
