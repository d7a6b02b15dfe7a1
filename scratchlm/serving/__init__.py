"""A trained model as one Python object."""
