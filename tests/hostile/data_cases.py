"""Data files that are missing half of it, fail, or return what cannot be trained on."""

from __future__ import annotations

from case import CHECK, DATA, SWEEP, Case, net, trained

LOOP = "while True:\n        yield torch.randn(batch_size, 6, generator=generator)"
ROW = "torch.randn(batch_size, 6, generator=generator)"
RETURN = "return (model(x) - x[:, :3]).square().mean()"

FAULTS = {
    "batches returns nothing": (
        LOOP,
        "return None",
        1,
        "The data fails in batches(SIZE, 0): TypeError: 'NoneType' object is not iterable.",
    ),
    "batches returns a number": (
        LOOP,
        "return 3",
        1,
        "The data fails in batches(SIZE, 0): TypeError: 'int' object is not iterable.",
    ),
    "batches is empty": (
        LOOP,
        "return []",
        1,
        "The data has no batch. Give batches(SIZE, 0) at least one.",
    ),
    "batches takes one argument": (
        "(batch_size, seed)",
        "(batch_size)",
        1,
        "The data fails in batches(SIZE, 0): TypeError: batches() takes 1 positional argument "
        "but 2 were given.",
    ),
    "batches raises": (
        LOOP,
        "raise OSError(2, 'No such file', 'corpus.bin')",
        1,
        "The data fails in batches(SIZE, 0): FileNotFoundError: [Errno 2] No such file: "
        "'corpus.bin'. (data.py:7)",
    ),
    "batches raises later": (
        "while True:",
        "while seed > 99:",
        1,
        "The data has no batch. Give batches(SIZE, 0) at least one.",
    ),
    "batches exits": (
        LOOP,
        "raise SystemExit(3)",
        1,
        "The model calls sys.exit(3) when it is built or run. (data.py:7) Raise an exception "
        "there instead.",
    ),
    "batches is interrupted": (
        LOOP,
        "raise KeyboardInterrupt",
        130,
        "interrupted.",
    ),
    "batches yields text": (
        ROW,
        "'text'",
        1,
        "The loss of a batch cannot be computed: TypeError: linear(): argument 'input' "
        "(position 1) must be Tensor, not str. (net.py:12)",
    ),
    "batches yields nothing": (
        ROW,
        "None",
        1,
        "The loss of a batch cannot be computed: TypeError: linear(): argument 'input' "
        "(position 1) must be Tensor, not NoneType. (net.py:12)",
    ),
    "batches of another size": (
        "batch_size, 6,",
        "batch_size, 5,",
        1,
        "The loss of a batch cannot be computed: RuntimeError: mat1 and mat2 shapes cannot be "
        "multiplied (SIZEx5 and 6x16). (net.py:12)",
    ),
    "batches of halves": (
        "generator=generator)\n",
        "generator=generator).bfloat16()\n",
        1,
        "The loss of a batch cannot be computed: RuntimeError: mat1 and mat2 must have the "
        "same dtype, but got BFloat16 and Float. (net.py:12)",
    ),
    "loss raises": (
        RETURN,
        "raise RuntimeError('bad\\nworse')",
        1,
        "The loss of a batch cannot be computed: RuntimeError: bad. (data.py:12)",
    ),
    "loss raises an escape": (
        RETURN,
        "raise RuntimeError('\\x1b[2Jgone')",
        1,
        "The loss of a batch cannot be computed: RuntimeError: \\x1b[2Jgone. (data.py:12)",
    ),
    "loss exits": (
        RETURN,
        "raise SystemExit(2)",
        1,
        "The model calls sys.exit(2) when it is built or run. (data.py:12) Raise an exception "
        "there instead.",
    ),
    "loss is interrupted": (
        RETURN,
        "raise KeyboardInterrupt",
        130,
        "interrupted.",
    ),
    "loss returns nothing": (
        RETURN,
        "model(x)",
        1,
        "The loss is a NoneType. Return a scalar tensor of real numbers.",
    ),
    "loss is a float": (
        ".mean()",
        ".mean().item()",
        1,
        "The loss is a float. Return a scalar tensor of real numbers.",
    ),
    "loss is a vector": (
        ".mean()",
        "",
        1,
        "The loss is a tensor (SIZE, 3) of torch.float32. Return a scalar tensor of real numbers.",
    ),
    "loss is detached": (
        ".mean()",
        ".mean().detach()",
        1,
        "The loss does not depend on the weights, so nothing can be trained. Leave out "
        "detach(), item() and no_grad().",
    ),
    "loss is complex": (
        ".mean()",
        ".mean() * 1j",
        1,
        "The loss is a tensor () of torch.complex64. Return a scalar tensor of real numbers.",
    ),
    "loss is an integer": (
        ".mean()",
        ".mean().long()",
        1,
        "The loss is a tensor () of torch.int64. Return a scalar tensor of real numbers.",
    ),
    "loss takes one argument": (
        "(model, x)",
        "(x)",
        1,
        "The loss of a batch cannot be computed: TypeError: loss() takes 1 positional argument "
        "but 2 were given.",
    ),
    "backward raises": (
        RETURN,
        "loss = model(x).mean()\n    if loss.requires_grad:\n"
        "        loss.register_hook(lambda grad: 1 / 0)\n    return loss",
        1,
        "A training step fails: ZeroDivisionError: division by zero. (data.py:14)",
    ),
}
"""A text of the data file, what stands there in its place, the status, and what is said, to check
and to sweep, of batches of SIZE."""
CHECKED = {
    "loss is not a number": (
        ".mean()",
        ".mean() * float('nan')",
        1,
        "At width=16 the loss is nan after a few steps: there is no slope to judge. Check with "
        "a smaller learning rate.",
    ),
    "loss is infinite": (
        ".mean()",
        ".mean() / 0",
        1,
        "At width=16 the loss is nan after a few steps: there is no slope to judge. Check with "
        "a smaller learning rate.",
    ),
    "loss calls no model": (
        "model(x)",
        "x[:, :3].requires_grad_()",
        1,
        "The loss does not call the model. Let loss(model, batch) do so.",
    ),
}
"""The same, to check alone: a sweep takes a loss that is not finite for a run that diverged."""
FILES: dict[str, tuple[str | bytes, str]] = {
    "is empty": (
        "",
        "data.py does not define batches(batch_size, seed) and loss(model, batch). Define "
        "both, at the top level of the file.",
    ),
    "is no Python": (
        "def batches(:\n",
        "data.py: syntax error: invalid syntax. (data.py:1)",
    ),
    "is binary": (
        b"\x80\x00\xff",
        "data.py is no text: it has null bytes. Pass a Python file, such as model.py or "
        "model.py:ClassName.",
    ),
    "raises": (
        "1/0\n",
        "data.py cannot be imported: ZeroDivisionError: division by zero. (data.py:1)",
    ),
    "exits": (
        "raise SystemExit(3)\n",
        "data.py exits when it is imported (SystemExit: 3). (data.py:1) Put what it runs under "
        '`if __name__ == "__main__":`.',
    ),
    "imports what is not there": (
        "import nopenope\n",
        "data.py cannot be imported: ModuleNotFoundError: No module named 'nopenope'. "
        "(data.py:1) Install nopenope, or put its folder on PYTHONPATH.",
    ),
    "has no loss": (
        DATA.replace("def loss", "def lose"),
        "data.py does not define batches(batch_size, seed) and loss(model, batch). Define "
        "both, at the top level of the file.",
    ),
    "has no functions": (
        "batches = [1]\nloss = 3\n",
        "data.py does not define batches(batch_size, seed) and loss(model, batch). Define "
        "both, at the top level of the file.",
    ),
}

CASES = [
    *(
        Case(
            f"data of {command.split()[0]}: {name}",
            command,
            status,
            f"automup: {says.replace('SIZE', size)}",
            trained(old, new),
        )
        for command, size, table in (
            (f"{CHECK} --data data.py", "16", {**FAULTS, **CHECKED}),
            (SWEEP, "4", FAULTS),
        )
        for name, (old, new, status, says) in table.items()
    ),
    *(
        Case(f"data file {name}", SWEEP, 2, f"automup: {says}", {**net(), "data.py": text})
        for name, (text, says) in FILES.items()
    ),
]
