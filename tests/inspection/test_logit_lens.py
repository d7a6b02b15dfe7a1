import torch

from scratchlm.inspection.hooks import recorded
from scratchlm.inspection.logit_lens import logit_lens, residual_names

IDS = torch.tensor([[3, 1, 4, 1, 5]])
NEXT = torch.tensor([1, 4, 1, 5, 9])


def lens_of(model, **settings):
    names = residual_names(model)
    with torch.no_grad(), recorded(model, names) as values:
        logits = model(IDS)
    return logit_lens(model, [values[name][0] for name in names], NEXT, **settings), values, logits[0]


def test_the_last_layer_is_the_models_own_prediction(any_model):
    lens, _, logits = lens_of(any_model, n_alternatives=2)
    assert len(lens) == 3
    probs = logits.softmax(dim=-1)
    torch.testing.assert_close(torch.tensor([e.prob for e in lens[-1]]), probs[range(5), NEXT])
    losses = torch.nn.functional.cross_entropy(logits, NEXT, reduction="none")
    torch.testing.assert_close(torch.tensor([e.loss for e in lens[-1]]), losses)
    assert [e.alternatives[0][0] for e in lens[-1]] == logits.argmax(dim=-1).tolist()


def test_an_earlier_layer_is_read_through_the_final_norm_and_head(any_model):
    lens, values, _ = lens_of(any_model)
    with torch.no_grad():
        for row, stream in zip(
            lens, (values["blocks.0.hook_resid_pre"], values["blocks.0.hook_resid_post"]), strict=False
        ):
            probs = any_model.out_head(any_model.final_norm(stream))[0].softmax(dim=-1)  # (T, V)
            assert [e.rank for e in row] == (probs > probs[range(5), NEXT][:, None]).sum(dim=-1).tolist()


def test_states_can_be_pooled(any_model):
    lens, values, _ = lens_of(any_model)
    residuals = [values[name][0] for name in residual_names(any_model)]
    pooled = logit_lens(any_model, residuals, NEXT[-1:], pool=lambda states: states[-1:])
    assert [[e.rank for e in row] for row in pooled] == [[row[-1].rank] for row in lens]
