"""Evaluate models: loss, classification, tasks, memorization, judged answers, with confidence intervals."""
