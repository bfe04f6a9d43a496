"""The transfer sweep: loss against learning rate and width, in SP and in muP.

``settings`` says what is run, ``trial`` runs it once, ``claims`` shares the runs among processes,
``tune`` tunes constants, ``run`` is the whole; ``fit`` finds the optima, ``results`` holds them,
``table`` and ``plots`` show them, ``transfer`` carries them to another width.
"""
