"""Capture: run a model on the meta device and record what it did.

What is captured: ``load`` imports the model's file, ``choose`` takes its class, ``fields`` are what
can be set when it is built, ``knobs`` finds those that are width, ``widths`` builds it at others,
``inputs`` finds example inputs (of ``recipes``, or ``given_inputs``), ``values`` reads text.

How: ``meta`` runs code without allocating weights (``reads`` answers for the values that it reads,
``results`` remembers what was computed, ``tensors`` knows what operations read and write), ``real``
runs it where that will not do, ``init_laws`` records how the constructor draws
them and ``laws`` makes formulas of that, ``recorder`` writes the operations down as a
``graph`` of values, ``source`` says where they stand, ``trace`` puts these together, ``runs`` keeps
what each way to run the model does and ``variants`` chooses those by which its branches are seen,
``raised`` words what the user's code raised.
"""
