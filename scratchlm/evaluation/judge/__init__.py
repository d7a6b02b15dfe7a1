"""Score a model's answers with a judge: protocols, parsing of replies, controls and intervals."""
