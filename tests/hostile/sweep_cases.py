"""Calls of sweep that cannot be meant, and storages that are something else."""

from __future__ import annotations

from case import SWEEP, Case, trained

OPTIONS = {
    "--lr 0": (
        2,
        "lr cannot be 0. Give at least one number, all from 1e-12 to 1e+12.",
    ),
    "--lr -1": (
        2,
        "lr cannot be -1. Give at least one number, all from 1e-12 to 1e+12.",
    ),
    "--lr nan": (
        2,
        "lr cannot be nan. Give at least one number, all from 1e-12 to 1e+12.",
    ),
    "--lr inf": (
        2,
        "lr cannot be inf. Give at least one number, all from 1e-12 to 1e+12.",
    ),
    "--lr 2^nan:2^-3": (
        2,
        "--lr '2^nan:2^-3' is no grid. Write 2^-12:2^-3, low to high.",
    ),
    "--lr 1:2:0": (
        2,
        "--lr '1:2:0' is no grid. Write 2^-12:2^-3, low to high.",
    ),
    "--lr 1:2:-1": (
        2,
        "--lr '1:2:-1' is no grid. Write 2^-12:2^-3, low to high.",
    ),
    "--lr 1:2:nan": (
        2,
        "--lr '1:2:nan' is no grid. Write 2^-12:2^-3, low to high.",
    ),
    "--lr 2^-1:2^-4": (
        2,
        "--lr '2^-1:2^-4' is no grid. Write 2^-12:2^-3, low to high.",
    ),
    "--lr 1e-3,,": (
        2,
        "--lr: '' is not a number. Write 0.001 or 2^-10.",
    ),
    "--lr 0:1": (
        2,
        "--lr '0:1' is no grid. Write 2^-12:2^-3, low to high.",
    ),
    "--lr 1:inf": (
        2,
        "--lr '1:inf' is no grid. Write 2^-12:2^-3, low to high.",
    ),
    "--lr -2^0.5": (
        2,
        "--lr: '-2^0.5' is not a number. Write 0.001 or 2^-10.",
    ),
    "--lr 0^-1": (
        2,
        "--lr: '0^-1' is not a number. Write 0.001 or 2^-10.",
    ),
    "--lr 1e-3;2": (
        2,
        "--lr: '1e-3;2' is not a number. Write 0.001 or 2^-10.",
    ),
    "--lr 1:2:3:4": (
        2,
        "--lr '1:2:3:4' is no grid. Write 2^-12:2^-3, low to high.",
    ),
    "--lr 2^1e9": (
        2,
        "--lr: '2^1e9' is not a number. Write 0.001 or 2^-10.",
    ),
    "--lr 2^-8:2^-7:1e-9": (
        2,
        "--lr '2^-8:2^-7:1e-9' has too many values. Write 2^-12:2^-3, or so.",
    ),
    "--lr 5e-324": (
        2,
        "lr cannot be 4.94066e-324. Give at least one number, all from 1e-12 to 1e+12.",
    ),
    "--widths 0": (
        2,
        "widths cannot be 0. Give at least one number, all from 1e-12 to 1e+12.",
    ),
    "--widths -1": (
        2,
        "widths cannot be -1. Give at least one number, all from 1e-12 to 1e+12.",
    ),
    "--widths nan": (
        2,
        "widths cannot be nan. Give at least one number, all from 1e-12 to 1e+12.",
    ),
    "--widths inf": (
        2,
        "widths cannot be inf. Give at least one number, all from 1e-12 to 1e+12.",
    ),
    "--widths 1,x": (
        2,
        "--widths: 'x' is not a number. Write 0.001 or 2^-10.",
    ),
    "--widths 1,1.03": (
        1,
        "16 × 1.03 is not a whole number. Choose another base.",
    ),
    "--widths 1e30": (
        2,
        "widths cannot be 1e+30. Give at least one number, all from 1e-12 to 1e+12.",
    ),
    "--widths 1:2": (
        2,
        "--widths: '1:2' is not a number. Write 0.001 or 2^-10.",
    ),
    "--seeds 0": (
        2,
        "seeds is 0. It is at least 1.",
    ),
    "--seeds -1": (
        2,
        "seeds is -1. It is at least 1.",
    ),
    "--seeds x": (
        2,
        "Invalid value for '--seeds': Input should be a valid integer, unable to parse string "
        "as an integer. See `automup sweep --help`.",
    ),
    "--steps 0": (
        2,
        "steps is 0. It is at least 1.",
    ),
    "--batch 0": (
        2,
        "batch_size is 0. It is at least 1.",
    ),
    "--batch -3": (
        2,
        "batch_size is -3. It is at least 1.",
    ),
    "--last 0": (
        2,
        "last is 0.0. It is a fraction: 0.5 is the last half.",
    ),
    "--last 1.5": (
        2,
        "last is 1.5. It is a fraction: 0.5 is the last half.",
    ),
    "--last nan": (
        2,
        "last is nan. It is a fraction: 0.5 is the last half.",
    ),
    "--trials 0": (
        2,
        "trials is 0. It is at least 1.",
    ),
    "--jobs -1": (
        2,
        "Invalid value for '--jobs': Input should be greater than or equal to 0. See `automup "
        "sweep --help`.",
    ),
    "--optimizer nope": (
        2,
        "There is no optimizer 'nope'. Known: [...].",
    ),
    "--optimizer lion": (
        2,
        "This torch has no lion. It has [...].",
    ),
    "--optimizer muon": (
        2,
        "The model has no hidden matrix that this optimizer could take. Use torch.optim.AdamW.",
    ),
    "--setting x=1": (
        2,
        "AdamW takes no x. It takes [...].",
    ),
    "--setting lr=1": (
        2,
        "lr is no setting that a sweep can pass. The learning rates are lr.",
    ),
    "--setting params=1": (
        2,
        "params is no setting that a sweep can pass. The learning rates are lr.",
    ),
    "--setting model=3": (
        2,
        "model is no setting that a sweep can pass. The learning rates are lr.",
    ),
    "--setting eps=-1": (
        2,
        "AdamW does not take these settings: ValueError: Invalid epsilon value: -1. Choose "
        "other values.",
    ),
    "--setting eps=big": (
        2,
        "AdamW does not take these settings: TypeError: '<=' not supported between instances "
        "of 'float' and 'str'. Choose other values.",
    ),
    "--setting betas=3": (
        2,
        "AdamW does not take these settings: TypeError: 'int' object is not subscriptable. "
        "Choose other values.",
    ),
    "--setting betas=(2,2)": (
        2,
        "AdamW does not take these settings: ValueError: Invalid beta parameter at index 0: 2. "
        "Choose other values.",
    ),
    "--setting weight_decay=-1": (
        2,
        "AdamW does not take these settings: ValueError: Invalid weight_decay value: -1. "
        "Choose other values.",
    ),
    "--setting momentum": (
        2,
        "'momentum' is not NAME=VALUE. Write n_embd=256.",
    ),
    "--setting eps=1e-8 --setting eps=1e-7": (
        2,
        "eps is given twice. Give each name one value.",
    ),
    "--setting decay=nope": (
        2,
        "There is no decay 'nope'. Known: independent, coupled, sqrt.",
    ),
    "--tune depth=1:2": (
        2,
        "--tune 'depth=1:2': no such constant, or given twice. Write NAME=LOW:HIGH or "
        "NAME=A,B,C with one of [...].",
    ),
    "--tune output_mult": (
        2,
        "--tune 'output_mult': no such constant, or given twice. Write NAME=LOW:HIGH or "
        "NAME=A,B,C with one of [...].",
    ),
    "--tune output_mult=2:1": (
        2,
        "--tune output_mult=2:1 is no range above 0. Write NAME=0.25:16, or a list.",
    ),
    "--tune output_mult=nan:1": (
        2,
        "--tune output_mult=nan:1 is no range above 0. Write NAME=0.25:16, or a list.",
    ),
    "--tune output_mult=1:inf": (
        2,
        "--tune output_mult=1:inf is no range above 0. Write NAME=0.25:16, or a list.",
    ),
    "--tune output_mult=nan": (
        2,
        "output_mult cannot be nan. Pass a finite number above 0.",
    ),
    "--tune output_mult=0": (
        2,
        "output_mult cannot be 0.0. Pass a finite number above 0.",
    ),
    "--tune output_init=-1": (
        2,
        "output_init cannot be -1.0. Pass a finite number of at least 0.",
    ),
    "--tune input_lr=0,1": (
        2,
        "input_lr cannot be 0.0. Pass a finite number above 0.",
    ),
    "--tune output_mult=": (
        2,
        "--tune output_mult: '' is not a number. Write 0.001 or 2^-10.",
    ),
    "--tune attention_mult=0.5:2": (
        2,
        "attention_mult: the model has no multiplier in μP (its logits do not grow with "
        "width), so there is no place for a constant. Leave attention_mult at 1, or write the "
        "multiplier into the model.",
    ),
    "--tune output_mult=1:2 --tune output_mult=1:2": (
        2,
        "--tune 'output_mult=1:2': no such constant, or given twice. Write NAME=LOW:HIGH or "
        "NAME=A,B,C with one of [...].",
    ),
    "--tune weight_decay=nan": (
        2,
        "--tune weight_decay=nan is no decay. Write 0,0.01,0.1.",
    ),
    "--data nope": (
        2,
        "There is no data 'nope'. Pass text:PATH (a file or a folder), digits, or a Python "
        "file with batches and loss.",
    ),
    "--data nope.py": (
        2,
        "nope.py: no such file. Pass a Python file, such as model.py or model.py:ClassName.",
    ),
    "--data text:nope": (
        2,
        "nope: no such file or folder. Pass --data text:PATH.",
    ),
    "--out net.py": (
        2,
        "net.py is no folder. Name another with --out.",
    ),
    "--out net.py/x": (
        2,
        "HERE/net.py is no folder. Name another with --out.",
    ),
    "--out /dev/null": (
        2,
        "/dev/null is no folder. Name another with --out.",
    ),
    "--storage nope/x.log": (
        2,
        "Cannot write there: no such folder. (nope)",
    ),
    "--storage net.py": (
        2,
        "net.py is no journal of a sweep, or a damaged one: line 1 is none of its entries. It "
        "was left as it is. Name another file with --storage, or a new one.",
    ),
    "--storage .": (
        2,
        "The storage . cannot be opened: Is a directory.",
    ),
    "--storage sqlite:///no/such.db": (
        2,
        "The storage sqlite:///no/such.db cannot be opened: unable to open database file.",
    ),
    "--storage sqlite:///net.py": (
        2,
        "The storage sqlite:///net.py cannot be opened: file is not a database.",
    ),
    "--storage nodb://x": (
        2,
        "nodb://x is no database: Can't load plugin: sqlalchemy.dialects:nodb.",
    ),
    "--storage postgresql+pg8000://u:secret@localhost:1/x": (
        2,
        "The storage postgresql+pg8000://localhost:1/x needs a driver: No module named 'pg8000'. "
        "Install it; for postgresql: pip install 'psycopg[binary]'.",
    ),
    "--storage mysql+nope://u:secret@localhost:1/x": (
        2,
        "mysql+nope://localhost:1/x is no database: Can't load plugin: "
        "sqlalchemy.dialects:mysql.nope.",
    ),
    "--storage ://": (
        2,
        ":// is no database: Could not parse SQLAlchemy URL from given URL string.",
    ),
}

