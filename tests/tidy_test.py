"""The house rules that a program can check: sizes, layering, words, and that every test runs."""

import ast
import re
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LINES_MAX = 800
LINES_MEDIAN_MAX = 150
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100
FILE_BYTES_MAX = 1 << 20

CPP = (".h", ".cc", ".cu", ".cuh")
BANNED = re.compile(  # split, so that this file does not contain them
    r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b|"
    r"(?i:not imple" r"mented|place" r"holder|\bfor n" r"ow\b)")

# Folder (longest prefix wins): folders whose headers it may include, besides its own.
CORE = ("base/",)
MATHEMATICS = CORE + ("attention/",)
VOCABULARY = MATHEMATICS + ("api/",)
WIRE = VOCABULARY + ("wire/", "attic/v1/")
LAYERS = {
    "base/": (),
    "attention/": CORE,
    "api/": MATHEMATICS,
    "wire/": WIRE,
    "server/index/": VOCABULARY,
    "server/index/codes/": VOCABULARY,
    "server/index/graph/": MATHEMATICS,
    "server/index/segment/": VOCABULARY + ("server/index/codes/",),
    "server/index/estimate/": VOCABULARY + ("server/index/segment/",),
    "server/index/search/": VOCABULARY + ("server/index/",),
    "server/storage/": VOCABULARY + ("server/index/segment/", "server/index/codes/"),
    "server/session/": VOCABULARY + ("server/index/", "server/storage/"),
    "server/cluster/": WIRE + ("server/session/", "server/cluster/"),
    "server/cluster/saved_map.": WIRE + ("server/cluster/", "server/storage/"),
    "server/cluster/etcd/": CORE,
    "server/cluster/liveness/": CORE,
    "server/cluster/placement/": VOCABULARY,
    "server/service/": WIRE + ("server/session/", "server/index/", "server/cluster/"),
    "server/metrics/": VOCABULARY + ("server/service/", "server/cluster/"),
    "server/main.cc": VOCABULARY + ("server/",),
    "server/cluster_flags.": VOCABULARY + ("server/",),
    "client/cpp/": WIRE,
    "client/cpp/cluster/": WIRE + ("client/cpp/",),
    "client/cpp/local_client.": VOCABULARY + ("client/cpp/", "server/session/"),
    "client/cpp/examples/": VOCABULARY + ("client/cpp/",),
    "client/cli/": WIRE + ("client/cpp/", "client/cli/"),
    "client/cli/doctor_": WIRE + ("client/cli/", "server/storage/"),
    "client/cli/bench/": VOCABULARY + ("client/cli/", "client/cpp/", "server/index/"),
    "gpu_worker/kernels/": MATHEMATICS,
    "gpu_worker/backend/": MATHEMATICS + ("gpu_worker/kernels/",),
    "gpu_worker/model/": VOCABULARY + ("client/cpp/", "gpu_worker/backend/"),
    "gpu_worker/service/": WIRE + ("client/cpp/", "gpu_worker/model/", "gpu_worker/backend/"),
    "gpu_worker/main.cc": WIRE + ("client/cpp/", "gpu_worker/"),
}

# A header of another project: the only places that may include it.
ONLY_IN = {
    r"hnswlib/": ("server/index/graph/hnsw_builder.cc",),
    r"(grpc|grpcpp)/": (
        "server/service/", "server/cluster/", "server/main.cc", "client/", "gpu_worker/service/",
        "gpu_worker/main.cc", "wire/channel.", "tests/"),
    r"etcd/": ("server/cluster/etcd/", "tests/unit/cluster/etcd/"),
    r"google/protobuf/": (
        "wire/", "server/service/", "server/cluster/", "client/", "gpu_worker/service/", "tests/"),
    r"(cuda|cuda_\w+|cublas\w*|cooperative_groups)\.h": (
        "gpu_worker/kernels/", "gpu_worker/backend/", "tests/"),
    r"hwy/": ("attention/", "server/index/", "gpu_worker/model/", "gpu_worker/backend/", "tests/"),
    r"rocksdb/": ("server/storage/", "tests/"),
    r"xxhash": ("server/storage/", "api/shard.cc", "server/session/",
        "server/cluster/placement/rendezvous.cc",
        "api/snapshot_frames.cc", "tests/"),
    r"prometheus/": ("server/metrics/", "tests/"),
    r"cblas": ("server/index/segment/matrix_product.cc", "gpu_worker/"),
}


