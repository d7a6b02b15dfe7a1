"""Nothing that runs what a file holds, nothing that prints in a library, no import where none belongs."""

import ast

import pytest

from tests.architecture.conftest import PACKAGE

UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
UNSAFE_BUILTINS = {"eval", "exec", "compile", "__import__"}
UNSAFE_CALLS = {  # the end of a dotted name
    "extractall": "take single members, by name and size",
    "torch.save": "it writes pickle; use safetensors",
    "hub.load": "it runs downloaded code",
    "yaml.load": "use yaml.safe_load",
    "os.system": "use subprocess with a list",
    "os.popen": "use subprocess with a list",
    "tempfile.mktemp": "use mkstemp",
    "_create_unverified_context": "certificates are checked",
}
WRITES_FOR_OTHERS = {"scratchlm.checkpoints.torch.torch_file": "torch.save"}  # the book's readers want a .pth
UNSAFE_KEYWORDS = {"shell": True, "verify": False, "allow_pickle": True, "weights_only": False}
OPTIONAL = {  # of the extras: may be missing
    *("pyarrow", "sklearn", "playwright", "gguf", "pandas", "llguidance"),
    *("onnx", "onnxscript", "onnxruntime", "datasets"),
    *("ollama", "openai"),
    *("wandb", "mlflow", "trackio"),
    *("transformers", "peft"),  # compare logits where they are
}
OUTPUT_IS_MADE_IN = {"scratchlm.cli.main", "scratchlm.cli.terminal", "scratchlm.cli.streams"}
HOMES = tuple(
    f"/{top}/" for top in ("work", "home", "root", "Users")
)  # where people and machines keep their files
SLOW_TO_IMPORT = {
    "matplotlib",
    "tensorboard",
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
}  # there, but most runs do not need them


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an attribute chain; what is not a name becomes `?`."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def unsafe(source) -> list[str]:
    """Calls and imports that could run code out of a file, or send it to a shell."""
    found = [
        f"{source.module}:{node.lineno} imports {module}"
        for module, _, node in source.imports()
        if module.split(".")[0] in UNSAFE_MODULES
    ]
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        name, where = dotted(node.func), f"{source.module}:{node.lineno}"
        if name in UNSAFE_BUILTINS:
            found.append(f"{where} calls {name}")
        for ending, reason in UNSAFE_CALLS.items():
            if f".{name}".endswith(f".{ending}") and WRITES_FOR_OTHERS.get(source.module) != ending:
                found.append(f"{where} calls {name}: {reason}")
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if keyword.arg in UNSAFE_KEYWORDS and value is UNSAFE_KEYWORDS[keyword.arg]:
                found.append(f"{where} passes {keyword.arg}={value}")
        if name == "torch.load" and not any(
            keyword.arg == "weights_only"
            and isinstance(keyword.value, ast.Constant)
            and keyword.value.value is True
            for keyword in node.keywords
        ):
            found.append(f"{where} calls torch.load without weights_only=True")
    return found


def prints(source) -> list[str]:
    """Calls that write to the terminal; only `cli` may, and `book`, whose functions print as the book's do."""
    if source.room in {"cli", "book"}:
        return []
    return [
        f"{source.module}:{node.lineno} calls {dotted(node.func)}"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and dotted(node.func) in {"print", "pprint", "pprint.pprint", "sys.stdout.write", "sys.stderr.write"}
    ]


def unguarded_output(source) -> list[str]:
    """Ways for a command to reach the terminal past `printable`: a console of its own, a stream of its own."""
    if source.room != "cli" or source.module in OUTPUT_IS_MADE_IN:
        return []
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            is_print = name == "print" and any(keyword.arg == "file" for keyword in node.keywords)
            if is_print or name in {"Console", "rich.print", "os.write"} or name.endswith("buffer.write"):
                found.append(f"{source.module}:{node.lineno} writes past scratchlm.cli.terminal: {name}")
    return found


