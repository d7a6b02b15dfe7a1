"""A classifier's loss, predictions, scores and probability threshold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.core.batch import Batch
from scratchlm.core.errors import DataError
from scratchlm.core.protocols import Tokenizer, Total
from scratchlm.data.loaders import BatchLoader
from scratchlm.evaluation.confusion_matrix import ClassificationScores, score_classes
from scratchlm.finetuning.activation_cache import ActivationCache, CachedExamples
from scratchlm.finetuning.heads import Position, logits_above, states_below
from scratchlm.finetuning.input_format import InputFormat
from scratchlm.model.gpt import GPTModel
from scratchlm.model.loss import at_least_float32
from scratchlm.model.modes import evaluation_mode


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The minimum probability for predicting `label`, one of two classes; below it the other one is."""

    label: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A classifier's prediction for a text."""

    text: str
    label: str
    probability: float  # of that label
    is_truncated: bool = False  # whether the text was longer than max_length
    probabilities: tuple[float, ...] = ()  # of every class, in order


@dataclass(kw_only=True, eq=False)
class ClassificationTask:
    """Classify a text from the state of one of its tokens.

    For a batch with cached `states` the forward pass starts above the blocks that computed them. is_plain
    runs the last block at every position instead of only the one that the head reads; the results agree.
    """

    class_weights: Tensor | None = None
    label_smoothing: float = 0.0
    position: Position = "last-real"
    is_plain: bool = False
    token_noise: float = 0.0

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """The scores of each class.

        Shapes: -> (B, C).
        """
        assert isinstance(model, GPTModel)
        mask, states = batch.attention_mask, batch.states
        if states is None:
            inputs = batch.inputs
            if model.training and self.token_noise > 0:
                inputs = replace_at_random(inputs, self.token_noise, vocab_size=model.config.vocab_size)
            states = states_below(model, inputs, 0, attention_mask=mask)  # (B, T, E)
        return logits_above(
            model, states, batch.n_blocks, attention_mask=mask, position=self.position, is_plain=self.is_plain
        )

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy summed over the texts, in nats; during training weighted by class."""
        logits = at_least_float32(self.logits(model, batch))  # (B, C)
        weights = self.class_weights if model.training else None
        smoothing = self.label_smoothing if model.training else 0.0
        weights = None if weights is None else weights.to(logits)
        return F.cross_entropy(
            logits, batch.targets, weight=weights, reduction="sum", label_smoothing=smoothing
        )

    def metrics(self, model: nn.Module, loader: Iterable[Batch], *, total: Total = list) -> dict[str, float]:
        """Mean loss and accuracy over a loader."""
        device = next(model.parameters()).device
        loss_sum, n_right, n = 0.0, 0.0, 0.0
        with evaluation_mode(model):
            for batch in (batch.to(device) for batch in loader):
                logits = at_least_float32(self.logits(model, batch))  # (B, C)
                loss_sum += F.cross_entropy(logits, batch.targets, reduction="sum").item()
                n_right += int((logits.argmax(dim=1) == batch.targets).sum())
                n += batch.n_targets
        loss_sum, n_right, n = total([loss_sum, n_right, n])
        if n == 0:
            raise DataError("there is no labelled text to evaluate; check the split.")
        return {"loss": loss_sum / n, "accuracy": n_right / n}


def replace_at_random(ids: Tensor, share: float, *, vocab_size: int) -> Tensor:
    """Replace a share of the tokens by random ones, so that a classifier does not rely on single tokens.

    Draws from torch's global generator, whose state a run saves and restores.
    Shapes: ids (B, T) -> (B, T), a new tensor.
    """
    is_replaced = torch.rand(ids.shape, device=ids.device) < share  # (B, T)
    return torch.where(is_replaced, torch.randint_like(ids, vocab_size), ids)


def predict(
    texts: Sequence[str],
    model: GPTModel,
    tokenizer: Tokenizer,
    classes: Sequence[str],
    input_format: InputFormat,
    *,
    batch_size: int = 64,
    threshold: Threshold | None = None,
    cache: ActivationCache | None = None,
) -> list[Prediction]:
    """Predict the class of each text, in batches of similar length; returns them in the order of the texts.

    Raises: DataError for an empty text.
    """
    if not texts:
        return []
    examples = input_format.examples(texts, [classes[0]] * len(texts), tokenizer, classes)
    is_truncated = examples.is_truncated
    loader = BatchLoader(
        examples if cache is None else CachedExamples(examples, cache),
        batch_size=batch_size,
        shuffle=False,
        bucket_by_length=True,
    )
    device = next(model.parameters()).device
    task = ClassificationTask(position=input_format.position)
    predictions: dict[int, Prediction] = {}
    with evaluation_mode(model):
        for indices, batch in zip(loader.indices(0), loader):
            probs = task.logits(model, batch.to(device)).float().softmax(dim=1)  # (B, C)
            for i, row in zip(indices.tolist(), probs.tolist()):
                best = _decide(row, classes, threshold)
                predictions[i] = Prediction(
                    text=texts[i],
                    label=classes[best],
                    probability=row[best],
                    is_truncated=bool(is_truncated[i]),
                    probabilities=tuple(row),
                )
    return [predictions[i] for i in range(len(texts))]


def score_predictions(
    predictions: Sequence[Prediction], labels: Sequence[str], classes: Sequence[str]
) -> ClassificationScores:
    """Compare predictions with the true labels."""
    number = {label: i for i, label in enumerate(classes)}
    guessed = [number[prediction.label] for prediction in predictions]
    return score_classes([number[label] for label in labels], guessed, classes=classes)


def check_two_classes(classes: Sequence[str]) -> None:
    """Raise DataError unless there are two classes, as a threshold needs."""
    if len(classes) != 2:
        raise DataError(
            f"a threshold needs exactly two classes, got {len(classes)}; leave choose_threshold off."
        )


def best_threshold(
    predictions: Sequence[Prediction], labels: Sequence[str], classes: Sequence[str]
) -> Threshold:
    """Find the threshold for the second class with the best balanced accuracy; of equals the one nearest to 1/2.

    Raises: DataError for other than two classes, and for a class without texts.
    """
    check_two_classes(classes)
    scored = sorted(
        (prediction.probabilities[1], label == classes[1]) for prediction, label in zip(predictions, labels)
    )
    n_second = sum(is_second for _, is_second in scored)
    n_first = len(scored) - n_second
    if n_first == 0 or n_second == 0:
        raise DataError(
            f"a threshold needs texts of both classes, got {n_first} and {n_second}; leave choose_threshold off."
        )
    weight = {False: n_second, True: n_first}  # integers, so that ties are exact
    right = n_second * weight[True]  # a threshold of 0 predicts the second class for every text
    best, best_right = 0.0, right
    for i, (probability, is_second) in enumerate(scored):
        right += -weight[True] if is_second else weight[False]  # this text is now below the threshold
        above = scored[i + 1][0] if i + 1 < len(scored) else 1.0
        between = (probability + above) / 2
        if probability < above and (right, -abs(between - 0.5)) > (best_right, -abs(best - 0.5)):
            best, best_right = between, right
    return Threshold(label=classes[1], probability=best)


def _decide(probs: Sequence[float], classes: Sequence[str], threshold: Threshold | None) -> int:
    if threshold is None:
        return max(range(len(probs)), key=probs.__getitem__)
    chosen = list(classes).index(threshold.label)
    return chosen if probs[chosen] >= threshold.probability else 1 - chosen
