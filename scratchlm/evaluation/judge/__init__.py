"""A judgement that is a measurement: answers in, scores with their interval out, nothing lost, nothing invented."""