"""What is added to a call that is right: its status, and what it says."""
MODELS = {
    "": (
        2,
        "Missing argument 'MODEL'. See `automup sweep --help`.",
    ),
    "net.py": (
        2,
        "Missing option '--data'. See `automup sweep --help`.",
    ),
    "nope.py --data data.py": (
        2,
        "nope.py: no such file. Pass a Python file, such as model.py or model.py:ClassName.",
    ),
    ". --data data.py": (
        2,
        ". is a folder. Pass a Python file, such as model.py or model.py:ClassName.",
    ),
}

JOURNALS: dict[str, tuple[str | bytes, str]] = {
    "of text": ("hello\n", "line 1 is none of its entries"),
    "that is text without an end": ("hello", "line 1 is none of its entries"),
    "of other JSON": ("{}\n", "line 1 is none of its entries"),
    "of lists": ("[]\n", "line 1 is none of its entries"),
    "of an unknown entry": ('{"op_code":99,"worker_id":"x"}\n', "AssertionError: Should not reach"),
    "of half an entry": ('{"op_code":0,"worker_id":"a"}\n', "KeyError: 'study_name'"),
    "torn in the middle": (
        '{"op_code":0,"worker_id"\n{"op_code":0,"worker_id":"x","study_name":"x","directions":[1]}\n',
        "line 1 is not whole",
    ),
    "that is binary": (b"\x80\x02weights\x00\xff", "line 1 is none of its entries"),
    "that is nested": ('{"op_code":' + "[" * 100_000 + "\n", "RecursionError: [...]"),
    "with spaces": ('{ "op_code": 0}\n', "line 1 is none of its entries"),
}
"""What lies where the journal is said to be, and what is wrong with it."""

CASES = [
    *(
        Case(f"sweep {options}", f"{SWEEP} {options}", status, f"automup: {says}", trained())
        for options, (status, says) in OPTIONS.items()
    ),
    *(
        Case(f"sweep of {model}", f"sweep {model}".strip(), status, f"automup: {says}", trained())
        for model, (status, says) in MODELS.items()
    ),
    *(
        Case(
            f"a storage {name}",
            f"{SWEEP} --storage j.log",
            2,
            f"automup: j.log is no journal of a sweep, or a damaged one: {reason}. It was left as "
            "it is. Name another file with --storage, or a new one.",
            {**trained(), "j.log": text},
        )
        for name, (text, reason) in JOURNALS.items()
    ),
]
