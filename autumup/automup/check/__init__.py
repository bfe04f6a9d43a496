"""The coordinate check: does training move every activation alike at all widths, and if not, why.

Two witnesses, independent of each other:

- *training*: a few steps at several widths; how the movement of each activation grows with width
  (:mod:`automup.check.training`, :mod:`automup.check.fit`);
- *audit*: what the optimizer's groups, the initial weights and the constants in the code say, each
  compared with the table of muP (:mod:`automup.check.audit`). It sees what a few steps cannot, such
  as the decay, and it is exact.

:mod:`automup.check.verdict` puts the two together, in the order of the dataflow.
"""

from __future__ import annotations

from automup.check.result import Check, Finding, Fit, Place, Reading

__all__ = ["Check", "Finding", "Fit", "Place", "Reading"]
