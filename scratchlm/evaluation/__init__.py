"""Evaluate models: loss, accuracy, tasks, memorization, judged answers, with confidence intervals."""
