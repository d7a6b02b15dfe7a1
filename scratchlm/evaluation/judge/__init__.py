"""Score a model's answers with a judge model: protocols, parsing of replies, controls and intervals."""
