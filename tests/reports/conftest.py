"""The tiny recipe and its finished run, which the tests of recipes use as well."""

from tests.recipes.conftest import (  # noqa: F401
    data_files,
    finished,
    one_thread,
    own_home,
    recipe_of,
    run_it,
    stop_in,
    values,
)
