"""What a model does when it is built and run, and what weights it has."""

# ruff: noqa: E501 (a model file is one line here)

from __future__ import annotations

from case import DONE, WIDE, Case, changed, net, own

CASES = [
    Case(
        "unknown input object",
        WIDE,
        1,
        "automup: No example input makes Net.forward(x, batch) run. Tried float32[2, "
        "6], float32[2, 6]; float32[2, 6], float32[2]; float32[2, 12, 6], float32[2, 6]"
        " and more; what it met first was AttributeError: 'Tensor' object has no "
        "attribute 'scale'. (net.py:13) Pass --input 'idx:int64[2,16]<96', or inputs= "
        "in Python.",
        net("h = h * batch.scale", forward="self, x, batch"),
    ),
    Case(
        "no inputs",
        WIDE,
        1,
        "automup: w: two weights meet, and nothing tells which sums over the axis "
        "(mm.default at net.py:11:15). Write it with operations that automup knows, or "
        "hold that size fixed. --no-strict leaves it alone.",
        changed(
            own("self.w = nn.Parameter(torch.randn(width, width))", "return self.w @ self.w"),
            ("self, x", "self"),
        ),
    ),
    Case(
        "forward star",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        changed(net(forward="self, *xs"), ("self.stem(x)", "self.stem(xs[0])")),
    ),
    Case(
        "forward kwargs",
        WIDE,
        1,
        "automup: No example input makes Net.forward() run. Tried no argument; what it "
        "met first was KeyError: 'x'. (net.py:12) Pass --input 'idx:int64[2,16]<96', or"
        " inputs= in Python.",
        changed(net(forward="self, **xs"), ("self.stem(x)", "self.stem(xs['x'])")),
    ),
    Case(
        "data loop",
        WIDE,
        0,
        "note: the run depends on the truth of a tensor, which was guessed (net.py:13)\nnote: not run by any trace: line 14: h = h / 2 (multiplies or divides)\nmu.py: Net in μP; base width=16",
        net("while h.norm() > 1:\n    h = h / 2"),
    ),
    Case(
        "data loop dec",
        WIDE,
        0,
        "note: the run depends on the truth of a tensor, which was guessed (net.py:13)\nmu.py: Net in μP; base width=16",
        net("while (h > 0).any():\n    h = h - 1"),
    ),
    Case(
        "data loop item",
        WIDE,
        1,
        "automup: The model reads the value of a tensor 20000 times: a loop on data, "
        "perhaps, which has no end where the weights are not known. (net.py:13) Bound "
        "the loop by a size, or by a number of its own.",
        net("while h.max().item() > 0.01:\n    h = h * .9"),
    ),
    Case(
        "data branch",
        WIDE,
        0,
        "note: the run depends on the truth of a tensor, which was guessed (net.py:13)\nmu.py: Net in μP; base width=16",
        net("if h.mean() > 0:\n    h = torch.tanh(h)"),
    ),
    Case(
        "item",
        WIDE,
        1,
        "automup: the code reads a number out of a tensor that depends on the weights "
        "(item at net.py:13). Compute it from sizes, or keep it a tensor. --no-strict "
        "leaves it alone.",
        net("h = h * h.abs().max().item()"),
    ),
    Case(
        "nonzero",
        WIDE,
        0,
        "note: the run depends on the number of nonzero entries, which was guessed (net.py:13)\nmu.py: Net in μP; base width=16",
        net("h = h[h[:, 0].nonzero().flatten()]"),
    ),
    Case(
        "tolist",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net("h = torch.tensor(h.tolist())"),
    ),
    Case(
        "mutates input",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net("x.add_(1)\nh = torch.relu(self.stem(x))"),
    ),
    Case(
        "mutates param",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net("self.stem.weight.data.mul_(2)"),
    ),
    Case(
        "random numbers",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net("h = h + torch.randn_like(h)"),
    ),
    Case(
        "python random",
        WIDE,
        1,
        "automup: The model does different things each time it is run. (net.py:15) What"
        " runs must not depend on random numbers or on earlier calls.",
        net(
            "import random\nfor _ in range(40):\n    h = torch.tanh(h) if random.random() < .5 else torch.sigmoid(h)"
        ),
    ),
    Case(
        "counter",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(
            "self.n += 1\nh = torch.tanh(h) if self.n % 2 else torch.sigmoid(h)", init="self.n = 0"
        ),
    ),
    Case(
        "counter grows",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net("self.n += 1\nfor _ in range(self.n):\n    h = torch.tanh(h)", init="self.n = 0"),
    ),
    Case(
        "dropout",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net("h = nn.functional.dropout(h, .5, True)"),
    ),
    Case(
        "nan init",
        WIDE,
        1,
        "automup: head.weight: its constructor leaves it with entries that are no "
        "numbers (rms nan). Mend its init first: training would begin with them.",
        net(init="nn.init.constant_(self.head.weight, float('nan'))"),
    ),
    Case(
        "nan init width",
        WIDE,
        1,
        "automup: Net(width=16) cannot be built: RuntimeError: normal expects std >= "
        "0.0, but found std nan. (net.py:10) Choose other values with --base "
        "NAME=VALUE.",
        net(init="nn.init.normal_(self.head.weight, std=float('nan'))"),
    ),
    Case(
        "inf init",
        WIDE,
        1,
        "automup: head.weight: its constructor leaves it with entries that are no "
        "numbers (rms inf). Mend its init first: training would begin with them.",
        net(init="nn.init.constant_(self.head.weight, float('inf'))"),
    ),
    Case(
        "neg std",
        WIDE,
        1,
        "automup: Net(width=16) cannot be built: RuntimeError: normal expects std >= "
        "0.0, but found std -1. (net.py:10) Choose other values with --base NAME=VALUE.",
        net(init="nn.init.normal_(self.head.weight, std=-1)"),
    ),
    Case(
        "zero init all",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(init="for p in self.parameters():\n    nn.init.zeros_(p)"),
    ),
    Case(
        "unused param",
        WIDE,
        1,
        "automup: spare.weight: no operation of the traced forward reads it; "
        "spare.bias: no operation of the traced forward reads it. Say what the weight "
        "is: --override 'spare.weight=hidden' --override 'spare.bias=input' (output "
        "instead, if it sums over the dimension that grows; it sums over one dimension "
        "that grows and writes another). --no-strict leaves them alone.",
        net(init="self.spare = nn.Linear(width, width)"),
    ),
    Case(
        "int param",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(
            init="self.k = nn.Parameter(torch.ones(width, dtype=torch.long), requires_grad=False)",
            hidden="h = h * self.k",
        ),
    ),
    Case(
        "int param unused",
        WIDE,
        1,
        "automup: k: no operation of the traced forward reads it. Say what the weight "
        "is: --override 'k=input' (output instead, if it sums over the dimension that "
        "grows). --no-strict leaves it alone.",
        net(init="self.k = nn.Parameter(torch.ones(width, dtype=torch.long), requires_grad=False)"),
    ),
    Case(
        "bool param",
        WIDE,
        1,
        "automup: k: it meets no activation, only other weights. Say what the weight "
        "is: --override 'k=input' (output instead, if it sums over the dimension that "
        "grows). --no-strict leaves it alone.",
        net(
            init="self.k = nn.Parameter(torch.ones(width, dtype=torch.bool), requires_grad=False)",
            hidden="h = torch.where(self.k, h, 0)",
        ),
    ),
    Case(
        "complex param",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(
            init="self.k = nn.Parameter(torch.randn(width, dtype=torch.complex64))",
            hidden="h = (h * self.k).real",
        ),
    ),
    Case(
        "sparse param",
        WIDE,
        1,
        "automup: k: _sparse_addmm mixes an infinite axis and no rule describes it "
        "(_sparse_addmm.default at net.py:13:12). Say what the weight is: --override "
        "'k=hidden' (it sums over one dimension that grows and writes another); or "
        "register the rule of automup.op that the operation follows in the model file: "
        'automup.register_op("aten::_sparse_addmm", automup.op.Contraction()). '
        "--no-strict leaves it alone.",
        net(
            init="self.k = nn.Parameter(torch.eye(width).to_sparse())",
            hidden="h = torch.sparse.mm(self.k, h.T).T",
        ),
    ),
    Case(
        "sparse embedding",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        own(
            "self.e = nn.Embedding(10, width, sparse=True)\nself.o = nn.Linear(width, 3)",
            "return self.o(self.e(x))",
        ),
    ),
    Case(
        "lazy",
        WIDE,
        1,
        "automup: mid.weight is lazy: it has no shape before a first call. Give its "
        "layer the input's size: nn.Linear(64, width) for nn.LazyLinear(width).",
        net(init="self.mid = nn.LazyLinear(width)", hidden="h = self.mid(h)"),
    ),
    Case(
        "uninit param",
        WIDE,
        1,
        "automup: mid is lazy: it has no shape before a first call. Give its layer the "
        "input's size: nn.Linear(64, width) for nn.LazyLinear(width).",
        net(init="self.mid = nn.UninitializedParameter()", hidden="h = h + self.mid"),
    ),
    Case(
        "frozen",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(init="self.requires_grad_(False)"),
    ),
    Case(
        "frozen some",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(init="self.stem.requires_grad_(False)"),
    ),
    Case(
        "half",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(init="self.half()"),
    ),
    Case(
        "zero size param",
        WIDE,
        1,
        "automup: z: no operation of the traced forward reads it. Say what the weight "
        "is: --override 'z=input' (output instead, if it sums over the dimension that "
        "grows). --no-strict leaves it alone.",
        net(init="self.z = nn.Parameter(torch.empty(0, width))"),
    ),
    Case(
        "scalar param",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(init="self.z = nn.Parameter(torch.tensor(1.0))", hidden="h = h * self.z"),
    ),
    Case(
        "no params",
        WIDE,
        1,
        "automup: Net has no parameters: there is nothing to scale.",
        own("self.w = width", "return x * self.w"),
    ),
    Case(
        "param name dotless odd",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(
            init="self.register_parameter('a b\\x1b[2J', nn.Parameter(torch.ones(width)))",
            hidden="h = h * getattr(self, 'a b\\x1b[2J')",
        ),
    ),
    Case(
        "returns none",
        WIDE,
        1,
        "automup: No example input makes Net.forward(x) run. Tried float32[2, 6]; "
        "float32[2, 12, 6]; float32[2, 8, 6] and more; what it met first was forward "
        "returns no floating-point tensor (NoneType). Pass --input "
        "'idx:int64[2,16]<96', or inputs= in Python.",
        net("return None"),
    ),
    Case(
        "returns str",
        WIDE,
        1,
        "automup: No example input makes Net.forward(x) run. Tried float32[2, 6]; "
        "float32[2, 12, 6]; float32[2, 8, 6] and more; what it met first was forward "
        "returns no floating-point tensor (str). Pass --input 'idx:int64[2,16]<96', or "
        "inputs= in Python.",
        net("return 'x'"),
    ),
    Case(
        "returns int tensor",
        WIDE,
        1,
        "automup: No example input makes Net.forward(x) run. Tried float32[2, 6]; "
        "float32[2, 12, 6]; float32[2, 8, 6] and more; what it met first was forward "
        "returns no floating-point tensor (Tensor). Pass --input 'idx:int64[2,16]<96', "
        "or inputs= in Python.",
        net("return h.argmax(-1)"),
    ),
    Case(
        "returns dict",
        WIDE,
        0,
        "note: not run by any trace: line 14: return self.head(h) (calls self.head)\nmu.py: Net in μP; base width=16",
        net("return {'a': self.head(h)}"),
    ),
    Case(
        "backward in forward",
        WIDE,
        1,
        "automup: No example input makes Net.forward(x) run. Tried float32[2, 6]; "
        "float32[2, 12, 6]; float32[2, 8, 6] and more; what it met first was "
        "RuntimeError: element 0 of tensors does not require grad and does not have a "
        "grad_fn. (net.py:13) Pass --input 'idx:int64[2,16]<96', or inputs= in Python.",
        net("self.head(h).sum().backward()"),
    ),
    Case(
        "jit script",
        "explain net.py:make",
        1,
        "automup: The model is scripted (RecursiveScriptModule), which hides its code. "
        "Build it without torch.jit, and script it afterwards.",
        net(bottom="\n\ndef make(width=16):\n    return torch.jit.script(Net(width))\n"),
    ),
    Case(
        "custom autograd",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(
            "h = F.apply(h)",
            top="class F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        return x * 2\n    @staticmethod\n    def backward(ctx, g):\n        return g * 2\n\n\n",
        ),
    ),
    Case(
        "tensor subclass",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net("h = h.as_subclass(T) * 2", top="class T(torch.Tensor):\n    pass\n\n\n"),
    ),
    Case(
        "shape assertion",
        WIDE,
        1,
        "automup: The model failed while it was traced (eval, width=32): "
        "AssertionError. (net.py:13) It runs at width=16: what is fixed there must "
        "follow the width.",
        net("assert h.shape[-1] == 16"),
    ),
    Case(
        "self training",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net("if self.training:\n    raise RuntimeError('train')"),
    ),
    Case(
        "eval raises",
        WIDE,
        1,
        "automup: No example input makes Net.forward(x) run. Tried float32[2, 6]; "
        "float32[2, 12, 6]; float32[2, 8, 6] and more; what it met first was "
        "RuntimeError: eval. (net.py:14) Pass --input 'idx:int64[2,16]<96', or inputs= "
        "in Python.",
        net("if not self.training:\n    raise RuntimeError('eval')"),
    ),
    Case(
        "load file",
        WIDE,
        1,
        "automup: Net(width=16) cannot be built: FileNotFoundError: [Errno 2] No such "
        "file or directory: 'weights.pt'. (net.py:10) Choose other values with --base "
        "NAME=VALUE.",
        net(init="self.load_state_dict(torch.load('weights.pt'))"),
    ),
    Case(
        "thread",
        WIDE,
        1,
        "automup: head.weight: no operation of the traced forward reads it. Say what "
        "the weight is: --override 'head.weight=input' (output instead, if it sums over"
        " the dimension that grows). --no-strict leaves it alone.",
        net(
            "import threading\nr = []\nt = threading.Thread(target=lambda: r.append(self.head(h)))\nt.start()\nt.join()\nreturn r[0]"
        ),
    ),
    Case(
        "train override",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(bottom="\n    def train(self, mode=True):\n        return None\n"),
    ),
    Case(
        "call override",
        WIDE,
        1,
        "automup: No example input makes Net.forward(x) run. Tried float32[2, 6]; "
        "float32[2, 12, 6]; float32[2, 8, 6] and more; what it met first was TypeError:"
        " call me not. (net.py:17) Pass --input 'idx:int64[2,16]<96', or inputs= in "
        "Python.",
        net(bottom="\n    def __call__(self, *a):\n        raise TypeError('call me not')\n"),
    ),
    Case(
        "len",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(
            bottom="\n    def __len__(self):\n        return 0\n    def __bool__(self):\n        raise TypeError\n"
        ),
    ),
    Case(
        "repr raises",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(
            bottom="\n    def __repr__(self):\n        raise TypeError\n    def extra_repr(self): 1/0\n"
        ),
    ),
    Case(
        "eq raises",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(
            bottom="\n    def __eq__(self, o):\n        raise TypeError('eq')\n    __hash__ = nn.Module.__hash__\n"
        ),
    ),
    Case(
        "width as str key",
        WIDE,
        1,
        "automup: The model has other parameters at another width (m.16.bias, "
        "m.16.weight, m.32.bias). (width=16 against width=32) Choose a base whose sizes"
        " do not coincide with a fixed size of the model. A knob of the depth is no "
        "width.",
        own(
            "self.m = nn.ModuleDict({str(width): nn.Linear(6, width)})\nself.o = nn.Linear(width, 3)\nself.w=width",
            "return self.o(self.m[str(self.w)](x))",
        ),
    ),
    Case(
        "parameters in another order each time",
        WIDE,
        1,
        "automup: The model has other parameters at another width (the same names in "
        "another order, or tied otherwise). (width=16 against width=32) Choose a base "
        "whose sizes do not coincide with a fixed size of the model. A knob of the "
        "depth is no width.",
        own(
            "import itertools\nTURN.append(0)\nn = ['a', 'b'] if len(TURN) % 2 else ['b', 'a']\nself.m = nn.ModuleDict({k: nn.Linear(6, width) for k in n})\nself.o = nn.Linear(width, 3)",
            "return self.o(sum(m(x) for m in self.m.values()))",
            top="TURN = []\n\n\n",
        ),
    ),
    Case(
        "nothing grows",
        WIDE,
        1,
        "automup: Nothing in the model grows with width. Name the arguments that set "
        "its sizes: base={'d_model': 256} in code, --width and --base on the command "
        "line.",
        own("self.a = nn.Linear(6, 3)", "return self.a(x)"),
    ),
    Case(
        "a constructor that refuses twice the width",
        WIDE,
        1,
        "automup: Net(width=32) cannot be built: AssertionError: too wide. (net.py:10) Choose other "
        "values with --base NAME=VALUE.",
        net(init="assert width < 20, 'too wide'"),
    ),
    Case(
        "a constructor for one width",
        WIDE,
        1,
        "automup: Net(width=32) cannot be built: AssertionError. (net.py:10) Choose other values "
        "with --base NAME=VALUE.",
        net(init="assert width == 16"),
    ),
    Case(
        "a constructor that the base does not suit",
        WIDE,
        1,
        "automup: Net(width=16) cannot be built: AssertionError: width must be divisible by 5. "
        "(net.py:10) Choose other values with --base NAME=VALUE.",
        net(init="assert width % 5 == 0, 'width must be divisible by 5'"),
    ),
    Case(
        "powers of two alone",
        WIDE,
        0,
        DONE,
        net(init="assert width & (width - 1) == 0, 'a power of two, please'"),
    ),
    Case(
        "forward refuses twice the width",
        WIDE,
        1,
        "automup: The model failed while it was traced (eval, width=32): AssertionError: wide. "
        "(net.py:13) It runs at width=16: what is fixed there must follow the width.",
        net("assert h.size(-1) < 20, 'wide'"),
    ),
    Case(
        "a parameter that is deleted",
        WIDE,
        1,
        "automup: No example input makes Net.forward(x) run. Tried float32[2, 6]; float32[2, 12, "
        "6]; float32[2, 8, 6] and more; what it met first was AttributeError: 'Linear' object has "
        "no attribute 'bias'. (net.py:12) Pass --input 'idx:int64[2,16]<96', or inputs= in Python.",
        net(init="del self.stem.bias"),
    ),
    Case(
        "a layer that is made in forward",
        WIDE,
        1,
        "automup: it sums over an infinite axis against a constant tensor (addmm.default at "
        "net.py:[...]), after stem.weight, stem.bias. Write it with operations that automup knows, "
        "or hold that size fixed. --no-strict leaves it alone.",
        net(
            "if not hasattr(self, 'late'):\n    self.late = nn.Linear(h.size(-1), h.size(-1))\n"
            "h = self.late(h)"
        ),
    ),
    Case(
        "gradients switched off",
        WIDE,
        0,
        DONE,
        net("torch.set_grad_enabled(False)\ntorch.set_grad_enabled(True)"),
    ),
    Case(
        "a thread that is waited for",
        WIDE,
        0,
        DONE,
        net("import threading\nt = threading.Thread(target=list)\nt.start()\nt.join()"),
    ),
    Case(
        "an environment that is changed",
        WIDE,
        0,
        DONE,
        net(top="import os\nos.environ['COLUMNS'] = '3'\n"),
    ),
]