def project_files():
    """Tracked files and new ones that git does not ignore, as paths relative to the root."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [Path(name) for name in listing.split("\0") if name and (ROOT / name).is_file()]


FILES = project_files()
CODE = [f for f in FILES if f.suffix in CPP]
PYTHON = [f for f in FILES if f.suffix == ".py"]
LINED = CODE + PYTHON + [
    f for f in FILES
    if f.suffix in (".proto", ".cmake", ".sh") or f.name in ("CMakeLists.txt", "run")]


def text_of(path):
    return (ROOT / path).read_text(encoding="utf-8")


def lines_of(path):
    return text_of(path).splitlines()


def report(violations):
    assert not violations, "\n" + "\n".join(sorted(violations))


def without_comments_and_strings(text):
    """C++ with comments and literals blanked out, lines kept."""
    token = re.compile(
        r'//[^\n]*|/\*.*?\*/|R"(?P<tag>[^(]*)\(.*?\)(?P=tag)"|"(?:\\.|[^"\\\n])*"|'
        r"(?<![0-9a-zA-Z_])'(?:\\.|[^'\\\n])+'", re.DOTALL)
    return token.sub(lambda m: "\n" * m.group().count("\n"), text)


def cpp_functions(text):
    """(first line, line count) of each function body with its signature, by counting braces."""
    blank = without_comments_and_strings(re.sub(r"^[ \t]*#.*(?:\\\n.*)*", "", text, flags=re.M))
    functions, open_braces, head_begin, line = [], [], 0, 1
    for index, character in enumerate(blank):
        if character == "{":
            head = blank[head_begin:index]
            inside_function = any(kind == "function" for kind, _ in open_braces)
            scope = re.search(r"\b(namespace|class|struct|enum|union|extern)\b[^()]*$", head)
            is_function = ")" in head and not scope and not inside_function and "=" not in head
            first_line = line - head.lstrip().count("\n")
            open_braces.append(("function" if is_function else "other", first_line))
        elif character == "}" and open_braces:
            kind, first_line = open_braces.pop()
            if kind == "function":
                functions.append((first_line, line - first_line + 1))
        if character in ";{}":
            head_begin = index + 1
        if character == "\n":
            line += 1
    return functions


def test_the_function_counter_counts():
    text = "namespace a {\nclass B {\n  int C() const {\n    if (x) {\n    }\n  }\n};\n}\n"
    assert cpp_functions(text) == [(3, 4)]
    assert cpp_functions('void F(\n    int a) {\n  auto s = "}";  // }\n}\n') == [(1, 4)]
    assert cpp_functions("struct S {\n  int a = 0;\n};\n") == []


def test_file_sizes():
    counts = {f: len(lines_of(f)) for f in CODE + PYTHON}
    report([f"{f}: {n} lines, at most {LINES_MAX}" for f, n in counts.items() if n > LINES_MAX])
    assert statistics.median(counts.values()) < LINES_MEDIAN_MAX


def test_no_large_files_but_the_model():
    large = [f for f in FILES if (ROOT / f).stat().st_size > FILE_BYTES_MAX]
    report([f"{f}: over 1 MiB" for f in large if f.name != "model.safetensors"])


def test_function_lengths():
    violations = []
    for path in CODE:
        for line, count in cpp_functions(text_of(path)):
            if count >= FUNCTION_LINES_MAX:
                violations.append(f"{path}:{line}: function of {count} lines")
    for path in PYTHON:
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                count = node.end_lineno - node.lineno + 1
                if count >= FUNCTION_LINES_MAX:
                    violations.append(f"{path}:{node.lineno}: function of {count} lines")
    report(violations)


def test_columns_tabs_and_line_ends():
    violations = []
    for path in LINED:
        text = text_of(path)
        if text and not text.endswith("\n"):
            violations.append(f"{path}: no newline at the end")
        for number, line in enumerate(text.splitlines(), 1):
            if len(line) > COLUMNS_MAX:
                violations.append(f"{path}:{number}: {len(line)} columns, at most {COLUMNS_MAX}")
            if "\t" in line:
                violations.append(f"{path}:{number}: tab")
            if line != line.rstrip():
                violations.append(f"{path}:{number}: space at the end of the line")
    report(violations)


def test_banned_words():
    violations = []
    for path in LINED + [f for f in FILES if f.suffix == ".md"]:
        for number, line in enumerate(lines_of(path), 1):
            if match := BANNED.search(line):
                violations.append(f"{path}:{number}: '{match.group()}'")
    report(violations)


def test_header_guards():
    violations = []
    for path in CODE:
        if path.suffix not in (".h", ".cuh"):
            continue
        text = text_of(path)
        guard = "ATTIC_" + re.sub(r"[^A-Z0-9]", "_", str(path).upper()) + "_"
        per_target = "HWY_TARGET_TOGGLE" in text  # Highway includes these once per instruction set
        if not per_target and f"#ifndef {guard}\n#define {guard}\n" not in text:
            violations.append(f"{path}: no header guard {guard}")
        if per_target and guard not in text:
            violations.append(f"{path}: no header guard {guard}")
    report(violations)


def layer_of(path):
    prefixes = [prefix for prefix in LAYERS if str(path).startswith(prefix)]
    return max(prefixes, key=len) if prefixes else None


def includes_of(path):
    for number, line in enumerate(lines_of(path), 1):
        if match := re.match(r'\s*#\s*include\s*["<]([^">]+)[">]', line):
            yield number, match.group(1)


def test_layering():
    violations = []
    for path in CODE:
        if path.parts[0] == "tests":
            continue
        layer = layer_of(path)
        if layer is None:
            violations.append(f"{path}: its folder is not in LAYERS")
            continue
        own = str(path.parent) + "/"
        for number, header in includes_of(path):
            in_project = (ROOT / header).is_file() or header.startswith("attic/")
            if in_project and not header.startswith(LAYERS[layer] + (own,)):
                violations.append(f"{path}:{number}: {layer} may not include {header}")
    report(violations)


def test_headers_of_other_projects():
    violations = []
    for path in CODE:
        for number, header in includes_of(path):
            for pattern, places in ONLY_IN.items():
                if re.match(pattern, header) and not str(path).startswith(places):
                    violations.append(f"{path}:{number}: {header} only in {', '.join(places)}")
    report(violations)


def cmake_text_for(path):
    """The CMakeLists.txt of the folder and of its parents, which may list the file."""
    folders = [path.parent, *path.parent.parents]
    return "\n".join(
        text_of(folder / "CMakeLists.txt") for folder in folders
        if (ROOT / folder / "CMakeLists.txt").is_file())


def is_listed(path, cmake_text):
    """By its name, or by its stem where a loop over stems makes the names."""
    loops = re.findall(r"\$\{\w+\}(\w*\.cc)\b", cmake_text)
    names = [path.name] + [path.name.removesuffix(end) for end in loops]
    return any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", cmake_text) for name in names)


def test_every_source_is_built():
    sources = [f for f in CODE if f.suffix in (".cc", ".cu")]
    report([f"{f}: in no CMakeLists.txt" for f in sources if not is_listed(f, cmake_text_for(f))])


def test_every_python_test_runs():
    tests = [f for f in PYTHON if re.search(r"(^test_|_test$)", f.stem)]
    collected = lambda f: f.stem.endswith("_test") and (
        f.parent in (Path("tests/integration"), Path("tests/deploy"), Path("tests/cluster"))
        or f == Path("tests/tidy_test.py")
        or f.is_relative_to("tests/bench/index"))
    report([f"{f}: not run by ./run test" for f in tests if not collected(f)])


def limits_of_header():
    limits = {}
    for line in lines_of("api/limits.h"):
        if match := re.match(r"\s+\w+ (\w+) = ([^;]+);", line):
            expression = re.sub(r"int64_t\{(\d+)\}|(\d+)u\b", r"\1\2", match.group(2))
            assert re.fullmatch(r"[\d <+*-]+", expression), line
            limits[match.group(1)] = eval(expression)
    return limits


def limits_of_reference():
    units = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "bytes": 1, None: 1}
    limits = {}
    for line in lines_of("docs/reference.md"):
        if match := re.match(r"\| `(\w+_max)` \| ([\d,]+)(?: (\w+))? \|", line):
            limits[match.group(1)] = int(match.group(2).replace(",", "")) * units[match.group(3)]
    return limits


def test_the_reference_lists_the_limits():
    assert limits_of_reference() == limits_of_header()


def test_readme_shows_the_compiled_example():
    example = text_of("client/cpp/examples/quickstart.cc")
    blocks = re.findall(r"```cpp\n(.*?)```", text_of("README.md"), re.DOTALL)
    assert example in blocks


def test_links_in_documents_lead_somewhere():
    violations = []
    for path in [f for f in FILES if f.suffix == ".md"]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(path)):
            if not target.startswith("http") and not (ROOT / path.parent / target).exists():
                violations.append(f"{path}: link to {target}")
    report(violations)
