"""Analysis: from two aligned traces to roles, fans and sites.

``dataflow`` aligns the traces, ``views`` follows a weight's dimensions, ``ops`` holds one small
rule per operation, ``flow`` walks the graph with them, ``weights`` sums up every weight's uses,
``sites`` says where a multiplier is missing.
"""
