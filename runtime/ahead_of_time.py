"""Compiling every kernel ahead of time into one shared library, for boxes without numba.

Each kernel gets a C entry that takes one array of 64-bit words (a number's bits; an array's address
and its lengths) and is optimised by numba for a stated CPU level. The machine code is linked with
`kernel_library.c`, which makes builtin functions of the entries. Needs numba and a C compiler: this
runs on the machine that builds, never on the box.

`python -m runtime.ahead_of_time OUTPUT [CPU [MACHINE [COMPILER]]]`, with NUMBA_CPU_NAME=CPU and
NUMBA_CPU_FEATURES empty, so that numba optimises for that level; `tocsin warm` calls it so.
"""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from runtime import kernel_library, kernels
from runtime.sealed import seal
from telemetry.errors import ConfigError

SOURCE = Path(__file__).with_name("kernel_library.c")
# What LLVM calls the machine and its least CPU.
TARGETS = {
    "x86_64": ("x86_64-unknown-linux-gnu", "x86-64"),
    "aarch64": ("aarch64-unknown-linux-gnu", "generic"),
}
KINDS = {"i": "int", "u": "uint", "f": "float"}


def build(
    output: Path,
    *,
    cpu: str,
    machine: str,
    compiler: str = "cc",
    version: str = "",
    progress: Callable[[str], None] = lambda name: None,
) -> None:
    """Compile every registered kernel and link the library `output`, or raise ConfigError."""
    made = list(kernels.registered())
    target = _target_machine(cpu, machine)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        objects = []
        for number, kernel in enumerate(made):
            place = folder / f"{number}.o"
            place.write_bytes(_object_code(kernel, f"tocsin_kernel_{number}", target))
            objects.append(str(place))
            progress(kernel.name)
        description = {
            "format": kernel_library.FORMAT,
            "version": version,
            "machine": machine,
            "cpu": cpu,
            "sources": kernel_library.source_digest(kernels.KERNEL_MODULES),
            "kernels": [(k.name, kernel_library.plain(k.signature)) for k in made],
        }
        (folder / "kernel_table.h").write_text(_table(made, json.dumps(description)), "utf-8")
        output.parent.mkdir(parents=True, exist_ok=True)
        part = output.with_name(f".{output.name}.{os.getpid()}")
        # No -march: what runs before the CPU level was looked at must run anywhere.
        command = [
            compiler, "-shared", "-fPIC", "-O2", "-Wall", "-fvisibility=hidden", "-I", str(folder),
            str(SOURCE), *objects, "-o", str(part), "-lm", "-s", "-Wl,-z,now,-z,relro",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise ConfigError(
                f"{compiler}: {error.strerror}; a C compiler is needed where the library is made "
                f"(apt install gcc), or name one with --compiler"
            ) from error
        if done.returncode:
            raise ConfigError(f"{compiler} could not link the kernels: {done.stderr.strip()}")
        part.write_bytes(seal(part.read_bytes()))
        part.replace(output)


def _target_machine(cpu: str, machine: str) -> Any:
    from llvmlite import binding

    if machine not in TARGETS:
        raise ConfigError(f"machine {machine!r} is none of {', '.join(TARGETS)}")
    triple, least = TARGETS[machine]
    if machine == platform.machine() == "x86_64" and os.environ.get("NUMBA_CPU_NAME") != cpu:
        raise ConfigError(f"NUMBA_CPU_NAME must be {cpu} before numba is imported")
    if machine == "x86_64" and cpu not in kernel_library.LEVELS:
        raise ConfigError(f"CPU level {cpu!r} is none of {', '.join(kernel_library.LEVELS)}")
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    name = least if cpu == kernel_library.GENERIC else cpu
    return binding.Target.from_triple(triple).create_target_machine(
        cpu=name, opt=3, reloc="pic", codemodel="small"
    )


def _object_code(kernel: "kernels.Kernel[..., Any]", entry: str, target: Any) -> bytes:
    """Return an object file in which only `entry` is seen from outside."""
    from llvmlite import binding

    module = binding.parse_assembly(_entry(kernel))
    for part in (*module.functions, *module.global_variables):
        if part.is_declaration:
            continue
        if part.name.startswith("cfunc."):
            part.name = entry
            part.visibility = "hidden"  # our C half calls it, nobody else
        else:
            part.linkage = "internal"
    module.triple = target.triple
    module.data_layout = str(target.target_data)
    builder = binding.create_pass_builder(target, binding.create_pipeline_tuning_options(3))
    passes = binding.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_strip_dead_prototype_pass()
    passes.run(module, builder)
    module.verify()
    code: bytes = target.emit_object(module)
    return code


def _entry(kernel: "kernels.Kernel[..., Any]") -> str:
    """Return the LLVM assembly of a C function `int64 cfunc.*(uint64 *words)` around a kernel."""
    from llvmlite import ir
    from numba.extending import intrinsic

    numba: Any = import_module("numba")  # its own types do not say what a code generator needs
    types = numba.types

    def address(typing_context, word):  # type: ignore[no-untyped-def]  # noqa: ARG001
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # noqa: ARG001
            return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

        return types.voidptr(types.uint64), generate

    def number(typing_context, word):  # type: ignore[no-untyped-def]  # noqa: ARG001
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # noqa: ARG001
            return builder.bitcast(arguments[0], ir.DoubleType())

        return types.float64(types.uint64), generate

    kernels.link(kernel.function)
    signature = kernels.parse_signature(kernel.signature)
    if signature.return_type != types.int64:
        raise ConfigError(f"{kernel.name}: a kernel returns i8, not {signature.return_type}")
    known: dict[str, Any] = {
        "kernel": numba.njit(signature, no_cpython_wrapper=True, **kernels.OPTIONS)(
            kernel.function
        ),
        "carray": numba.carray,
        "address": intrinsic(address),
        "number": intrinsic(number),
        "types": types,
    }
    given, word = [], 0
    for kind in signature.args:
        if isinstance(kind, types.Array):
            lengths = "".join(f"types.int64(words[{word + 1 + d}])," for d in range(kind.ndim))
            known[str(kind.dtype)] = kind.dtype
            given.append(f"carray(address(words[{word}]), ({lengths}), {kind.dtype})")
            word += 1 + kind.ndim
        else:
            change = "number" if kind == types.float64 else f"types.{kind}"
            given.append(f"{change}(words[{word}])")
            word += 1
    text = f"def entry(words):\n    return kernel({', '.join(given)})\n"
    exec(text, known)  # noqa: S102  # our own text: numba compiles functions, not trees
    made = numba.cfunc(types.int64(types.CPointer(types.uint64)))(known["entry"])
    assembly: str = made.inspect_llvm()
    return assembly


def _table(made: "list[kernels.Kernel[..., Any]]", description: str) -> str:
    """Return the C table of the kernels: names, parameters, entries."""
    lines, rows = [], []
    for number, kernel in enumerate(made):
        names = kernel.function.__code__.co_varnames
        parameters = []
        for name, (text, kind) in zip(names, kernels.parameters(kernel.signature), strict=False):
            found = re.fullmatch(r"([iuf])(\d)(\[.*\])?", kind)
            if found is None:
                raise ConfigError(f"{kernel.name}: {text!r} cannot be a parameter of a library")
            letter, size, array = found.groups()
            dimensions = array.count(":") - 1 if array else 0  # [:,::1] has two
            writable = int(bool(array) and not text.startswith("const "))
            parameters.append(
                f'{{"{name}", "{text}", \'{letter}\', {size}, {dimensions}, {writable}}}'
            )
        lines.append(f"extern int64_t tocsin_kernel_{number}(uint64_t *);")
        lines.append(f"static const Parameter PARAMETERS_{number}[] = {{{', '.join(parameters)}}};")
        rows.append(
            f'    {{"{kernel.name}", PARAMETERS_{number}, {len(parameters)}, '
            f"tocsin_kernel_{number}}},"
        )
    return "\n".join(
        [
            *lines,
            f"#define KERNELS {len(made)}",
            f"#define DESCRIPTION {json.dumps(description)}",
            "static const Kernel KERNEL[KERNELS] = {",
            *rows,
            "};\n",
        ]
    )


def main() -> None:
    """Build and print the name of each kernel when it is done."""
    output, *rest = sys.argv[1:]
    defaults = ["x86-64-v2", platform.machine(), "cc", ""]
    cpu, machine, compiler, version = rest + defaults[len(rest) :]
    try:
        build(
            Path(output), cpu=cpu, machine=machine, compiler=compiler, version=version,
            progress=lambda name: print(name, flush=True),  # noqa: T201  # the parent reads it
        )  # fmt: skip
    except ConfigError as error:
        sys.stderr.write(f"tocsin: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
