import logging
import os
import platform
import stat
from pathlib import Path

import pytest
import torch

from scratchlm.core.errors import ConfigError
from scratchlm.generation.forward import TorchForward, build_forward
from scratchlm.generation.native import compile as compile_module
from scratchlm.generation.native.compile import NoKernelError, chosen_kernel, kernel_library
from scratchlm.generation.native.kernel import NativeForward
from scratchlm.model import GPTConfig, GPTModel, KVCache


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """A machine that has not compiled the kernel yet."""
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path / "home"))
    kernel_library.cache_clear()
    yield
    kernel_library.cache_clear()


@pytest.fixture
def model() -> GPTModel:
    torch.manual_seed(0)
    return GPTModel(GPTConfig(vocab_size=20, context_length=8, emb_dim=8, n_heads=2, n_layers=1))


def test_it_is_compiled_once_with_one_line_that_says_so(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="scratchlm"):
        kernel_library()
    [library] = (tmp_path / "home" / "kernels").iterdir()  # no partial file beside it
    compiled_at = library.stat().st_mtime_ns
    kernel_library.cache_clear()
    kernel_library()
    assert library.stat().st_mtime_ns == compiled_at
    assert [record.message for record in caplog.records] == [
        "compiling the decoding kernel for this processor (once, a few seconds)"
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_killed_compilation_left_is_gone_after_the_next(tmp_path, monkeypatch):
    kernels = tmp_path / "home" / "kernels"
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(
            compile_module, "_compile", lambda command, target: (target.touch(), os.kill(os.getpid(), 9))
        )
        kernel_library()
    os.waitpid(child, 0)
    assert len(list(kernels.iterdir())) == 1
    kernel_library()
    assert [path.suffix for path in kernels.iterdir()] == [".so"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_compiler_wrote_after_its_parent_was_killed_is_gone_after_the_next_start(tmp_path):
    kernel_library()
    [library] = (tmp_path / "home" / "kernels").iterdir()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    (library.parent / f".{library.name}.partial-{platform.node()}-{child}").touch()
    kernel_library.cache_clear()
    kernel_library()
    assert list(library.parent.iterdir()) == [library]


def test_without_a_compiler_pytorch_computes(model, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    cache = KVCache(model.config, 1)
    with pytest.raises(NoKernelError, match="no C compiler \\('no-such-compiler' is not on PATH\\)"):
        kernel_library()
    assert isinstance(build_forward(model, cache, kernel="auto"), TorchForward)
    with pytest.raises(
        ConfigError, match=r"cannot run this model here: there is no C compiler.*use kernel torch"
    ):
        build_forward(model, cache, kernel="native")


def test_a_compiler_that_fails_is_no_error_for_the_user(tmp_path: Path, model, monkeypatch):
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho 'no space left' >&2\nexit 3\n", encoding="utf-8")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(NoKernelError, match="broken-cc failed: no space left"):
        kernel_library()
    assert list((tmp_path / "home" / "kernels").iterdir()) == []
    assert isinstance(build_forward(model, KVCache(model.config, 1), kernel="auto"), TorchForward)


def test_a_compiler_that_does_not_know_the_processor_compiles_without(tmp_path: Path, model, monkeypatch):
    old = tmp_path / "old-cc"
    old.write_text('#!/bin/sh\ncase "$*" in *-march=native*) exit 1;; esac\nexec cc "$@"\n', encoding="utf-8")
    old.chmod(old.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(old))
    assert isinstance(build_forward(model, KVCache(model.config, 1), kernel="native"), NativeForward)


def test_the_variable_chooses(model, monkeypatch):
    cache = KVCache(model.config, 1)
    monkeypatch.setenv("SCRATCHLM_KERNEL", "torch")
    assert isinstance(build_forward(model, cache), TorchForward)
    monkeypatch.setenv("SCRATCHLM_KERNEL", "native")
    assert isinstance(build_forward(model, cache), NativeForward)
    monkeypatch.setenv("SCRATCHLM_KERNEL", "")
    assert chosen_kernel() == "auto"
    monkeypatch.setenv("SCRATCHLM_KERNEL", "fast")
    with pytest.raises(ConfigError, match="SCRATCHLM_KERNEL must be auto, native or torch, got 'fast'"):
        build_forward(model, cache)
