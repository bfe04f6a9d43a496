"""Capture: run a model on the meta device and record what it did.

``meta`` runs code without allocating weights, ``init_laws`` records how the constructor draws
them, ``recorder`` writes the operations into a ``torch.fx`` graph, ``trace`` puts the three
together, ``inputs`` finds example inputs, ``knobs`` the width knobs, ``load`` the model's class.
"""
