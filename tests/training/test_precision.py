"""bf16 computes products in bfloat16 and keeps float32 weights; a resumed run equals the uninterrupted one."""

from dataclasses import replace

import pytest
import torch

from scratchlm.core.batch import Batch
from scratchlm.model import GPTModel
from scratchlm.training import precision
from scratchlm.training.precision import choose_precision
from scratchlm.training.pretraining import PretrainingTask
from tests.training.conftest import assert_same_weights, finished, refused, stopped_at
from tests.training.test_planner import TINY, VARIANTS

CPU = torch.device("cpu")


def processor(monkeypatch, *, ratio=4.0, **capabilities):
    """Let the processor have these capabilities, and blocks run at `ratio` times the speed in bfloat16."""
    found = {"architecture": "x86_64", **capabilities}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    monkeypatch.setattr(precision, "_speedup", lambda config, batch_size, device: ratio)


@pytest.mark.parametrize("instructions", ["amx_bf16", "avx512_bf16"])
def test_auto_takes_bf16_where_the_processor_has_it_and_it_is_fast(monkeypatch, instructions):
    processor(monkeypatch, **{instructions: True})
    chosen = choose_precision("auto", CPU, TINY, 4)
    assert chosen.name == "bf16"
    assert chosen.reason == "a block of the model runs at 4.0 times the speed of float32 in bfloat16"
    processor(monkeypatch, ratio=1.05, **{instructions: True})
    assert choose_precision("auto", CPU, TINY, 4).name == "float32"


def test_auto_does_not_even_measure_where_bfloat16_is_emulated(monkeypatch):
    processor(monkeypatch, amx_bf16=False, avx2=True)
    monkeypatch.setattr(precision, "_speedup", None)
    chosen = choose_precision("auto", CPU, TINY, 4)
    assert (chosen.name, chosen.reason) == ("float32", "the processor has no bfloat16 instructions")


def test_auto_on_a_gpu_goes_by_its_generation(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "compute capability (7, 5)" in choose_precision("auto", cuda, TINY, 4).reason
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(precision, "_speedup", lambda config, batch_size, device: 5.0)
    assert choose_precision("auto", cuda, TINY, 4).name == "bf16"


def test_the_choice_is_announced_and_kept_when_the_run_resumes_on_another_processor(
    tiny_run, tmp_path, monkeypatch
):
    processor(monkeypatch, amx_bf16=True)
    said = []
    trainer, train, val = tiny_run(tmp_path, precision="auto")
    trainer.notify = said.append
    stopped_at((trainer, train, val), 5)
    assert said == ["precision bf16: a block of the model runs at 4.0 times the speed of float32 in bfloat16"]
    processor(monkeypatch, amx_bf16=False)
    trainer, train, val = tiny_run(tmp_path, precision="auto")
    trainer.notify = said.append
    assert finished((trainer, train, val), resume=True).precision.name == "bf16"
    assert said[1:] == ["precision bf16: as before the interruption"]


def test_a_run_does_not_resume_in_another_precision(tiny_run, tmp_path):
    stopped_at(tiny_run(tmp_path, precision="bf16"), 5)
    refused(tiny_run(tmp_path), "trained with precision=bf16, now it is float32")


@pytest.mark.parametrize(("drop_rate", "accumulate"), [(0.0, 1), (0.1, 4)])
@pytest.mark.parametrize("stop_at", [1, 4, 9])
def test_a_resumed_bf16_run_equals_the_undisturbed_one_bit_for_bit(
    tiny_run, tmp_path, stop_at, drop_rate, accumulate
):
    settings = {"precision": "bf16", "accumulate": accumulate, "eval_every_steps": 4, "drop_rate": drop_rate}
    undisturbed = finished(tiny_run(tmp_path / "a", **settings))
    stopped_at(tiny_run(tmp_path / "b", **settings), stop_at)
    resumed = finished(tiny_run(tmp_path / "b", **settings), resume=True)
    assert resumed.resumed_from == stop_at
    assert_same_weights(undisturbed, resumed)
    assert undisturbed.progress.val_loss == resumed.progress.val_loss


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_products_are_in_bfloat16_and_everything_that_is_kept_in_float32(tiny_run, optimizer):
    trainer, train, val = tiny_run(
        precision="bf16", eval_every_steps=6, optimizer=optimizer, sample_every_steps=6
    )
    outputs = {"training": set(), "evaluation": set()}

    def record(module, inputs, output):
        outputs["training" if module.training else "evaluation"].add(output.dtype)

    trainer.model.trf_blocks[0].ff.layers[0].register_forward_hook(record)
    trainer.sample = lambda model, step: ("", str(model.trf_blocks[0].ff.layers[0](torch.zeros(1, 16)).dtype))
    finished((trainer, train, val))
    assert outputs["training"] == {torch.bfloat16}  # the sample's too: it is drawn in training mode here
    assert outputs["evaluation"] == {torch.bfloat16}
    kept = {**trainer.model.state_dict(), **trainer.optimizers.state()}
    assert {tensor.dtype for tensor in kept.values() if tensor.is_floating_point()} == {torch.float32}


def test_the_loss_is_that_of_float32_within_one_percent(tiny_run):
    """bfloat16 has 8 bits: single products are off by up to 0.4 %, and errors of many of them cancel."""
    losses = [
        finished(tiny_run(precision=name, drop_rate=0.0)).progress.train_loss for name in ("float32", "bf16")
    ]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_model_has_about_the_gradient_of_float32(variant):
    model = GPTModel(replace(TINY, **VARIANTS[variant]))
    model.eval()  # no dropout, which would differ
    ids = torch.arange(32).reshape(2, 16)
    batch = Batch(inputs=ids, targets=(ids + 1) % 50)
    gradients = []
    for name in ("float32", "bf16"):
        model.zero_grad()
        with choose_precision(name, CPU, TINY, 4).context():
            loss = PretrainingTask().loss_sum(model, batch)
        loss.backward()
        assert loss.dtype == torch.float32
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert 0 < (gradients[0] - gradients[1]).norm() < 0.02 * gradients[0].norm()


def test_the_measurement_changes_no_random_number():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert 0 < precision._speedup(TINY, 2, CPU) < 1000
    assert torch.equal(torch.rand(4), expected)
