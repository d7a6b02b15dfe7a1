"""Use a trained model as one Python object."""
