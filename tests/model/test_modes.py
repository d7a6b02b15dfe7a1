import contextlib
import threading
import time

import pytest
import torch
from torch import nn

from scratchlm.model import evaluation_mode, modes


def mixed_model() -> nn.Sequential:
    """A model in training whose first part was frozen in evaluation mode."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    model[0].eval()
    return model


def test_every_module_returns_to_the_mode_it_had():
    model = mixed_model()
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, False, True]


def test_the_mode_returns_after_an_error():
    model = mixed_model()
    with pytest.raises(KeyError), evaluation_mode(model):
        raise KeyError
    assert model.training
    assert torch.is_grad_enabled()


def test_no_gradients_are_recorded_inside():
    layer = nn.Linear(2, 2)
    with evaluation_mode(layer):
        assert not layer(torch.ones(1, 2)).requires_grad
    assert layer(torch.ones(1, 2)).requires_grad


def test_blocks_inside_each_other_leave_the_mode_to_the_outer_one():
    model = mixed_model()
    with evaluation_mode(model):
        with pytest.raises(KeyError), evaluation_mode(model):
            raise KeyError
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, False, True]


def test_threads_that_share_a_model_never_see_it_in_training_and_restore_its_mode():
    model, wrong = mixed_model(), []
    start = threading.Barrier(4)

    def look(pause_s: float) -> None:
        start.wait()
        for _ in range(30):
            with contextlib.suppress(KeyError), evaluation_mode(model):
                time.sleep(pause_s)
                wrong.extend(name for name, module in model.named_modules() if module.training)
                raise KeyError

    threads = [threading.Thread(target=look, args=(0.0003 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert [module.training for module in model.modules()] == [True, False, True]


def test_a_part_in_evaluation_keeps_its_mode_while_the_whole_is_evaluated():
    model = mixed_model()
    with evaluation_mode(model[1]):
        with evaluation_mode(model):
            pass
        assert model.training
        assert not model[1].training
    assert [module.training for module in model.modules()] == [True, False, True]


def test_a_model_that_is_gone_is_not_remembered():
    model = mixed_model()
    with evaluation_mode(model):
        pass
    assert len(modes._n_users) == 0
