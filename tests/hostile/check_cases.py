"""Calls of check that cannot be meant."""

from __future__ import annotations

from case import CHECK, Case, net

OPTIONS = {
    "--lr 0": (
        2,
        "The learning rate is 0.0. It is a finite number above 0.",
    ),
    "--lr -1": (
        2,
        "The learning rate is -1.0. It is a finite number above 0.",
    ),
    "--lr nan": (
        2,
        "The learning rate is nan. It is a finite number above 0.",
    ),
    "--lr inf": (
        2,
        "The learning rate is inf. It is a finite number above 0.",
    ),
    "--lr 1e400": (
        2,
        "The learning rate is inf. It is a finite number above 0.",
    ),
    "--lr fast": (
        2,
        "Invalid value for '--lr': Input should be a valid number, unable to parse string as a "
        "number. See `automup check --help`.",
    ),
    "--lr": (
        2,
        "Option '--lr' requires an argument. See `automup --help`.",
    ),
    "--widths 1": (
        2,
        "The widths 1 are no multiples to compare. Pass two or more, as 1,2,4,8.",
    ),
    "--widths 0,1": (
        2,
        "The widths 0,1 are no multiples to compare. Pass two or more, as 1,2,4,8.",
    ),
    "--widths -1,2": (
        2,
        "The widths -1,2 are no multiples to compare. Pass two or more, as 1,2,4,8.",
    ),
    "--widths nan,1": (
        2,
        "The widths nan,1 are no multiples to compare. Pass two or more, as 1,2,4,8.",
    ),
    "--widths inf,1": (
        2,
        "The widths inf,1 are no multiples to compare. Pass two or more, as 1,2,4,8.",
    ),
    "--widths 1,1": (
        2,
        "The widths 1,1 are no multiples to compare. Pass two or more, as 1,2,4,8.",
    ),
    "--widths ,": (
        2,
        "The widths (none) are no multiples to compare. Pass two or more, as 1,2,4,8.",
    ),
    "--widths a": (
        2,
        "--widths 'a' is no list of numbers. Pass two or more, as 1,2,4,8.",
    ),
    "--widths 1;2": (
        2,
        "--widths '1;2' is no list of numbers. Pass two or more, as 1,2,4,8.",
    ),
    "--widths 1,1.03": (
        1,
        "16 × 1.03 is not a whole number. Choose another base.",
    ),
    "--widths 1,1e30": (
        1,
        "Net(width=16000000000000000318153997418496) cannot be built: TypeError: empty(): "
        "argument 'size' failed to unpack the object at pos 1 with error \"Overflow when "
        "unpacking long long. (net.py:8) Choose other values with --base NAME=VALUE.",
    ),
    "--seeds 0": (
        2,
        "Invalid value for '--seeds': Input should be greater than or equal to 1. See `automup "
        "check --help`.",
    ),
    "--seeds -1": (
        2,
        "Invalid value for '--seeds': Input should be greater than or equal to 1. See `automup "
        "check --help`.",
    ),
    "--seeds x": (
        2,
        "Invalid value for '--seeds': Input should be a valid integer, unable to parse string "
        "as an integer. See `automup check --help`.",
    ),
    "--steps 0": (
        2,
        "Invalid value for '--steps': Input should be greater than or equal to 1. See `automup "
        "check --help`.",
    ),
    "--steps 1.5": (
        2,
        "Invalid value for '--steps': Input should be a valid integer, unable to parse string "
        "as an integer. See `automup check --help`.",
    ),
    "--format html": (
        2,
        "No format 'html'. Choose one of table, json.",
    ),
    "--optimizer nope": (
        2,
        "There is no optimizer 'nope'. Known: [...].",
    ),
    "--optimizer shampoo": (
        2,
        "There is no optimizer 'shampoo'. Known: [...].",
    ),
    "--optimizer lion": (
        2,
        "This torch has no lion. It has [...].",
    ),
    "--optimizer muon": (
        2,
        "The model has no hidden matrix that this optimizer could take. Use torch.optim.AdamW.",
    ),
    "--plot check.pdf": (
        2,
        "check.pdf is neither .png nor .svg. Name one of them.",
    ),
    "--plot check": (
        2,
        "check is neither .png nor .svg. Name one of them.",
    ),
    "--plot .": (
        2,
        ". is a folder. Name a file in it.",
    ),
    "--plot no/check.png": (
        2,
        "Cannot write there: no such folder. (no) Make it, or write somewhere else.",
    ),
    "--plot net.py/x.png": (
        2,
        "Cannot write there: no such folder. (net.py) Make it, or write somewhere else.",
    ),
    "--html net.py": (
        2,
        "net.py is no .html. Name the page so.",
    ),
    "--html .": (
        2,
        ". is a folder. Name a file in it.",
    ),
    "--html no/check.html": (
        2,
        "Cannot write there: no such folder. (no) Make it, or write somewhere else.",
    ),
    "--data nope": (
        2,
        "There is no data 'nope'. Pass text:PATH (a file or a folder), digits, or a Python "
        "file with batches and loss.",
    ),
    "--data text:": (
        2,
        "There is no data 'text:'. Pass text:PATH (a file or a folder), digits, or a Python "
        "file with batches and loss.",
    ),
    "--data text:nope": (
        2,
        "nope: no such file or folder. Pass --data text:PATH.",
    ),
    "--data text:net.py": (
        2,
        "The model's first input is torch.float32 (2, 6), and text needs integers (batch, "
        "time). Pass other data: text:PATH (a file or a folder), digits, or a Python file with "
        "batches and loss; or another example with --input.",
    ),
    "--data digits": (
        2,
        "The model tells 3 classes apart, digits has 10. Write a Python file with "
        "batches(batch_size, seed) and loss(model, batch): --data file.py.",
    ),
    "--data nope.py": (
        2,
        "nope.py: no such file. Pass a Python file, such as model.py or model.py:ClassName.",
    ),
    "--data net.py": (
        2,
        "net.py does not define batches(batch_size, seed) and loss(model, batch). Define both, "
        "at the top level of the file.",
    ),
    "--base =3": (
        2,
        "'=3' is not NAME=VALUE. Write n_embd=256.",
    ),
    "--base nope=3": (
        2,
        "Net has no field 'nope'. (net.py) It has width, features.",
    ),
    "--base width=0": (
        2,
        "A width cannot be width=0: it is a positive number. Pass width=256, or so.",
    ),
    "--width nope": (
        2,
        "Net has no field 'nope'. (net.py) It has width, features.",
    ),
    "--target width=3": (
        2,
        "No such option: --target [...] See `automup check --help`.",
    ),
    "--override stem": (
        2,
        "'stem' is not PATTERN=ROLE. Write --override 'blocks.*.w=hidden'.",
    ),
    "--input x:float32[-1,6]": (
        2,
        "--input 'x:float32[-1,6]' is not NAME:DTYPE[SIZES]. Write 'idx:int64[2,16]<96' or "
        "'x:float32[2,3,32,32]'.",
    ),
    "--timeout 0": (
        2,
        "--timeout cannot be 0. Pass a positive number.",
    ),
    "--memory -1": (
        2,
        "--memory cannot be -1. Pass a positive number.",
    ),
    "--memory inf": (
        2,
        "--memory cannot be inf. Pass a positive number.",
    ),
    "--nope": (
        2,
        "No such option: --nope [...] See `automup check --help`.",
    ),
    "extra": (
        2,
        "Got unexpected extra argument(s) (extra). See `automup check --help`.",
    ),
}

"""What is added to a call that is right: its status, and what it says."""
MODELS = {
    "": (
        2,
        "Missing argument 'MODEL'. See `automup check --help`.",
    ),
    "nope.py": (
        2,
        "nope.py: no such file. Pass a Python file, such as model.py or model.py:ClassName.",
    ),
    ".": (
        2,
        ". is a folder. Pass a Python file, such as model.py or model.py:ClassName.",
    ),
    "nope:Net": (
        2,
        "nope cannot be imported: ModuleNotFoundError: No module named 'nope'. Install nope, "
        "or put its folder on PYTHONPATH.",
    ),
    "net.py:Nope": (
        2,
        "net.py has no 'Nope'. (net.py) It has Net.",
    ),
}

CASES = [
    *(
        Case(f"check {options}", f"{CHECK} {options}", status, f"automup: {says}", net())
        for options, (status, says) in OPTIONS.items()
    ),
    *(
        Case(f"check of {model}", f"check {model}".strip(), status, f"automup: {says}", net())
        for model, (status, says) in MODELS.items()
    ),
]
