import torch

from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.forward import TorchForward, build_forward
from scratchlm.generation.generate import generate_ids
from scratchlm.model.kv_cache import KVCache


def test_a_model_that_the_kernel_does_not_know_gets_a_cache_of_its_own_number_type(tiny_model):
    model = tiny_model.bfloat16().eval()
    cache = KVCache(model.config, 1)
    assert isinstance(build_forward(model, cache), TorchForward)
    assert cache.size_bytes == 0
    [found] = generate_ids(model, [[1, 2]], GenerationConfig(max_new_tokens=4))
    with torch.no_grad():
        ids = [1, 2]
        for _ in range(4):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert found.ids == ids[2:]
