"""Tests; importing the package brings the type checker that pytest is told to use."""

from tests import typecheck as typecheck