def late_imports(source) -> list[str]:
    """Imports inside functions, and optional dependencies whose absence nobody would explain."""
    is_lazy_by_design = source.room in ("cli", "__main__") or source.module == "scratchlm"
    found = []
    inside_functions = {
        id(inner)
        for outer in ast.walk(source.tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(outer)
    }
    explained = {
        id(inner)
        for outer in ast.walk(source.tree)
        if (isinstance(outer, ast.Try) and any(map(_catches_import_error, outer.handlers)))
        or (isinstance(outer, ast.With) and any(map(_is_optional_import, outer.items)))
        for statement in outer.body
        for inner in ast.walk(statement)
    }
    for module, _, node in source.imports():
        where, top = f"{source.module}:{node.lineno}", module.split(".")[0]
        is_late = id(node) in inside_functions
        if top in OPTIONAL and not (is_late and id(node) in explained):
            found.append(
                f"{where} imports {module} without optional_import or `except ImportError` in a function"
            )
        elif is_late and not is_lazy_by_design and not _may_be_late(module):
            found.append(f"{where} imports {module} inside a function")
    for node in ast.walk(source.tree):
        is_dynamic = isinstance(node, ast.Call) and dotted(node.func).endswith("import_module")
        if is_dynamic and not is_lazy_by_design and not source.is_package:
            found.append(f"{source.module}:{node.lineno} imports by name at run time")
    return found


def _may_be_late(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in OPTIONAL | SLOW_TO_IMPORT)


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(t is not None and dotted(t) in {"ImportError", "ModuleNotFoundError"} for t in types)


def _is_optional_import(item: ast.withitem) -> bool:
    return isinstance(item.context_expr, ast.Call) and dotted(item.context_expr.func) == "optional_import"


def places_of_this_machine(source) -> list[str]:
    """Paths that exist for the authors only."""
    marks = ("../shared", "shared/data", *HOMES)
    return [f"{source.module} mentions {mark}" for mark in marks if mark in source.text]


@pytest.mark.parametrize("rule", [unsafe, prints, unguarded_output, late_imports, places_of_this_machine])
def test_the_package_keeps_the_rule(package, rule):
    wrongs = [wrong for source in package for wrong in rule(source)]
    assert wrongs == [], "\n" + "\n".join(wrongs)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import Unpickler",
        "import joblib",
        "eval('1')",
        "exec(code)",
        "archive.extractall(folder)",
        "torch.save(model, path)",
        "torch.hub.load('a', 'b')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=is_safe)",
        "yaml.load(text)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "httpx.get(url, verify=False)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_rule_finds_what_is_unsafe(example, text):
    assert unsafe(example(text)) != []


@pytest.mark.parametrize(
    "text",
    ["model.eval()", "re.compile('a')", "torch.load(p, weights_only=True)", "safetensors.torch.load(p)"],
)
def test_the_rule_lets_what_only_looks_unsafe_pass(example, text):
    assert unsafe(example(text)) == []


@pytest.mark.parametrize("text", ["print('x')", "def f():\n    sys.stdout.write('x')"])
def test_the_rule_finds_a_print_outside_the_command_line(example, text):
    assert prints(example(text)) != []
    assert prints(example(text, "scratchlm.cli.main")) == []


@pytest.mark.parametrize(
    "text",
    ["console = Console(stderr=True)", "print(text, file=sys.stderr)", "sys.stdout.buffer.write(data)"],
)
def test_the_rule_finds_output_that_could_steer_a_terminal(example, text):
    assert unguarded_output(example(text, "scratchlm.cli.chat")) != []
    assert unguarded_output(example("print(text, end='', flush=True)", "scratchlm.cli.chat")) == []


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    import json",
        "class A:\n    def f(self):\n        from scratchlm.core import files",
        "import pyarrow",
        "from sklearn.svm import SVC",
        "def f():\n    import pyarrow",
        "def f():\n    try:\n        import json\n    except ImportError:\n        raise",
        "importlib.import_module(name)",
        "def f():\n    import torch.utils.data",
    ],
)
def test_the_rule_finds_an_import_that_belongs_to_the_top(example, text):
    assert late_imports(example(text)) != []


@pytest.mark.parametrize(
    ("text", "module"),
    [
        (
            "def f():\n    try:\n        import pyarrow.parquet\n    except ImportError as e:\n        raise",
            "scratchlm.data.a",
        ),
        ("def f():\n    from torch.utils.tensorboard import SummaryWriter", "scratchlm.training.a"),
        ("def f():\n    from matplotlib.figure import Figure", "scratchlm.recipes.a"),
        ("def f():\n    from scratchlm.recipes import recipe", "scratchlm.cli.run"),
        ("def __getattr__(name):\n    return importlib.import_module(name)", "scratchlm"),
    ],
)
def test_the_rule_lets_optional_and_lazy_imports_pass(example, text, module):
    assert late_imports(example(text, module)) == []


def test_no_test_or_measurement_names_a_path_of_a_machine():
    project = PACKAGE.parent
    files = [file for folder in ("tests", "benchmarks") for file in sorted((project / folder).rglob("*.py"))]
    assert len(files) > 100
    wrongs = [
        f"{file.relative_to(project)} mentions {mark}"
        for file in files
        for mark in HOMES
        if mark in file.read_text(encoding="utf-8")
    ]
    assert wrongs == [], "\n".join(wrongs)


def test_the_rule_finds_a_path_of_this_machine(example):
    assert places_of_this_machine(example("DATA = '../shared/data'")) != []
